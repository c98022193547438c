"""Scores of heads on tokens against loops, on heads built by hand, and under symmetries."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.behavior.in_context import formed
from minicircuits.behavior.patterns import (
    after_earlier_copies, attention_on, duplicate_token_scores, earlier_copies, first_token,
    first_token_scores, offset_profiles, position_share, prefix_matching_scores,
    previous_token, previous_token_scores, value_weighted_patterns)
from minicircuits.model.transformer import forward
from minicircuits.notation import POSITIONS, InputError, Weights
from minicircuits.plain import model as plain
from tests.draws import assert_close, draw_case, random_case, random_weights


# Loop twins, from the definitions, on patterns of the model in plain loops.

def looks(kind, tokens, i):
    """The sources that a kind of head looks at from i, in one context."""
    copies = [j for j in range(i) if tokens[j] == tokens[i]]
    return {"previous": [i - 1] if i else [], "first": [0] if i else [], "copies": copies,
            "after copies": [j + 1 for j in copies]}[kind]


KINDS = {"previous": (previous_token, previous_token_scores),
         "first": (first_token, first_token_scores),
         "copies": (earlier_copies, duplicate_token_scores),
         "after copies": (after_earlier_copies, prefix_matching_scores)}


def mean_attention(kind, weights, tokens):
    """(l, h); None where no destination has a place to look."""
    pattern = plain.forward(weights, tokens).pattern
    shares = [sum((pattern[:, b, :, i, j] for j in looks(kind, context, i)),
                  np.zeros((weights.n_layers, weights.n_heads)))
              for b, context in enumerate(tokens) for i in range(len(context))
              if looks(kind, context, i)]
    return sum(shares) / len(shares) if shares else None


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(case=draw_case(), few=st.integers(1, 3))
def test_scores_equal_the_loops(kind, case, few):
    weights, tokens = case.weights, case.tokens % min(few, case.weights.d_vocab)    # repeats
    places, score = KINDS[kind]
    for b, context in enumerate(tokens):
        for i in range(len(context)):
            assert list(np.flatnonzero(places(tokens)[b, i])) == looks(kind, context, i)
    expected = mean_attention(kind, weights, tokens)
    if expected is None:
        with pytest.raises(InputError, match="at least one destination"):
            score(weights, tokens)
    else:
        assert_close(score(weights, tokens), expected, 1e-12)


@settings(max_examples=30, deadline=None)
@given(draw_case())
def test_offset_profiles_equal_the_loops(case):
    pattern = plain.forward(*case).pattern
    b, n = case.tokens.shape
    expected = np.zeros((case.weights.n_layers, case.weights.n_heads, n))
    for back in range(n):
        pairs = [pattern[:, c, :, i, i - back] for c in range(b) for i in range(back, n)]
        expected[..., back] = sum(pairs) / len(pairs)
    assert_close(offset_profiles(*case), expected, 1e-12)


@settings(max_examples=30, deadline=None)
@given(draw_case())
def test_value_weighted_patterns_equal_the_loops(case):
    acts, W_O = plain.forward(*case), case.weights.W_O
    expected = np.zeros_like(acts.pattern)
    for layer, b, h, i, j in np.ndindex(expected.shape):
        moved = W_O[layer, h] @ acts.v[layer, b, h, j]
        expected[layer, b, h, i, j] = acts.pattern[layer, b, h, i, j] * np.sqrt(moved @ moved)
    assert_close(value_weighted_patterns(*case), expected, 1e-12)


@settings(max_examples=30, deadline=None)
@given(draw_case(min_tokens=2))
def test_position_share_equals_the_loops(case):
    tokens = np.concatenate([case.tokens, (case.tokens + 1) % case.weights.d_vocab])   # b ≥ 2
    pattern = plain.forward(case.weights, tokens).pattern
    n_layers, b, n_heads, n, _ = pattern.shape
    expected = np.zeros((n_layers, n_heads))
    for layer, h in np.ndindex(n_layers, n_heads):
        noise = total = 0
        for i in range(n):
            for j in range(i + 1):
                column = pattern[layer, :, h, i, j]
                noise += np.var(column, ddof=1)
                total += np.mean((column - 1 / (i + 1)) ** 2)
        uniform = total < 1e-25                                  # as with one token only
        expected[layer, h] = 1 if uniform else 1 - noise / total
    # 1 − a ratio: what is rounded is the ratio.
    scale = np.max(1 - expected, initial=1)
    assert_close(position_share(case.weights, tokens), expected, 1e-12, scale)


# Heads built by hand. Tokens and positions have dimensions of their own.

def built(W_QK, n_ctx, d_vocab, W_OV=None):
    """One head with given W_QK, in a residual stream of d_vocab + n_ctx dimensions."""
    d = d_vocab + n_ctx
    eye = np.eye(d)
    return Weights(W_E=eye[:, :d_vocab], W_pos=eye[:, d_vocab:], W_U=eye[:d_vocab],
                   W_Q=W_QK.T[None, None] * d ** 0.5, W_K=eye[None, None], W_V=eye[None, None],
                   W_O=(np.zeros((d, d)) if W_OV is None else W_OV)[None, None],
                   positions="shortformer")


def looking_back(distance, n_ctx=12, d_vocab=5, strength=40):
    """Attends to i − distance, by position alone; where there is none, to all alike."""
    W_QK = np.zeros((d_vocab + n_ctx,) * 2)
    for i in range(distance, n_ctx):
        W_QK[d_vocab + i, d_vocab + i - distance] = strength
    return built(W_QK, n_ctx, d_vocab)


def repeated(n):
    """START, then n distinct tokens, twice; in two contexts of different order."""
    return np.array([[0, *range(1, n + 1)] + [*range(1, n + 1)],
                     [0, *range(n, 0, -1)] + [*range(n, 0, -1)]])


def test_a_previous_token_head_is_one():
    weights, tokens = looking_back(1), random_case(0, b=3, i=11, d_vocab=5).tokens
    assert_close(previous_token_scores(weights, tokens), np.ones((1, 1)), 1e-14)
    assert previous_token_scores(looking_back(2), tokens) < 0.06       # only i = 1 looks at 0
    profile = offset_profiles(weights, tokens)[0, 0]
    assert profile.argmax() == 1 and profile[1] > 1 - 1e-14 and profile[2:].max() < 1e-14


def test_the_stripe_of_prefix_matching_is_at_n_minus_one():
    """On two blocks of n, followers of copies are n−1 back, copies n back."""
    n = 4
    tokens = repeated(n)
    for distance in (n - 2, n - 1, n, n + 1):
        weights = looking_back(distance, d_vocab=n + 1)
        assert (prefix_matching_scores(weights, tokens) > 0.999) == (distance == n - 1)
        assert (duplicate_token_scores(weights, tokens) > 0.999) == (distance == n)
        assert (prefix_matching_scores(weights, tokens) < 1e-12) == (distance != n - 1)


def test_uniform_attention_scores_chance():
    """ln 2/n for prefix matching on two blocks of n, and 1/(i+1) wherever there is one place."""
    n = 5
    weights, tokens = looking_back(1, d_vocab=n + 1, strength=0), repeated(n)
    second = np.mean([1 / (i + 1) for i in range(n + 1, 2 * n + 1)])
    assert_close(prefix_matching_scores(weights, tokens), np.full((1, 1), second), 1e-14)
    assert_close(duplicate_token_scores(weights, tokens), np.full((1, 1), second), 1e-14)
    assert abs(second - np.log(2) / n) < 0.15 / n
    later = np.mean([1 / (i + 1) for i in range(1, 2 * n + 1)])
    assert_close(previous_token_scores(weights, tokens), np.full((1, 1), later), 1e-14)
    assert_close(first_token_scores(weights, tokens), np.full((1, 1), later), 1e-14)
    chance = [np.mean([1 / (i + 1) for i in range(o, 2 * n + 1)]) for o in range(2 * n + 1)]
    assert_close(offset_profiles(weights, tokens)[0, 0], np.array(chance), 1e-14)


def test_formed_is_four_times_what_uniform_attention_gives():
    weights, tokens = looking_back(1, 59, 30, strength=0), repeated(29)
    uniform = prefix_matching_scores(weights, tokens)[0, 0]
    assert round(uniform, 3) == 0.023                      # as `formed` says
    assert not formed({"prefix_matching": 4.3 * uniform})
    assert formed({"prefix_matching": 4.4 * uniform})


def test_a_resting_head_rests_and_peaks_at_the_last_offset():
    n_ctx, d_vocab = 7, 4
    W_QK = np.zeros((n_ctx + d_vocab,) * 2)
    W_QK[d_vocab:, d_vocab] = 40
    weights, tokens = built(W_QK, n_ctx, d_vocab), np.zeros((1, n_ctx), int)
    assert_close(first_token_scores(weights, tokens), np.ones((1, 1)), 1e-14)
    assert offset_profiles(weights, tokens)[0, 0].argmax() == n_ctx - 1


def test_a_token_that_follows_itself_counts():
    """In `a a`, the follower of the earlier a is the present one."""
    places = after_earlier_copies(np.array([[3, 1, 1, 1]]))
    assert places[0].tolist() == [[False] * 4, [False] * 4, [False, False, True, False],
                                  [False, False, True, True]]


def test_position_share_is_one_for_heads_that_only_know_positions():
    tokens = random_case(5, b=7, i=10, d_vocab=5).tokens
    for weights in (looking_back(1), looking_back(3, strength=0.7),
                    looking_back(1, strength=0)):                 # uniform: by definition
        assert_close(position_share(weights, tokens), np.ones((1, 1)), 1e-14)


def test_position_share_does_not_measure_rounding():
    """Patterns that are uniform but for the last digits count as uniform."""
    weights, tokens, _ = case_for(12, "none")
    flat = replace(weights, W_Q=1e-15 * weights.W_Q)
    assert (forward(flat, tokens).pattern[:, 0] != forward(flat, tokens).pattern[:, 1]).any()
    assert (position_share(flat, tokens) == 1).all()
    faint = replace(weights, W_Q=1e-6 * weights.W_Q)
    assert (position_share(faint, tokens) < 0.9).all()


@pytest.mark.parametrize("batch", [2, 5, 31])
def test_position_share_is_about_zero_for_heads_that_only_know_sources(batch):
    """Scores that depend on the source token alone: E A_ij = 1/(i+1), at every batch size.

    Without the correction for b, two contexts would give 1/2.
    """
    n_ctx, d_vocab = 9, 50
    W_QK = np.zeros((n_ctx + d_vocab,) * 2)
    W_QK[d_vocab:, :d_vocab] = np.random.default_rng(1).normal(0, 2, d_vocab)
    weights, rng = built(W_QK, n_ctx, d_vocab), np.random.default_rng(batch)
    shares = [position_share(weights, rng.integers(d_vocab, size=(batch, n_ctx)))[0, 0]
              for _ in range(40)]
    assert abs(np.mean(shares)) < 5 * np.std(shares) / 40 ** 0.5
    assert np.std(shares) < 1 / batch


# Symmetries. Every score (and pattern) under changes that leave the model the same.

ALL = {"prefix": prefix_matching_scores, "previous": previous_token_scores,
       "duplicate": duplicate_token_scores, "first": first_token_scores,
       "offsets": offset_profiles, "share": position_share,
       "weighted": value_weighted_patterns}
HEAD_AXIS = {"weighted": 2}                                   # otherwise 1
VOCABULARY = 5


def case_for(seed, positions):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, d_vocab=VOCABULARY, n_ctx=9, positions=positions)
    return weights, rng.integers(VOCABULARY, size=(4, 8)), rng


def invertible(rng, n):
    return np.eye(n) + 0.3 * rng.standard_normal((n, n))


def rotated(weights, rng):
    M = np.linalg.qr(rng.standard_normal((weights.d_model,) * 2))[0]
    return replace(weights, W_E=M @ weights.W_E, W_O=M @ weights.W_O,
                   W_pos=None if weights.W_pos is None else M @ weights.W_pos,
                   **{name: getattr(weights, name) @ M.T for name in ("W_Q", "W_K", "W_V", "W_U")})


def other_qk_basis(weights, rng):
    M = invertible(rng, weights.d_head)
    return replace(weights, W_Q=M @ weights.W_Q, W_K=np.linalg.inv(M).T @ weights.W_K)


def other_ov_basis(weights, rng):
    M = invertible(rng, weights.d_head)
    return replace(weights, W_V=M @ weights.W_V, W_O=weights.W_O @ np.linalg.inv(M))


def raised_logits(weights, rng):
    return replace(weights, W_U=weights.W_U + rng.standard_normal(weights.d_model))


@pytest.mark.parametrize("change", [rotated, other_qk_basis, other_ov_basis, raised_logits])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("positions", POSITIONS)
def test_scores_keep_what_leaves_the_model_the_same(positions, name, change):
    weights, tokens, rng = case_for(3, positions)
    assert_close(ALL[name](change(weights, rng), tokens), ALL[name](weights, tokens), 1e-11)


@pytest.mark.parametrize("name", ALL)
def test_scores_follow_heads_vocabulary_and_batch(name):
    weights, tokens, rng = case_for(4, "shortformer")
    score, axis = ALL[name], HEAD_AXIS.get(name, 1)
    expected = score(weights, tokens)
    order = rng.permutation(weights.n_heads)
    assert not (order == np.arange(weights.n_heads)).all()
    heads = replace(weights, **{W: getattr(weights, W)[:, order]
                                for W in ("W_Q", "W_K", "W_V", "W_O")})
    assert_close(score(heads, tokens), expected.take(order, axis), 1e-12)
    new = rng.permutation(VOCABULARY)
    renamed = replace(weights, W_E=weights.W_E[:, new], W_U=weights.W_U[new])
    assert_close(score(renamed, new.argsort()[tokens]), expected, 1e-12)
    expected = expected[:, ::-1] if name == "weighted" else expected
    assert_close(score(weights, tokens[::-1]), expected, 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_scores_change_where_patterns_change(name):
    """Padding d_head with zeros rescales the scores by another 1/√d_head."""
    weights, tokens, _ = case_for(5, "shortformer")
    pad = ((0, 0), (0, 0), (0, 2), (0, 0))
    padded = replace(weights, **{W: np.pad(getattr(weights, W), pad)
                                 for W in ("W_Q", "W_K", "W_V")},
                     W_O=np.pad(weights.W_O, ((0, 0), (0, 0), (0, 0), (0, 2))))
    assert np.abs(ALL[name](padded, tokens) - ALL[name](weights, tokens)).max() > 1e-3


# Edges.

def test_one_token_and_no_repetition_are_errors():
    weights, _, _ = case_for(8, "none")
    for score in (previous_token_scores, first_token_scores, prefix_matching_scores):
        with pytest.raises(InputError, match=r"got none in axes \(b, i\)=\(2, 1\)"):
            score(weights, [[1], [2]])
    for score in (prefix_matching_scores, duplicate_token_scores):
        with pytest.raises(InputError, match="earlier copy"):
            score(weights, [[1, 2, 3], [2, 4, 0]])
    with pytest.raises(InputError, match="b=1"):
        position_share(weights, [[1, 2]])


def test_no_layers_give_no_scores_and_dtypes_follow_the_weights():
    rng = np.random.default_rng(0)
    empty = random_weights(rng, n_layers=0, n_heads=3)
    single = random_weights(rng, dtype=np.float32)
    tokens = np.array([[1, 2, 1, 2], [0, 1, 1, 2]])
    for name, score in ALL.items():
        assert score(empty, tokens).shape[0] == 0
        assert score(single, tokens).dtype == np.float32, name


def test_a_nan_in_a_pattern_is_no_score():
    weights, tokens, _ = case_for(10, "none")
    acts = forward(weights, tokens)
    acts.pattern[0, 1, 2, 3, 0] = np.nan
    for name, score in ALL.items():
        with pytest.raises(InputError, match="finite|NaN"):
            score(weights, tokens, acts)


def test_attention_on_can_be_given_any_places():
    weights, tokens, _ = case_for(11, "standard")
    pattern = forward(weights, tokens).pattern
    everywhere = np.broadcast_to(np.tri(8, dtype=bool), (4, 8, 8))
    assert_close(attention_on(pattern, everywhere), np.ones((2, 3)), 1e-14)
