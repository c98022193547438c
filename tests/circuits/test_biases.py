"""Biases as weights, against a forward pass with biases in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicircuits as mc
from minicircuits.circuits.biases import BIAS_AXES
from tests.draws import SEEDS, assert_close, draw_case, random_case


def random_biases(weights, seed, names="b_Q b_K b_V b_O b_U"):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.5, [getattr(weights, axis) for axis in BIAS_AXES[name]])
            for name in names.split()}


def biased_forward(W, b, tokens):
    """Logits (i, v) and patterns (l, h, i, j) of one context, number by number."""
    T, b = len(tokens), {name: b.get(name, np.zeros([getattr(W, axis) for axis in axes]))
                         for name, axes in BIAS_AXES.items()}
    place = np.zeros((W.d_model, T)) if W.W_pos is None else W.W_pos[:, :T]
    x = [W.W_E[:, token] + (place[:, i] if W.positions == "standard" else 0)
         for i, token in enumerate(tokens)]
    pattern = np.zeros((W.n_layers, W.n_heads, T, T))
    for layer in range(W.n_layers):
        y = [x[i] + (place[:, i] if W.positions == "shortformer" else 0) for i in range(T)]
        added = [b["b_O"][layer].copy() for _ in range(T)]
        for head in range(W.n_heads):
            def read(letter, vector):
                return getattr(W, f"W_{letter}")[layer, head] @ vector + (
                    b[f"b_{letter}"][layer, head])
            for i in range(T):
                scores = [read("Q", y[i]) @ read("K", y[j]) / math.sqrt(W.d_head)
                          for j in range(i + 1)]
                shares = [math.exp(score - max(scores)) for score in scores]
                for j in range(i + 1):
                    pattern[layer, head, i, j] = shares[j] / sum(shares)
                    added[i] += W.W_O[layer, head] @ (
                        pattern[layer, head, i, j] * read("V", x[j]))
        x = [x[i] + added[i] for i in range(T)]
    return np.array([W.W_U @ x[i] + b["b_U"] for i in range(T)]), pattern


@given(draw_case(), SEEDS, st.sampled_from(["b_Q b_K b_V b_O b_U", "b_Q", "b_K", "b_V", "b_O",
                                            "b_U", "b_Q b_V b_U"]))
def test_it_computes_what_the_loops_with_biases_do(case, seed, names):
    weights, tokens = case.weights, case.tokens
    biases = random_biases(weights, seed, names)
    folded = mc.fold_biases(weights, **biases)
    acts = mc.forward(folded, tokens)
    for context, logits, pattern in zip(tokens, acts.logits, acts.pattern.swapaxes(0, 1)):
        expected = biased_forward(weights, biases, context)
        assert_close(logits, expected[0], 1e-10)
        assert_close(pattern[:, :weights.n_heads], expected[1], 1e-10)
    added = "b_O" in biases and weights.n_layers > 0
    assert folded.n_heads == weights.n_heads + added
    assert mc.resting_heads(folded) == [(layer, weights.n_heads) for layer in range(
        weights.n_layers) if added]


@pytest.mark.parametrize("positions", ["shortformer", "standard", "none"])
def test_paths_and_scores_hold_as_they_stand(positions):
    weights, tokens = random_case(1, positions=positions)
    folded = mc.fold_biases(weights, **random_biases(weights, 1))
    acts = mc.forward(folded, tokens)
    paths = mc.expand_logits(folded, tokens, acts.pattern)
    assert len(paths) == (1 + weights.n_heads + 1) ** 2
    assert_close(sum(path.logits for path in paths), acts.logits, 1e-12)
    terms = mc.expand_scores(folded, tokens, acts.pattern, 1, 0)
    assert_close(sum(term.scores for term in terms), acts.scores[1][:, 0], 1e-12)
    rebuilt = mc.rebuild(folded, tokens)[0]
    assert_close(rebuilt, acts.pattern, 1e-12)


def test_the_same_without_biases_and_no_head_without_b_O():
    weights, _ = random_case(2)
    assert mc.fold_biases(weights) is weights
    zeros = {name: 0 * bias for name, bias in random_biases(weights, 2).items()}
    assert mc.fold_biases(weights, **zeros) is weights
    folded = mc.fold_biases(weights, b_O=zeros["b_O"], b_U=np.ones(weights.d_vocab))
    assert (folded.n_heads, folded.d_model) == (weights.n_heads, weights.d_model + 1)
    assert not mc.resting_heads(folded)


def test_a_head_rests_where_it_says_nothing_too_but_not_where_it_reads():
    weights, _ = random_case(3)
    b_O = np.array([np.zeros(weights.d_model), np.ones(weights.d_model)])
    folded = mc.fold_biases(weights, b_O=b_O)
    assert mc.resting_heads(folded) == [(0, weights.n_heads), (1, weights.n_heads)]
    for name, index, value, left in [
            ("W_Q", (0, -1, 0, 0), 1e-30, [1]), ("W_K", (0, -1, 0, 0), 1e-30, [1]),
            ("W_V", (0, -1, 0, 0), 1e-30, [1]), ("W_V", (0, -1), 0, [1]),   # of zeros: none
            ("W_O", (0, 1, -1, 0), 1e-30, []), ("W_E", (-1, 0), 2, []), ("W_pos", (-1, 1), 1, [])]:
        other = mc.fold_biases(weights, b_O=b_O)
        getattr(other, name)[index] = value
        assert mc.resting_heads(other) == [(layer, weights.n_heads) for layer in left], name


def test_what_the_dimension_changes_and_what_not():
    """The docstring's list: what looks at a matrix alone sees the biases' column too."""
    weights, _ = random_case(4, d_model=6)
    biases = random_biases(weights, 4)
    for names, kinds in ("b_O b_U", ""), ("b_Q", "QK"), ("b_K", "QK"), ("b_V", "QKV"):
        folded = mc.fold_biases(weights, **{name: biases[name] for name in names.split()})
        for kind in "QKV":
            same = mc.composition_scores(folded, kind)[1, :weights.n_heads, 0, :weights.n_heads]
            changed = np.abs(same - mc.composition_scores(weights, kind)[1, :, 0]).max() > 1e-6
            assert changed == (kind in kinds), (names, kind)
    folded = mc.fold_biases(weights, **biases)
    for (name, array), (_, desired) in zip(mc.without_biases(folded).items(), weights.items()):
        np.testing.assert_array_equal(array, desired, name, strict=True)
    shift = weights.W_U @ weights.W_O[0, 1] @ biases["b_V"][0, 1]
    assert_close(mc.ov_circuit(folded, 0, 1).AB, mc.ov_circuit(weights, 0, 1).AB + shift[:, None],
                 1e-12)
    assert_close(mc.direct_path(folded).AB, mc.direct_path(weights).AB + biases["b_U"][:, None],
                 1e-12)


@pytest.mark.parametrize("name, bias, message", [
    ("b_O", np.zeros((2, 6)), r"b_O must have axes \(n_layers, d_model\) with n_layers=2, "
                              r"d_model=5; got shape \(2, 6\)"),
    ("b_U", np.zeros(7, np.float32), "b_U must have the dtype of the weights, float64; got"),
    ("b_V", np.full((2, 3, 4), np.nan), "b_V must be an array of finite numbers")])
def test_a_wrong_bias_is_named(name, bias, message):
    with pytest.raises(mc.InputError, match=message):
        mc.fold_biases(random_case(0)[0], **{name: bias})
