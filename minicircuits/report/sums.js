/* Sums as bars: each part starts where the one above ends. Of many parts the strongest stand, and
   the rest opens. */

const PARTS_SHOWN = 12;
const PARTS_OPENED = 2000;        // at most
const SOURCES_SHOWN = 3;

/* Rows of bars to one scale, below an axis; `titles` stand above their columns. A line is {name, value},
   and may have what it begins at (`from`), a sign, a look, and attributes. */
function barRows([name, number, sources], lines) {
  const ends = lines.flatMap(({from = 0, value}) => [from, from + value]);
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends) || Number(low === 0), x = scale([low, high], [0, 1]);
  const left = value => ({left: `${100 * x(value)}%`}), row = (look, attributes, ...cells) =>
    el("div", {class: `entry ${look}`, ...attributes}, cells.map(([kind, cell]) => el("span", {class: kind}, cell)));
  const axis = ticks([low, high], 3).map(value => el("i", {style: left(value)}, plain(value)));
  return [row("axis", {}, [null, ""], [null, name], ["track", axis], [null, number], ["sources", sources ?? ""]),
    ...lines.map(({name, value, from = 0, sign = "", look = sign === "=" ? "sum" : "", ...attributes}) =>
      row(look, attributes, ["sign", sign], ["name", name],
        ["track", [el("i", {class: "zero", style: left(0)}), bar(x(value) - x(0), left(Math.min(from, from + value)))]],
        ["number", sign === "+" ? signed(value) : fixed(value)], ["sources", ""]))];
}

/* Bars that stay as they are. */
const bars = (titles, lines) => el("div", {class: "waterfall bars"}, barRows(titles, lines));

/* `noun` is what a part is. chosen() is the name of the part that is chosen, choose(name) a click on
   one; look(part) is told of the one to look at, which is pointed at or chosen, or of undefined. */
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
  const element = roving(el("div", {class: "waterfall", role: "group", "aria-label": `the sum of ${noun}s`}));

  function draw() {
    const stands = (part, n) => n < most || isChosen(part), shown = parts.filter(stands);
    const rest = parts.filter((part, n) => !stands(part, n)).map(({value}) => value);
    const lines = shown.map(part => ({name: button(part.name), value: part.value,
      onpointerenter: () => point(part), onpointerleave: () => point(),
      onclick: () => choose(isChosen(part) ? null : part.name)}));
    if (rest.length) {
      more.textContent = `${integer(rest.length)} other ${noun}${rest.length > 1 ? "s" : ""}`;
      lines.push({name: most < PARTS_OPENED ? more : more.textContent, value: sumOf(rest)});
    }
    const sum = lines.reduce((from, line, n) => {
      Object.assign(line, {from, sign: n ? "+" : ""});
      return from + line.value;
    }, 0);
    const [axis, ...drawn] = barRows(titles, [...lines, ...[["sum", sum], ...totals].map(([name, value]) =>
      ({name, value, sign: "="}))]);
    rows = shown.map((part, n) => ({part, element: drawn[n]}));
    element.replaceChildren(axis, ...drawn, most > PARTS_SHOWN ? el("p", {class: "buttons"}, fewer) : "");
    mark();
  }

  /* Marks the part that is chosen, which shows all that it reads. */
  function mark() {
    for (const row of rows) {
      const all = isChosen(row.part);
      if (row.all === all) continue;
      row.all = all;
      row.element.classList.toggle("open", all);
      row.element.querySelector("button").setAttribute("aria-pressed", all);
      row.element.querySelector(".sources").replaceChildren(...row.part.sources(all));
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
      if (parts.some(isChosen) && !rows.some(({part}) => isChosen(part))) draw();
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
