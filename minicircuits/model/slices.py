"""Loss and gradients a batch slice at a time, the slices side by side on the cores.

The loss is a mean over contexts, so it and its gradients are sums of the slices' shares. A
slice is small enough for its arrays to stay in the cache, and large enough for its products to
outweigh the calls.
"""

from functools import partial
from math import ceil, log2

import numpy as np

from minicircuits.cores import each
from minicircuits.model.cross_entropy import cross_entropy, cross_entropy_backward
from minicircuits.model.transformer import backward_lists, forward_lists
from minicircuits.notation import InputError, Weights, check_tokens

SLICE_BYTES = 4 << 20                 # of the logits, or one layer's scores


def loss_and_gradients(weights, tokens, slices=None):
    """The loss (scalar, nats per predicted token) and its gradients, a `Weights`.

    tokens : (b, i) integers, i ≥ 2. slices : how many parts the batch is cut into; by
    default it follows from shapes and dtype alone, so that the result does not depend on the
    machine's cores. Parts are added in their order, whichever is ready first.
    """
    tokens = check_tokens(weights, tokens)
    b, i = tokens.shape
    if slices is not None and not (isinstance(slices, (int, np.integer)) and slices >= 1):
        raise InputError(f"slices must be a whole number of at least 1; got {slices!r}")
    slices = count_slices(weights, b, i) if slices is None else slices
    parts, part = np.array_split(tokens, min(slices, b)), partial(part_of_loss, weights, b)
    loss, gradients = added(each(part, parts) if len(parts) > 1 else map(part, parts))
    return loss, Weights(positions=weights.positions, **gradients)


def count_slices(weights, b, i):
    """So many that the largest array of one has at most `SLICE_BYTES`; 2ⁿ suit any cores."""
    largest = b * i * max(weights.n_heads * i, weights.d_vocab) * weights.dtype.itemsize
    return 2 ** max(1, ceil(log2(largest / SLICE_BYTES)))


def part_of_loss(weights, b, tokens):
    """What some of the `b` contexts of a batch add to its loss, and to a dict of gradients."""
    share = len(tokens) / b
    acts = forward_lists(weights, tokens, lean=True)
    loss, probabilities = cross_entropy(acts.logits, tokens, in_place=True)
    dlogits = cross_entropy_backward(probabilities, tokens, share, in_place=True)
    return loss * share, backward_lists(weights, tokens, acts, dlogits, lean=True)[0]


def added(results):
    """Σ (loss, gradients), in order, in the arrays of the first."""
    loss, total = next(results)
    for slice_loss, gradients in results:
        loss += slice_loss
        for name in total:
            if total[name] is not None:            # W_pos may be
                total[name] += gradients[name]
    return loss, total
