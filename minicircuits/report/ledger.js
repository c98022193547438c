"use strict";
/* One logit as a sum: the strongest paths, their sources, and all the rest, as bars that add up. */

const PATHS_SHOWN = 12;
const SOURCES_SHOWN = 3;

function pathName(heads) {
  return heads.map(headName).join("→") || "direct";
}

function ledger() {
  const text = () => texts[state.text], truth = () => text().tokens[state.place + 1];
  const vocabulary = () => page.vocabulary.filter(([id]) => text().targets(id));
  let paths = [];

  const strip = tokenStrip("the text", "ledger-strip", {choose: place => select({place})});
  const candidates = el("div", {class: "candidates", role: "group", "aria-label": "target token"});
  const found = el("div", {class: "candidates"});
  const search = el("input", {type: "search", placeholder: "any other token …",
    "aria-label": "search for a target token", oninput: () => {
      const wanted = search.value.replaceAll(" ", "␣");
      const matches = wanted ? vocabulary().filter(([, name]) => name.includes(wanted)) : [];
      matches.sort((a, b) => a[1].length - b[1].length);
      found.replaceChildren(...matches.slice(0, 16).map(([id]) => candidate(id)),
        matches.length > 16 ? el("span", {class: "notice"}, `and ${matches.length - 16} more`) : "");
    }});
  const title = el("p", {class: "head-title"});
  const rows = el("div", {class: "waterfall", onpointerleave: () => colorStrip(null)});

  function candidate(id) {
    const chance = text().probability(state.place, id);
    return el("button", {type: "button", "aria-pressed": id === state.target,
                         class: id === truth() ? "true" : null,
                         onclick: () => select({target: id})},
              mono(id), el("b", {class: "number"}, fixed(chance)));
  }

  /* The text colored by what each token adds, through one path or through all. */
  function colorStrip(path) {
    const sums = text().tokens.map((_, j) => path ? path.sources[j]
      : paths.reduce((sum, {sources}) => sum + sources[j], 0));
    const most = largest(sums);
    strip.color(j => most ? sums[j] / most : 0);
  }

  function show() {
    const {place, target} = state, {tokens: ids, next, logit: logitAt, probability} = text();
    figure.hidden = !text().paths;
    elsewhere.hidden = Boolean(text().paths);
    if (!text().paths) return;
    paths = text().paths(place, target).sort((a, b) => Math.abs(b.total) - Math.abs(a.total));
    const logit = logitAt(place, target), offered = next(place).map(([id]) => id);
    const all = [...new Set([...offered, ...(truth() == null ? [] : [truth()]), target])];
    candidates.replaceChildren(...all.map(candidate));
    search.value = "";
    found.replaceChildren();
    title.replaceChildren(`after ${place} `, mono(ids[place]), ": the logit of ", mono(target),
      ` (probability ${fixed(probability(place, target))})`);
    rows.replaceChildren(...waterfall(paths, logit, ids));
    strip.mark(place, null, true);
    colorStrip(null);
  }

  function waterfall(paths, logit, ids) {
    const shown = paths.slice(0, PATHS_SHOWN), rest = paths.slice(PATHS_SHOWN);
    const others = rest.reduce((sum, {total}) => sum + total, 0);
    const lines = shown.map(path => ({name: pathName(path.heads), value: path.total, path}));
    if (rest.length) lines.push({name: `${rest.length} other paths`, value: others});
    let low = 0, high = 0, sum = 0;
    for (const line of lines) {
      line.from = sum;
      sum += line.value;
      low = Math.min(low, sum);
      high = Math.max(high, sum);
    }
    lines.push({name: "sum", value: sum, from: 0, class: "sum"},
               {name: "the model’s logit", value: logit, from: 0, class: "sum"});
    const x = scale([low, Math.max(high, low + 1e-9)], [0, 100]);
    return lines.map(line => el("div", {
      class: `entry ${line.class ?? ""}`, onpointerenter: () => colorStrip(line.path)},
      el("span", {class: "name"}, line.name),
      el("span", {class: "track"},
        el("i", {class: "zero", style: {left: `${x(0)}%`}}),
        el("i", {class: line.value < 0 ? "bar less" : "bar", style: {
          left: `${x(Math.min(line.from, line.from + line.value))}%`,
          width: `${Math.abs(x(line.value) - x(0))}%`}})),
      el("span", {class: "number"}, signed(line.value)),
      el("span", {class: "sources"}, line.path?.bias ? "the bias b_O"
        : line.path && strongest(line.path.sources, ids))));
  }

  function strongest(sources, ids) {
    return sources.map((value, j) => [value, j]).filter(([value]) => Math.abs(value) >= 5e-4)
      .sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, SOURCES_SHOWN)
      .map(([value, j]) => el("span", {}, mono(ids[j]), el("sub", {}, j), ` ${signed(value)} `));
  }

  const figure = el("div", {class: "ledger"}, el("div", {}, strip.element,
    el("p", {class: "small"}, "target, with its probability"), candidates, search, found),
    el("div", {}, title, rows));
  const elsewhere = elsewhereNotice("paths");
  byId("ledger-figure").append(el("div", {class: "controls"}, textPager()), elsewhere, figure);
  follow(["text"], () => strip.write(text()));
  follow(["text", "place", "target", "run"], show);
  dark.addEventListener("change", () => colorStrip(null));
}
