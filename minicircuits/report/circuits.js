"use strict";
/* What heads and paths do on tokens, given a run: `behavior/attribution.py`, `split_scores` and
   `ledger`. Letters and shapes as in model.js. */

/* x W: a row of the residual stream, back through a matrix (out, in). */
function backThrough(x, W) {
  const size = W.length / x.length, result = new Float64Array(size);
  for (let n = 0, at = 0; n < x.length; n++) {
    for (let m = 0; m < size; m++) result[m] += x[n] * W[at++];
  }
  return result;
}

/* a A: a row of positions, back through a pattern. */
function backAlong(a, pattern) {
  const result = new Float64Array(a.length);
  for (let i = 0; i < a.length; i++) {
    if (a[i]) for (let j = 0; j <= i; j++) result[j] += a[i] * pattern[triangle(i, j)];
  }
  return result;
}

/* The row `id` of W_U, divided by the last σ where what it reads is. */
function reader(W, acts, place, id) {
  return acts.norms ? asRead(W, W.W_U[id], acts.norms[W.n_layers][place]) : W.W_U[id];
}

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
    const written = backThrough(reader(W, acts, i, acts.tokens[i + 1]), W.W_O[h]);
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

/* Every path to a logit, as {heads, bias, sources, total}. One that starts at a head that rests
   starts with a bias: it has a total, and no sources. Such a head reads a 1 that is not divided;
   others read x_j / σ_j where there are norms. */
function pathsTo(W, acts, place, id) {
  const {n_layers, n_heads, rests} = W, start = new Float64Array(acts.tokens.length);
  start[place] = 1;
  let found = [{heads: [], r: reader(W, acts, place, id), a: start}];
  for (let layer = n_layers - 1; layer >= 0; layer--) {
    const later = found;
    for (let head = 0; head < n_heads; head++) {
      const h = layer * n_heads + head, norms = !rests.has(h) && acts.norms?.[layer];
      if (acts.off.has(h)) continue;
      found = found.concat(later.map(({heads, r, a}) => {
        const along = backAlong(a, acts.pattern[h]);
        return {heads: [[layer, head], ...heads],
                r: backThrough(backThrough(r, W.W_O[h]), W.W_V[h]),
                a: norms ? along.map((value, j) => value / norms[j]) : along};
      }));
    }
  }
  return found.map(({heads, r, a}) => {
    const shares = acts.residual[0].map((row, j) => a[j] ? a[j] * dot(r, row) : 0);
    const bias = heads.length > 0 && rests.has(heads[0][0] * n_heads + heads[0][1]);
    return {heads, bias, sources: bias ? shares.map(() => 0) : shares,
            total: shares.reduce((sum, value) => sum + value, 0)};
  });
}

/* The model's own logit, from what leaves its last layer. */
function logitOf(W, acts, place, id) {
  return dot(acts.residual.at(-1)[place], reader(W, acts, place, id));
}
