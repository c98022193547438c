"""A run from text to model file: interrupted, resumed, and the same as if it never had been."""

from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import runs
from minicircuits.behavior.in_context import loss_by_position
from minicircuits.circuits.hand_built import START, induction_by_k_composition
from minicircuits.files import FileError
from minicircuits.training.model_file import load_model

SMALL = {"n_heads": 2, "d_model": 12, "d_head": 4, "n_ctx": 128, "positions": "shortformer"}


@pytest.fixture(scope="module")
def text():
    return runs.prepare([Path(mc.__file__).parent / "model"])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(runs, "SHAPE", SMALL)
    monkeypatch.setattr(runs, "EVERY", 2)


def silent(line):
    pass


def without_times(model):
    log = [{name: value for name, value in row.items() if name != "seconds"}
           for row in model.metadata["log"]]
    return {**model.metadata, "log": log}


@pytest.mark.parametrize("stop_at", [0, 2, 4])
def test_interrupted_and_resumed_is_the_same(text, tmp_path, stop_at):
    whole = runs.run(2, text, 3, tmp_path / "whole.npz", steps=5, report=silent)

    def interrupt(line):
        if line.split()[0] == str(stop_at):
            raise KeyboardInterrupt

    output = tmp_path / "cut.npz"
    with pytest.raises(KeyboardInterrupt):
        runs.run(2, text, 3, output, steps=5, report=interrupt)
    assert not output.exists()
    usable = load_model(f"{output}.checkpoint")                 # a model file, too
    assert usable.weights.n_layers == 2
    resumed = runs.run(2, text, 3, output, resume=True, report=silent)
    assert not Path(f"{output}.checkpoint").exists()
    for name, W in whole.weights.items():
        assert np.array_equal(W, getattr(resumed.weights, name)), name
    assert without_times(resumed) == without_times(whole)
    assert [row["step"] for row in resumed.metadata["log"]] == [0, 2, 4, 5]
    assert without_times(load_model(output)) == without_times(whole)


def test_a_checkpoint_of_another_text_is_refused(text, tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(0, text, 0, tmp_path / "model.npz", steps=2, report=interrupt)
    other = text._replace(digest="0" * 64)
    with pytest.raises(mc.InputError, match="another text"):
        runs.run(0, other, 0, tmp_path / "model.npz", resume=True, report=silent)


def test_without_files_the_same_weights(text, tmp_path):
    lines = []
    weights = runs.trained(2, text, seed=3, steps=5, report=lines.append)
    model = runs.run(2, text, 3, tmp_path / "model.npz", steps=5, report=silent)
    for name, W in model.weights.items():
        assert np.array_equal(W, getattr(weights, name)), name
    assert [int(line.split()[1]) for line in lines] == [0, 2, 4]


def test_nothing_to_resume(text, tmp_path):
    with pytest.raises(FileError, match="no such file"):
        runs.run(0, text, 0, tmp_path / "model.npz", resume=True, report=silent)


def test_an_output_that_appears_meanwhile_is_kept(text, tmp_path):
    output = tmp_path / "model.npz"

    def meanwhile(line):
        output.write_bytes(b"precious")

    with pytest.raises(FileError, match="exists"):
        runs.run(0, text, 0, output, steps=1, report=meanwhile)
    assert output.read_bytes() == b"precious"
    assert load_model(f"{output}.checkpoint").weights.n_layers == 0


def test_the_log_and_the_baselines_are_there(text, tmp_path):
    metadata = runs.run(2, text, 0, tmp_path / "model.npz", steps=2, report=silent).metadata
    assert metadata["baselines"] == text.baselines
    assert [row["step"] for row in metadata["log"]] == [0, 2]
    assert metadata["log"][0].keys() == {"step", "tokens", "seconds", "loss", "validation",
                                         "in_context", "gap", "prefix_matching", "previous_token"}


def test_what_is_measured():
    """On induction by hand: all of it, and a gap that is exactly what the two blocks cost."""
    weights = induction_by_k_composition(60, 128)
    tokens = np.random.default_rng(1).integers(1, 60, size=(4, 128))
    tokens[:, 0] = START
    found = runs.measure(weights, tokens, START, seed=2)
    assert found["prefix_matching"] == pytest.approx(1)
    assert found["previous_token"] == pytest.approx(1)
    assert found["validation"] == pytest.approx(mc.loss(weights, tokens))
    expected = mc.ordered_versus_shuffled(weights, START, np.random.default_rng(2), block=29).gap
    assert found["gap"] == expected > 0
    losses = loss_by_position(weights, tokens)
    assert found["in_context"] == pytest.approx(losses[95:106].mean() - losses[5:16].mean())
