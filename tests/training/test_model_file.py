"""One file for a trained model: it comes back as it was, and nothing else is taken for one."""

import random

import numpy as np
import pytest

from minicircuits import files
from minicircuits.files import FileError
from minicircuits.notation import InputError
from minicircuits.training import model_file
from minicircuits.training.model_file import Model, load_model, save_checkpoint, save_model
from minicircuits.training.recipe import Recipe
from minicircuits.training.tokenizer import Tokenizer, train_tokenizer
from minicircuits.training.trainer import first_state
from minicircuits.training.vocabulary import Vocabulary
from tests.draws import random_weights

METADATA = {"seed": 7, "python": "3.11.7", "loss": [2.5, None], "é": {}}


def model(d_vocab=260, metadata=METADATA, **sizes):
    """Sound, but where it is told not to be: the tokenizer always has 260 tokens."""
    weights = random_weights(np.random.default_rng(0), d_vocab=d_vocab, **sizes)
    return Model(weights, train_tokenizer(b"aaaa bbbb aaaa bbbb", 260), metadata)


def altered(**changes):
    """The arrays of a sound model, with changes; None leaves an array out."""
    arrays = {**model_file.model_to_arrays("x", model()), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize("sizes", [{}, {"n_layers": 0}, {"positions": "none", "dtype": np.float32}])
def test_a_model_comes_back(tmp_path, sizes):
    saved = model(**sizes)
    save_model(tmp_path / "model.npz", *saved)
    weights, tokenizer, metadata = load_model(tmp_path / "model.npz")
    assert weights.positions == saved.weights.positions
    for (name, actual), (_, desired) in zip(weights.items(), saved.weights.items(), strict=True):
        np.testing.assert_array_equal(actual, desired, name, strict=True)
    assert tokenizer == saved.tokenizer
    assert metadata == METADATA
    save_model(tmp_path / "again.npz", weights, tokenizer, metadata)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "model.npz").read_bytes()


def test_a_model_that_exists_is_refused_unless_forced(tmp_path):
    save_model(tmp_path / "model.npz", *model())
    with pytest.raises(FileError, match="it exists already"):
        save_model(tmp_path / "model.npz", *model())
    save_model(tmp_path / "model.npz", *model(metadata={"new": 1}), force=True)
    assert load_model(tmp_path / "model.npz").metadata == {"new": 1}


@pytest.mark.parametrize("changes, message", [
    ({"d_vocab": 261}, "must agree; got d_vocab=261 and 260"),
    ({"metadata": [1]}, r"metadata must be dict; got \[1\]"),
    ({"metadata": {"a": np.nan}}, "metadata of .* must be strict JSON"),
    ({"metadata": {"a": b""}}, "metadata of .* can hold JSON values")])
def test_models_that_are_not_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        save_model(tmp_path / "model.npz", *model(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tokenizer", [
    Vocabulary([None] * 260), Tokenizer((b"",) * 260, ((0, 1), (0, 1), (0, 1))),
    Tokenizer((b"",) * 260, ())])
def test_a_tokenizer_that_would_not_come_back_is_not_written(tmp_path, tokenizer):
    with pytest.raises(FileError, match="a tokenizer that is made of merges; got (Tok|Voc).*save"):
        save_model(tmp_path / "model.npz", model().weights, tokenizer, METADATA)
    assert not list(tmp_path.iterdir())


def test_weights_that_have_been_broken_are_not_written(tmp_path):
    weights = model().weights
    weights.W_E[0, 0] = np.nan
    for write in (lambda path: save_model(path, weights, *model()[1:]),
                  lambda path: files.save(path, weights)):
        with pytest.raises(InputError, match="W_E must be finite"):
            write(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def text(data):
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("changes, message", [
    ({"merges": None}, "must hold a model; got no merges"),
    ({"metadata": None}, "must hold a model; got no metadata"),
    ({"W_E": None}, "must hold weights; got no W_E"),
    ({"W_E": np.full((5, 260), np.nan)}, "W_E must be finite"),
    ({"merges": np.zeros((3, 2))}, "must hold a tokenizer: merges must be integers"),
    ({"merges": np.full((3, 2), 500)}, "must hold a tokenizer: merge 0 must join"),
    ({"merges": np.zeros((2, 2), int)}, "must agree; got d_vocab=260 and 259"),
    ({"metadata": text(b"[1]")}, "metadata of .* must be a dict"),
    ({"metadata": text(b'{"a": 1, "a": 1}')}, "metadata of .* must be strict JSON"),
    ({"metadata": np.zeros((2, 2))}, "metadata of .* must be strict JSON"),
    ({"extra": np.zeros(1)}, "must hold one model; got also extra"),
    ({"statement": np.zeros(1)}, "must hold one model; got also statement")])
def test_files_that_are_no_model(tmp_path, changes, message):
    files.write_arrays(tmp_path / "model.npz", altered(**changes))
    with pytest.raises(FileError, match=message) as caught:
        load_model(tmp_path / "model.npz")
    assert "model.npz" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_line_says_what_a_model_is():
    assert repr(model()) == (f"Model({model().weights}, tokenizer of 260 tokens, "
                             "metadata: seed, python, loss, é)")


def test_weights_are_loaded_from_a_model_file_and_a_checkpoint(tmp_path):
    save_model(tmp_path / "model.npz", *model())
    state = first_state(Recipe(steps=1), model().weights)
    save_checkpoint(tmp_path / "checkpoint", model(), state)
    for path in (tmp_path / "model.npz", tmp_path / "checkpoint"):
        desired = load_model(path).weights
        for (name, actual), (_, W) in zip(files.load(path).items(), desired.items(), strict=True):
            np.testing.assert_array_equal(actual, W, name, strict=True)
    files.write_arrays(tmp_path / "model.npz", altered(statement=np.zeros(1)), force=True)
    with pytest.raises(FileError, match="must hold weights or a model; got also statement"):
        files.load(tmp_path / "model.npz")
    files.save(tmp_path / "weights.npz", model().weights)
    with pytest.raises(FileError, match="must hold a model; got no merges"):
        load_model(tmp_path / "weights.npz")


def test_only_file_error_escapes(monkeypatch):
    """Whatever the numbers in the members are, and whichever shape or dtype they have."""
    rng, taken = random.Random(0), 0
    sound = altered()
    for _ in range(1000):
        name = rng.choice(list(sound))
        array = sound[name].copy()
        kind = rng.randrange(4)
        if kind == 0:
            bits = array.reshape(-1).view(np.uint8)
            bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            array = array[:rng.randrange(len(array))]
        elif kind == 2:
            array = array.astype(rng.choice(["f4", "f8", "c16", "?", "u8", "i1"]))
        else:
            array = array.reshape(rng.choice([(-1,), (1, -1), (1, *array.shape)]))
        arrays = {**sound, name: array}
        monkeypatch.setattr(files, "read_arrays", lambda _: arrays)
        try:
            load_model("model.npz")
            taken += 1
        except FileError as error:
            assert len(str(error).splitlines()) == 1
    assert 50 < taken < 500
