"""The circuits once more, in plain loops over numbers, written from the paper's equations.

Beside `plain`, and for the same use. Dense matrices throughout; eigenvalues are NumPy's.

Paper: "Splitting Attention Head terms into Query-Key and Output-Value Circuits", "Path
Expansion of Logits", "Detecting Copying Behavior", "Three Kinds of Composition".
"""

import math

import numpy as np

from minicircuits.plain.model import embed, loops, total, zeros


def times(A, B):
    """The matrix product A B."""
    (I, K), (K, J) = A.shape, B.shape
    C = zeros(I, J)
    for i, j in loops(I, J):
        C[i, j] = total(A[i, k] * B[k, j] for k in range(K))
    return C


def transposed(A):
    I, J = A.shape
    B = zeros(J, I)
    for i, j in loops(I, J):
        B[j, i] = A[i, j]
    return B


def norm(A):
    """The Frobenius norm √Σ A_ij²."""
    return math.sqrt(total(number * number for number in A.ravel()))


def ratio(above, below):
    """0 where there is nothing to compare with: 0/0 is 0."""
    return above / below if below else 0.0


# W_QK = W_Qᵀ W_K [destination, source], unscaled; W_OV = W_O W_V, out ← source.
def W_QK(W, layer, head):
    return times(transposed(W["W_Q"][layer, head]), W["W_K"][layer, head])


def W_OV(W, layer, head):
    return times(W["W_O"][layer, head], W["W_V"][layer, head])


# W_Eᵀ W_QK W_E [destination, source] and W_U W_OV W_E [out, source]; W_U W_E without heads.
def qk_circuit(W, layer, head):
    return times(transposed(W["W_E"]), times(W_QK(W, layer, head), W["W_E"]))


def ov_circuit(W, layer, head):
    return times(W["W_U"], times(W_OV(W, layer, head), W["W_E"]))


def direct_path(W):
    return times(W["W_U"], W["W_E"])


# Σλ / Σ|λ| over the eigenvalues of W_U W_OV W_E.
def copying_score(W, layer, head):
    values = np.linalg.eigvals(ov_circuit(W, layer, head).astype(float))
    if not any(abs(value) > 1e-12 for value in values):
        return 0.0
    return total(value.real for value in values) / total(abs(value) for value in values)


# ‖M W_OV‖ / ‖M‖ / ‖W_OV‖: M is W_QKᵀ for Q, W_QK for K, W_OV for V, of the later head.
def composition(W, kind, later, earlier):
    OV = W_OV(W, *earlier)
    M = {"Q": lambda: transposed(W_QK(W, *later)), "K": lambda: W_QK(W, *later),
         "V": lambda: W_OV(W, *later)}[kind]()
    return ratio(norm(times(M, OV)), norm(M) * norm(OV))


# The sum of the logits of all paths through n heads, for each n: patterns frozen.
def logits_by_order(W, pattern, tokens, positions):
    L, B, H, T, T = pattern.shape
    V, D = W["W_U"].shape
    orders = zeros(L + 1, B, T, D)
    orders[0] = embed(W["W_E"], W.get("W_pos"), tokens, positions)
    for layer in range(L):
        before = orders.copy()
        for head in range(H):
            A, OV = pattern[layer, :, head], W_OV(W, layer, head)
            for order, b in loops(L, B):
                moved = times(times(A[b], before[order, b]), transposed(OV))
                orders[order + 1, b] = orders[order + 1, b] + moved
    logits = zeros(L + 1, B, T, V)
    for order, b in loops(L + 1, B):
        logits[order, b] = times(orders[order, b], transposed(W["W_U"]))
    return logits


def tensors(weights, tokens, pattern):
    """Everything above under its name, as a dict: stacked by (layer, head), in float64."""
    W = {name: array.astype(object) for name, array in weights.items()}
    (L, H, _, D), V = W["W_Q"].shape, len(W["W_U"])
    shapes = {W_QK: (D, D), W_OV: (D, D), qk_circuit: (V, V), ov_circuit: (V, V),
              copying_score: ()}
    found = {}
    for function, shape in shapes.items():
        stack = zeros(L, H, *shape)
        for layer, head in loops(L, H):
            stack[layer, head] = function(W, layer, head)
        found[function.__name__] = stack
    for kind in "QKV":
        stack = zeros(L, H, L, H)
        for layer, head, below, other in loops(L, H, L, H):
            if below < layer:
                stack[layer, head, below, other] = composition(W, kind, (layer, head),
                                                               (below, other))
        found[f"composition_{kind}"] = stack
    found["direct_path"] = direct_path(W)
    found["logits_by_order"] = logits_by_order(W, pattern.astype(object), np.asarray(tokens),
                                               weights.positions)
    return {name: array.astype(float) for name, array in found.items()}
