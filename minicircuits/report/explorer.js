"use strict";
/* The attention explorer: heads as thumbnails, a text to point at, what comes next there. */

const VIEWS = [["pattern", "pattern"], ["moved", "value-weighted"], ["effects", "logit effect"]];
const SAYS = {
  pattern: "share of attention",
  moved: "attention × length of what it writes",
  effects: "what it adds to the logit of the token that really came next",
};

/* Builds the explorer in `container`, open at a text, a head (an index into `page.shown_heads`)
   and a place. Returns {show(n, place), at()}. chose(n) is called with a text that the reader
   chose; `model` is a `livingModel`, where there is one, whose heads can be switched off. */
function explorer(container, texts, text, head, place, chose = null, model = null) {
  const state = {text, view: "pattern", across: "looks", head, over: null,
                 place, locked: true, pointed: null, cell: null};
  const names = page.shown_heads.map(headName);

  const tokens = () => texts[state.text].tokens;
  const values = index => texts[state.text].views[state.view]()[index];
  const shown = () => state.over ?? state.head;
  const rows = () => tokens().length - (state.view === "effects" ? 1 : 0);
  const value = (i, j) => j <= i && i < rows() ? values(shown())[triangle(i, j)] : 0;
  const format = number => state.view === "pattern" ? fixed(number) : signed(number);

  const canvases = names.map(() => el("canvas", {}));
  const thumbnails = names.map((name, index) => el("button", {
    type: "button", class: "thumbnail", "aria-label": `head ${name}`,
    onpointerenter: () => { state.over = index; showHead(); },
    onpointerleave: () => { state.over = null; showHead(); },
    onfocus: () => { state.over = index; showHead(); },
    onblur: () => { state.over = null; showHead(); },
    onclick: () => { state.head = index; showHead(); }}, canvases[index], el("span", {}, name)));
  const gallery = el("div", {class: "gallery", role: "group", "aria-label": "heads",
    onkeydown: event => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      const to = thumbnails[thumbnails.indexOf(document.activeElement) + step];
      if (to) { to.focus(); event.preventDefault(); }
    }}, thumbnails);

  const strip = tokenStrip("the text", {
    hover: i => {
      state.cell = null;
      if (state.locked) state.pointed = i;
      else if (i !== null) state.place = i;
      showPlace();
    },
    choose: (i, moved) => {
      state.locked = moved || !(state.locked && state.place === i);
      Object.assign(state, {place: i, pointed: null, cell: null});
      showPlace();
    },
    release: () => { state.locked = false; state.pointed = null; showPlace(); }});
  strip.element.id = "explorer-strip";
  const map = heatMap("The head, destinations down, sources across", {
    point: (i, j) => { state.cell = [i, j]; showPlace(); },
    lock: (i, j) => {
      Object.assign(state, {place: state.across === "looks" ? i : j, locked: true, cell: [i, j]});
      showPlace();
    },
    leave: () => { state.cell = null; showPlace(); }});
  const title = el("p", {class: "head-title"});
  const readout = el("p", {class: "readout", "aria-live": "polite"});
  const strongest = el("ol", {class: "strongest"});
  const next = el("ol", {class: "next"});

  /* The pair under the pointer: [destination, source]. */
  function pair() {
    if (state.cell) return state.cell;
    if (state.pointed === null) return null;
    const two = [state.place, state.pointed];
    return state.across === "looks" ? two : two.reverse();
  }

  function showPlace() {
    const ids = tokens(), n = ids.length, looks = state.across === "looks";
    const [i, j] = pair() ?? [];
    const place = state.cell ? (looks ? i : j) : state.place;
    const surprise = state.across === "nats" && texts[state.text].nats;
    const other = surprise || (other => looks ? value(place, other) : value(other, place));
    const limit = surprise ? Math.max(...ids.map((_, k) => surprise(k)))
      : state.view === "pattern" ? 1 : largest(values(shown()));
    strip.color(k => limit ? other(k) / limit : 0);
    strip.mark(place, state.cell ? (looks ? j : i) : state.pointed, state.locked);
    map.mark(looks || state.cell ? place : null, looks && !state.cell ? null : j ?? place);
    if (state.cell) map.mark(i, j);
    readout.replaceChildren(...surprise
      ? [`${state.pointed ?? place} `, mono(ids[state.pointed ?? place]), " cost ",
         el("b", {class: "number"}, fixed(surprise(state.pointed ?? place))),
         " nats; the costliest:"]
      : i == null
      ? [`${place} `, mono(ids[place]), looks ? " looks at:" : " is looked at by:"]
      : [`${i} `, mono(ids[i]), " ← ", `${j} `, mono(ids[j]), " ",
         el("b", {class: "number"}, j <= i && i < rows() ? format(value(i, j)) : "not allowed")]);
    const ranked = ids.map((_, k) => k).sort((a, b) => Math.abs(other(b)) - Math.abs(other(a)))
      .filter(k => Math.abs(other(k)) >= 5e-4).slice(0, 6);
    strongest.replaceChildren(...ranked.map(k => el("li", {},
      bar(other(k) / (limit || 1)), `${k} `, mono(ids[k]),
      el("b", {class: "number"}, format(other(k))))));
    if (!ranked.length) strongest.replaceChildren(el("li", {}, "nothing above 0.0005"));
    next.replaceChildren(...texts[state.text].next(state.cell ? i : place).map(([id, share, whole]) =>
      el("li", {class: id === ids[(state.cell ? i : place) + 1] ? "true" : null},
         bar(share), mono(id), whole === undefined ? null
           : el("span", {class: "was"}, `with all heads ${fixed(whole)}`),
         el("b", {class: "number"}, fixed(share)))));
    nextTitle.textContent = `the model's next token after ${state.cell ? i : place}`;
  }
  const nextTitle = el("h4", {});

  function showHead() {
    thumbnails.forEach((button, index) => {
      button.setAttribute("aria-pressed", index === state.head);
      button.classList.toggle("over", index === shown());
      button.classList.toggle("off", Boolean(model?.isOff(page.shown_heads[index])));
    });
    title.replaceChildren("head ", headLink(page.shown_heads[shown()]), ` – ${SAYS[state.view]}`);
    if (model) {
      const head = page.shown_heads[state.head];
      power.textContent = `switch ${headName(head)} ${model.isOff(head) ? "on" : "off"}`;
    }
    const drawn = values(shown());
    map.draw(tokens().length, rows(), drawn, state.view === "pattern" ? 1 : largest(drawn));
    showPlace();
  }

  function showAll() {
    names.forEach((_, index) => {
      const drawn = values(index);
      canvases[index].classList.toggle("enlarged", tokens().length < 64);
      paintTriangle(canvases[index], tokens().length, rows(), drawn,
                    state.view === "pattern" ? 1 : largest(drawn));
    });
    showHead();
  }

  /* Shows a text, or again the one that is shown. */
  function show(n = state.text, place = state.place) {
    Object.assign(state, {text: n, pointed: null, cell: null});
    state.place = Math.min(place, tokens().length - 1);
    paging.go(n);
    strip.write(tokens(), texts[n].written);
    showAll();
  }
  const paging = pager("text", () => texts.map(({name}) => name), chose ?? show);
  const power = model && el("button", {type: "button", class: "power", onclick: () => {
    model.toggle(page.shown_heads[state.head]);
    chose(); }});

  const set = (name, show) => value => { state[name] = value; show(); };
  container.append(
    el("div", {class: "controls"},
      paging.element,
      choice("view", VIEWS, "pattern", set("view", showAll)),
      choice("the token", [["looks", "looks at"], ["seen", "is looked at by"],
                           ...model ? [["nats", "costs (nats)"]] : []], "looks",
             set("across", showPlace)), power),
    el("div", {class: "explorer"},
      gallery,
      el("div", {class: "reading"}, title, strip.element, readout, strongest),
      el("div", {class: "aside"}, map.element, nextTitle, next)));
  onPalette(() => show());
  return {show, at: () => ({text: state.text, place: state.place})};
}
