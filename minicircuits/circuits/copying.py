"""Does a circuit add to the logit of the token it reads? Eigenvalues, and what they leave open.

The direct path keeps the present token; copying heads repeat one from elsewhere.
Paper: "Copying / primitive in-context learning", "Detecting Copying Behavior".
"""

from typing import NamedTuple

import numpy as np

from minicircuits.circuits.low_rank import LowRank
from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.notation import InputError, check_real

TILE = 1024           # sources and outs of a tile, which stays in cache


@door
def copying_score(low_rank: LowRank) -> float:
    """Σλ / Σ|λ| over the eigenvalues λ of a token-to-token circuit: a float in [−1, 1].

    +1 copies, −1 anti-copies, about 0 at random (standard deviation ≈ 1.5/d_head). Real parts
    are summed: complex eigenvalues come in pairs. Eigenvalues that are 0 add nothing, so it does
    not matter how many there are. If all of them are 0 but for rounding, the score is 0.

    W, c W for c > 0, Wᵀ and M W M⁻¹ score the same, so the score cannot tell [out, source]
    from [source, out]. One row added to every row of W_U does change it; W_U is used as it is.
    Evidence, not proof: eigenvectors are not orthogonal; see `copying_companions`.

    >>> copying_score(LowRank(np.eye(4), np.eye(4))), copying_score(LowRank(np.eye(4), -np.eye(4)))
    (1.0, -1.0)
    >>> copying_score(LowRank(np.eye(4), np.diag([1, 1, 1, -1])))
    0.5
    """
    values = spectrum(low_rank)
    return float(values.real.sum() / np.abs(values).sum()) if values.size else 0.0


def spectrum(low_rank):
    """`eigenvalues` of a circuit but for a positive factor; none if all are 0 but for rounding."""
    W = low_rank.near_one()
    values = W.eigenvalues()
    size = np.abs(values).sum()
    rounding = max(W.shape) * np.finfo(values.dtype).eps
    most = np.linalg.norm(W.A) * np.linalg.norm(W.B)       # no less than the norm, and cheaper
    return values[:0] if size <= rounding * most and size <= rounding * W.norm() else values


class Companions(NamedTuple):
    """What a copying score alone does not tell, from the table [out, source] itself."""
    diagonal_excess: float   # mean logit a token gives itself, minus the table's mean entry
    top_own: float           # share of tokens that are their own strongest output, untied
    top_k_own: float         # share of tokens among their own k strongest outputs


@door
def copying_companions(low_rank: LowRank, k: int = 10) -> Companions:
    """How often a token is really its own top output. Square circuits, a tile at a time.

    One row added to every row of W_U moves none of the three, unlike `copying_score`.
    Copying can be shared, so that two heads together copy what neither does alone:

    >>> Id = np.eye(4)
    >>> first, second = LowRank(Id[:, :2], Id[:2]), LowRank(Id[:, 2:], Id[2:])
    >>> copying_companions(first).top_own
    0.5
    >>> copying_companions(first + second, k=1)
    Companions(diagonal_excess=0.75, top_own=1.0, top_k_own=1.0)
    """
    check_real(low_rank.A, low_rank.B)
    own, n = low_rank.diagonal(), low_rank.shape[1]
    if low_rank.shape != (n, n):
        raise InputError(f"companions need a square circuit; got shape {low_rank.shape}")
    tiles = [slice(start, start + TILE) for start in range(0, n, TILE)]
    outdone_by = np.concatenate(list(side_by_side(
        lambda sources: rivals(low_rank, sources, tiles, k), tiles)))
    mean = low_rank.A.sum(0) @ low_rank.B.sum(1) / n ** 2
    return Companions(float(own.mean() - mean), float((outdone_by == 0).mean()),
                      float((outdone_by < k).mean()))


def rivals(low_rank, sources, tiles, k):
    """How many outs each of `sources`, one of the tiles, adds at least as much to as to itself.

    A source that has k of them is in neither share, and no tile after that looks at it.
    """
    A, B = low_rank.A, low_rank.B[:, sources]
    square = A[sources] @ B
    own = np.diagonal(square)
    found = (square >= own).sum(0) - 1
    for outs in tiles:
        left = np.flatnonzero(found < max(k, 1))
        if outs != sources and left.size:
            found[left] += (A[outs] @ B[:, left] >= own[left]).sum(0)
    return found
