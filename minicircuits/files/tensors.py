"""Arrays as `.safetensors`. The package of that name sees that they fill the file exactly."""

try:
    import safetensors.numpy
except ImportError:                # the extra `interop`
    safetensors = None

from minicircuits.files import disk, npz

NAMES = {"BOOL": "|b1", "I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4",
         "U32": "<u4", "I64": "<i8", "U64": "<u8", "F32": "<f4", "F64": "<f8"}
KINDS = tuple(NAMES.values())


def from_bytes(path, data):
    """The arrays in the bytes `data` by name, or FileError, which speaks of `path`."""
    expect = disk.expecting(f"{str(path)!r} must be a .safetensors of numbers")
    length = int.from_bytes(data[:8], "little")
    expect(length <= 200 * npz.MAX_MEMBERS, f"a header of {length} bytes")   # it is parsed whole
    count = data.count(b'"dtype"', 8, 8 + length)
    expect(count <= npz.MAX_MEMBERS, f"{count} tensors")
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        expect(False, repr(str(error))[:100])
    expect(len(found) == count, "a name twice, or more than tensors")
    arrays = {}
    for name, tensor in found:
        expect(npz.MEMBER.fullmatch(f"{name}.npy"), f"a tensor named {name[:40]!r}")
        expect(tensor["dtype"] in NAMES, f"{name} of {tensor['dtype']}")
        arrays[name] = npz.array_from(f"{name} in {str(path)!r}", NAMES[tensor["dtype"]],
                                      tensor["shape"], tensor["data"])
    return arrays


def to_bytes(arrays):
    """A `.safetensors` of `plain` arrays."""
    return safetensors.numpy.save(arrays)
