"""The logits as an exact sum over paths, given the attention patterns.

Multiply out the model's product form

    logits = (Id ⊗ W_U) Π_l (Id + Σ_h A^{l,h} ⊗ W_OV^{l,h}) (Id ⊗ W_E) t

(later layers to the left) and each term is a path: from the tokens through one head, or none,
in every layer. By the mixed product its heads compose on each side of ⊗ alone:
(A^h A^g) ⊗ (W_U W_OV^h W_OV^g W_E). Exact for frozen patterns, whatever they are, so it
cannot see a wrong mask; that the patterns follow from the weights too is `rebuild`, in
`score_expansion`.

Paper: "Path Expansion of Logits", "Virtual Attention Heads", "Two-Layer Attention-Only
Transformers". In "shortformer" mode positions act through the patterns only; in "standard"
mode every path has a token part and a position part.
"""

from dataclasses import dataclass, field
from functools import reduce
from itertools import combinations, product as choices
from math import comb
from typing import NamedTuple

import numpy as np

from minicircuits.circuits.heads import W_OV
from minicircuits.circuits.low_rank import product
from minicircuits.notation import (InputError, Weights, check_axes, check_pattern,
                                   check_tokens)


@dataclass(frozen=True, eq=False)
class Path:
    """One path through the model, (A ⊗ W) t: a sequence of heads, or none (the direct path).

    heads : ((layer, head), …) from the first to the last, h_1 … h_n.

    >>> import minicircuits as mc
    >>> rng = np.random.default_rng(0)
    >>> weights = mc.init_weights(2, 2, 6, 3, 5, 4, "none", rng)
    >>> tokens = rng.integers(5, size=(1, 4))
    >>> acts = mc.forward(weights, tokens)
    >>> path = mc.expand_logits(weights, tokens, acts.pattern)[-1]
    >>> path.label, path.order
    ('0.1→1.1', 2)
    >>> t = np.eye(5)[tokens[0]]
    >>> logits = np.kron(path.A[0], path.W.AB) @ t.ravel()     # A ⊗ W, on t flattened
    >>> mc.relative_error(logits.reshape(4, 5), path.logits[0]) < 1e-12
    True
    """

    heads: tuple
    weights: Weights = field(repr=False)
    tokens: np.ndarray = field(repr=False)     # (b, i)
    pattern: np.ndarray = field(repr=False)    # (l, b, h, i, j), frozen

    @property
    def order(self):
        """How many heads: 0 is the direct path, from 2 on a virtual head."""
        return len(self.heads)

    @property
    def label(self):
        return label(self.heads)

    @property
    def A(self):
        """A^{h_n} … A^{h_1} (b, i, j): how much destination i gets from source j."""
        return pattern_product(self.heads, self.pattern)

    @property
    def W(self):
        """W_U W_OV^{h_n} … W_OV^{h_1} W_E (v, u): what it does with a token."""
        return through(self.weights.W_U, self.heads, self.weights, self.weights.W_E)

    @property
    def W_of_positions(self):
        """The same with W_pos for W_E (v, p), in "standard" mode; else None."""
        if self.weights.positions != "standard":
            return None
        return through(self.weights.W_U, self.heads, self.weights, self.weights.W_pos)

    @property
    def logits(self):
        """A t Wᵀ (and the positions' part): this path's share of the logits, (b, i, v)."""
        read, W_p = self.W.columns(self.tokens), self.W_of_positions
        if W_p is not None:
            read = read + W_p.columns(np.arange(self.tokens.shape[1]))
        return self.A @ read


def label(heads):
    """0.3→1.2 for heads ((0, 3), (1, 2)), layers and heads counted from 0; or direct."""
    return "→".join(f"{layer}.{head}" for layer, head in heads) or "direct"


def pattern_product(heads, pattern):
    """A^{h_n} … A^{h_1} (b, i, j), and the identity for no heads."""
    identity = np.broadcast_to(np.eye(pattern.shape[-1], dtype=pattern.dtype),
                               (pattern.shape[1], *pattern.shape[-2:]))
    return reduce(lambda A, head: pattern[head[0], :, head[1]] @ A, heads, identity)


def through(left, heads, weights, right):
    """left · W_OV^{h_n} … W_OV^{h_1} · right, as one LowRank."""
    return product(left, *(W_OV(weights, *head) for head in reversed(heads)), right)


def head_sequences(n_layers, n_heads):
    """Every sequence of heads in rising layers, by order: (1 + n_heads)^n_layers of them."""
    return [tuple(zip(layers, heads))
            for order in range(n_layers + 1)
            for layers in combinations(range(n_layers), order)
            for heads in choices(range(n_heads), repeat=order)]


def count_paths(weights):
    """Paths by order, C(L, order)·H^order: what `expand_logits` has without running it."""
    return [comb(weights.n_layers, order) * weights.n_heads ** order
            for order in range(weights.n_layers + 1)]


def expand_logits(weights, tokens, pattern):
    """Every path, as a list of `Path` by order; their logits sum to the model's.

    tokens : (b, i); pattern : (l, b, h, i, j), the frozen patterns, `forward`'s or others.
    Paths compute nothing until asked, but there are (1 + n_heads)^n_layers: where only the
    sum, or the sum by order, is wanted, `logits_by_order` needs no list.

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "standard", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> paths = expand_logits(weights, [[3, 0, 5]], acts.pattern)
    >>> len(paths), mc.relative_error(sum(path.logits for path in paths), acts.logits) < 1e-12
    (16, True)
    """
    tokens = check_tokens(weights, tokens)
    pattern = check_pattern(weights, tokens, pattern)
    return [Path(heads, weights, tokens, pattern)
            for heads in head_sequences(weights.n_layers, weights.n_heads)]


def propagate(weights, x, pattern):
    """What enters layer 0, x (b, i, d), through frozen heads, split by path order.

    pattern : (l, b, h, i, j), of the first l layers. Returns (order, b, i, d), order 0 … l.
    Each layer takes what came through n heads and adds it, through one head more, to what
    came through n + 1: the sum of (1 + H)^l paths for l·H products. Everything with frozen
    patterns is this one linear map.
    """
    orders = np.zeros((len(pattern) + 1, *x.shape), np.result_type(x, pattern))
    orders[0] = x
    for layer, A in enumerate(pattern):
        read = orders[:layer + 1]
        orders[1:layer + 2] += sum(A[:, head] @ read @ W_OV(weights, layer, head).mT
                                   for head in range(weights.n_heads))
    return orders


def embedded(weights, tokens):
    """What enters layer 0: W_E t, plus W_pos p in "standard" mode. (b, i, d)"""
    x = weights.W_E.mT[tokens]
    if weights.positions == "standard":
        x = x + weights.W_pos.mT[:tokens.shape[1]]
    return x


def logits_by_order(weights, tokens, pattern):
    """Σ of the logits of all paths of each order, by propagation: (order, b, i, v).

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(3, 3, 8, 4, 6, 5, "none", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> logits = logits_by_order(weights, [[3, 0, 5]], acts.pattern)
    >>> len(logits), mc.relative_error(logits.sum(0), acts.logits) < 1e-12
    (4, True)
    """
    tokens = check_tokens(weights, tokens)
    pattern = check_pattern(weights, tokens, pattern)
    return propagate(weights, embedded(weights, tokens), pattern) @ weights.W_U.mT


class Ledger(NamedTuple):
    """One logit as a sum over paths (rows) and the positions they read (columns).

    In "standard" mode an entry has what the token and what its position contributes.
    """
    paths: list                  # `Path.heads` of each
    contributions: np.ndarray    # (path, j); Σ is the logit

    def strongest(self, k):
        """The k entries of largest |contribution|: (path, source position, contribution)."""
        flat = np.argsort(-np.abs(self.contributions), axis=None, kind="stable")[:k]
        return [(self.paths[row], int(j), float(self.contributions[row, j]))
                for row, j in zip(*np.unravel_index(flat, self.contributions.shape))]


def ledger(weights, tokens, pattern, destination, target):
    """The logit of token `target` at position `destination` of one context, path by path.

    tokens : (1, i); pattern : (l, 1, h, i, j). From the end: a row r = W_U[target] of the
    residual space and a row a = one-hot(destination) of positions go back through the
    layers, r W_OV and a A for every head; what is left is Σ_paths Σ_j a_j (r · x_j).

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "none", np.random.default_rng(0))
    >>> acts = mc.forward(weights, [[3, 0, 5]])
    >>> entries = ledger(weights, [[3, 0, 5]], acts.pattern, destination=2, target=1)
    >>> bool(np.isclose(entries.contributions.sum(), acts.logits[0, 2, 1]))
    True
    """
    tokens = check_tokens(weights, tokens)
    pattern = check_pattern(weights, tokens, pattern)
    check_axes("tokens", tokens, ("b", "i"), {"b": 1})
    n = tokens.shape[1]
    if not (0 <= destination < n and 0 <= target < weights.d_vocab):
        raise InputError(f"a ledger needs destination < {n} and target < {weights.d_vocab}; "
                         f"got {destination} and {target}")
    heads, r = [()], weights.W_U[target][None]
    a = np.eye(n, dtype=pattern.dtype)[destination][None]
    for layer in reversed(range(weights.n_layers)):
        later_heads, later_r, later_a = heads, r, a
        for head in range(weights.n_heads):
            OV = W_OV(weights, layer, head)
            heads = heads + [((layer, head), *later) for later in later_heads]
            r = np.concatenate([r, later_r @ OV.A @ OV.B])
            a = np.concatenate([a, later_a @ pattern[layer, 0, head]])
    contributions = a * (r @ embedded(weights, tokens)[0].mT)
    by_order = sorted(range(len(heads)), key=lambda path: (
        len(heads[path]), [layer for layer, _ in heads[path]], heads[path]))
    return Ledger([heads[path] for path in by_order], contributions[by_order])
