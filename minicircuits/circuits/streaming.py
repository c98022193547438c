"""Maxima and top entries of a LowRank a tile at a time: any vocabulary, bounded memory.

At 50,000 tokens a token-to-token circuit has 2.5 billion entries. Nothing here holds more
than a tile for each core and the answer. A tile stays in a core's cache until it is read, so
that finding its maxima costs little beside the product.
W is A B, with A (m, r) and B (r, n), as in `low_rank`.

Paper: "Interpretation of Skip-Trigrams", whose tables these make possible.
"""

from typing import NamedTuple

import numpy as np

from minicircuits.cores import side_by_side
from minicircuits.notation import InputError

TILE = 1024, 1024      # rows, columns


def tiles(shape):
    """Pairs (slice of rows, slice of columns) that cover a matrix, in reading order."""
    (m, n), (height, width) = shape, TILE
    return [(slice(i, min(i + height, m)), slice(j, min(j + width, n)))
            for i in range(0, m, height) for j in range(0, n, width)]


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
    places = tiles(low_rank.shape)
    columns = len({columns.start for _, columns in places})

    def of_tile(place):
        rows, columns = place
        tile = low_rank.A[rows] @ low_rank.B[:, columns]
        index = tile.argmax(1)
        return np.take_along_axis(tile, index[:, None], 1)[:, 0], columns.start + index

    value = np.empty((low_rank.shape[0], columns), low_rank.A.dtype)
    index = np.empty(value.shape, np.intp)
    for number, ((rows, _), best) in enumerate(zip(places, side_by_side(of_tile, places))):
        value[rows, number % columns], index[rows, number % columns] = best
    first = value.argmax(1)[:, None]
    return Maxima(np.take_along_axis(value, first, 1)[:, 0],
                  np.take_along_axis(index, first, 1)[:, 0])


def column_maxima(low_rank):
    """max_v W[v, u] and where, the first if tied, for each column u: (n,) each."""
    return row_maxima(low_rank.mT)


class LongestFirst:
    """A LowRank with the rows of A by falling length, for column maxima that matter or not.

    |W_vu| ≤ ‖A_v‖ ‖B_u‖ (Cauchy–Schwarz), so the rows still to come are bounded by the
    length of the next. Lengths allow for rounding: bounds hold for entries as computed.

    bound : at least the largest entry of each column, (n,), float64.
    """

    def __init__(self, low_rank):
        lengths = norms(low_rank.A)
        order = np.argsort(-lengths, kind="stable")
        self.A, self.lengths = low_rank.A[order], lengths[order]
        self.columns = np.ascontiguousarray(low_rank.B.mT)                        # (n, r)
        self.reach = norms(self.columns) * (
            1 + 2 * (low_rank.A.shape[1] + 4) * np.finfo(low_rank.A.dtype).eps)
        self.bound = self.lengths[0] * self.reach

    def maxima_from(self, least, columns):
        """Which of `columns` have a positive maximum of at least `least`, and these maxima.

        least, columns : (c,). A column is given up when neither its largest entry so far nor
        any still to come reaches its `least`.

        >>> from minicircuits import LowRank
        >>> rng = np.random.default_rng(0)
        >>> W = LowRank(rng.normal(size=(50, 2)), rng.normal(size=(2, 7)))
        >>> where, value = LongestFirst(W).maxima_from(np.full(7, 2.0), np.arange(7))
        >>> where.tolist() == np.flatnonzero(W.AB.max(0) >= 2).tolist()
        True
        >>> bool(np.allclose(value, W.AB.max(0)[where]))
        True
        """
        B, reach, among = self.columns[columns], self.reach[columns], np.arange(len(columns))
        value = np.zeros(len(columns), self.A.dtype)
        for start in range(0, len(self.A), TILE[0]):
            open_ = np.maximum(value, self.lengths[start] * reach) >= least
            if not open_.all():
                B, reach, among, value, least = (
                    array[open_] for array in (B, reach, among, value, least))
            np.maximum(value, (self.A[start:start + TILE[0]] @ B.mT).max(0), out=value)
        reached = (value > 0) & (value >= least)
        return among[reached], value[reached]


def norms(vectors):
    """‖x‖ of each row, summed in float64."""
    return np.sqrt(np.einsum("vr,vr->v", vectors, vectors, dtype=np.float64))


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
    n, least = low_rank.shape[1], None             # least: the smallest of k found so far
    flat, value = np.empty(0, np.intp), np.empty(0, low_rank.A.dtype)

    def of_tile(place):
        rows, columns = place
        tile = low_rank.A[rows] @ low_rank.B[:, columns]
        floor = least
        if floor is None:
            last = min(k, tile.size)
            floor = np.partition(tile, -last, axis=None)[-last]
        elif tile.max() < floor:
            return flat[:0], value[:0]
        row, column = np.nonzero(tile >= floor)                          # all the ties
        return (rows.start + row) * n + columns.start + column, tile[row, column]

    for places, values in side_by_side(of_tile, tiles(low_rank.shape)):
        flat, value = np.concatenate([flat, places]), np.concatenate([value, values])
        best = np.lexsort((flat, -value))[:k]
        flat, value = flat[best], value[best]
        if 0 < k == len(value):
            least = value[-1]
    return Entries(*np.divmod(flat, n), value)
