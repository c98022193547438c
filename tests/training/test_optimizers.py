"""AdamW and Muon against the same rules in loops, number by number."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicircuits.notation import relative_error
from minicircuits.training.optimizers import adamw, muon, orthogonalize


def loop_adamw(W, gradients, rate, beta1, beta2, decay):
    """Each entry on its own, step after step."""
    W = W.copy()
    for place in np.ndindex(W.shape):
        m = s = 0.0
        for step, dW in enumerate(gradients, 1):
            m = beta1 * m + (1 - beta1) * dW[place]
            s = beta2 * s + (1 - beta2) * dW[place] ** 2
            m_hat, s_hat = m / (1 - beta1 ** step), s / (1 - beta2 ** step)
            W[place] -= rate * (m_hat / (math.sqrt(s_hat) + 1e-8)
                                + (decay * W[place] if dW[place] else 0))
    return W


def loop_muon(W, gradients, rate, momentum, decay, speed):
    """Each matrix on its own, through its singular values."""
    W = W.copy()
    for place in np.ndindex(W.shape[:-2]):
        m = np.zeros(W.shape[-2:])
        for dW in gradients:
            m = momentum * m + dW[place]
            U, S, Vt = np.linalg.svd(momentum * m + dW[place], full_matrices=False)
            S /= math.sqrt((S ** 2).sum())
            for _ in range(5):
                S = 3.4445 * S - 4.7750 * S ** 3 + 2.0315 * S ** 5
            W[place] -= rate * (speed * U @ np.diag(S) @ Vt + decay * W[place])
    return W


def run(rule, W, gradients, n_moments, **numbers):
    """`rule` once for each gradient, from moments that are zero."""
    moments = (np.zeros_like(W),) * n_moments
    for step, dW in enumerate(gradients, 1):
        W, moments = rule(W, dW, moments, **({"step": step} if rule is adamw else {}), **numbers)
    return W


@given(st.integers(0, 2 ** 32 - 1))
def test_adamw_is_its_formula(seed):
    rng = np.random.default_rng(seed)
    W, gradients = rng.normal(size=(3, 5)), rng.normal(size=(4, 3, 5))
    gradients[:, 0] = gradients[2:, 1] = 0                    # tokens that no batch has, or some
    numbers = {"rate": 0.1, "beta1": 0.9, "beta2": 0.98, "decay": 0.2}
    actual = run(adamw, W, gradients, 2, **numbers)
    assert relative_error(actual, loop_adamw(W, gradients, **numbers)) <= 1e-14
    assert (actual[0] == W[0]).all()


@given(st.integers(0, 2 ** 32 - 1), st.permutations([2, 3, 5, 7]))
def test_muon_is_its_formula(seed, shape):
    rng = np.random.default_rng(seed)
    W, gradients = rng.normal(size=shape), rng.normal(size=(4, *shape))
    numbers = {"rate": 0.1, "momentum": 0.9, "decay": 0.2, "speed": 1.5}
    actual = run(muon, W, gradients, 1, **numbers)
    assert relative_error(actual, loop_muon(W, gradients, **numbers)) <= 1e-10


@given(st.integers(0, 2 ** 32 - 1), st.permutations([2, 16, 31]))
def test_orthogonalized_singular_values_are_near_1(seed, shape):
    """Between 0.68 and 1.21 for all that were at least 1 % of the norm."""
    M = np.random.default_rng(seed).normal(size=shape)
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    after = U.mT @ orthogonalize(M) @ Vt.mT                   # in the directions of M
    values = np.diagonal(after, axis1=-2, axis2=-1)
    strong = S >= 0.01 * np.sqrt((S ** 2).sum(-1, keepdims=True))
    assert strong.any() and ((0.68 < values) | ~strong).all() and values.max() < 1.21
    assert np.abs(after - values[..., None] * np.eye(values.shape[-1])).max() < 1e-12


@given(st.integers(0, 2 ** 32 - 1), st.integers(-100, 120), st.integers(-100, 120))
def test_orthogonalized_is_the_same_at_any_scale(seed, a, b):
    """Bit for bit for powers of two: squares of 1e-30 and of 1e36 are beyond float32."""
    M = np.random.default_rng(seed).normal(size=(2, 3, 5)).astype(np.float32)
    scaled = M * np.float32(2) ** np.array([[[a]], [[b]]], np.float32)
    assert (orthogonalize(scaled) == orthogonalize(M)).all()


@pytest.mark.parametrize("number", ["smallest_subnormal", "max"])
def test_orthogonalized_zero_is_zero_and_the_smallest_and_the_largest_number_are_not(number):
    M = np.zeros((2, 3, 5), np.float32)
    M[1, 2, 2] = getattr(np.finfo(np.float32), number)
    actual = orthogonalize(M)
    assert (actual[0] == 0).all() and 0.68 < actual[1, 2, 2] < 1.21


@pytest.mark.parametrize("rule, n_moments, numbers", [
    (adamw, 2, {"step": 3, "rate": 0.1, "beta1": 0.9, "beta2": 0.98, "decay": 0.2}),
    (muon, 1, {"rate": 0.1, "momentum": 0.9, "decay": 0.2})])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", "CF")
def test_arrays_keep_dtype_and_layout_and_no_argument_is_written_to(
        rule, n_moments, numbers, dtype, order):
    rng = np.random.default_rng(0)
    given = [np.array(rng.random((5, 3)), dtype, order=order) for _ in range(2 + n_moments)]
    for array in given:
        array.flags.writeable = False
    W, dW, *moments = given
    new, new_moments = rule(W, dW, tuple(moments), **numbers)
    assert len(new_moments) == n_moments
    for array in (new, *new_moments):
        assert array.dtype == dtype and array.shape == (5, 3)
    if rule is adamw:                     # elementwise: a transposed array stays transposed
        assert all(array.flags.f_contiguous == (order == "F") for array in (new, *new_moments))
