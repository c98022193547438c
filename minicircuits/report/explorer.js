/* The attention explorer: heads as thumbnails, a text to point at, what comes next there. */

const VIEWS = [["pattern", "pattern", "share of attention"],
               ["moved", "value-weighted", "attention × length of what it writes"],
               ["effects", "logit effect", "what it adds to the logit of the token that really came next"]];

/* Builds the explorer in `container`. What is chosen is the page's `state`; what is pointed at, and
   how it is looked at, is the explorer's own. */
function explorer(container) {
  const own = {view: "pattern", across: "looks", over: null, pointed: null, cell: null, kept: false};
  const values = index => shownText().views[own.view]()[index];
  const shown = () => own.over ?? state.head;
  const value = (i, j, index = shown()) => j <= i ? values(index)[triangle(i, j)] : undefined;
  const limit = index => own.view === "pattern" ? 1 : largest(values(index)) || 1;
  const format = number => own.view === "pattern" ? fixed(number) : signed(number);
  const fromPlace = () => own.across !== "seen" && own.across !== "nats";     // a row, not a column

  const look = (changes, chosen) => {
    Object.assign(own, changes);
    if (chosen) select(chosen);
    showPlace();
  };
  const point = index => { own.over = index; showHead(); };
  const canvases = headNames.map(() => el("canvas", {}));
  const thumbnails = headNames.map((name, index) => button(
    [canvases[index], el("span", {}, name), el("small", {}, roleOf(index))], () => select({head: index}),
    {class: "thumbnail", "aria-label": `head ${name} ${roleOf(index)}`,
     style: {borderBottomColor: hueText(index, headNames.length)},
     onpointerenter: () => point(index), onpointerleave: () => point(null),
     onfocus: () => point(index), onblur: () => setTimeout(() =>
       gallery.contains(document.activeElement) || point(null))}));
  const gallery = roving(el("div", {class: "gallery", role: "group", "aria-label": "heads"}, thumbnails));

  const strip = tokenStrip("explorer-strip", {
    hover: i => look({pointed: i, cell: null}),
    choose: (i, moved) => {
      const kept = moved || !(own.kept && state.place === i);
      look({kept, pointed: kept ? null : i, cell: null}, {place: i});
    },
    release: () => look({kept: false, pointed: null}, {source: null})});
  const map = heatMap("The head, destinations down, sources across", {
    point: (i, j) => look({cell: [i, j]}), leave: () => look({cell: null}), says: "in this head",
    lock: (i, j) => look({kept: true, cell: [i, j]}, {place: i, source: j})});
  const title = roving(el("p", {class: "head-title"})), hint = el("p", {class: "small"});
  const readout = el("p", {class: "readout", "aria-live": "polite"});
  const strongest = roving(el("ol", {class: "strongest"}));
  const next = el("ol", {class: "next"}), nextTitle = el("p", {class: "small"});

  /* What is looked at: a place, and where it is paired with another, [destination, source]. */
  function looked() {
    const {cell, pointed, kept} = own, paired = (i, j) => fromPlace() ? [i, j] : [j, i];
    if (cell) return {place: paired(...cell)[0], other: paired(...cell)[1], pair: cell};
    const place = kept ? state.place : pointed ?? state.place;
    const other = kept ? pointed ?? (fromPlace() ? state.source : null) : null;
    return {place, other, pair: other === null ? null : paired(place, other)};
  }

  function showPlace() {
    const {place, other, pair} = looked(), {tokens, nats} = shownText(), from = fromPlace();
    const costs = own.across === "nats", hues = own.across === "hues";
    const here = tokens.map((_, k) => costs ? nats(k) : (from ? value(place, k) : value(k, place)) ?? 0);
    const most = costs ? largest(here) : limit(shown());
    const shareOf = (k, head) => Math.abs(value(place, k, head) ?? 0) / limit(head);
    if (hues) strip.paint(k => mixture(headNames.map((_, head) => shareOf(k, head))));
    else strip.color(here, most);
    strip.mark(place, other, own.kept);
    canvases.forEach((canvas, head) => {
      canvas.style.opacity = hues && other !== null ? 0.25 + 0.75 * Math.sqrt(shareOf(other, head)) : 1;
    });
    map.mark(...pair ?? (from ? [place, null] : [null, place]));
    const named = k => [`${k} `, mono(tokens[k])];
    readout.replaceChildren(...costs
      ? [...named(place), " cost ", digits(fixed(here[place])), " nats; the costliest:"]
      : pair
      ? [...named(pair[0]), " ← ", ...named(pair[1]), " ",
         digits(value(...pair) === undefined ? "not allowed" : format(value(...pair)))]
      : [...named(place), from ? " looks at:" : " is looked at by:"]);
    const listed = ranked(here.keys(), k => Math.abs(here[k])).filter(k => Math.abs(here[k]) >= 5e-4).slice(0, 6);
    strongest.replaceChildren(...listed.map(k => el("li", {}, button(
      [bar(here[k] / most), ...named(k), digits(costs ? fixed(here[k]) : format(here[k]))],
      () => look({kept: true}, from ? {place, source: k} : {place: k, source: costs ? null : place})))));
    const last = own.view === "effects" && from && place === tokens.length - 1;
    if (!listed.length) strongest.replaceChildren(el("li", {}, last
      ? "no token came next here: look from an earlier one" : "nothing above 0.0005"));
    const reading = pair ? pair[0] : place;
    next.replaceChildren(...shownText().next(reading).map(([id, share, whole]) =>
      el("li", {class: id === tokens[reading + 1] ? "true" : null}, bar(share), mono(id),
         whole === undefined ? null : el("span", {class: "was"}, `with all heads ${fixed(whole)}`),
         digits(fixed(share)))));
    const came = tokens[reading + 1], hidden = came !== undefined && !next.querySelector(".true");
    nextTitle.replaceChildren(`the model's next token after ${reading}`, ...hidden ? ["; it was ", mono(came)] : []);
    const head = page.shown_heads[shown()], off = !isOff(head) ? ""
      : `; off: ${own.view === "pattern" ? "this is where it would look" : "it writes nothing"}`;
    title.replaceChildren(...costs ? ["what each token cost"] : hues ? ["all heads, each in its hue"]
      : ["head ", headLink(head), ` ${roleOf(shown())} – ${VIEWS.find(([key]) => key === own.view)[2]}${off}`]);
    hint.textContent = own.kept ? `Kept: ${state.place}. Click it again, or press Escape, to let it go.`
                                : "Click a token to keep it.";
  }

  function showHead() {
    thumbnails.forEach((thumbnail, index) => {
      thumbnail.setAttribute("aria-pressed", index === state.head);
      thumbnail.classList.toggle("over", index === shown());
      thumbnail.classList.toggle("off", isOff(page.shown_heads[index]));
    });
    power.textContent = `switch ${headNames[state.head]} ${isOff(shownHead()) ? "on" : "off"}`;
    map.draw(shownText().tokens.map(word), values(shown()), limit(shown()), 0.5);
    showPlace();
  }

  function showHeads() {
    const {length} = shownText().tokens;
    canvases.forEach((canvas, index) => {
      canvas.classList.toggle("enlarged", length < 64);
      paintTriangle(canvas, length, values(index), limit(index));
    });
    showHead();
  }

  const power = button("", () => switchHead(shownHead()), {class: "power", hidden: !page.model});
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
  follow(["text", "run", "colors", "head", "place", "source"], changed => {
    const has = key => changed.includes(key);
    if (has("text")) Object.assign(own, {pointed: null, cell: null});
    (["text", "run", "colors"].some(has) ? showHeads : has("head") ? showHead : showPlace)();
  });
}
