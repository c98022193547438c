"""The head dump's ranking and tables, against loops over dense circuits; its symmetries."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.circuits import skip_trigrams as module
from minicircuits.circuits.hand_built import (induction_by_k_composition,
                                              skip_trigram_machine)
from minicircuits.circuits.low_rank import LowRank
from minicircuits.circuits.skip_trigrams import (entry_bounds, longest_rows_first, maxima_from,
                                                 skip_trigrams, strongest_sources,
                                                 strongest_sources_pruned)
from minicircuits.cores import side_by_side
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError, Weights
from tests.circuits.dense import dense_circuits, whole_numbers
from tests.draws import (SEEDS, assert_close, disguised, draw_case, magnitudes, random_case,
                         random_weights)


def looped_scores(QK, OV, factor):
    scores = np.zeros(len(factor))
    for u in range(len(factor)):
        attended, added = max(row[u] for row in QK), max(row[u] for row in OV)
        if attended > 0 and added > 0:
            scores[u] = attended * added * factor[u]
    return scores


def falling(values, k):
    """The first k ids by falling value."""
    return sorted(range(len(values)), key=lambda u: (-values[u], u))[:k]


def check_table(weights, layer, head, probabilities, n_sources, k):
    QK, OV = dense_circuits(weights, layer, head)
    QK_scale, OV_scale = (W.max() for W in dense_circuits(magnitudes(weights), layer, head))
    expected, scale = looped_scores(QK, OV, probabilities ** 0.1), QK_scale * OV_scale
    table = skip_trigrams(weights, layer, head, probabilities, n_sources, k)
    ranked = [u for u in falling(expected, n_sources) if expected[u] > 0]
    assert [row.source for row in table] == ranked
    for u, row in zip(ranked, table):
        assert_close(np.float64(row.score), expected[u], 1e-12, scale)
        assert row.destinations.tolist() == falling(QK[:, u], k)
        assert_close(row.destination_scores, QK[row.destinations, u], 1e-12, QK_scale)
        assert row.outs.tolist() == falling(OV[:, u], k)
        assert_close(row.out_logits, OV[row.outs, u], 1e-12, OV_scale)
    return table


def test_through_an_earlier_head_destinations_match_what_it_moves():
    """Of the matching circuit, by loops; and outs as ever of the source itself."""
    weights = random_weights(np.random.default_rng(5), n_layers=2)
    W, found = weights, skip_trigrams(weights, 1, 2, np.full(weights.d_vocab, 0.1), 99, 3, (0, 1))
    QK = (W.W_E.T @ W.W_Q[1, 2].T @ W.W_K[1, 2] @ W.W_O[0, 1] @ W.W_V[0, 1] @ W.W_E)
    OV = dense_circuits(weights, 1, 2)[1]
    expected = looped_scores(QK, OV, np.full(weights.d_vocab, 0.1) ** 0.1)
    assert [row.source for row in found] == [
        u for u in falling(expected, 99) if expected[u] > 0]
    for row in found:
        assert row.destinations.tolist() == falling(QK[:, row.source], 3)
        assert row.outs.tolist() == falling(OV[:, row.source], 3)
    with pytest.raises(InputError, match="an earlier and a later layer"):
        skip_trigrams(weights, 1, 2, np.full(weights.d_vocab, 0.1), through=(1, 0))


def test_an_induction_head_draws_attention_to_what_follows_a_token():
    """Each but START matches itself, and makes itself likelier; without `through` none does."""
    weights = induction_by_k_composition(d_vocab=6, n_ctx=7)
    alike = np.full(6, 1 / 6)
    found = skip_trigrams(weights, 1, 0, alike, k=1, through=(0, 0))
    assert {(row.source, *row.destinations, *row.outs) for row in found} == {
        (u, u, u) for u in range(1, 6)}
    assert not skip_trigrams(weights, 1, 0, alike, k=1)


@st.composite
def draw_head(draw):
    weights = draw(draw_case(n_layers=st.sampled_from((1, 2)))).weights
    return weights, draw(st.integers(0, weights.n_layers - 1)), draw(
        st.integers(0, weights.n_heads - 1))


def zipf(d_vocab):
    return 1 / np.arange(1, d_vocab + 1) / sum(1 / np.arange(1, d_vocab + 1))


@settings(max_examples=60, deadline=None)
@given(draw_head(), st.integers(1, 9), st.integers(1, 9))
def test_tables_equal_the_loops(drawn, n_sources, k):
    weights, layer, head = drawn
    check_table(weights, layer, head, zipf(weights.d_vocab), n_sources, k)


def test_a_larger_table():
    """50 tokens: fewer sources and columns than there are, and every head its own table."""
    weights = random_weights(np.random.default_rng(0), d_vocab=50, d_model=11, d_head=3)
    tables = [check_table(weights, layer, head, zipf(50), 6, 4)
              for layer in range(2) for head in range(3)]
    assert len({tuple(row.source for row in table) for table in tables}) == 6
    assert {len(table) for table in tables} == {6}
    assert {row.outs.shape for table in tables for row in table} == {(4,)}


@contextmanager
def tiles_of(size, at_once=2):
    """Tiles and rounds so small that there is something to leave out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE", size)
        patch.setattr(module, "ROUND", size * at_once)
        yield


def looped_sources(QK, OV, factor, n):
    scores = looped_scores(QK.AB, OV.AB, factor)
    return [u for u in falling(scores, n) if scores[u] > 0]


def check_pruning(QK, OV, factor, n):
    """Against the definition, in the same dtype."""
    found = strongest_sources_pruned(QK, OV, factor, n)
    assert found.tolist() == strongest_sources(QK, OV, factor, n).tolist()
    return found


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(0, 4), st.integers(1, 9), st.integers(1, 4), st.integers(0, 30))
def test_leaving_out_sources_changes_nothing(seed, rank, size, at_once, n):
    """Small whole numbers: many ties, and sums are exact; factors are powers of two, or 0."""
    rng = np.random.default_rng(seed)
    QK, OV = whole_numbers(rng, 11, 23, rank), whole_numbers(rng, 13, 23, rank)
    factor = rng.choice([0, 0.25, 0.5, 1], 23)
    with tiles_of(size, at_once):
        found = check_pruning(QK, OV, factor, n)
    assert found.tolist() == looped_sources(QK, OV, factor, n)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([np.float32, np.float64]), st.integers(1, 9))
def test_equal_scores_of_unequal_factors_are_all_kept(seed, dtype, n):
    """One number a token: every bound is met, and scores tie or nearly tie by rounding alone."""
    rng = np.random.default_rng(seed)
    attended, added = rng.uniform(0.1, 1, (2, 1, 40)).astype(dtype)
    one = np.ones((3, 1), dtype)
    with tiles_of(4):
        check_pruning(LowRank(one, attended), LowRank(one, added), (1 / (attended * added))[0], n)


def test_most_of_an_uneven_vocabulary_is_left_out(monkeypatch):
    """Lengths of tokens fall as 1/n: 2,000 sources, and a few dozen are looked at in full."""
    rng, looked_at = np.random.default_rng(0), []
    QK, OV = (LowRank(rng.normal(size=(300, 8)), rng.normal(size=(8, 2000)) / np.arange(1, 2001))
              for _ in range(2))

    def counting(circuit, columns, weight, least):
        looked_at.append(np.count_nonzero(weight))
        return maxima_from(circuit, columns, weight, least)

    monkeypatch.setattr(module, "maxima_from", counting)
    with tiles_of(20):
        check_pruning(QK, OV, np.ones(2000), 10)
    assert sum(looked_at) < 400


def test_the_same_bits_whatever_the_cores():
    rng = np.random.default_rng(1)
    QK, OV = (LowRank(*(rng.normal(size=shape).astype(np.float32) for shape in (
        (900, 16), (16, 900)))) for _ in range(2))
    tables = []
    for count in 1, 2, 7:
        with ThreadPoolExecutor(count) as pool, tiles_of(50, 7), (
                pytest.MonkeyPatch.context()) as patch:
            patch.setattr(module, "side_by_side", pool.map)
            tables.append(check_pruning(QK, OV, np.ones(900, np.float32), 9).tolist())
    assert tables[0] == tables[1] == tables[2]


def test_memory_is_a_few_tiles_beside_the_factors():
    """5,000 × 4,999 entries would be 200 MB."""
    rng = np.random.default_rng(3)
    QK, OV = (LowRank(rng.normal(size=(5000, 3)), rng.normal(size=(3, 4999))) for _ in range(2))
    list(side_by_side(len, [()]))                       # the array that settles malloc is made once
    with tiles_of(256):
        tracemalloc.start()
        try:
            strongest_sources_pruned(QK, OV, np.ones(4999), 10)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 5 << 20


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.sampled_from([np.float32, np.float64]))
def test_bounds_hold_for_entries_as_computed(seed, dtype):
    """Rank 1 and parallel factors: the bound is the entry, but for rounding on either side."""
    rng = np.random.default_rng(seed)
    for r in 1, 3, 64:
        direction = rng.normal(size=r)
        circuit = LowRank((rng.uniform(1, 2, (50, 1)) * direction).astype(dtype),
                          (rng.uniform(1, 2, (1, 40)) * direction[:, None]).astype(dtype))
        bounds, maxima = entry_bounds(circuit.A, circuit.B), circuit.AB.max(0)
        assert (bounds >= circuit.AB).all()
        assert (bounds <= circuit.AB * (1 + 1e3 * np.finfo(dtype).eps)).all()
        with tiles_of(7):
            found = maxima_from(longest_rows_first(circuit), np.arange(40), 1 / maxima, 1 - 1e-5)
        assert np.abs(found / maxima - 1).max() < 1e-5


def test_what_cannot_matter_is_not_computed():
    """Rows of lengths 1, 1/2, 1/3 …, five at a time: only columns with a chance are multiplied."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(60, 4))
    A /= np.linalg.norm(A, axis=1, keepdims=True) * np.arange(1, 61)[:, None]
    B, columns, products = rng.normal(size=(4, 30)), np.arange(30), []

    class Counting(np.ndarray):
        def __matmul__(self, other):
            products.append(len(self) * other.shape[1])
            return np.asarray(self) @ np.asarray(other)

    circuit = longest_rows_first(LowRank(A[rng.permutation(60)], B))
    circuit.A = circuit.A.view(Counting)
    with tiles_of(5):
        maxima_from(circuit, columns, np.ones(30), 1)
        wanted = [sum(max([A[v] @ B[:, u] for v in range(start)], default=0) >= 1
                      or np.linalg.norm(B[:, u]) / (start + 1) >= 1 for u in range(30))
                  for start in range(0, 60, 5)]
        assert products == [5 * count for count in wanted] and sum(products) < 60 * 30 / 2
        products.clear()
        maxima_from(circuit, columns, np.ones(30), 0)
        assert sum(products) == 60 * 30


@pytest.mark.parametrize("dtype, factor", [(np.float64, 1e-60), (np.float64, 1e30),
                                           (np.float32, 1e-9), (np.float32, 1e8)])
def test_ranks_do_not_depend_on_the_scale(dtype, factor):
    """Products of eight such matrices leave the range of floats."""
    weights = random_weights(np.random.default_rng(6), dtype=dtype)
    scaled = replace(weights, **{name: W * dtype(factor) for name, W in weights.items()})
    for head in range(3):
        table, other = (skip_trigrams(W, 1, head, zipf(7)) for W in (weights, scaled))
        assert [row.source for row in table] == [row.source for row in other] != []
        assert [row.outs.tolist() for row in table] == [row.outs.tolist() for row in other]


def test_no_sources_or_no_columns():
    weights = random_case(0).weights
    assert skip_trigrams(weights, 0, 0, zipf(7), n_sources=0) == []
    assert {row.outs.shape for row in skip_trigrams(weights, 0, 0, zipf(7), k=0)} == {(0,)}


def one_token(QK, OV):
    """One token, one head: every circuit is a number."""
    number = np.ones((1, 1, 1, 1))
    return Weights(W_E=number[0, 0], W_pos=None, W_Q=QK * number, W_K=number, W_V=OV * number,
                   W_O=number, W_U=number[0, 0], positions="none")


@pytest.mark.parametrize("QK, OV, score", [(2, 3, 6), (-2, 3, 0), (2, -3, 0), (-2, -3, 0),
                                           (0, 3, 0), (2, 0, 0)])
def test_both_maxima_must_be_positive(QK, OV, score):
    """The product of two negative ones is positive, and means nothing."""
    weights = one_token(QK, OV)
    table = skip_trigrams(weights, 0, 0, [1])
    assert [row.score for row in table] == [score] * (score > 0)
    circuits = (LowRank(np.full((1, 1), float(number)), np.ones((1, 1))) for number in (QK, OV))
    assert check_pruning(*circuits, np.ones(1), 1).tolist() == [0] * (score > 0)


def test_a_token_that_never_occurs_is_no_source():
    weights = random_weights(np.random.default_rng(1))
    probabilities = np.array([0.5, 0, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert 1 in [row.source for row in skip_trigrams(weights, 0, 0, zipf(7))]
    assert 1 not in [row.source for row in skip_trigrams(weights, 0, 0, probabilities)]


def test_the_machine_has_one_row_and_the_bug_is_in_it():
    """Destinations in, at and outs mind, bay: which goes with which the table cannot say."""
    keep, in_, at, mind, bay = 1, 2, 3, 4, 5
    weights = skip_trigram_machine(6, [[(keep, in_, mind), (keep, at, bay)]])
    row, = skip_trigrams(weights, 0, 0, np.ones(6), k=3)     # START is wanted but says nothing
    assert row.source == keep
    assert row.destinations[:2].tolist() == [in_, at] and row.outs[:2].tolist() == [mind, bay]
    assert row.destination_scores[0] == row.destination_scores[1] == row.score > 0
    assert row.destination_scores[2] == row.out_logits[2] == 0
    assert row.out_logits[:2].tolist() == [1, 1]


def test_heads_and_layers_that_are_not_there():
    weights = random_weights(np.random.default_rng(2))
    for layer, head in (2, 0), (0, 3), (-1, 0):
        with pytest.raises(InputError, match="layer < 2, head < 3"):
            skip_trigrams(weights, layer, head, zipf(7))


# Symmetries.

def all_scores(weights, probabilities=zipf(7)):
    """(l, h, u), 0 where a source is not in the table."""
    scores = np.zeros((weights.n_layers, weights.n_heads, weights.d_vocab))
    for layer, head in np.ndindex(scores.shape[:2]):
        for row in skip_trigrams(weights, layer, head, probabilities, weights.d_vocab, k=1):
            scores[layer, head, row.source] = row.score
    return scores


def test_kept_rotations_and_bases_of_heads():
    weights = random_weights(np.random.default_rng(3))
    same = disguised(weights, np.random.default_rng(0))
    assert_close(all_scores(same), all_scores(weights), 1e-12)
    assert [row.outs.tolist() for row in skip_trigrams(same, 1, 2, zipf(7))] == [
        row.outs.tolist() for row in skip_trigrams(weights, 1, 2, zipf(7))]


def test_kept_padding_heads_with_zeros():
    """The table is unscaled; patterns, with 1/√d_head, would change."""
    weights = random_weights(np.random.default_rng(4))
    read = {name: np.pad(getattr(weights, name), ((0, 0), (0, 0), (0, 5), (0, 0)))
            for name in ("W_Q", "W_K", "W_V")}
    padded = replace(weights, **read, W_O=np.pad(weights.W_O, ((0, 0), (0, 0), (0, 0), (0, 5))))
    assert_close(all_scores(padded), all_scores(weights), 1e-12)


def test_heads_and_vocabulary_in_another_order():
    weights, rng = random_weights(np.random.default_rng(5)), np.random.default_rng(0)
    order, before = np.array([2, 0, 1]), all_scores(weights)
    heads = replace(weights, **{name: getattr(weights, name)[:, order]
                                for name in ("W_Q", "W_K", "W_V", "W_O")})
    assert_close(all_scores(heads), before[:, order], 1e-12)
    new = rng.permutation(7)
    renamed = replace(weights, W_E=weights.W_E[:, new], W_U=weights.W_U[new])
    assert_close(all_scores(renamed, zipf(7)[new]), before[:, :, new], 1e-12)
    for row, other in zip(skip_trigrams(weights, 1, 1, zipf(7)),
                          skip_trigrams(renamed, 1, 1, zipf(7)[new])):
        assert row.source == new[other.source]
        assert row.destinations.tolist() == new[other.destinations].tolist()
        assert row.outs.tolist() == new[other.outs].tolist()


def test_broken_a_constant_added_to_every_row_of_W_U():
    """It changes no probability, but the ranking. Of one source the outs keep their order."""
    weights = random_weights(np.random.default_rng(6))
    raised = replace(weights, W_U=weights.W_U + np.random.default_rng(0).normal(0, 2, 5))
    before, after = all_scores(weights), all_scores(raised)
    assert (before.argsort() != after.argsort()).any()
    tables = {row.source: row for row in skip_trigrams(weights, 0, 0, zipf(7), 7, 7)}
    shared = [(tables[row.source], row) for row in skip_trigrams(raised, 0, 0, zipf(7), 7, 7)
              if row.source in tables]
    assert shared
    for row, other in shared:
        assert row.outs.tolist() == other.outs.tolist()
        moved = other.out_logits - row.out_logits
        assert_close(moved, np.full(7, moved[0]), 1e-12)
        assert abs(moved[0]) > 1e-3


def test_broken_a_constant_added_to_a_destinations_row_of_QK():
    """It moves no pattern (dimension 0 is always one), but the ranking."""
    weights, tokens = random_case(7, n_layers=1, positions="none")
    W_E = weights.W_E.copy()
    W_E[0] = 1
    weights = replace(weights, W_E=W_E)
    answers_all = np.random.default_rng(0).normal(size=(1, 3, 4, 1)) * np.eye(5)[0]
    other = replace(weights, W_K=weights.W_K + answers_all)
    assert_close(forward(other, tokens).pattern, forward(weights, tokens).pattern, 1e-12)
    assert (all_scores(weights).argsort() != all_scores(other).argsort()).any()


# The checks themselves fail on mistakes.

MISTAKES = {
    "QK transposed": ("qk_circuit", lambda circuit: lambda *head: circuit(*head).mT),
    "OV transposed": ("ov_circuit", lambda circuit: lambda *head: circuit(*head).mT),
    "maxima by row": ("longest_rows_first", lambda order: lambda circuit: order(circuit.mT)),
    "circuits swapped": ("strongest_sources_pruned", lambda best: lambda QK, OV, factor, n: best(
        QK, QK, factor, n)),
    "another head": ("ov_circuit", lambda circuit: lambda weights, layer, head: circuit(
        weights, layer, (head + 1) % weights.n_heads)),
    "the weakest": ("strongest", lambda strongest: lambda column, k: strongest(-column, k)),
}


def asks_too_much(maxima_from):
    return lambda *columns: maxima_from(*columns[:-1], least=1.2 * columns[-1])


def too_low(bounds):
    return lambda A, B: 0.5 * bounds(A, B)


def shortest_rows_first(order):
    return lambda circuit: LowRank(order(circuit).A[::-1], circuit.B)


@pytest.mark.parametrize("name, mistake", [("maxima_from", asks_too_much),
                                           ("entry_bounds", too_low),
                                           ("longest_rows_first", shortest_rows_first)])
def test_the_checks_see_pruning_that_goes_too_far(monkeypatch, name, mistake):
    check = test_leaving_out_sources_changes_nothing.hypothesis.inner_test
    cases = [(seed, 2, 3, 2, n) for seed in range(40) for n in (2, 6)]
    for case in cases[:4]:
        check(*case)
    monkeypatch.setattr(module, name, mistake(getattr(module, name)))
    with pytest.raises(AssertionError):
        for case in cases:
            check(*case)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_checks_see_a_mistake(monkeypatch, name):
    weights, (what, mistake) = random_case(8).weights, MISTAKES[name]
    check_table(weights, 1, 1, zipf(7), 4, 3)
    monkeypatch.setattr(module, what, mistake(getattr(module, what)))
    with pytest.raises(AssertionError):
        check_table(weights, 1, 1, zipf(7), 4, 3)
