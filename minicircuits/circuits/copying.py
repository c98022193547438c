"""Does a circuit raise the token it reads? Eigenvalues, and what they leave open.

Paper: "Copying / primitive in-context learning", "Detecting Copying Behavior".
"""

from typing import NamedTuple

import numpy as np


def copying_score(low_rank):
    """Σλ / Σ|λ| over the eigenvalues of a token-to-token circuit: a float in [−1, 1].

    +1 copies, −1 anti-copies, about 0 at random (standard deviation ≈ 1.5/d_head). Σλ is
    the trace, so that nothing decides which λ "are" 0; a zero matrix scores 0. Keeps any
    similarity W → M W M⁻¹ and transposition, hence cannot see [out, source] swapped; a
    constant added to every row of W_U does change it. Uses W_U as it is, not centred.

    Evidence, not proof: eigenvectors are not orthogonal; see `copying_companions`.
    """
    size = np.abs(low_rank.eigenvalues()).sum()
    return float(low_rank.trace().real / size) if size else 0.0


class Companions(NamedTuple):
    """What a copying score alone does not tell, from the table [out, source] itself."""
    mean_diagonal: float     # mean logit a token gives itself, minus the table's mean entry
    top_own: float           # share of tokens that are their own strongest output
    top_k_own: float         # share of tokens among their own k strongest outputs


def copying_companions(low_rank, k=10):
    """How often a token is really its own top output. Square circuits, streamed by source.

    A constant added to every row of W_U changes the mean of the diagonal and the mean
    entry alike, and no ranking: all three keep it, unlike `copying_score`.
    """
    own, n = low_rank.diagonal(), low_rank.shape[1]
    above = np.concatenate([(block > own[sources, None]).sum(1)       # blocks of sources
                            for sources, block in low_rank.mT.blocks()])
    mean = low_rank.A.sum(0) @ low_rank.B.sum(1) / n ** 2
    return Companions(float(own.mean() - mean), float((above == 0).mean()),
                      float((above < k).mean()))
