"""Every known bug is caught, by vectors that each have a reason to be there."""

import json

import pytest

from minicircuits.cli import main
from minicircuits.plain import circuits as plain_circuits
from minicircuits.plain import model as plain
from minicircuits.testing import vectors
from minicircuits.testing.checking import check, kills
from minicircuits.testing.mutants import MUTANTS, candidate
from minicircuits.testing.steps import CIRCUITS

HUNTERS = [id for id, vector in vectors.core().items() if vector.hunts]
FORWARD_OR_BACKWARD = [name for name in MUTANTS if MUTANTS[name].module is plain]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """{mutant: the vectors that kill it}, as `mutants --json` writes it."""
    path = tmp_path_factory.mktemp("mutants") / "matrix.json"
    assert main(["mutants", "--json", str(path)]) == 0
    return json.loads(path.read_text())


def test_every_mutant_is_killed_by_a_vector_that_is_no_control(matrix):
    assert list(matrix) == list(MUTANTS) and len(matrix) >= 60
    assert [name for name in matrix if not set(matrix[name]) & set(HUNTERS)] == []


def test_every_vector_kills_what_it_hunts(matrix):
    for id in HUNTERS:
        assert [name for name in vectors.core()[id].hunts if id not in matrix[name]] == [], id


@pytest.mark.parametrize("id", HUNTERS)
def test_without_a_vector_a_bug_that_it_hunts_would_survive(matrix, id):
    alone = {name for name in matrix if set(matrix[name]) & set(HUNTERS) == {id}}
    assert alone & set(vectors.core()[id].hunts), f"{id} can go"


def test_the_loops_themselves_are_not_killed():
    def right(weights, tokens):
        found = plain.tensors(weights, tokens)
        return found | plain_circuits.tensors(weights, tokens, found["pattern"])
    for vector in vectors.core().values():
        assert check(vector, right), vector.id


def home(name):
    """The first vector that hunts a mutant, or an ordinary one."""
    hunting = [id for id in HUNTERS if name in vectors.core()[id].hunts]
    ordinary = "circuits" if MUTANTS[name].step in CIRCUITS else "ordinary-shortformer"
    return vectors.core()[hunting[0] if hunting else ordinary]


@pytest.mark.parametrize("name", MUTANTS)
def test_the_report_names_the_step_and_the_bug(name):
    report = check(home(name), candidate(name))
    assert not report
    if MUTANTS[name].step == "call":
        assert report.note
    else:
        assert report.difference.step == MUTANTS[name].step
        assert name in report.looks_like
        assert f"matches `{name}`" in str(report)
    assert max(map(len, str(report).splitlines())) <= 80


@pytest.mark.parametrize("name", [name for name in FORWARD_OR_BACKWARD
                                  if MUTANTS[name].step != "call"])
def test_outputs_alone_betray_every_bug(name):
    """With logits, loss and the weights' gradients, and nothing in between."""
    def outputs(weights, tokens):
        return {tensor: array for tensor, array in candidate(name)(weights, tokens).items()
                if tensor in ("logits", "loss") or tensor.startswith("dW")}
    for vector in (home(name), *vectors.core().values()):
        if not (report := check(vector, outputs)):
            break
    assert not report, f"{name} survives"
    if report.difference.missing:
        assert report.looks_like


def test_a_mask_of_minus_1e4_passes_ordinary_vectors_and_is_named_on_the_spread_one():
    for id in "ordinary-shortformer", "ordinary-standard", "rows-far-apart", "exact":
        assert not kills(vectors.core()[id], "mask_minus_1e4")
    report = check(vectors.core()["masked-scores-far-above"], candidate("mask_minus_1e4"))
    assert report.difference.tensor == "pattern[0]" and report.looks_like == ("mask_minus_1e4",)


def test_a_wrong_dk_is_named_and_not_the_gradient_of_a_weight_that_it_spoils():
    report = check(vectors.core()["ordinary-shortformer"], candidate("dk_untransposed"))
    assert report.difference.tensor == "dk[1]" and report.looks_like == ("dk_untransposed",)
    assert "the mistake is in this step" in str(report)
    found = candidate("dk_untransposed")(*case_of("ordinary-shortformer"))
    report = check(vectors.core()["ordinary-shortformer"],
                   {name: found[name] for name in ("logits", "dW_Q", "dW_K", "dW_E")})
    assert report.difference.tensor == "dW_K[1]" and report.difference.missing == ("dk", "residual")
    assert "to tell which, supply dk, residual" in str(report)


def case_of(id):
    vector = vectors.core()[id]
    return vector.weights.astype("float64"), vector.tokens
