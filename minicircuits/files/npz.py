"""Arrays as uncompressed `.npz`, a zip file of `.npy` members; and one array as `.npy`.

Read byte by byte, since `np.load` believes what sizes a file claims, and can unpickle.
"""

import io
import math
import re
import struct
import zipfile
import zlib

import numpy as np

from minicircuits.files import disk

MAX_MEMBERS = 1000         # arrays in one file
MEMBER = re.compile(r"([\w./-]{1,100})\.npy", re.ASCII)
KINDS = ("<f4", "<f8", "<c16", "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
SPELLED = {                # "<f8", ">f8", "=f8", "f8", "float64" -> a dtype; "<f2" is only read
    spelled: np.dtype(spelled) for kind in (*KINDS, "<f2")
    for spelled in (np.dtype(kind).name, *(order + kind[1:] for order in ("<", ">", "=", "|", "")))}
FIELD = (r"'(descr|fortran_order|shape)':"                # Python 2 wrote the size 2 as 2L
         r"('[<>=|]?\w{2,10}'|True|False|\((?:\d{1,10}L?,)*(?:\d{1,10}L?)?\))")
HEADER = re.compile(f"{{{FIELD},{FIELD},{FIELD},?}}\n?", re.ASCII)   # without spaces, quoted so
END = struct.Struct("<4s4H2LH")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s22xHH")


def from_bytes(path, data):
    """The arrays in the `.npz` bytes `data` by name, or FileError, which speaks of `path`."""
    expect = disk.expecting(f"{str(path)!r} must be an uncompressed .npz")
    try:
        members = _members(expect, memoryview(data))
    except struct.error:
        expect(False, "a part of one")
    return {name: _from_npy(f"{name} in {str(path)!r}", member) for name, member in members.items()}


def _members(expect, data):
    """Views of the `.npy` members of a zip file in which every byte has exactly one place."""
    expect(data[:2] == b"PK", "another kind of file")
    end = len(data) - END.size
    signature, *disks, count, size, directory, comment = END.unpack_from(data, end)
    expect(signature == b"PK\5\6" and directory + size == end and not comment,
           "a part of one, or bytes after its end")
    expect(disks == [0, 0, count] and count <= MAX_MEMBERS, f"{count} members")
    members, at, stop = {}, directory, 0
    for _ in range(count):
        (signature, _, _, flags, method, _, _, checksum, stored, size, *lengths, _, _, _, start
         ) = ENTRY.unpack_from(data, at)
        name = bytes(data[at + ENTRY.size:][:lengths[0]]).decode("latin-1")
        match = MEMBER.fullmatch(name)
        expect(signature == b"PK\1\2" and match, f"a member named {name[:40]!r}")
        expect(method == 0 and flags & ~0x800 == 0, f"{name} compressed, encrypted or streamed")
        expect(match[1] not in members, f"{name} twice")
        signature, *local = LOCAL.unpack_from(data, start)
        begin = start + LOCAL.size + sum(local)
        expect(signature == b"PK\3\4" and start == stop and size == stored
               and data[start + LOCAL.size:][:local[0]] == name.encode(), f"{name} out of place")
        stop = begin + size
        members[match[1]] = data[begin:stop]
        expect(zlib.crc32(data[begin:stop]) == checksum, f"{name} damaged")
        at += ENTRY.size + sum(lengths)
    expect(at == end and stop == directory, "bytes that belong to no member")
    return members


def _from_npy(place, data):
    """The array in the `.npy` bytes `data`, which errors call `place`."""
    expect = disk.expecting(f"{place} must be an array of numbers")
    start = 10 if data[6:7] == b"\1" else 12
    stop = start + int.from_bytes(data[8:start], "little")
    expect(data[:6] == b"\x93NUMPY" and data[6:8] in (b"\1\0", b"\2\0", b"\3\0")
           and stop <= start + 10_000, "another kind of file")
    text = bytes(data[start:stop]).decode("latin-1")
    header = HEADER.fullmatch(text.replace(" ", "").replace('"', "'"))
    fields = dict(zip(header.groups()[::2], header.groups()[1::2])) if header else {}
    expect(len(fields) == 3 and fields["descr"][1:-1] in SPELLED and fields["shape"][0] == "("
           and fields["fortran_order"] in ("True", "False"), f"the header {text[:80]!r}")
    shape = [int(size) for size in re.findall(r"\d+", fields["shape"])]
    return array_from(place, SPELLED[fields["descr"][1:-1]], shape, data[stop:],
                      "F" if fields["fortran_order"] == "True" else "C")


def array_from(place, dtype, shape, data, order="C"):
    """The numbers in `data` as an array: native, in C order, writable; a copy where needed.

    float16 becomes float32.
    """
    expect = disk.expecting(f"{place} must be an array of numbers")
    expect(len(shape) <= 32 and math.prod(shape) * dtype.itemsize == len(data)
           and math.prod(filter(None, shape)) * dtype.itemsize <= disk.MAX_BYTES,
           f"{len(data)} bytes for {dtype} of shape {str(shape)[:80]}")     # 0 hides other sizes
    array = np.ndarray(shape, dtype, data, order=order)
    expect(dtype != bool or array.view(np.uint8).max(initial=0) <= 1, "booleans other than 0 and 1")
    native = dtype.newbyteorder("=")
    return np.require(array, np.float32 if native == np.float16 else native,
                      ["C", "ALIGNED", "WRITEABLE"])


def to_bytes(arrays):
    """A `.npz` of `plain` arrays."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3                    # the same bytes on every system
            archive.writestr(info, _to_npy(array))
    return data.getvalue()


def _to_npy(array):
    data = io.BytesIO()
    np.lib.format.write_array(data, array, version=(1, 0), allow_pickle=False)
    return data.getvalue()


def plain(path, name, array, kinds=KINDS):
    """`array` as it is written, little-endian and in C order; FileError unless it can be read."""
    array = np.asarray(array)
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    if not (MEMBER.fullmatch(f"{name}.npy") and array.dtype.str in kinds):
        raise disk.FileError(f"{str(path)!r} can hold numbers under plain names; got {name!r}, "
                             f"{array.dtype}")
    return array


def read_npy(path, largest=disk.MAX_BYTES):
    """The array in a `.npy` file of at most `largest` bytes; see `read_arrays`."""
    return _from_npy(repr(str(path)), memoryview(disk.read_bytes(path, largest)))


def write_npy(path, array, force=False):
    """Write one array as `.npy`, little-endian, in C order; returns its bytes."""
    data = _to_npy(plain(path, "array", array))
    disk.write_bytes(path, data, force)
    return data
