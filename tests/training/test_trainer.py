"""A run is the same run, however often it was interrupted; and it learns."""

from dataclasses import replace

import numpy as np
import pytest

from minicircuits.model.fast import loss_and_gradients
from minicircuits.model.transformer import init_weights
from minicircuits.notation import InputError, relative_error
from minicircuits.training.bigrams import (bigram, counted_loss, count_in_contexts,
                                           fit_zero_layer, zero_layer_loss)
from minicircuits.training.text import batch as text_batch
from minicircuits.training.optimizers import muon
from minicircuits.training.recipe import Recipe
from minicircuits.training.trainer import State, first_state, next_state, train

RECIPE = Recipe(steps=12, warm_up=3, batch=4, n_ctx=8, seed=5)


def begun(recipe=RECIPE, n_layers=2, dtype=np.float32, positions="shortformer", d_vocab=11):
    return first_state(recipe, init_weights(n_layers=n_layers, n_heads=3, d_model=6, d_head=2,
                                            d_vocab=d_vocab, n_ctx=recipe.n_ctx,
                                            positions=positions, dtype=dtype,
                                            rng=np.random.default_rng(1)))


def batch(step):
    return np.random.default_rng([RECIPE.seed, step]).integers(11, size=(4, 8))


def same(a, b):
    """Two yields of `train`, equal bit for bit."""
    return a[0] == b[0] and a[2] == b[2] and all(
        (V == W).all() and V.dtype == W.dtype
        for (_, V), (_, W) in zip(a[1].items(), b[1].items(), strict=True))


def test_a_run_yields_each_step_with_the_loss_of_its_weights():
    run = list(train(begun(), batch))
    assert [step for step, _, _ in run] == list(range(13))
    assert same(run[0], (0, begun().weights, run[0][2]))
    for step, weights, loss in run:
        assert type(loss) is float and loss == float(loss_and_gradients(weights, batch(step))[0])
        assert weights.dtype == np.float32


def test_muon_has_the_heads_of_a_layer_as_one_matrix():
    """W_O (l, h, d, e) too, put side by side over (h, e)."""
    state = begun(dtype=np.float64)
    gradients = loss_and_gradients(state.weights, batch(0))[1]
    actual = next_state(state, gradients).weights
    share = RECIPE.rate(0)                              # the decay rises and falls as rates do
    rates = share * RECIPE.muon_rate, RECIPE.momentum, share * RECIPE.decay
    for name, join in (("W_V", np.vstack), ("W_O", np.hstack)):
        for W, dW, moved in zip(*(getattr(of, name) for of in (state.weights, gradients, actual))):
            expected, _ = muon(join(W), join(dW), (np.zeros_like(join(W)),), *rates)
            assert relative_error(join(moved), expected) <= 1e-14


def test_what_scores_are_made_of_moves_by_itself():
    """W_Q and W_K at `qk_speed`, after `wait` steps, with `qk_decay`; W_pos without decay."""
    state = begun(replace(RECIPE, wait=1, qk_speed=3.0), dtype=np.float64)
    gradients = loss_and_gradients(state.weights, batch(0))[1]
    for speed in 0, 3:
        moved, share = next_state(state, gradients), state.recipe.rate(state.step)
        for name in "W_Q", "W_K":
            for W, dW, m, after in zip(*(getattr(of, name) for of in (state.weights, gradients)),
                                       state.moments[name][0], getattr(moved.weights, name)):
                W, dW, m, after = (M.reshape(6, 6) for M in (W, dW, m, after))
                expected, _ = muon(W, dW, (m,), share * RECIPE.muon_rate, RECIPE.momentum,
                                   share * RECIPE.qk_decay, speed)
                assert relative_error(after, expected) <= 1e-14
        state = moved
    still = replace(gradients, W_pos=0 * gradients.W_pos)
    after = next_state(begun(dtype=np.float64), still).weights
    assert (after.W_pos == begun(dtype=np.float64).weights.W_pos).all()


def test_checkpoints_come_when_asked_for_and_at_the_end():
    kept = []
    list(train(begun(), batch, kept.append, every=5))
    assert [state.step for state in kept] == [5, 10, 12]
    assert all(isinstance(state, State) for state in kept)


@pytest.mark.parametrize("at", [0, 7])
def test_ctrl_c_inside_a_step_leaves_the_state_before_it(at):
    def interrupted(step):
        if step == at:
            raise KeyboardInterrupt
        return batch(step)

    kept, seen = [], []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(train(begun(), interrupted, kept.append))
    whole = list(train(begun(), batch))
    assert [state.step for state in kept] == [at]
    assert all(map(same, train(kept[0], batch), whole[at:]))


def test_a_diverging_run_says_so_and_keeps_its_last_checkpoint():
    kept = []
    state = begun(replace(RECIPE, muon_rate=1e30, adamw_rate=1e30))
    with pytest.raises(InputError,
                       match=r"^training stopped at step \d+: \w+ must be finite; got \d+ NaN"):
        for _ in train(state, batch, kept.append, every=1):
            pass
    assert all(np.isfinite(W).all() for state in kept for _, W in state.weights.items())


def test_zero_layers_come_within_0_05_nats_of_the_bigrams_fitted_by_lbfgs():
    """A stream in which each of 23 tokens is followed by 3 others mostly."""
    rng = np.random.default_rng(0)
    follows, stream = rng.integers(22, size=(22, 3)), [0]
    for _ in range(20_000):
        stream.append(follows[stream[-1], rng.integers(3)] if rng.random() < 0.9
                      else rng.integers(22))
    stream = np.array(stream)
    recipe = Recipe(steps=600, batch=16, n_ctx=16, adamw_rate=0.03)
    state = begun(recipe, n_layers=0, d_vocab=23)
    *_, (_, weights, _) = train(state, lambda step: text_batch(
        stream, recipe.batch, recipe.n_ctx, 22, recipe.seed, step))
    C = count_in_contexts(stream, 22, recipe.n_ctx, 23)
    best = fit_zero_layer(C, state.weights.d_model, np.random.default_rng(0))
    reached = zero_layer_loss(weights.W_U, weights.W_E, C)[0]
    assert best - 1e-3 < reached < best + 0.05
    assert best > counted_loss(bigram(C, 0.0), C)             # rank 6 cannot be every table
