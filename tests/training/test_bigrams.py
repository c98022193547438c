"""Counts and what is made of them, against loops over the tokens."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicircuits.model.transformer import init_weights, loss
from minicircuits.notation import InputError, relative_error
from minicircuits.training.bigrams import (bigram, count_bigrams, count_in_contexts, counted_loss,
                                           fit_zero_layer, unigram, zero_layer_loss)


def random_tokens(seed, b=3, i=7, d_vocab=5):
    return np.random.default_rng(seed).integers(d_vocab, size=(b, i))


@given(st.integers(0, 2 ** 32 - 1), st.integers(1, 4), st.integers(2, 9), st.integers(1, 6))
def test_counts_are_counts(seed, b, i, d_vocab):
    tokens = random_tokens(seed, b, i, d_vocab)
    C = np.zeros((d_vocab, d_vocab))
    for context in tokens.tolist():
        for u, v in zip(context, context[1:]):
            C[v, u] += 1
    assert (count_bigrams(tokens, d_vocab) == C).all()
    assert (count_bigrams(tokens[0], d_vocab) == count_bigrams(tokens[:1], d_vocab)).all()


@pytest.mark.parametrize("n_ctx", [2, 3, 6])
def test_counts_in_contexts_are_those_of_all_contexts(n_ctx):
    """A ring has every bigram in equally many contexts; START comes before each token once."""
    ring = random_tokens(0, 1, 40, 4)[0]
    stream = np.concatenate([ring, ring[:1]])
    contexts = np.array([[4, *np.roll(ring, -place)[:n_ctx - 1]] for place in range(40)])
    C, all_contexts = count_in_contexts(stream, 4, n_ctx, 5), count_bigrams(contexts, 5)
    assert relative_error(C * max(1, n_ctx - 2), all_contexts) <= 1e-15


@given(st.integers(0, 2 ** 32 - 1), st.floats(0.01, 100), st.floats(0, 100))
def test_probabilities_are_their_formulas(seed, alpha, beta):
    tokens = random_tokens(seed)
    C = count_bigrams(tokens, 6)                              # token 5 never occurs
    firsts, nexts = tokens[:, :-1].ravel().tolist(), tokens[:, 1:].ravel().tolist()
    pairs = list(zip(nexts, firsts))
    p = [(nexts.count(v) + alpha) / (len(nexts) + 6 * alpha) for v in range(6)]
    assert relative_error(unigram(C, alpha)[:, 0], np.array(p)) <= 1e-14
    q = [(nexts.count(v) + 1) / (len(nexts) + 6) for v in range(6)]
    for u in set(firsts) | ({5} if beta else set()):
        expected = [(pairs.count((v, u)) + beta * q[v]) / (firsts.count(u) + beta)
                    for v in range(6)]
        with np.errstate(invalid="ignore"):
            assert relative_error(bigram(C, beta)[:, u], np.array(expected)) <= 1e-14


def test_the_loss_of_counts_is_the_mean_over_tokens():
    tokens, held_out = random_tokens(1), random_tokens(2)
    C, p = count_bigrams(tokens, 5), bigram(count_bigrams(tokens, 5))
    pairs = [(v, u) for context in held_out.tolist() for u, v in zip(context, context[1:])]
    expected = -sum(math.log(p[pair]) for pair in pairs) / len(pairs)
    assert abs(counted_loss(p, count_bigrams(held_out, 5)) - expected) < 1e-14
    expected = -sum(math.log(unigram(C)[v, 0]) for v, _ in pairs) / len(pairs)
    assert abs(counted_loss(unigram(C), count_bigrams(held_out, 5)) - expected) < 1e-14


def test_the_zero_layer_loss_is_that_of_the_model_on_the_same_text():
    tokens = random_tokens(3)
    weights = init_weights(0, 1, 4, 2, 5, 7, "none", np.random.default_rng(0))
    actual, dW_U, dW_E = zero_layer_loss(10 * weights.W_U, 10 * weights.W_E,
                                         count_bigrams(tokens, 5))
    model = type(weights)(**{**dict(weights.items()), "W_U": 10 * weights.W_U,
                             "W_E": 10 * weights.W_E}, W_pos=None, positions="none")
    assert relative_error(actual, loss(model, tokens)) <= 1e-14


def test_the_zero_layer_gradients_are_derivatives():
    rng = np.random.default_rng(4)
    W_U, W_E, C = rng.normal(size=(5, 3)), rng.normal(size=(3, 5)), rng.random((5, 5))
    _, dW_U, dW_E = zero_layer_loss(W_U, W_E, C)
    U, E = rng.normal(size=(5, 3)), rng.normal(size=(3, 5))   # a direction

    def at(h):
        return zero_layer_loss(W_U + h * U, W_E + h * E, C)[0]

    h = 1e-4                                                  # fourth order: error ~ h⁴
    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert relative_error(np.array((dW_U * U).sum() + (dW_E * E).sum()), slope) <= 1e-9


def test_lbfgs_finds_a_table_that_the_model_can_be():
    """Counts that follow softmax(W_U W_E) of rank 3 exactly: nothing does better than those."""
    rng = np.random.default_rng(5)
    W_U, W_E = rng.normal(size=(17, 3)), rng.normal(size=(3, 17))
    P = np.exp(W_U @ W_E)
    C = P / P.sum(0) * rng.random(17)
    best = counted_loss(P / P.sum(0), C)
    assert best - 1e-5 < fit_zero_layer(C, 3, rng, iterations=500) < best + 1e-3
    assert fit_zero_layer(C, 1, rng) > best + 0.01


@pytest.mark.parametrize("tokens", [np.zeros((2, 3)), [[0, 5]], [[-1, 0]], [[0]], 3,
                                    np.zeros((1, 2, 3), int), np.zeros((0, 3), int)])
def test_what_cannot_be_counted_is_refused(tokens):
    with pytest.raises(InputError):
        count_bigrams(tokens, 5)
