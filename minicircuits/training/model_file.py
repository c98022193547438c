"""A trained model in one file: weights, tokenizer and what is known about them.

The file is an uncompressed `.npz` (see `files`) with the members of `files.save`, and

    merges      the tokenizer's, integers (merge, 2)
    metadata    strict JSON, as bytes
    state/…     in a checkpoint: what the trainer needs to go on

So a checkpoint is a model file too: `load_model` takes it, and passes the state over. This
file does not know what the metadata say, nor how a run goes on.
"""

from typing import NamedTuple

import numpy as np

from minicircuits import files
from minicircuits.files import FileError
from minicircuits.notation import InputError, Weights
from minicircuits.training.tokenizer import Tokenizer
from minicircuits.training.trainer import state_from_arrays, state_to_arrays


class Model(NamedTuple):
    weights: Weights
    tokenizer: Tokenizer
    metadata: dict          # JSON: text, numbers, lists, dicts

    def __repr__(self):
        return (f"Model({self.weights}, tokenizer of {self.tokenizer.d_vocab} tokens, "
                f"metadata: {', '.join(self.metadata)})")


def save_model(path, weights, tokenizer, metadata, force=False):
    """Write a model file, whole or not at all; a file that exists is refused unless `force`.

    Raises FileError also where weights and tokenizer differ in d_vocab, or the metadata are
    not a dict of JSON values.
    """
    files.write_arrays(path, model_to_arrays(path, Model(weights, tokenizer, metadata)), force)


def load_model(path):
    """The `Model` in a model file or a checkpoint, as it was saved, or FileError."""
    arrays = files.read_arrays(path)
    model = model_from_arrays(path, arrays)
    _check_nothing_left(path, [name for name in arrays if not name.startswith("state/")])
    return model


def save_checkpoint(path, model, state):
    """Write `model` and the trainer's `State` that it is at, in the place of an earlier one."""
    files.write_arrays(path, {**model_to_arrays(path, model), **state_to_arrays(state)},
                       force=True)


def load_checkpoint(path):
    """The `Model` and the `State` that `save_checkpoint` wrote, bit for bit, or FileError."""
    arrays = files.read_arrays(path)
    model = model_from_arrays(path, arrays)
    state = state_from_arrays(path, arrays, model.weights)
    _check_nothing_left(path, list(arrays))
    return model, state


def model_to_arrays(path, model):
    """The arrays that stand for `model` in a file, as a dict; FileError speaks of `path`."""
    _check(path, model)
    metadata = files.format_json(model.metadata, f"metadata of {path}")
    return {**files.weights_to_arrays(model.weights),
            "merges": model.tokenizer.to_array(),
            "metadata": np.frombuffer(metadata, np.uint8)}


def model_from_arrays(path, arrays):
    """The `Model` among `arrays`, taken out of that dict; FileError speaks of `path`."""
    if missing := {"merges", "metadata"} - arrays.keys():
        raise FileError(f"{str(path)!r} must hold a model; got no {min(missing)}")
    weights = files.weights_from_arrays(path, arrays)
    try:
        tokenizer = Tokenizer.from_merges(arrays.pop("merges"))
    except InputError as error:
        raise FileError(f"{str(path)!r} must hold a tokenizer: {error}") from None
    metadata = files.parse_json(arrays.pop("metadata").tobytes(), f"metadata of {path}")
    return _check(path, Model(weights, tokenizer, metadata))


def _check_nothing_left(path, names):
    if names:
        raise FileError(f"{str(path)!r} must hold one model; got also {names[0]}")


def _check(path, model):
    if not isinstance(model.metadata, dict):
        raise FileError(f"metadata of {str(path)!r} must be a dict; got "
                        f"{type(model.metadata).__name__}")
    if model.weights.d_vocab != model.tokenizer.d_vocab:
        raise FileError(f"weights and tokenizer of {str(path)!r} must agree; got d_vocab="
                        f"{model.weights.d_vocab} and {model.tokenizer.d_vocab}")
    return model
