"""What figures know of a text: all that the model gives, run in the page; or what was computed.

`living.js` and `texts.js` read it. A triangle has the entries j ≤ i of (i, j), row by row.
"""

import numpy as np
from scipy.special import logsumexp, softmax

from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.patterns import value_lengths
from minicircuits.circuits.biases import resting_heads
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.findings.study import likeliest
from minicircuits.report.packing import pack, pack_floats
from minicircuits.training.tokenizer import Tokenizer

MAX_HEADS = 64


def notice(what, most, total, noun):
    """A notice that not all is shown, in a list; an empty one if all is."""
    return [f"{what}: the first {most} of {total:,} {noun} are shown."] if total > most else []


def running_model(weights, tokenizer, start):
    """The model, to run in the page, and how it reads text there, where it can."""
    by_token = {name: W.mT for name, W in weights.items() if name in ("W_E", "W_pos")}
    return {"model": packed(weights, dict(weights.items()) | by_token) | {"start": start},
            "merges": tokenizer.to_array().tolist() if isinstance(tokenizer, Tokenizer) else None}


def packed(weights, matrices):
    """Matrices of a model, and what else a page must know to read them."""
    return {"positions": weights.positions, "rests": resting_heads(weights),
            **{name: getattr(weights, name, None) for name in ("n_normalized", "eps")},
            **{name: pack_floats(W) for name, W in matrices.items()}}


def given_text(weights, tokens, acts, heads):
    """Three views of each head (layer, head) on one text (1, i), and the 8 likeliest next tokens.

    `effects` on the true next token's logit have a row less than patterns. `lengths` (head, j) of
    what is written for a source: times the pattern they are the value-weighted pattern.
    """
    effects = [source_effects(weights, tokens, *head, acts)[0, :, :-1] for head in heads]
    return {"tokens": tokens[0].tolist(),
            "next": [likeliest(softmax(row), 8) for row in acts.logits[0]],
            "pattern": pack(triangles(of_heads(acts.pattern, heads))),
            "lengths": pack_floats(of_heads(value_lengths(weights, acts), heads)),
            "effects": pack(triangles(effects))}


def score_parts(weights, tokens, acts, heads):
    """The four parts of each head's scores on one text: neither, Q, K and both."""
    return {f"{layer}.{head}": pack(triangles(part[0] for part in split_scores(
        weights, tokens, acts.pattern, layer, head, acts.norms))) for layer, head in heads}


def path_inputs(acts, heads):
    """What a ledger reads of a run on one text. Many patterns are multiplied: they are floats."""
    return {"pattern": pack_floats(triangles(of_heads(acts.pattern, heads))),
            "run": {"embedded": pack_floats(acts.residual[0][0]),      # (i, d) enters layer 0
                    "residual": pack_floats(acts.residual[-1][0]),     # (i, d) is unembedded
                    "normalizer": logsumexp(acts.logits[0], axis=-1).tolist(),
                    "norms": None if acts.norms is None else acts.norms[:, 0].tolist()}}


def of_heads(array, heads):
    """What heads have on the one text of an array (l, 1, h, …)."""
    return [array[layer, 0, head] for layer, head in heads]


def triangles(squares):
    """The entries j ≤ i of each (i, i) array, row by row: (head, i·(i+1)/2)."""
    return np.array([square[np.tril_indices(len(square))] for square in squares])
