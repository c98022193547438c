"""Every function of (weights, tokens) takes activations that are there, and then runs nothing."""

from pickle import dumps      # to compare arrays, tuples and lists of both, bit for bit

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import behavior
from minicircuits.behavior import ablation
from minicircuits.behavior.in_context import loss_by_position
from minicircuits.behavior.patterns import (duplicate_token_scores, first_token_scores,
                                            position_share)
from minicircuits.model.transformer import forward
from tests.draws import random_case

(WEIGHTS, TOKENS), OTHER = random_case(0, b=3, i=5, d_vocab=3), random_case(1, b=3, i=5).tokens % 3
HEADS = [(0, 1), (1, 0)]
FUNCTIONS = {function.__name__: function for function in (
    mc.prefix_matching_scores, mc.previous_token_scores, duplicate_token_scores,
    first_token_scores, mc.value_weighted_patterns, mc.offset_profiles, position_share,
    loss_by_position, mc.term_importance, mc.virtual_heads, mc.head_effects)} | {
    "source_effects": lambda *case, **acts: mc.source_effects(*case, 1, 2, **acts),
    "loss_without_heads": lambda *case, **acts: mc.loss_without_heads(*case, HEADS, **acts)}


@pytest.fixture
def passes(monkeypatch):
    """The ids of the weights of every forward pass of the room."""
    seen = []

    def counted(weights, tokens):
        seen.append(id(weights))
        return forward(weights, tokens)

    for module in behavior, ablation:
        monkeypatch.setattr(module, "forward", counted)
    return seen


@pytest.mark.parametrize("name", FUNCTIONS)
def test_given_acts_are_taken_and_nothing_runs(name, passes):
    expected = FUNCTIONS[name](WEIGHTS, TOKENS)
    assert id(WEIGHTS) in passes
    passes.clear()
    found = FUNCTIONS[name](WEIGHTS, TOKENS.tolist(), acts=forward(WEIGHTS, TOKENS))
    assert dumps(found) == dumps(expected)
    assert id(WEIGHTS) not in passes


@pytest.mark.parametrize("name", FUNCTIONS)
def test_acts_of_other_tokens_are_the_ones_used(name):
    """Not looked at and thrown away: what comes out is the other context's."""
    with_others = FUNCTIONS[name](WEIGHTS, TOKENS, acts=forward(WEIGHTS, OTHER))
    assert dumps(with_others) != dumps(FUNCTIONS[name](WEIGHTS, TOKENS))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_acts_of_another_shape_are_refused(name):
    for acts in forward(WEIGHTS, TOKENS[:2]), forward(WEIGHTS, TOKENS[:, :4]):
        with pytest.raises(mc.InputError, match="acts.residual must have axes"):
            FUNCTIONS[name](WEIGHTS, TOKENS, acts=acts)


def test_a_path_is_patched_between_two_runs_that_are_there(passes):
    expected = mc.patch_path(WEIGHTS, TOKENS, OTHER, (0, 1), (1, 2), "k")
    acts, other = forward(WEIGHTS, TOKENS), forward(WEIGHTS, OTHER)
    assert len(passes) == 2
    found = mc.patch_path(WEIGHTS, TOKENS, OTHER, (0, 1), (1, 2), "k", acts, other)
    assert len(passes) == 2 and np.array_equal(found, expected)
