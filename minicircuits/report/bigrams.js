/* The bigram table of a model without layers; of any token, where the model is in the page. */

/* rows: {token, model, text}, of pairs [id, share]; `text` where counts are known. */
function bigramTable(rows) {
  const listed = pairs => (pairs ?? []).flatMap(([id, share]) =>
    [mono(id), " ", el("span", {class: "number"}, fixed(share, 2)), " "]);
  const counted = rows.some(({text}) => text);
  byId("bigrams").hidden = false;
  byId("bigram-figure").append(table(["after", "the model expects", ...counted ? ["was counted"] : []],
    rows.map(({token, model, text}) => [mono(token), listed(model), ...counted ? [listed(text)] : []])));
  if (!page.model) return;
  const W = once(() => weightsOf(page.model)), found = el("div", {"aria-live": "polite"});
  byId("bigram-figure").append(tokenSearch("after any other token", (_, ids) =>
    found.replaceChildren(...ids.slice(0, 1).map(id => table(
      ["after", "the model expects"], [[mono(id), listed(likeliestAfter(W(), id))]])))), found);
}

/* The 8 likeliest next tokens of a model without layers, by softmax(W_U W_E): [id, share]. */
function likeliestAfter(W, id) {
  const [x] = normalized(W, {residual: [[Float64Array.from(W.W_E[id])]], norms: []}, 0);
  const shares = softmax(read(W.W_U, [x])[0]);
  return ranked(shares.keys(), id => shares[id]).slice(0, 8).map(id => [id, shares[id]]);
}
