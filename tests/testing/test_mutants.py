"""Every known bug is caught, by vectors that each have a reason to be there."""

import json
from collections import defaultdict
from dataclasses import replace
from functools import cache, partial

import pytest

from minicircuits.cli import main
from minicircuits.testing import commands, mutants, vectors
from minicircuits.testing.checking import check
from minicircuits.testing.mutants import MUTANTS, candidate
from minicircuits.testing.steps import CIRCUITS
from tests.testing.candidates import outputs

HUNTERS = [id for id, vector in vectors.core().items() if vector.hunts]
ORDINARY = vectors.core()["ordinary-shortformer"]
ANSWERS = defaultdict(dict)      # of each mutant, to what it was asked before


def remembered(name, dtype="float64"):
    """The candidate of a mutant; one that says the same twice computes it once."""
    run, known = candidate(name, dtype), ANSWERS[name, dtype]

    def answer(weights, tokens, biases=None):
        key = tokens.tobytes(), *(W.tobytes() for _, W in weights.items()), bool(biases)
        if key not in known:
            known[key] = run(weights, tokens, biases)
        return known[key]
    return run if MUTANTS[name].step == "call" else answer


@pytest.fixture(autouse=True, scope="module")
def loops_run_once():
    """Many tests ask for the same answers of the same loops."""
    with pytest.MonkeyPatch.context() as patch:
        for module in mutants, commands:
            patch.setattr(module, "candidate", remembered)
        yield


@cache
def kills(id, name):
    vector = vectors.find(id, biases=MUTANTS[name].of_biases)
    return id in [v.id for v in commands.asked_of(name)] and check(vector, remembered(name)).wrong


def test_the_command_prints_the_vectors_that_kill_each(monkeypatch, tmp_path, capsys):
    few = {name: MUTANTS[name] for name in ("mask_minus_1e4", "W_QK_transposed", "window_of_67")}
    monkeypatch.setattr(commands, "MUTANTS", few)
    assert main(["mutants", "--json", str(tmp_path / "matrix.json")]) == 0
    assert json.loads((tmp_path / "matrix.json").read_text()) == {
        "mask_minus_1e4": ["masked-scores-far-above"], "window_of_67": ["past-128"],
        "W_QK_transposed": ["ordinary-standard", "circuits"]}
    past = vectors.core()["past-128"]
    short = replace(past, tokens=past.tokens[:, :67])
    monkeypatch.setattr(commands, "core", lambda: {**vectors.core(), "past-128": short})
    capsys.readouterr()
    assert main(["mutants"]) == 1
    assert capsys.readouterr().out.endswith("3 known bugs, 1 not caught: window_of_67\n")


def test_every_mutant_is_killed_by_a_vector_that_is_no_control():
    assert len(MUTANTS) == 117
    assert [name for name in MUTANTS if not any(
        kills(id, name) for id in (home(name).id, *HUNTERS))] == []
    assert not any(check(vector, remembered("b_V_missing")(vector.weights, vector.tokens)).wrong
                   for vector in vectors.core().values() if vector.stored)      # no biases, no bug


@pytest.mark.parametrize("id", HUNTERS)
def test_without_a_vector_a_bug_that_it_hunts_would_survive(id):
    hunts = vectors.core()[id].hunts
    assert [name for name in hunts if not kills(id, name)] == []
    assert any(not any(kills(other, name) for other in HUNTERS if other != id)
               for name in hunts), f"{id} can go"


def home(name):
    """The first vector that hunts a mutant, or an ordinary one."""
    hunting = [id for id in HUNTERS if name in vectors.core()[id].hunts]
    ordinary = "circuits" if MUTANTS[name].step in CIRCUITS else "ordinary-shortformer"
    return vectors.find(hunting[0] if hunting else ordinary, biases=MUTANTS[name].of_biases)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_report_names_the_step_and_the_bug(name):
    """With all tensors; and with logits, loss and the weights' gradients alone."""
    report = check(home(name), remembered(name))
    assert not report and max(map(len, str(report).splitlines())) <= 80
    if MUTANTS[name].step == "call":
        assert report.note
        return
    assert report.difference.step == MUTANTS[name].step
    assert name in report.looks_like and f"matches `{name}`" in str(report)
    if MUTANTS[name].step in CIRCUITS:
        return

    reports = (check(vector, partial(outputs, of=remembered(name)))
               for vector in (home(name), *commands.asked_of(name)))
    report = next((report for report in reports if not report), None)
    if report is None or report.difference.error < 1e-38:
        # So small that only its own step shows it; or q_i · b_K is the same in a row of scores.
        assert "underflow" in name or name == "b_K_missing"
    else:
        assert report.looks_like or not report.difference.missing


def test_a_weights_gradient_spoiled_by_a_wrong_dk_says_what_to_supply():
    found = remembered("dk_untransposed")(ORDINARY.weights, ORDINARY.tokens)
    report = check(ORDINARY, {name: found[name] for name in ("logits", "dW_Q", "dW_K", "dW_E")})
    assert report.difference.tensor == "dW_K[1]" and report.difference.missing == ("dk", "residual")
    assert "to tell which, supply dk, residual" in str(report)


def test_spacing_breaks_no_edit_and_another_text_says_what_to_change(monkeypatch):
    source = mutants.inspect.getsource

    def respaced(thing):
        return source(thing).replace(" / math.sqrt(E)", "/math.sqrt(\n  E)").replace('"', "'")
    monkeypatch.setattr(mutants.inspect, "getsource", respaced)
    mutants._code.cache_clear()
    for name in MUTANTS:
        if not MUTANTS[name].of_biases:          # whose text nests quotes
            mutants._code(name)
    monkeypatch.setattr(mutants.inspect, "getsource",
                        lambda thing: source(thing).replace("total(shares", "sum(shares"))
    mutants._code.cache_clear()
    with pytest.raises(AssertionError, match="'softmax_epsilon' is an edit of minicircuits.plain."
                       "model.softmax, .* 0 times.*change the edit in testing/known_bugs.txt"):
        mutants._code("softmax_epsilon")
    mutants._code.cache_clear()


def test_the_loops_themselves_are_not_killed(monkeypatch):
    """What the mutants are edits of is right, with every replacement that mutants get."""
    same = MUTANTS["downcast"]._replace(new=MUTANTS["downcast"].old)
    monkeypatch.setitem(MUTANTS, "none", same)
    assert check(ORDINARY, candidate("none")) and same.step not in CIRCUITS
