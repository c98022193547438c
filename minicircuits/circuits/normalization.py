"""LayerNorm and RMSNorm as weights and numbers σ; and the numbers frozen, as patterns are.

    LN(x)_i = w ⊙ (x_i − mean x_i) / σ_i + b,     σ_i = √(mean of (x_i − mean x_i)² + eps)

The gain w and the bias b go into what reads: W diag(w) and W b. What writes is centered, so
that each x_i has mean 0. What is left is a division by σ_i. (RMSNorm is the same without mean
and b.) Given the σ, as the patterns are given, all is linear again. A head reads its values
divided, so its paths go through the pattern A_ij / σ_j; queries, keys and W_U divide at the
position where they read. Not divided are biases, nor positions that are added after the norm.

Paper: "Transformer Overview", "Model Simplifications".
"""

import numpy as np

from minicircuits.circuits.biases import BIAS_AXES, checked, fold_biases
from minicircuits.door import door
from minicircuits.notation import (WEIGHT_AXES, InputError, NormalizedWeights, Weights, check_axes,
                                   check_pattern)

KINDS = ("LN", "LNPre", "RMS", "RMSPre")
NORM_AXES = {
    "ln1_w": ("n_layers", "d_model"),
    "ln1_b": ("n_layers", "d_model"),
    "ln_final_w": ("d_model",),
    "ln_final_b": ("d_model",),
}
D_AXIS = {name: axes.index("d_model") for name, axes in WEIGHT_AXES.items()}


@door
def fold_normalization(weights: Weights, kind: str, eps: float, biases: dict[str, np.ndarray],
                       norms: dict[str, np.ndarray]) -> NormalizedWeights:
    """`NormalizedWeights` that compute what a model with norms, gains and biases computes.

    kind : "LN", "RMS", or as TransformerLens calls them without gains, "LNPre", "RMSPre"
    biases : b_Q, b_K, b_V (l, h, e), b_O (l, d), b_U (v,); what is absent is zero
    norms : the gains ln1_w (l, d) and ln_final_w (d,), and the biases ln1_b and ln_final_b

    b_V goes into b_O, since rows of a pattern sum to 1; so a head that is removed leaves its b_V
    behind. Positions in "shortformer" mode get d dimensions of their own, which only W_Q and W_K
    read. Then biases are folded as `fold_biases` does. What is read off these matrices alone,
    such as a QK circuit, knows no σ: it takes each as 1.

    Raises InputError for another kind, name, shape or dtype, and for weights with norms already.
    """
    if isinstance(weights, NormalizedWeights):
        raise InputError("weights must have no norms yet; got NormalizedWeights")
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    d, L = weights.d_model, weights.n_layers
    gains = {"ln1_w": np.ones((L, d), weights.dtype), "ln_final_w": np.ones(d, weights.dtype)}
    b, ln = checked(weights, biases, BIAS_AXES), checked(weights, gains | norms, NORM_AXES)
    W = dict(weights.items())
    read_b = {name: b[f"b_{name}"] + times(W[f"W_{name}"], ln["ln1_b"][:, None]) for name in "QKV"}
    b_U = b["b_U"] + times(W["W_U"], ln["ln_final_b"])
    b_O = b["b_O"] + times(W["W_O"], read_b["V"]).sum(1)
    if kind.startswith("LN"):
        for name in ["W_E", "W_O"] + ["W_pos"] * (weights.positions == "standard"):
            W[name] = W[name] - W[name].mean(D_AXIS[name], keepdims=True)
        b_O = b_O - b_O.mean(1, keepdims=True)
    for name in "QKV":
        W[f"W_{name}"] = W[f"W_{name}"] * ln["ln1_w"][:, None, None]
    W["W_U"] = W["W_U"] * ln["ln_final_w"]
    if weights.positions == "shortformer":
        further = {name: getattr(weights, name) for name in ("W_pos", "W_Q", "W_K")}
        W["W_pos"] = 0 * W["W_pos"]
        W = {name: np.concatenate([W[name], further.get(name, 0 * W[name])], D_AXIS[name])
             for name in W}
        b_O = np.pad(b_O, ((0, 0), (0, d)))
    folded = fold_biases(
        Weights(**{"W_pos": None} | W, positions="standard" if "W_pos" in W else "none"),
        read_b["Q"], read_b["K"], None, b_O, b_U)
    return NormalizedWeights(**vars(folded), n_normalized=d, eps=eps)


def times(W, vectors):
    """W x for stacks of matrices (…, out, in) and vectors (…, in): (…, out)."""
    return (W @ vectors[..., None])[..., 0]


def frozen(weights, tokens, pattern, norms):
    """What expansions start from, checked: tokens (b, i), the pattern that paths go through, norms.

    norms : a list of the σ (b, i) by which each layer divides, and at last W_U; of weights
    without norms, each is None
    """
    tokens, pattern = check_pattern(weights, tokens, pattern)
    check_given(weights, norms)
    if norms is None:
        return tokens, pattern, [None] * (weights.n_layers + 1)
    norms, L = np.asarray(norms), weights.n_layers
    check_axes("norms", norms, ("n_layers + 1", "b", "i"),
               {"n_layers + 1": L + 1, **dict(zip("bi", tokens.shape))})
    return tokens, over_sources(weights, slice(L), pattern, norms[:L]), list(norms)


def check_given(weights, norms):
    """Raises InputError unless there are norms for NormalizedWeights, and for no other."""
    if (norms is not None) != isinstance(weights, NormalizedWeights):
        given = "none" if norms is None else f"some for {type(weights).__name__}"
        raise InputError("norms must be given for NormalizedWeights, and for no other: acts.norms "
                         f"of acts = forward(weights, tokens); got {given}")


def over_sources(weights, layers, pattern, norms):
    """A_ij / σ_j (…, b, h, i, j) of one layer or of several; A where a head's values, read from
    dimensions that are not divided, have no σ."""
    if norms is None:
        return pattern
    divided = weights.W_V[layers, ..., :weights.n_normalized].any((-2, -1))        # (…, h)
    return pattern / np.where(divided[..., None, :, None, None], norms[..., None, None, :], 1)


def as_read(weights, x, norm):
    """y (…, d): x with its first n_normalized dimensions divided by `norm` (…); or None: x."""
    if norm is None:
        return x
    n = weights.n_normalized
    return np.concatenate([x[..., :n] / norm[..., None], x[..., n:]], axis=-1)


def norm_of(weights, x):
    """σ (…) of x (…, d), by which what reads x divides; None of other weights."""
    if not isinstance(weights, NormalizedWeights):
        return None
    x = x[..., :weights.n_normalized]
    return np.sqrt(np.vecdot(x, x) / weights.n_normalized + weights.eps)
