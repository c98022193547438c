"""Biases as weights: a residual dimension that is always 1, and a head that rests.

A model with biases is one without, a little larger. W_E gets a row of ones, W_pos a row of
zeros, and no head writes there: the residual stream is (x, 1) at every position. Then

    q = W_Q y + b_Q = (W_Q | b_Q) (y, 1)        and so k, v and the logits

with each bias as one more column of its matrix. What a layer adds, b_O, has no matrix to stand
in. It becomes a head: W_Q = W_K = 0, so all its scores are 0 and it attends to all alike; W_V
reads the 1, and W_O says b_O. Each row of its pattern sums to 1, so it adds b_O everywhere:

    x + Σ_h (A^h ⊗ W_OV^h) x + b_O,        b_O = Σ_j A_ij b_O · 1

Logits, patterns, scores and losses are those of the model with biases, and every expansion
holds as it stands. What looks at a matrix alone sees its column too. That is so for
`composition_scores` (b_Q, b_K and b_V are in the norms) and their baseline (d_model is larger
by 1). It is so for the OV circuit and its `copying_score` (each column has W_U W_O b_V), the QK
circuit and the direct path. `without_biases` gives back the matrices alone; the findings read
composition, copying and skip-trigrams off these.

Paper: "Transformer Overview", the footnote on biases.
"""

from dataclasses import replace

import numpy as np

from minicircuits.door import as_array, door
from minicircuits.notation import WEIGHT_AXES, InputError, NormalizedWeights, Weights, check_axes

BIAS_AXES = {
    "b_Q": ("n_layers", "n_heads", "d_head"),
    "b_K": ("n_layers", "n_heads", "d_head"),
    "b_V": ("n_layers", "n_heads", "d_head"),
    "b_O": ("n_layers", "d_model"),
    "b_U": ("d_vocab",),
}


@door
def fold_biases(weights: Weights, b_Q: np.ndarray | None = None, b_K: np.ndarray | None = None,
                b_V: np.ndarray | None = None, b_O: np.ndarray | None = None,
                b_U: np.ndarray | None = None) -> Weights:
    """`Weights` without biases that compute what `weights` with these biases compute.

    b_Q, b_K, b_V : (l, h, e); b_O : (l, d); b_U : (v,). None is zero. Where all are zero, the
    result is `weights`. Else d_model grows by 1, the last; if b_O is not zero n_heads does too,
    and the last head of each layer rests. Raises InputError for a shape or dtype that disagrees.
    """
    W = dict(weights.items())
    b = checked(weights, {"b_Q": b_Q, "b_K": b_K, "b_V": b_V, "b_O": b_O, "b_U": b_U}, BIAS_AXES)
    if not any(bias.any() for bias in b.values()):
        return weights
    W["W_E"] = np.pad(W["W_E"], ((0, 1), (0, 0)), constant_values=1)
    if "W_pos" in W:
        W["W_pos"] = np.pad(W["W_pos"], ((0, 1), (0, 0)))
    for letter in "QKVU":
        column = b[f"b_{letter}"][..., None]
        W[f"W_{letter}"] = np.concatenate([W[f"W_{letter}"], column], -1)
    W["W_O"] = np.pad(W["W_O"], ((0, 0), (0, 0), (0, 1), (0, 0)))
    if b["b_O"].any():
        for letter in "QKVO":
            W[f"W_{letter}"] = np.pad(W[f"W_{letter}"], ((0, 0), (0, 1), (0, 0), (0, 0)))
        W["W_V"][:, -1, 0, -1] = 1
        W["W_O"][:, -1, :-1, 0] = b["b_O"]
    return replace(weights, **W)


def always_1(weights):
    """Which residual dimensions are 1 at every position: (d,). No head and no position is there."""
    ones = (weights.W_E == 1).all(1) & ~weights.W_O.any((0, 1, 3))
    return ones if weights.W_pos is None else ones & ~weights.W_pos.any(1)


@door
def resting_heads(weights: Weights) -> list[tuple[int, int]]:
    """The heads (layer, head) that only carry a b_O, as `fold_biases` makes them.

    W_Q = W_K = 0 exactly, and W_V reads only dimensions that are always 1. They attend to all
    positions alike, and that says nothing. A head of zeros is none: it carries nothing.
    """
    W = weights
    rests = ~W.W_Q.any((2, 3)) & ~W.W_K.any((2, 3))
    rests &= W.W_V.any((2, 3)) & ~W.W_V[..., ~always_1(W)].any((2, 3))
    return [(int(layer), int(head)) for layer, head in np.argwhere(rests)]


def heads_at_work(weights):
    """The heads that do not rest in every layer, as a list of numbers."""
    resting, L = resting_heads(weights), weights.n_layers
    return [head for head in range(weights.n_heads)
            if L == 0 or any((layer, head) not in resting for layer in range(L))]


def positions_undivided(weights):
    """Whether norms leave positions as they are: so `fold_normalization` has "shortformer" ones."""
    return (isinstance(weights, NormalizedWeights) and weights.W_pos is not None
            and bool(weights.W_pos[weights.n_normalized:].any()))


@door
def without_biases(weights: Weights) -> Weights:
    """The matrices alone, as `Weights`: without dimensions that are always 1, nor heads that rest.

    For what is read off weights, such as `composition_scores`. Of `NormalizedWeights` only the
    dimensions that are divided remain: norms are left out, and positions that have their own.
    """
    if isinstance(weights, NormalizedWeights):
        kept = np.arange(weights.d_model) < weights.n_normalized
    else:
        kept = ~always_1(weights)
    heads = heads_at_work(weights)
    if kept.all() and len(heads) == weights.n_heads and type(weights) is Weights:
        return weights
    n = int(kept.sum())
    kept = slice(n) if kept[:n].all() else kept                   # a view, where it can be one
    W = {name: array[(slice(None),) * WEIGHT_AXES[name].index("d_model") + (kept,)]
         for name, array in weights.items()}
    W |= {name: W[name][:, heads] for name in ("W_Q", "W_K", "W_V", "W_O")}
    return Weights(**{"W_pos": None} | W, positions=weights.positions)


def checked(weights, given, axes_of):
    """Each array that `axes_of` names, zeros where None or nothing is given; or InputError."""
    if unknown := given.keys() - axes_of.keys():
        raise InputError(f"names must be of {', '.join(axes_of)}; got {min(unknown)}")
    found = {}
    for name, axes in axes_of.items():
        sizes = {axis: getattr(weights, axis) for axis in axes}
        array = given.get(name)
        if array is None:
            array = np.zeros([*sizes.values()], weights.dtype)
        found[name] = array = as_array(name, array)
        check_axes(name, array, axes, sizes)
        if array.dtype != weights.dtype:
            raise InputError(f"{name} must have the dtype of the weights, {weights.dtype.name}; "
                             f"got {array.dtype.name}")
    return found
