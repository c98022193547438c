"""Arrays as `.safetensors`: a header in JSON, then the numbers. Only writing needs its package."""

try:
    import safetensors.numpy
except ImportError:                # the extra `interop`
    safetensors = None

import numpy as np

from minicircuits.files import disk, npz
from minicircuits.files.strict_json import parse_json

NAMES = {"BOOL": "|b1", "I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4",
         "U32": "<u4", "I64": "<i8", "U64": "<u8", "F32": "<f4", "F64": "<f8"}
KINDS = tuple(NAMES.values())
READ = {**NAMES, "F16": "<f2", "BF16": "<u2"}
ENTRY = {"dtype", "shape", "data_offsets"}


def from_bytes(path, data):
    """The arrays in the bytes `data` by name, or FileError, which speaks of `path`.

    The tensors, in the order of their offsets, fill what follows the header exactly.
    """
    expect = disk.expecting(f"{str(path)!r} must be a .safetensors of numbers")
    data, length = memoryview(data), int.from_bytes(data[:8], "little")
    expect(length <= 200 * npz.MAX_MEMBERS, f"a header of {length} bytes")   # it is parsed whole
    expect(8 + length <= len(data), "a part of one")
    header, data = parse_json(data[8:8 + length], f"the header of {path}"), data[8 + length:]
    expect(isinstance(header, dict), "a header without names")
    header.pop("__metadata__", None)
    expect(len(header) <= npz.MAX_MEMBERS, f"{len(header)} tensors")
    for name, tensor in header.items():
        expect(npz.MEMBER.fullmatch(f"{name}.npy"), f"a tensor named {name[:40]!r}")
        expect(isinstance(tensor, dict) and tensor.keys() == ENTRY
               and _are_sizes(tensor["shape"]) and _are_sizes(tensor["data_offsets"])
               and len(tensor["data_offsets"]) == 2, f"{name} without dtype, shape and offsets")
        expect(str(tensor["dtype"]) in READ, f"{name} of {str(tensor['dtype'])[:40]!r}")
    arrays, end = {}, 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        dtype, shape, (start, stop) = map(header[name].get, ("dtype", "shape", "data_offsets"))
        expect(start == end <= stop <= len(data), f"{name} out of place")
        arrays[name] = npz.array_from(f"{name} in {str(path)!r}", np.dtype(READ[dtype]), shape,
                                      data[start:stop])
        if dtype == "BF16":                       # the upper half of a float32
            bits = arrays[name].astype(np.uint32)
            bits <<= 16
            arrays[name] = bits.view(np.float32)
        end = stop
    expect(end == len(data), "bytes that belong to no tensor")
    return arrays


def _are_sizes(value):
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def check_package():
    """Raises FileError unless a `.safetensors` can be written."""
    if safetensors is None:
        raise disk.FileError("writing .safetensors needs the package safetensors, "
                             "minicircuits[interop]")


def to_bytes(arrays):
    """A `.safetensors` of `plain` arrays."""
    check_package()
    return safetensors.numpy.save(arrays)
