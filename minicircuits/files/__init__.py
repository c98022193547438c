"""The only reader and writer of files: what comes in is checked, what goes out is whole.

Files come from strangers. A reader measures before it allocates, never unpickles, and raises
`FileError` and nothing else, on any bytes whatever. A writer is atomic: after a failure or an
interruption the output is as it was before, and nothing else is left. Equal contents give
equal bytes. This room does not know what a text or a tokenizer is.
"""

from minicircuits.files.disk import (FileError, check_folder, check_output,     # noqa: F401
                                     expecting, make_folder, read_bytes, write_bytes)
from minicircuits.files.npz import MEMBER, read_npy, write_npy                  # noqa: F401
from minicircuits.files.strict_json import (format_json, parse_json, read_json,   # noqa: F401
                                            write_json)
from minicircuits.files.weights import (check_arrays_output, load, read_arrays,  # noqa: F401
                                        save, weights_from_arrays, weights_to_arrays,
                                        write_arrays)
