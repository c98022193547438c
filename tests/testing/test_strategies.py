"""The strategies draw what they say, and only they need Hypothesis."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import minicircuits as mc
from minicircuits.notation import POSITIONS, check_tokens
from minicircuits.testing.strategies import (SPECIAL, Case, draw_case, draw_special_case,
                                             random_case, random_weights)


def test_only_strategies_load_hypothesis():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, minicircuits.testing.commands; print(*sys.modules)"],
        cwd=Path(mc.__file__).parents[1], capture_output=True, text=True, check=True).stdout
    assert "minicircuits.testing.checking" in loaded.split()
    assert "hypothesis" not in loaded.split()
    assert "minicircuits.testing.strategies" not in loaded.split()


def test_a_seed_gives_one_case():
    for a, b in zip(random_case(5), random_case(5)):
        assert repr(a) == repr(b)
    assert np.array_equal(random_weights(np.random.default_rng(5)).W_E, random_case(5).weights.W_E)


@settings(max_examples=50, deadline=None)
@given(draw_case(n_layers=st.just(2), positions=st.just("standard"), min_tokens=3,
                 dtype=np.float32))
def test_options_take_strategies(case):
    assert (case.weights.n_layers, case.weights.positions) == (2, "standard")
    assert case.weights.dtype == np.float32 and case.tokens.shape[1] >= 3
    check_tokens(case.weights, case.tokens)


@pytest.mark.parametrize("positions", POSITIONS)
def test_every_mode_is_drawn(positions):
    assert find(draw_case(), lambda case: case.weights.positions == positions)


@pytest.mark.parametrize("name, holds", [
    ("equal scores", lambda acts, case: (acts.scores == 0).all()),
    ("saturated patterns", lambda acts, case: acts.pattern[..., -1, :].max(-1).mean() > 0.95),
    ("heads that write nothing", lambda acts, case: (acts.residual == acts.residual[0]).all()),
    ("identical heads", lambda acts, case: (acts.pattern == acts.pattern[:, :, :1]).all()),
    ("symmetric W_QK", lambda acts, case: np.allclose(acts.scores, acts.scores.mT)),
    ("huge logits", lambda acts, case: abs(acts.logits).max() > 1000),
    ("one token everywhere", lambda acts, case: (case.tokens == case.tokens[0, 0]).all()),
])
def test_special_cases_are_what_they_are_called(name, holds):
    case = SPECIAL[name](*random_case(6, i=5))
    assert holds(mc.forward(*case), Case(*case))


def test_every_special_case_is_drawn_and_tested():
    assert {name for name, _ in test_special_cases_are_what_they_are_called.pytestmark[0].args[1]
            } == set(SPECIAL)
    assert find(draw_special_case(special=st.just("huge logits")),
                lambda case: abs(case.weights.W_U).max() > 100)
