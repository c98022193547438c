"""`Weights` in a file: the arrays under their names, and `positions`, its letters as bytes.

A model file (see `training.model_file`) has the same members and some beside them. `load`
takes the weights out of it.
"""

from os import PathLike
import numpy as np

from minicircuits.files.arrays import read_arrays, write_arrays
from minicircuits.files.disk import FileError
from minicircuits.notation import WEIGHT_AXES, InputError, Weights

OF_A_MODEL = ("merges", "metadata", "state")      # what else a model file holds; state/… too


def save(path: str | PathLike[str], weights: Weights, force: bool = False) -> None:
    """Write `weights` as `.npz` or `.safetensors`; a file that exists is refused unless `force`."""
    write_arrays(path, weights_to_arrays(weights), force)


def load(path: str | PathLike[str]) -> Weights:
    """The `Weights` in a file that `save` or `save_model` wrote, bit for bit, or FileError.

    Of a model file, the tokenizer and what is known of the model are passed over, unread.
    """
    arrays = read_arrays(path)
    weights = weights_from_arrays(path, arrays)
    if others := [name for name in arrays if name.split("/")[0] not in OF_A_MODEL]:
        raise FileError(f"{str(path)!r} must hold weights or a model; got also {min(others)}")
    return weights


def weights_to_arrays(weights):
    """The arrays that stand for `weights` in a file, as a dict."""
    return dict(weights.items(), positions=np.frombuffer(weights.positions.encode(), np.uint8))


def weights_from_arrays(path, arrays):
    """The `Weights` among `arrays`, taken out of that dict; FileError speaks of `path`."""
    positions = arrays.pop("positions", np.empty(0)).tobytes()[:20].decode("latin-1")
    for name in WEIGHT_AXES:
        if name not in arrays and (name, positions) != ("W_pos", "none"):
            raise FileError(f"{str(path)!r} must hold weights; got no {name}")
    try:
        return Weights(**{name: arrays.pop(name, None) for name in WEIGHT_AXES},
                       positions=positions)
    except InputError as error:
        raise FileError(f"{str(path)!r} must hold weights: {error}") from None
