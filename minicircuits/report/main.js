"use strict";
/* The page, from top to bottom. */

document.title = page.title;
byId("title").textContent = page.title;
byId("notices").append(...page.notices.map(text => el("p", {class: "notice"}, text)));
for (const [section, reason] of Object.entries(page.absent)) {
  byId(section).replaceChildren(byId(section).querySelector("h2"),
                                el("p", {class: "notice"}, reason));
}

const model = page.model && livingModel(page.model, page.shown_heads);
const weights = model || page.absent.ledger ? null : givenWeights(page.ledger);
texts.push(...page.texts.map(text => model ? model.text(text.name, text.tokens)
                                           : givenText(text, weights)));
if (page.split) texts.at(-1).repeated = true;
state.head = Math.max(0, page.shown_heads.findIndex(head =>
  headName(head) === headName(page.induction ?? page.shown_heads.at(-1))));
select({text: page.opening, place: page.start});

let written = null;
if (model) {
  if (page.absent.attention) byId("ledger-figure").prepend(byId("sentence") ?? el("div", {id: "sentence"}));
  written = sentence(byId("sentence"), model, page.merges ? tokenizerOf(page.merges)
                     : namedTokens(page.vocabulary, model.W.d_vocab));
}
if (!page.absent.attention) {
  steps(byId("steps"), written?.write);
  explorer(byId("explorer"));
}
if (!page.absent.ledger) ledger();
if (!page.absent.heads) headDump(page.dump, page.heads);
if (!page.absent.composition) {
  composition(page.composition, page.shown_heads);
  eigenvalues(page.eigenvalues, page.heads);
  behaviors(page.heads);
}
if (!page.absent.split) split(page.split);
if (!page.absent.importance) importance(page.importance);
overview(page.overview);
byId("made").textContent = Object.entries(page.overview.made)
  .map(([name, value]) => `${name} ${value}`).join(" · ");
followLinks();
keepAddress(written?.restore ?? (() => undefined));
