"""Loss and gradients a batch slice at a time, the slices side by side on the cores.

The loss is a mean over contexts, so it and its gradients are the weighted means of the
slices'. A slice is small enough for its scores to stay in a core's cache. Slices run side by
side without fighting for the cores only if each matrix product keeps to one thread.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache

import numpy as np

from minicircuits.model.cross_entropy import cross_entropy, cross_entropy_backward
from minicircuits.model.transformer import backward_lists, forward_lists
from minicircuits.notation import InputError, Weights, check_tokens

try:
    from threadpoolctl import ThreadpoolController
except ImportError:                                  # the extra `fast` is not installed
    ThreadpoolController = None

SLICE_BYTES = 2 << 20                 # of one layer's scores
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
        scores = b * weights.n_heads * i * i * weights.dtype.itemsize
        slices = max(2, -(-scores // SLICE_BYTES))
    parts = np.array_split(tokens, min(slices, b))
    if len(parts) == 1:
        return part_loss_and_gradients(weights, tokens)
    hold, each = side_by_side()
    with hold():
        results = each(lambda part: part_loss_and_gradients(weights, part), parts)
        return mean(results, [len(part) / b for part in parts])


def part_loss_and_gradients(weights, tokens):
    """The same for one slice: forward, loss, and back."""
    acts = forward_lists(weights, tokens)
    loss, probabilities = cross_entropy(acts.logits, tokens)
    dlogits = cross_entropy_backward(probabilities, tokens)
    return loss, backward_lists(weights, tokens, acts, dlogits)[0]


def mean(results, shares):
    """Σ share · (loss, gradients), added in order."""
    loss, total = 0, None
    for share, (slice_loss, gradients) in zip(shares, results):
        loss += slice_loss * share
        if total is None:
            total = {name: dW * share for name, dW in gradients.items()}
        else:
            for name, dW in gradients.items():
                total[name] += dW * share
    positions = gradients.positions
    return loss, Weights(**{"W_pos": None, **total}, positions=positions)


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
