/* Who reads whom: composition matrices, the diagram of the strongest, and induction in weights. */

const pairName = ({earlier, later}) => pathName([earlier, later]);          // as of the path through both
const KINDS = {K: "keys", Q: "queries", V: "values"};

function composition(figures, heads) {
  const {levels, noise, baseline} = figures, kinds = Object.keys(KINDS);
  const pairs = kinds.flatMap(kind => figures.later.flatMap((later, row) => figures.earlier.map((earlier, column) =>
    ({kind, later, earlier, value: figures[kind][row][column], level: levels[kind][row][column]}))));
  const above = ranked(pairs.filter(({value, level}) => value !== null && value > level), ({value}) => value);
  const most = Math.max(noise, above[0]?.value ?? 0);

  const cell = pair => {
    if (pair.value === null) return el("td", {});
    const real = above.includes(pair), element = el("td", {class: `number ${real ? "" : "quiet"}`,
      onclick: () => chooseHead(pair.later, pairName(pair))},
      real ? el("button", {type: "button"}, signed(pair.value)) : signed(pair.value));
    if (real) follow(["colors"], () => tint(element, shade(pair.value / most)));
    return element;
  };
  const rows = kinds.flatMap(kind => figures.later.map(head => ({kind, head, element:
    el("tr", {onpointerenter: () => light(head), onfocusin: () => light(head)},
      el("th", {scope: "row"}, headLink(head)),
      pairs.filter(pair => pair.kind === kind && pair.later === head).map(cell))})));
  const dim = () => light(null);
  const matrices = roving(el("div", {class: "matrices", onpointerleave: dim, onfocusout: dim}, kinds.map(kind =>
    table(["reads", ...figures.earlier.map(headName)],
      rows.filter(row => row.kind === kind).map(({element}) => element), `${kind}: ${KINDS[kind]} of …`, "matrix"))));
  const diagram = compositionDiagram(above, heads, most);
  function light(head) {
    diagram.light(head);
    rows.forEach(row => row.element.classList.toggle("lit", sameHead(head, row.head)));
  }

  const colors = colorScale("one scale for K, Q and V");
  const feeds = ({kind, later, earlier}) =>
    kind === "K" && sameHead(later, page.induction) && sameHead(earlier, page.previous);
  const best = above.find(feeds) ?? above[0];
  byId("composition-figure").append(...best ? [diagram.element, matrices, colors.element] : [matrices],
    el("p", {class: "small"}, `0 is the level of random matrices of these shapes, ${fixed(baseline)}. Gray is no ` +
      `more than heads that are turned at random reach: it differs by pair, and is ${fixed(noise)} above it at most.`));
  follow(["colors"], () => colors.draw(0, most));
  markChosen(rows.map(({element}) => element), n => isShown(rows[n].head));
  byId("composition-see").textContent = best
    ? `The ${KINDS[best.kind]} of head ${headName(best.later)} read head ${headName(best.earlier)}`
    : "No head reads another more than random heads would";
}

/* Heads in rows by layer, the first layer below; a line where one reads another above its level. */
function compositionDiagram(lines, heads, most) {
  const layers = Math.max(...heads.map(([layer]) => layer)) + 1;
  const perLayer = heads.filter(([layer]) => layer === 0).length;
  const width = 640, height = 60 + 150 * (layers - 1);
  const x = ([, head]) => (head + 0.5) * width / perLayer;
  const y = ([layer]) => height - 30 - 150 * layer;
  const shift = kind => ({K: -7, Q: 0, V: 7})[kind];
  const thick = value => 0.8 + 8 * value / most;                  // pixels
  const paths = lines.map(({kind, later, earlier, value}, n) => svg("line", {
    class: `link ${kind}`, "stroke-width": thick(value), style: {strokeOpacity: 0.3 + 0.7 * value / most},
    x1: x(earlier) + shift(kind), y1: y(earlier) - 16, x2: x(later) + shift(kind), y2: y(later) + 16,
    onclick: () => chooseHead(later, pairName(lines[n]))},
    svg("title", {}, `${KINDS[kind]} of ${headName(later)} read ${headName(earlier)}: ${signed(value)}`)));
  const reads = head => lines.filter(({later}) => sameHead(later, head));
  const nodes = heads.map(head => svg("g", {
    class: "node", "aria-label": `head ${headName(head)} reads ${
      reads(head).map(({kind, earlier}) => `${headName(earlier)} by its ${KINDS[kind]}`).join(", ") || "no head"}`,
    ...pressable(() => chooseHead(head)), onpointerenter: () => light(head),
    onpointerleave: () => light(null), onfocus: () => light(head), onblur: () => light(null)},
    svg("circle", {cx: x(head), cy: y(head), r: 17}),
    svg("text", {x: x(head), y: y(head) + 5, "text-anchor": "middle"}, headName(head))));
  const picture = roving(svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "group",
                                     "aria-label": "heads, and who reads whom"}, paths, nodes));

  /* Lights up a head, the heads it reads from, and the lines between. */
  function light(head) {
    const read = reads(head).map(({earlier}) => headName(earlier));
    lines.forEach(({later}, n) => {
      paths[n].classList.toggle("lit", sameHead(later, head));
      paths[n].classList.toggle("dim", Boolean(head) && !sameHead(later, head));
    });
    nodes.forEach((node, n) => {
      node.classList.toggle("lit", sameHead(heads[n], head));
      node.classList.toggle("read", read.includes(headName(heads[n])));
    });
  }
  markChosen(nodes, n => isShown(heads[n]));
  markChosen(paths, n => pairName(lines[n]) === state.path);
  const ends = [lines.at(-1)?.value ?? most, most];
  const keys = [...Object.entries(KINDS).map(([kind, text]) => [`link ${kind}`, 2, text]),
                ...ends.map(value => ["link", thick(value), signed(value)])];
  return {light, element: el("div", {class: "diagram"}, el("p", {class: "keys"},
    keys.map(([look, width, text]) => el("span", {class: "key"}, swatch(look, width), text))), picture)};
}

/* The two behaviors that make induction, head by head; the heads that earned a name, or null. */
function behaviors(rows, induction, previous) {
  const who = induction && `Head ${headName(induction)} looks at what followed last time`;
  byId("behavior-see").textContent = !who ? "No head looks often enough at what followed last time"
    : `${who}, ${previous ? headName(previous) : "and no earlier head"} at the token before`;
  const shown = !("induction" in rows[0])
    ? el("p", {class: "notice"}, "Contexts are too short for repeated random tokens.")
    : roving(table(["head", "previous token", "prefix matching"],
        rows.map(row => [headLink(headOf(row)), ...["previous", "induction"].map(key =>
          el("span", {class: "inbar"}, bar(row[key]), fixed(row[key], 2)))]),
        "mean share of attention; all bars end at 1"));
  byId("behavior-figure").append(shown);
  markChosen(shown.querySelectorAll("tbody tr"), n => isShown(headOf(rows[n])));
}
