"""Into the residual stream and out of it (steps 1, 2 and 8). Paper: "Transformer Overview"."""

import numpy as np


def embed(W_E, W_pos, tokens, positions):
    """1. x = W_E t, a column of W_E per token; + p if "standard". (b, i) -> (b, i, d)."""
    x = W_E.T[tokens]
    return x + W_pos.T[:tokens.shape[1]] if positions == "standard" else x


def embed_backward(dx, tokens, positions, dW_E, dW_pos):
    """1. x = W_E t + p: adds Σ_{b,i} dx tᵀ to dW_E (d, u), and Σ_b dx to dW_pos if "standard".

    A token that occurs twice is added twice; contexts share the columns of W_pos.
    """
    np.add.at(dW_E.T, tokens, dx)
    if positions == "standard":
        dW_pos[:, :dx.shape[1]] += dx.sum(0).T


def add_positions(x, W_pos, positions):
    """2. y = x + p, which W_Q and W_K read, if "shortformer"; else y = x. W_V reads x always."""
    return x + W_pos.T[:x.shape[1]] if positions == "shortformer" else x


def add_positions_backward(dy, positions, dW_pos):
    """2. y = x + p: adds Σ_b dy to dW_pos (d, p). dx is dy itself."""
    if positions == "shortformer":
        dW_pos[:, :dy.shape[1]] += dy.sum(0).T


def unembed(W_U, x):
    """8. logits = W_U x: (v, d), (b, i, d) -> (b, i, v). Paper: "Zero-Layer Transformers"."""
    return x @ W_U.T


def unembed_backward(W_U, x, dlogits):
    """8. logits = W_U x: dW_U, summed over contexts and places, and dx."""
    return np.einsum("biv,bid->vd", dlogits, x, optimize=True), dlogits @ W_U
