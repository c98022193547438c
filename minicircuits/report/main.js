/* The page, from top to bottom. */

document.title = byId("title").textContent = page.title;
byId("notices").append(...page.notices.map(text => el("p", {class: "notice"}, text)));
for (const [section, reason] of Object.entries(page.absent)) {
  byId(section).querySelectorAll(":scope > :not(h2, [hidden])").forEach(figure => figure.remove());
  byId(section).querySelector("h2").after(el("p", {class: "notice"}, reason));
}

if (page.model && !byId("sentence")) byId("ledger-figure").prepend(el("div", {id: "sentence"}));
const written = openTexts();
if (!page.absent.attention) {
  steps(byId("steps"), written?.write);
  explorer(byId("explorer"));
}
if (!page.absent.ledger) ledger(byId("ledger-figure"));
if (page.bigrams) bigramTable(page.bigrams);
if (!page.absent.heads) {
  spectra(page.spectra, page.heads);
  headDump(page.dump, page.heads, page.previous);
}
if (!page.absent.composition) {
  composition(page.composition, page.shown_heads);
  eigenvalues(page.eigenvalues, page.heads);
  behaviors(page.heads, page.induction, page.previous);
}
if (!page.absent.split) split(byId("split-figure"), page.split);
if (page.shown_heads.length && (page.model || page.split)) scoreLedger(byId("score-ledger-figure"));
if (!page.absent.importance) importance(page.importance);
overview(page.overview);
document.querySelectorAll("main figure").forEach(takeAway);
byId("made").textContent = Object.entries(page.overview.made)
  .map(([name, value]) => `${name} ${value}`).join(" · ");
for (const [id, reason] of Object.entries(page.absent)) {          // a section that is empty now
  const section = byId(id), title = section.querySelector("h2").textContent;
  if (section.querySelector("figure:not([hidden])")) continue;
  byId("absent").append(el("p", {class: "small"}, `Not here: ${title}. ${reason}`));
  section.hidden = document.querySelector(`#sections [href="#${id}"]`).hidden = true;
}
followLinks();
showWhere(byId("sections"));
keepAddress(written?.restore ?? (() => undefined));

/* Marks the link of the section that fills the middle of the window, and keeps it in view. */
function showWhere(nav) {
  const links = [...nav.querySelectorAll("a")];
  const seen = new IntersectionObserver(changes => changes.filter(({isIntersecting}) => isIntersecting)
    .forEach(({target}) => links.forEach(link => {
      const here = link.hash === `#${target.id}`;
      link.setAttribute("aria-current", here);
      if (here) nav.scrollLeft = link.offsetLeft - nav.clientWidth / 3;
    })), {rootMargin: "-50% 0px"});
  links.forEach(link => seen.observe(byId(link.hash.slice(1))));
}
