"""Any file with a model in it: one of ours, or weights that others trained."""

from os import PathLike
from pathlib import Path

import numpy as np

from minicircuits import files
from minicircuits.door import door
from minicircuits.interop.transformer_lens import from_transformer_lens
from minicircuits.notation import InputError
from minicircuits.training.model_file import Model, model_among
from minicircuits.training.vocabulary import read_vocabulary

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


@door
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
    arrays, path = files.read_arrays(path), Path(path)
    if "merges" in arrays:
        if tokens is not None or start is not None:
            raise InputError(f"{path.name!r} has a tokenizer of its own: leave out tokens, start")
        model = model_among(path, arrays)
        agree(path, model.weights, positions)
        return model
    weights, origin = (_ours if "W_E" in arrays else _theirs)(path, arrays, positions)
    return Model(weights, read_vocabulary(tokens, weights.d_vocab, start), {"origin": origin})


def _ours(path, arrays, positions):
    """The `Weights` in arrays with our names, and what they are."""
    if "positions" not in arrays:
        if positions is None:
            raise InputError(f"{path.name!r} does not say where positions are added: choose "
                             "positions (shortformer, standard, none)")
        arrays["positions"] = np.frombuffer(positions.encode(), np.uint8)
    weights = files.weights_from_arrays(path, arrays)
    if arrays:
        raise files.FileError(f"{str(path)!r} must hold weights; got also {min(arrays)}")
    agree(path, weights, positions)
    return weights, f"The weights in {path.name}"


def _theirs(path, arrays, positions):
    """The `Weights` in a state dict of TransformerLens, and what it was."""
    beside = path.with_suffix(".json"), path.with_name("config.json")
    cfg = next(filter(Path.is_file, beside), None)
    try:
        weights = from_transformer_lens(arrays, positions, cfg)
    except InputError as error:
        hint = "" if cfg else f" (read too: a cfg in {beside[0].name} or config.json beside it)"
        raise files.FileError(f"{str(path)!r}: {error}{hint}") from None
    told = f"with {cfg.name}" if cfg else "taken to have no norms, since no cfg is beside it"
    return weights, f"The state dict in {path.name}, {told}"


def agree(path, weights, positions):
    """Raises InputError if other positions are asked for than those of `weights`."""
    if positions not in (None, weights.positions):
        raise InputError(f"{path.name!r} has {weights.positions} positions; got {positions!r}")
