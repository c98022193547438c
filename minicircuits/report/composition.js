"use strict";
/* Who reads whom: composition matrices, the diagram of the strongest, and induction in weights. */

const KINDS = {K: "keys", Q: "queries", V: "values"};

function composition(figures, heads) {
  const {earlier, later, noise} = figures;
  const cells = [], colors = colorScale("one scale for K, Q and V");
  const most = Math.max(...["Q", "K", "V"].flatMap(kind => figures[kind].flat().map(Math.abs)));
  const matrix = kind => el("div", {class: "wide"}, el("table", {class: "matrix"},
    el("caption", {}, `${kind}: ${KINDS[kind]} of …`),
    el("thead", {}, el("tr", {}, el("td", {}, "reads"),
      earlier.map(head => el("th", {scope: "col"}, headName(head))))),
    el("tbody", {}, later.map((head, row) => el("tr", {
      tabindex: 0, "aria-label": `head ${headName(head)} reads`,
      onpointerenter: () => light(head), onfocus: () => light(head)},
      el("th", {scope: "row"}, headLink(head)),
      earlier.map((_, column) => {
        const value = figures[kind][row][column];
        const quiet = value === null || Math.abs(value) <= noise;
        const cell = el("td", {class: quiet ? "number quiet" : "number"},
                        value === null ? "" : signed(value));
        if (!quiet) onPalette(() => { cell.style.backgroundColor = shadeText(value / most); });
        cells.push([cell, row]);
        return cell;
      }))))));
  const diagram = compositionDiagram(figures, heads, most);
  const light = head => {
    const name = head && headName(head);
    diagram.light(head);
    cells.forEach(([cell, row]) => cell.classList.toggle("lit", name === headName(later[row])));
  };
  byId("composition-figure").append(diagram.element,
    el("div", {class: "matrices", onpointerleave: () => light(null)}, ["K", "Q", "V"].map(matrix)),
    colors.element, el("p", {class: "small"}, `0 is the level of random matrices of these shapes, ` +
      `${fixed(figures.baseline)}; within ${fixed(noise)} of it, as random ones are, numbers are gray.`));
  onPalette(() => colors.draw(-most, most, 0.5, noise));
  const [score, names] = ["K", "Q", "V"].flatMap(kind => figures[kind].flatMap((row, l) =>
    row.map((value, e) => [value ?? -1, [kind, later[l], earlier[e]]])))
    .reduce((best, pair) => pair[0] > best[0] ? pair : best);
  byId("composition-see").textContent = score > noise
    ? `The ${KINDS[names[0]]} of head ${headName(names[1])} read head ${headName(names[2])}`
    : "No head reads another more than random heads would";
}

/* Heads in rows by layer, the first layer below; a line where one reads another above the noise. */
function compositionDiagram({earlier, later, noise, ...figures}, heads, most) {
  const layers = Math.max(...heads.map(([layer]) => layer)) + 1;
  const perLayer = heads.filter(([layer]) => layer === 0).length;
  const width = 640, height = 60 + 150 * (layers - 1);
  const x = ([, head]) => (head + 0.5) * width / perLayer;
  const y = ([layer]) => height - 30 - 150 * layer;
  const lines = ["K", "Q", "V"].flatMap((kind, shift) => figures[kind].flatMap((row, l) =>
    row.map((value, e) => ({kind, value, shift: 7 * (shift - 1), later: later[l], earlier: earlier[e]}))))
    .filter(({value}) => value !== null && value > noise);
  const thick = value => 0.8 + 8 * value / most;                  // pixels
  const paths = lines.map(line => svg("line", {
    class: `link ${line.kind}`, "stroke-width": thick(line.value),
    style: {strokeOpacity: 0.3 + 0.7 * line.value / most},
    x1: x(line.earlier) + line.shift, y1: y(line.earlier) - 16,
    x2: x(line.later) + line.shift, y2: y(line.later) + 16},
    svg("title", {}, `${KINDS[line.kind]} of ${headName(line.later)} read ` +
                     `${headName(line.earlier)}: ${signed(line.value)}`)));
  const reads = head => lines.filter(line => headName(line.later) === headName(head));
  const nodes = heads.map(head => svg("g", {
    class: "node", tabindex: 0, role: "img",
    "aria-label": `head ${headName(head)} reads ${
      reads(head).map(line => `${headName(line.earlier)} by its ${KINDS[line.kind]}`).join(", ")
      || "no head"}`,
    onpointerenter: () => light(head), onpointerleave: () => light(null),
    onfocus: () => light(head), onblur: () => light(null)},
    svg("circle", {cx: x(head), cy: y(head), r: 17}),
    svg("text", {x: x(head), y: y(head) + 5, "text-anchor": "middle"}, headName(head))));

  /* Lights up a head, the heads it reads from, and the lines between. */
  function light(head) {
    const name = head && headName(head), read = new Set();
    lines.forEach((line, n) => {
      const lit = headName(line.later) === name;
      paths[n].classList.toggle("lit", lit);
      paths[n].classList.toggle("dim", Boolean(head) && !lit);
      if (lit) read.add(headName(line.earlier));
    });
    nodes.forEach((node, n) => {
      node.classList.toggle("lit", headName(heads[n]) === name);
      node.classList.toggle("read", read.has(headName(heads[n])));
    });
  }
  const keys = Object.entries(KINDS).map(([kind, text]) =>
    el("span", {class: `key ${kind}`}, el("i", {}), text));
  if (lines.length) {
    keys.push(...[noise, most].map(value => el("span", {class: "key"},
      el("i", {style: {borderTopWidth: `${thick(value)}px`}}), signed(value))));
  }
  return {light, element: el("div", {class: "diagram"}, el("p", {class: "keys"}, keys),
    svg("svg", {viewBox: `0 0 ${width} ${height}`}, paths, nodes))};
}

/* The two behaviors that make induction, head by head; the heads that earned a name, or null. */
function behaviors(rows, induction, previous) {
  const who = induction && `Head ${headName(induction)} looks at what followed last time`;
  byId("behavior-see").textContent = !who ? "No head looks often enough at what followed last time"
    : `${who}, ${previous ? headName(previous) : "and no earlier head"} at the token before`;
  if (!("induction" in rows[0])) {
    byId("behavior-figure").append(el("p", {class: "notice"},
      "Contexts are too short for repeated random tokens."));
    return;
  }
  byId("behavior-figure").append(table(["head", "previous token", "prefix matching"],
    rows.map(row => [headLink([row.layer, row.head]), ...["previous", "induction"].map(key =>
      el("span", {class: "inbar"}, bar(row[key]), fixed(row[key], 2)))]),
    "mean share of attention; all bars end at 1"));
}
