"""Loss by position, random blocks and the control, on models whose behavior is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.behavior import in_context
from minicircuits.behavior.in_context import (block_lengths, in_context_score, induction_scores,
                                              loss_by_position, middle_length,
                                              ordered_versus_shuffled, random_blocks)
from minicircuits.behavior.patterns import prefix_matching_scores
from minicircuits.model.transformer import init_weights, loss
from minicircuits.notation import InputError, Weights
from minicircuits.plain import model as plain
from tests.draws import assert_close, draw_case, random_case, random_weights


@settings(max_examples=30, deadline=None)
@given(draw_case())
def test_loss_by_position_equals_the_loops(case):
    (weights, tokens), logits = case, plain.forward(*case).logits
    b, n = tokens.shape
    expected = np.array([sum(
        math.log(sum(math.exp(x) for x in logits[c, i])) - logits[c, i, tokens[c, i + 1]]
        for c in range(b)) / b for i in range(n - 1)])
    assert_close(loss_by_position(weights, tokens), expected, 1e-12, np.log(weights.d_vocab) + 1)
    if n > 1:
        assert_close(loss_by_position(weights, tokens).mean(), loss(weights, tokens), 1e-12)


def test_loss_by_position_follows_the_dtype():
    assert loss_by_position(*random_case(0, dtype=np.float32)).dtype == np.float32


def test_in_context_score_is_late_minus_early():
    weights, tokens = random_case(1, b=5, i=6)
    losses = loss_by_position(weights, tokens)
    assert in_context_score(losses, early=1, late=4) == losses[4] - losses[1]
    around = losses[:3].sum() / 3, losses[2:5].sum() / 3
    assert_close(in_context_score(losses, early=1, late=3, around=1), around[1] - around[0], 1e-12)
    for early, late, wide in (0, 3, 1), (1, 4, 1), (1, 3, -1):
        with pytest.raises(InputError, match=f"late={late}, around={wide}"):
            in_context_score(losses, early, late, wide)
    for early, late in (4, 1), (2, 2), (-1, 3), (1, 5):
        with pytest.raises(InputError, match=f"< 5, .*got early={early}, late={late}"):
            in_context_score(losses, early, late)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 3), st.integers(1, 4), st.none() | st.integers(0, 8),
       st.integers(0, 99))
def test_random_blocks_are_what_they_say(block, repeats, batch, start, seed):
    ordered, shuffled = (random_blocks(9, block, repeats, batch, start,
                                       np.random.default_rng(seed), shuffled=control)
                         for control in (False, True))
    if start is not None:
        assert (ordered[:, 0] == start).all() and (shuffled[:, 0] == start).all()
        ordered, shuffled = ordered[:, 1:], shuffled[:, 1:]
    for tokens in ordered, shuffled:
        assert tokens.shape == (batch, block * repeats) and (tokens != start).all()
        for context in tokens:
            first = context[:block]
            assert len(set(first)) == block and first.min() >= 0 and first.max() < 9
            for n in range(repeats):
                assert set(context[n * block:(n + 1) * block]) == set(first)
    assert (ordered == np.tile(ordered[:, :block], repeats)).all()
    assert (ordered[:, :block] == shuffled[:, :block]).all()


def test_random_blocks_use_every_token_and_shuffle_each_block_anew():
    tokens = random_blocks(6, 4, 3, 200, 2, np.random.default_rng(0), shuffled=True)
    assert set(tokens[:, 1]) == {0, 1, 3, 4, 5}
    second, third = tokens[:, 5:9], tokens[:, 9:]
    for one, other in (tokens[:, 1:5], second), (second, third):
        assert 0.1 < (one == other).mean() < 0.4              # chance: 1/4


@pytest.mark.parametrize("sizes", [dict(block=0), dict(repeats=0), dict(batch=0),
                                   dict(block=9), dict(start=9), dict(start=-1),
                                   dict(block=10, start=None)])
def test_random_blocks_refuse_what_cannot_be(sizes):
    with pytest.raises(InputError, match="must be"):
        random_blocks(**{**dict(d_vocab=9, block=3, repeats=2, batch=1, start=0), **sizes},
                      rng=np.random.default_rng(0))


# Models whose behavior is known. Dimensions: tokens as read, their predecessors, tokens as
# written, positions. W_U reads what is written.

V, N_CTX = 13, 23
BLOCKS = (4, 7, 11)
EYE = np.eye(3 * V + N_CTX)
READ, PREDECESSOR, WRITTEN, PLACE = EYE[:V], EYE[V:2 * V], EYE[2 * V:3 * V], EYE[3 * V:]


def built(*heads):
    """A layer for each head: (query, key, value, output), rows of EYE or sums of them."""
    d = len(EYE)
    W = {name: np.zeros((len(heads), 1, d, d)) for name in ("W_Q", "W_K", "W_V", "W_O")}
    for layer, (q, k, v, o) in enumerate(heads):
        W["W_Q"][layer, 0, :len(q)] = q * d ** 0.5
        W["W_K"][layer, 0, :len(k)] = k
        W["W_V"][layer, 0, :len(v)] = v
        W["W_O"][layer, 0, :, :len(o)] = o.T
    return Weights(W_E=READ.T, W_pos=PLACE.T, W_U=WRITTEN, positions="shortformer", **W)


def looking_back(distance):
    """Attends `distance` back; writes the token it reads there as a predecessor."""
    return 40 * PLACE[distance:], PLACE[:N_CTX - distance], READ, PREDECESSOR


# Attends to what followed the present token's copies, or rests on START (place 0), and
# copies what it reads there.
INDUCTION = (np.concatenate([60 * READ, 30 * PLACE.sum(0, keepdims=True)]),
             np.concatenate([PREDECESSOR, PLACE[:1]]), READ, 40 * WRITTEN)
SEEN = (0 * READ, 0 * READ, READ, 40 * WRITTEN)       # uniform attention; raises what was seen


def test_an_induction_head_is_found():
    scores = induction_scores(built(looking_back(1), INDUCTION), 0, np.random.default_rng(0),
                              BLOCKS, batch=3)
    assert scores.shape == (2, 1)
    assert scores[0, 0] < 1e-12 and scores[1, 0] > 1 - 1e-9


def test_a_head_that_looks_a_fixed_distance_back_is_not_one():
    weights = built(looking_back(BLOCKS[1] - 1))
    tokens = random_blocks(V, BLOCKS[1], 2, 3, 0, np.random.default_rng(0))
    assert prefix_matching_scores(weights, tokens) > 1 - 1e-12    # at its own length, perfect
    assert induction_scores(weights, 0, np.random.default_rng(0), BLOCKS, batch=3) < 1e-12


def test_uniform_attention_scores_chance_on_the_longest_block():
    scores = induction_scores(built(SEEN), 0, np.random.default_rng(0), BLOCKS, batch=2)
    n = max(BLOCKS)
    assert_close(scores, np.full((1, 1), np.mean([1 / (i + 1) for i in range(n + 1, 2 * n + 1)])),
                 1e-12)


def test_induction_shows_in_order_only_where_it_can():
    """All n−1 predictable places are free; the second block's first token is a wild guess."""
    weights, rng = built(looking_back(1), INDUCTION), np.random.default_rng(1)
    for block in BLOCKS:
        result = ordered_versus_shuffled(weights, 0, rng, block, batch=4)
        assert result.ordered < 1e-9
        assert result.shuffled > 10                  # sure of the wrong token
        assert result.gap == result.shuffled - result.ordered
    tokens = random_blocks(V, block, 2, 4, 0, rng)
    losses = loss_by_position(weights, tokens)
    assert losses[block] > 10 and losses[block + 1:].max() < 1e-9


def test_raising_what_was_seen_makes_the_second_block_cheaper_but_no_gap():
    """The reason for the control: the drop from block to block is no evidence."""
    weights, block = built(SEEN), 11
    losses = loss_by_position(weights, random_blocks(V, block, 2, 4, 0, np.random.default_rng(2)))
    assert losses[block + 1:].mean() < losses[:block].mean() - 1
    result = ordered_versus_shuffled(weights, 0, np.random.default_rng(2), block, batch=4)
    assert abs(result.gap) < 1e-12


@pytest.mark.parametrize("start", [0, None])
def test_both_cases_have_the_same_first_blocks_and_count_the_same_places(monkeypatch, start):
    """Predictions from the second block's first token on: destinations n+1 … 2n−1, with START."""
    seen, n, first = [], 5, 0 if start is None else 1

    def run(weights, tokens):
        seen.append(tokens)
        return np.tile(np.arange(tokens.shape[1]) ** 2.0, (len(tokens), 1))

    def mean_of_predictions(squares, tokens):
        assert squares.shape == tokens.shape
        return squares[:, :-1].mean()

    monkeypatch.setattr(in_context, "layers", run)
    monkeypatch.setattr(in_context, "logits_at", lambda _, squares, places: squares[:, places])
    monkeypatch.setattr(in_context, "cross_entropy", mean_of_predictions)
    result = ordered_versus_shuffled(built(SEEN), start, np.random.default_rng(0), n, batch=3)
    assert result.ordered == result.shuffled == np.mean(
        [i ** 2 for i in range(n + first, 2 * n + first - 1)])
    ordered, shuffled = (tokens[:, first:] for tokens in seen)
    assert (ordered[:, :n] == shuffled[:, :n]).all()
    assert (ordered[:, n:] == ordered[:, :n]).all()
    assert (shuffled[:, n:] != shuffled[:, :n]).any()


def test_the_default_blocks_are_the_honest_ones():
    """13, 29 and 47, which fit into 128 places; no induction in random weights."""
    weights = init_weights(1, 2, 6, 3, 50, 128, "shortformer", np.random.default_rng(0))
    expected = np.min([prefix_matching_scores(weights, random_blocks(50, n, 2, 2, 7, rng))
                       for rng in [np.random.default_rng(3)] for n in (13, 29, 47)], axis=0)
    assert_close(induction_scores(weights, 7, np.random.default_rng(3), batch=2), expected, 1e-12)
    assert expected.max() < 0.1
    assert abs(ordered_versus_shuffled(weights, 7, np.random.default_rng(3), batch=2).gap) < 0.2


def test_contexts_too_short_for_two_blocks_are_refused():
    weights = random_weights(np.random.default_rng(0), d_vocab=31, n_ctx=12)
    rng = np.random.default_rng(0)
    for call in (lambda: induction_scores(weights, 0, rng, (3, 6)),
                 lambda: ordered_versus_shuffled(weights, 0, rng, 6)):
        with pytest.raises(InputError, match="two blocks of 6 need n_ctx >= 13.*n_ctx=12"):
            call()
    with pytest.raises(InputError, match="at least 2 tokens; got 1"):
        ordered_versus_shuffled(weights, 0, rng, 1)
    with pytest.raises(InputError, match="d_vocab=7 .*block=13"):
        induction_scores(random_weights(rng, positions="none"), 0, rng, (13,))


@pytest.mark.parametrize("n_ctx, d_vocab, start, lengths, middle", [
    (128, 1024, 0, (13, 29, 47), 29), (95, 48, 0, (13, 29, 47), 29),
    (94, 1024, 0, (12, 28, 46), 28), (94, 47, None, (13, 29, 47), 29),
    (128, 12, 0, (3, 6, 11), 6), (9, 50, 0, (2, 4), 4),
    (5, 50, 0, (2,), 2), (4, 50, None, (2,), 2), (4, 50, 0, (), None), (1, 50, None, (), None),
    (128, 2, 0, (), None)])
def test_blocks_shrink_with_the_context_and_the_vocabulary(n_ctx, d_vocab, start, lengths, middle):
    rng = np.random.default_rng(0)
    weights = random_weights(rng, d_vocab=d_vocab, n_ctx=n_ctx)
    assert block_lengths(weights, start) == lengths
    assert middle_length(weights, start) == middle
    if lengths:
        assert induction_scores(weights, start, rng).max() <= 1
        assert np.isfinite(ordered_versus_shuffled(weights, start, rng).gap)
    else:
        with pytest.raises(InputError, match="two blocks of 2 need|d_vocab=2"):
            induction_scores(weights, start, rng)


def test_a_nan_on_one_block_length_is_not_the_minimum(monkeypatch):
    answers = iter([np.array([[0.5, 0.1]]), np.array([[np.nan, 0.2]])])
    monkeypatch.setattr(in_context, "prefix_matching_scores", lambda *_: next(answers))
    with pytest.raises(InputError, match="got NaN"):
        induction_scores(built(SEEN), 0, np.random.default_rng(0), (3, 4))
