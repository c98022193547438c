"use strict";
/* Who reads whom: composition matrices, the diagram of the strongest, and induction in weights. */

const KINDS = {K: "keys", Q: "queries", V: "values"};

function composition(figures, heads) {
  const {earlier, later, noise} = figures;
  const cells = [];
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
        const cell = el("td", {class: "number"}, value === null ? "" : signed(value));
        if (value !== null) onPalette(() => { cell.style.backgroundColor = shadeText(value / most); });
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
    el("p", {class: "small"}, `0 is the level of random matrices of these shapes, ` +
      `${fixed(figures.baseline)}; random ones go up to ${fixed(noise)} above it.`));
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
  const paths = lines.map(line => svg("line", {
    class: `link ${line.kind}`, "stroke-width": 0.8 + 8 * line.value / most,
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
  return {light, element: el("div", {class: "diagram"}, el("p", {class: "keys"}, keys),
    svg("svg", {viewBox: `0 0 ${width} ${height}`}, paths, nodes))};
}

/* Copying of the later head against same-matching of the pair: induction is in the corner. */
function eigenvalues(pairs, rows) {
  const size = 380, edge = 52;
  const x = scale([-1, 1], [edge, size - 8]), y = scale([-1, 1], [size - edge, 8]);
  const induction = ([layer, head]) => rows.find(row => row.layer === layer && row.head === head)
    .induction;                               // undefined where contexts are too short for it
  const readout = el("p", {class: "readout", "aria-live": "polite"}, "Point at a pair of heads.");
  const dots = pairs.map(pair => {
    const text = `${headName(pair.earlier)}→${headName(pair.later)}: copying ` +
      `${fixed(pair.copying, 2)}, matching ${fixed(pair.matching, 2)}` +
      (induction(pair.later) === undefined ? "" : `, prefix matching of ${headName(pair.later)} ` +
       fixed(induction(pair.later), 2));
    const show = () => { readout.textContent = text; };
    return svg("circle", {class: "dot", cx: x(pair.copying), cy: y(pair.matching), tabindex: 0,
                          r: 4 + 8 * (induction(pair.later) ?? 0), role: "img", "aria-label": text,
                          onpointerenter: show, onfocus: show});
  });
  const both = pair => Math.min(pair.copying, pair.matching);
  const best = pairs.reduce((best, pair) => both(pair) > both(best) ? pair : best);
  byId("eigen-see").textContent = both(best) > 0.5
    ? `The pair ${headName(best.earlier)}→${headName(best.later)} stands in the corner of induction`
    : "No pair stands in the corner of induction";
  byId("eigen-figure").append(svg("svg", {viewBox: `0 0 ${size} ${size}`, class: "scatter"},
    svg("rect", {class: "corner", x: x(0), y: y(1), width: x(1) - x(0), height: y(0) - y(1)}),
    [-1, -0.5, 0, 0.5, 1].map(tick => [
      svg("line", {class: "grid", x1: x(tick), x2: x(tick), y1: y(-1), y2: y(1)}),
      svg("line", {class: "grid", x1: x(-1), x2: x(1), y1: y(tick), y2: y(tick)}),
      svg("text", {x: x(tick), y: size - 34, "text-anchor": "middle"}, fixed(tick, 1)),
      svg("text", {x: edge - 5, y: y(tick) + 4, "text-anchor": "end"}, fixed(tick, 1))]),
    svg("text", {x: x(0), y: size - 8, "text-anchor": "middle"}, "copies what it attends to"),
    svg("text", {x: 10, y: y(0), transform: `rotate(-90 10 ${y(0)})`, "text-anchor": "middle"},
        "attends where its own token came before"),
    dots, svg("text", {class: "label", x: x(best.copying) - 14, y: y(best.matching) + 4,
                       "text-anchor": "end"}, `${headName(best.earlier)}→${headName(best.later)}`)),
    readout);
}

/* The two behaviors that make induction, head by head. */
function behaviors(rows) {
  if (!("induction" in rows[0])) {
    byId("behavior-figure").append(el("p", {class: "notice"},
      "Contexts are too short for repeated random tokens."));
    return;
  }
  byId("behavior-figure").append(table(["head", "previous token", "prefix matching"],
    rows.map(row => [headLink([row.layer, row.head]), ...["previous", "induction"].map(key =>
      el("span", {class: "inbar"}, bar(row[key]), fixed(row[key], 2)))])));
}
