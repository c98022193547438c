"""How much does a later head h read of what an earlier head g writes?

Q-composition: h's queries read it; K: its keys do. Both change where h attends. V: its values
do, which makes a virtual head.

Paper: "Three Kinds of Composition", "Path Expansion of Attention Scores QK Circuit".
The erratum of the paper is about this file: a Frobenius norm, unlike a trace, changes when
factors are permuted cyclically.
"""

from dataclasses import replace

import numpy as np

from minicircuits.cores import side_by_side
from minicircuits.notation import InputError


def composition_scores(weights, kind):
    """‖M W_OV^g‖ / (‖M‖ ‖W_OV^g‖) for every pair of heads; (l, h, l', g), 0 unless l' < l.

    kind "Q": M = W_QKᵀ of the later head; "K": M = W_QK; "V": M = W_OV. Frobenius norms,
    scores in [0, 1], raw: random matrices of the same shapes give 1/√d_model in the root
    mean square (`composition_baseline`). A head that is zero scores 0. Invariant under every change
    of basis of a head (W_Q → M W_Q with W_K → M⁻ᵀ W_K, W_V → M W_V with W_O → W_O M⁻¹)
    and rotations of the residual stream. A large score shows overlap, not what it does.

    Each M = left · right is first reduced to its thin factor: if left = O R, the columns of O
    orthonormal, then ‖M X‖ = ‖R right X‖. So the pairs cost one product a later layer.

    The erratum: W_QK W_OV = W_Qᵀ W_K W_O W_V may not be turned round into the small matrix
    W_K W_O W_V W_Qᵀ. That has the same trace and eigenvalues, and another norm:

    >>> import minicircuits as mc
    >>> weights = mc.init_weights(2, 3, 8, 4, 6, 5, "none", np.random.default_rng(0))
    >>> W_Q, W_K = weights.W_Q[1, 2], weights.W_K[1, 2]
    >>> W_O, W_V = weights.W_O[0, 1], weights.W_V[0, 1]
    >>> right, turned = W_Q.T @ W_K @ W_O @ W_V, W_K @ W_O @ W_V @ W_Q.T
    >>> norm = np.linalg.norm
    >>> bool(np.isclose(right.trace(), turned.trace())), bool(np.isclose(norm(right), norm(turned)))
    (True, False)
    >>> score = norm(right) / norm(W_Q.T @ W_K) / norm(W_O @ W_V)
    >>> bool(np.isclose(composition_scores(weights, "K")[1, 2, 0, 1], score))
    True
    """
    if kind not in ("Q", "K", "V"):
        raise InputError(f"kind must be Q, K or V; got {kind!r}")
    left, right = {"Q": (weights.W_K.mT, weights.W_Q), "K": (weights.W_Q.mT, weights.W_K),
                   "V": (weights.W_O, weights.W_V)}[kind]
    L, H, d = weights.n_layers, weights.n_heads, weights.d_model

    def writer(layer):
        """W_O Rᵀ of W_OV = W_O Rᵀ Oᵀ: (g, d, e)."""
        return unit(weights.W_O[layer] @ thin(weights.W_V[layer].mT).mT)

    def of_layer(layer):
        M = unit(thin(left[layer]) @ right[layer]).reshape(-1, d)         # O (R right): (h·e, d)
        W = np.concatenate(writers[:layer]).swapaxes(0, 1).reshape(d, -1)     # (d, l'·g·e)
        squares = np.abs(M @ W).reshape(H, -1, layer * H, writers[0].shape[-1]) ** 2
        return np.sqrt(squares.sum((1, 3))).reshape(H, layer, H)

    scores = np.zeros((L, H, L, H), weights.W_Q.real.dtype)
    writers = list(side_by_side(writer, range(L - 1)))
    later = range(L - 1, 0, -1)                                 # the longest first
    for layer, part in zip(later, side_by_side(of_layer, later)):
        scores[layer, :, :layer] = part
    return scores


def thin(W):
    """R of W = O R: ‖W X‖ = ‖R X‖ for any X, as the columns of O are orthonormal."""
    return np.linalg.qr(W, mode="r")


def unit(W):
    """W / ‖W‖ for each head; a zero matrix stays zero."""
    largest = np.abs(W).max((-2, -1), keepdims=True)      # whose square may leave the range
    W = W / np.where(largest == 0, 1, largest)
    norm = np.sqrt((np.abs(W) ** 2).sum((-2, -1), keepdims=True))
    return W / np.where(norm == 0, 1, norm)


def composition_baseline(d_model):
    """1/√d_model: the root mean square score of isotropic random factors.

    E‖A B‖² = ‖A‖² ‖B‖² / d_model if B's column space is a random one: it depends on no
    other size, so neither d_head nor the number of heads matters.
    """
    return d_model ** -0.5


def composition_excess(weights, kind):
    """`composition_scores` minus `composition_baseline`, for pairs that can compose; else 0.

    Below 0: the later head reads less of the earlier one than of a random direction.
    """
    scores = composition_scores(weights, kind)
    layer = np.arange(weights.n_layers)
    pairs = (layer[:, None] > layer)[:, None, :, None]
    return np.where(pairs, scores - composition_baseline(weights.d_model), 0)


def random_composition_scores(weights, kind, rng):
    """Scores of Gaussian weights of the same shapes: the spread around the baseline."""
    return composition_scores(replace(weights, **{
        name: rng.standard_normal(W.shape).astype(weights.dtype)
        for name, W in weights.items() if name in ("W_Q", "W_K", "W_V", "W_O")}), kind)
