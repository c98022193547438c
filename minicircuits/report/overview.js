/* What the model is, how it was trained, how good it is, and that the algebra is exact. */

/* What is next to the model among losses, largest first; less than 0.05 nats is no difference. */
function againstCounts(ranked) {
  const own = ranked.find(([name]) => name.startsWith("this "));
  if (!own) return "One token has no loss: nothing comes next";
  const worse = ranked.filter(([, loss]) => loss - own[1] >= 0.05).at(-1);
  const better = ranked.find(row => row !== own && row[1] - own[1] < 0.05);
  if (!worse) return `This model is no better than ${better[0]}`;
  return `This model is ${fixed(worse[1] - own[1], 2)} nats better than ${worse[0]}` +
    (!better ? "" : own[1] - better[1] < 0.05 ? `, and as good as ${better[0]}`
      : `, and ${fixed(own[1] - better[1], 2)} worse than ${better[0]}`);
}

function overview({losses, exactness, log, formation, ...shape}) {
  const facts = [
    [shape.n_layers, shape.n_layers === 1 ? "layer" : "layers"],
    [shape.n_heads, `heads a layer, ${shape.d_head} wide`],
    [integer(shape.d_model), "residual dimensions"],
    [integer(shape.d_vocab), "tokens"],
    [shape.n_ctx ? integer(shape.n_ctx) : "any", `context, positions: ${shape.positions}`],
    [integer(shape.parameters), "parameters in matrices"]];
  byId("facts").append(...facts.map(([number, text]) => el("div", {}, el("b", {}, number), " ", el("span", {}, text))));

  const ranked = Object.entries(losses).sort((a, b) => b[1] - a[1]);
  byId("losses-see").textContent = againstCounts(ranked);
  byId("counts").textContent = ranked.some(([name]) => name.includes("counts"))
    ? "Unigram and bigram counts are those of the training text."
    : "Counts are known only where the text was held out of a training text.";
  byId("losses").append(bars(["", "nats"], ranked.map(([name, value]) =>
    ({name, value, look: name.startsWith("this ") ? "" : "quiet"}))));

  const paths = exactness.paths === 1 ? "the only path" : `the sum of ${integer(exactness.paths)} paths`;
  const rows = [[`${paths} = the logits`, exactness.logits], ...!exactness.terms ? [] : [
    [`the sum of ${integer(exactness.terms)} terms = the scores`, exactness.scores],
    ["patterns rebuilt from weights and tokens alone = the patterns", exactness.patterns],
    ["logits through the rebuilt patterns = the logits", exactness.rebuilt_logits]]];
  byId("exactness-see").textContent = `The sums over paths are ${exactness.exact ? "" : "not "}the model, to rounding`;
  byId("exactness").append(table(["", "relative difference"],
    rows.map(([name, error]) => [name, error.toExponential(1).replace("-", "−")])));
  if (exactness.limit) byId("exactness").append(el("p", {class: "small"}, exactness.limit));
  byId("precision").append(`${exactness.precision}; about 10`,
    el("sup", {}, exactness.precision === "float32" ? "−7" : "−16"));

  byId("training").hidden = !log.length;
  if (log.length) training(log, formation, shape.n_layers);
}

function training(log, formation, layers) {
  const xs = log.map(row => row.step), column = key => log.map(row => row[key]);
  const losses = [...column("loss"), ...column("validation")], inContext = column("in_context");
  const charts = [
    {label: "loss", up: "nats per token", range: [Math.floor(Math.min(...losses)), Math.ceil(Math.max(...losses))],
     drawn: [["loss in training", "loss", "soft"], ["held-out loss", "validation", "a"]]},
    {label: "in-context score", up: "nats, late less early",
     range: [Math.min(-0.5, ...inContext), Math.max(0.5, ...inContext)],
     drawn: [["in-context score", "in_context", "b"]]},
    {label: "best heads", up: "share of attention", range: [0, 1],
     drawn: [["best previous-token head", "previous_token", "soft"],
             ["best prefix matching", "prefix_matching", "a"]]}];
  byId("training-see").textContent = formation
    ? `An induction head forms ${formation.before == null ? "" : `after step ${
        integer(formation.before)}, `}by step ${integer(formation.step)}`
    : layers ? "No induction head has formed" : "The loss, step by step; there are no heads to form";
  for (const {up, drawn, ...chart} of layers ? charts : charts.slice(0, 2)) {
    if (drawn.some(([, key]) => column(key).includes(null))) continue;              // not measured
    byId("curves").append(lineChart({xs, ...chart, units: ["step", up],
      mark: formation && {x: formation.step, text: "induction"},
      lines: drawn.map(([name, key, look]) => ({name, look, values: column(key)}))}));
  }
}
