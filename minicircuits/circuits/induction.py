"""Induction heads in weights alone: what the key side matches, and what is copied.

[a][b] … [a] → [b]. A previous-token head g writes "a came before" into b; the induction
head h finds it by its key. Paper: "Induction Heads", "How Induction Heads Work", "Checking
the Mechanistic Theory": every induction head has both eigenvalue scores positive.
"""

from typing import NamedTuple

import numpy as np

from minicircuits.circuits.copying import TILE, copying_score
from minicircuits.circuits.heads import W_OV, W_QK, ov_circuit
from minicircuits.circuits.low_rank import LowRank
from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.notation import InputError, Weights, check_real


@door
def matching_circuit(weights: Weights, earlier: tuple[int, int], later: tuple[int, int]) -> LowRank:
    """W_Eᵀ W_QK^h W_OV^g W_E (u, u) [destination token, token that g read for the source].

    The K-composition term of `expand_scores`, without its 1/√d_head. If g attends one back,
    which the weights alone do not say (`previous_token_scores` does), a large diagonal means
    "attend to what came after an earlier copy of me". earlier, later : (layer, head).
    """
    if not earlier[0] < later[0]:
        raise InputError("composition needs an earlier and a later layer; got heads "
                         f"{earlier[0]}.{earlier[1]} and {later[0]}.{later[1]}")
    return weights.W_E.mT @ W_QK(weights, *later) @ W_OV(weights, *earlier) @ weights.W_E


class InductionEigenvalues(NamedTuple):
    copying: float       # of the later head's OV circuit
    matching: float      # the same score of the matching circuit


@door
def induction_eigenvalues(weights: Weights, earlier: tuple[int, int],
                          later: tuple[int, int]) -> InductionEigenvalues:
    """Both eigenvalue scores of a pair of heads, each in [−1, 1].

    Induction by K-composition has both near 1; induction by pointers only the first. What a
    head attends to on tokens is another question: `in_context.induction_scores`.

    >>> from minicircuits.circuits.hand_built import induction_by_k_composition
    >>> induction_eigenvalues(induction_by_k_composition(d_vocab=4, n_ctx=5), (0, 0), (1, 0))
    InductionEigenvalues(copying=1.0, matching=1.0)
    """
    return InductionEigenvalues(copying_score(ov_circuit(weights, *later)),
                                copying_score(matching_circuit(weights, earlier, later)))


class Matches(NamedTuple):
    tokens: np.ndarray       # (u, k): the k other tokens that u matches best, best first
    values: np.ndarray       # (u, k)
    own: np.ndarray          # (u,): how well u matches itself


@door
def nearest_matches(low_rank: LowRank, k: int = 3) -> Matches:
    """Which other tokens a token takes for itself: the best entries of a row off the diagonal.

    This is approximate induction, [a′][b] … [a] → [b]: cat may match cats. Equal ones go by token.
    A tile at a time. Raises InputError unless the circuit is square and k < d_vocab.

    >>> circuit = LowRank(np.eye(3), np.array([[5., 1, 2], [0, 7, 3], [4, 8, 6]]))
    >>> nearest_matches(circuit, k=1).tokens.ravel()
    array([2, 2, 1])
    """
    check_real(low_rank.A, low_rank.B)
    n = low_rank.shape[0]
    if low_rank.shape != (n, n):
        raise InputError(f"matches need a square circuit; got shape {low_rank.shape}")
    if not 0 < k < n:
        raise InputError(f"k must be from 1 to {n - 1}; got {k}")
    tiles = [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
    best = side_by_side(lambda rows: best_of_rows(low_rank, rows, tiles, k), tiles)
    return Matches(*map(np.concatenate, zip(*best)), low_rank.diagonal())


def best_of_rows(low_rank, rows, tiles, k):
    """Of each of `rows`, one of the tiles, the k best others: tokens and values (u, k)."""
    A = low_rank.A[rows]
    tokens, values = np.zeros((len(A), k), np.intp), np.full((len(A), k), -np.inf, A.dtype)
    for columns in tiles:
        tile = A @ low_rank.B[:, columns]
        if columns == rows:
            np.fill_diagonal(tile, -np.inf)
        better = np.flatnonzero(tile.max(1) > values[:, -1])     # of equals the first stay
        row, names = np.arange(len(better)), tokens[better]
        both = np.hstack([values[better], tile[better]])
        for rank in range(k):                                    # the best so far are out
            best = both.argmax(1)
            tokens[better, rank] = np.where(best < k, names[row, best % k],
                                            columns.start + best - k)
            values[better, rank], both[row, best] = both[row, best], -np.inf
    return tokens, values
