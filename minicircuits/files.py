"""The only reader and writer of files: what comes in is checked, what goes out is whole.

Files come from strangers. Readers measure before they allocate, never unpickle, and raise
`FileError` and nothing else on any bytes whatever. Writers are atomic: after a failure or an
interruption the output is as it was before, and nothing else is left.

Arrays travel as uncompressed `.npz`, or (by that ending of the path, with the extra `interop`)
as `.safetensors`; equal arrays give equal bytes. This file does not know what a corpus or a
tokenizer is.
"""

import contextlib
import io
import json
import math
import os
import re
import secrets
import stat
import struct
import zipfile
import zlib

import numpy as np

try:
    import safetensors.numpy
except ImportError:                # the extra `interop`
    safetensors = None

from minicircuits.notation import WEIGHT_AXES, InputError, Weights

MAX_BYTES = 2**31          # of one file: below that, no zip needs the 64-bit form
MAX_JSON = 2**24
MAX_MEMBERS = 1000         # arrays in one .npz

MEMBER = re.compile(r"([\w./-]{1,100})\.npy", re.ASCII)
DTYPE = r"[<>](?:f[48]|c16|[iu][248])|\|[biu]1"
HEADER = re.compile(       # of a .npy, with the spaces taken out
    rf"{{'descr':'({DTYPE})','fortran_order':(True|False),"
    r"'shape':\(((?:\d{1,10},){0,31}(?:\d{1,10})?)\),?}\n?", re.ASCII)
SAFETENSORS = {"BOOL": "|b1", "I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4",
               "U32": "<u4", "I64": "<i8", "U64": "<u8", "F32": "<f4", "F64": "<f8"}
ZIP_END = struct.Struct("<4s4H2LH")
ZIP_ENTRY = struct.Struct("<4s6H3L5H2L")
ZIP_LOCAL = struct.Struct("<4s22xHH")


class FileError(InputError):
    """A file that cannot be read, written or believed: which one, what was expected, what came."""


def read_bytes(path, largest=MAX_BYTES):
    """The content of the regular file `path`, of at most `largest` bytes, or FileError."""
    with _explained("read", path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):          # a pipe or a device might never end
            raise OSError("not a regular file")
        if status.st_size > largest:
            raise OSError(f"at most {largest} bytes expected, got {status.st_size}")
        with open(path, "rb") as file:
            return file.read()


def check_output(path, force=False):
    """Raises FileError unless `path` can be written: ask before the work starts.

    A file that exists is refused unless `force`, anything else that exists always. Every
    writer here asks again, and without `force` never overwrites, whatever happens meanwhile.
    """
    with _explained("write", path):
        target = os.path.realpath(path)
        with contextlib.suppress(FileNotFoundError):
            regular = stat.S_ISREG(os.stat(target).st_mode)
            if not (regular and force):
                raise OSError("it exists already" if regular else "not a regular file")
        if not os.path.isdir(os.path.dirname(target)):
            raise OSError("no such folder")
        if not os.access(os.path.dirname(target), os.W_OK | os.X_OK):
            raise OSError("its folder does not allow it")


def check_folder(path, names, force=False):
    """Raises FileError unless `names` can be written in the folder `path`, there or yet to be made.

    As `check_output` for each name; a folder that is not there needs one above it.
    """
    if os.path.isdir(path):
        for name in names:
            check_output(os.path.join(path, name), force)
    else:
        check_output(path)


def make_folder(path):
    """Make the folder `path` unless it is there, or FileError."""
    with _explained("write", path):
        os.makedirs(path, exist_ok=True)


def write_bytes(path, data, force=False):
    """Write `data` as the file `path`, whole or not at all; see `check_output`."""
    with _new_file(path, force) as file:
        file.write(data)


@contextlib.contextmanager
def _explained(what, path):
    """Errors of the operating system as FileError; ValueError is what it says of odd names."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"cannot {what} {str(path)!r}: {reason.lower()}") from None


@contextlib.contextmanager
def _new_file(path, force):
    """A temporary file to write, which becomes `path` in one step once all went well."""
    check_output(path, force)
    target = os.path.realpath(path)                   # write through a symbolic link
    temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
    with _explained("write", path):
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if force:
                os.replace(temporary, target)
            else:
                _rename_to_new(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _rename_to_new(source, target):
    """Like `os.rename`, but never overwrites, not even a file that has just appeared."""
    try:
        os.link(source, target)
    except OSError:                                   # a disk without hard links, or it exists
        open(target, "xb").close()
        try:
            os.replace(source, target)
        except BaseException:
            os.unlink(target)
            raise


def read_arrays(path):
    """The arrays of an uncompressed `.npz` as a dict, each native, in C order, writable.

    Takes what `write_arrays` and `np.savez` write: numbers and booleans. Raises FileError on
    compressed, encrypted, repeated or overlapping members, on bytes that belong to none, on
    sizes or checksums that do not agree, on any other dtype. Values are not judged (NaN).
    Memory: at most twice the file's size and 1 MiB. A path that ends in .safetensors is read as
    such, under the same rules; float16 and bfloat16 are refused there too.
    """
    if str(path).endswith(".safetensors"):
        return _read_safetensors(path)
    data = memoryview(read_bytes(path))
    try:
        members = _members(path, data)
    except struct.error:
        raise FileError(f"{str(path)!r} must be an uncompressed .npz; got a part of one") from None
    return {name: _array(f"{name} in {str(path)!r}", member) for name, member in members.items()}


def _members(path, data):
    """Views of the `.npy` members of a zip file in which every byte has exactly one place."""
    def expect(fine, came):
        if not fine:
            raise FileError(f"{str(path)!r} must be an uncompressed .npz; got {came}")

    expect(data[:2] == b"PK", "another kind of file")
    end = len(data) - ZIP_END.size
    signature, *disks, count, size, directory, comment = ZIP_END.unpack_from(data, end)
    expect(signature == b"PK\5\6" and directory + size == end and not comment,
           "a part of one, or bytes after its end")
    expect(disks == [0, 0, count] and count <= MAX_MEMBERS, f"{count} members")
    members, at, stop = {}, directory, 0
    for _ in range(count):
        (signature, _, _, flags, method, _, _, checksum, stored, size, *lengths, _, _, _, start
         ) = ZIP_ENTRY.unpack_from(data, at)
        name = bytes(data[at + ZIP_ENTRY.size:][:lengths[0]]).decode("latin-1")
        match = MEMBER.fullmatch(name)
        expect(signature == b"PK\1\2" and match, f"a member named {name[:40]!r}")
        expect(method == 0 and flags & ~0x800 == 0, f"{name} compressed, encrypted or streamed")
        expect(match[1] not in members, f"{name} twice")
        signature, *local = ZIP_LOCAL.unpack_from(data, start)
        begin = start + ZIP_LOCAL.size + sum(local)
        expect(signature == b"PK\3\4" and start == stop and size == stored
               and data[start + ZIP_LOCAL.size:][:local[0]] == name.encode(),
               f"{name} out of place")
        stop = begin + size
        members[match[1]] = data[begin:stop]
        expect(zlib.crc32(data[begin:stop]) == checksum, f"{name} damaged")
        at += ZIP_ENTRY.size + sum(lengths)
    expect(at == end and stop == directory, "bytes that belong to no member")
    return members


def _array(place, data):
    """A copy of the array in the `.npy` bytes `data`, which errors call `place`."""
    def expect(fine, came):
        if not fine:
            raise FileError(f"{place} must be an array of numbers; got {came}")

    start = 10 if data[6:7] == b"\1" else 12
    stop = start + int.from_bytes(data[8:start], "little")
    expect(data[:6] == b"\x93NUMPY" and data[6:8] in (b"\1\0", b"\2\0", b"\3\0")
           and stop <= start + 10_000, "another kind of file")
    text = bytes(data[start:stop]).decode("latin-1")
    header = HEADER.fullmatch(text.replace(" ", ""))
    expect(header, f"the header {text[:80]!r}")
    dtype, shape = np.dtype(header[1]), tuple(int(n) for n in header[3].split(",") if n)
    expect(math.prod(shape) * dtype.itemsize == len(data) - stop      # 0 hides the other sizes
           and math.prod(filter(None, shape)) * dtype.itemsize <= MAX_BYTES,
           f"{len(data) - stop} bytes for {dtype} of shape {shape}")
    array = np.ndarray(shape, dtype, data, stop, order="F" if header[2] == "True" else "C")
    expect(not _odd_booleans(array), "booleans other than 0 and 1")
    return array.astype(dtype.newbyteorder("="), order="C")


def _odd_booleans(array):
    return array.dtype == bool and array.view(np.uint8).max(initial=0) > 1


def _read_safetensors(path):
    """The tensors of a file of that format; its package sees that they fill the file exactly."""
    def expect(fine, came):
        if not fine:
            raise FileError(f"{str(path)!r} must be a .safetensors of numbers; got {came}")

    _need_safetensors("read", path)
    data = read_bytes(path)
    length = int.from_bytes(data[:8], "little")
    expect(length <= 200 * MAX_MEMBERS, f"a header of {length} bytes")       # it is parsed whole
    count = data.count(b'"dtype"', 8, 8 + length)
    expect(count <= MAX_MEMBERS, f"{count} tensors")
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        expect(False, repr(str(error))[:100])
    expect(len(found) == count, "a name twice, or more than tensors")
    arrays = {}
    found.reverse()
    while found:
        name, tensor = found.pop()
        shape, dtype = tensor["shape"], np.dtype(SAFETENSORS.get(tensor["dtype"], "V"))
        expect(MEMBER.fullmatch(f"{name}.npy"), f"a tensor named {name[:40]!r}")
        expect(dtype != "V", f"{name} of {tensor['dtype']}")
        expect(len(shape) <= 32 and math.prod(filter(None, shape)) * dtype.itemsize <= MAX_BYTES,
               f"{name} of shape {str(shape)[:80]}")
        array = np.frombuffer(tensor["data"], dtype).reshape(shape)
        expect(not _odd_booleans(array), f"{name} with booleans other than 0 and 1")
        arrays[name] = array.astype(dtype.newbyteorder("="), copy=False)
    return arrays


def _need_safetensors(what, path):
    if safetensors is None:
        raise FileError(f"cannot {what} {str(path)!r}: that needs the package safetensors, "
                        "minicircuits[interop]")


def write_arrays(path, arrays, force=False):
    """Write a dict of name -> array as an uncompressed `.npz`, whole or not at all.

    Or as `.safetensors`, if `path` ends so (which has no complex128). Raises FileError on a
    name, dtype or size that `read_arrays` refuses; see `check_output`.
    """
    as_safetensors = str(path).endswith(".safetensors")
    kinds = "|".join(map(re.escape, SAFETENSORS.values())) if as_safetensors else DTYPE
    if as_safetensors:
        _need_safetensors("write", path)
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        arrays[name] = array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        if not (MEMBER.fullmatch(f"{name}.npy") and re.fullmatch(kinds, array.dtype.str)):
            raise FileError(f"{str(path)!r} can hold numbers under plain names; got {name!r}, "
                            f"{array.dtype}")
    size = sum(array.nbytes + 1024 for array in arrays.values())
    if size > MAX_BYTES or len(arrays) > MAX_MEMBERS:
        raise FileError(f"{str(path)!r} can hold {MAX_MEMBERS} arrays and {MAX_BYTES} bytes; got "
                        f"{len(arrays)} and {size}")
    if as_safetensors:
        return write_bytes(path, safetensors.numpy.save(arrays), force)
    with _new_file(path, force) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3                    # the same bytes on every system
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def read_npy(path, largest=MAX_BYTES):
    """The array in a `.npy` file of at most `largest` bytes; see `read_arrays`."""
    return _array(repr(str(path)), memoryview(read_bytes(path, largest)))


def write_npy(path, array, force=False):
    """Write one array as `.npy`, little-endian, in C order; returns its bytes."""
    array = np.asarray(array)
    array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    if not re.fullmatch(DTYPE, array.dtype.str):
        raise FileError(f"{str(path)!r} can hold numbers; got {array.dtype}")
    data = io.BytesIO()
    np.lib.format.write_array(data, array, version=(1, 0), allow_pickle=False)
    write_bytes(path, data.getvalue(), force)
    return data.getvalue()


def read_json(path):
    """The value in a JSON file; see `parse_json`."""
    return parse_json(read_bytes(path, MAX_JSON), path)


def parse_json(data, name):
    """The value of the JSON bytes `data`, strictly, or FileError, which calls them `name`.

    Refuses repeated keys, NaN, numbers beyond float64 (1e999), what is not UTF-8, and more
    than MAX_JSON bytes.
    """
    try:
        if len(data) > MAX_JSON:
            raise ValueError(f"{len(data)} bytes, more than {MAX_JSON}")
        value = json.loads(bytes(data).decode(), object_pairs_hook=_without_repeats,
                           parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()          # lone surrogates are no text
        return value
    except (ValueError, RecursionError) as error:
        raise FileError(f"{str(name)!r} must be strict JSON in UTF-8; got {error}") from None


def _without_repeats(pairs):
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a repeated key")
    return value


def _finite(text):
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]}")
    return value


def format_json(value, name):
    """`value` as JSON bytes that `parse_json` takes, or FileError, which calls them `name`."""
    try:
        data = json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise FileError(f"{str(name)!r} can hold JSON values; got {error}") from None
    parse_json(data, name)
    return data


def write_json(path, value, force=False):
    """Write `value` as a JSON file, whole or not at all; see `check_output`."""
    write_bytes(path, format_json(value, path), force)


def save(path, weights, force=False):
    """Write `weights` as an uncompressed `.npz`; a file that exists is refused unless `force`.

    Members: the arrays under their names, and `positions`, the letters of the word as bytes.
    """
    write_arrays(path, weights_to_arrays(weights), force)


def load(path):
    """The `Weights` that `save` wrote, bit for bit, or FileError."""
    arrays = read_arrays(path)
    weights = weights_from_arrays(path, arrays)
    if arrays:
        raise FileError(f"{str(path)!r} must hold weights alone; got also {min(arrays)}")
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
