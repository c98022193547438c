"""The heads of a layer, forward and backward (steps 3 to 7): x ↦ x + Σ_h (A^h ⊗ W_O^h W_V^h) x.

Paper: "Attention Heads are Independent and Additive". A head moves information from every
source j to a destination i ≥ j; the heads of a layer read the same x, and their outputs add up.
Axes: x, y (b, i, d); q, k, v, z (b, h, i, e); scores, A (b, h, i, j); W_Q, W_K, W_V (h, e, d);
W_O (h, d, e).
"""

from functools import partial
from math import sqrt

import numpy as np

einsum = partial(np.einsum, optimize=True)          # by matrix products, not in loops


def read(W, x):
    """3. q = W_Q y, k = W_K y, v = W_V x, for every head."""
    return einsum("hed,bid->bhie", W, x)


def read_backward(W, x, dq):
    """3. q = W x: dW, summed over contexts and places, and dx, summed over heads."""
    return einsum("bhie,bid->hed", dq, x), einsum("bhie,hed->bid", dq, W)


def score(q, k):
    """4. scores_ij = q_i · k_j / √d_head, for j > i as well: nothing is masked yet."""
    return q @ k.mT / sqrt(q.shape[-1])


def score_backward(q, k, dscores):
    """4. scores = q kᵀ / √d_head: dq and dk."""
    return dscores @ k / sqrt(q.shape[-1]), dscores.mT @ q / sqrt(q.shape[-1])


def causal_softmax(scores):
    """5. A = softmax*(scores): A_ij = exp(scores_ij) / Σ_{j' ≤ i} exp(scores_ij'), 0 for j > i.

    A destination never reads what comes after it: in "Potter can fly", *can* may read *Potter*,
    never the reverse. Shifting a row by its largest score changes no A, and no exp overflows.
    (.real: for complex weights, see `notation.DTYPES`.)

    >>> causal_softmax(np.zeros((2, 2)))
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    allowed = np.tri(scores.shape[-1], dtype=bool)
    scores = np.where(allowed, scores, -np.inf)
    shares = np.exp(scores - scores.real.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def causal_softmax_backward(A, dA):
    """5. A = softmax*(scores): dscores_ij = A_ij (dA_ij − Σ_j' A_ij' dA_ij'), 0 for j > i.

    A larger score gets a larger share, and leaves less for the others of its row.
    """
    return A * (dA - (A * dA).sum(-1, keepdims=True))


def mix(A, v):
    """6. z_i = Σ_j A_ij v_j: what each destination gathers from its sources."""
    return A @ v


def mix_backward(A, v, dz):
    """6. z = A v: dA, also above the diagonal, and dv."""
    return dz @ v.mT, A.mT @ dz


def write(W_O, x, z):
    """7. out = x + Σ_h W_O z: the residual stream as it leaves the layer."""
    return x + einsum("hde,bhie->bid", W_O, z)


def write_backward(W_O, z, dout):
    """7. out = x + Σ_h W_O z: dW_O and dz. dx is dout, and more by what `read` sends back."""
    return einsum("bid,bhie->hde", dout, z), einsum("bid,hde->bhie", dout, W_O)
