"use strict";
/* What is shown, everywhere: one state, which all figures read, change and follow. */

/* text: a place in `texts`; place, source: positions; head: a place in `page.shown_heads`; path: a
   name; target: the token that may come next; against: null, "mean" or a token; run: names of the
   heads that are off, and whether patterns are frozen; at: a section that was jumped to. */
const state = {text: 0, place: 0, source: null, head: 0, path: null, target: 0, against: "mean",
               run: {off: [], frozen: false}, at: null};
const texts = [];                // to choose from: those given, then those that the reader made
const followers = [];

/* show(changed) now, and whenever one of these keys of the state has changed: all that have. */
function follow(keys, show) {
  followers.push({keys, show});
  show(Object.keys(state));
}

/* Changes the state, and all that follow it. A text or place that is chosen has no source yet, and
   its target is what came next, or what is likeliest to. */
function select(changes) {
  const next = {...state, ...changes};
  if ("text" in changes || next.place !== state.place) {
    const {tokens, next: likeliest} = texts[next.text];
    next.place = Math.max(0, Math.min(next.place, tokens.length - 1));
    next.source = changes.source ?? null;
    const ranked = likeliest(next.place).map(([id]) => id);
    next.target = changes.target ?? tokens[next.place + 1] ?? ranked[0];
    if (typeof next.against === "number" && !("against" in changes)) {      // the runner-up there
      next.against = ranked.find(id => id !== next.target) ?? "mean";
    }
  }
  if (next.against === next.target) next.against = "mean";
  const changed = Object.keys(state).filter(key => next[key] !== state[key]);
  if ("text" in changes) changed.push("text");             // of one place, texts may change
  Object.assign(state, next);
  for (const {keys, show} of followers) if (keys.some(key => changed.includes(key))) show(changed);
}

function isOff(head) {
  return state.run.off.includes(headName(head));
}

/* Switches a head (layer, head) off, or on again. */
function switchHead(head) {
  const off = state.run.off.filter(name => name !== headName(head));
  select({run: {...state.run, off: isOff(head) ? off : [...off, headName(head)]}});
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
    const head = page.shown_heads.findIndex(([layer, head]) => id === `head-${layer}-${head}`);
    select(head < 0 ? {at: id} : {at: id, head});
    jump(id);
  });
}
