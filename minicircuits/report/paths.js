"use strict";
/* The path expansion of one logit: logit = Σ over paths and sources of A_ij (W_U … W_OV W_E)_vj. */

function pathExpansion({W_U, W_O, W_V, texts, n_layers, heads, n_normalized}, attention, nHeads) {
  const weights = {W_U: unpacked(W_U), W_O: unpacked(W_O), W_V: unpacked(W_V)};
  const [, d, e] = W_O.shape;
  const inputs = texts.map(({embedded, residual, normalizer, norms}) =>
    ({embedded: unpacked(embedded), residual: unpacked(residual), normalizer, norms}));
  const patterns = attention.map(({pattern}) => unpacked(pattern));

  /* r W_O W_V: a row of the residual stream, back through what head h writes and reads. */
  function backThrough(r, h) {
    const W_O = weights.W_O()[h], W_V = weights.W_V()[h];
    const small = new Float64Array(e), result = new Float64Array(d);
    for (let n = 0; n < d; n++) for (let m = 0; m < e; m++) small[m] += r[n] * W_O[n * e + m];
    for (let m = 0; m < e; m++) for (let n = 0; n < d; n++) result[n] += small[m] * W_V[m * d + n];
    return result;
  }

  /* a A: a row of positions, back through the pattern of a head; A_ij / σ_j where it has norms.
     A head that rests has none, attends to all alike, and reads a 1 that is not divided. */
  function backAlong(a, pattern, norms) {
    const result = new Float64Array(a.length);
    for (let i = 0; i < a.length; i++) {
      if (a[i]) for (let j = 0; j <= i; j++)
        result[j] += a[i] * (pattern ? pattern[triangle(i, j)] : 1 / (i + 1));
    }
    return pattern && norms ? result.map((value, j) => value / norms[j]) : result;
  }

  /* The row `target` of W_U, divided by σ where what it reads is. */
  function reader(text, place, target) {
    const {norms} = inputs[text], row = weights.W_U()[target];
    return norms ? Float64Array.from(row, (value, n) =>
      n < n_normalized ? value / norms[n_layers][place] : value) : row;
  }

  function dot(x, y) {
    let sum = 0;
    for (let n = 0; n < x.length; n++) sum += x[n] * y[n];
    return sum;
  }

  return {
    /* Every path to the logit of row `target` of W_U, as {heads, sources, total}. One that starts
       at a head that rests starts with a bias: it has a total, and no sources. */
    ledger(text, place, target) {
      const pattern = patterns[text](), x = inputs[text].embedded(), {norms} = inputs[text];
      const start = new Float64Array(x.length);
      start[place] = 1;
      let found = [{path: [], r: reader(text, place, target), a: start}];
      for (let layer = n_layers - 1; layer >= 0; layer--) {
        const later = found;
        for (let head = 0; head < nHeads; head++) {
          const h = layer * nHeads + head;
          found = found.concat(later.map(({path, r, a}) => ({
            path: [[layer, head], ...path], r: backThrough(r, h),
            a: backAlong(a, pattern[heads[h]], norms?.[layer])})));
        }
      }
      return found.map(({path, r, a}) => {
        const shares = x.map((row, j) => a[j] ? a[j] * dot(r, row) : 0);
        const bias = path.length > 0 && heads[path[0][0] * nHeads + path[0][1]] === null;
        return {heads: path, bias, sources: bias ? shares.map(() => 0) : shares,
                total: shares.reduce((sum, value) => sum + value, 0)};
      });
    },
    /* The model's own logit, from what leaves its last layer; and its probability. */
    logit(text, place, target) {
      return dot(inputs[text].residual()[place], reader(text, place, target));
    },
    probability(text, place, target) {
      return Math.exp(this.logit(text, place, target) - inputs[text].normalizer[place]);
    },
  };
}
