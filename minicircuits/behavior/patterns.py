"""What heads do on tokens: where they look, what that moves, and how much is position.

A kind of head is a kind of place to look: a mask (b, i, j) made from the tokens alone, True
where such a head would look. Its score is the attention that falls on those places. Each
score runs the model once; for several on the same tokens, run `forward` yourself and give
`attention_on` its pattern and each mask.

All scores are invariant under changes of a head's basis, rotations of the residual stream
and one row added to every row of W_U; none under padding d_head with zeros: 1/√d_head
changes, and with it the patterns. Where a head looks is not what it does there.

Paper: "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

import numpy as np

from minicircuits.model.transformer import forward
from minicircuits.notation import InputError


# Places to look, from tokens (b, i) alone: masks (b, i, j), never with j > i.

def previous_token(tokens):
    """j = i − 1."""
    b, n = tokens.shape
    return np.broadcast_to(np.eye(n, k=-1, dtype=bool), (b, n, n))


def first_token(tokens):
    """j = 0 < i. (Destination 0 has no choice.)"""
    b, n = tokens.shape
    return np.broadcast_to(np.tri(n, k=-1, dtype=bool) & (np.arange(n) == 0), (b, n, n))


def earlier_copies(tokens):
    """j < i with token_j = token_i. A start token that occurs once has no copies."""
    return np.tril(tokens[:, :, None] == tokens[:, None, :], -1)


def after_earlier_copies(tokens):
    """j such that j − 1 is an earlier copy of i; j = i counts, where the token follows itself.

    On a block of n distinct tokens, repeated, that is n−1 back, not n:

    >>> i, j = np.nonzero(after_earlier_copies(np.array([[0, 5, 6, 7, 5, 6, 7]]))[0])
    >>> (i - j).tolist()
    [2, 2, 2]
    """
    return np.pad(earlier_copies(tokens)[:, :, :-1], ((0, 0), (0, 0), (1, 0)))


def attention_on(pattern, places):
    """Σ_j A_ij over the places, mean over (b, i) that have at least one place: (l, h).

    pattern : (l, b, h, i, j); places : (b, i, j) booleans. A share of attention, 0 to 1.
    Raises InputError where no destination has such a place: there is nothing to average.
    """
    destinations = int(places.any(-1).sum())
    if not destinations:
        raise InputError("at least one destination must have a place of this kind to look at "
                         "(an earlier copy of its token, a predecessor); got none in axes "
                         f"(b, i)={places.shape[:2]}")
    attention = np.vecdot(places.astype(pattern.dtype)[:, None], pattern)     # (l, b, h, i)
    return attention.sum((1, 3)) / destinations


def prefix_matching_scores(weights, tokens):
    """Attention on the tokens that followed earlier copies of the present one: (l, h).

    Mean over the destinations that have an earlier copy, of A_ij summed over the followers
    of all copies (Olsson et al. 2022). Uniform attention scores about 1/n on repeated
    blocks of n tokens (copies/(i+1), averaged; ln 2/n on a second block): compare with that.
    One block length cannot tell an induction head from a head that looks n−1 back: see
    `in_context.induction_scores`. Looking there is not copying from there.

    tokens : (b, i). Raises InputError where no token of a context occurs twice.
    """
    return attention_on(forward(weights, tokens).pattern, after_earlier_copies(np.asarray(tokens)))


def formed(measured):
    """Whether the best head's prefix matching has passed 0.1, on blocks of 29 three times what
    uniform attention gives: what logs and curves call an induction head that has formed."""
    return measured["prefix_matching"] > 0.1


def previous_token_scores(weights, tokens):
    """mean_{b, i≥1} A[i, i−1]: (l, h). Uniform attention: the mean of 1/(i+1) over i ≥ 1.

    Raises InputError for contexts of one token.
    """
    return attention_on(forward(weights, tokens).pattern, previous_token(np.asarray(tokens)))


def duplicate_token_scores(weights, tokens):
    """Attention on earlier copies of the present token, as `prefix_matching_scores`: (l, h)."""
    return attention_on(forward(weights, tokens).pattern, earlier_copies(np.asarray(tokens)))


def first_token_scores(weights, tokens):
    """mean_{b, i≥1} A[i, 0]: (l, h), how much a head rests on the first token.

    Paper: "Induction Heads": where there is nothing to do, heads attend there and move
    little (`value_weighted_patterns` shows how much). Raises as `previous_token_scores`.
    """
    return attention_on(forward(weights, tokens).pattern, first_token(np.asarray(tokens)))


def value_weighted_patterns(weights, tokens):
    """A_ij ‖W_O v_j‖: how much each source moves into each destination; (l, b, h, i, j).

    In units of the residual stream. Paper: "Induction Heads" weights by ‖v_j‖ instead,
    which depends on the basis of the head: W_V → M W_V, W_O → W_O M⁻¹ is the same model
    with other ‖v_j‖. How much is moved, not whether anything reads it.
    """
    acts = forward(weights, tokens)
    moved = acts.v @ weights.W_O.mT[:, None]                                  # (l, b, h, j, d)
    return acts.pattern * np.linalg.norm(moved, axis=-1)[..., None, :]


def offset_profiles(weights, tokens):
    """mean_{b, i≥o} A[i, i−o] for o = 0 … T−1: mean attention by distance back; (l, h, o).

    Uniform attention: mean_{i≥o} 1/(i+1). Each distance has its own destinations, so a
    profile does not sum to 1, and o = T−1 has one only, looking at the first token: a head
    that rests there peaks at T−1. A peak alone does not make a head positional either: on
    repeated blocks induction heads have one. See `position_share`.
    """
    A = forward(weights, tokens).pattern.mean(1)                              # (l, h, i, j)
    n = A.shape[-1]
    return np.stack([A.trace(-o, -2, -1) / (n - o) for o in range(n)], axis=-1)


def position_share(weights, tokens):
    """How much of a head's pattern follows from i and j alone, whatever the tokens: (l, h).

        1 − Σ_ij var_b A_ij / Σ_ij mean_b (A_ij − 1/(i+1))²,     var_b unbiased, j ≤ i

    A row's mean is 1/(i+1) for every head, so deviations from that are what there is to
    explain; their mean over contexts at (i, j) is what position explains. 1: all contexts
    share one pattern (so do heads that are uniform up to rounding, by definition). 0: what
    patterns that ignore position give in the mean at any batch size, with a scatter of 1/b.

    Position is what contexts share: a token that stands at one place in all of them (START)
    counts as position. Tokens (b, i) that differ are needed: b = 1 raises InputError.
    """
    A = forward(weights, tokens).pattern
    b, n = A.shape[1], A.shape[-1]
    if b < 2:
        raise InputError("position_share compares contexts and needs at least 2; got b=1")
    uniform = np.tri(n, dtype=A.dtype) / np.arange(1, n + 1, dtype=A.dtype)[:, None]
    deviation = A - uniform
    within = deviation.var(1).sum((-2, -1))          # mean_b (A − mean_b A)², over ij: (l, h)
    total = within + (deviation.mean(1) ** 2).sum((-2, -1))
    rounding = ((100 * np.finfo(A.dtype).eps * uniform) ** 2).sum()
    unexplained = np.divide(within, total, out=np.zeros_like(total), where=~(total <= rounding))
    return 1 - b / (b - 1) * unexplained


def attended_token_scores(weights, tokens):
    """How far a head's output raises the logits of the very tokens it attends to: (l, h).

        Σ_bi Σ_j A_ij (f_i[token_j] − mean_v f_i) / Σ_bi std_v f_i,      f_i = W_U W_O z_i

    The second half of an induction head's definition in Olsson et al. 2022, and what their
    copying evaluator is after: the head's output raises the attended token. Here in standard
    deviations, over the vocabulary, of what the head writes, so that its scale does not
    count. A destination counts by how much is written there: resting is little. Copying
    through d_head random dimensions gives about √d_head where one source is attended to,
    less where many are; chance is 0 ± 1/√d_model; negative: anti-copying. 0 if nothing is
    written.

    Of these tokens and of the direct effect only; z holds all that reached the sources, where
    `copying_score` takes their embeddings, for every token alike. Invariant under one row
    added to every row of W_U, and under every change of the head's basis.
    """
    acts, tokens = forward(weights, tokens), np.asarray(tokens)
    scores = np.zeros((weights.n_layers, weights.n_heads), weights.dtype)
    for layer, head in np.ndindex(scores.shape):
        A, z = acts.pattern[layer, :, head], acts.z[layer, :, head]
        W = weights.W_U @ weights.W_O[layer, head]                            # (v, e)
        W -= W.mean(0)                           # so W z_i is f_i − mean_v f_i
        raised = z @ W[tokens].mT                                             # (b, i, j)
        R = np.linalg.qr(W, mode="r")            # ‖R z‖ = ‖W z‖, without an axis v
        spread = np.linalg.norm(z @ R.T, axis=-1).sum() / weights.d_vocab ** 0.5
        scores[layer, head] = (A * raised).sum() / spread if spread else 0
    return scores
