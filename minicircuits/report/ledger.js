"use strict";
/* One logit as a sum over paths, and the tokens that they read. */

const AGAINST = [["mean", "less the mean of all tokens"], ["token", "less that of another token"],
                 ["nothing", "as it is"]];

function pathName(heads) {
  return heads.map(headName).join("→") || "direct";
}

function ledger() {
  const text = () => texts[state.text], truth = () => text().tokens[state.place + 1];
  let paths = [];
  const strip = tokenStrip("the text", "ledger-strip", {choose: place => select({place})});
  const title = el("p", {class: "head-title"}), python = inPython("Path Expansion of Logits");
  const target = tokenChooser("target", "target token"), against = tokenChooser("against", "token to compare with");
  const comparison = choice("the logit", AGAINST, "mean", kind =>
    select({against: {mean: "mean", nothing: null, token: runnerUp()}[kind]}));
  const bars = sumOfBars("path", ["path", "adds to the logit", "tokens that it reads, with their shares"], {
    chosen: () => state.path, choose: ({name}) => select({path: name === state.path ? null : name}),
    point: colorStrip});

  const runnerUp = () => text().next(state.place).map(([id]) => id).find(id => id !== state.target);

  /* The text colored by what each token adds: through a path, the one that is chosen, or all. */
  function colorStrip(path) {
    const on = [path ?? paths.find(({name}) => name === state.path) ?? paths].flat();
    const sums = text().tokens.map((_, j) => on.reduce((sum, {shares}) => sum + shares[j], 0));
    const most = largest(sums);
    strip.color(j => most ? sums[j] / most : 0);
  }

  /* What the sum is: a logit means nothing alone, since adding to all of them changes nothing. */
  function said() {
    const {place, target: id, against: other} = state, {tokens, probability} = text();
    const [one, two] = [id, other].map(id => typeof id === "number" && probability(place, id));
    return [`after ${place} `, mono(tokens[place]), ": the logit of ", mono(id), ` (probability ${fixed(one)})`,
      ...other === null ? [" as it is"] : other === "mean" ? [", less the mean of all tokens’ logits"]
        : [", less that of ", mono(other), ` (${fixed(two)}): `, mono(one < two ? other : id),
           ` is ${integer(Number(Math.max(one / two, two / one).toPrecision(3)))} times as likely`]];
  }

  function show() {
    figure.hidden = !text().paths;
    elsewhere.hidden = !figure.hidden;
    if (figure.hidden) return;
    const {place, target: id, against: other} = state, {tokens, paths: pathsOf, logit} = text();
    paths = pathsOf(place, id, other).map(({heads, bias, sources, total}) => ({
      name: pathName(heads), value: total, shares: sources,
      sources: all => bias ? ["the bias b_O"] : tokenShares(sources, tokens, all)}))
      .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
    const offered = text().next(place).map(([id]) => id), asked = typeof other === "number";
    target.show([...offered, truth() ?? id, id]);
    against.show([...offered, asked ? other : id].filter(one => one !== id));
    against.element.hidden = !asked;
    comparison.querySelector(`[value=${asked ? "token" : other ?? "nothing"}]`).checked = true;
    title.replaceChildren(...said());
    bars.show(paths, [[asked ? "the model’s difference" : other ? "the model’s logit, less the mean"
      : "the model’s logit", logit(place, id, other)]]);
    strip.mark(place, state.source, true);
    colorStrip(null);
    const other_U = asked ? `weights.W_U[${other}]` : "weights.W_U.mean(0)";
    python.show([
      ...other === null ? [] : ["from dataclasses import replace",
                                `weights = replace(weights, W_U=weights.W_U - ${other_U})`],
      `ledger = mc.ledger(weights, tokens, acts.pattern, ${place}, ${id}, acts.norms)`,
      "shares = dict(zip(ledger.paths, ledger.contributions.sum(1)))"]);
  }

  const figure = el("div", {}, el("div", {class: "ledger"},
    el("div", {}, strip.element, target.element, against.element),
    el("div", {}, title, bars.element)), python.element);
  const elsewhere = elsewhereNotice("paths");
  byId("ledger-figure").append(el("div", {class: "controls"}, textPager(), comparison), elsewhere, figure);
  follow(["text"], () => strip.write(text()));
  follow(["text", "place", "target", "against", "run"], show);
  follow(["path"], () => { bars.choose(); colorStrip(null); });
  follow(["source"], () => strip.mark(state.place, state.source, true));
  dark.addEventListener("change", () => colorStrip(null));
}

/* Tokens to choose from, with their probabilities, and all others by name; `key` of the state is
   the one that is chosen. */
function tokenChooser(key, legend) {
  const text = () => texts[state.text];
  const offered = el("div", {class: "candidates", role: "group", "aria-label": legend});
  const found = el("div", {class: "candidates", role: "group", "aria-label": `${legend}s found`});
  [offered, found].forEach(roving);
  const search = el("input", {type: "search", placeholder: "any other token …",
    "aria-label": `search for a ${legend}`, oninput: () => {
      const wanted = search.value.replaceAll(" ", "␣");
      const matches = wanted ? page.vocabulary.filter(([id, name]) =>
        name.includes(wanted) && text().targets(id)) : [];
      matches.sort((a, b) => a[1].length - b[1].length);
      found.replaceChildren(...matches.slice(0, 16).map(([id]) => candidate(id)),
        matches.length > 16 ? el("span", {class: "notice"}, `and ${matches.length - 16} more`) : "");
    }});

  function candidate(id) {
    return el("button", {type: "button", "aria-pressed": String(id === state[key]),
                         class: id === text().tokens[state.place + 1] ? "true" : null,
                         onclick: () => select({[key]: id})},
              mono(id), el("b", {class: "number"}, fixed(text().probability(state.place, id))));
  }

  return {
    element: el("div", {}, el("p", {class: "small"}, `${legend}, with its probability`), offered, search, found),
    show(ids) {
      const held = found.contains(document.activeElement);
      offered.replaceChildren(...[...new Set(ids)].map(candidate));
      search.value = "";
      found.replaceChildren();
      if (held) offered.querySelector("[aria-pressed=true]").focus();
    }};
}
