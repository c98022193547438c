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
const apart = page.texts.filter(text => text.parts);   // whose scores and logits come apart

overview(page.overview);
if (!page.absent.split) split(apart, page.split, chosen);
if (!page.absent.attention) {
  explorer(byId("explorer"), page.texts, page.opening,
           page.shown_heads.findIndex(head => headName(head) === headName(chosen)),
           page.start);
}
if (!page.absent.heads) headDump(page.dump, page.heads);
if (!page.absent.ledger) ledger(page.ledger, apart, 0);
if (!page.absent.composition) {
  composition(page.composition, page.shown_heads);
  eigenvalues(page.eigenvalues, page.heads);
  behaviors(page.heads);
}
if (!page.absent.importance) importance(page.importance);
byId("made").textContent = Object.entries(page.overview.made)
  .map(([name, value]) => `${name} ${value}`).join(" · ");
