"""Loss and gradients a batch slice at a time, the slices side by side on the cores.

The loss is a mean over contexts, so it and its gradients are the weighted means of the
slices'. A slice is small enough for its scores to stay in a core's cache. Slices run side by
side without fighting for the cores only if each matrix product keeps to one thread.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache, partial

import numpy as np

from minicircuits.model.cross_entropy import cross_entropy, cross_entropy_backward
from minicircuits.model.transformer import backward_lists, forward_lists
from minicircuits.notation import InputError, Weights, check_tokens

try:
    from threadpoolctl import ThreadpoolController
except ImportError:                                  # the extra `fast` is not installed
    ThreadpoolController = None

SLICE_BYTES = 2 << 20                 # of the logits, or one layer's scores
LARGEST_KEPT = (32 << 20) - 8192      # glibc's M_MMAP_THRESHOLD follows freed sizes up to 32 MiB


def loss_and_gradients(weights, tokens, slices=None):
    """The loss (scalar, nats per predicted token) and its gradients, a `Weights`.

    tokens : (b, i) integers, i ≥ 2. slices : how many parts the batch is cut into; by
    default it follows from the shapes alone, so that the result does not depend on the
    machine's cores. Parts are added in their order, whichever is ready first.
    """
    tokens = check_tokens(weights, tokens)
    b, i = tokens.shape
    if slices is not None and not (isinstance(slices, int) and slices >= 1):
        raise InputError(f"slices must be a whole number of at least 1; got {slices!r}")
    if slices is None:
        largest = b * i * max(weights.n_heads * i, weights.d_vocab) * weights.dtype.itemsize
        slices = max(2, -(-largest // SLICE_BYTES))
    parts = np.array_split(tokens, min(slices, b))
    hold, each = side_by_side() if len(parts) > 1 else (nullcontext, map)
    with hold():
        loss, gradients = added(each(partial(share_of_loss, weights, b), parts))
    return loss, Weights(positions=weights.positions, **gradients)


def share_of_loss(weights, b, tokens):
    """What some of the `b` contexts of a batch add to its loss, and to a dict of gradients."""
    share = len(tokens) / b
    acts = forward_lists(weights, tokens)
    loss, probabilities = cross_entropy(acts.logits, tokens, out=acts.logits)
    dlogits = cross_entropy_backward(probabilities, tokens, share, out=probabilities)
    return loss * share, backward_lists(weights, tokens, acts, dlogits)[0]


def added(results):
    """Σ (loss, gradients), in order, in the arrays of the first."""
    loss, total = next(results)
    for slice_loss, gradients in results:
        loss += slice_loss
        for name in total:
            if name != "W_pos" or total[name] is not None:
                total[name] += gradients[name]
    return loss, total


@cache
def side_by_side():
    """How slices run: a context that holds BLAS to one thread, and a parallel `map`.

    Before the first of them, one large array is made and dropped: glibc takes it as a sign
    to keep freed memory for the next step. Fetching fresh pages for every array costs about
    as much as the arithmetic on them.

    Where BLAS cannot be held (no threadpoolctl, and OMP_NUM_THREADS was not 1 from the
    start), slices run one after the other and BLAS has the cores to itself.
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
    return ThreadPoolExecutor(cores, thread_name_prefix="slice")
