"""The forward pass against the same formulas in plain loops, and against bad input."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from minicircuits.model.attention import causal_softmax
from minicircuits.model.cross_entropy import cross_entropy, cross_entropy_backward
from minicircuits.model.fast import loss_and_gradients as fast_loss_and_gradients
from minicircuits.model.transformer import forward, init_weights, loss, loss_and_gradients
from minicircuits.notation import POSITIONS, InputError
from minicircuits.plain import model as plain
from tests.draws import (arrays, assert_all_close, assert_close, assert_loss_close, draw_case,
                         random_case, random_weights, roundings)


@settings(max_examples=100, deadline=None)
@given(draw_case())
def test_every_activation_equals_the_plain_loops(case):
    assert_all_close(forward(*case), plain.forward(*case), 1e-12)


@settings(max_examples=30, deadline=None)
@given(draw_case(dtype=np.complex128))
def test_complex_weights_pass_through(case):
    assert_all_close(forward(*case), plain.forward(*case), 1e-12)


@settings(max_examples=40, deadline=None)
@given(draw_case(min_tokens=2))
def test_loss_equals_the_plain_loops(case):
    assert_loss_close(loss(*case), plain.loss(*case), forward(*case).logits)


@settings(max_examples=20, deadline=None)
@given(draw_case(min_tokens=2, dtype=np.float32))
def test_float32_is_as_good_as_float32_can_be(case):
    """Off by at most 16 times what one rounding after each step can do, all the way down."""
    weights, tokens, rng = case.weights.astype(np.float64), case.tokens, np.random.default_rng(0)

    def results(nudges=None):
        return {**arrays(plain.forward(weights, tokens, nudges)),
                "loss": np.asarray(plain.loss(weights, tokens, nudges))}

    exact, acts = results(), forward(weights, tokens)
    runs = [results(roundings(acts, rng)) for _ in range(3)]
    for name, array in {**arrays(forward(*case)), "loss": loss(*case)}.items():
        assert array.dtype == np.float32, name
        moved = max(np.abs(run[name] - exact[name]).max(initial=0) for run in runs)
        # A loss is a small difference of large numbers: its own rounding is theirs.
        largest = np.abs(exact["logits" if name == "loss" else name]).max(initial=0)
        allowed = 16 * moved + 2.0 ** -23 * (largest + (name == "loss"))
        assert np.abs(array - exact[name]).max(initial=0) <= allowed, name


@pytest.mark.parametrize("positions", POSITIONS)
def test_drawn_patterns_are_neither_flat_nor_saturated(positions):
    """The other tests see what a pattern does only if it does something."""
    spread, largest = [], []
    for seed in range(20):
        acts = forward(*random_case(seed, i=6, positions=positions))
        spread.append(acts.scores[..., -1, :].std(-1).mean())
        largest.append(acts.pattern[..., -1, :].max(-1).mean())
    assert 1 <= np.mean(spread) <= 3
    assert 0.4 <= np.mean(largest) <= 0.85        # flat is 1/6


def test_activations_are_what_their_names_say():
    weights, tokens = random_case(1, i=6)
    acts = forward(weights, tokens)
    later = np.triu(np.ones((6, 6), bool), 1)
    assert np.isfinite(acts.scores).all() and (acts.scores[..., later] != 0).all()
    assert (acts.pattern[..., later] == 0).all()
    assert (acts.pattern[..., ~later] > 0).all()
    assert_close(acts.pattern.sum(-1), np.ones((2, 2, 3, 6)), 1e-14)
    assert (acts.pattern[..., 0, 0] == 1).all()
    assert (acts.residual[0] == weights.W_E.T[tokens]).all()


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_position_sees_only_what_came_before(positions):
    weights, tokens = random_case(2, i=6, positions=positions)
    acts = forward(weights, tokens)
    for i in range(6):
        other = tokens.copy()
        other[:, i:] = (other[:, i:] + 1) % weights.d_vocab
        assert_close(forward(weights, other).logits[:, :i], acts.logits[:, :i], 1e-14)
        assert_close(forward(weights, tokens[:, :i + 1]).logits, acts.logits[:, :i + 1], 1e-14)


def test_positions_reach_patterns_everywhere_and_values_in_standard_mode_only():
    weights, tokens = random_case(3)
    flat = replace(weights, W_Q=0 * weights.W_Q)           # uniform patterns, whatever the keys
    without = replace(flat, W_pos=None, positions="none")
    standard = replace(flat, positions="standard")
    assert (forward(flat, tokens).logits == forward(without, tokens).logits).all()
    assert (forward(standard, tokens).logits != forward(without, tokens).logits).all()
    without = replace(weights, W_pos=None, positions="none")
    scores, scores_without = forward(weights, tokens).scores, forward(without, tokens).scores
    assert (scores != scores_without).all()                # in both layers


def test_scores_far_beyond_the_range_of_exp():
    """Each row has its own maximum, and a masked score may be far above it."""
    weights, tokens = random_case(4, i=6)
    weights = replace(weights, W_Q=1e5 * weights.W_Q)
    acts = forward(weights, tokens)
    assert np.abs(acts.scores).max() > 1e5
    assert_all_close(acts, plain.forward(weights, tokens), 1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [0, 65, 1e4, -65, -1e4])
def test_a_shift_of_a_row_leaves_its_pattern(shift, dtype):
    """Also of one row alone, and where exp of the row as it is would be 0 or infinite."""
    scores = np.random.default_rng(0).standard_normal((2, 5, 5)).astype(dtype)
    shifted = scores.copy()
    shifted[1, 3] += dtype(shift)
    error = np.abs(causal_softmax(shifted) - causal_softmax(scores)).max()
    assert error <= 4 * np.finfo(dtype).eps * (1 + abs(shift))


@pytest.mark.parametrize("others", [0, 1000, -1000])
def test_a_nan_stays_in_its_row_and_a_masked_one_does_nothing(others):
    scores = np.full((2, 4, 4), float(others))
    expected = causal_softmax(scores)
    for masked in np.nan, np.inf, 1e300:
        scores[0, 2, 3] = masked
        assert (causal_softmax(scores) == expected).all()
    scores[0, 2, 1] = np.nan
    assert np.argwhere(np.isnan(causal_softmax(scores)).any(-1)).tolist() == [[0, 2]]


def test_a_target_whose_probability_underflows():
    weights, tokens = random_case(5, n_layers=0)
    weights = replace(weights, W_U=1e5 * weights.W_U)
    assert loss(weights, tokens) > 1e4
    assert_loss_close(loss(weights, tokens), plain.loss(weights, tokens), 1.0)


@pytest.mark.parametrize("likely", [0, 1024, 2047])
def test_many_unlikely_tokens_count_beside_a_likely_one(likely):
    """e^−16.5 is less than half an ulp of 1 in float32: added one by one, 2047 of them vanish.

    NumPy adds pairwise, in 8 sums of 16 at the bottom: 16 + 3 + log2(2048/128) roundings.
    """
    logits = np.zeros((1, 2, 2048), np.float32)
    logits[..., likely] = 16.5
    found = cross_entropy(logits, tokens := np.full((1, 2), likely))
    shares = cross_entropy_backward(logits, tokens)[0, 0].astype(float)
    expected = np.log1p(2047 * np.exp(-16.5))
    assert abs(found - expected) <= 24 * 2.0 ** -24
    assert abs(shares.sum()) <= 24 * 2.0 ** -24


def test_arguments_are_not_written_to_and_a_second_call_is_the_same():
    weights, tokens = random_case(6)
    for array in (*arrays(weights).values(), tokens):
        array.setflags(write=False)
    first, second = arrays(forward(weights, tokens)), arrays(forward(weights, tokens))
    for name in first:
        assert (first[name] == second[name]).all(), name
    assert loss(weights, tokens) == loss(weights, tokens)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda a: a[(slice(None, None, -1),) * a.ndim].copy()[
        (slice(None, None, -1),) * a.ndim],
    "every other entry": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layout_does_not_matter(layout):
    weights, tokens = random_case(7)
    same = replace(weights, **{name: layout(W) for name, W in weights.items()})
    assert all((a == b).all() for a, b in zip(arrays(same).values(), arrays(weights).values()))
    assert_all_close(forward(same, layout(tokens)), forward(weights, tokens), 1e-14)
    assert abs(loss(same, layout(tokens)) - loss(weights, tokens)) <= 1e-14


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, ">i4"])
def test_tokens_of_any_integer_type(dtype):
    weights, tokens = random_case(8)
    assert (forward(weights, tokens.astype(dtype)).logits == forward(weights, tokens).logits).all()
    assert loss(weights, tokens.astype(dtype)) == loss(weights, tokens)
    assert (forward(weights, tokens.tolist()).logits == forward(weights, tokens).logits).all()


@pytest.mark.parametrize("call", [forward, loss, loss_and_gradients, fast_loss_and_gradients,
                                  plain.forward, plain.loss, plain.loss_and_gradients])
def test_bad_tokens_are_refused_at_every_door(call):
    """All kinds of them: `tests/test_notation.py`."""
    weights = random_weights(np.random.default_rng(0))
    for bad in [[0, 7]], [[0, -1]], [[0.0, 1.0]], [0, 1]:
        with pytest.raises(InputError, match=r"\Atokens must .*; got .*\Z"):
            call(weights, bad)


def test_one_token_has_no_loss():
    weights, tokens = random_case(9, i=1)
    forward(weights, tokens)
    for call in (loss, loss_and_gradients, fast_loss_and_gradients, plain.loss,
                 plain.loss_and_gradients):
        with pytest.raises(InputError, match=r"\A.*at least 2 tokens.*; got 1\Z"):
            call(weights, tokens)


def test_without_positions_the_context_is_unlimited():
    weights, tokens = random_case(10, i=40, n_ctx=None, positions="none")
    assert forward(weights, tokens).logits.shape == (2, 40, 7)


@pytest.mark.parametrize("positions", POSITIONS)
def test_initial_weights(positions):
    sizes = dict(n_layers=2, n_heads=3, d_model=5, d_head=4, d_vocab=7, n_ctx=6)
    weights = init_weights(**sizes, positions=positions, rng=np.random.default_rng(0))
    sizes["n_ctx"] = None if positions == "none" else 6
    assert {name: getattr(weights, name) for name in sizes} == sizes
    assert weights.dtype == np.float64 and weights.positions == positions
    again = init_weights(**{**sizes, "n_ctx": 6}, positions=positions,
                         rng=np.random.default_rng(0), dtype=np.float32)
    assert_all_close(again, weights.astype(np.float32), 2.0 ** -22)
    tokens = np.random.default_rng(1).integers(7, size=(8, 6))
    assert abs(loss(weights, tokens) - np.log(7)) < 0.5      # an untrained model is unsure


@pytest.mark.parametrize("name", ["n_layers", "n_heads", "d_model", "d_head", "d_vocab"])
def test_initial_weights_of_no_size(name):
    sizes = dict(n_layers=1, n_heads=1, d_model=2, d_head=2, d_vocab=2) | {name: -1}
    with pytest.raises(InputError, match=f"{name} must be at least") as caught:
        init_weights(**sizes, n_ctx=2, positions="none", rng=np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    if name != "n_layers":
        with pytest.raises(InputError, match=f"{name} must be at least 1; got 0"):
            init_weights(**sizes | {name: 0}, n_ctx=2, positions="none",
                         rng=np.random.default_rng(0))


@pytest.mark.parametrize("positions, says", [("rotary", "positions must be one of"),
                                             ("standard", "W_pos must be None exactly when")])
def test_initial_weights_of_an_unknown_mode_or_without_the_context_it_needs(positions, says):
    with pytest.raises(InputError, match=says):
        init_weights(1, 1, 2, 2, 2, None, positions, np.random.default_rng(0))
