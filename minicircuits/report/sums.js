"use strict";
/* A sum as bars: each part starts where the one above ends, and the rest opens. */

const PARTS_SHOWN = 12;
const PARTS_OPENED = 2000;        // at most
const SOURCES_SHOWN = 3;

/* `noun` is what a part is, `titles` stand above their columns. chosen() is the name of the part that
   is chosen, choose(name) a click on one; look(part) is told of the one to look at, which is pointed
   at or chosen, or of undefined. */
function sumOfBars(noun, titles, {chosen, choose, look}) {
  let parts = [], totals = [], rows = [], most = PARTS_SHOWN;
  const isChosen = ({name}) => name === chosen();
  const point = part => look(part ?? parts.find(isChosen));
  const opening = (text, count) => button(text, () => {
    most = count;
    draw();
    (more.isConnected ? more : fewer).focus();
  });
  const more = opening("", PARTS_OPENED), fewer = opening("the strongest alone", PARTS_SHOWN);
  const element = el("div", {class: "waterfall", role: "group", "aria-label": `the sum of ${noun}s`,
                             onpointerleave: () => point()});
  roving(element);

  /* `from` is where its bar starts, x a scale to shares of the width. */
  function entry({part, name, value, from = 0, sign}, x) {
    const sources = el("span", {class: "sources"});
    return {part, name, sources, element: el("div", {
      class: sign === "=" ? "entry sum" : "entry", onpointerenter: () => point(part),
      onclick: () => part && choose(isChosen(part) ? null : part.name)},
      el("span", {class: "sign"}, sign), el("span", {class: "name"}, name),
      el("span", {class: "track"}, el("i", {class: "zero", style: {left: `${100 * x(0)}%`}}),
        barFrom(from, value, x, "left")),
      el("span", {class: "number"}, signed(value)), sources)};
  }

  function draw() {
    const stands = (part, n) => n < most || isChosen(part);
    const rest = parts.filter((part, n) => !stands(part, n)).map(({value}) => value);
    const lines = parts.filter(stands).map(part => ({part, name: button(part.name), value: part.value}));
    if (rest.length) {
      more.textContent = `${integer(rest.length)} other ${noun}${rest.length > 1 ? "s" : ""}`;
      lines.push({name: most < PARTS_OPENED ? more : more.textContent, value: sumOf(rest)});
    }
    let sum = 0;
    const ends = lines.map((line, n) => {
      Object.assign(line, {from: sum, sign: n ? "+" : ""});
      return sum += line.value;
    });
    const low = Math.min(0, ...ends), high = Math.max(0, ...ends) || Number(low === 0);
    const x = scale([low, high], [0, 1]), axis = ticks([low, high], 3).map(value =>
      el("i", {style: {left: `${100 * x(value)}%`}}, plain(value)));
    const [name, number, sources] = titles;
    rows = [...lines, ...[["sum", sum], ...totals].map(([name, value]) => ({name, value, sign: "="}))]
      .map(line => entry(line, x));
    element.replaceChildren(el("div", {class: "entry axis"}, el("span", {}), el("span", {}, name),
      el("span", {class: "track"}, axis), el("span", {}, number), el("span", {class: "sources"}, sources)),
      ...rows.map(row => row.element), most > PARTS_SHOWN ? el("p", {class: "buttons"}, fewer) : "");
    mark();
  }

  /* Marks the part that is chosen, which shows all that it reads. */
  function mark() {
    for (const row of rows.filter(({part}) => part)) {
      const all = isChosen(row.part);
      if (row.all === all) continue;
      row.all = all;
      row.name.setAttribute("aria-pressed", all);
      row.element.classList.toggle("open", all);
      row.sources.replaceChildren(...row.part.sources(all));
    }
    point();
  }

  return {
    element,
    /* given: {name, value, sources(all)}; wholes: pairs of a name and what the sum must be. */
    show(given, wholes) {
      [parts, totals] = [ranked(given, ({value}) => Math.abs(value)), wholes];
      draw();
    },
    /* Another part was chosen, or none. */
    choose() {
      if (parts.some(isChosen) && !rows.some(({part}) => part && isChosen(part))) draw();
      else mark();
    },
  };
}

/* Tokens with their shares of a sum, the strongest first: some of them, or all that show. */
function tokenShares(values, ids, all) {
  const shown = ranked(values.keys(), j => Math.abs(values[j])).filter(j => Math.abs(values[j]) >= 5e-4)
    .slice(0, all ? Infinity : SOURCES_SHOWN);
  const rest = sumOf(values) - sumOf(shown.map(j => values[j]));
  return [...shown.map(j => el("span", {}, mono(ids[j]), el("sub", {}, j), ` ${signed(values[j])} `)),
          ...all ? [`all others ${signed(rest)}`] : []];
}
