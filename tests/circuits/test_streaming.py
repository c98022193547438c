"""Maxima and top entries in tiles of every size, against loops over the dense matrix.

Factors of small whole numbers: sums are exact and ties are everywhere.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.circuits import streaming
from minicircuits.circuits.low_rank import LowRank
from minicircuits.circuits.streaming import (LongestFirst, column_maxima, row_maxima,
                                             top_entries)
from minicircuits.cores import side_by_side
from tests.circuits.dense import tiles_of, whole_numbers
from tests.draws import SEEDS, assert_close


@st.composite
def draw_circuit(draw):
    """A LowRank whose sizes all differ, of rank 0 to 4, and the sizes of a tile."""
    rng = np.random.default_rng(draw(SEEDS))
    m, n = rng.choice(np.arange(5, 12), 2, replace=False) if draw(st.booleans()) else (
        draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return whole_numbers(rng, m, n, draw(st.integers(0, 4))), (
        draw(st.integers(1, m + 1)), draw(st.integers(1, n + 1)))


# Loop twins.

def looped_row_maxima(W):
    value, index = [], []
    for row in W.tolist():
        best = 0
        for u in range(1, len(row)):
            if row[u] > row[best]:                   # strictly: the first of equals stays
                best = u
        value.append(row[best])
        index.append(best)
    return value, index


def looped_entries(W):
    """(row, column, value) of every entry, the largest first, equals in reading order."""
    entries = [(v, u, W[v, u]) for v in range(W.shape[0]) for u in range(W.shape[1])]
    return sorted(entries, key=lambda entry: (-entry[2], entry[:2]))


def check_maxima(circuit):
    for maxima, W in (row_maxima(circuit), circuit.AB), (column_maxima(circuit), circuit.AB.T):
        value, index = looped_row_maxima(W)
        np.testing.assert_array_equal(maxima.value, np.array(value, W.dtype), strict=True)
        np.testing.assert_array_equal(maxima.index, np.array(index, np.intp), strict=True)


def check_top_entries(circuit, k):
    """Exact values, at places that hold them, none of them twice."""
    top, W = top_entries(circuit, k), circuit.AB
    wanted = [value for _, _, value in looped_entries(W)[:k]]
    np.testing.assert_array_equal(top.value, np.array(wanted, W.dtype), strict=True)
    assert [W[v, u] for v, u in zip(top.row, top.column)] == wanted
    assert len(set(zip(top.row.tolist(), top.column.tolist()))) == len(wanted)


@settings(max_examples=80, deadline=None)
@given(draw_circuit())
def test_maxima_equal_the_loops_for_every_size_of_tile(case):
    circuit, tile = case
    with tiles_of(*tile):
        check_maxima(circuit)


@settings(max_examples=80, deadline=None)
@given(draw_circuit(), st.data())
def test_top_entries_equal_the_sorted_matrix_for_every_size_of_tile(case, data):
    (circuit, tile), size = case, np.prod(case[0].shape)
    with tiles_of(*tile):
        check_top_entries(circuit, data.draw(st.integers(0, int(size) + 3)))


@settings(max_examples=80, deadline=None)
@given(draw_circuit(), st.integers(1, 9))
def test_of_equal_top_entries_the_first_are_taken(case, k):
    """So that the answer does not depend on the size of a tile."""
    circuit, tile = case
    with tiles_of(*tile):
        top = top_entries(circuit, k)
    wanted = [(v, u) for v, u, _ in looped_entries(circuit.AB)[:k]]
    assert list(zip(top.row.tolist(), top.column.tolist())) == wanted


def test_tiles_are_as_small_as_they_are_asked_to_be():
    """Or these tests would see one tile only. In reading order, each entry once."""
    for size, count in ((1, 1), 77), ((2, 7), 6), ((5, 4), 6), ((11, 3), 3), ((12, 8), 1):
        with tiles_of(*size):
            places = streaming.tiles((11, 7))
        assert len(places) == count
        covered = np.zeros((11, 7), int)
        for rows, columns in places:
            covered[rows, columns] += 1
        assert (covered == 1).all()
        assert places == sorted(places, key=lambda place: (place[0].start, place[1].start))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1024, 1024)])
def test_real_numbers(size):
    """No ties: where each maximum stands is certain, what it is up to rounding."""
    rng = np.random.default_rng(1)
    circuit = LowRank(rng.normal(size=(13, 4)), rng.normal(size=(4, 17)))
    with tiles_of(*size):
        rows, columns, top = row_maxima(circuit), column_maxima(circuit), top_entries(circuit, 29)
    W = circuit.AB
    assert rows.index.tolist() == looped_row_maxima(W)[1]
    assert_close(rows.value, W.max(1), 1e-12)
    assert columns.index.tolist() == looped_row_maxima(W.T)[1]
    assert_close(columns.value, W.max(0), 1e-12)
    v, u, value = zip(*looped_entries(W)[:29])
    assert (top.row.tolist(), top.column.tolist()) == (list(v), list(u))
    assert_close(top.value, np.array(value), 1e-12)


def test_a_constant_matrix_is_all_ties():
    circuit = LowRank(np.ones((5, 1)), np.ones((1, 3)))
    with tiles_of(2, 2):
        assert not row_maxima(circuit).index.any() and not column_maxima(circuit).index.any()
        check_maxima(circuit)
        for k in (0, 1, 7, 15, 16):
            check_top_entries(circuit, k)


def test_equal_entries_of_a_later_tile_may_stand_before(monkeypatch):
    """Tiles of two columns: entry (0, 2) comes before (1, 0), and its tile after."""
    monkeypatch.setattr(streaming, "side_by_side", map)      # each tile knows all that came before
    with tiles_of(2, 2):
        top = top_entries(LowRank(np.ones((5, 1)), np.ones((1, 3))), 4)
    assert list(zip(top.row.tolist(), top.column.tolist())) == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_dtype_follows_the_factors():
    circuit = whole_numbers(np.random.default_rng(2), 5, 4, 2, np.float32)
    check_maxima(circuit)
    check_top_entries(circuit, 3)
    assert row_maxima(circuit).value.dtype == top_entries(circuit, 3).value.dtype == np.float32


def test_a_nan_is_the_maximum_of_its_row():
    A = np.ones((4, 1))
    A[2] = np.nan
    maxima = row_maxima(LowRank(A, np.ones((1, 3))))
    np.testing.assert_array_equal(maxima.value, [1, 1, np.nan, 1])


@pytest.mark.parametrize("ask", [row_maxima, column_maxima, lambda W: top_entries(W, 100)])
def test_memory_is_a_few_tiles_and_the_answer(ask):
    """5,000 × 4,999 entries would be 200 MB."""
    rng = np.random.default_rng(3)
    circuit = LowRank(rng.normal(size=(5000, 3)), rng.normal(size=(3, 4999)))
    list(side_by_side(len, [()]))                       # the array that settles malloc is made once
    with tiles_of(256, 256):
        tracemalloc.start()
        try:
            ask(circuit)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


# The checks themselves fail on mistakes.

def columns_from_the_start(tiles):
    return lambda shape: [(rows, slice(0, columns.stop - columns.start))
                          for rows, columns in tiles(shape)]


def last_column_forgotten(tiles):
    return lambda shape: [(rows, slice(columns.start, max(columns.stop - 1, columns.start + 1)))
                          for rows, columns in tiles(shape)]


def columns_from_the_right(tiles):
    return lambda shape: sorted(tiles(shape), key=lambda place: (place[0].start,
                                                                 -place[1].start))


@pytest.mark.parametrize("mistake, seen_by", [
    (columns_from_the_start, [check_maxima, check_top_entries]),
    (last_column_forgotten, [check_maxima, check_top_entries]),
    (columns_from_the_right, [check_maxima])])                # of equals, the last
def test_the_checks_see_a_mistake(monkeypatch, mistake, seen_by):
    circuit, options = whole_numbers(np.random.default_rng(4), 11, 7, 3), {check_top_entries: [60]}
    with tiles_of(2, 2):
        for check in seen_by:
            check(circuit, *options.get(check, []))
        monkeypatch.setattr(streaming, "tiles", mistake(streaming.tiles))
        for check in seen_by:
            with pytest.raises((AssertionError, IndexError)):
                check(circuit, *options.get(check, []))


# Maxima that matter or not.

def check_maxima_from(W, circuit, least, columns):
    """`circuit` knows W by its factors, and may leave out what does not reach `least`."""
    where, value = circuit.maxima_from(least, columns)
    maxima = [max(W[:, u]) for u in columns]
    wanted = [n for n, (best, need) in enumerate(zip(maxima, least)) if best > 0 and best >= need]
    assert where.tolist() == wanted
    np.testing.assert_array_equal(value, np.array([maxima[n] for n in wanted], W.dtype),
                                  strict=True)


@st.composite
def draw_question(draw):
    """Columns in any order, some more than once, and what is asked of each: often its maximum."""
    circuit, tile = draw(draw_circuit())
    rng = np.random.default_rng(draw(SEEDS))
    columns = rng.integers(circuit.shape[1], size=draw(st.integers(0, 9)))
    asked = circuit.AB.max(0)[columns] + rng.choice([-1, -0.5, 0, 0, 0.5, 1e3], len(columns))
    return circuit, tile, asked, columns


@settings(max_examples=100, deadline=None)
@given(draw_question())
def test_maxima_that_matter_equal_the_loops(question):
    circuit, tile, asked, columns = question
    with tiles_of(*tile):
        check_maxima_from(circuit.AB, LongestFirst(circuit), asked, columns)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.sampled_from([np.float32, np.float64]), st.sampled_from([1e-22, 1.0, 1e20]))
def test_bounds_hold_for_entries_as_computed(seed, dtype, scale):
    """Rank 1 and parallel factors: the bound is the entry, but for rounding on either side."""
    rng = np.random.default_rng(seed)
    for r in 1, 3, 64:
        direction = rng.normal(size=r)
        circuit = LowRank((scale * rng.uniform(1, 2, (50, 1)) * direction).astype(dtype),
                          (rng.uniform(1, 2, (1, 40)) * direction[:, None]).astype(dtype))
        found, maxima = LongestFirst(circuit), circuit.AB.max(0)
        assert (found.bound >= maxima).all()
        assert (found.bound <= maxima * (1 + 1e3 * np.finfo(dtype).eps)).all()
        with tiles_of(7, 7):
            where, value = found.maxima_from(maxima.astype(float) * (1 - 1e-5), np.arange(40))
        assert len(where) == 40 and np.abs(value / maxima - 1).max() < 1e-5


def test_what_cannot_matter_is_not_computed():
    """Rows of lengths 1, 1/2, 1/3 …, five at a time: only columns with a chance are multiplied."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(60, 4))
    A /= np.linalg.norm(A, axis=1, keepdims=True) * np.arange(1, 61)[:, None]
    B, columns, asked, products = rng.normal(size=(4, 30)), np.arange(30), np.full(30, 1.0), []

    class Counting(np.ndarray):
        def __matmul__(self, other):
            products.append(len(self) * other.shape[1])
            return np.asarray(self) @ np.asarray(other)

    circuit = LongestFirst(LowRank(A[rng.permutation(60)], B))
    circuit.A = circuit.A.view(Counting)
    with tiles_of(5, 5):
        circuit.maxima_from(asked, columns)
        wanted = [sum(max([A[v] @ B[:, u] for v in range(start)], default=0) >= 1
                      or np.linalg.norm(B[:, u]) / (start + 1) >= 1 for u in range(30))
                  for start in range(0, 60, 5)]
        assert products == [5 * count for count in wanted] and sum(products) < 60 * 30 / 2
        products.clear()
        circuit.maxima_from(0 * asked, columns)
        assert sum(products) == 60 * 30


def bound_too_low(found):
    found.reach = found.reach * 0.7


def shortest_first(found):
    found.A, found.lengths = found.A[::-1], found.lengths[::-1]


def another_order(found):
    found.A = found.A[::-1]


@pytest.mark.parametrize("mistake", [bound_too_low, shortest_first, another_order])
def test_the_checks_of_bounds_see_a_mistake(mistake):
    """Parallel factors: the maximum is the bound."""
    A = np.arange(1.0, 20)[:, None]
    circuit = LongestFirst(LowRank(A, np.ones((1, 6))))
    asked, columns = np.full(6, 19.0), np.arange(6)
    with tiles_of(4, 4):
        check_maxima_from(A @ np.ones((1, 6)), circuit, asked, columns)
        mistake(circuit)
        with pytest.raises(AssertionError):
            check_maxima_from(A @ np.ones((1, 6)), circuit, asked, columns)
