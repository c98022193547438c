"""One layer of attention heads, forward and backward: x ↦ Σ_h (A^h ⊗ W_O^h W_V^h) x.

Paper: "Attention Heads are Independent and Additive". A head moves information from
every source j to a destination i ≥ j; the heads of a layer read the same x and their
outputs are added.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np


class Heads(NamedTuple):
    """What one layer's heads compute on the way, or (backward) the gradient of each."""
    q: np.ndarray          # (b, h, i, e)
    k: np.ndarray          # (b, h, j, e)
    v: np.ndarray          # (b, h, j, e)
    scores: np.ndarray     # (b, h, i, j)
    pattern: np.ndarray    # (b, h, i, j)
    z: np.ndarray          # (b, h, i, e)


def attention(x, p, W_Q, W_K, W_V, W_O):
    """What a layer adds to the residual stream, and every step on the way.

    x : (b, i, d) residual stream; p : (i, d) positions that only W_Q and W_K read, or 0.
    W_Q, W_K, W_V : (h, e, d); W_O : (h, d, e), the layer's own. Returns (b, i, d), Heads.
    """
    rescale = 1 / sqrt(W_Q.shape[-2])
    y = x + p
    q = y[:, None] @ W_Q.mT                          # 1  q = W_Q y, for every head
    k = y[:, None] @ W_K.mT                          # 2  k = W_K y
    v = x[:, None] @ W_V.mT                          # 3  v = W_V x
    scores = (q * rescale) @ k.mT                    # 4  scores_ij = q_i·k_j / √d_head
    pattern = causal_softmax(scores)                 # 5  A = softmax*(scores)
    z = pattern @ v                                  # 6  z_i = Σ_j A_ij v_j
    out = np.tensordot(z, W_O, ((1, 3), (0, 2)))     # 7  out = Σ_h W_O z: bhie,hde->bid
    return out, Heads(q, k, v, scores, pattern, z)


def attention_backward(dout, x, p, W_Q, W_K, W_V, W_O, heads):
    """From dout (b, i, d): dx, dp, the gradients of the four weights, and `Heads` of gradients.

    dp is (b, i, d): not yet summed over the contexts, which share p.
    """
    rescale = 1 / sqrt(W_Q.shape[-2])
    q, k, v, _, pattern, z = heads
    y = x + p
    # 7  out = Σ_h W_O z
    dz = dout[:, None] @ W_O
    dW_O = np.tensordot(dout, z, ((0, 1), (0, 2))).swapaxes(0, 1)     # bid,bhie->hde
    # 6  z_i = Σ_j A_ij v_j
    dpattern = dz @ v.mT
    dv = pattern.mT @ dz
    # 5  A = softmax*(scores)
    dscores = causal_softmax_backward(dpattern, pattern, z, dz)
    # 4  scores_ij = q_i·k_j / √d_head
    dq = dscores @ (k * rescale)
    dk = dscores.mT @ (q * rescale)
    # 3  v = W_V x,  2  k = W_K y,  1  q = W_Q y
    dW_V = np.tensordot(dv, x, ((0, 2), (0, 1)))                      # bhie,bid->hed
    dW_K = np.tensordot(dk, y, ((0, 2), (0, 1)))
    dW_Q = np.tensordot(dq, y, ((0, 2), (0, 1)))
    dy = np.tensordot(dq, W_Q, ((1, 3), (0, 1))) + np.tensordot(dk, W_K, ((1, 3), (0, 1)))
    dx = np.tensordot(dv, W_V, ((1, 3), (0, 1))) + dy                 # bhie,hed->bid
    return dx, dy, (dW_Q, dW_K, dW_V, dW_O), Heads(dq, dk, dv, dscores, dpattern, dz)


def causal_softmax(scores, band=32):
    """softmax*: A_ij = exp(scores_ij) / Σ_{j'≤i} exp(scores_ij') for j ≤ i, else exactly 0.

    The same as softmax(where(tri, scores, −∞)). Each row is shifted by its largest *allowed*
    score, so no finite score overflows. Rows go a band at a time, each with the columns it
    may see: what the mask hides costs nothing.

    A destination never reads what comes after it: in "Potter can fly", *can* may read
    *Potter*, never the reverse.

    >>> causal_softmax(np.zeros((2, 2)))
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    A = np.zeros_like(scores)
    for start in range(0, scores.shape[-1], band):
        rows, seen = slice(start, start + band), slice(start + band)
        row = scores[..., rows, seen].copy()
        corner = row[..., start:]                            # where j > i is possible
        np.copyto(corner, -np.inf, where=~np.tri(*corner.shape[-2:], dtype=bool))
        row -= row.real.max(-1, keepdims=True)
        np.exp(row, out=row)
        row /= row.sum(-1, keepdims=True)
        A[..., rows, seen] = row
    return A


def causal_softmax_backward(dA, A, z, dz):
    """dscores_ij = A_ij (dA_ij − Σ_j' A_ij' dA_ij'), where the sum is simply z_i·dz_i.

    Holds where z = A v: dA_ij = dz_i·v_j, hence Σ_j A_ij dA_ij = dz_i·Σ_j A_ij v_j. 0 where
    the mask is.
    """
    dscores = dA - (z * dz).sum(-1, keepdims=True)
    dscores *= A
    dscores[..., 0, 0] = 0      # one source, nothing to choose: exactly, not up to rounding
    return dscores
