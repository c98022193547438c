"""The data that every room shares: what exists is sound, and what is wrong is said in a line."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from minicircuits.model.transformer import forward
from minicircuits.notation import (ACTIVATION_AXES, DTYPES, POSITIONS, WEIGHT_AXES, Activations,
                                   InputError, Weights, check_axes, check_head, check_pattern,
                                   check_tokens, relative_error)
from tests.draws import assert_close, random_case, random_weights

SIZES = dict(n_layers=2, n_heads=3, d_head=4, d_model=5, d_vocab=7, n_ctx=6)
WEIGHTS = random_weights(np.random.default_rng(0), **SIZES)


def raises(says):
    """One line that says `says`."""
    return pytest.raises(InputError, match=f"(?m)^{says}\\Z")


def test_errors_are_of_one_family():
    assert issubclass(InputError, ValueError)


def test_tables_name_the_fields():
    assert [field.name for field in fields(Weights) if field.init] == [*WEIGHT_AXES, "positions"]
    assert [field.name for field in fields(Activations)] == [*ACTIVATION_AXES]
    assert [name for name, _ in WEIGHTS.items()] == [*WEIGHT_AXES]


def test_the_axes_of_the_tables_hold():
    weights, tokens = random_case(0, b=8, i=6, **SIZES)
    for name, W in weights.items():
        assert W.shape == tuple(SIZES[axis] for axis in WEIGHT_AXES[name]), name
    letters = {"l": 2, "l+1": 3, "b": 8, "h": 3, "i": 6, "j": 6, "d": 5, "e": 4, "v": 7}
    acts = forward(weights, tokens)
    for name, axes in ACTIVATION_AXES.items():
        assert getattr(acts, name).shape == tuple(letters[axis] for axis in axes.split()), name


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_every_kind(dtype, n_layers, positions):
    weights = random_weights(np.random.default_rng(0), n_layers=n_layers, positions=positions,
                             dtype=dtype)
    assert weights.dtype == dtype and weights.n_layers == n_layers
    assert ("W_pos" in dict(weights.items())) == (positions != "none")
    assert weights.n_ctx == (None if positions == "none" else 6)


def test_weights_are_frozen_and_not_copied():
    with pytest.raises(FrozenInstanceError):
        WEIGHTS.W_E = WEIGHTS.W_E
    assert replace(WEIGHTS).W_Q is WEIGHTS.W_Q
    assert replace(WEIGHTS) != WEIGHTS == WEIGHTS                # the same object, or not equal


def test_their_fields_make_them_again():
    again = Weights(*(getattr(WEIGHTS, field.name) for field in fields(Weights)))
    assert all(W is getattr(WEIGHTS, name) for name, W in again.items())


def test_a_line_says_what_they_are():
    assert repr(WEIGHTS) == ("Weights(n_layers=2, n_heads=3, d_model=5, d_head=4, d_vocab=7, "
                             "n_ctx=6, positions='shortformer', dtype=float64)")
    endless, tokens = random_case(0, b=8, i=6, positions="none", **SIZES)
    assert "n_ctx=None, positions='none'" in repr(endless)
    assert repr(forward(endless, tokens)) == ("Activations(n_layers=2, b=8, n_heads=3, i=6, "
                                              "d_model=5, d_vocab=7, dtype=float64)")


@pytest.mark.parametrize("change, says", [
    (dict(W_U=np.zeros((7, 6))),
     r"W_U must have axes \(d_vocab, d_model\) with d_vocab=7, d_model=5; got shape \(7, 6\)"),
    (dict(W_E=np.zeros(5)), r"W_E must have axes \(d_model, d_vocab\); got shape \(5,\)"),
    (dict(W_E=np.zeros((5, 8))), r"W_U must have axes .* with d_vocab=8, .* got shape \(7, 5\)"),
    (dict(W_pos=np.zeros((6, 5))),
     r"W_pos must have axes \(d_model, n_ctx\) with d_model=5; got shape \(6, 5\)"),
    (dict(W_pos=np.zeros((5, 0))), r"W_pos must have axes .* got shape \(5, 0\)"),
    (dict(W_K=np.zeros((2, 3, 5, 5))), r"W_K must have axes \(n_layers, n_heads, d_head, d_model"
     r"\) with n_layers=2, n_heads=3, d_head=4, d_model=5; got shape \(2, 3, 5, 5\)"),
    (dict(W_O=np.zeros((2, 3, 4, 5))), r"W_O must have axes .*d_model, d_head.* got shape .*"),
    (dict(W_V=np.zeros((1, 3, 4, 5))), r"W_V must have axes .* got shape \(1, 3, 4, 5\)"),
    (dict(W_Q=np.zeros((2, 0, 4, 5))), r"W_Q must have axes .* got shape \(2, 0, 4, 5\)"),
    (dict(W_U=np.zeros((7, 5), np.float32)),
     "weights must share one dtype of .*; got W_E float64, W_U float32"),
    (dict(W_E=np.zeros((5, 7), int)), "weights must share one dtype .*; got W_E int64, .*"),
    (dict(W_K=np.full((2, 3, 4, 5), np.nan)), "W_K must be finite; got 120 NaN or Inf of 120"),
    (dict(W_pos=np.where(np.eye(5, 6), np.inf, 0)), "W_pos must be finite; got 5 .* of 30"),
    (dict(positions="rotary"), "positions must be one of .*, standard, none; got 'rotary'"),
    (dict(positions="none"), 'W_pos must be None exactly when positions is "none"; got .* given'),
    (dict(W_Q=None), r"W_Q must have axes \(n_layers, .*; got shape \(\)"),
    (dict(W_pos=None), 'W_pos must be None .*; got positions=\'shortformer\', W_pos None'),
])
def test_unsound_weights_do_not_exist(change, says):
    with raises(says):
        replace(WEIGHTS, **change)


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "complex64", "object", "int64"])
def test_weights_of_other_dtypes(dtype):
    with raises("weights must share one dtype of float32, float64, complex128; got .*"):
        WEIGHTS.astype(dtype)


def test_check_axes_learns_sizes():
    sizes = {}
    check_axes("a", np.zeros((2, 3)), ("x", "y"), sizes)
    check_axes("b", np.zeros((3, 4)), ("y", "z"), sizes)
    assert sizes == {"x": 2, "y": 3, "z": 4}
    check_axes("none", np.zeros((0, 2)), ("n_layers", "x"), sizes)
    with raises(r"c must have axes \(z, x\) with z=4, x=2; got shape \(2, 4\)"):
        check_axes("c", np.zeros((2, 4)), ("z", "x"), sizes)
    with raises(r"d must have axes \(new\); got shape \(0,\)"):
        check_axes("d", np.zeros(0), ("new",), sizes)


def test_tokens():
    for tokens in ([[0, 6]], np.array([[0, 6]], np.uint8), ((0, 6),)):
        assert_close(check_tokens(WEIGHTS, tokens).astype(int), np.array([[0, 6]]), 0)
    for tokens, says in ((
            [[0, 7]], "tokens must be from 0 to 6; got 7"), (
            [[-1, 7]], "tokens must be from 0 to 6; got -1"), (
            [[0.0]], "tokens must be integers; got float64"), (
            [[True]], "tokens must be integers; got bool"), (
            [["a"]], "tokens must be integers; got <U1"), (
            [0], r"tokens must have axes \(b, i\); got shape \(1,\)"), (
            np.zeros((0, 3), int), r"tokens must have axes \(b, i\); got shape \(0, 3\)"), (
            np.zeros((2, 0), int), r"tokens must have axes \(b, i\); got shape \(2, 0\)"), (
            [[0, 1], [2]], r"tokens must have axes \(b, i\); got rows of several lengths"), (
            [[0] * 7], "a context has at most n_ctx=6 tokens; got 7")):
        with raises(says):
            check_tokens(WEIGHTS, tokens)
    endless = replace(WEIGHTS, W_pos=None, positions="none")
    assert check_tokens(endless, [[0] * 7]).shape == (1, 7)


def test_patterns_and_heads():
    weights, tokens = random_case(0)
    pattern = forward(weights, tokens).pattern
    checked = check_pattern(weights, tokens, pattern)
    assert checked[0] is tokens and checked[1] is pattern
    with raises(r"pattern must have axes \(l, b, h, i, j\) with .*; got shape \(2, 1,.*"):
        check_pattern(weights, tokens, pattern[:, :1])
    check_head(weights, 1, 2)
    for layer, head in ((2, 0), (0, 3), (-1, 0), (0, -1)):
        with raises(rf"a head is layer\.head with layer < 2, head < 3, .*; got {layer}\.{head}"):
            check_head(weights, layer, head)


def test_relative_error():
    """max|a − b| / max|b|: of the whole array, not of each entry."""
    assert relative_error([1.0, 4.5], [1.0, 4.0]) == 0.125
    assert relative_error([1.5, 4.0], [1.0, 4.0]) == 0.125       # not 0.5
    assert relative_error([3 + 4j], [0j], scale=10) == 0.5
    assert relative_error(-4.5, -4.0) == 0.125
    assert relative_error([1e-300], [0.0]) == np.inf             # exact zeros: exactly
    assert relative_error([0.0], [0.0]) == 0 == relative_error([], [])
    assert relative_error([0.0], [0.0], scale=0.0) == 0
    with raises(r"arrays must have one shape; got \(1, 2\) and \(2,\)"):
        relative_error([[1.0, 2.0]], [1.0, 2.0])


@pytest.mark.parametrize("actual, desired", [
    (np.nan, 1.0), (1.0, np.nan), (np.nan, 0.0), (np.nan, np.nan), (0.0, np.nan)])
def test_a_nan_is_within_no_tolerance(actual, desired):
    assert not (relative_error([actual, 2.0], [desired, 2.0]) <= 1e300)
    assert not (relative_error([actual], [desired]) <= 1e300)
    with pytest.raises(AssertionError):
        assert_close(np.array([actual]), np.array([desired]), 1e300)


def test_comparisons_in_tests_see_shapes_and_dtypes():
    for other in (np.zeros((1, 3)), np.zeros(1), np.zeros(3, np.float32)):
        with pytest.raises(AssertionError):
            assert_close(other, np.zeros(3), 1.0)
