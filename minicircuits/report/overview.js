"use strict";
/* What the model is, how it was trained, how good it is, and that the algebra is exact. */

function overview({losses, exactness, log, formation, ...shape}) {
  const facts = [
    [shape.n_layers, shape.n_layers === 1 ? "layer" : "layers"],
    [shape.n_heads, `heads a layer, ${shape.d_head} wide`],
    [integer(shape.d_model), "residual dimensions"],
    [integer(shape.d_vocab), "tokens"],
    [shape.n_ctx ? integer(shape.n_ctx) : "any", `context, positions: ${shape.positions}`],
    [integer(shape.parameters), "parameters in matrices"]];
  byId("facts").append(...facts.map(([number, text]) =>
    el("div", {}, el("b", {}, number), " ", el("span", {}, text))));

  const ranked = Object.entries(losses).sort((a, b) => b[1] - a[1]);
  byId("losses").append(bars(ranked.map(([name, value]) => ({
    name, value, class: name.startsWith("this ") ? "main" : "quiet"}))));

  const rows = [[`the sum of ${integer(exactness.paths)} paths is the logits`, exactness.logits]];
  if (exactness.terms) {
    rows.push([`the sum of ${integer(exactness.terms)} terms is the scores`, exactness.scores],
              ["patterns rebuilt from weights and tokens alone", exactness.patterns],
              ["logits through the rebuilt patterns", exactness.rebuilt_logits]);
  }
  byId("exactness").append(table(["", "relative difference"],
    rows.map(([name, error]) => [name, error.toExponential(1).replace("-", "−")])));
  if (exactness.limit) byId("exactness").append(el("p", {class: "small"}, exactness.limit));
  byId("precision").append(`${exactness.precision}; about 10`,
    el("sup", {}, exactness.precision === "float32" ? "−7" : "−16"));

  byId("training").hidden = !log.length;
  if (log.length) training(log, formation, shape.n_layers);
}

function training(log, formation, layers) {
  const xs = log.map(row => row.step);
  const line = (name, key, style) => ({name, class: style, values: log.map(row => row[key])});
  const mark = formation && {x: formation.step, text: "induction"};
  const losses = log.flatMap(row => [row.loss, row.validation]);
  const inContext = log.map(row => row.in_context);
  byId("training-see").textContent = formation
    ? `An induction head forms ${formation.before == null ? "" : `after step ${
        integer(formation.before)}, `}by step ${integer(formation.step)}`
    : layers ? "No induction head has formed" : "The loss falls; there are no heads to form";
  byId("curves").append(
    lineChart({xs, unit: "step", mark, label: "loss", range: [Math.floor(Math.min(...losses)),
                                                              Math.ceil(Math.max(...losses))],
               lines: [line("loss in training", "loss", "soft"),
                       line("held-out loss", "validation", "a")]}));
  if (!inContext.includes(null)) {
    byId("curves").append(
      lineChart({xs, unit: "step", mark, label: "in-context score",
                 range: [Math.min(-0.5, ...inContext), Math.max(0.5, ...inContext)],
                 lines: [line("in-context score", "in_context", "b")]}));
  }
  if (layers && !log.some(row => row.prefix_matching === null)) {
    byId("curves").append(
      lineChart({xs, unit: "step", mark, label: "best heads", range: [0, 1],
                 lines: [line("best previous-token head", "previous_token", "soft"),
                         line("best prefix matching", "prefix_matching", "a")]}));
  }
}
