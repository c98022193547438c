"""How much does a later head h read of what an earlier head g writes?

Q-composition: h's queries read it; K: its keys do. Both change where h attends. V: its values
do, which makes a virtual head.

Paper: "Three Kinds of Composition", "Path Expansion of Attention Scores QK Circuit", and the
erratum.
"""

import numpy as np
from scipy.special import gammainccinv

from minicircuits.circuits.heads import W_OV, W_QK
from minicircuits.circuits.low_rank import power_of_two
from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.notation import InputError, Weights

SMALL = 1e-3          # a standard deviation, of the mean, and a skewness that pass for none


def composition_score(weights, kind, later, earlier):
    """‖M W_OV^g‖ / (‖M‖ ‖W_OV^g‖) for one pair of heads (layer, head), by Frobenius norms.

    kind "Q": M = W_QKᵀ of the later head; "K": M = W_QK; "V": M = W_OV. A number from 0 to 1,
    and 0 if either head is zero. This is the definition; `composition_scores` has all pairs.

    The erratum: W_QK W_OV = W_Qᵀ W_K W_O W_V may not be turned round into the small matrix
    W_K W_O W_V W_Qᵀ. That has the same trace and non-zero eigenvalues, but another norm.
    """
    M = {"Q": W_QK(weights, *later).mT, "K": W_QK(weights, *later), "V": W_OV(weights, *later)}
    reads, writes = M[kind].near_one(), W_OV(weights, *earlier).near_one()
    size = reads.norm() * writes.norm()
    return (reads @ writes).norm() / size if size else 0.0


@door
def composition_scores(weights: Weights, kind: str) -> np.ndarray:
    """`composition_score` of every pair of heads: (l, h, l', g), 0 unless l' < l.

    The scores are raw: random matrices of the same shapes give 1/√d_model in the root mean
    square (`composition_baseline`). They do not depend on the scale of a head, on its bases
    (W_Q → M W_Q with W_K → M⁻ᵀ W_K, W_V → M W_V with W_O → W_O M⁻¹) or on rotations of the
    residual stream. A large score shows overlap, not what it does.

    Each M = left right is first reduced to a thin factor. If left = F R and the columns of F
    are orthonormal, then ‖M X‖ = ‖R right X‖ for any X. What is left to do takes d_model d_head²
    multiplications a pair. ⟨MᵀM, W_OV W_OVᵀ⟩ would take d_model², but round small scores away.
    """
    readers, writers = thin(weights, kind)
    L, H, e, d = readers.shape

    def of_layer(layer):
        part = np.empty((H, layer, H), readers.real.dtype)
        for earlier in range(layer):                     # a product of two layers stays in cache
            M_W = readers[layer].reshape(-1, d) @ writers[earlier].reshape(-1, d).mT
            M_W = M_W.reshape(H, e, H, e)
            part[:, earlier] = np.vecdot(M_W, M_W).real.sum(1)
        return np.sqrt(part)

    scores, later = np.zeros((L, H, L, H), readers.real.dtype), range(L - 1, 0, -1)
    for layer, part in zip(later, side_by_side(of_layer, later)):       # the longest first
        scores[layer, :, :layer] = part
    return scores


def thin(weights, kind):
    """Of each head a thin factor of M, and one of W_OVᵀ, both (l, h, e, d) and of norm 1.

    The product of the first and the other's transpose has the norm of M W_OV.
    """
    if kind not in ("Q", "K", "V"):
        raise InputError(f"kind must be Q, K or V; got {kind!r}")
    left, right = {"Q": (weights.W_K.mT, weights.W_Q), "K": (weights.W_Q.mT, weights.W_K),
                   "V": (weights.W_O, weights.W_V)}[kind]
    return reduced(left, right), reduced(weights.W_V.mT, weights.W_O.mT)


def reduced(left, right):
    """R right over its norm, (l, h, e, d), where left (l, h, d, e) = F R. Layers side by side."""
    factors = side_by_side(lambda W: unit(np.linalg.qr(near_one(W[0]), "r") @ near_one(W[1])),
                           zip(left, right))
    (L, H, *shape), d = left.shape, right.shape[-1]
    return np.array([*factors], right.dtype).reshape(L, H, min(shape), d)


def near_one(W):
    """Each head over a power of two: products stay within the range of floats."""
    return W / power_of_two(W, (-2, -1))


def unit(W):
    """W / ‖W‖ for each head; a zero matrix stays zero."""
    W = near_one(W)
    norm = np.linalg.norm(W, axis=(-2, -1), keepdims=True)
    return W / np.where(norm == 0, 1, norm)


@door
def composition_baseline(d_model: int) -> float:
    """1/√d_model: the root mean square score of isotropic random factors.

    E‖A B‖² = ‖A‖² ‖B‖² / d_model if B's column space is a random one, whatever d_head is.
    """
    if d_model < 1:
        raise InputError(f"d_model must be at least 1; got {d_model}")
    return d_model ** -0.5


@door
def composition_excess(weights: Weights, kind: str) -> np.ndarray:
    """`composition_scores` minus `composition_baseline`, for pairs that can compose; else 0.

    Below 0: the later head reads less of the earlier one than of a random direction.
    """
    scores = composition_scores(weights, kind)
    layer = np.arange(weights.n_layers)
    pairs = (layer[:, None] > layer)[:, None, :, None]
    return np.where(pairs, scores - composition_baseline(weights.d_model), 0)


def chance_levels(weights, kind, chance):
    """For every pair the score it has with this chance, were the two heads turned at random.

    Axes as in `composition_scores`. What h reads and g writes keep their sizes: the eigenvalues
    of MᵀM and of W_OV W_OVᵀ, each over their sum. Less 1/d_model, let them be μ and ν. Where g
    writes is turned by a rotation, all rotations being as likely. The squared score then has the
    mean 1/d_model, and

        variance = 2 Σμ² Σν² / ((d − 1) (d + 2)),        skewness ≈ 8 Σμ³ Σν³ / d³ / variance^1.5

    where d is d_model. The variance is exact. The skewness is that of Gaussian rotations, with
    longer tails. The level is that of a gamma distribution with these moments. Random weights
    pass it less often than `chance`, if hardly less where d_model is large.
    """
    d, (readers, writers) = weights.d_model, thin(weights, kind)
    eigenvalues = [np.linalg.eigvalsh(gram).astype(float)     # those that are not 0: (l, h, e)
                   for gram in (readers @ readers.mT, writers @ writers.mT)]

    def sums(power):
        """Σμ^power Σν^power for all pairs; of d eigenvalues those that are left out are 0."""
        of_later, of_earlier = (
            ((some - 1 / d) ** power).sum(-1) + (d - some.shape[-1]) * (-1 / d) ** power
            for some in eigenvalues)
        return of_later[:, :, None, None] * of_earlier

    variance = np.maximum(2 * sums(2) / (max(d - 1, 1) * (d + 2)), (SMALL / d) ** 2)
    skewness = np.maximum(8 * sums(3) / d ** 3 / variance ** 1.5, SMALL)
    half = 4 / skewness ** 2                                  # of the degrees of freedom
    above = (gammainccinv(half, chance) - half) / np.sqrt(half)
    return np.sqrt(1 / d + np.sqrt(variance) * above)
