"""A trained model in one file: weights, tokenizer and what is known about them.

The file is an uncompressed `.npz` (see `files`) with the members of `files.save`, and

    merges      the tokenizer's, integers (merge, 2)
    metadata    strict JSON, as bytes
    state/…     in a checkpoint, which is a model file too: what the trainer needs to go on
"""

import json
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicircuits import files
from minicircuits.door import brief, door
from minicircuits.files import FileError
from minicircuits.notation import InputError, Weights
from minicircuits.training.recipe import Recipe
from minicircuits.training.tokenizer import Tokenizer
from minicircuits.training.trainer import first_state
from minicircuits.training.vocabulary import Vocabulary

PRETRAINED = Path(__file__).with_name("pretrained.npz")


class Model(NamedTuple):
    weights: Weights
    tokenizer: Tokenizer | Vocabulary
    metadata: dict          # JSON: text, numbers, lists, dicts

    def __repr__(self):
        return (f"Model({self.weights}, tokenizer of {self.tokenizer.d_vocab} tokens, "
                f"metadata: {', '.join(self.metadata)})")


@door
def save_model(path: str | PathLike, weights: Weights, tokenizer: Tokenizer | Vocabulary,
               metadata: dict, force: bool = False) -> None:
    """Write a model file, whole or not at all; a file that exists is refused unless `force`.

    Raises FileError also unless weights and tokenizer agree in d_vocab and metadata are JSON.
    """
    files.write_arrays(path, model_to_arrays(path, Model(weights, tokenizer, metadata)), force)


@door
def load_model(path: str | PathLike) -> Model:
    """The `Model` in a model file or a checkpoint, as it was saved, or FileError."""
    return model_among(path, files.read_arrays(path))


@door
def load_pretrained() -> Model:
    """The `Model` that comes with this package, trained on the source of Python's library.

    Two layers of 4 heads × 32, d_model 128, 1,024 tokens, contexts of 128, float32: 1.7 MB.
    It knows Python, and some English from comments; no other text. Prefix matching of its
    induction head is 0.52 to 0.57, as random blocks are drawn (`behavior.in_context`), and its
    previous-token head has 1.00. The file is what this command writes, unchanged; its metadata
    hold the seed, the recipe, the digest of the text, the versions and the log:

        minicircuits train --layers 2 --steps 3500 --seed 0 -o pretrained.npz

    >>> weights, tokenizer, metadata = load_pretrained()
    >>> tokenizer.decode(tokenizer.encode("keep it in mind"))
    b'keep it in mind'
    """
    return load_model(PRETRAINED)


MEASURED = {"step", "tokens", "seconds", "loss", "validation"}      # in every row of a log
PERHAPS = {"in_context", "block", "gap", "prefix_matching", "previous_token"}     # or None


def log_of(metadata):
    """The rows of a run's log; [] if metadata, maybe a stranger's, hold none as `runs` makes it."""
    log = metadata.get("log")
    fine = isinstance(log, list) and all(
        isinstance(row, dict) and MEASURED <= row.keys() and all(
            type(row.get(name)) in (int, float) or name in PERHAPS and row.get(name) is None
            for name in MEASURED | PERHAPS) for row in log)
    return log if fine else []


def model_among(path, arrays):
    """The `Model` among `arrays`, taken out of that dict, and FileError on others than state/…"""
    if missing := {"merges", "metadata"} - arrays.keys():
        raise FileError(f"{str(path)!r} must hold a model; got no {min(missing)}")
    weights = files.weights_from_arrays(path, arrays)
    try:
        tokenizer = Tokenizer.from_merges(arrays.pop("merges"))
    except InputError as error:
        raise FileError(f"{str(path)!r} must hold a tokenizer: {error}") from None
    metadata = files.parse_json(arrays.pop("metadata").tobytes(), f"metadata of {path}")
    if others := [name for name in arrays if not name.startswith("state/")]:
        raise FileError(f"{str(path)!r} must hold one model; got also {min(others)}")
    return _checked(path, Model(weights, tokenizer, metadata))


def model_to_arrays(path, model):
    """The arrays that stand for `model` in a file, as a dict; FileError speaks of `path`."""
    tokenizer = model.tokenizer
    if not (isinstance(tokenizer, Tokenizer)
            and tokenizer == Tokenizer.from_merges(tokenizer.to_array())):
        raise FileError(f"{str(path)!r} can hold a tokenizer that is made of merges; got "
                        f"{brief(tokenizer)}: save writes weights without one")
    metadata = files.format_json(_checked(path, model).metadata, f"metadata of {path}")
    return {**files.weights_to_arrays(model.weights),
            "merges": tokenizer.to_array(),
            "metadata": np.frombuffer(metadata, np.uint8)}


def _checked(path, model):
    """`model`, or FileError about `path` unless its parts are those of one model."""
    if not isinstance(model.metadata, dict):
        raise FileError(f"metadata of {str(path)!r} must be a dict; got "
                        f"{type(model.metadata).__name__}")
    if model.weights.d_vocab != model.tokenizer.d_vocab:
        raise FileError(f"weights and tokenizer of {str(path)!r} must agree; got d_vocab="
                        f"{model.weights.d_vocab} and {model.tokenizer.d_vocab}")
    return model


def save_checkpoint(path, model, state, best=None, force=True):
    """Write `model` and the trainer's `State` that it is at, in the place of an earlier one.

    best : the `Weights` to keep so far, if they are not the model's
    """
    recipe = json.dumps(asdict(state.recipe)).encode()
    moments = {f"state/{name}/{n}": moment for name, moments in state.moments.items()
               for n, moment in enumerate(moments)}
    kept = {} if best is None else {f"state/best/{name}": W for name, W in best.items()}
    files.write_arrays(path, {**model_to_arrays(path, model), "state/step": np.array(state.step),
                              "state/recipe": np.frombuffer(recipe, np.uint8), **moments, **kept},
                       force)


def laid_out(weights):
    """`weights` with W_E and W_pos laid out as in init_weights: sums depend on the layout."""
    return replace(weights, **{name: np.asfortranarray(W) for name, W in weights.items()
                               if name in ("W_E", "W_pos")})


def load_checkpoint(path):
    """The `Model`, the `State` and the best `Weights` (or None) that `save_checkpoint` wrote.

    Bit for bit, or FileError.
    """
    arrays = files.read_arrays(path)
    model = model_among(path, arrays)
    weights = laid_out(model.weights)
    best = {name: arrays.pop(f"state/best/{name}") for name, _ in weights.items()
            if f"state/best/{name}" in arrays}
    try:
        recipe = Recipe(**files.parse_json(arrays.pop("state/recipe").tobytes(), path))
        state, step = first_state(recipe, weights), arrays.pop("state/step")
        if step.shape or step.dtype.kind != "i" or not 0 <= step <= recipe.steps:
            raise InputError(f"a step must be a whole number from 0 to {recipe.steps}; got {step}")
        moments = {name: tuple(_moment_like(zero, arrays.pop(f"state/{name}/{n}"))
                               for n, zero in enumerate(zeros))
                   for name, zeros in state.moments.items()}
        if arrays:
            raise InputError(f"got also {min(arrays)}")
        best = replace(weights, **best) if best else None
    except KeyError as error:
        raise FileError(f"{str(path)!r} must be a checkpoint; got no {error}") from None
    except (TypeError, InputError) as error:
        raise FileError(f"{str(path)!r} must be a checkpoint: {error}") from None
    return model, replace(state, moments=moments, step=int(step)), best


def _moment_like(zero, moment):
    """`moment`, laid out in memory as `zero` is, if it is finite and of its shape and dtype."""
    if (moment.shape, moment.dtype) != (zero.shape, zero.dtype) or not np.isfinite(moment).all():
        raise InputError(f"moments must be finite, {zero.dtype} of shape {zero.shape}; got "
                         f"{moment.dtype} {moment.shape}")
    return np.asfortranarray(moment) if zero.flags.f_contiguous else moment
