/* One logit as a sum over paths, and the tokens that they read. */

const AGAINST = [["mean", "less the mean of all tokens"], ["token", "less that of another token"],
                 ["nothing", "as it is"]];

function ledger(place) {
  const strip = tokenStrip("ledger-strip"), title = el("p", {class: "head-title"});
  const target = tokenChooser("target", "target token"), against = tokenChooser("against", "token to compare with");
  const comparison = choice("the logit", AGAINST, "mean", kind =>
    select({against: {mean: "mean", nothing: null, token: runnerUp()}[kind]}));
  const bars = sumOfBars("path", ["path", "adds to the logit", "tokens that it reads, and what each adds"], {
    chosen: () => state.path, choose: path => select({path}), look: colorStrip});
  const {open, inPython} = figureOnText(place, "paths", "Path Expansion of Logits", [textPager(), comparison],
    el("div", {class: "ledger"}, el("div", {}, strip.element, target.element, against.element),
      el("div", {}, title, bars.element)));
  let paths = null;

  const likeliest = () => shownText().next(state.place).map(([id]) => id);
  const runnerUp = () => likeliest().find(id => id !== state.target);

  /* What each token adds: through a path, or through all. */
  function colorStrip(path) {
    const on = path ? [path] : paths;
    strip.color(shownText().tokens.map((_, j) => sumOf(on.map(({shares}) => shares[j]))));
  }

  /* What the sum is: a logit means nothing alone, since adding to all of them changes nothing. */
  function said() {
    const {place, target: id, against: other} = state, {tokens, probability} = shownText();
    const [one, two] = [id, other].map(id => typeof id === "number" && probability(place, id));
    return [`after ${place} `, mono(tokens[place]), ": the logit of ", mono(id), ` (probability ${fixed(one)})`,
      ...other === null ? [" as it is"] : other === "mean" ? [", less the mean of all tokens’ logits"]
        : [", less that of ", mono(other), ` (${fixed(two)}): `, mono(one < two ? other : id),
           ` is ${integer(Number(Math.max(one / two, two / one).toPrecision(3)))} times as likely`]];
  }

  function show() {
    const {tokens, paths: pathsOf, logit} = shownText(), {place, target: id, against: other} = state;
    paths = null;
    if (!open(true)) return;
    paths = pathsOf(place, id, other).map(({heads, bias, sources, total}) => ({
      name: pathName(heads), value: total, shares: sources,
      sources: all => bias ? ["the bias b_O"] : tokenShares(sources, tokens, all)}));
    const asked = typeof other === "number";
    target.show([...likeliest(), tokens[place + 1] ?? id, id]);
    against.show([...likeliest(), asked ? other : id].filter(one => one !== id));
    against.element.hidden = !asked;
    comparison.querySelector(`[value=${asked ? "token" : other ?? "nothing"}]`).checked = true;
    title.replaceChildren(...said());
    bars.show(paths, [[asked ? "the model’s difference" : other ? "the model’s logit, less the mean"
      : "the model’s logit", logit(place, id, other)]]);
    strip.mark(place, state.source, true);
    const other_U = asked ? `weights.W_U[${other}]` : "weights.W_U.mean(0)";
    inPython([
      ...other === null ? [] : ["from dataclasses import replace",
                                `weights = replace(weights, W_U=weights.W_U - ${other_U})`],
      `ledger = mc.ledger(weights, tokens, acts.pattern, ${place}, ${id}, acts.norms)`,
      "shares = dict(zip(ledger.paths, ledger.contributions.sum(1)))"]);
  }

  follow(["text", "place", "target", "against", "run"], show);
  follow(["path"], () => paths && bars.choose());
  follow(["source"], () => strip.mark(state.place, state.source, true));
}

/* One of several tokens to choose from, with a number. */
function candidate(label, value, pressed, act, attributes) {
  return button([label, digits(fixed(value))], act, {"aria-pressed": String(pressed), ...attributes});
}

/* Tokens to choose from, with their probabilities, and all others by name; `key` of the state is
   the one that is chosen. */
function tokenChooser(key, legend) {
  const offered = el("div", {class: "candidates", role: "group", "aria-label": legend});
  const found = el("div", {class: "candidates", role: "group", "aria-label": `${legend}s found`});
  [offered, found].forEach(roving);
  const search = tokenSearch(`any other ${legend}`, (wanted, ids) => {
    const matches = ids.filter(shownText().targets);
    found.replaceChildren(...matches.slice(0, 16).map(offer),
      wanted && !matches.length || matches.length > 16
        ? el("span", {class: "notice"}, `${matches.length ? `and ${matches.length - 16} more` : "none has it"}`) : "");
  });
  const offer = id => {
    const {tokens, probability} = shownText(), came = id === tokens[state.place + 1];
    return candidate(mono(id), probability(state.place, id), id === state[key], () => select({[key]: id}),
                     {class: came ? "true" : null});
  };
  return {
    element: el("div", {}, el("p", {class: "small"}, `${legend}, with its probability`), offered, search, found),
    show(ids) {
      const held = found.contains(document.activeElement);
      offered.replaceChildren(...[...new Set(ids)].map(offer));
      search.value = "";
      found.replaceChildren();
      if (held) offered.querySelector("[aria-pressed=true]").focus();
    }};
}
