/* What heads and paths do on tokens, given a run: `behavior/attribution.py`, `split_scores`,
   `ledger` and `expand_scores`. Letters and shapes as in model.js. */

const MOST_TERMS = 100000;       // of a score, that are added up one by one

/* What the logit of a token reads: its row of W_U; or less the row of another token, or less the
   mean row of the vocabulary. */
function direction(W, id, against = null) {
  if (against === null) return W.W_U[id];
  const other = against === "mean" ? W.mean_U : W.W_U[against];
  return Float64Array.from(W.W_U[id], (value, d) => value - other[d]);
}

/* A direction of the residual stream, divided by the last σ where what it reads is. */
const reader = (W, acts, place, toward) => acts.norms ? asRead(W, toward, acts.norms[W.n_layers][place]) : toward;

/* The lengths |W_O v_j| of what a head writes for each source. */
function valueLengths(W, acts, h) {
  if (acts.off.has(h)) return new Float64Array(acts.tokens.length);
  return Float64Array.from(read(W.W_O[h], acts.v[h]), row => Math.sqrt(dot(row, row)));
}

/* A_ij W_U[token_{i+1}] · W_O v_j: a triangle, whose last row is missing. */
function sourceEffects(W, acts, h) {
  const n = acts.tokens.length - 1, effects = new Float64Array(triangle(n, 0));
  if (acts.off.has(h)) return effects;
  for (let i = 0, at = 0; i < n; i++) {
    const written = combined(reader(W, acts, i, W.W_U[acts.tokens[i + 1]]), W.W_O[h]);
    for (let j = 0; j <= i; j++, at++) effects[at] = acts.pattern[h][at] * dot(written, acts.v[h][j]);
  }
  return effects;
}

/* The scores of a head in four triangles: neither side reads earlier heads, the query, the key,
   both. What heads wrote is x less what entered layer 0. */
function scoreParts(W, acts, h) {
  const layer = Math.floor(h / W.n_heads), norms = acts.norms?.[layer];
  const divided = x => norms ? x.map((row, i) => asRead(W, row, norms[i])) : x;
  const direct = addPositions(W, divided(acts.residual[0]));
  const others = divided(acts.residual[layer].map((row, i) =>
    row.map((value, d) => value - acts.residual[0][i][d])));
  const [q, k] = [W.W_Q[h], W.W_K[h]].map(matrix => [direct, others].map(y => read(matrix, y)));
  return [score(q[0], k[0]), score(q[1], k[0]), score(q[0], k[1]), score(q[1], k[1])];
}

/* The model's own logit, from what leaves its last layer. */
const logitOf = (W, acts, place, toward) => dot(acts.residual.at(-1)[place], reader(W, acts, place, toward));

/* What enters layer 0, as pairs of a source and its rows. */
function entering(W, acts) {
  const token = ["token", acts.tokens.map(id => W.W_E[id])];
  return W.positions === "standard" ? [token, ["position", W.W_pos]] : [token];
}

/* Σ_p a_p y_p of what a layer reads at the places p, as paths {source, heads, bias, y(), shares(r)} that
   add up to it: the `starts` directly; and through W_OV of each earlier head, what arrives there along
   a A. shares(r) are those of r · y that come from each place. A path whose first head rests carries a
   bias: it starts at no token. Such a head reads a 1 that is not divided; others read x_p / σ_p. */
function arriving(W, acts, layer, a, starts, earlierStarts = starts) {
  const norms = acts.norms?.[layer], divided = norms ? a.map((share, p) => share / norms[p]) : a;
  const found = starts.map(([source, rows]) => {
    const at = p => norms ? asRead(W, rows[p], norms[p]) : rows[p];
    const y = () => combined(a, Array.from(a, (_, p) => at(p)));
    return {source, heads: [], bias: false, y, shares: r => a.map((share, p) => share && share * dot(r, at(p)))};
  });
  for (let h = 0; h < layer * W.n_heads; h++) {
    if (acts.off.has(h)) continue;
    const earlier = Math.floor(h / W.n_heads), along = combined(divided, rowsOf(acts.pattern[h], a.length));
    for (const path of arriving(W, acts, earlier, along, earlierStarts)) {
      found.push({source: path.source, heads: [...path.heads, [earlier, h % W.n_heads]],
                  bias: path.heads.length ? path.bias : W.rests.has(h),
                  y: () => read(W.W_O[h], read(W.W_V[h], [path.y()]))[0],
                  shares: r => path.shares(combined(combined(r, W.W_O[h]), W.W_V[h]))});
    }
  }
  return found;
}

/* Every path to a logit, read toward a `direction`: {heads, bias, sources, total}. */
function pathsTo(W, acts, place, toward) {
  const here = acts.tokens.map((_, p) => Number(p === place));
  return arriving(W, acts, W.n_layers, here, [["token", acts.residual[0]]]).map(({heads, bias, shares}) => {
    const sources = shares(toward);
    return {heads, bias, sources: bias ? sources.map(() => 0) : sources, total: sumOf(sources)};
  });
}

/* How many terms a score of a layer has. */
function countTerms(W, acts, layer) {
  let paths = 1;
  for (let earlier = 0; earlier < layer; earlier++) {
    const off = [...acts.off].filter(h => Math.floor(h / W.n_heads) === earlier).length;
    paths *= 1 + W.n_heads - off;
  }
  return (paths + {none: 0, shortformer: 1, standard: paths}[W.positions]) ** 2;
}

/* The terms of the score q_i · k_j / √d_head of a head, the strongest first: {query, key, value,
   shares}, a path on either side, and what each place has of the value by the one and by the other.
   Where `level`, less their means over the sources j ≤ i: the key side is read at j, less its mean. */
function scoreTerms(W, acts, h, i, j, level = false) {
  const layer = Math.floor(h / W.n_heads), entered = entering(W, acts);
  const starts = W.positions === "shortformer" ? [...entered, ["position", W.W_pos]] : entered;
  const side = (matrix, a) => {
    const divided = matrix.map(row => Float64Array.from(row, value => value / matrix.length ** 0.25));
    return arriving(W, acts, layer, a, starts, entered).map(({source, heads, bias, y, shares}) => ({
      source, heads, bias, read: read(divided, [y()])[0], shares: r => shares(combined(r, divided))}));
  };
  const queries = side(W.W_Q[h], acts.tokens.map((_, p) => Number(p === i)));
  const keys = side(W.W_K[h], acts.tokens.map((_, p) => Number(p === j) - (level && p <= i ? 1 / (i + 1) : 0)));
  const terms = queries.flatMap(query => keys.map(key => ({query, key, value: dot(query.read, key.read),
    shares: () => [query.shares(key.read), key.shares(query.read)]})));
  return ranked(terms, ({value}) => Math.abs(value));
}
