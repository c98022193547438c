"""What the page knows of one context: every head on it, what comes next, and score parts."""

import numpy as np
from scipy.special import logsumexp

from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.patterns import value_weighted_patterns
from minicircuits.circuits.expansion import residual_0
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.model.transformer import forward
from minicircuits.findings.figures import top
from minicircuits.report.packing import pack, pack_floats

NEXT = 8              # next tokens listed at a place


def attention(weights, tokens, heads):
    """The heads (layer, head) on one context (1, i), in three views, and what comes next.

    Each view packs the lower triangle of (head, i, j), row by row: `pattern`, `moved`
    (value-weighted) and `effects` on the true next token's logit, which has a row less.
    """
    acts, n = forward(weights, tokens), tokens.shape[1]
    moved = value_weighted_patterns(weights, tokens)
    views = {"pattern": [acts.pattern[layer, 0, head] for layer, head in heads],
             "moved": [moved[layer, 0, head] for layer, head in heads],
             "effects": [source_effects(weights, tokens, layer, head)[0, :, :n - 1]
                         for layer, head in heads]}
    logits = acts.logits[0]
    normalizer = logsumexp(logits, axis=-1)
    return {"tokens": tokens[0].tolist(),
            "next": [[[int(v), float(np.exp(row[v] - total))] for v in top(row, NEXT)]
                     for row, total in zip(logits, normalizer)],
            **{name: (pack_floats if name == "pattern" else pack)(triangles(parts))
               for name, parts in views.items()}}


def triangles(squares):
    """The entries j ≤ i of each (i, i) array, row by row: (head, i·(i+1)/2)."""
    return np.array([square[np.tril_indices(len(square))] for square in squares])


def score_parts(weights, tokens, layer, head):
    """neither, Q, K and both of one head on one context (1, i): their triangles, packed."""
    parts = split_scores(weights, tokens, forward(weights, tokens).pattern, layer, head)
    return pack(triangles([part[0] for part in parts]))


def ledger_inputs(weights, tokens):
    """What the page takes a logit apart from: what enters layer 0, what is unembedded, (i, d).

    And ln Σ exp of the logits, so that one logit is a probability: (i,).
    """
    acts = forward(weights, tokens)
    return {"embedded": pack_floats(residual_0(weights, tokens)[0]),
            "residual": pack_floats(acts.residual[-1][0]),
            "normalizer": logsumexp(acts.logits[0], axis=-1).tolist()}
