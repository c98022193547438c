"""Maxima and top entries in blocks of every size, against loops over the dense matrix.

Factors of small whole numbers: sums are exact and ties are everywhere.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.circuits.low_rank import LowRank
from minicircuits.circuits.streaming import column_maxima, row_maxima, top_entries
from tests.circuits.dense import blocks_of, whole_numbers
from tests.draws import SEEDS, assert_close


@st.composite
def draw_circuit(draw):
    """A LowRank whose sizes all differ, of rank 0 to 4, and the bytes of a block."""
    rng = np.random.default_rng(draw(SEEDS))
    m, n = rng.choice(np.arange(5, 12), 2, replace=False) if draw(st.booleans()) else (
        draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return whole_numbers(rng, m, n, draw(st.integers(0, 4))), draw(st.integers(1, 8 * m * n + 8))


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
def test_maxima_equal_the_loops_for_every_size_of_block(case):
    circuit, limit = case
    with blocks_of(limit):
        check_maxima(circuit)


@settings(max_examples=80, deadline=None)
@given(draw_circuit(), st.data())
def test_top_entries_equal_the_sorted_matrix_for_every_size_of_block(case, data):
    (circuit, limit), size = case, np.prod(case[0].shape)
    with blocks_of(limit):
        check_top_entries(circuit, data.draw(st.integers(0, int(size) + 3)))


@settings(max_examples=80, deadline=None)
@given(draw_circuit(), st.integers(1, 9))
def test_of_equal_top_entries_the_first_are_taken(case, k):
    """So that the answer does not depend on the size of a block."""
    circuit, limit = case
    with blocks_of(limit):
        top = top_entries(circuit, k)
    wanted = [(v, u) for v, u, _ in looped_entries(circuit.AB)[:k]]
    assert list(zip(top.row.tolist(), top.column.tolist())) == wanted


def test_blocks_are_as_small_as_they_are_asked_to_be():
    """Or these tests would see one block only."""
    circuit = whole_numbers(np.random.default_rng(0), 11, 7, 3)
    for limit, blocks in (1, 11), (2 * 7 * 8, 6), (5 * 7 * 8 + 1, 3), (11 * 7 * 8, 1):
        with blocks_of(limit):
            assert len(list(circuit.blocks())) == blocks


@pytest.mark.parametrize("limit", [1, 300, 1 << 20])
def test_real_numbers(limit):
    """No ties: where each maximum stands is certain, what it is up to rounding."""
    rng = np.random.default_rng(1)
    circuit = LowRank(rng.normal(size=(13, 4)), rng.normal(size=(4, 17)))
    with blocks_of(limit):
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
    with blocks_of(2 * 3 * 8):
        assert not row_maxima(circuit).index.any() and not column_maxima(circuit).index.any()
        check_maxima(circuit)
        for k in (0, 1, 7, 15, 16):
            check_top_entries(circuit, k)


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
def test_memory_is_a_few_blocks_and_the_answer(ask):
    """5,000 × 4,999 entries would be 200 MB."""
    rng = np.random.default_rng(3)
    circuit = LowRank(rng.normal(size=(5000, 3)), rng.normal(size=(3, 4999)))
    with blocks_of(1 << 20):
        tracemalloc.start()
        try:
            ask(circuit)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


# The checks themselves fail on mistakes.

class LastOfEquals(np.ndarray):
    def argmax(self, axis):
        return self.shape[axis] - 1 - np.flip(np.asarray(self), axis).argmax(axis)


def last_of_equals(blocks):
    return lambda self: ((rows, block.view(LastOfEquals)) for rows, block in blocks(self))


def one_block_only(blocks):
    return lambda self: list(blocks(self))[:1]


def last_row_forgotten(blocks):
    return lambda self: ((slice(rows.start, rows.stop), np.vstack([block[:-1], 0 * block[-1:]]))
                         for rows, block in blocks(self))


def rows_from_the_start(blocks):
    return lambda self: ((slice(0, len(block)), block) for _, block in blocks(self))


@pytest.mark.parametrize("mistake, seen_by", [
    (last_of_equals, [check_maxima]), (one_block_only, [check_maxima, check_top_entries]),
    (last_row_forgotten, [check_maxima, check_top_entries]),
    (rows_from_the_start, [check_maxima, check_top_entries])])
def test_the_checks_see_a_mistake(monkeypatch, mistake, seen_by):
    circuit, options = whole_numbers(np.random.default_rng(4), 11, 7, 3), {check_top_entries: [30]}
    with blocks_of(2 * 7 * 8):
        for check in seen_by:
            check(circuit, *options.get(check, []))
        monkeypatch.setattr(LowRank, "blocks", mistake(LowRank.blocks))
        for check in seen_by:
            with pytest.raises((AssertionError, IndexError)):
                check(circuit, *options.get(check, []))
