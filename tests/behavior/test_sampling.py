"""Tokens drawn from what a model predicts: how likely each is, and in which context."""

import math

import numpy as np
import pytest

from minicircuits.behavior.sampling import next_token_probabilities, sample
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError
from tests.draws import random_weights


def model(**sizes):
    return random_weights(np.random.default_rng(0), **{"n_ctx": 6, "d_vocab": 7, **sizes})


@pytest.mark.parametrize("temperature, top_k", [(1.0, None), (0.5, 3), (2.0, 1), (1.5, 100)])
def test_probabilities_are_the_equation(temperature, top_k):
    weights, tokens = model(), [3, 1, 6]
    logits = forward(weights, np.array([tokens])).logits[0, 2].tolist()
    kept = sorted(logits)[-(top_k or 7):]
    total = sum(math.exp(logit / temperature) for logit in kept)
    desired = [math.exp(logit / temperature) / total if logit in kept else 0 for logit in logits]
    actual = next_token_probabilities(weights, tokens, temperature, top_k)
    np.testing.assert_allclose(actual, desired, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-9, 5e-324])
def test_without_temperature_it_is_the_likeliest_token(temperature):
    weights = model()
    p = next_token_probabilities(weights, [2], temperature)
    assert p.max() == 1 == p.sum()
    assert p.argmax() == forward(weights, np.array([[2]])).logits[0, 0].argmax()


def test_of_equal_logits_the_first_are_kept():
    weights = model()
    weights.W_U[:] = 0
    assert next_token_probabilities(weights, [0], 0).tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert next_token_probabilities(weights, [0], 3, 2).tolist() == [0.5, 0.5, 0, 0, 0, 0, 0]


def test_tokens_are_drawn_as_often_as_the_model_says():
    """A context of one token without layers: a Markov chain, whose transitions are counted."""
    weights, n = model(n_layers=0, n_ctx=1, d_vocab=3), 4000
    ids = [0, *sample(weights, [0], np.random.default_rng(0), n, 2.0)]
    counts = np.zeros((3, 3))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    for u, row in enumerate(counts):
        p = next_token_probabilities(weights, [u], 2.0)
        deviation = np.sqrt(row.sum() * p * (1 - p))
        assert row.sum() > 50 and np.all(np.abs(row - row.sum() * p) <= 4 * deviation + 1e-9)


@pytest.mark.parametrize("start, seen", [
    (None, [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]), (0, [[0, 2, 3, 4, 5], [0, 3, 4, 5, 6]])])
def test_the_context_slides(start, seen):
    """W_U copies: the likeliest token is the last one and 1."""
    weights = model(n_layers=0, n_ctx=5, d_vocab=8, positions="shortformer", d_model=8)
    weights.W_E[:], weights.W_U[:] = np.eye(8), np.roll(np.eye(8), 1, axis=0)
    contexts = []

    def recorded(weights, tokens):
        contexts.append(np.asarray(tokens).tolist()[0])
        return forward(weights, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minicircuits.behavior.sampling.layers", recorded)
        ids = list(sample(weights, [1, 2, 3, 4, 5], np.random.default_rng(0), 2, 0, start=start))
    assert ids == [6, 7] and contexts == seen


@pytest.mark.parametrize("sizes", [{}, {"positions": "none"}, {"n_ctx": 1}, {"n_layers": 0}])
def test_an_empty_text_begins_with_the_start_token(sizes):
    ids = list(sample(model(**sizes), [], np.random.default_rng(0), 9, start=6))
    assert len(ids) == 9 and set(ids) <= set(range(7))


def test_a_seed_says_what_is_drawn():
    draws = [list(sample(model(), [1], np.random.default_rng(seed), 20)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_tokens_come_as_they_are_drawn():
    assert 0 <= next(sample(model(), [1], np.random.default_rng(0), 10 ** 12)) < 7


@pytest.mark.parametrize("change, message", [
    ({"tokens": []}, "at least one id, for a model without a start token"),
    ({"tokens": [7]}, "tokens must be from 0 to 6; got 7"),
    ({"tokens": [0.5]}, "tokens must be .* whole number"),
    ({"start": 9}, "tokens must be from 0 to 6; got 9"),
    ({"temperature": -1}, "temperature must be a number from 0 on, .* got -1.0 and None"),
    ({"temperature": np.nan}, "temperature must"), ({"temperature": np.inf}, "temperature must"),
    ({"top_k": 0}, "top_k from 1 on; got 1.0 and 0")])
def test_what_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        list(sample(**{"weights": model(), "tokens": [1], "rng": np.random.default_rng(0),
                       **change}))
