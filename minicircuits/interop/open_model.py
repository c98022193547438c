"""Any file with a model in it: one of ours, or weights that others trained."""

import os
from os import PathLike
from pathlib import Path

import numpy as np

from minicircuits import files
from minicircuits.interop.transformer_lens import from_transformer_lens
from minicircuits.notation import InputError
from minicircuits.training.model_file import Model, model_among
from minicircuits.training.vocabulary import read_vocabulary

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


def open_model(path: str | PathLike, positions: str | None = None,
               tokens: str | PathLike | None = None, start: int | str | None = None) -> Model:
    """The `Model` in a file, whoever wrote it: weights, tokenizer, and metadata on its origin.

    path : a model file or a checkpoint; weights that `save` wrote; or a state dict with
        TransformerLens's names, as `.npz` or `.safetensors`. Its config is read from
        `NAME.json` beside `NAME.safetensors`, else from `config.json` in the same folder, and
        says what a state dict cannot (see `from_transformer_lens`).
    positions : "shortformer", "standard" or "none", where no file says it
    tokens : a JSON file with the names of tokens: a list, a `vocab.json` or a `tokenizer.json`
    start : the token before every text: an id, a name, or "none"; by default a name such as
        `<|endoftext|>` (see `Vocabulary`)

    A model file has its own positions and tokenizer; other weights get a `Vocabulary`. Files
    may come from strangers: FileError, in one line, on what is no model or another kind of
    model. Pickles (`.pt`) are never read.
    """
    if str(path).lower().endswith(PICKLES):
        raise files.FileError(f"{str(path)!r} may be a pickle, which can run code: save the state "
                              "dict as .safetensors or .npz")
    arrays = files.read_arrays(path)
    name = os.path.basename(path)
    if "merges" in arrays:
        if tokens is not None or start is not None:
            raise InputError(f"{name!r} has a tokenizer of its own: leave out tokens and start")
        return _same_positions(name, model_among(path, arrays), positions)
    if "W_E" in arrays:
        origin = f"the weights in {name}"
        if positions is not None:
            arrays.setdefault("positions", np.frombuffer(positions.encode(), np.uint8))
        if "positions" not in arrays:
            raise InputError(f"{name!r} does not say where positions are added: choose positions "
                             "(shortformer, standard, none)")
        weights = files.weights_from_arrays(path, arrays)
        if arrays:
            raise files.FileError(f"{str(path)!r} must hold weights; got also {min(arrays)}")
    else:
        config, cfg = _config_beside(Path(path))
        origin = f"the state dict in {name}" + (f", with {config}" if config else "")
        try:
            weights = from_transformer_lens(arrays, positions, cfg)
        except files.FileError:
            raise
        except InputError as error:
            raise files.FileError(f"{str(path)!r}: {error}") from None
        positions = None                         # of the model that it was
    model = Model(weights, read_vocabulary(tokens, weights.d_vocab, start), {"origin": origin})
    return _same_positions(name, model, positions)


def _same_positions(name, model, positions):
    """`model`, unless the positions that were asked for are not its own."""
    if positions not in (None, model.weights.positions):
        raise InputError(f"{name!r} has {model.weights.positions} positions; got {positions!r}")
    return model


def _config_beside(path):
    """The name and the content of the config of the weights in `path`, or two None."""
    for beside in path.with_suffix(".json"), path.with_name("config.json"):
        if beside.is_file():
            cfg = files.read_json(beside)
            if not isinstance(cfg, dict):
                raise files.FileError(f"{str(beside)!r} must be a config, a JSON object; got "
                                      f"{type(cfg).__name__}")
            return beside.name, cfg
    return None, None
