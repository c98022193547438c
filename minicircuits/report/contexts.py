"""What the page knows of one context: every head on it, what comes next, and score parts.

All from tokens (1, i) and the activations on them.
"""

import numpy as np
from scipy.special import logsumexp

from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.patterns import value_weighted_patterns
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.findings.heads import top
from minicircuits.report.packing import pack, pack_floats

NEXT = 8              # next tokens listed at a place


def attention_views(weights, tokens, acts, heads):
    """The heads (layer, head) on one context in three views, and what comes next.

    Each view packs the lower triangle of (head, i, j), row by row: `pattern`, `moved`
    (value-weighted) and `effects` on the true next token's logit, which has a row less.
    """
    moved, n = value_weighted_patterns(weights, tokens, acts), tokens.shape[1]
    normalizer = logsumexp(acts.logits[0], axis=-1)
    return {"tokens": tokens[0].tolist(),
            "next": [[[int(v), float(np.exp(row[v] - total))] for v in top(row, NEXT)]
                     for row, total in zip(acts.logits[0], normalizer)],
            "pattern": pack_floats(triangles(acts.pattern[layer, 0, head]
                                             for layer, head in heads)),
            "moved": pack(triangles(moved[layer, 0, head] for layer, head in heads)),
            "effects": pack(triangles(source_effects(weights, tokens, *head, acts)[0, :, :n - 1]
                                      for head in heads))}


def triangles(squares):
    """The entries j ≤ i of each (i, i) array, row by row: (head, i·(i+1)/2)."""
    return np.array([square[np.tril_indices(len(square))] for square in squares])


def score_parts(weights, tokens, acts, heads):
    """neither, Q, K and both, of every head after layer 0: their triangles, packed."""
    return {f"{layer}.{head}": pack(triangles(part[0] for part in split_scores(
        weights, tokens, acts.pattern, layer, head))) for layer, head in heads if layer}


def ledger_inputs(acts):
    """What the page takes a logit apart from: what enters layer 0, what is unembedded, (i, d).

    And ln Σ exp of the logits, so that one logit is a probability: (i,).
    """
    return {"embedded": pack_floats(acts.residual[0][0]),
            "residual": pack_floats(acts.residual[-1][0]),
            "normalizer": logsumexp(acts.logits[0], axis=-1).tolist()}
