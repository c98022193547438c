/* What is shown, everywhere: one state, which all figures read, change and follow. */

/* text: a place in `texts`; place, source: positions; head: a place in `page.shown_heads`; path: a
   name; target: the token that may come next; against: null, "mean" or a token; run: names of the
   heads that are off, and whether patterns are frozen; at: a section that was jumped to. */
const state = {text: 0, place: 0, source: null, head: 0, path: null, target: 0, against: "mean",
               run: {off: [], frozen: false}, at: null};
const texts = [];                // to choose from: those given, then those that the reader made
const headNames = page.shown_heads.map(headName);
const followers = [];
const shownText = () => texts[state.text];
const shownHead = () => page.shown_heads[state.head];

/* show(changed) now, and whenever one of these keys of the state has changed: all that have. Another
   key is "colors": light and dark change them. */
function follow(keys, show) {
  followers.push({keys, show});
  show(Object.keys(state));
}

function tell(changed) {
  for (const {keys, show} of followers) if (keys.some(key => changed.includes(key))) show(changed);
}

/* Changes the state, and all that follow it. A text or place that is chosen has no source yet, and
   its target is what came next, or what is likeliest to. */
function select(changes) {
  const next = {...state, ...changes};
  if ("text" in changes || next.place !== state.place) {
    const {tokens, next: likeliest} = texts[next.text];
    next.place = within(next.place, tokens.length - 1);
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
  tell(changed);
}

/* Shows a head (layer, head) in all figures; and a path, if one is named. */
function chooseHead(head, path) {
  const place = headNames.indexOf(headName(head));
  select({...place < 0 ? {} : {head: place}, ...path && {path}});
}

/* Marks those of these elements, by their places, that show the head or the path that is chosen. */
const markChosen = (elements, isChosen) => follow(["head", "path"], () =>
  elements.forEach((element, n) => element.classList.toggle("chosen", isChosen(n))));

const isShown = head => sameHead(head, shownHead());
const isOff = head => state.run.off.includes(headName(head));

/* Switches a head (layer, head) off, or on again. */
function switchHead(head) {
  const off = state.run.off.filter(name => name !== headName(head));
  if (!isOff(head)) off.push(headName(head));
  select({run: {off, frozen: state.run.frozen && off.length > 0}});
}
