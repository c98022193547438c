"""Heads, one by one and in pairs: where each looks, what it copies, and who reads whom.

What is read off weights is read off the matrices alone, `without_biases`.
"""

import numpy as np

from minicircuits.behavior import patterns
from minicircuits.behavior.in_context import (block_lengths, induction_scores,
                                              least_prefix_matching, random_blocks)
from minicircuits.circuits.biases import resting_heads, without_biases
from minicircuits.circuits.composition import (chance_levels, composition_baseline,
                                               composition_scores)
from minicircuits.circuits.copying import copying_companions, copying_score, spectrum
from minicircuits.circuits.expansion import label
from minicircuits.circuits.heads import W_OV, W_QK, ov_circuit
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.cores import side_by_side
from minicircuits.model.transformer import forward
from minicircuits.notation import NormalizedWeights

RANKS = (*range(1, 9), 16, 32, 64, 128)     # of the sources that a dump of a head lists
SPECTRUM = 64                               # eigenvalues of a head that are shown
# A previous-token head has more of its attention than this on the token before. Untrained models
# reach 0.1 in contexts of 128, and 0.46 in those of 5.
PREVIOUS = 0.5
# How often random weights, in any of their pairs, pass the levels of `composed`. After few steps
# of training all heads are a little alike: one in a hundred would take that for composition.
CHANCE = 1e-6
CORNER = 0.5          # both eigenvalue scores of a pair of heads that makes induction, at least


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

    ranked : a head (layer, head) ↦ the head it reads `through`, or None; and its `skip_trigrams`
    tokens, acts : of the text
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
        through, entries = ranked((layer, head))
        rows.append({"layer": layer, "head": head, "copying": copying_score(circuit),
                     "top_own": copying_companions(circuit).top_own,
                     **({"offset": int(profile.argmax()), "at_offset": float(profile.max())}
                        if T > 3 else {}),
                     **{name: float(score[layer, head]) for name, score in scores.items()},
                     "through": through, "skip_trigrams": [
                         {"source": entry.source, "destinations": entry.destinations[:3].tolist(),
                          "outs": entry.outs[:3].tolist(), "score": entry.score}
                         for entry in entries[:3]]})
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
    (token, strength). through: None, or the earlier head that feeds its keys. A row's source is
    then a token in two places: before what `destinations` attend to, and where `outs` are added.
    ranked : as in `head_table`
    """
    profiles, found = near_profiles(weights, tokens, acts), []

    def listed(rank, row):
        return {"rank": rank, "source": row.source, "score": row.score, "destinations":
                list(zip(row.destinations.tolist(), row.destination_scores.tolist())),
                "outs": list(zip(row.outs.tolist(), row.out_logits.tolist()))}

    for layer, head in heads_of(weights):
        through, entries = ranked((layer, head))
        found.append({"layer": layer, "head": head, "profile": profiles[layer, head].tolist(),
                      "through": through, "rows": [listed(rank, row) for rank, row
                                                   in enumerate(entries, 1) if rank in RANKS]})
    return found


def composed(weights):
    """By kind of composition the scores of all pairs of heads, and levels; (l, h, l', g) both.

    Heads at random pass their level in one of 1 / CHANCE models, all kinds and pairs together.
    """
    weights = without_biases(weights)
    L, H = weights.n_layers, weights.n_heads
    chance = CHANCE / (3 * H * H * L * (L - 1) / 2 or 1)
    return {kind: (composition_scores(weights, kind), chance_levels(weights, kind, chance))
            for kind in "QKV"}


def feeders(weights, pairs):
    """A head (layer, head) ↦ the earlier one that feeds its keys most; without heads of none.

    K-composition is above its level. Of several, the largest W_Eᵀ W_QK W_OV^g W_E feeds most, by
    its Frobenius norm. pairs : of `composed`
    """
    weights, (scores, levels) = without_biases(weights), pairs["K"]
    fed = np.argwhere(scores > levels).tolist()
    W_E_W_ET = weights.W_E @ weights.W_E.mT if fed else None

    def square(pair):
        """‖W_Eᵀ W_QK W_OV^g W_E‖²."""
        circuit = W_QK(weights, *pair[:2]) @ W_OV(weights, *pair[2:])
        return (circuit @ W_E_W_ET @ circuit.mT @ W_E_W_ET).trace()

    return {tuple(pair[:2]): tuple(pair[2:]) for pair in sorted(fed, key=square)}   # the last stays


def strongest_pairs(weights, pairs):
    """The three strongest pairs of each kind of composition, each [label, score, level].

    Those above their level come first. baseline: of random matrices, in the root mean square.
    pairs : of `composed`
    """
    found = {"baseline": composition_baseline(without_biases(weights).d_model)}
    for kind, (scores, levels) in pairs.items():
        places = np.argwhere(np.tri(len(scores), k=-1)[:, None, :, None]
                             * np.ones_like(scores))                  # earlier before later
        of_pairs, level = scores[tuple(places.T)], levels[tuple(places.T)]
        best = strongest(of_pairs + (of_pairs > level), 3)[0]         # no score is above 1
        found[kind] = [[label(((earlier, g), (later, h))), float(of_pairs[n]), float(level[n])]
                       for n in best for later, h, earlier, g in [places[n].tolist()]]
    return found


def composition_matrices(weights, pairs):
    """Every pair's composition scores less the level of random matrices, by kind.

    Rows: heads of layers 1, 2, …; columns: heads of layers 0 to L − 2; None where the column's
    layer is not before the row's. levels: in the same form, what a score must pass to say
    something; noise: the highest of them. pairs : of `composed`
    """
    weights = without_biases(weights)
    later, earlier = heads_of(weights)[weights.n_heads:], heads_of(weights)[:-weights.n_heads]
    baseline = composition_baseline(weights.d_model)

    def above(values):
        return [[float(values[*row, *column] - baseline) if column[0] < row[0] else None
                 for column in earlier] for row in later]

    levels = {kind: above(level) for kind, (_, level) in pairs.items()}
    noise = max(level for rows in levels.values() for row in rows for level in row if level)
    return {"baseline": baseline, "later": later, "earlier": earlier, "noise": noise,
            "levels": levels, **{kind: above(scores) for kind, (scores, _) in pairs.items()}}


def eigenvalue_pairs(weights, rows, pairs, watch=unwatched):
    """Copying and same-matching eigenvalue scores of every pair of heads that can compose.

    corner: whether both are above CORNER, and K-composition above its level. One or two large
    eigenvalues pass CORNER by chance.
    rows : of `head_table`, which has the first already; pairs : of `composed`
    """
    weights = without_biases(weights)
    copying = {(row["layer"], row["head"]): row["copying"] for row in rows}
    scores, levels = pairs["K"]
    pairs = [(earlier, later) for later in copying for earlier in copying
             if earlier[0] < later[0]]
    W_E_W_ET = weights.W_E @ weights.W_E.mT      # W_Eᵀ W W_E has the eigenvalues of W W_E W_Eᵀ

    def matching(pair):
        return copying_score(W_QK(weights, *pair[1]) @ W_OV(weights, *pair[0]) @ W_E_W_ET)

    return [{"earlier": earlier, "later": later, "copying": copying[later], "matching": score,
             "corner": bool(min(copying[later], score) > CORNER
                            and scores[*later, *earlier] > levels[*later, *earlier])}
            for (earlier, later), score in watch(zip(pairs, side_by_side(matching, pairs)),
                                                 "pairs of heads", total=len(pairs))]


def head_spectra(weights):
    """Of every head the eigenvalues of W_U W_OV W_E, as pairs (real, imaginary), largest first.

    They are divided by the largest modulus, and are SPECTRUM at most; of a head that copies
    nothing but rounding there are none.
    """
    found, matrices = [], without_biases(weights)
    W_E_W_U = matrices.W_E @ matrices.W_U        # W_U W W_E has the eigenvalues of W W_E W_U
    for layer, head in heads_of(weights):
        values = spectrum(W_OV(matrices, layer, head) @ W_E_W_U)[:SPECTRUM]
        found.append({"layer": layer, "head": head, "copying": [
            (float(value.real), float(value.imag)) for value in values / abs(values[:1])]})
    return found
