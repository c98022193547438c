/* The head dump: for every head its scores, where it looks, and its ranked skip-trigrams. */

const SCORES = [["previous", "previous token"], ["duplicate", "duplicate token"],
                ["induction", "prefix matching"], ["first", "first token"],
                ["by_position", "by position"], ["copying", "copying score"],
                ["top_own", "own top output"]];

/* previous: the previous-token head (layer, head), or null. */
function headDump(dump, rows, previous) {
  const heads = dump.map(headOf);
  const tables = dump.map((head, n) => el("article",
    {id: `head-${head.layer}-${head.head}`, class: "head"},
    el("h3", {}, `Head ${headName(heads[n])} `,
      button("show it in all figures", () => chooseHead(heads[n]), {class: "pick"})),
    el("div", {class: "scores"}, SCORES.filter(([key]) => key in rows[n]).map(([key, title]) =>
      el("span", {}, `${title} `, digits(fixed(rows[n][key], 2))))),
    profile(head.profile), skipTrigrams(head, previous)));
  for (const [id, parts] of [["head-list", tables], ["head-links", heads.map(headLink)]]) {
    byId(id).append(...parts);
    roving(byId(id));
    markChosen(parts, n => isShown(heads[n]));
  }
  searchHeads([...byId("head-list").querySelectorAll(".trigrams tbody tr")]);
}

/* A field that leaves, of the rows of all heads, those with a token. */
function searchHeads(rows) {
  const named = rows.map(row => Array.from(row.querySelectorAll("code"), code => code.textContent));
  const list = byId("head-list"), fold = choice("tables of", [["one", "the chosen head"], ["all", "all heads"]], "one",
    of => list.classList.toggle("all", of === "all"));
  const all = named.filter(({length}) => length).length, many = el("span", {class: "small", role: "status"});
  byId("head-search").append(fold, tokenSearch("only rows with a token", wanted => {
    list.classList.toggle("all", Boolean(wanted) || fold.querySelector("[value=all]").checked);
    rows.forEach((row, n) => { row.hidden = wanted && !named[n].some(text => text.includes(wanted)); });
    many.textContent = wanted ? `${rows.filter(row => !row.hidden).length} of ${all} rows have it` : "";
  }), many);
}

/* Mean attention by distance back, near ones to the right as in a text. */
function profile(values) {
  const most = Math.max(...values), width = 4 * values.length;
  const best = values.indexOf(most);
  return el("div", {class: "profile"},
    svg("svg", {viewBox: `0 0 ${width} 40`, preserveAspectRatio: "none", role: "img",
                "aria-label": `mean attention by distance, most at ${best} back`},
      values.map((value, offset) => svg("rect", {
        x: width - 4 * (offset + 1), width: 3, y: 40 - 38 * value / (most || 1),
        height: 38 * value / (most || 1)},
        svg("title", {}, `${offset} back: ${fixed(value)}`)))),
    el("p", {}, `${values.length - 1} back … 0 back; own scale, most at ${best} back: ${fixed(most)}`));
}

/* The table of a head. `through`: the earlier head whose output its keys read, or null. */
function skipTrigrams({rows, through}, previous) {
  if (!rows.length) return el("p", {class: "notice"}, "No source both matches a destination and adds to an out.");
  const most = {score: rows[0].score};
  for (const side of ["destinations", "outs"]) {
    most[side] = Math.max(...rows.flatMap(row => row[side].map(([, value]) => value)));
  }
  const source = !through ? "source" : `source: ${
    sameHead(through, previous) ? "the token before" : "a token"}, read through ${headName(through)}`;
  const lines = rows.flatMap((row, n) => [
    n && row.rank > rows[n - 1].rank + 1
      ? el("tr", {class: "gap"}, el("td", {colspan: 4}, "⋮")) : null,
    el("tr", {}, el("td", {class: "rank"}, row.rank),
      el("th", {scope: "row"}, tinted(row.source, row.score, most.score)),
      ["destinations", "outs"].map(side => el("td", {}, row[side].map(([id, value]) =>
        tinted(id, value, most[side])))))]);
  const titles = [[source, "score", most.score], ["… destinations that match it most", "score", most.destinations],
                  ["→ outs it adds to most", "logit", most.outs]];
  return table(["", ...titles.map(([title, unit, value]) =>
    [`${title} `, el("br", {}), `${unit}, full color: ${fixed(value, 2)}`])], lines, null, "trigrams");
}

/* A token colored by strength. */
function tinted(id, value, most) {
  const code = el("code", {class: "tinted", title: `${word(id)} ${signed(value)}`}, word(id));
  follow(["colors"], () => tint(code, shade(0.7 * value / (most || 1))));
  return code;
}
