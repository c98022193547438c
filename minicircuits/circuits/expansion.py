"""The logits as an exact sum over paths, given the attention patterns.

Multiply out the model's product form

    logits = (Id ⊗ W_U) Π_l (Id + Σ_h A^{l,h} ⊗ W_OV^{l,h}) (Id ⊗ W_E) t

(later layers to the left) and each term is a path: from the tokens through one head, or none,
in every layer. By the mixed product its heads compose on each side of ⊗ alone:
(A^h A^g) ⊗ (W_U W_OV^h W_OV^g W_E). The sum is exact for frozen patterns, whatever they are,
so it cannot see a wrong mask. That the patterns follow from the weights too is shown by
`rebuild`, in `score_expansion`. Of `NormalizedWeights` the norms σ are frozen too, and stand in
the patterns: A_ij / σ_j. See `normalization`.

Paper: "Path Expansion of Logits", "Virtual Attention Heads", "Two-Layer Attention-Only
Transformers". In "shortformer" mode positions act through the patterns only; in "standard"
mode every path has a token part and a position part.
"""

from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import combinations, product as choices
from math import comb
from typing import NamedTuple

import numpy as np

from minicircuits.circuits.heads import W_OV
from minicircuits.circuits.low_rank import product
from minicircuits.circuits.normalization import as_read, frozen
from minicircuits.door import door
from minicircuits.notation import InputError, Tokens, Weights, check_axes


@dataclass(frozen=True, eq=False)
class Path:
    """(A ⊗ W) t: from a source through a sequence of heads h_1 … h_n, or none, to a reader.

    source : "token"; "position"; or "embedding", the sum of both, as it enters layer 0
        in "standard" mode.
    heads : ((layer, head), …) from the first to the last; none is the direct path.
    reader : W_U, or W_Q or W_K of a head whose scores are taken apart.
    norm : σ (b, i), by which a reader of `NormalizedWeights` divides. It is in what arrives, not
        in W; the σ of heads on the way are in A.
    """

    source: str
    heads: tuple
    reader: np.ndarray = field(repr=False)
    weights: Weights = field(repr=False)
    tokens: np.ndarray = field(repr=False)     # (b, i)
    pattern: np.ndarray = field(repr=False)    # (l, b, h, i, j), frozen
    norm: np.ndarray | None = field(repr=False)

    @property
    def order(self):
        """How many heads: 0 is the direct path, from 2 on a virtual head."""
        return len(self.heads)

    @property
    def label(self):
        """0.3→1.2 for heads ((0, 3), (1, 2)), counted from 0; or direct."""
        return label(self.heads)

    @property
    def A(self):
        """A^{h_n} … A^{h_1} (b, i, j): how much destination i gets from source j."""
        b, T = self.tokens.shape
        identity = np.broadcast_to(np.eye(T, dtype=self.pattern.dtype), (b, T, T))
        return reduce(lambda A, head: self.pattern[head[0], :, head[1]] @ A, self.heads, identity)

    def W_from(self, embedding):
        """reader W_OV^{h_n} … W_OV^{h_1} embedding, as one LowRank."""
        return product(self.reader, *(W_OV(self.weights, *head) for head in reversed(self.heads)),
                       embedding)

    @property
    def W(self):
        """W_U W_OV^{h_n} … W_OV^{h_1} W_E (v, u): what it does with a token.

        Another reader stands in the place of W_U, and W_pos in that of W_E for a "position".
        """
        return self.W_from(self.weights.W_pos if self.source == "position" else self.weights.W_E)

    @property
    def W_of_positions(self):
        """From an "embedding", what it does with a position (v, p); else None."""
        return self.W_from(self.weights.W_pos) if self.source == "embedding" else None

    def arriving(self):
        """A x Wᵀ, where x (b, i, d) is the source, as it stands in the residual stream.

        W x is made of the columns that are there, not of all tokens that could be. A reader may
        divide by σ_i. What it does not divide no head writes; the direct path has both.
        """
        x = source_vectors(self.weights, self.tokens, self.source)
        if not self.heads:
            return as_read(self.weights, x, self.norm) @ self.reader.mT
        W = self.W_from(x.reshape(-1, x.shape[-1]).mT)                          # (v, b·i)
        read = W.B.mT.reshape(*x.shape[:2], -1)
        read = self.A @ read @ W.A.mT
        return read if self.norm is None else read / self.norm[..., None]

    @property
    def logits(self):
        """What arrives at W_U: its share of the logits, (b, i, v)."""
        return self.arriving()

    @cached_property
    def q_or_k(self):
        """What arrives at W_Q or W_K: (b, i, e). Kept, since many terms of a score share it."""
        return self.arriving()


def label(heads):
    """The `Path.label` of a path through `heads`."""
    return "→".join(f"{layer}.{head}" for layer, head in heads) or "direct"


def head_sequences(n_layers, n_heads, longest=None):
    """Every sequence of heads in rising layers, by order: (1 + n_heads)^n_layers of them.

    longest : of how many heads at most, which leaves out the others.
    """
    return [tuple(zip(layers, heads))
            for order in range(min(n_layers, n_layers if longest is None else longest) + 1)
            for layers in combinations(range(n_layers), order)
            for heads in choices(range(n_heads), repeat=order)]


@door
def count_paths(weights: Weights) -> list[int]:
    """Paths by order, C(L, order)·H^order: what `expand_logits` has without running it."""
    return [comb(weights.n_layers, order) * weights.n_heads ** order
            for order in range(weights.n_layers + 1)]


@door
def expand_logits(weights: Weights, tokens: Tokens, pattern: np.ndarray,
                  norms: np.ndarray | None = None, longest: int | None = None) -> list[Path]:
    """Every path, as a list of `Path` by order; their logits sum to the model's.

    tokens : (b, i); pattern : (l, b, h, i, j), the frozen patterns, `forward`'s or others.
    norms : of `NormalizedWeights` alone, the frozen σ (l+1, b, i): acts.norms of `forward`.
    Paths compute nothing until asked, but there are (1 + n_heads)^n_layers; `logits_by_order`
    needs no list. longest : of how many heads at most, and then what is left out is not summed.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "standard", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> paths = expand_logits(weights, [[3, 0, 5]], acts.pattern)
    >>> len(paths), paths[-1].label, paths[-1].order, paths[-1].W
    (16, '0.2→1.2', 2, LowRank(6, 6) through 4)
    >>> print(f"{sum(path.logits for path in paths)[0, 2, 1]:.6f} = {acts.logits[0, 2, 1]:.6f}")
    -1.075470 = -1.075470
    """
    tokens, pattern, norms = frozen(weights, tokens, pattern, norms)
    source = "embedding" if weights.positions == "standard" else "token"
    return [Path(source, heads, weights.W_U, weights, tokens, pattern, norms[-1])
            for heads in head_sequences(weights.n_layers, weights.n_heads, longest)]


def residual_0(weights, tokens):
    """What enters layer 0: W_E t, plus W_pos p in "standard" mode. (b, i, d)"""
    return source_vectors(weights, tokens,
                          "embedding" if weights.positions == "standard" else "token")


def source_vectors(weights, tokens, source):
    """What a source is in the residual stream: W_E t, W_pos p, or their sum. (b, i, d)"""
    if source == "token":
        return weights.W_E.mT[tokens]
    p = weights.W_pos.mT[:tokens.shape[1]]
    if source == "position":
        return np.broadcast_to(p, (len(tokens), *p.shape))
    return weights.W_E.mT[tokens] + p


def propagate(weights, x, pattern):
    """What enters layer 0, x (b, i, d), through frozen heads, split by path order.

    pattern : (l, b, h, i, j), of the first l layers. Returns (order, b, i, d), order 0 … l.
    Each layer takes what came through n heads and adds it, through one head more, to what
    came through n + 1: the sum of (1 + H)^l paths for l·H products.
    """
    orders = np.zeros((len(pattern) + 1, *x.shape), np.result_type(x, pattern))
    orders[0] = x
    for layer, A in enumerate(pattern):
        read = orders[:layer + 1]
        orders[1:layer + 2] += sum(A[:, head] @ read @ W_OV(weights, layer, head).mT
                                   for head in range(weights.n_heads))
    return orders


@door
def logits_by_order(weights: Weights, tokens: Tokens, pattern: np.ndarray,
                    norms: np.ndarray | None = None) -> np.ndarray:
    """Σ of the logits of all paths of each order, by propagation: (order, b, i, v)."""
    return np.array([*each_order(weights, tokens, pattern, norms)])


def each_order(weights, tokens, pattern, norms):
    """Yields the logits of `logits_by_order`, one order at a time."""
    tokens, pattern, norms = frozen(weights, tokens, pattern, norms)
    for x in propagate(weights, residual_0(weights, tokens), pattern):
        yield as_read(weights, x, norms[-1]) @ weights.W_U.mT


class Ledger(NamedTuple):
    """One logit as a sum over paths (rows) and the positions they read (columns)."""
    paths: list                  # `Path.heads` of each
    contributions: np.ndarray    # (path, j); Σ is the logit

    def strongest(self, k):
        """The k entries of largest |contribution|: (path, source position, contribution)."""
        flat = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:k]
        return [(self.paths[row], int(j), float(self.contributions[row, j]))
                for row, j in zip(*np.unravel_index(flat, self.contributions.shape))]


@door
def ledger(weights: Weights, tokens: Tokens, pattern: np.ndarray, destination: int,
           target: int, norms: np.ndarray | None = None) -> Ledger:
    """The logit of token `target` at position `destination` of one context, path by path.

    tokens : (1, i); pattern : (l, 1, h, i, j); norms : (l+1, 1, i), as in `expand_logits`. The
    direct path has a row a = one-hot(destination) and a row r = W_U[target], which is divided by
    σ as x is. One head more at the beginning of a path turns a into a A, and r into r W_OV. From
    position j a path adds a_j (r · x_j) to the logit; x_j is what enters layer 0.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "none", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> entries = ledger(weights, [[3, 0, 5]], acts.pattern, destination=2, target=1)
    >>> [(label(heads), j, round(share, 3)) for heads, j, share in entries.strongest(2)]
    [('direct', 2, 0.028), ('1.1', 2, -0.008)]
    """
    tokens, pattern, norms = frozen(weights, tokens, pattern, norms)
    check_axes("tokens", tokens, ("b", "i"), {"b": 1})
    n = tokens.shape[1]
    if not (0 <= destination < n and 0 <= target < weights.d_vocab):
        raise InputError(f"a ledger needs destination < {n} and target < {weights.d_vocab}; "
                         f"got {destination} and {target}")
    one_hot = np.eye(n, dtype=pattern.dtype)[destination]
    norm = None if norms[-1] is None else norms[-1][0, destination]
    rows = {(): (as_read(weights, weights.W_U[target], norm), one_hot)}
    for heads in head_sequences(weights.n_layers, weights.n_heads)[1:]:
        (layer, head), later = heads[0], heads[1:]           # `later` is shorter: its row is there
        r, a = rows[later]
        rows[heads] = r @ W_OV(weights, layer, head), a @ pattern[layer, 0, head]
    r, a = map(np.array, zip(*rows.values()))
    return Ledger(list(rows), a * (r @ residual_0(weights, tokens)[0].mT))
