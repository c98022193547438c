"""Random models and tokens for tests, of this package or of yours: Hypothesis strategies.

Weights are scaled so that scores spread over 1 to 3 within a row: patterns are neither flat
(a wrong softmax would not show) nor saturated (a wrong score would not). Sizes mostly all
differ, so that swapped axes cannot agree by accident, and are tiny, for loops in Python.
Hypothesis draws sizes and a seed, NumPy the numbers.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from minicircuits.notation import POSITIONS, InputError, Weights

try:
    from hypothesis import strategies as st
except ImportError:
    raise InputError("minicircuits.testing.strategies needs hypothesis; it is not "
                     "installed") from None

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
    real = np.dtype(dtype).kind == "f"

    def normal(*shape, std):
        array = rng.normal(0, std, shape)
        return (array if real else array + 0.1j * rng.normal(0, std, shape)).astype(dtype)

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


# Changes of (weights w, tokens t) into cases of a kind.
SPECIAL = {
    "equal scores": lambda w, t: (replace(w, W_Q=0 * w.W_Q), t),
    "saturated patterns": lambda w, t: (replace(w, W_Q=2 ** 16 * w.W_Q), t),
    "heads that write nothing": lambda w, t: (replace(w, W_O=0 * w.W_O), t),
    "identical heads": lambda w, t: (replace(w, **{
        name: np.repeat(W[:, :1], w.n_heads, 1) for name, W in w.items() if W.ndim == 4}), t),
    "symmetric W_QK": lambda w, t: (replace(w, W_K=w.W_Q), t),
    "huge logits": lambda w, t: (replace(w, W_U=2 ** 12 * w.W_U), t),
    "one token everywhere": lambda w, t: (w, np.full_like(t, w.d_vocab - 1)),
}


@st.composite
def draw_special_case(draw, special=st.sampled_from(sorted(SPECIAL)), **options):
    """A `Case` of `draw_case`, changed into one of `SPECIAL`."""
    return Case(*SPECIAL[draw(special)](*draw(draw_case(**options))))
