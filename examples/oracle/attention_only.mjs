// An attention-only transformer in JavaScript, to be held against the golden vectors:
//
//     minicircuits check --program 'node attention_only.mjs {case} {out}'
//
// It reads the tensors of a case where manifest.json says they are, computes forward pass, loss
// and every gradient in float64, and writes a .npy for each tensor. Letters as in
// minicircuits.notation: b batch, i destination, j source, h head, e head dimension, d residual,
// v out token, u in token, p position.

import { readFileSync, writeFileSync } from "node:fs";

const [folder, out] = process.argv.slice(2);

// A tensor is a function of its indices, which knows its shape and its numbers in C order.
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
const tensor = (shape, data) => Object.assign(
  (...index) => data[index.reduce((at, n, axis) => at * shape[axis] + n, 0)], { shape, data });
const fill = (shape, f) => tensor(shape, Float64Array.from({ length: product(shape) }, (_, n) => {
  const index = [];
  for (const size of [...shape].reverse()) { index.unshift(n % size); n = Math.floor(n / size); }
  return f(...index);
}));
const sum = (size, f) => { let s = 0; for (let n = 0; n < size; n++) s += f(n); return s; };
const add = (a, b) => tensor(a.shape, a.data.map((number, n) => number + b.data[n]));

// Files.
const manifest = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf8"));
const kinds = { "<f8": Float64Array, "<i4": Int32Array };
const W = {};
for (const { name, file, dtype, shape, offset } of manifest.tensors) {
  if (!kinds[dtype]) throw new Error(`${name} must be float64 or int32; got ${dtype}`);
  const { buffer } = Uint8Array.from(readFileSync(`${folder}/${file}`));
  W[name] = tensor(shape, new kinds[dtype](buffer, offset, product(shape)));
}
function write(name, { shape, data }) {
  const sizes = shape.map((size) => `${size}, `).join("");
  const header = `{'descr': '<f8', 'fortran_order': False, 'shape': (${sizes}), }`;
  const magic = Buffer.from("\x93NUMPY\x01\x00\x76\x00", "latin1");     // 0x76 = 118 of header
  writeFileSync(`${out}/${name}.npy`, Buffer.concat(
    [magic, Buffer.from(header.padEnd(117) + "\n"), new Uint8Array(data.buffer)]));
}
const stack = (shape, layers) => tensor([layers.length, ...shape],
  Float64Array.from(layers.flatMap(({ data }) => [...data])));

const [B, T] = W.tokens.shape, [D, V] = W.W_E.shape, [L, H, E] = W.W_Q.shape;
const shapes = { residual: [B, T, D], scores: [B, H, T, T], pattern: [B, H, T, T] };
for (const name of ["q", "k", "v", "z"]) shapes[name] = [B, H, T, E];
const layers = { q: [], k: [], v: [], scores: [], pattern: [], z: [] };
const p = (mode) => (d, i) => (manifest.positions === mode ? W.W_pos(d, i) : 0);

// Forward.
const exponentials = (size, x) => {                    // shifted by the largest, and their sum
  const largest = Math.max(...Array.from({ length: size }, (_, j) => x(j)));
  return { largest, total: sum(size, (j) => Math.exp(x(j) - largest)) };
};
const x = [fill([B, T, D], (b, i, d) => W.W_E(d, W.tokens(b, i)) + p("standard")(d, i))];
const y = (l) => fill([B, T, D], (b, i, d) => x[l](b, i, d) + p("shortformer")(d, i));
for (let l = 0; l < L; l++) {
  const read = (W, x) => fill([B, H, T, E], (b, h, i, e) => sum(D, (d) => W(l, h, e, d) * x(b, i, d)));
  const q = read(W.W_Q, y(l)), k = read(W.W_K, y(l)), v = read(W.W_V, x[l]);
  const scores = fill([B, H, T, T], (b, h, i, j) =>
    sum(E, (e) => q(b, h, i, e) * k(b, h, j, e)) / Math.sqrt(E));
  const pattern = fill([B, H, T, T], (b, h, i, j) => {
    if (j > i) return 0;
    const { largest, total } = exponentials(i + 1, (n) => scores(b, h, i, n));
    return Math.exp(scores(b, h, i, j) - largest) / total;
  });
  const z = fill([B, H, T, E], (b, h, i, e) => sum(T, (j) => pattern(b, h, i, j) * v(b, h, j, e)));
  x.push(fill([B, T, D], (b, i, d) => x[l](b, i, d)
    + sum(H, (h) => sum(E, (e) => W.W_O(l, h, d, e) * z(b, h, i, e)))));
  for (const [name, value] of Object.entries({ q, k, v, scores, pattern, z })) layers[name].push(value);
}
const logits = fill([B, T, V], (b, i, v) => sum(D, (d) => W.W_U(v, d) * x[L](b, i, d)));
for (const name in layers) write(name, stack(shapes[name], layers[name]));
write("residual", stack(shapes.residual, x));
write("logits", logits);
if (T === 1) process.exit();                           // nothing is predicted

const rows = fill([B, T, 2], (b, i, n) => {
  const { largest, total } = exponentials(V, (v) => logits(b, i, v));
  return n ? total : largest;
});
const N = B * (T - 1);
write("loss", fill([], () => sum(B, (b) => sum(T - 1, (i) => rows(b, i, 0) + Math.log(rows(b, i, 1))
  - logits(b, i, W.tokens(b, i + 1)))) / N));

// Backward: each line is the derivative of the one above that made the tensor.
const over = (f) => sum(B, (b) => sum(T, (i) => f(b, i)));
const dlogits = fill([B, T, V], (b, i, v) => (i === T - 1 ? 0
  : (Math.exp(logits(b, i, v) - rows(b, i, 0)) / rows(b, i, 1) - (v === W.tokens(b, i + 1))) / N));
write("dlogits", dlogits);
write("dW_U", fill([V, D], (v, d) => over((b, i) => dlogits(b, i, v) * x[L](b, i, d))));
let dx = fill([B, T, D], (b, i, d) => sum(V, (v) => W.W_U(v, d) * dlogits(b, i, v)));
let dp = fill([B, T, D], () => 0);
const dresidual = [dx], dlayers = {};
for (let l = L - 1; l >= 0; l--) {
  const { q, k, v, pattern, z } = Object.fromEntries(
    Object.entries(layers).map(([name, list]) => [name, list[l]]));
  const dz = fill([B, H, T, E], (b, h, i, e) => sum(D, (d) => W.W_O(l, h, d, e) * dx(b, i, d)));
  const dpattern = fill([B, H, T, T], (b, h, i, j) => sum(E, (e) => dz(b, h, i, e) * v(b, h, j, e)));
  const dv = fill([B, H, T, E], (b, h, j, e) => sum(T, (i) => pattern(b, h, i, j) * dz(b, h, i, e)));
  const mean = fill([B, H, T], (b, h, i) => sum(T, (j) => pattern(b, h, i, j) * dpattern(b, h, i, j)));
  const dscores = fill([B, H, T, T], (b, h, i, j) =>
    pattern(b, h, i, j) * (dpattern(b, h, i, j) - mean(b, h, i)));
  const dq = fill([B, H, T, E], (b, h, i, e) =>
    sum(T, (j) => dscores(b, h, i, j) * k(b, h, j, e)) / Math.sqrt(E));
  const dk = fill([B, H, T, E], (b, h, j, e) =>
    sum(T, (i) => dscores(b, h, i, j) * q(b, h, i, e)) / Math.sqrt(E));
  const toWeights = (dq, x) => fill([H, E, D], (h, e, d) => over((b, i) => dq(b, h, i, e) * x(b, i, d)));
  const back = (W, dq) => fill([B, T, D], (b, i, d) =>
    sum(H, (h) => sum(E, (e) => W(l, h, e, d) * dq(b, h, i, e))));
  const dW_O = fill([H, D, E], (h, d, e) => over((b, i) => dx(b, i, d) * z(b, h, i, e)));
  const dy = add(back(W.W_Q, dq), back(W.W_K, dk));
  dx = add(dx, add(back(W.W_V, dv), dy));
  dp = add(dp, dy);
  dresidual.unshift(dx);
  for (const [name, value] of Object.entries({
    dz, dpattern, dscores, dv, dq, dk, dW_O, dW_V: toWeights(dv, x[l]),
    dW_Q: toWeights(dq, y(l)), dW_K: toWeights(dk, y(l)) })) (dlayers[name] ??= []).unshift(value);
}
write("dresidual", stack(shapes.residual, dresidual));
for (const name in dlayers) write(name, stack(dlayers[name][0].shape, dlayers[name]));
write("dW_E", fill([D, V], (d, u) => over((b, i) => (W.tokens(b, i) === u ? dx(b, i, d) : 0))));
if (W.W_pos) {
  if (manifest.positions === "standard") dp = dx;
  write("dW_pos", fill(W.W_pos.shape, (d, i) => (i < T ? sum(B, (b) => dp(b, i, d)) : 0)));
}
