"""Maxima and top entries of a LowRank a block at a time: any vocabulary, bounded memory.

At 50,000 tokens a token-to-token circuit has 2.5 billion entries. Nothing here holds more
than one block of rows (`LowRank.blocks`) and the answer.
"""

from typing import NamedTuple

import numpy as np

from minicircuits.notation import InputError


class Maxima(NamedTuple):
    value: np.ndarray     # the largest entry of each row (or column)
    index: np.ndarray     # the column (or row) it stands in, the first if tied


def row_maxima(low_rank):
    """max_u W[v, u] and where, the first if tied, for each row v: (m,) each.

    >>> from minicircuits import LowRank
    >>> rng = np.random.default_rng(0)
    >>> W = LowRank(rng.normal(size=(5, 2)), rng.normal(size=(2, 7)))
    >>> bool((row_maxima(W).index == W.AB.argmax(1)).all())
    True
    """
    value = np.empty(low_rank.shape[0], low_rank.A.dtype)
    index = np.empty(low_rank.shape[0], np.intp)
    for rows, block in low_rank.blocks():
        index[rows] = block.argmax(1)
        value[rows] = np.take_along_axis(block, index[rows, None], 1)[:, 0]
    return Maxima(value, index)


def column_maxima(low_rank):
    """max_v W[v, u] and where, the first if tied, for each column u: (n,) each."""
    return row_maxima(low_rank.mT)


class Entries(NamedTuple):
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray


def top_entries(low_rank, k):
    """The k largest entries W[row, column], by falling value: (min(k, m·n),) each.

    Equal ones in the order of rows, then of columns. Raises InputError for k < 0.

    >>> from minicircuits import LowRank
    >>> rng = np.random.default_rng(0)
    >>> W = LowRank(rng.normal(size=(5, 2)), rng.normal(size=(2, 7)))
    >>> bool(np.allclose(top_entries(W, 3).value, np.sort(W.AB, axis=None)[:-4:-1]))
    True
    """
    if k < 0:
        raise InputError(f"k must be at least 0; got {k}")
    n = low_rank.shape[1]
    flat, value = np.empty(0, np.intp), np.empty(0, low_rank.A.dtype)
    for rows, block in low_rank.blocks():
        block = block.ravel()
        least = min(k, block.size)
        keep = np.flatnonzero(block >= np.partition(block, -least)[-least])     # all the ties
        flat = np.concatenate([flat, rows.start * n + keep])
        value = np.concatenate([value, block[keep]])
        best = np.lexsort((flat, -value))[:k]
        flat, value = flat[best], value[best]
    return Entries(*np.divmod(flat, n), value)
