"use strict";
/* A sum as bars: each part starts where the one above ends, and the rest opens. */

const PARTS_SHOWN = 12;
const PARTS_OPENED = 2000;        // at most
const SOURCES_SHOWN = 3;

/* `noun` is what a part is, `titles` stand above their columns. chosen() is the name of the part that
   is chosen, choose(part) a click on one; point(part) follows the pointer, null when it goes. */
function sumOfBars(noun, titles, {chosen, choose, point}) {
  let parts = [], totals = [], rows = [], most = PARTS_SHOWN;
  const opening = (text, count) => el("button", {type: "button", onclick: () => {
    most = count;
    draw();
    (more.isConnected ? more : fewer).focus();
  }}, text);
  const more = opening("", PARTS_OPENED), fewer = opening("the strongest alone", PARTS_SHOWN);
  const element = el("div", {class: "waterfall", role: "group", "aria-label": `the sum of ${noun}s`,
                             onpointerleave: () => point(null)});
  roving(element);

  /* `from` is where its bar starts, x a scale to percent of the width. */
  function entry({part, name, value, from = 0, sign}, x) {
    const sources = el("span", {class: "sources"});
    return {part, name, sources, element: el("div", {
      class: sign === "=" ? "entry sum" : "entry", onclick: part && (() => choose(part)),
      onpointerenter: () => point(part ?? null)},
      el("span", {class: "sign"}, sign), el("span", {class: "name"}, name),
      el("span", {class: "track"},
        el("i", {class: "zero", style: {left: `${x(0)}%`}}),
        el("i", {class: value < 0 ? "bar less" : "bar", style: {
          left: `${x(Math.min(from, from + value))}%`, width: `${Math.abs(x(value) - x(0))}%`}})),
      el("span", {class: "number"}, signed(value)), sources)};
  }

  function draw() {
    const shown = new Set(parts.filter((part, n) => n < most || part.name === chosen()));
    const rest = parts.filter(part => !shown.has(part));
    const lines = Array.from(shown, part =>
      ({part, name: el("button", {type: "button"}, part.name), value: part.value}));
    if (rest.length) {
      more.textContent = `${integer(rest.length)} other ${noun}${rest.length > 1 ? "s" : ""}`;
      lines.push({name: most < PARTS_OPENED ? more : more.textContent,
                  value: rest.reduce((sum, {value}) => sum + value, 0)});
    }
    let sum = 0;
    const ends = lines.map((line, n) => {
      Object.assign(line, {from: sum, sign: n ? "+" : ""});
      return sum += line.value;
    });
    const low = Math.min(0, ...ends), high = Math.max(0, ...ends) || Number(low === 0);
    const x = scale([low, high], [0, 100]), [name, number, sources] = titles.map((title, n) =>
      el("span", {class: n === 2 ? "sources" : null}, title));
    const axis = ticks([low, high], 3).map(value =>
      el("i", {style: {left: `${x(value)}%`}}, String(value).replace("-", "−")));
    lines.push(...[["sum", sum], ...totals].map(([name, value]) => ({name, value, sign: "="})));
    rows = lines.map(line => entry(line, x));
    element.replaceChildren(el("div", {class: "entry axis"}, el("span", {}), name,
      el("span", {class: "track"}, axis), number, sources), ...rows.map(row => row.element),
      most > PARTS_SHOWN ? el("p", {class: "buttons"}, fewer) : "");
    mark();
  }

  /* Marks the part that is chosen, which shows all that it reads. */
  function mark() {
    for (const row of rows.filter(({part}) => part)) {
      const all = row.part.name === chosen();
      if (row.all === all) continue;
      row.all = all;
      row.name.setAttribute("aria-pressed", all);
      row.element.classList.toggle("open", all);
      row.sources.replaceChildren(...row.part.sources(all));
    }
  }

  return {
    element,
    /* given: {name, value, sources(all)}, the strongest first; wholes: pairs of a name and what
       the sum must be. */
    show(given, wholes) {
      [parts, totals] = [given, wholes];
      draw();
    },
    /* Another part was chosen, or none. */
    choose() {
      const is = part => part?.name === chosen();
      if (parts.some(is) && !rows.some(({part}) => is(part))) draw();
      else mark();
    },
  };
}

/* Tokens with their shares of a sum, the strongest first: some of them, or all that show. */
function tokenShares(values, ids, all) {
  const ranked = Array.from(values.keys()).filter(j => Math.abs(values[j]) >= 5e-4)
    .sort((a, b) => Math.abs(values[b]) - Math.abs(values[a])).slice(0, all ? Infinity : SOURCES_SHOWN);
  const rest = ranked.reduce((rest, j) => rest - values[j], values.reduce((sum, value) => sum + value, 0));
  return [...ranked.map(j => el("span", {}, mono(ids[j]), el("sub", {}, j), ` ${signed(values[j])} `)),
          ...all ? [`all others ${signed(rest)}`] : []];
}
