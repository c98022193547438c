"""The circuits in plain loops: what the paper finds in the weights, as dense matrices.

As in `model`: loops over Python numbers, and known bugs that are edits of this text. W is
{name: array}; M, N are any matrices. Only transposes (M.T) and eigenvalues are NumPy's.

Paper: "Splitting Attention Head terms into Query-Key and Output-Value Circuits", "Path
Expansion of Logits", "Detecting Copying Behavior", "Three Kinds of Composition".
"""

import math

import numpy as np

from minicircuits.plain.model import embed, loops, total, unembed, zeros


def times(M, N):
    """The matrix product M N."""
    (rows, inner), (_, columns) = M.shape, N.shape
    product = zeros(rows, columns)
    for r, c in loops(rows, columns):
        product[r, c] = total(M[r, n] * N[n, c] for n in range(inner))
    return product


def norm(M):
    """The Frobenius norm: √ of the sum of all squares."""
    return math.sqrt(total(number * number for number in M.ravel()))


# W_QK = W_Qᵀ W_K [destination, source], unscaled; W_OV = W_O W_V, out ← source.
def W_QK(W, layer, head):
    return times(W["W_Q"][layer, head].T, W["W_K"][layer, head])


def W_OV(W, layer, head):
    return times(W["W_O"][layer, head], W["W_V"][layer, head])


# W_Eᵀ W_QK W_E [destination, source] and W_U W_OV W_E [out, source].
def qk_circuit(W, layer, head):
    return times(W["W_E"].T, times(W_QK(W, layer, head), W["W_E"]))


def ov_circuit(W, layer, head):
    return times(W["W_U"], times(W_OV(W, layer, head), W["W_E"]))


# Σλ / Σ|λ| over the eigenvalues of W_U W_OV W_E.
def copying_score(W, layer, head):
    values = np.linalg.eigvals(ov_circuit(W, layer, head).astype(float))
    if not any(abs(value) > 1e-12 for value in values):
        return 0.0
    return total(value.real for value in values) / total(abs(value) for value in values)


# ‖M W_OV‖ / (‖M‖ ‖W_OV‖): M is W_QKᵀ for Q, W_QK for K, W_OV for V, of the later head.
def composition(W, kind, later, earlier):
    OV, QK = W_OV(W, *earlier), W_QK(W, *later)
    M = {"Q": QK.T, "K": QK, "V": W_OV(W, *later)}[kind]
    both = norm(M) * norm(OV)
    return norm(times(M, OV)) / both if both else 0.0       # 0 where a head is 0


# The logits of all paths through n heads, summed, for each order n. Patterns are taken as given.
def logits_by_order(W, pattern, tokens, positions):
    L, B, H, T, T = pattern.shape
    orders = zeros(L + 1, B, T, len(W["W_E"]))
    orders[0] = embed(W["W_E"], W.get("W_pos"), tokens, positions)
    for layer in range(L):
        before = orders.copy()
        for head in range(H):
            A, OV = pattern[layer, :, head], W_OV(W, layer, head)
            for order, b in loops(L, B):
                orders[order + 1, b] += times(times(A[b], before[order, b]), OV.T)
    logits = np.stack([unembed(W["W_U"], x) for x in orders])
    return logits


def tensors(weights, tokens, pattern):
    """{name: array} of all the above for the oracle, stacked by (layer, head), in float64."""
    W = {name: array.astype(object) for name, array in weights.items()}
    (L, H, _, D), V = W["W_Q"].shape, len(W["W_U"])
    pattern, tokens, heads = pattern.astype(object), np.asarray(tokens), [*loops(L, H)]
    found = {"direct_path": times(W["W_U"], W["W_E"]),
             "logits_by_order": logits_by_order(W, pattern, tokens, weights.positions)}
    for function, shape in ((W_QK, (D, D)), (W_OV, (D, D)), (qk_circuit, (V, V)),
                            (ov_circuit, (V, V)), (copying_score, ())):
        of_heads = [function(W, *head) for head in heads]
        found[function.__name__] = np.reshape(of_heads, (L, H, *shape))
    for kind in "QKV":
        scores = [composition(W, kind, later, earlier) if earlier[0] < later[0] else 0.0
                  for later in heads for earlier in heads]
        found[f"composition_{kind}"] = np.reshape(scores, (L, H, L, H))
    return {name: array.astype(float) for name, array in found.items()}
