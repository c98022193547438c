"use strict";
/* One head's scores as a sum of four parts, side by side, with one pointer in all of them. */

const PARTS = [["neither", "neither"], ["Q", "Q-composition"], ["K", "K-composition"],
               ["both", "both"], ["total", "total"]];

/* figures: what was found of the page's induction head, or null. */
function split(figures) {
  const own = {level: true, at: null}, heads = texts.find(text => text.parts).splitHeads;
  const text = () => texts[state.text], head = () => headName(page.shown_heads[state.head]);
  let drawn, limit;
  const maps = PARTS.map(([, title]) => heatMap(`scores, ${title}`, {
    point: (...at) => { own.at = at; showPoint(); },
    lock: (place, source) => select({place, source}),
    leave: () => { own.at = null; showPoint(); }}));
  maps.slice(1).forEach(({element}) => { element.firstChild.tabIndex = -1; });     // all five have one pointer
  const numbers = PARTS.map(() => el("b", {class: "number"}));
  const readout = el("p", {class: "readout", "aria-live": "polite"});
  const picker = choice("head", heads.map(name => [name, name]), head(), name =>
    select({head: page.shown_heads.findIndex(head => headName(head) === name)}));
  const python = inPython("Analyzing a Two-Layer Model");

  function show() {
    const size = text().tokens.length, given = heads.includes(head());
    picker.querySelectorAll("input").forEach(input => { input.checked = input.value === head(); });
    figure.hidden = !text().parts || !given;
    elsewhere.hidden = Boolean(text().parts);
    others.hidden = given;
    others.textContent = page.shown_heads[state.head][0]
      ? `The scores of head ${head()} were not taken apart.`
      : `Head ${head()} is in the first layer: neither side of its scores reads earlier heads.`;
    if (figure.hidden) return;
    const [layer, h] = page.shown_heads[state.head];
    python.show([`split = mc.split_scores(weights, tokens, acts.pattern, ${layer}, ${h}, acts.norms)`]);
    const parts = text().parts(head());
    const raw = [...parts, parts[0].map((_, n) => parts.reduce((sum, part) => sum + part[n], 0))];
    drawn = own.level ? raw.map(part => levelled(part, size)) : raw;
    limit = Math.max(...drawn.map(largest));
    maps.forEach((map, k) => map.draw(size, size, drawn[k], limit, 0.8));
    showPoint();
  }

  /* Of what is pointed at, or else of what is chosen. */
  function showPoint() {
    const [i, j] = own.at ?? [state.place, sourceOf(state)];
    maps.forEach((map, k) => {
      map.mark(i, j);
      numbers[k].textContent = signed(drawn[k][triangle(i, j)]);
    });
    readout.replaceChildren(`destination ${i} `, mono(text().tokens[i]), " ← ", `source ${j} `,
                            mono(text().tokens[j]), `; full color is ±${fixed(limit)}`);
  }

  const figure = el("div", {},
    el("div", {class: "parts"}, PARTS.map(([key, title], k) => el("div", {class: "part"},
      el("p", {class: "name"}, `${{neither: "", total: "= "}[key] ?? "+ "}${title}`, numbers[k]), maps[k].element))),
    readout, python.element);
  const elsewhere = elsewhereNotice("parts"), others = el("p", {class: "small"});
  byId("split-figure").append(
    el("div", {class: "controls"}, picker, textPager(),
      choice("rows", [[true, "less their mean"], [false, "as they are"]], true,
             level => { own.level = level; show(); })), elsewhere, others, figure);
  if (figures) splitTable(figures, headName(page.induction));
  follow(["text", "head", "run"], show);
  follow(["place", "source"], () => figure.hidden || showPoint());
  dark.addEventListener("change", show);
}

/* Each row less its mean over its sources: the same pattern, and the level is out of sight. */
function levelled(part, size) {
  const result = new Float32Array(part.length);
  for (let i = 0; i < size; i++) {
    const row = part.subarray(triangle(i, 0), triangle(i, i) + 1);
    const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
    result.set(row.map(value => value - mean), triangle(i, 0));
  }
  return result;
}

function splitTable({parts, carrier, block, attention}, name) {
  const carries = Object.fromEntries(PARTS)[carrier];
  byId("split-see").textContent = carrier ? `Head ${name}: the stripe comes from ${{
    neither: "neither side’s heads", Q: "Q-composition", K: "K-composition",
    both: "heads on both sides at once"}[carrier]}` : `Head ${name} has no stripe to speak of`;
  byId("split-table").append(table(["part", "on the stripe", "elsewhere", "difference"],
    PARTS.map(([key, title]) => [title === carries ? el("b", {}, title) : title,
      fixed(parts[key].stripe, 2), fixed(parts[key].elsewhere, 2),
      fixed(parts[key].stripe - parts[key].elsewhere, 2)]),
    `Head ${name}, mean over eight contexts of ${block} random tokens, twice; ` +
    `${fixed(attention, 2)} of its attention is on the stripe`));
}
