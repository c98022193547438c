"use strict";
/* How much of the loss each order of paths takes off, and each virtual head. */

function importance({losses, marginal, counts, given_direct, given_others, virtual_heads, limit}) {
  const names = losses.map((_, order) => ["direct path", "single heads"][order]
                                         ?? `virtual heads of ${order}`);
  byId("importance-see").textContent = marginal.length < 3 ? "What each order of paths adds"
    : `${integer(counts[1])} single heads take off ${fixed(marginal[1], 2)} nats, ` +
      `${integer(counts[2])} virtual heads ${fixed(marginal[2], 2)}`;
  byId("importance-figure").append(
    bars(names.map((name, order) => ({name, value: marginal[order]}))),
    table(["paths added", "terms", "loss", "takes off"], names.map((name, order) =>
      [name, integer(counts[order]), fixed(losses[order]), fixed(marginal[order])])),
    table(["heads of", "given the direct path", "given the other layers’ heads"],
      given_direct.map((value, layer) => [`layer ${layer}`, fixed(value),
                                          fixed(given_others[layer])])));
  const shown = virtual_heads.slice(0, 24), most = shown.length ? shown[0].importance : 0;
  byId("virtual-figure").append(
    table(["virtual head", "takes off (nats)", "copying"], shown.map(row => [
      row.heads, el("span", {class: "inbar"}, bar(most > 0 ? row.importance / most : 0),
                    fixed(row.importance, 4)), fixed(row.copying, 2)])),
    virtual_heads.length > shown.length
      ? el("p", {class: "notice"}, `Cut: the first ${shown.length} of ${virtual_heads.length}.`)
      : "",
    limit ? el("p", {class: "notice"}, limit) : "");
  if (shown.length) {
    byId("virtual-see").textContent =
      `${shown[0].heads} matters most: ${fixed(shown[0].importance, 2)} nats`;
  }
}
