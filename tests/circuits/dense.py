"""The circuits once more, with nothing factored: dense matrices, ⊗ written out, plain loops.

Each object follows the paper's equation for it and shares no code with `minicircuits`. One
context at a time: here a pattern has axes (l, h, i, j) and tokens are (i,).
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from minicircuits.circuits.low_rank import LowRank
from minicircuits.notation import POSITIONS, Weights
from tests.draws import SEEDS, random_case


class Frozen(NamedTuple):
    weights: Weights
    tokens: np.ndarray       # (b, i)
    pattern: np.ndarray      # (l, b, h, i, j), of no model: not causal, rows sum to anything


@st.composite
def draw_frozen(draw, n_layers=st.sampled_from((2, 1, 3, 0)), positions=st.sampled_from(POSITIONS),
                max_heads=3):
    """Weights, tokens and random patterns; few heads, as paths grow with their powers.

    Most sizes all differ, and d_head lies below and above d_model.
    """
    seed, n_heads = draw(SEEDS), draw(st.integers(1, max_heads))
    others = [size for size in range(1, 8) if size != n_heads]
    if draw(st.sampled_from((True, True, False))):
        values = np.random.default_rng(seed).permutation(others).tolist()
    else:
        values = [draw(st.integers(1, 4)) for _ in others]
    sizes = dict(zip(("d_head", "d_model", "d_vocab", "b", "i"), values))
    weights, tokens = random_case(seed, **sizes, n_heads=n_heads, n_layers=draw(n_layers),
                                  n_ctx=sizes["i"] + draw(st.integers(0, 2)),
                                  positions=draw(positions))
    return Frozen(weights, tokens, random_pattern(weights, tokens, seed))


def random_pattern(weights, tokens, seed=0):
    (b, i), H = tokens.shape, weights.n_heads
    return np.random.default_rng(seed).normal(0.2, 0.7, (weights.n_layers, b, H, i, i))


def total(parts):
    """Σ of the parts, and the scale of its rounding: the largest Σ|part|."""
    parts = list(parts)
    return sum(parts), sum(map(np.abs, parts)).max()


def invertible(rng, *shape):
    """Matrices M (..., n, n) for a shape (..., n), with singular values from 1/2 to 2."""
    U, V = (np.linalg.qr(rng.normal(size=(*shape, shape[-1])))[0] for _ in range(2))
    return U * rng.uniform(0.5, 2, shape)[..., None, :] @ V


def contexts(tokens, pattern):
    """Pairs (number of the context, (its tokens, its patterns))."""
    return enumerate(zip(tokens, np.moveaxis(pattern, 1, 0)))


def one_hot(ids, size):
    """t, (i, u): a 1 where the token is."""
    t = np.zeros((len(ids), size))
    for i, u in enumerate(ids):
        t[i, u] = 1
    return t


def paths(n_layers, n_heads):
    """Every path: for each layer a head or None, without the Nones."""
    return [tuple((layer, head) for layer, head in enumerate(choice) if head is not None)
            for choice in product((None, *range(n_heads)), repeat=n_layers)]


def path_operator(weights, pattern, heads):
    """The product of its heads' A ⊗ W_O W_V, a matrix on x flattened, (i·d, j·d)."""
    operator = np.eye(pattern.shape[-1] * weights.d_model)
    for layer, head in heads:
        W_OV = weights.W_O[layer, head] @ weights.W_V[layer, head]
        operator = np.kron(pattern[layer, head], W_OV) @ operator
    return operator


def model_operator(weights, pattern, n_layers):
    """Π_l (Id + Σ_h A ⊗ W_O W_V) of the first layers, not multiplied out: (i·d, j·d)."""
    operator = np.eye(pattern.shape[-1] * weights.d_model)
    for layer in range(n_layers):
        operator = operator + sum(path_operator(weights, pattern, [(layer, head)])
                                  for head in range(weights.n_heads)) @ operator
    return operator


def sources(weights, tokens):
    """What a path starts from: name -> its part of x flattened, (Id ⊗ W_E) t and the like."""
    n = len(tokens)
    x = {"token": np.kron(np.eye(n), weights.W_E) @ one_hot(tokens, weights.d_vocab).ravel()}
    if weights.W_pos is not None:
        p = one_hot(range(n), weights.n_ctx)
        x["position"] = np.kron(np.eye(n), weights.W_pos) @ p.ravel()
    return x


def entering(weights, tokens):
    """x_0 flattened: tokens, and positions in "standard" mode."""
    x = sources(weights, tokens)
    return x["token"] + x["position"] if weights.positions == "standard" else x["token"]


def route_product(pattern, heads, i, j):
    """A_ij of a path: over every route i ← k ← … ← j the product of its attention, added."""
    if not heads:
        return float(i == j)
    *earlier, (layer, head) = heads
    return sum(pattern[layer, head, i, k] * route_product(pattern, earlier, k, j)
               for k in range(pattern.shape[-1]))


def looped_stream(weights, tokens, pattern, n_layers):
    """x entering layer `n_layers`, one number at a time: a list (i) of lists (d)."""
    n, D = len(tokens), weights.d_model
    x = [[weights.W_E[d, tokens[i]] for d in range(D)] for i in range(n)]
    if weights.positions == "standard":
        x = [[x[i][d] + weights.W_pos[d, i] for d in range(D)] for i in range(n)]
    for layer in range(n_layers):
        after = [list(row) for row in x]
        for head in range(weights.n_heads):
            A, W_V, W_O = pattern[layer, head], weights.W_V[layer, head], weights.W_O[layer, head]
            v = [[sum(W_V[e, d] * x[j][d] for d in range(D)) for e in range(len(W_V))]
                 for j in range(n)]
            for i in range(n):
                z = [sum(A[i, j] * v[j][e] for j in range(n)) for e in range(len(W_V))]
                for d in range(D):
                    after[i][d] += sum(W_O[d, e] * z[e] for e in range(len(z)))
        x = after
    return x


def looped_logits(weights, tokens, pattern):
    """W_U x, (i, v)."""
    return np.array([[sum(W * number for W, number in zip(row, x)) for row in weights.W_U]
                     for x in looped_stream(weights, tokens, pattern, weights.n_layers)])


def looped_scores(weights, tokens, pattern, layer, head):
    """Σ_dd' x_id (W_Qᵀ W_K)_dd' x_jd' / √d_head, (i, j), through the given patterns."""
    y = looped_stream(weights, tokens, pattern, layer)
    if weights.positions == "shortformer":
        y = [[number + weights.W_pos[d, i] for d, number in enumerate(y[i])]
             for i in range(len(y))]
    W_Q, W_K, E = weights.W_Q[layer, head], weights.W_K[layer, head], weights.d_head
    q, k = ([[sum(W[e, d] * x[d] for d in range(len(x))) for e in range(E)] for x in y]
            for W in (W_Q, W_K))
    return np.array([[sum(q[i][e] * k[j][e] for e in range(E)) / E ** 0.5 for j in range(len(y))]
                     for i in range(len(y))])


def whole_numbers(rng, m, n, rank, dtype=np.float64):
    return LowRank(rng.integers(-2, 3, (m, rank)).astype(dtype),
                   rng.integers(-2, 3, (rank, n)).astype(dtype))


def dense_circuits(weights, layer, head):
    """W_Eᵀ W_Qᵀ W_K W_E [destination, source] and W_U W_O W_V W_E [out, source], dense."""
    W_Q, W_K, W_V, W_O = (getattr(weights, name)[layer, head]
                          for name in ("W_Q", "W_K", "W_V", "W_O"))
    W_E, V = weights.W_E, weights.d_vocab
    q, k, v = W_Q @ W_E, W_K @ W_E, W_V @ W_E
    QK = [[sum(q[e, d] * k[e, u] for e in range(len(q))) for u in range(V)] for d in range(V)]
    return np.array(QK), np.dot(np.dot(weights.W_U, W_O), v)
