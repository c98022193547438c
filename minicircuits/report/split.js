/* One head's scores as a sum of four parts, side by side, with one pointer in all of them. */

const PARTS = [["neither", "neither"], ["Q", "Q-composition"], ["K", "K-composition"],
               ["both", "both"], ["total", "total"]];

/* figures: what was found of the page's induction head, or null. */
function split(place, figures) {
  const own = {level: true, at: null}, heads = texts.find(text => text.parts).splitHeads;
  let drawn = null, limit;
  const maps = PARTS.map(([, title]) => heatMap(`scores, ${title}`, {
    point: (...at) => { own.at = at; showPoint(); },
    lock: (place, source) => select({place, source}),
    leave: () => { own.at = null; showPoint(); }}));
  maps.slice(1).forEach(({element}) => { element.querySelector(".heat").tabIndex = -1; });   // one pointer for all
  const numbers = PARTS.map(() => digits());
  const readout = el("p", {class: "readout", "aria-live": "polite"});
  const picker = choice("head", heads.map(name => [name, name]), null, name =>
    select({head: headNames.indexOf(name)}));
  const rows = choice("rows", [[true, "less their mean"], [false, "as they are"]], true,
                      level => { own.level = level; show(); });
  const {open, inPython} = figureOnText(place, "parts", "Analyzing a Two-Layer Model", [picker, textPager(), rows],
    el("div", {class: "parts"}, PARTS.map(([key, title], k) => el("div", {class: "part"},
      el("p", {class: "name"}, `${{neither: "", total: "= "}[key] ?? "+ "}${title}`, numbers[k]),
      maps[k].element))), readout);

  function show() {
    const [layer, h] = shownHead(), name = headName([layer, h]), {tokens, parts: partsOf} = shownText();
    picker.querySelectorAll("input").forEach(input => { input.checked = input.value === name; });
    drawn = null;
    const can = heads.includes(name);
    if (!open(can, can ? "" : layer ? `The scores of head ${name} were not taken apart.`
      : `Head ${name} is in the first layer: neither side of its scores reads earlier heads.`)) return;
    inPython([`split = mc.split_scores(weights, tokens, acts.pattern, ${layer}, ${h}, acts.norms)`]);
    const parts = partsOf(name), all = [...parts, parts[0].map((_, n) => sumOf(parts.map(part => part[n])))];
    drawn = own.level ? all.map(levelled) : all;
    limit = Math.max(...drawn.map(largest));
    maps.forEach((map, k) => map.draw(tokens.map(word), drawn[k], limit, 0.8));
    showPoint();
  }

  /* Of what is pointed at, or else of what is chosen. */
  function showPoint() {
    const [i, j] = own.at ?? [state.place, sourceOf(state)], {tokens} = shownText();
    maps.forEach((map, k) => {
      map.mark(i, j);
      numbers[k].textContent = signed(drawn[k][triangle(i, j)]);
    });
    readout.replaceChildren(`destination ${i} `, mono(tokens[i]), " ← ", `source ${j} `,
                            mono(tokens[j]), `; full color is ±${fixed(limit)}`);
  }

  if (figures) splitTable(figures, headName(page.induction));
  follow(["text", "head", "run", "colors"], show);
  follow(["place", "source"], () => drawn && showPoint());
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
