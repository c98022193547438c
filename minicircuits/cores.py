"""Pieces of work side by side, each on a core of its own.

BLAS, which multiplies NumPy's matrices, has threads of its own. Where they and the pieces fight
over the cores, everything waits. So BLAS is held to one thread meanwhile.
"""

import ctypes
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import cache, partial
from operator import call
from pathlib import Path
from threading import Lock

import numpy as np

try:
    from threadpoolctl import ThreadpoolController
except ImportError:                                  # the extra `fast` is not installed
    ThreadpoolController = None

GET_AND_PUT = [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")] + [
    (f"{scipy}openblas_get_num_threads{bits}", f"{scipy}openblas_set_num_threads{bits}")
    for scipy in ("", "scipy_") for bits in ("", "64_", "_64")]


class Shared:
    """What a process has one of: a pool with a thread for each core, and who holds BLAS."""

    def __init__(self):
        # Fresh memory costs as much as the arithmetic on it. Once an array of nearly 32 MiB was
        # freed, glibc keeps freed memory for the next (M_MMAP_THRESHOLD grows to that).
        np.empty((32 << 20) - 8192, np.uint8)
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)
        self.pool = ThreadPoolExecutor(len(allowed), thread_name_prefix="piece")
        self.lock, self.holders, self.before = Lock(), 0, []


shared = Shared()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared.__init__)      # it has none of the threads


def side_by_side(function, items):
    """Yields function(item) for each item, in order, however many cores there are.

    Where BLAS cannot be held to one thread, one item is done after the other. Once the caller asks
    for no more (an error, Ctrl-C), pieces that have not begun never will. A piece must not call
    this.
    """
    pieces = [partial(copy_context().run, function, item) for item in items]    # and its errstate
    with one_blas_thread() as held:
        yield from (shared.pool.map if held else map)(call, pieces)


@contextmanager
def one_blas_thread():
    """Holds BLAS to one thread until the last holder leaves; yields whether it keeps to one."""
    blas = loaded_blas()
    with shared.lock:
        if shared.holders == 0:
            shared.before = [(put, get()) for get, put in blas]
            for put, _ in shared.before:
                put(1)
        shared.holders += 1
    try:
        yield bool(blas) or os.environ.get("OMP_NUM_THREADS") == "1"
    finally:
        with shared.lock:
            shared.holders -= 1
            if shared.holders == 0:
                for put, count in shared.before:
                    put(count)


@cache
def loaded_blas():
    """(get its number of threads, put it) of each BLAS that is loaded; warns if none is found."""
    if ThreadpoolController is not None:
        return [(library.get_num_threads, library.set_num_threads)
                for library in ThreadpoolController().select(user_api="blas").lib_controllers]
    found = []
    for path in shared_libraries():
        with suppress(OSError):                              # RTLD_NOLOAD: only if it is loaded
            library = ctypes.CDLL(path, ctypes.DEFAULT_MODE | getattr(os, "RTLD_NOLOAD", 0))
            found += [(getattr(library, get), getattr(library, put))
                      for get, put in GET_AND_PUT if hasattr(library, put)]
    if not found and os.environ.get("OMP_NUM_THREADS") != "1":
        warnings.warn("BLAS cannot be held to one thread, which is slow on busy cores: set "
                      "OMP_NUM_THREADS=1 before Python starts, or install threadpoolctl")
    return found


def shared_libraries():
    """Paths of what may be a BLAS: beside NumPy, or anywhere, as Linux tells."""
    site, maps = Path(np.__file__).parents[1], Path("/proc/self/maps")
    paths = [*map(str, site.glob("numpy.libs/*")), *map(str, site.glob("numpy/.dylibs/*"))]
    if maps.exists():
        paths += re.findall("/.*", maps.read_text(errors="surrogateescape"))
    return sorted({path for path in paths if re.search(r"(openblas|libblas|mkl_rt)[^/\\]*$", path)})
