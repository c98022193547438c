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
from minicircuits.circuits.streaming import column_maxima
from minicircuits.notation import InputError, check_axes


class SkipTrigrams(NamedTuple):
    """A source and its k strongest destinations and outs, strongest first."""
    source: int
    score: float                      # what sources are ranked by
    destinations: np.ndarray          # (k,) tokens that want the source most
    destination_scores: np.ndarray    # (k,) W_Eᵀ W_QK W_E, unscaled
    outs: np.ndarray                  # (k,) tokens the source raises most
    out_logits: np.ndarray            # (k,) logits, at full attention


def source_scores(weights, layer, head, token_probabilities):
    """max_dest QK[dest, u] · max_out OV[out, u] · probability_u^0.1 per source u: (u,).

    The ranking of the paper's head dump. 0 where either maximum is not positive (their
    product could be). token_probabilities : (u,), unigram. At any vocabulary: streamed.

    Invariant under every change of basis. One row added to every row of W_U, or a constant added to
    a destination's row of QK (which changes no pattern), does change the ranking.
    """
    check_axes("token_probabilities", np.asarray(token_probabilities), ("d_vocab",),
               {"d_vocab": weights.d_vocab})
    if not (np.asarray(token_probabilities) >= 0).all():
        raise InputError("token_probabilities must not be negative or NaN")
    wanted = column_maxima(qk_circuit(weights, layer, head)).value
    raised = column_maxima(ov_circuit(weights, layer, head)).value
    probabilities = np.asarray(token_probabilities, weights.dtype) ** 0.1
    return np.where((wanted > 0) & (raised > 0), wanted * raised * probabilities, 0)


def skip_trigrams(weights, layer, head, token_probabilities, n_sources=10, k=5):
    """The table of a head: its strongest sources, best first, as `SkipTrigrams`.

    Sources that score 0 are left out, so there may be fewer than n_sources.

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
    scores = source_scores(weights, layer, head, token_probabilities)
    sources = np.argsort(-scores, kind="stable")[:n_sources]
    QK, OV = qk_circuit(weights, layer, head), ov_circuit(weights, layer, head)
    return [SkipTrigrams(int(source), float(scores[source]),
                         *strongest(QK.columns(source), k), *strongest(OV.columns(source), k))
            for source in sources if scores[source] > 0]


def strongest(column, k):
    """Indices and values of the k largest entries, largest first."""
    index = np.argsort(-column, kind="stable")[:k]
    return index, column[index]
