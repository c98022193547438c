"""What heads do on tokens: where they look, what that moves, and how much is position.

A kind of head is a kind of place to look: a mask (b, i, j) made from the tokens alone, True
where such a head would look. Its score is the attention that falls on those places. For a kind
of your own, give `attention_on` a pattern and your mask. Where a head looks is not what it does.

No score of attention changes with the basis of a head or of the residual stream, nor when one
row is added to every row of W_U. Padding d_head with zeros changes 1/√d_head, and so the patterns.

Paper: "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

import numpy as np

from minicircuits.behavior import tokens_and_acts
from minicircuits.door import door
from minicircuits.notation import Activations, InputError, Tokens, Weights, check_axes


# Places to look, from tokens (b, i) alone: masks (b, i, j), never with j > i.

def previous_token(tokens):
    """j = i − 1."""
    b, T = tokens.shape
    return np.broadcast_to(np.eye(T, k=-1, dtype=bool), (b, T, T))


def first_token(tokens):
    """j = 0 < i. (Destination 0 has no choice.)"""
    b, T = tokens.shape
    return np.broadcast_to(np.tri(T, k=-1, dtype=bool) & (np.arange(T) == 0), (b, T, T))


def earlier_copies(tokens):
    """j < i with token_j = token_i. A start token that occurs once has no copies."""
    return np.tril(tokens[:, :, None] == tokens[:, None, :], -1)


def after_earlier_copies(tokens):
    """j such that j − 1 is an earlier copy of i; j = i counts if token i − 1 is the same.

    On a block of n distinct tokens, repeated, that is n−1 back, not n:
    >>> i, j = np.nonzero(after_earlier_copies(np.array([[0, 5, 6, 7, 5, 6, 7]]))[0])
    >>> (i - j).tolist()
    [2, 2, 2]
    """
    return np.pad(earlier_copies(tokens)[:, :, :-1], ((0, 0), (0, 0), (1, 0)))


@door
def attention_on(pattern: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Σ_j A_ij over the places, mean over (b, i) that have at least one place: (l, h), 0 to 1.

    pattern : (l, b, h, i, j); places : (b, i, j) booleans. Raises InputError if all are False.
    """
    sizes = {}
    check_axes("pattern", pattern, "lbhij", sizes)
    check_axes("places", places, "bij", sizes)
    places = places.astype(bool)
    destinations = int(places.any(-1).sum())
    if not destinations:
        raise InputError("at least one destination must have a place to look at (an earlier copy, "
                         f"a predecessor); got none in axes (b, i)={places.shape[:2]}")
    attention = np.vecdot(places.astype(pattern.dtype)[:, None], pattern)     # (l, b, h, i)
    return attention.sum((1, 3)) / destinations


@door
def prefix_matching_scores(weights: Weights, tokens: Tokens,
                           acts: Activations | None = None) -> np.ndarray:
    """Attention on the tokens that followed earlier copies of the present one: (l, h).

    `attention_on` the followers of all copies. Uniform attention scores about ln 2/n on a second
    block of n tokens. One block length cannot tell an induction head from a head that looks n−1
    back; `induction_scores` can. Raises InputError where no token of a context occurs twice.
    """
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    return attention_on(acts.pattern, after_earlier_copies(tokens))


@door
def previous_token_scores(weights: Weights, tokens: Tokens,
                          acts: Activations | None = None) -> np.ndarray:
    """mean_{b, i≥1} A[i, i−1]: (l, h). Raises InputError for contexts of one token."""
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    return attention_on(acts.pattern, previous_token(tokens))


@door
def duplicate_token_scores(weights: Weights, tokens: Tokens,
                           acts: Activations | None = None) -> np.ndarray:
    """Attention on earlier copies of the present token, as `prefix_matching_scores`: (l, h)."""
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    return attention_on(acts.pattern, earlier_copies(tokens))


@door
def first_token_scores(weights: Weights, tokens: Tokens,
                       acts: Activations | None = None) -> np.ndarray:
    """mean_{b, i≥1} A[i, 0]: (l, h). Where there is nothing to do, heads attend there and move
    little. Paper: "Induction Heads". Raises as `previous_token_scores`."""
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    return attention_on(acts.pattern, first_token(tokens))


@door
def value_weighted_patterns(weights: Weights, tokens: Tokens,
                            acts: Activations | None = None) -> np.ndarray:
    """A_ij ‖W_O v_j‖: how much each source moves into each destination; (l, b, h, i, j).

    The paper, "Induction Heads", weights by ‖v_j‖ instead, which depends on the basis of the
    head. This is how much is moved, not whether anything reads it.
    """
    _, acts = tokens_and_acts(weights, tokens, acts)
    return acts.pattern * value_lengths(weights, acts)[..., None, :]


def value_lengths(weights, acts):
    """‖W_O v_j‖: (l, b, h, j)."""
    return np.linalg.norm(acts.v @ weights.W_O.mT[:, None], axis=-1)


@door
def offset_profiles(weights: Weights, tokens: Tokens,
                    acts: Activations | None = None) -> np.ndarray:
    """Mean attention by distance back, mean of A_ij over b and i − j = 0 … T−1: (l, h, i − j).

    Each distance has its own destinations, so a profile does not sum to 1. Distance T−1 has one
    destination: a head that attends to the first token peaks there. A peak does not make a
    head positional: on repeated blocks induction heads have one. See `position_share`.
    """
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    A, T = acts.pattern.mean(1), tokens.shape[1]                              # (l, h, i, j)
    return np.stack([A.trace(-back, -2, -1) / (T - back) for back in range(T)], axis=-1)


@door
def position_share(weights: Weights, tokens: Tokens, acts: Activations | None = None) -> np.ndarray:
    """How much of a head's pattern follows from i and j alone, whatever the tokens: (l, h).

        1 − Σ_ij var_b A_ij / Σ_ij mean_b (A_ij − 1/(i+1))²,     var_b unbiased, j ≤ i

    A row's mean is 1/(i+1) for every head, so deviations from that are what there is to
    explain; their mean over contexts at (i, j) is what position explains. 1: all contexts
    share one pattern, or the head is uniform up to rounding. 0 ± 1/b: patterns ignore position.
    A token at one place in all contexts (START) counts as position. InputError for b = 1.
    """
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    A, (b, T) = acts.pattern, tokens.shape
    if b < 2:
        raise InputError("position_share compares contexts and needs at least 2; got b=1")
    uniform = np.tri(T, dtype=A.dtype) / np.arange(1, T + 1, dtype=A.dtype)[:, None]
    deviation = A - uniform
    within = deviation.var(1).sum((-2, -1))          # mean_b (A − mean_b A)², over ij: (l, h)
    total = within + (deviation.mean(1) ** 2).sum((-2, -1))
    rounding = ((100 * np.finfo(A.dtype).eps * uniform) ** 2).sum()
    unexplained = np.divide(within, total, out=np.zeros_like(total), where=~(total <= rounding))
    return 1 - b / (b - 1) * unexplained
