"""Skip-trigrams: [source] … [destination] → [out], read off a head's two circuits.

QK scores how much a destination wants a source, OV what the source then does to the outs.
For one source the effects QK[dest, source]·OV[out, source] over (dest, out) have rank 1:
a head that learns keep … in → mind and keep … at → bay must also say keep … in → bay.

Paper: "Skip-Trigrams", "Interpretation of Skip-Trigrams", "Primarily Positional Attention
Heads" and the head dump. A table is a reading, not a rewriting, of the model: attention is
shared out over the context, positions and the direct path are left out, and W_U is used
as it is, not centred.
"""

from typing import NamedTuple

import numpy as np

from minicircuits.circuits.heads import ov_circuit, qk_circuit
from minicircuits.circuits.streaming import LongestFirst
from minicircuits.cores import side_by_side
from minicircuits.notation import InputError, check_axes


TOGETHER = 1024        # sources that one core looks at together


class SkipTrigrams(NamedTuple):
    """A source and its k strongest destinations and outs, strongest first."""
    source: int
    score: float                      # what sources are ranked by
    destinations: np.ndarray          # (k,) tokens that want the source most
    destination_scores: np.ndarray    # (k,) W_Eᵀ W_QK W_E, unscaled
    outs: np.ndarray                  # (k,) tokens the source raises most
    out_logits: np.ndarray            # (k,) logits, at full attention


def skip_trigrams(weights, layer, head, token_probabilities, n_sources=10, k=5):
    """The table of a head: its n_sources strongest sources, best first, as `SkipTrigrams`.

    score_u = max_dest QK[dest, u] · max_out OV[out, u] · probability_u^0.1, the ranking of the
    paper's head dump. Sources are left out where either maximum is not positive (their product
    could be), so there may be fewer. token_probabilities : (u,), unigram. At any vocabulary:
    streamed, and only as far as it can still change the table (`strongest_sources`).

    Invariant under every change of basis. One row added to every row of W_U, or a constant added to
    a destination's row of QK (which changes no pattern), does change the ranking.

    >>> from minicircuits.circuits.hand_built import skip_trigram_machine
    >>> weights = skip_trigram_machine(d_vocab=6, heads=[[(1, 2, 3)]])     # 1 … 2 → 3
    >>> found, = skip_trigrams(weights, 0, 0, np.full(6, 1 / 6), k=1)
    >>> found.source, found.destinations.tolist(), found.outs.tolist()
    (1, [2], [3])

    "…" is any distance, and adjacent counts:

    >>> import minicircuits as mc
    >>> [int(mc.forward(weights, [t]).logits[0, -1].argmax()) for t in ([0, 1, 2], [0, 1, 4, 5, 2])]
    [3, 3]
    """
    check_axes("token_probabilities", np.asarray(token_probabilities), ("d_vocab",),
               {"d_vocab": weights.d_vocab})
    if not (np.asarray(token_probabilities) >= 0).all():
        raise InputError("token_probabilities must not be negative or NaN")
    factor = np.asarray(token_probabilities, weights.dtype) ** 0.1
    QK, OV = side_by_side(lambda circuit: circuit(weights, layer, head), (qk_circuit, ov_circuit))
    return [SkipTrigrams(int(source), float(score),
                         *strongest(QK.columns(source), k), *strongest(OV.columns(source), k))
            for source, score in zip(*strongest_sources(QK, OV, factor, n_sources))]


def strongest_sources(QK, OV, factor, n):
    """The n sources u with the largest max QK[:, u] · max OV[:, u] · factor_u > 0, and these.

    Equal scores go by token. The answer is that of computing everything, but what cannot
    change it is left out: a source is given up as soon as one of its maxima cannot be as
    large as the n-th best score asks of it, given a bound on the other. Sources go by falling
    bound on their score, in rounds that double; what a round may leave out is settled before
    it begins, so that it does not depend on which core is faster.
    """
    QK, OV = side_by_side(LongestFirst, (QK, OV))
    bound = QK.bound * OV.bound * factor
    order = np.argsort(-bound, kind="stable")
    order = order[bound[order] > 0]
    found, scores, least = np.empty(0, np.intp), np.empty(0, factor.dtype), 0.0

    def scored(sources):
        """Those of `sources` that may be among the best, and their scores."""
        among, wanted = QK.maxima_from(least / (OV.bound * factor)[sources], sources)
        sources = sources[among]
        among, raised = OV.maxima_from(least / (wanted * factor[sources]), sources)
        sources = sources[among]
        return sources, wanted[among] * raised * factor[sources]

    done = 0
    while done < len(order) and bound[order[done]] >= least:
        parts = [order[start:start + TOGETHER]
                 for start in range(done, max(2 * done, 2 * TOGETHER), TOGETHER)]
        done += sum(map(len, parts))
        more = list(side_by_side(scored, parts))
        found = np.concatenate([found, *(sources for sources, _ in more)])
        scores = np.concatenate([scores, *(values for _, values in more)])
        best = np.lexsort((found, -scores))[:n]
        found, scores = found[best], scores[best]
        if 0 < n == len(scores):
            least = float(scores[-1]) * (1 - 16 * np.finfo(scores.dtype).eps)    # all the ties
    return found, scores


def strongest(column, k):
    """Indices and values of the k largest entries, largest first; of equals the first."""
    k = min(k, len(column))
    index = np.flatnonzero(column >= np.partition(column, -k)[-k])
    index = index[np.argsort(-column[index], kind="stable")][:k]
    return index, column[index]
