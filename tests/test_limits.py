"""Where paths are too many to be looked at one by one: the same sums by order, and a line."""

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.circuits.score_expansion import count_terms
from minicircuits.findings import effects
from minicircuits.notation import POSITIONS
from minicircuits.terminal.sections import exactness_lines, importance_lines, ledger_lines
from tests.draws import random_case

ERRORS = ("logits", "scores", "patterns", "rebuilt_logits")


@pytest.fixture(params=POSITIONS)
def case(request):
    weights, tokens = random_case(3, n_layers=3, n_heads=2, b=3, i=6, positions=request.param)
    return weights, tokens, mc.forward(weights, tokens)


def test_terms_are_counted(case):
    weights, tokens, acts = case
    assert count_terms(weights) == [
        sum(len(mc.expand_scores(weights, tokens, acts.pattern, layer, head)) for head in range(2))
        for layer in range(3)]


@pytest.mark.parametrize("name, most", [("MAX_PATHS", 26), ("MAX_TERMS", 50)])
def test_sums_by_order_are_as_exact(case, monkeypatch, name, most):
    one_by_one = effects.exactness(*case)
    assert one_by_one["limit"] is None and one_by_one["paths"] == 27
    monkeypatch.setattr(effects, name, most)
    by_order = effects.exactness(*case)
    assert f"More than {effects.MAX_PATHS:,} paths" in by_order["limit"]
    for errors in one_by_one, by_order:
        assert max(errors[name] for name in ERRORS) <= 1e-12
    case[2].logits[1, 2, 3] += 1e-3                     # a forward pass that is off
    assert effects.exactness(*case)["logits"] > 1e-6


def test_virtual_heads_that_are_too_many_are_left_out(case, monkeypatch):
    """All of two heads are tried, none of three; or all of them, on fewer contexts."""
    every = effects.importance_table(*case)
    assert every["limit"] is None and len(every["virtual_heads"]) == 12 + 8
    monkeypatch.setattr(effects, "MAX_PATHS", 19)
    few = effects.importance_table(*case)
    assert few["virtual_heads"] == [head for head in every["virtual_heads"]
                                    if head["heads"].count("→") == 1]
    assert few["losses"] == every["losses"] and "3 heads and more, 8," in few["limit"]
    monkeypatch.setattr(effects, "MAX_LOGITS", 12 * case[2].logits[0].size)
    assert "tried on 1 of 3 contexts" in effects.importance_table(*case)["limit"]


def test_a_model_of_very_many_paths():
    """8 layers of 8 heads, 43 million paths: what lists them would not end."""
    weights, tokens = random_case(0, n_layers=8, n_heads=8, b=2, i=4)
    acts = mc.forward(weights, tokens)
    exact = effects.exactness(weights, tokens, acts)
    assert exact["paths"] == 9 ** 8 and max(exact[name] for name in ERRORS) <= 1e-12
    table = effects.importance_table(weights, tokens, acts)
    assert len(table["virtual_heads"]) == 28 * 64 and sum(table["counts"]) == 9 ** 8
    one = effects.prediction(weights, tokens, acts, (7, 3))
    assert "entries" not in one and "too many to list" in one["limit"]
    lines = "\n".join([*exactness_lines(exact), *importance_lines(table),
                       *ledger_lines(one | {"text": ""}, str)]).split("\n")
    assert max(map(len, lines)) <= 80
    for finding in exact, table, one:
        assert finding["limit"].split()[-1] in " ".join(lines)


def test_precision_is_said():
    weights, tokens = random_case(1)
    for dtype in np.float64, np.float32:
        weights = weights.astype(dtype)
        errors = effects.exactness(weights, tokens, mc.forward(weights, tokens))
        assert errors["precision"] == np.dtype(dtype).name
        assert any("float32" in line for line in exactness_lines(errors)) == (dtype == np.float32)
