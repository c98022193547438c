"use strict";
/* A text as figures see it: {name, tokens, next(i), views, parts(h), paths(i, id), …}. Here it is
   one that was computed before; living.js makes the same by running the model. */

/* inputs: {W, acts, normalizer} for a ledger, of texts that have one. */
function givenText({name, tokens, next, pattern, lengths, effects, parts}, inputs) {
  const views = {pattern: unpacked(pattern), effects: unpacked(effects)};
  const apart = parts && Object.fromEntries(
    Object.entries(parts).map(([head, packed]) => [head, unpacked(packed)]));
  const text = {name, tokens, next: i => next[i], parts: head => apart[head](),
                splitHeads: apart && Object.keys(apart),
                views: {...views, moved: once(() => weighted(views.pattern(), unpack(lengths)))}};
  return inputs ? {...text, ...inputs(text)} : text;
}

/* Patterns times the length of what is written for each source: value-weighted patterns. */
function weighted(patterns, lengths) {
  return patterns.map((pattern, head) => {
    const moved = new Float32Array(pattern.length);
    for (let i = 0, at = 0; at < moved.length; i++) {
      for (let j = 0; j <= i; j++, at++) moved[at] = pattern[at] * lengths[head][j];
    }
    return moved;
  });
}

/* For each text of the ledger, what circuits.js reads: weights, and as much of a run as it needs. */
function givenLedger({W_U, W_O, W_V, tokens, texts, heads, ...shape}, n_heads) {
  const rowOf = new Map(tokens.map((id, row) => [id, row]));
  const weights = once(() => ({...shape, n_heads, W_O: unpack(W_O), W_V: unpack(W_V),
    W_U: Object.fromEntries(unpack(W_U).map((row, n) => [tokens[n], row])),
    rests: new Set(heads.flatMap((shown, h) => shown === null ? h : []))}));
  return texts.map(({embedded, residual, normalizer, norms}) => text => {
    const even = once(() => Float64Array.from({length: triangle(text.tokens.length, 0)}, (_, n) =>
      1 / (Math.floor((Math.sqrt(8 * n + 1) - 1) / 2) + 1)));
    const acts = once(() => ({tokens: text.tokens, off: new Set(), norms,
      residual: [unpack(embedded), unpack(residual)],
      pattern: heads.map(shown => shown === null ? even() : text.views.pattern()[shown])}));
    const logit = (place, id) => logitOf(weights(), acts(), place, id);
    return {logit, paths: (place, id) => pathsTo(weights(), acts(), place, id),
            probability: (place, id) => Math.exp(logit(place, id) - normalizer[place]),
            targets: id => rowOf.has(id)};
  });
}
