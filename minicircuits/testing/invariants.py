"""What gradients of the loss cannot help but satisfy: checks that need no reference.

For your own weights, at any size, in any framework. Each is a symmetry of the model:

    W_Q → M W_Q, W_K → M⁻ᵀ W_K    dW_Q W_Qᵀ = W_K dW_Kᵀ, per head
    W_V → M W_V, W_O → W_O M⁻¹    dW_V W_Vᵀ = W_Oᵀ dW_O, per head
    one row added to W_U          Σ_v dW_U = 0
    scores of a row moved         Σ_j dscores = 0;  Σ_j dk = 0
    what no prediction reads      columns of dW_E of tokens not among the first T − 1, and of
                                  dW_pos from T − 1 on, are exactly 0

They see a mistake in one of the two sides, not the same one in both: with a scale dropped from
dq and dk alike they still hold. Paper: none; `check` has the reference.
"""

import numpy as np

from minicircuits.testing.checking import as_array
from minicircuits.testing.steps import UNIT


def broken_invariants(weights, tokens, gradients, precision="float64"):
    """The invariants above that do not hold, a line each; an empty list if all do.

    Parameters
    ----------
    weights : `Weights`, or {name: array}, in the paper's orientation
    tokens : (b, i)
    gradients : {name: array} of dW_E, dW_pos, dW_Q …, dscores, dk: any of them; what needs
        others is left out

    Equal means: to half the digits of `precision`, relative to the largest Σ|term|, or to
    rounding of the largest gradient supplied (where terms cancel further up).
    """
    W = {name: as_array(name, array) for name, array in weights.items()}
    g = {name: as_array(name, array) for name, array in gradients.items()}
    tokens, u, found = np.asarray(tokens), UNIT[precision], []
    W_sizes, g_sizes = ({name: abs(array) for name, array in arrays.items()} for arrays in (W, g))
    largest = max((size.max(initial=0) for size in g_sizes.values()), default=0)
    noise = 64 * u * largest * max(size.max(initial=1) for size in W_sizes.values())

    def equal(says, needed, left, right):
        if g.keys() >= set(needed.split()):
            error = abs(left(W, g) - right(W, g)).max(initial=0)
            scale = (left(W_sizes, g_sizes) + right(W_sizes, g_sizes)).max(initial=0)
            if not error <= np.sqrt(u) * scale + noise * W["W_E"].shape[0]:
                found.append(f"{says}: off by {error:.2g}, terms up to {scale:.2g}")

    equal("dW_Q W_Qᵀ = W_K dW_Kᵀ in every head", "dW_Q dW_K",
          lambda W, g: g["dW_Q"] @ W["W_Q"].mT, lambda W, g: W["W_K"] @ g["dW_K"].mT)
    equal("dW_V W_Vᵀ = W_Oᵀ dW_O in every head", "dW_V dW_O",
          lambda W, g: g["dW_V"] @ W["W_V"].mT, lambda W, g: W["W_O"].mT @ g["dW_O"])
    for name, axis, says in (("dW_U", 0, "Σ_v dW_U = 0"), ("dscores", -1, "Σ_j dscores = 0"),
                             ("dk", -2, "Σ_j dk = 0")):
        equal(says, name, lambda W, g: g[name].sum(axis), lambda W, g: 0)
    unread = np.setdiff1d(np.arange(W["W_E"].shape[1]), tokens[:, :-1])
    for name, columns, says in (
            ("dW_E", unread, "dW_E of tokens that no prediction reads is 0"),
            ("dW_pos", slice(tokens.shape[1] - 1, None), "dW_pos from the last position on is 0")):
        if name in g and (g[name][:, columns] != 0).any():
            found.append(f"{says}: largest {g_sizes[name][:, columns].max():.2g}")
    return found
