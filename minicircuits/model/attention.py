"""One layer of attention heads, forward and backward: x ↦ Σ_h (A^h ⊗ W_O^h W_V^h) x.

Paper: "Attention Heads are Independent and Additive". A head moves information from
every source j to a destination i ≥ j; the heads of a layer read the same x and their
outputs are added.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

BAND = 64           # rows of a causal product that are done at once


class Heads(NamedTuple):
    """What one layer's heads compute on the way, or (backward) the gradient of each."""
    q: np.ndarray          # (b, h, i, e)
    k: np.ndarray          # (b, h, j, e)
    v: np.ndarray          # (b, h, j, e)
    scores: np.ndarray     # (b, h, i, j)
    pattern: np.ndarray    # (b, h, i, j)
    z: np.ndarray          # (b, h, i, e)


def attention(x, p, W_Q, W_K, W_V, W_O, lean=False):
    """What a layer adds to the residual stream, and every step on the way.

    x : (b, i, d) residual stream; p : (i, d) positions that only W_Q and W_K read, or 0.
    W_Q, W_K, W_V : (h, e, d); W_O : (h, d, e), the layer's own. lean : scores, whose memory
    the pattern takes, are None in what is returned. Returns (b, i, d), Heads.
    """
    rescale = 1 / sqrt(W_Q.shape[-2])
    y = x + p
    q = into_heads(y, W_Q)                           # 1  q = W_Q y, for every head
    k = into_heads(y, W_K)                           # 2  k = W_K y
    v = into_heads(x, W_V)                           # 3  v = W_V x
    scores = (q * rescale) @ k.mT                    # 4  scores_ij = q_i·k_j / √d_head
    pattern = causal_softmax(scores, lean)           # 5  A = softmax*(scores)
    z = causal_product(pattern, v)                   # 6  z_i = Σ_j A_ij v_j
    out = out_of_heads(z, W_O.mT)                    # 7  out = Σ_h W_O z
    return out, Heads(q, k, v, None if lean else scores, pattern, z)


def attention_backward(dout, x, p, W_Q, W_K, W_V, W_O, heads, lean=False):
    """From dout (b, i, d): dx, dp, the gradients of the four weights, and `Heads` of gradients.

    dp is (b, i, d): not yet summed over the contexts, which share p. lean : dpattern, whose
    memory dscores take, is None in what is returned.
    """
    rescale = 1 / sqrt(W_Q.shape[-2])
    q, k, v, _, pattern, z = heads
    y = x + p
    # 7  out = Σ_h W_O z
    dz = into_heads(dout, W_O.mT)
    dW_O = summed_outer(z, dout).mT
    # 6  z_i = Σ_j A_ij v_j
    dpattern = dz @ v.mT
    dv = causal_product_transposed(pattern, dz)
    # 5  A = softmax*(scores)
    dscores = causal_softmax_backward(dpattern, pattern, z, dz, lean)
    # 4  scores_ij = q_i·k_j / √d_head
    dq = causal_product(dscores, k * rescale)
    dk = causal_product_transposed(dscores, q * rescale)
    # 3  v = W_V x,  2  k = W_K y,  1  q = W_Q y
    dW_V, dW_K, dW_Q = summed_outer(dv, x), summed_outer(dk, y), summed_outer(dq, y)
    dy = out_of_heads(dq, W_Q) + out_of_heads(dk, W_K)
    dx = out_of_heads(dv, W_V) + dy
    return dx, dy, (dW_Q, dW_K, dW_V, dW_O), Heads(
        dq, dk, dv, dscores, None if lean else dpattern, dz)


def into_heads(x, W):
    """W x for every head: bid,hed->bhie. In memory (b, i, h, e): one product for all heads."""
    b, i, d = x.shape
    h, e, _ = W.shape
    return (x.reshape(b * i, d) @ W.reshape(h * e, d).T).reshape(b, i, h, e).swapaxes(1, 2)


def out_of_heads(z, W):
    """Σ_h Wᵀ z: bhie,hed->bid."""
    b, h, i, e = z.shape
    return (z.swapaxes(1, 2).reshape(b * i, h * e) @ W.reshape(h * e, -1)).reshape(b, i, -1)


def summed_outer(z, x):
    """Σ_{b,i} z xᵀ for every head, the gradient of a W that made z = W x: bhie,bid->hed."""
    b, h, i, e = z.shape
    return (z.swapaxes(1, 2).reshape(b * i, h * e).T @ x.reshape(b * i, -1)).reshape(h, e, -1)


def causal_product(A, v):
    """A v where A is 0 above its diagonal: bhij,bhje->bhie.

    Rows go a band at a time, each with the columns that are not 0.
    """
    z = np.empty_like(v)
    for start in range(0, A.shape[-1], BAND):
        rows, seen = slice(start, start + BAND), slice(start + BAND)
        np.matmul(A[..., rows, seen], v[..., seen, :], out=z[..., rows, :])
    return z


def causal_product_transposed(A, z):
    """Aᵀ z, likewise: bhij,bhie->bhje."""
    v = np.empty_like(z)
    for start in range(0, A.shape[-1], BAND):
        seen, rows = slice(start, start + BAND), slice(start, None)
        np.matmul(A[..., rows, seen].mT, z[..., rows, :], out=v[..., seen, :])
    return v


def causal_softmax(scores, in_place=False):
    """softmax*: A_ij = exp(scores_ij) / Σ_{j'≤i} exp(scores_ij') for j ≤ i, else exactly 0.

    Where any score is beyond ±60, allowed or not, each row is first shifted by its largest
    *allowed* score, so that none overflows; by that A changes no more than rounding does.
    in_place : the scores are overwritten with A.

    A destination never reads what comes after it: in "Potter can fly", *can* may read
    *Potter*, never the reverse.

    >>> causal_softmax(np.zeros((2, 2)))
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    n = scores.shape[-1]
    large = not max(scores.real.max(), -scores.real.min()) <= 60    # or NaN; e^±60 suits any dtype
    mask = np.where(np.tri(n, dtype=bool), 0, -np.inf).astype(scores.dtype)
    A = np.add(scores, mask, out=scores if in_place else None)
    if large:
        A -= A.real.max(-1, keepdims=True)
    np.exp(A, out=A)
    A /= A @ np.ones((n, 1), A.dtype)
    return A


def causal_softmax_backward(dA, A, z, dz, in_place=False):
    """dscores_ij = A_ij (dA_ij − Σ_j' A_ij' dA_ij'), where the sum is simply z_i·dz_i.

    Holds where z = A v: dA_ij = dz_i·v_j, hence Σ_j A_ij dA_ij = dz_i·Σ_j A_ij v_j. 0 where
    the mask is. in_place : dA is overwritten with dscores.
    """
    dscores = np.subtract(dA, np.einsum("...e,...e", z, dz)[..., None],
                          out=dA if in_place else None)
    dscores *= A
    dscores[..., 0, 0] = 0      # one source, nothing to choose: exactly, not up to rounding
    return dscores
