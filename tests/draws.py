"""How results are compared, and changed into what should be the same.

Random models and tokens are in `minicircuits.testing.strategies`.
"""

from dataclasses import replace

import numpy as np

from minicircuits.notation import ACTIVATION_AXES, Weights, relative_error
from minicircuits.testing.strategies import (SEEDS, Case, draw_case, random_case,  # noqa: F401
                                             random_weights)


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
    """A loss is log Σ − logit. A relative error of Σ is an absolute one of its logarithm."""
    assert_close(np.asarray(actual), np.asarray(desired), tolerance,
                 max(1, np.abs(logits).max()), "loss")


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
