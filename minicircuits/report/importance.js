/* How much of the loss each order of paths takes off, and each virtual head. */

function importance({losses, marginal, counts, given_direct, given_others, virtual_heads, matters, limit}) {
  const names = losses.map((_, order) => ["direct path", "single heads"][order] ?? `virtual heads of ${order}`);
  const uniform = losses[0] + marginal[0];
  const effect = value => `${value < 0 ? "add" : "take off"} ${fixed(Math.abs(value), 2)} nats`;
  byId("importance-see").textContent = sumOf(marginal) < 0.005 ? "All paths together take nothing off the loss"
    : `${integer(counts[1])} single heads ${effect(marginal[1])}, ` +
      `${integer(counts[2])} virtual heads of two ${effect(marginal[2])}`;
  byId("importance-figure").append(
    bars(["", "nats"], [{name: "every token alike", value: uniform, look: "quiet"},
      ...names.map((name, order) => (
        {sign: "+", name, value: -marginal[order], from: order ? losses[order - 1] : uniform})),
      {sign: "=", name: "the model", value: losses.at(-1)}]),
    table(["paths added", "terms", "loss", "takes off"], names.map((name, order) =>
      [name, integer(counts[order]), fixed(losses[order]), fixed(marginal[order])])),
    table(["heads of", "given the direct path", "given the other layers’ heads"],
      given_direct.map((value, layer) => [`layer ${layer}`, fixed(value),
                                          fixed(given_others[layer])])));
  const lastOf = ({heads}) => heads.split("→").at(-1).split(".");
  const shown = virtual_heads.slice(0, 24), most = shown.length ? shown[0].importance : 0;
  const virtual = table(["virtual head", "takes off (nats)", "copying"], shown.map(row => [
    button(row.heads, () => chooseHead(lastOf(row), row.heads), {class: "pick"}),
    el("span", {class: "inbar"}, bar(most > 0 ? -row.importance / most : 0), fixed(row.importance, 4)),
    fixed(row.copying, 2)]));
  const cut = shown.length < virtual_heads.length && `Cut: the first ${shown.length} of ${virtual_heads.length}.`;
  byId("virtual-figure").append(roving(virtual),
    ...[cut, limit].filter(Boolean).map(text => el("p", {class: "notice"}, text)));
  markChosen(virtual.querySelectorAll("tbody tr"), n => shown[n].heads === state.path);
  byId("virtual-see").textContent = !matters ? "No virtual head matters by itself"
    : `${matters} matters most: without it the loss is ${fixed(most, 2)} nats higher`;
}
