"""Vectors and answers as folders that C, Rust or JavaScript read in a few lines.

A case is a folder: a C-order little-endian `.npy` for each tensor, and `manifest.json`, which
says for each its file, its role ("given" or "expected"), its axes, dtype and shape, the byte
at which its data begin, its place in the order of computation and its sha256. An answer is a
folder of `.npy` files named as the expected ones are: any of them, float32 or float64.

In the convention "transformer_lens" names and axes are that library's, a file per layer, and a
gradient is `d` and the name: `dblocks.0.attn.W_Q.npy`. Loss and circuits have no name there.
"""

import hashlib
import os

import numpy as np

from minicircuits import files
from minicircuits.interop import ACTIVATIONS, BIASES, WEIGHTS, each_array, reordered
from minicircuits.notation import InputError
from minicircuits.testing.steps import AXES, BIAS_LETTERS, EPS, WEIGHT_LETTERS

FORMAT = "minicircuits vector 1"
CONVENTIONS = ("paper", "transformer_lens")
MAX_TENSOR = 2 ** 28       # bytes of one that a stranger wrote
GIVEN_AND_EXPECTED = {**WEIGHT_LETTERS, **BIAS_LETTERS, "tokens": "b i", **AXES}   # name -> axes


def places(name, n_layers, convention):
    """Where a tensor's numbers are: a list of (file, index into ours, our axes, their axes)."""
    if convention not in CONVENTIONS:
        raise InputError(f"convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}")
    axes = GIVEN_AND_EXPECTED[name]
    rows = [row for row in WEIGHTS + BIASES + ACTIVATIONS if name in (row.ours, f"d{row.ours}")]
    if convention == "paper" or not rows:
        return [(name, ..., axes, axes)]
    d = name.removesuffix(rows[0].ours)
    return [(d + key, index, row.axes, row.their_axes)
            for row, index, key in each_array(rows, n_layers)]


def stems(n_layers, convention):
    """{file: tensor} of a convention's names, without ".npy"."""
    return {place[0]: name for name in GIVEN_AND_EXPECTED
            for place in places(name, n_layers, convention)}


def write_case(folder, vector, convention="paper", dtype="float64", expected=True, force=False):
    """Write a case as a folder; each file whole or not at all, the manifest last."""
    roles = {"given": {**vector.given, "tokens": vector.tokens},
             "expected": vector.reference.arrays() if expected else {}}
    found = [(role, *place, array) for role in roles for name, array in roles[role].items()
             for place in places(name, vector.weights.n_layers, convention)]
    files.check_folder(folder, [*(f"{name}.npy" for _, name, *_ in found), "manifest.json"], force)
    files.make_folder(folder)
    tensors = []
    for order, (role, name, index, axes, theirs, array) in enumerate(found):
        array = np.asarray(reordered(array[index], axes, theirs),
                           np.int32 if name == "tokens" else dtype)
        data = files.write_npy(os.path.join(folder, f"{name}.npy"), array, force)
        tensors.append({"name": name, "file": f"{name}.npy", "role": role,
                        "axes": theirs.split(), "dtype": array.dtype.str,
                        "shape": list(array.shape), "offset": len(data) - array.nbytes,
                        "order": order, "sha256": hashlib.sha256(data).hexdigest()})
    files.write_json(os.path.join(folder, "manifest.json"), {
        "format": FORMAT, "id": vector.id, "comment": vector.comment,
        "hunts": list(vector.hunts), "exact": list(vector.exact), "convention": convention,
        "shape": vector.shape, "tied": vector.tied, "biases": vector.biases is not None,
        "norm": vector.norm, **({"eps": EPS} if vector.norm else {}),
        "positions": vector.weights.positions, "tensors": tensors}, force)


def verify_case(folder):
    """Names of the files of a case that are not what its manifest says; FileError if it is none."""
    manifest = files.read_json(os.path.join(folder, "manifest.json"))
    try:
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {str(manifest['format'])[:40]!r}")
        wanted = {tensor["file"]: tensor["sha256"] for tensor in manifest["tensors"]}
        for name in wanted:                  # a name from a stranger does not become a path
            if not files.MEMBER.fullmatch(name) or "/" in name:
                raise ValueError(f"a file named {name[:40]!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise files.FileError(f"{str(folder)!r} must hold the manifest of a case ({FORMAT}); got "
                              f"{str(error)[:80]}") from None
    return [name for name, sha256 in wanted.items() if sha256 != hashlib.sha256(
        files.read_bytes(os.path.join(folder, name), MAX_TENSOR)).hexdigest()]


def read_answer(folder, vector, convention="paper"):
    """{name: array} of a candidate's `.npy` files, or FileError: a name nobody expects too."""
    n_layers = vector.weights.n_layers
    names = stems(n_layers, convention)
    present = [name[:-4] for name in names_in(folder) if name.endswith(".npy")]
    for stem in present:
        for other in CONVENTIONS if stem not in names else ():
            if stem in stems(n_layers, other):
                raise files.FileError(f"{str(folder)!r} has {stem}.npy, a name of the convention "
                                      f"{other}; say --convention {other}")
        if stem not in names:
            raise files.FileError(f"{str(folder)!r} must hold tensors named "
                                  f"{', '.join(n for n in names if names[n] in AXES)}; got "
                                  f"{stem[:80]!r}")
    found = {}
    for name in dict.fromkeys(names[stem] for stem in present if names[stem] in AXES):
        parts = []
        place = places(name, n_layers, convention)
        for stem, _, axes, theirs in place:
            array = files.read_npy(os.path.join(folder, f"{stem}.npy"), MAX_TENSOR)
            if not theirs and array.size == 1:                 # a number, as an array of one
                array = array.reshape(())
            if array.ndim != len(theirs.split()):
                raise files.FileError(f"{stem} must have axes ({theirs}); got shape {array.shape}")
            parts.append(reordered(array, theirs, axes))
        if len({part.shape for part in parts}) > 1:
            raise files.FileError(f"{name} must have one shape in all layers; got "
                                  f"{', '.join(sorted({str(part.shape) for part in parts}))}")
        found[name] = parts[0] if place[0][1] is ... else np.stack(parts)
    return found


def names_in(folder):
    """What is in a folder, in order and but for hidden files, or FileError."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise files.FileError(f"cannot read the folder {str(folder)!r}: "
                              f"{error.strerror.lower()}") from None
