"""Heads, one by one and in pairs: where each looks, what it copies, and who reads whom.

What is read off weights is read off the matrices alone, `without_biases`.
"""

import numpy as np

from minicircuits.behavior import patterns
from minicircuits.behavior.in_context import BLOCKS, induction_scores, random_blocks
from minicircuits.circuits.biases import resting_heads, without_biases
from minicircuits.circuits.composition import (composition_baseline, composition_excess,
                                               composition_scores, random_composition_scores)
from minicircuits.circuits.copying import copying_companions, copying_score
from minicircuits.circuits.expansion import label
from minicircuits.circuits.heads import ov_circuit
from minicircuits.circuits.induction import induction_eigenvalues
from minicircuits.circuits.skip_trigrams import skip_trigrams, strongest
from minicircuits.model.transformer import forward
from minicircuits.notation import NormalizedWeights


def heads_of(weights):
    """(layer, head) of every head, in order; but not of those that rest, and only say a bias."""
    resting = resting_heads(weights)
    return [head for head in np.ndindex(weights.n_layers, weights.n_heads) if head not in resting]


def folded(weights):
    """What the biases and norms of a model became, in a dict; empty where there were none."""
    resting = [label((head,)) for head in resting_heads(weights)]
    normalized = isinstance(weights, NormalizedWeights)
    return ({"resting": resting} if resting else {}) | ({"eps": weights.eps} if normalized else {})


def head_table(weights, token_probabilities, tokens, acts, start, seed, watch=iter):
    """A row for every head: what it looks at, on text and on random blocks, and what it copies.

    tokens, acts : of the text; watch : wraps the heads, to show progress
    """
    rng = np.random.default_rng(seed)
    induction = induction_scores(weights, start, rng)
    random = random_blocks(weights.d_vocab, max(BLOCKS), 2, 16, start, rng)
    random_acts = forward(weights, random)
    scores = {"previous": patterns.previous_token_scores(weights, random, random_acts),
              "duplicate": patterns.duplicate_token_scores(weights, random, random_acts),
              "induction": induction,
              "first": patterns.first_token_scores(weights, tokens, acts),
              "by_position": patterns.position_share(weights, tokens, acts)}
    profiles, rows = patterns.offset_profiles(weights, tokens, acts), []
    matrices = without_biases(weights)
    profiles = profiles[..., :tokens.shape[1] // 2]       # few destinations look farther back
    for layer, head in watch(heads_of(weights)):
        circuit, profile = ov_circuit(matrices, layer, head), profiles[layer, head]
        trigrams = skip_trigrams(matrices, layer, head, token_probabilities, n_sources=3, k=3)
        rows.append({"layer": layer, "head": head, "offset": int(profile.argmax()),
                     "at_offset": float(profile.max()), "copying": copying_score(circuit),
                     "top_own": copying_companions(circuit).top_own,
                     **{name: float(score[layer, head]) for name, score in scores.items()},
                     "skip_trigrams": [
                         {"source": entry.source, "destinations": entry.destinations.tolist(),
                          "outs": entry.outs.tolist(), "score": entry.score}
                         for entry in trigrams]})
    return rows


def best_heads(rows):
    """The rows of the best induction head after layer 0, and of the best previous-token head
    before it. Their scores say whether they deserve these names."""
    induction = max((row for row in rows if row["layer"]), key=lambda row: row["induction"])
    previous = max((row for row in rows if row["layer"] < induction["layer"]),
                   key=lambda row: row["previous"])
    return induction, previous


def head_dump(weights, token_probabilities, tokens, acts):
    """For every head its mean attention by distance, and its ranked skip-trigram table.

    rows: the sources of some ranks, each with its strongest destinations and outs, as pairs
    (token, strength).
    """
    ranks = (*range(1, 9), 16, 32, 64, 128)
    profiles = patterns.offset_profiles(weights, tokens, acts)[..., :tokens.shape[1] // 2]
    matrices, dump = without_biases(weights), []
    for layer, head in heads_of(weights):
        found = skip_trigrams(matrices, layer, head, token_probabilities, max(ranks))
        dump.append({
            "layer": layer, "head": head, "profile": profiles[layer, head].tolist(),
            "rows": [{"rank": rank, "source": row.source, "score": row.score,
                      "destinations": list(zip(row.destinations.tolist(),
                                               row.destination_scores.tolist())),
                      "outs": list(zip(row.outs.tolist(), row.out_logits.tolist()))}
                     for rank, row in enumerate(found, 1) if rank in ranks]})
    return dump


def strongest_pairs(weights):
    """The three strongest pairs of each kind of composition, and the level of random matrices."""
    weights = without_biases(weights)
    found = {"baseline": composition_baseline(weights.d_model)}
    for kind in "QKV":
        scores = composition_scores(weights, kind)
        pairs = [np.unravel_index(flat, scores.shape) for flat in strongest(scores.ravel(), 3)[0]]
        found[kind] = [[label(((earlier, g), (later, h))), float(scores[later, h, earlier, g])]
                       for later, h, earlier, g in pairs]
    return found


def composition_matrices(weights, seed):
    """Every pair's composition scores less the level of random matrices, by kind.

    Rows: heads of layers 1, 2, …; columns: heads of layers 0 to L − 2; None where the column's
    layer is not before the row's. noise: how far random matrices go above their level.
    """
    weights = without_biases(weights)
    later, earlier = heads_of(weights)[weights.n_heads:], heads_of(weights)[:-weights.n_heads]
    rng, baseline = np.random.default_rng(seed), composition_baseline(weights.d_model)
    highest = max(random_composition_scores(weights, kind, rng).max() for kind in "QKV")
    found = {"baseline": baseline, "later": later, "earlier": earlier,
             "noise": float(highest - baseline)}
    for kind in "QKV":
        excess = composition_excess(weights, kind)
        found[kind] = [[float(excess[*row, *column]) if column[0] < row[0] else None
                        for column in earlier] for row in later]
    return found


def eigenvalue_pairs(weights):
    """Copying and same-matching eigenvalue scores of every pair of heads that can compose."""
    weights = without_biases(weights)
    return [{"earlier": earlier, "later": later,
             **induction_eigenvalues(weights, earlier, later)._asdict()}
            for later in heads_of(weights) for earlier in heads_of(weights)
            if earlier[0] < later[0]]
