/* Eigenvalues: of what each head copies, in the complex plane; and of pairs, copying by matching. */

/* A circle for each head: 1 is its largest |λ|. rows: of the same heads, with their scores. */
function spectra(heads, rows) {
  const size = 100, at = scale([-1.15, 1.15], [0, size]);
  const axis = (x, y, text, anchor) => svg("text", {x, y, "text-anchor": anchor}, text);
  const drawn = heads.map(({copying, ...head}, n) => el("div", {class: "spectrum"},
    svg("svg", {viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label":
        `eigenvalues of head ${headName(headOf(head))}: ${copying.length} shown`},
      svg("circle", {class: "unit", cx: at(0), cy: at(0), r: at(1) - at(0)}),
      svg("line", {class: "grid", x1: at(-1), x2: at(1), y1: at(0), y2: at(0)}),
      svg("line", {class: "grid", x1: at(0), x2: at(0), y1: at(-1), y2: at(1)}),
      axis(size, at(0) - 3, "re", "end"), axis(at(0) + 3, 8, "im"),
      copying.map(([re, im]) => svg("circle", {class: "eigenvalue", cx: at(re), cy: at(-im), r: 2}))),
    el("p", {}, headLink(headOf(head)), ` copying ${fixed(rows[n].copying, 2)}`)));
  byId("spectra").append(...drawn);
  roving(byId("spectra"));
  markChosen(drawn, n => isShown(headOf(heads[n])));
}

/* Copying of the later head against same-matching of the pair: induction is in the corner. */
function eigenvalues(pairs, rows) {
  const size = 380, edge = 52;
  const x = scale([-1, 1], [edge, size - 8]), y = scale([-1, 1], [size - edge, 8]);
  const prefixMatching = later => rows.find(row => sameHead(headOf(row), later)).induction;   // or undefined
  const radius = matching => 4 + 8 * (matching ?? 0);
  const readout = el("p", {class: "readout"}, "Point at a pair of heads.");
  const dots = pairs.map(pair => {
    const found = prefixMatching(pair.later), show = () => { readout.textContent = text; };
    const text = `${pairName(pair)}: copying ${fixed(pair.copying, 2)}, matching ${fixed(pair.matching, 2)}` +
      (found === undefined ? "" : `, prefix matching of ${headName(pair.later)} ${fixed(found, 2)}`);
    return svg("circle", {class: "dot", cx: x(pair.copying), cy: y(pair.matching), "aria-label": text,
                          r: radius(found), onpointerenter: show, onfocus: show,
                          ...pressable(() => chooseHead(pair.later, pairName(pair)))});
  });
  const [best] = ranked(pairs, pair => Math.min(pair.copying, pair.matching) + 2 * pair.corner);
  byId("eigen-see").textContent = `${best.corner ? `The pair ${pairName(best)} stands` : "No pair stands"} ` +
                                  "in the corner of induction";
  const sizes = [0, 0.5, 1].map(value => [
    svg("circle", {class: "dot size", cx: size - 150 + 112 * value, cy: -16, r: radius(value)}),
    svg("text", {x: size - 142 + 118 * value, y: -12}, fixed(value, 1))]);
  const picture = svg("svg", {viewBox: `0 -32 ${size} ${size + 32}`, class: "scatter", role: "group",
                              "aria-label": "pairs of heads"},
    svg("rect", {class: "corner", x: x(0), y: y(1), width: x(1) - x(0), height: y(0) - y(1)}),
    [-1, -0.5, 0, 0.5, 1].map(tick => [
      svg("line", {class: "grid", x1: x(tick), x2: x(tick), y1: y(-1), y2: y(1)}),
      svg("line", {class: "grid", x1: x(-1), x2: x(1), y1: y(tick), y2: y(tick)}),
      svg("text", {x: x(tick), y: size - 34, "text-anchor": "middle"}, fixed(tick, 1)),
      svg("text", {x: edge - 5, y: y(tick) + 4, "text-anchor": "end"}, fixed(tick, 1))]),
    svg("text", {x: x(0), y: size - 8, "text-anchor": "middle"}, "copies what it attends to"),
    svg("text", {x: 10, y: y(0), transform: `rotate(-90 10 ${y(0)})`, "text-anchor": "middle"},
        "attends where its own token came before"),
    sizes, svg("text", {x: size - 160, y: -12, "text-anchor": "end"}, "prefix matching"),
    dots, best.corner ? svg("text", {class: "label", x: x(best.copying) - 14, y: y(best.matching) + 4,
                                     "text-anchor": "end"}, pairName(best)) : null);
  byId("eigen-figure").append(roving(picture), readout);
  markChosen(dots, n => pairName(pairs[n]) === state.path || isShown(pairs[n].later));
}
