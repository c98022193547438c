"use strict";
/* The attention explorer: heads as thumbnails, a text to point at, what comes next there. */

const VIEWS = [["pattern", "pattern"], ["moved", "value-weighted"], ["effects", "logit effect"]];
const SAYS = {
  pattern: "share of attention",
  moved: "attention × length of what it writes",
  effects: "what it adds to the logit of the token that really came next",
};

/* Builds the explorer in `container`. What is chosen is the page's `state`; what is pointed at, and
   how it is looked at, is the explorer's own. */
function explorer(container) {
  const own = {view: "pattern", across: "looks", over: null, pointed: null, cell: null, kept: false};
  const names = page.shown_heads.map(headName);

  const tokens = () => texts[state.text].tokens;
  const values = index => texts[state.text].views[own.view]()[index];
  const shown = () => own.over ?? state.head;
  const rows = () => tokens().length - (own.view === "effects" ? 1 : 0);
  const value = (i, j, index = shown()) => j <= i && i < rows() ? values(index)[triangle(i, j)] : 0;
  const limit = index => own.view === "pattern" ? 1 : largest(values(index)) || 1;
  const format = number => own.view === "pattern" ? fixed(number) : signed(number);

  const point = index => { own.over = index; showHead(); };
  const canvases = names.map(() => el("canvas", {}));
  const thumbnails = names.map((name, index) => el("button", {
    type: "button", class: "thumbnail", "aria-label": `head ${name} ${roleOf(index)}`,
    style: {borderBottomColor: hueText(index, names.length)},
    onpointerenter: () => point(index), onpointerleave: () => point(null),
    onfocus: () => point(index), onblur: () => point(null),
    onclick: () => select({head: index})},
    canvases[index], el("span", {}, name), el("small", {}, roleOf(index))));
  const gallery = el("div", {class: "gallery", role: "group", "aria-label": "heads"}, thumbnails);
  roving(gallery);

  const strip = tokenStrip("the text", "explorer-strip", {
    hover: i => { Object.assign(own, {pointed: i, cell: null}); showPlace(); },
    choose: (i, moved) => {
      own.kept = moved || !(own.kept && state.place === i);
      Object.assign(own, {pointed: own.kept ? null : i, cell: null});
      select({place: i});
      showPlace();
    },
    release: () => { Object.assign(own, {kept: false, pointed: null}); select({source: null}); showPlace(); }});
  const map = heatMap("The head, destinations down, sources across", {
    point: (i, j) => { own.cell = [i, j]; showPlace(); },
    lock: (i, j) => { Object.assign(own, {kept: true, cell: [i, j]}); select({place: i, source: j}); showPlace(); },
    leave: () => { own.cell = null; showPlace(); }, says: "in this head"});
  const title = el("p", {class: "head-title"});
  const readout = el("p", {class: "readout", "aria-live": "polite"});
  const hint = el("p", {class: "small"});
  const strongest = roving(el("ol", {class: "strongest"}));
  const next = el("ol", {class: "next"}), nextTitle = el("p", {class: "small"});

  /* What is looked at: a place, and where it is paired with another, [destination, source]. */
  function looked() {
    const looks = own.across === "looks", {cell, pointed} = own;
    if (cell) return {place: looks ? cell[0] : cell[1], other: looks ? cell[1] : cell[0], pair: cell};
    const place = own.kept ? state.place : pointed ?? state.place;
    const other = own.kept ? pointed ?? (looks ? state.source : null) : null;
    return {place, other, pair: other === null ? null : looks ? [place, other] : [other, place]};
  }

  function showPlace() {
    const ids = tokens(), looks = own.across === "looks", {place, other, pair} = looked();
    const nats = own.across === "nats" && texts[state.text].nats, hues = own.across === "hues";
    const here = hues || looks ? k => value(place, k) : nats || (k => value(k, place));
    const most = nats ? Math.max(...ids.map((_, k) => nats(k))) : limit(shown());
    if (hues) strip.paint(k => mixture(names.map((_, n) => Math.abs(value(place, k, n)) / limit(n))));
    else strip.color(k => most ? here(k) / most : 0);
    strip.mark(place, other, own.kept);
    canvases.forEach((canvas, n) => {
      const faded = hues && other !== null ? Math.abs(value(place, other, n)) / limit(n) : 1;
      canvas.style.opacity = 0.25 + 0.75 * Math.sqrt(faded);
    });
    map.mark(looks || hues || pair ? pair?.[0] ?? place : null, pair ? pair[1] : looks || hues ? null : place);
    readout.replaceChildren(...nats
      ? [`${place} `, mono(ids[place]), " cost ", el("b", {class: "number"}, fixed(nats(place))),
         " nats; the costliest:"]
      : pair
      ? [`${pair[0]} `, mono(ids[pair[0]]), " ← ", `${pair[1]} `, mono(ids[pair[1]]), " ",
         el("b", {class: "number"}, pair[1] <= pair[0] && pair[0] < rows() ? format(value(...pair)) : "not allowed")]
      : [`${place} `, mono(ids[place]), looks || hues ? " looks at:" : " is looked at by:"]);
    const ranked = ids.map((_, k) => k).sort((a, b) => Math.abs(here(b)) - Math.abs(here(a)))
      .filter(k => Math.abs(here(k)) >= 5e-4).slice(0, 6);
    strongest.replaceChildren(...ranked.map(k => el("li", {}, el("button", {type: "button", onclick: () => {
      own.kept = true;
      select(looks || hues ? {place, source: k} : {place: k, source: nats ? null : place}); }},
      bar(here(k) / most), `${k} `, mono(ids[k]), el("b", {class: "number"}, nats ? fixed(here(k)) : format(here(k)))))));
    if (!ranked.length) strongest.replaceChildren(el("li", {}, "nothing above 0.0005"));
    const reading = pair ? pair[0] : place;
    next.replaceChildren(...texts[state.text].next(reading).map(([id, share, whole]) =>
      el("li", {class: id === ids[reading + 1] ? "true" : null}, bar(share), mono(id),
         whole === undefined ? null : el("span", {class: "was"}, `with all heads ${fixed(whole)}`),
         el("b", {class: "number"}, fixed(share)))));
    nextTitle.textContent = `the model's next token after ${reading}`;
    hint.textContent = own.kept ? `Kept: ${state.place}. Click it again, or press Escape, to let it go.`
                                : "Click a token to keep it.";
  }

  function showHead() {
    thumbnails.forEach((button, index) => {
      button.setAttribute("aria-pressed", index === state.head);
      button.classList.toggle("over", index === shown());
      button.classList.toggle("off", isOff(page.shown_heads[index]));
    });
    const head = page.shown_heads[state.head];
    title.replaceChildren("head ", headLink(page.shown_heads[shown()]), ` ${roleOf(shown())} – ${SAYS[own.view]}`);
    power.textContent = `switch ${headName(head)} ${isOff(head) ? "on" : "off"}`;
    map.draw(tokens().length, rows(), values(shown()), limit(shown()), 0.5, tokens().map(word));
    showPlace();
  }

  function showHeads() {
    names.forEach((_, index) => {
      canvases[index].classList.toggle("enlarged", tokens().length < 64);
      paintTriangle(canvases[index], tokens().length, rows(), values(index), limit(index));
    });
    showHead();
  }

  const power = el("button", {type: "button", class: "power", hidden: !page.model,
                              onclick: () => switchHead(page.shown_heads[state.head])});
  const set = (name, show) => value => { own[name] = value; show(); };
  container.append(
    el("div", {class: "controls"},
      textPager(),
      choice("view", VIEWS, "pattern", set("view", showHeads)),
      choice("the token", [["looks", "looks at"], ["seen", "is looked at by"], ["hues", "all heads in hues"],
                           ...page.model ? [["nats", "costs (nats)"]] : []], "looks",
             set("across", showPlace)), power),
    el("div", {class: "explorer"},
      gallery,
      el("div", {class: "reading"}, title, strip.element, hint, readout, strongest),
      el("div", {class: "aside"}, map.element, nextTitle, next)));
  follow(["text", "run", "head", "place", "source"], changed => {
    if (changed.includes("text")) {
      Object.assign(own, {pointed: null, cell: null});
      strip.write(texts[state.text]);
    }
    if (changed.includes("text") || changed.includes("run")) showHeads();
    else if (changed.includes("head")) showHead();
    else showPlace();
  });
  dark.addEventListener("change", showHeads);
}
