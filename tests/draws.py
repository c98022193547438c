"""Random models and tokens, and how results are compared.

Hypothesis draws sizes and a seed, NumPy the numbers.

Weights are scaled so that scores spread over 1 to 3 within a row: patterns are neither flat
(a wrong softmax would not show) nor saturated (a wrong score would not). Sizes mostly all
differ, so that swapped axes cannot agree by accident, and are tiny, for loops in Python.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from minicircuits.notation import ACTIVATION_AXES, POSITIONS, Weights, relative_error


SEEDS = st.integers(0, 2 ** 32 - 1)


class Case(NamedTuple):
    weights: Weights
    tokens: np.ndarray      # (b, i)

    def __repr__(self):
        w, (b, i) = self.weights, self.tokens.shape
        return (f"{w.positions} {w.dtype} L={w.n_layers} b={b} i={i} h={w.n_heads} e={w.d_head} "
                f"d={w.d_model} V={w.d_vocab} n_ctx={w.n_ctx} W_E[0, 0]={w.W_E[0, 0]}")


def random_weights(rng, n_layers=2, n_heads=3, d_head=4, d_model=5, d_vocab=7, n_ctx=6,
                   positions="shortformer", dtype=np.float64):
    """Weights whose patterns are neither flat nor saturated; complex ones are off the axis."""
    dtype = np.dtype(dtype)

    def normal(*shape, std):
        array = rng.normal(0, std, shape)
        if dtype.kind == "c":
            array = array + 0.1j * rng.normal(0, std, shape)
        return array.astype(dtype)

    read = (n_layers, n_heads, d_head, d_model)
    spread = 3.5 if positions == "none" else 1.7    # positions double what W_Q and W_K meet
    return Weights(
        W_E=normal(d_model, d_vocab, std=1),
        W_pos=None if positions == "none" else normal(d_model, n_ctx, std=1),
        W_Q=normal(*read, std=(spread / d_model) ** 0.5),
        W_K=normal(*read, std=(spread / d_model) ** 0.5),
        W_V=normal(*read, std=d_model ** -0.5),
        W_O=normal(n_layers, n_heads, d_model, d_head, std=0.5 * (n_heads * d_head) ** -0.5),
        W_U=normal(d_vocab, d_model, std=1.5 * d_model ** -0.5),
        positions=positions)


def random_case(seed, b=2, i=4, **sizes):
    """A `Case` from a seed: the one that `draw_case` draws, for tests with sizes of their own."""
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, **sizes)
    return Case(weights, rng.integers(weights.d_vocab, size=(b, i)))


@st.composite
def draw_case(draw, n_layers=st.sampled_from((2, 1, 3, 0)), positions=st.sampled_from(POSITIONS),
              min_tokens=1, dtype=np.float64):
    """A `Case` of drawn sizes: all different, or (to meet every corner) each on its own.

    Sizes that differ come from the seed: Hypothesis prefers simple values, time and again.
    """
    names, seed = ("b", "i", "n_heads", "d_head", "d_model", "d_vocab"), draw(SEEDS)
    if draw(st.sampled_from((True, True, False))):
        sizes = dict(zip(names, (1 + np.random.default_rng(seed).permutation(7)).tolist()))
    else:
        sizes = {name: draw(st.integers(1, 4)) for name in names}
    sizes["i"] = max(sizes["i"], min_tokens)
    return random_case(seed, **sizes, n_layers=draw(n_layers), positions=draw(positions),
                       n_ctx=sizes["i"] + draw(st.integers(0, 2)), dtype=dtype)


def arrays(named):
    """{name: array} of `Weights` or `Activations`."""
    if isinstance(named, Weights):
        return dict(named.items())
    return {name: getattr(named, name) for name in ACTIVATION_AXES}


def roundings(named, rng, dtype=np.float32):
    """{name: noise}: an error of one rounding to `dtype` of each array's largest entry."""
    return {name: rng.choice([-1, 1], array.shape) * np.abs(array).max(initial=0)
            * np.finfo(dtype).eps / 2 for name, array in arrays(named).items()}


def assert_close(actual, desired, tolerance, scale=None, name="array"):
    """One shape, one dtype, and a relative error within tolerance; a NaN is not within it."""
    assert actual.shape == desired.shape, f"{name}: {actual.shape}, not {desired.shape}"
    assert actual.dtype == desired.dtype, f"{name}: {actual.dtype}, not {desired.dtype}"
    error = relative_error(actual, desired, scale)
    assert error <= tolerance, f"{name}: relative error {error:.1e}, above {tolerance:.1e}"


def assert_loss_close(actual, desired, logits, tolerance=1e-12):
    """A loss is a difference of logits: a small one is no more exact than they are."""
    assert_close(np.asarray(actual), np.asarray(desired), tolerance, np.abs(logits).max(), "loss")


def assert_all_close(actual, desired, tolerance, scales=None):
    """`assert_close` for every array of two `Weights` or two `Activations`."""
    actual, desired = arrays(actual), arrays(desired)
    assert actual.keys() == desired.keys()
    for name in desired:
        assert_close(actual[name], desired[name], tolerance, (scales or {}).get(name), name)


def magnitudes(weights):
    """|W| for every array: what sums of products of them are rounded relative to."""
    return replace(weights, **{name: np.abs(W) for name, W in weights.items()})


def disguised(weights, rng):
    """The same model: the residual stream rotated, and every head in other bases."""
    d, e = weights.d_model, weights.d_head
    R = np.linalg.qr(rng.normal(size=(d, d)))[0]
    M, N = (np.linalg.qr(rng.normal(size=(e, e)))[0] * rng.uniform(0.5, 2, e) for _ in range(2))
    return replace(weights, W_E=R @ weights.W_E, W_U=weights.W_U @ R.T,
                   W_pos=None if weights.W_pos is None else R @ weights.W_pos,
                   W_Q=M @ weights.W_Q @ R.T, W_K=np.linalg.inv(M).T @ weights.W_K @ R.T,
                   W_V=N @ weights.W_V @ R.T, W_O=R @ weights.W_O @ np.linalg.inv(N))
