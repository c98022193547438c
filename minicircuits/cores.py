"""Work side by side on the cores, each piece with matrix products of one thread.

A piece that fits a core's cache is best done by that core alone. But BLAS, which multiplies
matrices for NumPy and SciPy, has threads of its own. Where they and the pieces fight over the
cores, everything waits; so BLAS is held to one thread meanwhile.
"""

import ctypes
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np

try:
    from threadpoolctl import ThreadpoolController
except ImportError:                                  # the extra `fast` is not installed
    ThreadpoolController = None

GET_AND_SET = [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads")] + [
    (f"{scipy}openblas_get_num_threads{bits}", f"{scipy}openblas_set_num_threads{bits}")
    for scipy in ("", "scipy_") for bits in ("", "64_", "_64")]
LARGEST_KEPT = (32 << 20) - 8192      # glibc's M_MMAP_THRESHOLD follows freed sizes up to 32 MiB


class Shared:
    """What a process has one of: a pool with a thread for each core, and who holds BLAS.

    One large array is made and dropped: glibc takes it as a sign to keep freed memory for the
    next. Fetching fresh pages for every array costs about as much as the arithmetic on them.
    """

    def __init__(self):
        np.empty(LARGEST_KEPT, np.uint8)
        allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)
        self.pool = ThreadPoolExecutor(len(allowed), thread_name_prefix="piece")
        self.lock, self.holders, self.before = Lock(), 0, []


shared = Shared()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=shared.__init__)      # it has none of the threads


def side_by_side(function, items):
    """Yields function(item) for each item, in order; the work is done side by side.

    Results and their order do not depend on the cores. Once the caller asks for no more of them
    (an error, Ctrl-C), pieces that have not begun never will. A piece must not call this.
    """
    with one_blas_thread() as held:
        yield from (shared.pool.map if held else map)(function, items)


@contextmanager
def one_blas_thread():
    """Holds BLAS to one thread until the last holder leaves; yields whether it keeps to one."""
    blas = loaded_blas("scipy.linalg" in sys.modules)
    with shared.lock:
        if shared.holders == 0:
            shared.before = [(set_threads, get_threads()) for get_threads, set_threads in blas]
            for set_threads, _ in shared.before:
                set_threads(1)
        shared.holders += 1
    try:
        yield bool(blas) or os.environ.get("OMP_NUM_THREADS") == "1"
    finally:
        with shared.lock:
            shared.holders -= 1
            if shared.holders == 0:
                for set_threads, count in shared.before:
                    set_threads(count)


@cache
def loaded_blas(with_scipy):
    """(get its number of threads, set it) of each BLAS that is loaded; warns if none is found."""
    if ThreadpoolController is not None:
        return [(library.get_num_threads, library.set_num_threads)
                for library in ThreadpoolController().select(user_api="blas").lib_controllers]
    found = []
    for path in shared_libraries():
        try:                                                 # RTLD_NOLOAD: only if it is loaded
            library = ctypes.CDLL(path, ctypes.DEFAULT_MODE | getattr(os, "RTLD_NOLOAD", 0))
        except OSError:
            continue
        found += [(getattr(library, get_threads), getattr(library, set_threads))
                  for get_threads, set_threads in GET_AND_SET if hasattr(library, set_threads)]
    if not found and os.environ.get("OMP_NUM_THREADS") != "1":
        warnings.warn("BLAS cannot be held to one thread, which is slow on busy cores: set "
                      "OMP_NUM_THREADS=1 before Python starts, or install threadpoolctl")
    return found


def shared_libraries():
    """Paths of what may be a BLAS: beside NumPy and SciPy, or anywhere, as Linux tells."""
    site, maps = Path(np.__file__).parents[1], Path("/proc/self/maps")
    paths = {str(path) for folder in ("numpy.libs", "numpy/.dylibs", "scipy.libs", "scipy/.dylibs")
             for path in (site / folder).glob("*")}
    if maps.exists():
        lines = maps.read_text(errors="surrogateescape").splitlines()
        paths |= {line[line.index("/"):] for line in lines if "/" in line}
    return sorted(path for path in paths if any(
        name in Path(path).name for name in ("openblas", "libblas", "mkl_rt")))
