"""Heads, one by one and in pairs: where each looks, what it copies, and who reads whom.

What is read off weights is read off the matrices alone, `without_biases`.
"""

import numpy as np

from minicircuits.behavior import patterns
from minicircuits.behavior.in_context import (block_lengths, induction_scores,
                                              least_prefix_matching, random_blocks)
from minicircuits.circuits.biases import resting_heads, without_biases
from minicircuits.circuits.composition import (composition_baseline, composition_excess,
                                               composition_scores, random_composition_scores)
from minicircuits.circuits.copying import copying_companions, copying_score
from minicircuits.circuits.expansion import label
from minicircuits.circuits.heads import W_OV, W_QK, ov_circuit
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.cores import side_by_side
from minicircuits.model.transformer import forward
from minicircuits.notation import NormalizedWeights

RANKS = (*range(1, 9), 16, 32, 64, 128)     # of the sources that a dump of a head lists
# A previous-token head has more of its attention than this on the token before. Untrained models
# reach 0.1 in contexts of 128, and 0.46 in those of 5.
PREVIOUS = 0.5


def heads_of(weights):
    """(layer, head) of every head, in order; but not of those that rest, and only say a bias."""
    resting = resting_heads(weights)
    return [head for head in np.ndindex(weights.n_layers, weights.n_heads) if head not in resting]


def folded(weights):
    """What the biases and norms of a model became, in sentences; none where there were none."""
    resting, normalized = resting_heads(weights), isinstance(weights, NormalizedWeights)
    said = []
    if resting:
        said += [f"Each layer's bias b_O is a head that rests, the last: {label(resting[:1])} is "
                 "that of layer 0. Paths may start there; tables of heads leave them out."]
    if normalized:
        said += ["What reads the residual stream divides it by a norm σ. Where patterns are "
                 "frozen, so are all σ; where they are recomputed, σ are recomputed too."]
    if without_biases(weights).d_model < weights.d_model:
        said += ["Copying, skip-trigrams and composition are read off the matrices without biases"
                 + (" and norms." if normalized else ".")]
    return said


def unwatched(items, name, total=None):
    """What `watch` is where nobody waits: it wraps `items`, a `total` of `name`, to show progress.
    """
    return items


def head_table(weights, ranked, tokens, acts, start, seed, watch=unwatched):
    """A row for every head: what it looks at, on text and on random blocks, and what it copies.

    ranked : a head (layer, head) ↦ its `skip_trigrams`; tokens, acts : of the text
    A row is without what takes more contexts or tokens than there are.
    """
    scores, (b, T) = scores_on_blocks(weights, start, np.random.default_rng(seed)), tokens.shape
    if T > 1:
        scores["first"] = patterns.first_token_scores(weights, tokens, acts)
    if T > 1 and b > 1:
        scores["by_position"] = patterns.position_share(weights, tokens, acts)
    profiles, rows, matrices = near_profiles(weights, tokens, acts), [], without_biases(weights)
    for layer, head in watch(heads_of(weights), "heads"):
        circuit, profile = ov_circuit(matrices, layer, head), profiles[layer, head]
        rows.append({"layer": layer, "head": head, "copying": copying_score(circuit),
                     "top_own": copying_companions(circuit).top_own,
                     **({"offset": int(profile.argmax()), "at_offset": float(profile.max())}
                        if T > 3 else {}),
                     **{name: float(score[layer, head]) for name, score in scores.items()},
                     "skip_trigrams": [
                         {"source": entry.source, "destinations": entry.destinations[:3].tolist(),
                          "outs": entry.outs[:3].tolist(), "score": entry.score}
                         for entry in ranked((layer, head))[:3]]})
    return rows


def near_profiles(weights, tokens, acts):
    """`offset_profiles` as far back as half a context: few destinations look farther."""
    return patterns.offset_profiles(weights, tokens, acts)[..., :max(1, tokens.shape[1] // 2)]


def scores_on_blocks(weights, start, rng):
    """Previous-token, duplicate-token and induction scores on random blocks: a dict of (l, h)."""
    blocks = block_lengths(weights, start)
    if not blocks:
        return {}
    induction = induction_scores(weights, start, rng, blocks)
    tokens = random_blocks(weights.d_vocab, max(blocks), 2, 16, start, rng)
    acts = forward(weights, tokens)
    return {"previous": patterns.previous_token_scores(weights, tokens, acts),
            "duplicate": patterns.duplicate_token_scores(weights, tokens, acts),
            "induction": induction}


def named_heads(rows, blocks):
    """The induction head after layer 0 and the previous-token head before it, from a `head_table`.

    Each is the best, (layer, head), or None if no head has earned the name.

    nearest : the best in any case, its score, and the least that earns the name
    blocks : lengths that rows are of
    """
    if not blocks:
        return {"induction_head": None, "previous_token_head": None, "nearest": {}}
    induction = max((row for row in rows if row["layer"]), key=lambda row: row["induction"])
    previous = max((row for row in rows if row["layer"] < induction["layer"]),
                   key=lambda row: row["previous"])
    found = {"nearest": {}}
    for name, row, score, least in (
            ("induction_head", induction, "induction", least_prefix_matching(max(blocks))),
            ("previous_token_head", previous, "previous", PREVIOUS)):
        head = row["layer"], row["head"]
        found[name] = head if row[score] > least else None
        found["nearest"][name] = {"head": head, "score": row[score], "least": least}
    return found


def roles(rows, blocks):
    """What each row of a `head_table` is called, and by which score: (name, score), or None.

    Only a score that heads of random weights do not reach gives a name.
    """
    def role(row):
        if blocks and row["layer"] and row["induction"] > least_prefix_matching(max(blocks)):
            return "induction", row["induction"]
        if blocks and row["previous"] > PREVIOUS:
            return "previous token", row["previous"]
        return None
    return [role(row) for row in rows]


def head_dump(weights, ranked, tokens, acts):
    """For every head its mean attention by distance, and its ranked skip-trigram table.

    rows: the sources of RANKS, each with its strongest destinations and outs, as pairs
    (token, strength). ranked : as in `head_table`
    """
    profiles = near_profiles(weights, tokens, acts)

    def listed(rank, row):
        return {"rank": rank, "source": row.source, "score": row.score, "destinations":
                list(zip(row.destinations.tolist(), row.destination_scores.tolist())),
                "outs": list(zip(row.outs.tolist(), row.out_logits.tolist()))}

    return [{"layer": layer, "head": head, "profile": profiles[layer, head].tolist(),
             "rows": [listed(rank, row) for rank, row in enumerate(ranked((layer, head)), 1)
                      if rank in RANKS]} for layer, head in heads_of(weights)]


def strongest_pairs(weights):
    """The three strongest pairs of each kind of composition, and the level of random matrices."""
    weights = without_biases(weights)
    found = {"baseline": composition_baseline(weights.d_model)}
    for kind in "QKV":
        scores = composition_scores(weights, kind)
        places = np.argwhere(np.tri(weights.n_layers, k=-1)[:, None, :, None]
                             * np.ones_like(scores))                  # earlier before later
        best = strongest(scores[tuple(places.T)], 3)[0]
        found[kind] = [[label(((earlier, g), (later, h))), float(scores[later, h, earlier, g])]
                       for later, h, earlier, g in places[best]]
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


def eigenvalue_pairs(weights, rows, watch=unwatched):
    """Copying and same-matching eigenvalue scores of every pair of heads that can compose.

    rows : of `head_table`, which has the first already
    """
    weights = without_biases(weights)
    copying = {(row["layer"], row["head"]): row["copying"] for row in rows}
    pairs = [(earlier, later) for later in copying for earlier in copying
             if earlier[0] < later[0]]
    W_E_W_ET = weights.W_E @ weights.W_E.mT      # W_Eᵀ W W_E has the eigenvalues of W W_E W_Eᵀ

    def matching(pair):
        return copying_score(W_QK(weights, *pair[1]) @ W_OV(weights, *pair[0]) @ W_E_W_ET)

    return [{"earlier": earlier, "later": later, "copying": copying[later], "matching": score}
            for (earlier, later), score in watch(zip(pairs, side_by_side(matching, pairs)),
                                                 "pairs of heads", total=len(pairs))]
