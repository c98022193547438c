"""Work side by side on the cores, each piece with matrix products of one thread.

A piece that fits a core's cache is best done by that core alone. Pieces run side by side
without fighting over the cores only if BLAS keeps to one thread meanwhile.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache

import numpy as np

try:
    from threadpoolctl import ThreadpoolController
except ImportError:                                  # the extra `fast` is not installed
    ThreadpoolController = None

LARGEST_KEPT = (32 << 20) - 8192      # glibc's M_MMAP_THRESHOLD follows freed sizes up to 32 MiB


def each(function, items):
    """Yields function(item) for each item, in order; the work is done side by side.

    Which results there are, and their order, does not depend on the cores. Whoever stops
    listening (an error, Ctrl-C) stops the work: what has not begun never will.
    """
    hold, together = side_by_side()
    with hold():
        yield from together(function, items)


@cache
def side_by_side():
    """A context that holds BLAS to one thread, and a parallel `map`.

    Before the first piece one large array is made and dropped: glibc takes it as a sign to
    keep freed memory for the next. Fetching fresh pages for every array costs about as much
    as the arithmetic on them.

    Where BLAS cannot be held (no threadpoolctl, and OMP_NUM_THREADS was not 1 from the
    start), pieces are done one after the other and BLAS has the cores to itself.
    """
    np.empty(LARGEST_KEPT, np.uint8)
    if ThreadpoolController is not None:
        controller = ThreadpoolController()
        return lambda: controller.limit(limits=1, user_api="blas"), pool().map
    if os.environ.get("OMP_NUM_THREADS") == "1":
        return nullcontext, pool().map
    return nullcontext, map


def pool():
    """A thread for each core this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, thread_name_prefix="piece")
