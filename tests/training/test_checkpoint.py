"""A run that goes on from its file is the run that was never interrupted."""

from contextlib import closing

import numpy as np
import pytest

from minicircuits import files
from minicircuits.training.model_file import (Model, load_checkpoint, load_model, save_checkpoint,
                                              save_model)
from minicircuits.training.tokenizer import train_tokenizer
from minicircuits.training.trainer import train
from tests.training.test_trainer import batch, begun, same

TOKENIZER = train_tokenizer(b"")                # 257 tokens
METADATA = {"seed": 7}


def saved(path):
    """The function of a state that `train` takes, which writes `path`."""
    return lambda state: save_checkpoint(path, Model(state.weights, TOKENIZER, METADATA), state)


@pytest.mark.parametrize("n_layers, positions, dtype", [
    (0, "shortformer", np.float32), (1, "standard", np.float64), (2, "none", np.float32),
    (2, "shortformer", np.float32)])
@pytest.mark.parametrize("stop", [0, 1, 5, 12])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, n_layers, positions, dtype, stop):
    state = begun(n_layers=n_layers, positions=positions, dtype=dtype, d_vocab=257)
    whole = list(train(state, batch))
    path = tmp_path / "checkpoint.npz"
    with closing(train(state, batch, saved(path), every=3)) as steps:
        for _, (step, _, _) in zip(range(stop + 1), steps):
            pass
    assert step == stop
    model, state, best = load_checkpoint(path)
    assert best is None
    resumed = list(train(state, batch))
    assert len(resumed) == 13 - stop and all(map(same, resumed, whole[stop:]))
    for array in state.weights.W_E, *state.moments["W_E"]:      # laid out as before
        assert array.flags.f_contiguous
    for loaded in model, load_model(path):                     # a model file, too
        assert loaded[1:] == (TOKENIZER, METADATA)
        assert same((stop, loaded.weights, 0), (stop, whole[stop][1], 0))


def bytes_of(text):
    return np.frombuffer(text, np.uint8)


@pytest.mark.parametrize("changes, message", [
    ({"state/W_E/1": None}, "got no 'state/W_E/1'"),
    ({"state/recipe": None}, "got no 'state/recipe'"),
    *(({"state/step": np.array(step)}, "a step must be a whole number from 0 to 12")
      for step in (np.nan, np.inf, 0.5, -1, 13, [1], True, 1 + 0j)),
    ({"state/W_U/0": np.zeros(3)}, "moments must be finite"),
    ({"state/W_U/0": np.full((257, 6), np.nan, np.float32)}, "moments must be finite"),
    ({"state/recipe": bytes_of(b'{"steps": 1e9}')}, "steps must be int"),
    ({"state/recipe": bytes_of(b'{"cooks": 3}')}, "cooks"),
    ({"state/recipe": bytes_of(b"[]")}, "must be a checkpoint"),
    ({"state/W_X/0": np.zeros(1)}, "must be a checkpoint: got also state/W_X/0")])
def test_a_foreign_checkpoint_is_refused_in_one_line(tmp_path, changes, message):
    path = tmp_path / "checkpoint.npz"
    saved(path)(begun(d_vocab=257))
    arrays = {**files.read_arrays(path), **changes}
    files.write_arrays(path, {name: array for name, array in arrays.items() if array is not None},
                       force=True)
    with pytest.raises(files.FileError) as error:
        load_checkpoint(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_model_is_no_checkpoint(tmp_path):
    save_model(tmp_path / "model.npz", begun(d_vocab=257).weights, TOKENIZER, METADATA)
    with pytest.raises(files.FileError, match="must be a checkpoint; got no 'state/"):
        load_checkpoint(tmp_path / "model.npz")
