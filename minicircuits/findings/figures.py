"""The figures of a report, a function each: plain numbers, lists and dicts, as JSON has them.

Trained weights come in float64, so that the exactness shown is that of the algebra.
"""

import numpy as np
from scipy.special import log_softmax, softmax

from minicircuits.behavior.ablation import loss_without_heads, term_importance, without_heads
from minicircuits.behavior.attribution import head_effects
from minicircuits.behavior.in_context import (BLOCKS, induction_scores, ordered_versus_shuffled,
                                              random_blocks)
from minicircuits.behavior.patterns import (duplicate_token_scores, first_token_scores, formed,
                                            offset_profiles, position_share,
                                            previous_token_scores)
from minicircuits.behavior.virtual_heads import virtual_heads
from minicircuits.circuits.composition import (composition_baseline, composition_excess,
                                               composition_scores, random_composition_scores)
from minicircuits.circuits.copying import copying_companions, copying_score
from minicircuits.circuits.expansion import expand_logits, label, ledger
from minicircuits.circuits.heads import direct_path, ov_circuit
from minicircuits.circuits.induction import induction_eigenvalues
from minicircuits.circuits.score_expansion import expand_scores, rebuild, split_scores
from minicircuits.circuits.skip_trigrams import skip_trigrams
from minicircuits.model.transformer import forward
from minicircuits.notation import relative_error
from minicircuits.terminal.progress import watched


def heads_of(weights):
    """(layer, head) of every head, in order."""
    return [(layer, head) for layer in range(weights.n_layers)
            for head in range(weights.n_heads)]


def exactness(weights, tokens):
    """Relative differences between the sums over paths and the forward pass, by object."""
    acts = forward(weights, tokens)
    paths = [path.logits for path in expand_logits(weights, tokens, acts.pattern)]
    errors = {"paths": len(paths), "terms": 0, "scores": 0.0,
              "logits": relative_error(sum(paths), acts.logits,
                                       scale=sum(map(np.abs, paths)).max())}
    for layer, head in heads_of(weights):
        terms = expand_scores(weights, tokens, acts.pattern, layer, head)
        total = magnitude = 0
        for term in terms:
            part = term.scores
            total, magnitude = total + part, magnitude + np.abs(part)
        error = relative_error(total, acts.scores[layer, :, head], scale=magnitude.max())
        errors["scores"] = max(errors["scores"], error)
        errors["terms"] += len(terms)
    rebuilt = rebuild(weights, tokens)
    return errors | {"patterns": relative_error(rebuilt.pattern, acts.pattern),
                     "rebuilt_logits": relative_error(rebuilt.logits, acts.logits)}


def next_tokens(weights, counts, tokens, k=3):
    """The k likeliest next tokens by model (L = 0) and by count, for each of `tokens`.

    counts : (v, u), how often v came next after u in the training text.
    """
    rows = []
    for token, likelihood in zip(tokens, softmax(direct_path(weights).columns(tokens), axis=-1)):
        text = counts[:, token] / counts[:, token].sum()
        rows.append({"token": int(token),
                     "model": [[int(v), float(likelihood[v])] for v in top(likelihood, k)],
                     "text": [[int(v), float(text[v])] for v in top(text, k)]})
    return rows


def top(values, k):
    return np.argsort(-values, kind="stable")[:k]


def head_table(weights, start, token_probabilities, tokens, seed):
    """For every head what it looks at on text and on repeated random tokens, and copies."""
    rng = np.random.default_rng(seed)
    induction = induction_scores(weights, start, rng)
    random = random_blocks(weights.d_vocab, max(BLOCKS), 2, 16, start, rng)
    profiles = offset_profiles(weights, tokens)
    profiles = profiles[..., :tokens.shape[1] // 2]       # few destinations look farther back
    scores = {"previous": previous_token_scores(weights, random),
              "duplicate": duplicate_token_scores(weights, random),
              "induction": induction,
              "first": first_token_scores(weights, tokens),
              "by_position": position_share(weights, tokens)}
    rows = []
    for layer, head in watched(heads_of(weights), "heads"):
        circuit = ov_circuit(weights, layer, head)
        offset = int(profiles[layer, head].argmax())
        rows.append({"layer": layer, "head": head, "offset": offset,
                     "at_offset": float(profiles[layer, head, offset]),
                     "copying": copying_score(circuit),
                     "top_own": copying_companions(circuit).top_own,
                     **{name: float(score[layer, head]) for name, score in scores.items()},
                     "skip_trigrams": [
                         {"source": entry.source, "destinations": entry.destinations.tolist(),
                          "outs": entry.outs.tolist(), "score": entry.score}
                         for entry in skip_trigrams(weights, layer, head, token_probabilities,
                                                    n_sources=3, k=3)]})
    return rows


def importance(weights, tokens):
    """Term importance, and the virtual heads by importance."""
    found = term_importance(weights, tokens)
    figures = {name: np.asarray(value).tolist() for name, value in found._asdict().items()}
    figures["virtual_heads"] = [
        {"heads": label(virtual.heads), "copying": virtual.copying,
         "importance": virtual.importance} for virtual in virtual_heads(weights, tokens)]
    return figures


def composition(weights):
    """The three strongest pairs of each kind, and the level of random matrices."""
    figures = {"baseline": composition_baseline(weights.d_model)}
    for kind in "QKV":
        scores = composition_scores(weights, kind)
        pairs = [np.unravel_index(flat, scores.shape) for flat in top(scores.ravel(), 3)]
        figures[kind] = [[label(((l1, g), (l2, h))), float(scores[l2, h, l1, g])]
                         for l2, h, l1, g in pairs]
    return figures


def composition_matrices(weights, seed):
    """Every pair's composition scores less the level of random matrices, by kind.

    Rows: heads of layers 1, 2, …; columns: heads of layers 0 to L − 2; None where the column's
    layer is not before the row's. noise: how far random matrices go above their level.
    """
    later, earlier = heads_of(weights)[weights.n_heads:], heads_of(weights)[:-weights.n_heads]
    rng = np.random.default_rng(seed)
    baseline = composition_baseline(weights.d_model)
    figures = {"baseline": baseline, "later": later, "earlier": earlier,
               "noise": float(max(random_composition_scores(weights, kind, rng).max()
                                  for kind in "QKV") - baseline)}
    for kind in "QKV":
        excess = composition_excess(weights, kind)
        figures[kind] = [[float(excess[l2, h, l1, g]) if l1 < l2 else None
                          for l1, g in earlier] for l2, h in later]
    return figures


def eigenvalue_pairs(weights):
    """Copying and same-matching eigenvalue scores of every pair of heads that can compose."""
    return [{"earlier": earlier, "later": later,
             **induction_eigenvalues(weights, earlier, later)._asdict()}
            for later in heads_of(weights) for earlier in heads_of(weights)
            if earlier[0] < later[0]]


RANKS = (*range(8), 15, 31, 63, 127)       # of the sources that a head's table shows


def head_dump(weights, token_probabilities, tokens):
    """For every head its mean attention by distance, and its ranked skip-trigram table.

    rows: the sources at RANKS, each with the destinations that want it most and the outs it
    raises most, as pairs (token, strength).
    """
    profiles = offset_profiles(weights, tokens)[..., :tokens.shape[1] // 2]
    figures = []
    for layer, head in heads_of(weights):
        found = skip_trigrams(weights, layer, head, token_probabilities, max(RANKS) + 1)
        figures.append({
            "layer": layer, "head": head, "profile": profiles[layer, head].tolist(),
            "rows": [{"rank": rank + 1, "source": found[rank].source, "score": found[rank].score,
                      "destinations": pairs(found[rank].destinations,
                                            found[rank].destination_scores),
                      "outs": pairs(found[rank].outs, found[rank].out_logits)}
                     for rank in RANKS if rank < len(found)]})
    return figures


def pairs(tokens, values):
    return list(zip(tokens.tolist(), values.tolist()))


def formation(log):
    """The first measurement of a run with an induction head, and the one before; or None."""
    for before, row in zip([None, *log], log):
        if formed(row):
            return {"step": row["step"], "before": before and before["step"]}
    return None


def best_heads(rows):
    """The rows of the best induction head after layer 0, and of the best previous-token head
    before it. Whether they deserve their names, their scores say."""
    induction = max((row for row in rows if row["layer"]), key=lambda row: row["induction"])
    previous = max((row for row in rows if row["layer"] < induction["layer"]),
                   key=lambda row: row["previous"])
    return induction, previous


def repeated_tokens(weights, start, seed, block=29):
    """START and a block of random tokens, twice, in eight contexts: (b, i)."""
    return random_blocks(weights.d_vocab, block, 2, 8, start, np.random.default_rng(seed))


def induction_split(weights, start, layer, head, seed, block=29):
    """One head's scores on repeated random tokens in four parts, on the stripe and off it.

    On the stripe: the source that followed the earlier copy, i − (block − 1). Off it: the mean
    of all other sources the destination may see, so that a constant added to a destination's
    scores, which changes no pattern, changes no difference. The part whose difference is
    largest carries the stripe.
    """
    tokens = repeated_tokens(weights, start, seed, block)
    pattern = forward(weights, tokens).pattern
    split = split_scores(weights, tokens, pattern, layer, head)
    n = tokens.shape[1]
    i, j = np.ogrid[:n, :n]
    stripe, others = j == i - block + 1, (j <= i) & (j != i - block + 1)

    def mean_over_destinations(part, sources):
        """Mean over the sources of each destination in the second block, then over those."""
        later = slice(block + 1, None)
        total = np.where(sources, part, 0)[:, later].sum(-1)
        return float((total / sources[later].sum(-1)).mean())

    parts = {name: {"stripe": mean_over_destinations(part, stripe),
                    "elsewhere": mean_over_destinations(part, others)}
             for name, part in {**split._asdict(), "total": sum(split)}.items()}
    carrier = max(split._fields, key=lambda name: parts[name]["stripe"] - parts[name]["elsewhere"])
    return {"parts": parts, "carrier": carrier, "block": block,
            "attention": mean_over_destinations(pattern[layer, :, head], stripe)}


def removals(weights, start, induction, previous, seed):
    """How much cheaper an ordered second block is than a shuffled one, with heads removed."""
    def gap(weights):
        rng = np.random.default_rng(seed)                # the same blocks each time
        return float(ordered_versus_shuffled(weights, start, rng).gap)

    return {"whole": gap(weights), "without_induction": gap(without_heads(weights, [induction])),
            "without_previous": gap(without_heads(weights, [previous]))}


def removal_losses(weights, tokens, heads):
    """Loss on text without some heads, patterns frozen and recomputed (nats per token)."""
    return {label((head,)): loss_without_heads(weights, tokens, [head])._asdict()
            for head in heads}


def prediction(weights, tokens, head, k=8):
    """One confident prediction of the next token that `head` helped most, as a ledger.

    Among places in `tokens` (b, i) where the true next token is the model's first choice
    with at least even odds, the one where the head added most to its logit.
    """
    acts = forward(weights, tokens)
    following = np.asarray(tokens)[:, 1:]
    log_p = np.take_along_axis(log_softmax(acts.logits[:, :-1], axis=-1), following[..., None],
                               -1)[..., 0]
    effect = head_effects(weights, tokens)[head[0], :, head[1]]
    confident = log_p >= min(np.log(0.5), log_p.max())         # or as confident as it gets
    context, place = np.unravel_index(np.where(confident, effect, -np.inf).argmax(),
                                      effect.shape)
    target = int(following[context, place])
    one = slice(context, context + 1)
    entries = ledger(weights, tokens[one], acts.pattern[:, one], int(place), target)
    strongest = entries.strongest(k)
    total = float(entries.contributions.sum())
    return {"row": int(context), "context": tokens[context, :place + 1].tolist(),
            "target": target,
            "probability": float(np.exp(log_p[context, place])),
            "logit": float(acts.logits[context, place, target]), "sum": total,
            "entries": [[label(path), source, value] for path, source, value in strongest],
            "others": total - sum(value for *_, value in strongest),
            "count": entries.contributions[:, :place + 1].size - len(strongest)}
