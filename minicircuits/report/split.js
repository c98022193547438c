"use strict";
/* One head's scores as a sum of four parts, side by side, with one pointer in all of them. */

const PARTS = [["neither", "neither"], ["Q", "Q-composition"], ["K", "K-composition"],
               ["both", "both"], ["total", "total"]];

function split(figures) {
  const own = {level: true, at: null}, heads = texts.find(text => text.parts).splitHeads;
  const text = () => texts[state.text], tokens = () => text().tokens;
  const head = () => heads.includes(headName(page.shown_heads[state.head]))
    ? headName(page.shown_heads[state.head]) : heads.at(-1);
  let raw, drawn;
  const maps = PARTS.map(([, title]) => heatMap(`scores, ${title}`, {
    point: (i, j) => { own.at = [i, j]; showPoint(); }}));
  const numbers = PARTS.map(() => el("b", {class: "number"}));
  const readout = el("p", {class: "readout", "aria-live": "polite"});

  function show() {
    figure.hidden = !text().parts;
    elsewhere.hidden = Boolean(text().parts);
    if (!text().parts) return;
    raw = text().parts(head());
    raw = [...raw, raw[0].map((_, n) => raw[0][n] + raw[1][n] + raw[2][n] + raw[3][n])];
    drawn = own.level ? raw.map(part => levelled(part, tokens().length)) : raw;
    const limit = Math.max(...drawn.map(largest));
    const n = tokens().length;
    maps.forEach((map, k) => map.draw(n, n, drawn[k], limit, 0.8));
    if (!own.at || own.at[0] >= n) own.at = brightest();
    showPoint();
  }

  /* Where the total is strongest: on the stripe of repeated tokens, or in the last row. */
  function brightest() {
    const n = tokens().length, stripe = text().repeated;
    const places = Array.from({length: n}, (_, k) => stripe ? [k, k - figures.block + 1] : [n - 1, k])
      .filter(([, j]) => j > 0);
    return places.reduce((best, at) =>
      drawn[4][triangle(...at)] > drawn[4][triangle(...best)] ? at : best, places.at(-1) ?? [0, 0]);
  }

  function showPoint() {
    const [i, j] = own.at;
    maps.forEach((map, k) => {
      map.mark(i, j);
      numbers[k].textContent = signed(drawn[k][triangle(i, j)]);
    });
    readout.replaceChildren(`destination ${i} `, mono(tokens()[i]), " ← ", `source ${j} `,
                            mono(tokens()[j]));
  }

  const picker = choice("head", heads.map(name => [name, name]), head(), name =>
    select({head: page.shown_heads.findIndex(head => headName(head) === name)}));
  const figure = el("div", {},
    el("div", {class: "parts"}, PARTS.map(([, title], k) =>
      el("div", {class: "part"}, el("p", {class: "name"}, title, numbers[k]), maps[k].element))),
    readout);
  const elsewhere = elsewhereNotice("parts");
  byId("split-figure").append(
    el("div", {class: "controls"}, picker, textPager(),
      choice("rows", [[true, "less their mean"], [false, "as they are"]], true,
             level => { own.level = level; show(); })), elsewhere, figure);
  splitTable(figures, headName(page.induction));
  follow(["text", "head", "run"], changed => {
    if (changed.includes("text")) own.at = null;
    picker.querySelector(`[value="${head()}"]`).checked = true;
    show();
  });
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
  byId("split-see").textContent = `Head ${name}: the stripe comes from ${{
    neither: "neither side’s heads", Q: "Q-composition", K: "K-composition",
    both: "heads on both sides at once"}[carrier]}`;
  byId("split-table").append(table(["part", "on the stripe", "elsewhere", "difference"],
    PARTS.map(([key, title]) => [title === carries ? el("b", {}, title) : title,
      fixed(parts[key].stripe, 2), fixed(parts[key].elsewhere, 2),
      fixed(parts[key].stripe - parts[key].elsewhere, 2)]),
    `Head ${name}, mean over eight contexts of ${block} random tokens, twice; ` +
    `${fixed(attention, 2)} of its attention is on the stripe`));
}
