"""Arrays by name, in one file: a `.safetensors` if the path ends so, otherwise a `.npz`."""

from minicircuits.files import disk, npz, tensors


def read_arrays(path):
    """The arrays in a file as a dict, each native, in C order, writable.

    Takes numbers and booleans as `write_arrays`, `np.savez` and the package safetensors write
    them. Raises FileError on compressed, encrypted, repeated or overlapping members, on bytes
    that belong to none, on sizes or checksums that do not agree, and on any other dtype
    (float16 and bfloat16 too). Values are not judged: NaN comes through.
    Memory: at most twice the file's size and 1 MiB.
    """
    return _format(path).from_bytes(path, disk.read_bytes(path))


def write_arrays(path, arrays, force=False):
    """Write a dict of name -> array, whole or not at all; see `check_output`.

    Raises FileError on a name, dtype or size that `read_arrays` refuses. A `.safetensors` has
    no complex128. Memory: twice the arrays.
    """
    chosen = _format(path)
    arrays = {name: npz.plain(path, name, array, chosen.KINDS) for name, array in arrays.items()}
    size = sum(array.nbytes + 1024 for array in arrays.values())
    if size > disk.MAX_BYTES or len(arrays) > npz.MAX_MEMBERS:
        raise disk.FileError(f"{str(path)!r} can hold {npz.MAX_MEMBERS} arrays and "
                             f"{disk.MAX_BYTES} bytes; got {len(arrays)} and {size}")
    disk.write_bytes(path, chosen.to_bytes(arrays), force)


def _format(path):
    if not str(path).endswith(".safetensors"):
        return npz
    if tensors.safetensors is None:
        raise disk.FileError(f"{str(path)!r} needs the package safetensors, minicircuits[interop]")
    return tensors
