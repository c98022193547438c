"""Out of the residual stream, and back (step 8). Paper: "Zero-Layer Transformers"."""

import numpy as np


def unembed(W_U, x):
    """8. logits = W_U x: (v, d), (b, i, d) -> (b, i, v)."""
    return x @ W_U.T


def unembed_backward(W_U, x, dlogits):
    """8. logits = W_U x: dW_U, summed over contexts and places, and dx."""
    return np.einsum("biv,bid->vd", dlogits, x, optimize=True), dlogits @ W_U
