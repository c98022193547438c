/* The model, forward, as in `model/transformer.py` and `model/normalized.py`.

   Of vectors there is one array a position: x[i] (d). A matrix W (out, in) is an array of rows;
   the triangle of a pattern is one array, row by row. Heads are counted through all layers: h is
   layer · n_heads + head. */

/* The weights that the page was given, as `forward` reads them. */
function weightsOf({W_E, W_pos, W_U, ...others}) {
  const rows = unpack(W_U);
  return {...byHeads(others), d_vocab: W_U.shape[0], n_ctx: W_pos ? W_pos.shape[0] : null,
          W_E: unpack(W_E), W_pos: W_pos && unpack(W_pos), W_U: rows,
          mean_U: combined(rows.map(() => 1 / rows.length), rows)};
}

/* Those that heads have (l, h, out, in), one matrix a head; and the set of the heads that rest. */
function byHeads({rests, ...given}) {
  const [n_layers, n_heads] = given.W_O.shape, W = {...given, n_layers, n_heads};
  for (const name of ["W_Q", "W_K", "W_V", "W_O"].filter(name => name in given)) {
    const {shape: [, , out, size], data} = given[name], rows = unpack({shape: [n_layers * n_heads * out, size], data});
    W[name] = Array.from({length: n_layers * n_heads}, (_, h) => rows.slice(h * out, (h + 1) * out));
  }
  return {...W, rests: new Set(rests.map(([layer, head]) => layer * n_heads + head))};
}

/* Every intermediate on tokens (i). Heads in the set `off` write nothing. Where `whole` is given,
   another run on these tokens, its patterns and norms are taken as they are. */
function forward(W, tokens, off = new Set(), whole = null) {
  const acts = {tokens, off, residual: [embed(W, tokens)], norms: W.n_normalized ? [] : null,
                q: [], k: [], v: [], scores: [], pattern: [], z: []};
  for (let layer = 0; layer < W.n_layers; layer++) {
    const x = normalized(W, acts, layer, whole), y = addPositions(W, x);
    const out = acts.residual[layer].map(row => row.slice());
    for (let head = 0; head < W.n_heads; head++) {
      const h = layer * W.n_heads + head;
      acts.q[h] = read(W.W_Q[h], y);
      acts.k[h] = read(W.W_K[h], y);
      acts.v[h] = read(W.W_V[h], x);
      acts.scores[h] = score(acts.q[h], acts.k[h]);
      acts.pattern[h] = whole ? whole.pattern[h] : byRows(acts.scores[h], softmax);
      acts.z[h] = mix(acts.pattern[h], acts.v[h]);
      if (!off.has(h)) read(W.W_O[h], acts.z[h]).forEach((row, i) => add(out[i], row));
    }
    acts.residual.push(out);
  }
  acts.logits = read(W.W_U, normalized(W, acts, W.n_layers, whole));
  return acts;
}

function embed(W, tokens) {
  return tokens.map((id, i) => {
    const row = Float64Array.from(W.W_E[id]);
    return W.positions === "standard" ? add(row, W.W_pos[i]) : row;
  });
}

/* What W_Q and W_K read. */
const addPositions = (W, x) => W.positions === "shortformer" ? x.map((row, i) => add(row.slice(), W.W_pos[i])) : x;

/* x of a layer as it is read: its first n dimensions divided by σ = √(mean of their squares + eps). */
function normalized(W, acts, layer, whole) {
  const x = acts.residual[layer], n = W.n_normalized;
  if (!n) return x;
  acts.norms[layer] = whole?.norms[layer] ?? x.map(row => Math.sqrt(dot(row.subarray(0, n), row) / n + W.eps));
  return x.map((row, i) => asRead(W, row, acts.norms[layer][i]));
}

const asRead = (W, row, norm) => Float64Array.from(row, (value, d) => d < W.n_normalized ? value / norm : value);

function add(x, y) {
  for (let n = 0; n < x.length; n++) x[n] += y[n];
  return x;
}

function dot(x, y) {
  let sum = 0;
  for (let n = 0; n < x.length; n++) sum += x[n] * y[n];
  return sum;
}

/* Σ_n a_n x_n of rows x_n, as long as the last one. Those of 0 are not read. */
function combined(a, x) {
  const sum = new Float64Array(x.at(-1).length);
  a.forEach((share, n) => {
    if (share) for (let m = 0; m < x[n].length; m++) sum[m] += share * x[n][m];
  });
  return sum;
}

/* W x of every position. */
const read = (W, x) => x.map(row => Float64Array.from(W, weights => dot(weights, row)));

/* q_i · k_j / √d_head of all j ≤ i. */
function score(q, k) {
  const root = Math.sqrt(q[0].length);
  return byRows(new Float64Array(triangle(q.length, 0)), (row, i) => row.map((_, j) => dot(q[i], k[j]) / root));
}

function softmax(row) {
  const most = row.reduce((most, value) => Math.max(most, value));
  const shares = row.map(value => Math.exp(value - most)), total = sumOf(shares);
  return shares.map(value => value / total);
}

/* z_i = Σ_j A_ij v_j. */
const mix = (pattern, v) => rowsOf(pattern, v.length).map(row => combined(row, v));
