"""Virtual heads against dense operators, kron(A, W_OV) multiplied out, and by hand."""

from dataclasses import replace
from itertools import combinations, product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.behavior import ablation
from minicircuits.behavior.ablation import virtual_heads
from minicircuits.circuits.hand_built import induction_by_k_composition, two_back
from minicircuits.model.transformer import loss
from minicircuits.notation import POSITIONS
from minicircuits.plain import model as plain
from tests.circuits import dense
from tests.draws import assert_close, disguised, draw_case, random_case


def dense_virtual_heads(weights, tokens):
    """{heads: (dense W_U W_OV … W_OV W_E, loss without the path − loss)}."""
    acts, found = plain.forward(weights, tokens), {}
    whole = plain.cross_entropy(acts.logits, tokens)
    for order in range(2, weights.n_layers + 1):
        for layers in combinations(range(weights.n_layers), order):
            for heads in product(range(weights.n_heads), repeat=order):
                path, W = tuple(zip(layers, heads)), weights.W_E
                for head in path:
                    W = weights.W_O[head] @ (weights.W_V[head] @ W)
                rest = np.array([logits - dense_logits(weights, context, pattern, path)
                                 for logits, (_, (context, pattern)) in zip(
                                     acts.logits, dense.contexts(tokens, acts.pattern))])
                found[path] = weights.W_U @ W, plain.cross_entropy(rest, tokens) - whole
    return found


def dense_logits(weights, tokens, pattern, path):
    """(i, v) of one path: (Id ⊗ W_U) Π (A ⊗ W_OV) x_0."""
    x = dense.path_operator(weights, pattern, path) @ dense.entering(weights, tokens)
    return x.reshape(len(tokens), -1) @ weights.W_U.T


def check_virtual_heads(weights, tokens):
    found, expected = virtual_heads(weights, tokens), dense_virtual_heads(weights, tokens)
    assert len(found) == len(expected) and {virtual.heads for virtual in found} == set(expected)
    for virtual in found:
        W, importance = expected[virtual.heads]
        assert_close(np.float64(virtual.importance), np.float64(importance), 1e-12, scale=1)
        values = np.linalg.eigvals(W)
        score = (values.sum() / np.abs(values).sum()).real
        assert abs(virtual.copying - score) < 1e-6      # eigenvalues near 0 are less exact than W
    importances = [virtual.importance for virtual in found]
    assert importances == sorted(importances, reverse=True)
    return found


@settings(max_examples=25, deadline=None)
@given(draw_case(n_layers=st.sampled_from((2, 1, 0)), min_tokens=2))
def test_virtual_heads_are_the_dense_paths(case):
    found = check_virtual_heads(*case)
    assert len(found) == case.weights.n_heads ** 2 * (case.weights.n_layers == 2)


@pytest.mark.parametrize("positions", POSITIONS)
def test_virtual_heads_of_three_layers(positions):
    """3 · 2² of two heads, 2³ of three."""
    found = check_virtual_heads(*random_case(0, n_layers=3, n_heads=2, i=3, positions=positions))
    assert [sum(len(virtual.heads) == order for virtual in found) for order in (2, 3)] == [12, 8]
    assert len({virtual.importance for virtual in found}) == 20


def test_two_back_is_one_virtual_head():
    """It copies, and it is all that the model says: without it, the loss is ln d_vocab."""
    weights, tokens = two_back(4, 7), np.array([[0, 1, 2, 0, 1, 2, 0], [3, 2, 1, 3, 2, 1, 3]])
    virtual, = virtual_heads(weights, tokens)
    assert (virtual.heads, virtual.copying) == (((0, 0), (1, 0)), 1)
    assert abs(virtual.importance - (log(4) - loss(weights, tokens))) < 1e-15
    assert virtual.importance > 0.3


def test_induction_heads_are_no_virtual_head():
    """K-composition is inside the patterns: the path through both values does nothing."""
    weights = induction_by_k_composition(4, 7)
    virtual, = virtual_heads(weights, np.array([[0, 1, 2, 3, 1, 2, 3]]))
    assert virtual == (((0, 0), (1, 0)), 0, 0)


def test_a_harmful_virtual_head_comes_last():
    """Reversed, two_back lowers what comes next here; the same path of another head, nothing."""
    weights, tokens = two_back(4, 7), np.array([[0, 1, 2, 0, 1, 2, 0]])
    twice = replace(weights, **{name: np.concatenate([W, sign * W], 1) for name, W, sign in (
        (name, getattr(weights, name), -1 if name == "W_O" else 1)
        for name in ("W_Q", "W_K", "W_V", "W_O"))})
    found = virtual_heads(twice, tokens)
    assert [virtual.heads for virtual in found] == [            # + + and − −, then + − and − +
        ((0, 0), (1, 0)), ((0, 1), (1, 1)), ((0, 0), (1, 1)), ((0, 1), (1, 0))]
    assert [virtual.copying for virtual in found] == [1, 1, -1, -1]
    assert found[0].importance > 0 > found[-1].importance


# Symmetries.

def as_dict(found):
    return {virtual.heads: np.array([virtual.copying, virtual.importance]) for virtual in found}


def assert_same(found, expected):
    found, expected = as_dict(found), as_dict(expected)
    assert found.keys() == expected.keys()
    for heads in expected:
        assert_close(found[heads], expected[heads], 1e-10, scale=1)


@pytest.mark.parametrize("positions", POSITIONS)
def test_kept_bases_vocabulary_and_batch(positions):
    weights, tokens = random_case(2, positions=positions)
    before, rng = virtual_heads(weights, tokens), np.random.default_rng(0)
    assert_same(virtual_heads(disguised(weights, rng), tokens), before)
    assert_same(virtual_heads(weights, tokens[::-1]), before)
    new = rng.permutation(7)
    renamed = replace(weights, W_E=weights.W_E[:, new], W_U=weights.W_U[new])
    assert_same(virtual_heads(renamed, new.argsort()[tokens]), before)


# The check itself fails on mistakes.

@pytest.mark.parametrize("what, mistake", [
    ("copying_score", lambda score: lambda W: score(W.mT * -1)),
    ("cross_entropy", lambda loss: lambda logits, tokens: loss(logits, tokens[:, ::-1])),
    ("expand_logits", lambda expand: lambda weights, tokens, pattern, _: expand(
        weights, tokens, pattern[::-1])),
    ("expand_logits", lambda expand: lambda *case: expand(*case)[:-1]),
])
def test_the_check_sees_a_mistake(monkeypatch, what, mistake):
    case = random_case(5)
    check_virtual_heads(*case)
    monkeypatch.setattr(ablation, what, mistake(getattr(ablation, what)))
    with pytest.raises(AssertionError):
        check_virtual_heads(*case)
