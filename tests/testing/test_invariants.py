"""Checks of gradients that need no reference: they hold, and each sees a mistake."""

import numpy as np
import pytest
from hypothesis import given, settings

from minicircuits.notation import InputError
from minicircuits.testing import broken_invariants
from minicircuits.testing.strategies import draw_case, draw_special_case, random_case
from tests.testing.candidates import model

CASE = random_case(3, b=2, i=4, d_vocab=9)._replace(tokens=np.array([[1, 2, 3, 4], [5, 2, 1, 0]]))
G = {name: np.array(array) for name, array in model(*CASE).items() if name[0] == "d"}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@settings(max_examples=60, deadline=None)
@given(case=draw_case(min_tokens=2) | draw_special_case(min_tokens=2))
def test_right_gradients_break_none(precision, case):
    weights = case.weights.astype(precision)
    found = model(weights, case.tokens)
    assert broken_invariants(weights, case.tokens, found, precision) == []


@pytest.mark.parametrize("name, change, says", [
    ("dW_Q", lambda g: 1.001 * g, "dW_Q W_Qᵀ = W_K dW_Kᵀ"),
    ("dW_K", lambda g: g.swapaxes(0, 1).swapaxes(0, 1)[:, ::-1], "dW_Q W_Qᵀ = W_K dW_Kᵀ"),
    ("dW_V", lambda g: 1.001 * g, "dW_V W_Vᵀ = W_Oᵀ dW_O"),
    ("dW_O", lambda g: g + 0.001, "dW_V W_Vᵀ = W_Oᵀ dW_O"),
    ("dW_U", lambda g: g + 0.001, "Σ_v dW_U = 0"),
    ("dscores", lambda g: g + 0.001, "Σ_j dscores = 0"),
    ("dk", lambda g: g + 0.001, "Σ_j dk = 0"),
    ("dW_E", lambda g: g + 1e-20, "dW_E of tokens that no prediction reads"),
    ("dW_pos", lambda g: g + 1e-20, "dW_pos from the last position on"),
    ("dW_U", lambda g: np.nan * g, "Σ_v dW_U = 0"),
])
def test_a_wrong_gradient_breaks_its_own(name, change, says):
    broken = broken_invariants(*CASE, {**G, name: change(G[name])})
    assert len(broken) == 1 and broken[0].startswith(says)


def test_any_of_the_gradients_in_any_arrays():
    lists = {name: array.tolist() for name, array in G.items() if name in ("dW_Q", "dW_K")}
    weights = {name: W.tolist() for name, W in CASE.weights.items()}
    assert broken_invariants(weights, CASE.tokens.tolist(), lists) == []
    assert broken_invariants(weights, CASE.tokens, {"dW_Q": G["dW_Q"] * 2}) == []
    with pytest.raises(InputError, match="dW_Q must be an array of real numbers"):
        broken_invariants(weights, CASE.tokens, {"dW_Q": "text"})
