"""A run is the same run, however often it was interrupted; and it learns."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from minicircuits import files
from minicircuits.model.fast import loss_and_gradients
from minicircuits.model.transformer import init_weights
from minicircuits.notation import InputError
from minicircuits.training.bigrams import (bigram, counted_loss, count_in_contexts,
                                           fit_zero_layer, zero_layer_loss)
from minicircuits.training.corpus import batch as corpus_batch
from minicircuits.training.trainer import (Recipe, State, begin, state_from_arrays,
                                           state_to_arrays, train)

RECIPE = Recipe(steps=12, warm_up=3, batch=4, n_ctx=8, seed=5)


def first_state(recipe=RECIPE, n_layers=2, dtype=np.float32, positions="shortformer", d_vocab=11):
    return begin(recipe, init_weights(n_layers=n_layers, n_heads=3, d_model=6, d_head=2,
                                      d_vocab=d_vocab, n_ctx=recipe.n_ctx, positions=positions,
                                      rng=np.random.default_rng(1), dtype=dtype))


def batch(step):
    return np.random.default_rng([RECIPE.seed, step]).integers(11, size=(4, 8))


def write(path, state):
    files.write_arrays(path, {**files.weights_to_arrays(state.weights), **state_to_arrays(state)},
                       force=True)


def read(path):
    arrays = files.read_arrays(path)
    state = state_from_arrays(path, arrays, files.weights_from_arrays(path, arrays))
    assert not arrays
    return state


def same(a, b):
    """Two yields of `train`, equal bit for bit."""
    return a[0] == b[0] and a[2] == b[2] and all(
        (V == W).all() and V.dtype == W.dtype
        for (_, V), (_, W) in zip(a[1].items(), b[1].items(), strict=True))


def test_a_run_yields_each_step_with_the_loss_of_its_weights():
    run = list(train(first_state(), batch))
    assert [step for step, _, _ in run] == list(range(13))
    assert same(run[0], (0, first_state().weights, run[0][2]))
    for step, weights, loss in run:
        assert type(loss) is float and loss == float(loss_and_gradients(weights, batch(step))[0])
        assert weights.dtype == np.float32


def test_the_rate_rises_then_falls_to_nothing():
    rates = [RECIPE.rate(step) for step in range(13)]
    assert rates == pytest.approx([1 / 4, 2 / 4 * 11 / 12, 3 / 4 * 10 / 12]
                                  + [1 - step / 12 for step in range(3, 13)])
    assert all(type(rate) is float for rate in rates)          # float32 stays float32


@pytest.mark.parametrize("n_layers, positions, dtype", [
    (0, "shortformer", np.float32), (1, "standard", np.float64), (2, "none", np.float32),
    (2, "shortformer", np.float32)])
@pytest.mark.parametrize("stop", [0, 1, 5, 12])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, n_layers, positions, dtype, stop):
    state = first_state(n_layers=n_layers, positions=positions, dtype=dtype)
    whole = list(train(state, batch))
    path = tmp_path / "checkpoint.npz"
    with closing(train(state, batch, lambda state: write(path, state))) as steps:
        for _, (step, _, _) in zip(range(stop + 1), steps):
            pass
    assert step == stop
    resumed = list(train(read(path), batch))
    assert len(resumed) == 13 - stop and all(map(same, resumed, whole[stop:]))


def test_checkpoints_come_when_asked_for_and_at_the_end():
    kept = []
    list(train(first_state(), batch, kept.append, every=5))
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
        seen.extend(train(first_state(), interrupted, kept.append))
    whole = list(train(first_state(), batch))
    assert [state.step for state in kept] == [at]
    assert all(map(same, train(kept[0], batch), whole[at:]))


def test_a_diverging_run_says_so_and_keeps_its_last_checkpoint():
    kept = []
    state = first_state(replace(RECIPE, muon_rate=1e30, adamw_rate=1e30))
    with pytest.raises(InputError,
                       match=r"^training stopped at step \d+: \w+ must be finite; got \d+ NaN"):
        for _ in train(state, batch, kept.append, every=1):
            pass
    assert all(np.isfinite(W).all() for state in kept for _, W in state.weights.items())


@pytest.mark.parametrize("numbers", [{"steps": -1}, {"steps": 2.5}, {"batch": True},
                                     {"muon_rate": np.nan}, {"adamw_rate": np.inf},
                                     {"beta1": "0.9"}, {"seed": None}])
def test_a_recipe_has_only_numbers_that_make_sense(numbers):
    name, = numbers
    with pytest.raises(InputError, match=f"^{name} must be (int|float), finite and not negative"):
        Recipe(**{"steps": 10, **numbers})


@pytest.mark.parametrize("change, message", [
    (lambda arrays: arrays.pop("state/W_E/1"), "got no 'state/W_E/1'"),
    (lambda arrays: arrays.pop("state/recipe"), "got no 'state/recipe'"),
    (lambda arrays: arrays.update({"state/step": np.array(13)}),
     "a step must be a whole number from 0 to 12"),
    (lambda arrays: arrays.update({"state/step": np.zeros(2)}), ""),
    (lambda arrays: arrays.update({"state/W_U/0": np.zeros(3)}), "moments must be finite"),
    (lambda arrays: arrays["state/W_U/0"].fill(np.nan), "moments must be finite"),
    (lambda arrays: arrays.update({"state/recipe": np.frombuffer(b'{"steps": 1e9}', np.uint8)}),
     "steps must be int"),
    (lambda arrays: arrays.update({"state/recipe": np.frombuffer(b'{"cooks": 3}', np.uint8)}),
     "cooks"),
    (lambda arrays: arrays.update({"state/recipe": np.frombuffer(b"[]", np.uint8)}), "")])
def test_a_foreign_checkpoint_is_refused_in_one_line(change, message):
    arrays = {name: np.array(array) for name, array in state_to_arrays(first_state()).items()}
    change(arrays)
    with pytest.raises(files.FileError, match="'run.npz' must be a checkpoint") as error:
        state_from_arrays("run.npz", arrays, first_state().weights)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_zero_layers_come_within_0_05_nats_of_the_bigrams_fitted_by_lbfgs():
    """A stream in which each of 23 tokens is followed by 3 others mostly."""
    rng = np.random.default_rng(0)
    follows, stream = rng.integers(22, size=(22, 3)), [0]
    for _ in range(20_000):
        stream.append(follows[stream[-1], rng.integers(3)] if rng.random() < 0.9
                      else rng.integers(22))
    stream = np.array(stream)
    recipe = Recipe(steps=600, batch=16, n_ctx=16, adamw_rate=0.03)
    state = first_state(recipe, n_layers=0, d_vocab=23)
    *_, (_, weights, _) = train(state, lambda step: corpus_batch(
        stream, recipe.batch, recipe.n_ctx, 22, recipe.seed, step))
    C = count_in_contexts(stream, 22, recipe.n_ctx, 23)
    best = fit_zero_layer(C, state.weights.d_model, np.random.default_rng(0))
    reached = zero_layer_loss(weights.W_U, weights.W_E, C)[0]
    assert best - 1e-3 < reached < best + 0.05
    assert best > counted_loss(bigram(C, 0.0), C)             # rank 6 cannot be every table
