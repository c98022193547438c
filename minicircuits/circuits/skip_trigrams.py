"""Skip-trigrams: [source] … [destination] → [out], read off a head's two circuits.

QK scores how strongly a destination attends to a source, OV what the source then adds to the
logit of each out. For one source the effects QK[dest, source]·OV[out, source] over (dest, out)
have rank 1: a head that learns keep … in → mind and keep … at → bay must also say keep … in → bay.

Paper: "Skip-Trigrams", "Interpretation of Skip-Trigrams", "Primarily Positional Attention
Heads" and the head dump. A table reads the model and does not rewrite it. Attention is
shared out over the context; positions and the direct path are left out; W_U is used as it is.
"""

from typing import NamedTuple

import numpy as np

from minicircuits.circuits.heads import ov_circuit, qk_circuit
from minicircuits.circuits.induction import matching_circuit
from minicircuits.circuits.low_rank import LowRank
from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.notation import InputError, Weights, check_axes, check_real

TILE = 1024           # rows and columns of a tile, which stays in cache
ROUND = 4 * TILE      # sources that are looked at between two updates of `least`


class SkipTrigrams(NamedTuple):
    """A source and its k strongest destinations and outs, strongest first."""
    source: int
    score: float                      # what sources are ranked by
    destinations: np.ndarray          # (k,) tokens that attend to the source most
    destination_scores: np.ndarray    # (k,) of QK, unscaled
    outs: np.ndarray                  # (k,) tokens to whose logits the source adds most
    out_logits: np.ndarray            # (k,) logits, at full attention


@door
def skip_trigrams(weights: Weights, layer: int, head: int, token_probabilities: np.ndarray,
                  n_sources: int = 10, k: int = 5, through: tuple[int, int] | None = None
                  ) -> list[SkipTrigrams]:
    """The table of a head: its n_sources strongest sources, best first, as `SkipTrigrams`.

    score_u = max_dest QK[dest, u] · max_out OV[out, u] · probability_u^0.1, the ranking of the
    paper's head dump. Sources are left out where either maximum is not positive (their product
    could be), so there may be fewer. token_probabilities : (u,), unigram. "…" is any distance,
    0 included. One row added to every row of W_U, or a constant added to a destination's row of
    QK (which changes no pattern), does change the ranking.

    through : an earlier head g (layer, head) that moves tokens into the keys. QK is then the
    `matching_circuit`, W_Eᵀ W_QK W_OV^g W_E: destinations attend to where g has brought the
    source from elsewhere; the token after it, if g attends one back. OV stays: outs are added
    where the source itself is attended to. An induction head has both of one token: [u] draws
    attention to what follows it, and makes itself likelier.

    >>> from minicircuits.circuits.hand_built import skip_trigram_machine
    >>> weights = skip_trigram_machine(d_vocab=6, heads=[[(1, 2, 3)]])     # 1 … 2 → 3
    >>> found, = skip_trigrams(weights, 0, 0, np.full(6, 1 / 6), k=1)
    >>> found.source, found.destinations.tolist(), found.outs.tolist()
    (1, [2], [3])
    """
    probabilities = token_probabilities
    check_real(weights, probabilities)
    check_axes("token_probabilities", probabilities, ("d_vocab",), {"d_vocab": weights.d_vocab})
    if not (probabilities >= 0).all():
        raise InputError("token_probabilities must not be negative or NaN")
    factor = probabilities.astype(weights.dtype) ** 0.1
    QK = (matching_circuit(weights, through, (layer, head)) if through else
          qk_circuit(weights, layer, head))
    OV = ov_circuit(weights, layer, head)
    table = []
    for source in strongest_sources_pruned(QK.near_one(), OV.near_one(), factor, n_sources):
        attended, added = QK.columns(source), OV.columns(source)
        score = float(attended.max()) * float(added.max()) * float(factor[source])
        table.append(SkipTrigrams(int(source), score, *strongest(attended, k),
                                  *strongest(added, k)))
    return table


def strongest_sources(QK, OV, factor, n):
    """The n sources u with the largest max_dest QK[dest, u] · max_out OV[out, u] · factor_u > 0.

    Equal ones go by token; both maxima must be positive. This is the definition.
    """
    attended, added = (np.concatenate([block.max(1) for _, block in circuit.mT.blocks()])
                       for circuit in (QK, OV))                    # of each source: (u,)
    return positive(np.where((attended > 0) & (added > 0), attended * added * factor, 0), n)


def strongest_sources_pruned(QK, OV, factor, n):
    """The same as `strongest_sources`, leaving out what cannot matter.

    With 50,257 tokens, as in GPT-2, it takes 0.3 to 0.6 of the time; with 1,000 it gains nothing.
    Each source has a bound on its score. Sources go by falling bound, in rounds of tiles side by
    side. `least`, just below the n-th best score so far, changes between rounds only, so that no
    answer depends on which core is faster. At the first bound below it all that remain are left
    out.
    """
    QK, OV = longest_rows_first(QK), longest_rows_first(OV)
    largest_QK, largest_OV = (entry_bounds(W.A[:1], W.B)[0] for W in (QK, OV))
    bound = largest_QK * largest_OV * factor
    order = positive(bound, len(bound))
    scores, found, least = np.zeros_like(factor), order[:0], 0.0

    def scored(sources):
        """The scores of `sources`; 0 for those that do not reach `least`."""
        attended = maxima_from(QK, sources, (largest_OV * factor)[sources], least)
        added = maxima_from(OV, sources, attended * factor[sources], least)
        return attended * added * factor[sources]

    for start in range(0, len(order), ROUND):
        sources = order[start:start + ROUND]
        if bound[sources[0]] < least:
            break
        tiles = np.split(sources, range(TILE, len(sources), TILE))
        scores[sources] = np.concatenate(list(side_by_side(scored, tiles)))
        found = positive(scores, n)
        if 0 < n == len(found):
            least = float(scores[found[-1]]) * (1 - 16 * np.finfo(scores.dtype).eps)    # and ties
    return found


def positive(scores, n):
    """Which n scores are the largest, but only those above 0; of equals the first."""
    best, values = strongest(scores, n)
    return best[values > 0]


def strongest(column, k):
    """Indices and values of the k largest entries, largest first; of equals the first."""
    index = np.arange(len(column))
    if 0 < k < len(column):                          # few are worth sorting, of very many
        index = np.flatnonzero(~(column < np.partition(column, -k)[-k]))
    index = index[np.argsort(-column[index], kind="stable")[:k]]
    return index, column[index]


def longest_rows_first(low_rank):
    """The same matrix with the rows in another order: those of A by falling length."""
    return LowRank(low_rank.A[np.argsort(-norms(low_rank.A), kind="stable")], low_rank.B)


def entry_bounds(A, B):
    """‖A_v‖ ‖B_u‖ ≥ |W_vu| of W = A B (Cauchy–Schwarz), with room for rounding: (v, u), float64."""
    rounding = 2 * (A.shape[1] + 4) * np.finfo(A.dtype).eps
    return norms(A)[:, None] * norms(B.mT) * (1 + rounding)


def norms(vectors):
    """‖x‖ of each row x, summed in float64."""
    return np.sqrt(np.einsum("vr,vr->v", vectors, vectors, dtype=np.float64))


def maxima_from(low_rank, columns, weight, least):
    """The maximum of each of `columns`; 0 if it is negative or, times `weight`, below `least`.

    The longest rows come first. A column is given up when neither its largest entry so far nor
    any to come reaches `least`.
    """
    A, B = low_rank.A, low_rank.B[:, columns]
    bounds = entry_bounds(A[::TILE], B)                 # of each tile and all that follow
    largest = np.zeros(len(columns), A.dtype)
    for row, bound in zip(range(0, len(A), TILE), bounds):
        alive = np.maximum(largest, bound) * weight >= least
        largest[alive] = np.maximum(largest[alive], (A[row:row + TILE] @ B[:, alive]).max(0))
    return np.where(largest * weight >= least, largest, 0)
