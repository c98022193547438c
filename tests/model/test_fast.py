"""`fast` gives the textbook's numbers: in bands, in slices, on any number of cores."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits import cores
from minicircuits.model import fast, transformer
from minicircuits.model.attention import causal_softmax, causal_softmax_backward
from minicircuits.notation import POSITIONS, InputError, Weights
from minicircuits.plain import model as plain
from tests.draws import arrays, assert_loss_close, draw_case, random_case
from tests.model.test_backward import check, dlogits_of_loss, scales

SLICED = random_case(60, b=7, i=5)


def check_against(reference, case, slices=None, tolerance=1e-13):
    """Loss and every gradient, relative to the terms that they are sums of.

    dlogits = (share − 1) / count at the next token may be what rounding left of the 1. So they
    are also relative to what the 1 alone makes.
    """
    value, gradients = fast.loss_and_gradients(*case, slices)
    expected, dW = reference.loss_and_gradients(*case)
    acts, scale = transformer.forward(*case), {}
    assert_loss_close(value, expected, acts.logits, tolerance)
    for dlogits in dlogits_of_loss(*case), one_at_next(*case):
        terms, dacts = transformer.backward(*case, acts, dlogits)
        largest = {name: np.abs(term).max(initial=0) for name, term in arrays(terms).items()}
        for bounds in largest, scales(case[0], acts, dacts):
            scale |= {name: max(bound, scale.get(name, 0)) for name, bound in bounds.items()}
    check(gradients, arrays(dW), scale, tolerance)


def one_at_next(weights, tokens):
    """[v is next] / count, at the places that predict: (b, i, v)."""
    one = np.zeros((*np.shape(tokens), weights.d_vocab), weights.dtype)
    following = np.asarray(tokens)[:, 1:]
    np.put_along_axis(one[:, :-1], following[..., None], 1 / following.size, -1)
    return one


@settings(max_examples=100, deadline=None)
@given(draw_case(min_tokens=2), st.sampled_from([None, 1, 2, 3]))
def test_fast_equals_the_textbook(case, slices):
    check_against(transformer, case, slices)


@settings(max_examples=25, deadline=None)
@given(draw_case(min_tokens=2), st.sampled_from([None, 1, 3]))
def test_fast_equals_the_plain_loops(case, slices):
    check_against(plain, case, slices)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("i", [63, 64, 65, 130])
def test_bands_meet_at_the_seams(i, n_layers, positions):
    check_against(transformer, random_case(
        61, b=3, i=i, n_heads=2, d_head=2, d_model=3, d_vocab=4, n_ctx=130, n_layers=n_layers,
        positions=positions), slices=2)


@pytest.mark.parametrize("scale", [30, 1e3, 1e6])
def test_where_patterns_saturate(scale):
    """Σ_j A dA taken as z·dz, which is the same on paper, leaves noise here."""
    weights, tokens = random_case(62, b=3, i=12, n_ctx=12)
    check_against(transformer, (replace(weights, W_Q=scale * weights.W_Q), tokens))


@pytest.mark.parametrize("scale", [30, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_logits_are_beyond_the_range_of_exp(scale, dtype):
    weights, tokens = random_case(64, b=3, i=12, n_ctx=12, dtype=dtype)
    case = replace(weights, W_U=dtype(scale) * weights.W_U), tokens
    check_against(transformer, case, tolerance=4096 * np.finfo(dtype).eps)


@settings(max_examples=20, deadline=None)
@given(draw_case(min_tokens=2, dtype=np.complex128))
def test_complex_weights_pass_through(case):
    """dlogits are shares, less a 1, over count: gradients are held to what 1 / count makes."""
    value, gradients = fast.loss_and_gradients(*case)
    expected, dW = transformer.loss_and_gradients(*case)
    acts = transformer.forward(*case)
    assert abs(value - expected) <= 1e-12 * abs(acts.logits).max()
    terms = np.full_like(acts.logits, 1 / acts.logits[:, 1:, 0].size)
    of_terms = arrays(transformer.backward(*case, acts, terms)[0])
    for name, array in arrays(dW).items():
        largest = max(abs(M).max(initial=0) for M in (array, *of_terms.values()))
        assert abs(arrays(gradients)[name] - array).max(initial=0) <= 1e-12 * largest, name


@pytest.mark.parametrize("masked", [np.nan, np.inf, 1e300, 0])
@pytest.mark.parametrize("size", [1, 1e5])
def test_a_masked_score_never_leaks(masked, size):
    """A band of the last 4 of 7 destinations, a row for each source, as the textbook's last 4."""
    scores, dA = size * np.random.default_rng(0).standard_normal((2, 2, 3, 7, 7))
    A = causal_softmax(scores)
    dscores = causal_softmax_backward(A, dA)
    scores[..., ~np.tri(7, dtype=bool)] = masked
    band, dband = scores[..., 3:, :].mT, dA[..., 3:, :].mT.copy()
    with np.errstate(all="ignore"):                                # as the door does
        actual = fast.softmax(partial(np.add, band, 0))
    assert np.abs(actual.mT - A[..., 3:, :]).max() <= 1e-15
    assert (actual[..., np.tri(7, 4, -4, dtype=bool)] == 0).all()
    fast.softmax_backward(actual, dband)
    assert np.abs(dband.mT - dscores[..., 3:, :]).max() <= 1e-14 * size


@pytest.mark.parametrize("slices", [None, 2, 3, 7, 100])
def test_slices_agree(slices):
    """Also where they are uneven: 7 contexts in 2 or 3 slices."""
    check_against(transformer, SLICED, slices)


@pytest.mark.parametrize("slices", [None, 1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_dtype_and_arguments_are_kept(slices, dtype):
    weights, tokens = random_case(61, b=4, dtype=dtype, positions="standard")
    for array in (*arrays(weights).values(), tokens):
        array.setflags(write=False)
    value, gradients = fast.loss_and_gradients(weights, tokens, slices=slices)
    assert value.dtype == dtype and gradients.dtype == dtype
    assert isinstance(gradients, Weights) and gradients.positions == "standard"


def test_the_same_bits_every_time_and_on_any_number_of_threads(monkeypatch):
    value, gradients = fast.loss_and_gradients(*SLICED, slices=4)
    for threads in 1, 1, 2, 5:
        with ThreadPoolExecutor(threads) as pool:
            monkeypatch.setattr(cores.shared, "pool", pool)
            again, again_gradients = fast.loss_and_gradients(*SLICED, slices=4)
        assert again == value
        for name, dW in arrays(gradients).items():
            assert (arrays(again_gradients)[name] == dW).all(), name


@pytest.mark.parametrize("slices", [0, -1, 1.5])
def test_a_number_of_slices_that_is_none(slices):
    with pytest.raises(InputError, match="slices"):
        fast.loss_and_gradients(*SLICED, slices=slices)


@pytest.mark.parametrize("positions", POSITIONS)
def test_what_the_loss_does_not_depend_on_has_a_gradient_of_exactly_zero(positions):
    weights, _ = random_case(63, positions=positions)
    gradients = fast.loss_and_gradients(weights, [[0, 1, 2, 3], [2, 1, 0, 4]])[1]
    assert (gradients.W_E[:, 3:] == 0).all() and (gradients.W_E[:, :3] != 0).all()
    if positions != "none":
        assert (gradients.W_pos[:, 3:] == 0).all() and (gradients.W_pos[:, :3] != 0).all()
