"use strict";
/* The page, from top to bottom. */

document.title = page.title;
byId("title").textContent = page.title;
byId("notices").append(...page.notices.map(text => el("p", {class: "notice"}, text)));
for (const [section, reason] of Object.entries(page.absent)) {
  byId(section).replaceChildren(byId(section).querySelector("h2"),
                                el("p", {class: "notice"}, reason));
}
const chosen = page.induction ?? page.shown_heads.at(-1);
const model = page.model && livingModel(page.model, page.shown_heads);
const weights = model || page.absent.ledger ? null : givenWeights(page.ledger);
const texts = page.texts.map(text => model ? model.text(text.name, text.tokens)
                                           : givenText(text, weights));
const apart = model ? texts : texts.filter(text => text.splitHeads);   // scores, logits come apart

/* Where the model runs, all figures show the text that the reader chose in one of them. */
const showing = [];
const chose = model ? (n, place) => showing.forEach(show => show(n, place)) : null;

overview(page.overview);
if (!page.absent.split) showing.push(split(apart, page.split, chosen, chose));
const figures = [];
if (!page.absent.attention) {
  figures.push(explorer(byId("explorer"), texts, page.opening,
    page.shown_heads.findIndex(head => headName(head) === headName(chosen)), page.start, chose,
    model));
}
if (!page.absent.ledger) {
  const text = texts[page.opening], place = page.start;
  const target = text.tokens[place + 1] ?? text.next(place)[0][0];
  figures.push(ledger(apart, apart.indexOf(text), {place, target}, chose));
}
showing.push(...figures.map(({show}) => show));
if (model && figures.length) {                       // without heads, the ledger has the sentence
  const field = byId("sentence") ?? el("div", {id: "sentence"});
  if (!field.isConnected) byId("ledger-figure").prepend(field);
  const tokenizer = page.merges ? tokenizerOf(page.merges)
                                : namedTokens(page.vocabulary, model.W.d_vocab);
  showing.push(sentence(field, model, tokenizer, texts, figures[0].at, chose));
  showing.at(-1)();
}
if (!page.absent.heads) headDump(page.dump, page.heads);
if (!page.absent.composition) {
  composition(page.composition, page.shown_heads);
  eigenvalues(page.eigenvalues, page.heads);
  behaviors(page.heads);
}
if (!page.absent.importance) importance(page.importance);
byId("made").textContent = Object.entries(page.overview.made)
  .map(([name, value]) => `${name} ${value}`).join(" · ");
