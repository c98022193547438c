"use strict";
/* The bigram table of a model without layers; of any token, where the model is in the page. */

/* next_tokens: rows {token, model, text} of pairs [id, share]. Where counts are known, losses on
   the bigrams of the training text: the model's, and the least at its d_model. */
function bigramTable({next_tokens, training_loss, fitted_loss}, model) {
  const listed = pairs => (pairs ?? []).flatMap(([id, share]) =>
    [mono(id), " ", el("span", {class: "number"}, fixed(share, 2)), " "]);
  const counted = next_tokens.some(row => row.text);
  const row = ({token, model, text}) =>
    [mono(token), listed(model), ...counted ? [listed(text)] : []];
  const titles = ["after", "the model expects", ...counted ? ["was counted"] : []];
  byId("bigrams").hidden = false;
  byId("bigram-figure").append(table(titles, next_tokens.map(row)));
  if (training_loss !== undefined) {
    byId("bigram-figure").append(el("p", {class: "small"}, `On the bigrams of the training text its ` +
      `loss is ${fixed(training_loss)} nats; the least that matrices of its size reach is ` +
      `${fixed(fitted_loss)}.`));
  }
  if (!model) return;
  const found = el("div", {"aria-live": "polite"});
  byId("bigram-figure").append(tokenSearch("after any other token", wanted => {
    const matches = wanted ? page.vocabulary.filter(([, text]) => text.includes(wanted)) : [];
    matches.sort((a, b) => a[1].length - b[1].length);
    found.replaceChildren(...matches.slice(0, 1).map(([id]) => table(
      ["after", "the model expects"], [[mono(id), listed(likeliestAfter(model.W, id))]])));
  }), found);
}

/* The 8 likeliest next tokens of a model without layers, by softmax(W_U W_E): [id, share]. */
function likeliestAfter(W, id) {
  const [x] = normalized(W, {residual: [[Float64Array.from(W.W_E[id])]], norms: []}, 0);
  const shares = softmax(Float64Array.from(W.W_U, row => dot(row, x)));
  return Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, 8)
    .map(id => [id, shares[id]]);
}
