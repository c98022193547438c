"""The induction corner: matching and copying against dense matrices, terms and hand-built heads."""

import tracemalloc
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.circuits import induction
from minicircuits.circuits.hand_built import (SHARP, START, induction_by_k_composition,
                                              induction_by_pointers, two_back)
from minicircuits.circuits.induction import (induction_eigenvalues, matching_circuit,
                                             nearest_matches)
from minicircuits.circuits.low_rank import LowRank
from minicircuits.circuits.score_expansion import expand_scores
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError
from tests.circuits.dense import draw_frozen, whole_numbers
from tests.draws import (SEEDS, assert_close, disguised, magnitudes, random_case,
                         random_weights)

DEEP = st.sampled_from((2, 3))


def draw_pair(data, weights):
    """An earlier and a later head."""
    later = data.draw(st.integers(1, weights.n_layers - 1))
    heads = st.integers(0, weights.n_heads - 1)
    return (data.draw(st.integers(0, later - 1)), data.draw(heads)), (later, data.draw(heads))


def dense_matching(weights, earlier, later):
    """[v, u]: how well the later head's query v matches a key in which the earlier wrote u."""
    W_O, W_V = weights.W_O[earlier], weights.W_V[earlier]
    written = [W_O @ (W_V @ weights.W_E[:, u]) for u in range(weights.d_vocab)]
    return np.array([[(weights.W_Q[later] @ weights.W_E[:, v]) @ (weights.W_K[later] @ x)
                      for x in written] for v in range(weights.d_vocab)])


def dense_scores(weights, earlier, later):
    """Σλ / Σ|λ| of the later head's OV circuit and of the matching circuit."""
    OV = weights.W_U @ weights.W_O[later] @ weights.W_V[later] @ weights.W_E
    values = np.linalg.eigvals([OV, dense_matching(weights, earlier, later)])
    return (values.sum(-1) / np.abs(values).sum(-1)).real


def check_matching(weights, tokens, pattern, earlier, later):
    circuit = matching_circuit(weights, earlier, later)
    expected = dense_matching(weights, earlier, later)
    scale = dense_matching(magnitudes(weights), earlier, later).max()          # Σ |terms|
    assert_close(circuit.AB, expected, 1e-12, scale)
    term, = [term for term in expand_scores(weights, tokens, pattern, *later)
             if term.kind == "K" and term.key.heads == (earlier,)
             and (term.query.source, term.key.source) == ("token", "token")]
    assert_close(term.W.AB * sqrt(weights.d_head), expected, 1e-12, scale)


@settings(max_examples=60, deadline=None)
@given(draw_frozen(n_layers=DEEP), st.data())
def test_matching_circuit_is_the_K_term_unscaled(case, data):
    check_matching(*case, *draw_pair(data, case.weights))


@settings(max_examples=60, deadline=None)
@given(draw_frozen(n_layers=DEEP), st.data())
def test_eigenvalue_scores_are_those_of_the_dense_matrices(case, data):
    """Eigenvalues near 0, and of matrices far from normal, are less exact than their matrix."""
    pair = draw_pair(data, case.weights)
    scores = induction_eigenvalues(case.weights, *pair)
    assert_close(np.array(scores), dense_scores(case.weights, *pair), 1e-8, scale=1)


def test_eigenvalue_scores_of_every_pair():
    """Well-conditioned, hence to 1e-12: copying is of the later head alone, matching of both."""
    weights = random_weights(np.random.default_rng(0), n_layers=3)
    found = {}
    for earlier, later in product(product(range(3), repeat=2), repeat=2):
        if earlier[0] < later[0]:
            found[earlier, later] = scores = induction_eigenvalues(weights, earlier, later)
            assert_close(np.array(scores), dense_scores(weights, earlier, later), 1e-12, scale=1)
    assert len({round(scores.copying, 9) for scores in found.values()}) == 6
    assert len({round(scores.matching, 9) for scores in found.values()}) == len(found) == 27


@pytest.mark.parametrize("earlier, later", [((1, 0), (0, 0)), ((0, 0), (0, 1)), ((1, 1), (1, 1))])
@pytest.mark.parametrize("call", [matching_circuit, induction_eigenvalues])
def test_a_pair_in_the_wrong_order(call, earlier, later):
    with pytest.raises(InputError, match=f"got heads {earlier[0]}.{earlier[1]} and "):
        call(random_case(0).weights, earlier, later)


@pytest.mark.parametrize("earlier, later", [((0, 3), (1, 0)), ((0, 0), (2, 0)), ((-1, 0), (1, 0))])
def test_a_pair_that_is_not_there(earlier, later):
    with pytest.raises(InputError, match="layer < 2, head < 3"):
        matching_circuit(random_case(0).weights, earlier, later)


# Hand-built circuits.

def test_induction_by_k_composition_is_in_the_corner():
    weights = induction_by_k_composition(5, 7)
    assert induction_eigenvalues(weights, (0, 0), (1, 0)) == (1, 1)
    circuit = matching_circuit(weights, (0, 0), (1, 0))
    assert_close(circuit.AB, 2 * SHARP * sqrt(weights.d_head) * np.eye(5), 1e-12)
    found = nearest_matches(circuit, 4)
    assert (found.own > 0).all() and not found.values.any()      # nothing but itself


def test_induction_by_pointers_copies_but_does_not_match():
    """It composes by Q, on positions: the corner is where K-composition on tokens is."""
    weights = induction_by_pointers(5, 7)
    assert induction_eigenvalues(weights, (0, 0), (1, 0)) == (1, 0)


def test_two_back_neither_matches_nor_copies_on_its_own():
    """Its two heads copy together; 1.0 reads no token that W_E wrote."""
    assert induction_eigenvalues(two_back(5, 7), (0, 0), (1, 0)) == (0, 0)


def test_anti_induction_is_in_the_opposite_corner():
    weights = induction_by_k_composition(5, 7)
    opposite = replace(weights, W_O=weights.W_O * [[[[-1]]], [[[-1]]]])
    assert induction_eigenvalues(opposite, (0, 0), (1, 0)) == (-1, -1)


def test_approximate_induction_is_off_the_diagonal_and_in_what_the_model_does():
    """[cat][sat] … [cats] → [sat]: 1 is matched by 2 and 2 by 1, 3 and 4 by themselves."""
    cat, cats, sat, ran = 1, 2, 3, 4
    weights = induction_by_k_composition(5, 7)
    before = slice(5, 10)                                        # the block 0.0 writes to
    W_K = weights.W_K.copy()
    W_K[1, 0, [cat, cats], [before.start + cats, before.start + cat]] = 1.5
    similar = replace(weights, W_K=W_K)
    found = nearest_matches(matching_circuit(similar, (0, 0), (1, 0)), 1)
    assert found.tokens[[cat, cats], 0].tolist() == [cats, cat]
    assert_close(found.values[[cat, cats], 0] / found.own[[cat, cats]], np.full(2, 0.75), 1e-12)
    assert not found.values[[START, sat, ran]].any()
    text = [[START, cat, sat, ran, cats]]
    assert forward(weights, text).logits[0, -1].tolist() == [0, 0, 0, 0, 0]
    assert forward(similar, text).logits[0, -1].tolist() == [0, 0, 0, 1, 0]


# Nearest matches

@contextmanager
def tiles_of(size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(induction, "TILE", size)
        yield


def check_nearest_matches(circuit, k):
    """Whole numbers: ties everywhere, the first of equals first."""
    W, found = circuit.AB, nearest_matches(circuit, k)
    for u in range(len(W)):
        others = sorted((other for other in range(len(W)) if other != u),
                        key=lambda other: (-W[u, other], other))
        assert found.tokens[u].tolist() == others[:k]
        assert found.values[u].tolist() == [W[u, other] for other in others[:k]]
        assert found.own[u] == W[u, u]
    assert found.tokens.shape == found.values.shape == (len(W), k)
    assert found.values.dtype == found.own.dtype == W.dtype


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 9), st.integers(0, 4), st.integers(1, 9), st.data())
def test_nearest_matches_equal_the_loops(seed, n, rank, size, data):
    circuit = whole_numbers(np.random.default_rng(seed), n, n, rank)
    with tiles_of(size):
        check_nearest_matches(circuit, data.draw(st.integers(1, n - 1)))


def test_nearest_matches_of_real_numbers_in_both_precisions():
    for dtype in (np.float64, np.float32):
        weights = random_weights(np.random.default_rng(1), d_vocab=19, d_model=6, dtype=dtype)
        circuit = matching_circuit(weights, (0, 1), (1, 2))
        found, W = nearest_matches(circuit, 5), circuit.AB
        off = np.where(np.eye(19, dtype=bool), -np.inf, W)
        assert_close(found.values, -np.sort(-off)[:, :5], 1e-6 if dtype == np.float32 else 1e-12)
        assert (found.tokens != np.arange(19)[:, None]).all()
        assert_close(found.values, np.take_along_axis(W, found.tokens, 1), 1e-6)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_as_many_matches_as_there_are_other_tokens(k):
    with pytest.raises(InputError, match=f"k must be from 1 to 3; got {k}"):
        nearest_matches(LowRank(np.ones((4, 1)), np.ones((1, 4))), k)


def test_nearest_matches_leave_their_circuit_alone():
    A, B = np.ones((4, 1)), np.ones((1, 4))
    A.setflags(write=False)
    B.setflags(write=False)
    circuit = LowRank(A, B)
    nearest_matches(circuit, 2)
    assert np.isfinite(circuit.AB).all()


def test_nearest_matches_in_bounded_memory():
    """2,000² entries would be 32 MB."""
    rng = np.random.default_rng(2)
    circuit = LowRank(rng.normal(size=(2000, 3)), rng.normal(size=(3, 2000)))
    with tiles_of(128):
        tracemalloc.start()
        try:
            nearest_matches(circuit)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 6 << 20


# Symmetries.

def pair_scores(weights):
    return np.array([induction_eigenvalues(weights, (0, g), (1, h))
                     for g in range(weights.n_heads) for h in range(weights.n_heads)])


def test_scores_keep_bases_and_the_names_of_tokens():
    weights, new = random_weights(np.random.default_rng(3)), np.random.default_rng(0).permutation(7)
    before = pair_scores(weights)
    assert_close(pair_scores(disguised(weights, np.random.default_rng(1))), before, 1e-10)
    renamed = replace(weights, W_E=weights.W_E[:, new], W_U=weights.W_U[new])
    assert_close(pair_scores(renamed), before, 1e-10)
    circuit, other = (matching_circuit(W, (0, 1), (1, 2)).AB for W in (weights, renamed))
    assert_close(other, circuit[np.ix_(new, new)], 1e-12)


def test_a_constant_added_to_every_row_of_W_U_changes_copying_alone():
    weights = random_weights(np.random.default_rng(4))
    before = pair_scores(weights)
    after = pair_scores(replace(weights, W_U=weights.W_U + np.arange(5) / 2))
    assert (np.abs(after - before)[:, 0] > 1e-3).all()
    np.testing.assert_array_equal(after[:, 1], before[:, 1])


# The checks themselves fail on mistakes.

MISTAKES = {
    "QK transposed": ("W_QK", lambda W_QK: lambda *head: W_QK(*head).mT),
    "OV transposed": ("W_OV", lambda W_OV: lambda *head: W_OV(*head).mT),
    "the wrong earlier head": ("W_OV", lambda W_OV: lambda weights, layer, head: W_OV(
        weights, layer, (head + 1) % weights.n_heads)),
    "scaled": ("W_QK", lambda W_QK: lambda weights, *head: W_QK(weights, *head) * (
        1 / sqrt(weights.d_head))),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_checks_see_a_mistake(monkeypatch, name):
    weights, tokens = random_case(5)
    case = weights, tokens, forward(weights, tokens).pattern, (0, 1), (1, 2)
    what, mistake = MISTAKES[name]
    check_matching(*case)
    monkeypatch.setattr(induction, what, mistake(getattr(induction, what)))
    with pytest.raises(AssertionError):
        check_matching(*case)
