"""Every vector with a norm without parameters, forward."""

from functools import partial

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.notation import InputError
from minicircuits.testing import check, vectors
from minicircuits.testing.steps import EPS, NORMS
from tests.testing.candidates import bfloat16, model, tf32

CASES = [case for norm in NORMS for biases in (False, True)
         for case in vectors.cases(drawn=5, biases=biases, norm=norm) if case.id != "large"]
IDS = [f"{case.id}-{case.norm}-{bool(case.biases)}" for case in CASES]
ORDINARY = [vectors.find("ordinary-standard", norm=norm) for norm in NORMS]


def normalized(weights, tokens, biases=None, norm=None, eps=EPS, fast=False, rounded=np.asarray):
    """The forward pass; if it is `fast`, σ is of mean x² − (mean x)²."""
    def product(letters, *arrays):
        return rounded(np.einsum(letters, *map(rounded, arrays)))

    def read(x):
        mean = x.mean(-1, keepdims=True) if norm == "LNPre" else 0 * x[..., :1]
        square = (x ** 2).mean(-1, keepdims=True) - mean ** 2 if fast else (
            (x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(np.maximum(square, 0) + np.asarray(eps, x.dtype))

    W, T = dict(weights.items()) | (biases or {}), tokens.shape[1]
    x, p = W["W_E"].T[tokens], W["W_pos"].T[:T] if "W_pos" in W else 0
    x, p = (x + p, 0) if weights.positions == "standard" else (x, p)
    names = "normalized", "q", "k", "v", "scores", "pattern", "z", "residual"
    found = {name: [] for name in names} | {"residual": [x]}
    for n in range(weights.n_layers):
        y = read(x)
        q, k, v = (product("hed,bid->bhie", W[f"W_{letter}"][n], at)
                   + (W[f"b_{letter}"][n][:, None] if biases else 0)
                   for letter, at in (("Q", y + p), ("K", y + p), ("V", y)))
        s = product("bhie,bhje->bhij", q, k) / np.asarray(weights.d_head ** 0.5, x.dtype)
        A = np.where(np.tri(T, dtype=bool), s, -np.inf)
        A = np.exp(A - A.max(-1, keepdims=True))
        A = A / A.sum(-1, keepdims=True)
        z = product("bhij,bhje->bhie", A, v)
        x = x + product("hde,bhie->bid", W["W_O"][n], z) + (W["b_O"][n] if biases else 0)
        for name, array in zip(names, (y, q, k, v, s, A, z, x)):
            found[name].append(array)
    found["normalized"].append(read(x))
    found = {name: np.array(arrays) for name, arrays in found.items() if arrays}
    logits = product("vd,bid->biv", W["W_U"], found["normalized"][-1])
    return found | {"logits": logits + W["b_U"] if biases else logits}


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_right_candidates_pass(case):
    for precision in ("float64", "float32"):
        for fast in (False, True):
            right = partial(normalized, norm=case.norm, fast=fast)
            assert (report := check(case, right, precision)), f"{precision} {fast} {report}"
            report = check(case, lambda *given: {"logits": right(*given)["logits"]}, precision)
            assert report, f"{precision} {fast} {report}"
    for precision, rounded in (("tf32", tf32), ("bfloat16", bfloat16)):
        low = partial(normalized, norm=case.norm, rounded=rounded)
        assert (report := check(case, low, precision)), f"{precision} {report}"


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_library_agrees(case):
    """By weights that have the norm folded; b_V is then elsewhere, so v and z are not as here."""
    folded = mc.fold_normalization(case.weights, case.norm, EPS, case.biases or {}, {})
    acts, H = mc.forward(folded, case.tokens), case.weights.n_heads
    heads = {name: getattr(acts, name)[:, :, :H] for name in ("q", "k", "scores", "pattern")}
    heads = heads if case.weights.n_layers else {}
    assert (report := check(case, heads | {"logits": acts.logits})), f"{case.norm} {report}"


@pytest.mark.parametrize("case", ORDINARY, ids=NORMS)
def test_wrong_ones_are_named(case):
    other = NORMS[case.norm == NORMS[0]]
    for wrong in dict(norm=case.norm, eps=0.0), dict(norm=case.norm, eps=1e-6), dict(norm=other):
        for precision in ("float64", "float32"):
            report = check(case, partial(normalized, **wrong), precision)
            assert report.difference.tensor == "normalized[0]" and not report.difference.missing
    without = check(case, model)
    assert without.difference.tensor == "q[0]" and without.difference.missing == ("normalized",)

    def of_one_less(weights, tokens):            # the variance of n − 1
        found = normalized(weights, tokens, norm=case.norm)
        return found | {"normalized": (1 - 1 / weights.d_model) ** 0.5 * found["normalized"]}

    report = check(case, of_one_less)
    assert report.difference.common[-1] == "all are sqrt(3/4) times what is expected"


def test_an_unknown_norm():
    with pytest.raises(InputError, match="norm must be None, 'LNPre' or 'RMSPre'; got 'LN'"):
        vectors.cases(norm="LN")
