/* The model in the page: it runs on any text, with all heads or without some, when asked. */

const RUNS = 4;                 // that are kept

function livingModel(given, shown) {
  const W = weightsOf(given), ofHead = ([layer, head]) => layer * W.n_heads + head;
  const heads = shown.map(ofHead), off = new Set(), whole = new Map(), without = new Map();

  follow(["run"], () => {
    off.clear();
    shown.filter(isOff).forEach(head => off.add(ofHead(head)));
    without.clear();
  });

  /* What `make` makes of tokens, kept for the latest of them. */
  function kept(runs, tokens, make) {
    const found = runs.get(tokens) ?? {acts: make(), made: {}};
    runs.delete(tokens);
    runs.set(tokens, found);
    if (runs.size > RUNS) runs.delete(runs.keys().next().value);
    return found;
  }
  const all = tokens => kept(whole, tokens, () => forward(W, tokens));
  const now = tokens => off.size ? kept(without, tokens, () =>
    forward(W, tokens, new Set(off), state.run.frozen ? all(tokens).acts : null)) : all(tokens);
  const looking = tokens => state.run.frozen ? all(tokens) : now(tokens);      // where patterns come from
  const shares = (run, i) => (run.made[`shares ${i}`] ??= softmax(run.acts.logits[i]));
  const nats = (run, i) => i ? -Math.log(shares(run, i - 1)[run.acts.tokens[i]]) : 0;

  function text(name, tokens, written = Infinity) {
    const view = (key, make) => () => {
      const {acts, made} = now(tokens);
      return (made[key] ??= heads.map(h => make(acts, h)));
    };
    const pattern = view("pattern", (acts, h) => acts.pattern[h]);
    const lengths = view("lengths", (acts, h) => valueLengths(W, acts, h));
    const moved = () => (now(tokens).made.moved ??= weighted(pattern(), lengths()));
    const total = run => sumOf(tokens.map((_, i) => nats(run, i))) / (tokens.length - 1);
    return {
      name, tokens, written, splitHeads: shown.filter(([layer]) => layer).map(headName),
      views: {pattern, moved, effects: view("effects", (acts, h) => sourceEffects(W, acts, h))},
      /* The 8 likeliest next tokens, of this model or of the whole one: [id, share, whole]. */
      next(i) {
        const here = shares(now(tokens), i), before = shares(all(tokens), i);
        const likely = ranked(here.keys(), id => Math.max(here[id], before[id])).slice(0, 8);
        return ranked(likely, id => here[id]).map(id => [id, here[id], ...off.size ? [before[id]] : []]);
      },
      nats: i => nats(now(tokens), i),
      loss: () => total(now(tokens)),
      wholeLoss: () => total(all(tokens)),
      parts: name => scoreParts(W, looking(tokens).acts, ofHead(name.split(".").map(Number))),
      scores: head => looking(tokens).acts.scores[ofHead(head)],
      terms: (head, i, j, level) => scoreTerms(W, looking(tokens).acts, ofHead(head), i, j, level),
      countTerms: ([layer]) => countTerms(W, looking(tokens).acts, layer),
      paths: (place, id, against) => pathsTo(W, now(tokens).acts, place, direction(W, id, against)),
      logit: (place, id, against) => logitOf(W, now(tokens).acts, place, direction(W, id, against)),
      wholeProbability: (place, id) => shares(all(tokens), place)[id],
      probability: (place, id) => shares(now(tokens), place)[id],
      targets: () => true,
    };
  }
  return {W, text, shares: (tokens, i) => shares(now(tokens), i)};
}
