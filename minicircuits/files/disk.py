"""The bytes of a file: read up to a size, written whole or not at all."""

import contextlib
import os
import secrets
import stat

from minicircuits.notation import InputError

MAX_BYTES = 2**31          # of one file: below that, no zip needs the 64-bit form


class FileError(InputError):
    """A file that cannot be read, written or believed: which one, what was expected, what came."""


def expecting(what):
    """The function expect(fine, came): unless `fine`, it raises FileError "`what`; got `came`"."""
    def expect(fine, came):
        if not fine:
            raise FileError(f"{what}; got {came}")
    return expect


def read_bytes(path, largest=MAX_BYTES):
    """The content of the regular file `path`, of at most `largest` bytes, or FileError."""
    with _explained("read", path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):          # a pipe or a device might never end
            raise OSError("not a regular file")
        if status.st_size > largest:
            raise OSError(f"at most {largest} bytes expected, got {status.st_size}")
        with open(path, "rb") as file:
            return file.read(status.st_size)          # more, of what has no size, might never come


def check_output(path, force=False):
    """Raises FileError unless `path` can be written: call it before the work starts.

    A file that exists is refused, unless `force`. A folder, a pipe or a device is refused in
    any case. Every writer asks again when it writes. Without `force` it never overwrites a
    file, not even one that has appeared since.
    """
    with _explained("write", path):
        target = os.path.realpath(path)
        with contextlib.suppress(FileNotFoundError):
            regular = stat.S_ISREG(os.stat(target).st_mode)
            if not (regular and force):
                raise OSError("it exists already (force overwrites it)" if regular else
                              "not a regular file")
        if not os.path.isdir(os.path.dirname(target)):
            raise OSError("no such folder")
        if not os.access(os.path.dirname(target), os.W_OK | os.X_OK):
            raise OSError("its folder does not allow it")


def check_folder(path, names, force=False):
    """`check_output` for `names` in the folder `path`, which may still have to be made."""
    outputs = [os.path.join(path, name) for name in names] if os.path.isdir(path) else [path]
    for output in outputs:
        check_output(output, force)


def make_folder(path):
    """Make the folder `path` unless it is there, or FileError."""
    with _explained("write", path):
        os.makedirs(path, exist_ok=True)


def write_bytes(path, data, force=False):
    """Write `data` as the file `path`, whole or not at all; see `check_output`."""
    check_output(path, force)
    target = os.path.realpath(path)                   # write through a symbolic link
    temporary = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.tmp")
    with _explained("write", path):
        try:
            with open(temporary, "xb") as file:
                with contextlib.suppress(FileNotFoundError):
                    os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if not force:
                open(target, "xb").close()            # unless it has appeared meanwhile
            try:
                os.replace(temporary, target)
            except BaseException:
                if not force:
                    os.unlink(target)
                raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


@contextlib.contextmanager
def _explained(what, path):
    """Errors of the operating system as FileError; for odd names it raises ValueError."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"cannot {what} {str(path)!r}: {reason.lower()}") from None
