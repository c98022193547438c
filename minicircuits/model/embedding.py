"""x = W_E t: tokens into the residual stream. Columns of W_E and of W_pos, and back.

Paper: "Transformer Overview" (embedding), "Zero-Layer Transformers". Forward is a
choice of columns, backward a sum into them; what each mode does with W_pos is in `transformer`.
"""

import numpy as np
from scipy.sparse import csc_array


def embed(W_E, tokens):
    """x = W_E t, the columns of W_E that the tokens choose: (d, u), (b, i) -> (b, i, d)."""
    return W_E.T[tokens]


def embed_backward(dx, tokens, d_vocab):
    """dW_E = Σ_{b,i} dx tᵀ: column u sums dx over the places of token u. (d, u)

    t is the one-hot (u, b·i) of the tokens, as a sparse matrix: a token that occurs twice
    is added twice.
    """
    n = tokens.size
    t = csc_array((np.ones(n, dx.dtype), tokens.ravel(), np.arange(n + 1)), shape=(d_vocab, n))
    return (t @ dx.reshape(n, -1)).T


def embed_positions(W_pos, n):
    """p, the first n columns of W_pos, a row per position: (d, p) -> (i, d)."""
    return W_pos.T[:n]


def embed_positions_backward(dp, n_ctx):
    """dW_pos (d, p) from dp (b, i, d): every context of the batch reads the same columns."""
    dW_pos = np.zeros((n_ctx, dp.shape[-1]), dp.dtype)
    dW_pos[:dp.shape[1]] = dp.sum(0)
    return dW_pos.T
