/* A text as figures see it: {name, tokens, next(i), views, parts(h), paths(i, id), …}. Here it is
   one that was computed before; living.js makes the same by running the model. */

/* Opens the texts of the page, at the one it opens at, in a model that runs, or as computed before.
   Returns what writes texts of the reader's own, where one runs. */
function openTexts() {
  const model = page.model && livingModel(page.model, page.shown_heads);
  const weights = page.ledger && !model ? givenWeights(page.ledger) : null;
  texts.push(...page.texts.map(text => model ? model.text(text.name, text.tokens) : givenText(text, weights)));
  select({text: page.opening, place: page.start, head: page.head});
  if (!model) return null;
  return sentence(byId("sentence"), model, page.merges ? tokenizerOf(page.merges)
                  : namedTokens(page.vocabulary, model.W.d_vocab));
}

/* weights: `givenWeights`, where the page has a ledger. */
function givenText({name, tokens, next, pattern, lengths, effects, parts, run}, weights) {
  const views = {pattern: unpacked(pattern), effects: unpacked(effects)};
  const text = {name, tokens, next: i => next[i], parts: parts && (head => unpack(parts[head])),
                splitHeads: parts && Object.keys(parts),
                views: {...views, moved: once(() => weighted(views.pattern(), unpack(lengths)))}};
  return run ? {...text, ...givenPaths(text, run, weights)} : text;
}

/* Patterns times the length of what is written for each source: value-weighted patterns. */
function weighted(patterns, lengths) {
  return patterns.map((pattern, head) =>
    byRows(pattern, row => row.map((share, j) => share * lengths[head][j])));
}

/* What circuits.js reads of weights, and of a run on a text, as much as a ledger needs. */
function givenWeights({tokens, ...packed}) {
  return once(() => {
    const rows = unpack(packed.W_U), [mean_U] = unpack(packed.mean_U);
    return {...byHeads(packed), mean_U, W_U: Object.fromEntries(rows.map((row, n) => [tokens[n], row]))};
  });
}

function givenPaths(text, {embedded, residual, normalizer, norms}, weights) {
  const acts = once(() => {
    const {n_layers, n_heads} = weights(), given = text.views.pattern();
    const even = Float64Array.from(text.tokens.flatMap((_, i) => Array(i + 1).fill(1 / (i + 1))));
    const pattern = Array.from({length: n_layers * n_heads}, (_, h) =>
      given[headNames.indexOf(headName([Math.floor(h / n_heads), h % n_heads]))] ?? even);
    return {tokens: text.tokens, off: new Set(), norms, pattern, residual: [unpack(embedded), unpack(residual)]};
  });
  const reading = of => (place, id, against) => of(weights(), acts(), place, direction(weights(), id, against));
  const logit = reading(logitOf);
  return {logit, paths: reading(pathsTo),
          probability: (place, id) => Math.exp(logit(place, id) - normalizer[place]),
          targets: id => id in weights().W_U};
}
