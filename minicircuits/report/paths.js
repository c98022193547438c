"use strict";
/* The path expansion of one logit: logit = Σ over paths and sources of A_ij (W_U … W_OV W_E)_vj. */

/* Where norms σ are frozen, `residual` is what was divided by them, and patterns are A_ij / σ_j. */
function pathExpansion({W_U, W_O, W_V, texts, n_layers, n_normalized}, attention, nHeads) {
  const weights = {W_U: unpacked(W_U), W_O: unpacked(W_O), W_V: unpacked(W_V)};
  const [, d, e] = W_O.shape;
  const inputs = texts.map(({embedded, residual, ...rest}) =>
    ({embedded: unpacked(embedded), residual: unpacked(residual), ...rest}));
  const patterns = attention.map(({pattern}, n) => unpacked(texts[n].through ?? pattern));

  /* A row of W_U, divided by σ at a place as what it reads is. */
  function reader(text, place, target) {
    const r = weights.W_U()[target], {norm} = inputs[text];
    return norm ? r.map((value, n) => n < n_normalized ? value / norm[place] : value) : r;
  }

  /* r W_O W_V: a row of the residual stream, back through what head h writes and reads. */
  function backThrough(r, h) {
    const W_O = weights.W_O()[h], W_V = weights.W_V()[h];
    const small = new Float64Array(e), result = new Float64Array(d);
    for (let n = 0; n < d; n++) for (let m = 0; m < e; m++) small[m] += r[n] * W_O[n * e + m];
    for (let m = 0; m < e; m++) for (let n = 0; n < d; n++) result[n] += small[m] * W_V[m * d + n];
    return result;
  }

  /* a A: a row of positions, back through the pattern of head h. */
  function backAlong(a, pattern) {
    const result = new Float64Array(a.length);
    for (let i = 0; i < a.length; i++) {
      if (a[i]) for (let j = 0; j <= i; j++) result[j] += a[i] * pattern[triangle(i, j)];
    }
    return result;
  }

  function dot(x, y) {
    let sum = 0;
    for (let n = 0; n < x.length; n++) sum += x[n] * y[n];
    return sum;
  }

  return {
    /* Every path to the logit of row `target` of W_U, as {heads, sources, total}. */
    ledger(text, place, target) {
      const pattern = patterns[text](), x = inputs[text].embedded();
      const start = new Float64Array(x.length);
      start[place] = 1;
      let found = [{heads: [], r: reader(text, place, target), a: start}];
      for (let layer = n_layers - 1; layer >= 0; layer--) {
        const later = found;
        for (let head = 0; head < nHeads; head++) {
          const h = layer * nHeads + head;
          found = found.concat(later.map(({heads, r, a}) => ({
            heads: [[layer, head], ...heads], r: backThrough(r, h), a: backAlong(a, pattern[h])})));
        }
      }
      return found.map(({heads, r, a}) => {
        const sources = x.map((row, j) => a[j] ? a[j] * dot(r, row) : 0);
        return {heads, sources, total: sources.reduce((sum, value) => sum + value, 0)};
      });
    },
    /* The model's own logit, from what leaves its last layer; and its probability. */
    logit(text, place, target) {
      return dot(inputs[text].residual()[place], weights.W_U()[target]);
    },
    probability(text, place, target) {
      return Math.exp(this.logit(text, place, target) - inputs[text].normalizer[place]);
    },
  };
}
