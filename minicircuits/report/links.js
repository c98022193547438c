/* Links inside the page, and places that are jumped to. */

/* A link to a head's table. */
function headLink(head) {
  const text = headName(head);
  return byId("heads") ? el("a", {href: `#head-${head[0]}-${head[1]}`}, text) : el("b", {}, text);
}

/* Scrolls to a section or a head's table, whose heading then has the focus. */
function jump(id) {
  const at = byId(id), heading = at.querySelector("h2, h3") ?? at;
  heading.tabIndex = -1;
  heading.focus({preventScroll: true});
  at.scrollIntoView();
}

/* Links inside the page, which leave the address to the state. A head's link selects it. */
function followLinks() {
  document.addEventListener("click", event => {
    const id = event.target.closest?.("a[href^='#']")?.hash.slice(1);
    if (!id || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const head = headNames.findIndex(name => id === `head-${name.replace(".", "-")}`);
    select(head < 0 ? {at: id} : {at: id, head});
    jump(id);
  });
}
