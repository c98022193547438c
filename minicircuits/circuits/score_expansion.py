"""Attention scores as exact sums over pairs of paths, and the model rebuilt from them.

A score is bilinear in what its two sides read, x_iᵀ W_QK x_j / √d_head, and each side is
itself a sum over the paths of the layers before. One path on the query side and one on the
key side make a term: with heads on neither side, Q-composition, K-composition, or both.

Paper: "Path Expansion of Attention Scores QK Circuit", "Analyzing a Two-Layer Model".
"""

from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from minicircuits.circuits.expansion import (embedded, head_sequences, label,
                                             pattern_product, propagate, through)
from minicircuits.circuits.heads import W_QK
from minicircuits.circuits.low_rank import product
from minicircuits.notation import Weights, check_head, check_pattern, check_tokens


@dataclass(frozen=True, eq=False)
class Side:
    """A path into what a head reads, (A ⊗ W) t, from the tokens or from the positions.

    (A `Path` of the logits has both in one, in "standard" mode; here each is a side of its
    own.) `x` is kept once computed, for the many terms that share a side.
    """

    source: str                                # "token" or "position"
    heads: tuple                               # ((layer, head), …), first to last
    weights: Weights = field(repr=False)
    tokens: np.ndarray = field(repr=False)     # (b, i)
    pattern: np.ndarray = field(repr=False)    # (l, b, h, i, j)

    @property
    def label(self):
        return f"{self.source}→{label(self.heads)}" if self.heads else self.source

    @property
    def A(self):
        """(b, i, j), the identity without heads."""
        return pattern_product(self.heads, self.pattern)

    @property
    def W(self):
        """W_OV … W_OV W_E (d, u), or with W_pos (d, p)."""
        right = self.weights.W_E if self.source == "token" else self.weights.W_pos
        return through(np.eye(len(right), dtype=right.dtype), self.heads, self.weights, right)

    @cached_property
    def x(self):
        """A t Wᵀ: this path's share of what the head reads, (b, i, d)."""
        ids = self.tokens if self.source == "token" else np.arange(self.tokens.shape[1])
        return self.A @ self.W.columns(ids)


@dataclass(frozen=True, eq=False)
class ScoreTerm:
    """One path on the query side, one on the key side: (A_q t) W (A_k t)ᵀ.

    Axes of W: [what the query side starts from, what the key side starts from], each a
    token u or a position p. Unlike W_QK and `qk_circuit` it has 1/√d_head in it.
    """

    query: Side
    key: Side
    layer: int
    head: int

    @property
    def label(self):
        return f"{self.query.label} · {self.key.label}"

    @property
    def kind(self):
        """Heads on which side: "neither", "Q", "K" or "both"."""
        return (("neither", "K"), ("Q", "both"))[bool(self.query.heads)][bool(self.key.heads)]

    @property
    def W(self):
        QK = W_QK(self.query.weights, self.layer, self.head)
        return product(self.query.W.mT, QK, self.key.W) * (1 / sqrt(self.query.weights.d_head))

    @property
    def scores(self):
        """This term's share of the scores, (b, i, j), not masked."""
        QK = W_QK(self.query.weights, self.layer, self.head)
        return bilinear(self.query.x, QK, self.key.x) / sqrt(self.query.weights.d_head)


def bilinear(x, W, y):
    """x_iᵀ W y_j for rows x (b, i, d) and y (b, j, d): (b, i, j)."""
    return (x @ W.A) @ (y @ W.B.mT).mT


def sides(weights, tokens, pattern, layer):
    """Every path into what layer `layer`'s W_Q and W_K read, as a list of `Side`.

    With n = (1 + H)^layer: n sides without positions, n + 1 in "shortformer" mode, where
    positions are read directly, 2 n in "standard" mode, where they take the same paths.
    """
    paths = head_sequences(layer, weights.n_heads)
    from_positions = {"none": [], "shortformer": [()], "standard": paths}[weights.positions]
    return [Side(source, heads, weights, tokens, pattern)
            for source, sequences in (("token", paths), ("position", from_positions))
            for heads in sequences]


def expand_scores(weights, tokens, pattern, layer, head):
    """Every term of a head's scores, as a list of `ScoreTerm`; their scores sum to it.

    tokens : (b, i); pattern : (l, b, h, i, j), frozen: only layers before `layer` matter.
    The number of `sides`, squared. Terms compute nothing until asked; for the four parts
    alone, `split_scores` needs no list.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "shortformer", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> terms = expand_scores(weights, [[3, 0, 5]], acts.pattern, 1, 2)
    >>> total = sum(term.scores for term in terms)
    >>> len(terms), mc.relative_error(total, acts.scores[1, :, 2]) < 1e-12
    (25, True)
    """
    check_head(weights, layer, head)
    tokens = check_tokens(weights, tokens)
    pattern = check_pattern(weights, tokens, pattern)
    paths = sides(weights, tokens, pattern, layer)
    return [ScoreTerm(query, key, layer, head) for query in paths for key in paths]


class TermShare(NamedTuple):
    term: ScoreTerm
    share: float             # of the score's variance across sources


def variance_shares(terms):
    """Which terms decide between sources: every `TermShare`, the largest first; they sum to 1.

        share = Σ_{b,i} Σ_{j≤i} term_ij score_ij / Σ_{b,i} Σ_{j≤i} score_ij²

    where the score is the sum of the terms, each less its mean over a destination's sources:
    what is the same for all of them changes no pattern, and counts for nothing here. Later
    destinations have more sources and count for more. A negative share works against the
    others. Where the scores do not vary at all, every share is 0.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "shortformer", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> shares = variance_shares(expand_scores(weights, [[3, 0, 5]], acts.pattern, 1, 2))
    >>> bool(np.isclose(sum(found.share for found in shares), 1))
    True
    """
    scores = [term.scores for term in terms]
    centred = [causally_centred(part) for part in scores]
    total, size = sum(centred), sum(map(np.abs, scores))
    variance = (total * total).sum()
    # Scores that are the same for all sources but for rounding vary by this much at most.
    rounding = 8 * size.shape[-1] * np.finfo(size.dtype).eps * size
    varies = variance > (rounding * rounding).sum()
    shares = [float((part * total).sum() / variance) if varies else 0.0 for part in centred]
    return sorted(map(TermShare, terms, shares), key=lambda found: -found.share)


def causally_centred(scores):
    """scores_ij minus their mean over j ≤ i; 0 for j > i."""
    causal = np.tri(scores.shape[-1], dtype=bool)
    scores = np.where(causal, scores, 0)
    return np.where(causal, scores - scores.sum(-1, keepdims=True) / causal.sum(-1)[:, None], 0)


class Split(NamedTuple):
    """The four parts of a head's scores, each (b, i, j); they sum to the scores."""
    neither: np.ndarray      # both sides read embeddings and positions directly
    Q: np.ndarray            # heads on the query side only
    K: np.ndarray            # heads on the key side only
    both: np.ndarray


def split_scores(weights, tokens, pattern, layer, head):
    """Neither, Q-composition, K-composition and both: the terms of `expand_scores` by kind.

    Each side is read in two parts, order 0 and all others, summed by propagation.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "standard", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> parts = split_scores(weights, [[3, 0, 5]], acts.pattern, 1, 2)
    >>> mc.relative_error(sum(parts), acts.scores[1, :, 2]) < 1e-12
    True
    """
    check_head(weights, layer, head)
    tokens = check_tokens(weights, tokens)
    pattern = check_pattern(weights, tokens, pattern)
    direct, through_heads = read_parts(weights, tokens, pattern, layer)
    QK, rescale = W_QK(weights, layer, head), 1 / sqrt(weights.d_head)
    return Split(*(bilinear(q, QK, k) * rescale for q, k in (
        (direct, direct), (through_heads, direct), (direct, through_heads),
        (through_heads, through_heads))))


def read_parts(weights, tokens, pattern, layer):
    """What W_Q and W_K of a layer read: by the direct paths, and by all others. (b, i, d)"""
    orders = propagate(weights, embedded(weights, tokens), pattern[:layer])
    direct = orders[0]
    if weights.positions == "shortformer":
        direct = direct + weights.W_pos.mT[:tokens.shape[1]]
    return direct, orders[1:].sum(0)


class Rebuilt(NamedTuple):
    pattern: np.ndarray      # (l, b, h, i, j)
    logits: np.ndarray       # (b, i, v)


def rebuild(weights, tokens):
    """Patterns and logits from weights and tokens alone, by sums over paths.

    Layer by layer: the scores are the sum of their terms, Σ_q Σ_k = (Σ_q) W_QK (Σ_k), each
    side summed over its paths by propagation; softmax* of them is the pattern through which
    the next layer's paths go. This is the half of the claim that frozen patterns leave out.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(3, 3, 8, 4, 6, 5, "shortformer", np.random.default_rng(0))
    >>> acts, rebuilt = mc.forward(weights, [[3, 0, 5]]), rebuild(weights, [[3, 0, 5]])
    >>> mc.relative_error(rebuilt.pattern, acts.pattern) < 1e-12
    True
    """
    tokens = check_tokens(weights, tokens)
    (b, n), H = tokens.shape, weights.n_heads
    causal = np.tri(n, dtype=bool)
    pattern = np.empty((weights.n_layers, b, H, n, n), weights.dtype)
    for layer in range(weights.n_layers):
        x = sum(read_parts(weights, tokens, pattern, layer))
        for head in range(H):
            scores = bilinear(x, W_QK(weights, layer, head), x) / sqrt(weights.d_head)
            pattern[layer, :, head] = softmax(np.where(causal, scores, -np.inf), axis=-1)
    x = propagate(weights, embedded(weights, tokens), pattern).sum(0)
    return Rebuilt(pattern, x @ weights.W_U.mT)
