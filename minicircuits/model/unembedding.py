"""logits = W_U x: out of the residual stream. Paper: "Transformer Overview"."""

import numpy as np


def unembed(W_U, x):
    """logits = W_U x: (v, d), (b, i, d) -> (b, i, v)."""
    return np.tensordot(x, W_U, ((2,), (1,)))


def unembed_backward(dlogits, W_U, x):
    """dx = W_Uᵀ dlogits, (b, i, d); dW_U = Σ_{b,i} dlogits xᵀ, (v, d)."""
    return np.tensordot(dlogits, W_U, 1), np.tensordot(dlogits, x, ((0, 1), (0, 1)))
