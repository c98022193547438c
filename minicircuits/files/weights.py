"""`Weights` in a file: arrays by name in a `.safetensors`, if the path ends so, or a `.npz`.

With them stands `positions`, its letters as bytes; of `NormalizedWeights` also n_normalized and
eps; in a model file, what `model_file` adds.
"""

from dataclasses import replace
from operator import index
from os import PathLike

import numpy as np

from minicircuits.door import door
from minicircuits.files import disk, npz, tensors
from minicircuits.notation import WEIGHT_AXES, NormalizedWeights, Weights


@door
def save(path: str | PathLike[str], weights: Weights, force: bool = False) -> None:
    """Write `weights` as `.npz` or `.safetensors`; a file that exists is refused unless `force`."""
    write_arrays(path, weights_to_arrays(weights), force)


@door
def load(path: str | PathLike[str]) -> Weights:
    """The `Weights` in a file that `save` or `save_model` wrote, bit for bit, or FileError.

    Of a model file, the tokenizer and what is known of the model are passed over, unread.
    """
    arrays = read_arrays(path)
    weights = weights_from_arrays(path, arrays)
    others = [name for name in arrays if name.split("/")[0] not in ("merges", "metadata", "state")]
    if others:
        raise disk.FileError(f"{str(path)!r} must hold weights or a model; got also {min(others)}")
    return weights


def weights_to_arrays(weights):
    """The arrays that stand for `weights` in a file, as a dict."""
    weights = replace(weights)                # sound still, or InputError: arrays can be changed
    arrays = dict(weights.items(), positions=np.frombuffer(weights.positions.encode(), np.uint8))
    if isinstance(weights, NormalizedWeights):
        arrays |= {"n_normalized": np.array(weights.n_normalized), "eps": np.array(weights.eps)}
    return arrays


def weights_from_arrays(path, arrays):
    """The `Weights` among `arrays`, taken out of that dict; FileError speaks of `path`."""
    positions = arrays.pop("positions", np.empty(0)).tobytes()[:20].decode("latin-1")
    for name in WEIGHT_AXES:
        if name not in arrays and (name, positions) != ("W_pos", "none"):
            raise disk.FileError(f"{str(path)!r} must hold weights; got no {name}")
    norms = {name: arrays.pop(name) for name in ("n_normalized", "eps") if name in arrays}
    try:
        W = {name: arrays.pop(name, None) for name in WEIGHT_AXES}
        if not norms:
            return Weights(**W, positions=positions)
        return NormalizedWeights(**W, positions=positions, eps=float(norms["eps"].item()),
                                 n_normalized=index(norms["n_normalized"].item()))
    except (KeyError, TypeError, ValueError) as error:          # an InputError is a ValueError
        raise disk.FileError(f"{str(path)!r} must hold weights: {error}") from None


def read_arrays(path):
    """The arrays in a file as a dict, each native, in C order, writable.

    Takes numbers and booleans as `write_arrays`, `np.savez` and the package safetensors write
    them; float16 and bfloat16 become float32. Raises FileError on compressed, encrypted, repeated
    or overlapping members, on bytes that belong to none, on sizes or checksums that do not agree,
    and on any other dtype. Values are not judged: NaN comes through.
    Memory: at most twice the file's size and 1 MiB; with half precision, four times.
    """
    return _format(path).from_bytes(path, disk.read_bytes(path))


def check_arrays_output(path, force=False):
    """`check_output`, and that the package is there which `write_arrays` needs for this path."""
    disk.check_output(path, force)
    if _format(path) is tensors:
        tensors.check_package()


def write_arrays(path, arrays, force=False):
    """Write a dict of name -> array, whole or not at all; see `check_output`.

    Raises FileError on a name, dtype or size that `read_arrays` refuses, and on float16. A
    `.safetensors` has no complex128, and its package must be there. Memory: twice the arrays.
    """
    chosen = _format(path)
    arrays = {name: npz.plain(path, name, array, chosen.KINDS) for name, array in arrays.items()}
    size = sum(array.nbytes + 1024 for array in arrays.values())
    if size > disk.MAX_BYTES or len(arrays) > npz.MAX_MEMBERS:
        raise disk.FileError(f"{str(path)!r} can hold {npz.MAX_MEMBERS} arrays and "
                             f"{disk.MAX_BYTES} bytes; got {len(arrays)} and {size}")
    disk.write_bytes(path, chosen.to_bytes(arrays), force)


def _format(path):
    return tensors if str(path).lower().endswith(".safetensors") else npz
