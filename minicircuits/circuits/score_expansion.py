"""Attention scores as exact sums over pairs of paths, and the model rebuilt from them.

A score is bilinear in what its two sides read, y_iᵀ W_QK y_j / √d_head, and each side is
itself a sum over the paths of the layers before. One path on the query side and one on the
key side make a term: with heads on neither side, Q-composition, K-composition, or both.

Paper: "Path Expansion of Attention Scores QK Circuit", "Analyzing a Two-Layer Model".
"""

from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from minicircuits.circuits.expansion import Path, head_sequences, propagate, residual_0
from minicircuits.circuits.heads import W_QK
from minicircuits.circuits.low_rank import power_of_two, product
from minicircuits.circuits.normalization import as_read, frozen, norm_of, over_sources
from minicircuits.door import door
from minicircuits.notation import InputError, Tokens, Weights, check_head, check_real, check_tokens


class ScoreTerm(NamedTuple):
    """One path on the query side, one on the key side: (A_q t) W (A_k t)ᵀ."""

    query: Path        # its reader is the head's W_Q
    key: Path          # its reader is the head's W_K
    layer: int
    head: int

    @property
    def label(self):
        """Both sides, such as token→0.3 · position."""
        return " · ".join(f"{path.source}→{path.label}" if path.heads else path.source
                          for path in (self.query, self.key))

    @property
    def kind(self):
        """Heads on which side: "neither", "Q", "K" or "both"."""
        if self.query.heads:
            return "both" if self.key.heads else "Q"
        return "K" if self.key.heads else "neither"

    @property
    def W(self):
        """[what the query side starts from, what the key side starts from], with 1/√d_head in it.

        Each is a token u or a position p. (W_QK and `qk_circuit` are unscaled.)
        """
        return product(self.query.W.mT, self.key.W) * (1 / sqrt(self.query.weights.d_head))

    @property
    def scores(self):
        """q·k / √d_head: this term's share of the scores, (b, i, j), not masked."""
        return self.query.q_or_k @ self.key.q_or_k.mT / sqrt(self.query.weights.d_head)


@door
def expand_scores(weights: Weights, tokens: Tokens, pattern: np.ndarray, layer: int, head: int,
                  norms: np.ndarray | None = None) -> list[ScoreTerm]:
    """Every term of a head's scores, as a list of `ScoreTerm`; their scores sum to it.

    tokens : (b, i); pattern : (l, b, h, i, j), frozen: only layers before `layer` matter.
    norms : of `NormalizedWeights` alone, the frozen σ (l+1, b, i): acts.norms of `forward`.
    There are as many terms as paths into the head, squared: (1 + H)^layer paths from tokens.
    Positions are read directly in "shortformer" mode, one path more, and take the same paths in
    "standard" mode. Terms compute nothing until asked; `split_scores` needs no list.
    """
    check_head(weights, layer, head)
    tokens, pattern, norms = frozen(weights, tokens, pattern, norms)
    sequences = head_sequences(layer, weights.n_heads)
    of_positions = {"none": [], "shortformer": [()], "standard": sequences}[weights.positions]
    starts = [("token", heads) for heads in sequences]
    starts += [("position", heads) for heads in of_positions]
    queries, keys = ([Path(*start, W[layer, head], weights, tokens, pattern, norms[layer])
                      for start in starts] for W in (weights.W_Q, weights.W_K))
    return [ScoreTerm(query, key, layer, head) for query in queries for key in keys]


def count_terms(weights):
    """Terms by layer, those of all its heads: what `expand_scores` has without running it."""
    paths = [(1 + weights.n_heads) ** layer for layer in range(weights.n_layers)]
    more = {"none": [0] * len(paths), "shortformer": [1] * len(paths), "standard": paths}
    return [weights.n_heads * (tokens + positions) ** 2
            for tokens, positions in zip(paths, more[weights.positions])]


class TermShare(NamedTuple):
    term: ScoreTerm
    share: float             # of the score's variance across sources


@door
def variance_shares(terms: list[ScoreTerm]) -> list[TermShare]:
    """Which terms decide between sources: every `TermShare`, the largest first; they sum to 1.

        share = Σ_{b,i} Σ_{j≤i} term_ij score_ij / Σ_{b,i} Σ_{j≤i} score_ij²

    The score is the sum of the terms. From both, the mean over a destination's sources is
    subtracted: what is the same for all sources changes no pattern. A negative share works
    against the other terms. Destinations with more sources count for more. Where the scores
    do not vary at all, every share is 0.

    >>> import minicircuits as mc
    >>> from minicircuits.circuits.hand_built import induction_by_k_composition
    >>> weights, tokens = induction_by_k_composition(d_vocab=4, n_ctx=5), [[0, 1, 2, 3, 1]]
    >>> terms = expand_scores(weights, tokens, mc.forward(weights, tokens).pattern, 1, 0)
    >>> for term, share in variance_shares(terms)[:3]:
    ...     print(f"{term.label:20} {share:.3f}")
    token · token→0.0    0.547
    token · token        0.453
    token · position     0.000
    """
    if not terms:
        raise InputError("shares need at least one term; got none")
    total = size = 0
    for term in terms:                               # one is held at a time
        check_real(scores := term.scores)
        total, size = total + scores, size + np.abs(scores)
    causal, scale = np.tri(size.shape[-1], dtype=bool), power_of_two(size)

    def centered(scores):
        scores = scores / scale                                         # squares stay in range
        return np.where(causal, scores - scores.mean(-1, keepdims=True, where=causal), 0)

    total = centered(total)
    variance = (total * total).sum()
    rounding = 8 * size.shape[-1] * np.finfo(size.dtype).eps * size / scale
    if variance <= (rounding ** 2).sum():              # the same for all sources, but for rounding
        total, variance = 0 * total, 1
    shares = [float((centered(term.scores) * total).sum() / variance) for term in terms]
    return sorted(map(TermShare, terms, shares), key=lambda found: -found.share)


class Split(NamedTuple):
    """The four parts of a head's scores, each (b, i, j); they sum to the scores."""
    neither: np.ndarray      # both sides read embeddings and positions directly
    Q: np.ndarray            # heads on the query side only
    K: np.ndarray            # heads on the key side only
    both: np.ndarray


@door
def split_scores(weights: Weights, tokens: Tokens, pattern: np.ndarray, layer: int, head: int,
                 norms: np.ndarray | None = None) -> Split:
    """Neither, Q-composition, K-composition and both: the terms of `expand_scores` by kind.

    What a side reads comes in two parts, by the direct paths and by all others; norms : as in
    `expand_scores`. The README's first example has the four parts of an induction head in a
    trained model.
    """
    check_head(weights, layer, head)
    tokens, pattern, norms = frozen(weights, tokens, pattern, norms)
    y = as_read(weights, read_parts(weights, tokens, pattern, layer), norms[layer])
    q, k = y @ weights.W_Q[layer, head].mT, y @ weights.W_K[layer, head].mT       # (part, b, i, e)
    (neither, Q), (K, both) = q @ k.mT[:, None] / sqrt(weights.d_head)     # [part of k][part of q]
    return Split(neither, Q, K, both)


def read_parts(weights, tokens, pattern, layer):
    """What W_Q and W_K of a layer read: by the direct paths, and by all others. (part, b, i, d)"""
    orders = propagate(weights, residual_0(weights, tokens), pattern[:layer])
    if weights.positions == "shortformer":
        orders[0] += weights.W_pos.mT[:tokens.shape[1]]
    return np.array([orders[0], orders[1:].sum(0)])


class Rebuilt(NamedTuple):
    pattern: np.ndarray      # (l, b, h, i, j)
    logits: np.ndarray       # (b, i, v)


@door
def rebuild(weights: Weights, tokens: Tokens) -> Rebuilt:
    """Patterns and logits from weights and tokens alone, by sums over paths.

    Layer by layer, the scores are the sum of their terms: each side is summed over its paths
    by propagation. softmax* of them is the pattern through which the next layer's paths go.
    This is the half of the claim that frozen patterns leave out. Norms σ are rebuilt as well.
    """
    tokens = check_tokens(weights, tokens)
    b, n = tokens.shape
    causal = np.tri(n, dtype=bool)
    pattern = np.empty((weights.n_layers, b, weights.n_heads, n, n), weights.dtype)
    through = np.empty_like(pattern)                 # A, or A_ij / σ_j: what paths go through
    for layer in range(weights.n_layers):
        x = read_parts(weights, tokens, through, layer).sum(0)                        # (b, i, d)
        norm = norm_of(weights, x)
        y = as_read(weights, x, norm)
        for head in range(weights.n_heads):
            scores = y @ W_QK(weights, layer, head) @ y.mT / sqrt(weights.d_head)
            pattern[layer, :, head] = softmax(np.where(causal, scores, -np.inf), axis=-1)
        through[layer] = over_sources(weights, layer, pattern[layer], norm)
    x = propagate(weights, residual_0(weights, tokens), through).sum(0)
    return Rebuilt(pattern, as_read(weights, x, norm_of(weights, x)) @ weights.W_U.mT)
