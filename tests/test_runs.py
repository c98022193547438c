"""A run from text to model file: interrupted, resumed, and the same as if it never had been."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import runs
from minicircuits.behavior.in_context import loss_by_position
from minicircuits.circuits.hand_built import START, induction_by_k_composition
from minicircuits.files import FileError
from minicircuits.training.recipe import SHAPE
from minicircuits.training.text import batch, load_text


def silent(line):
    pass


resume = partial(runs.resume, every=2, report=silent)


def train_to_file(n_layers, text, output, steps, report=silent):
    return runs.train_to_file(n_layers, text, output, mc.Recipe(steps, seed=3), every=2,
                              report=report)


@pytest.fixture(scope="module")
def text():
    return load_text([Path(mc.__file__).parent / "model"])


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"n_heads": 2, "d_model": 12, "d_head": 4}.items():
            patch.setitem(SHAPE, name, size)
        yield


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A run of five steps, never interrupted."""
    return train_to_file(2, text, tmp_path_factory.mktemp("whole") / "model.npz", 5)


def without_times(model):
    log = [{name: value for name, value in row.items() if name != "seconds"}
           for row in model.metadata["log"]]
    return {**model.metadata, "log": log}


def same(a, b):
    return all((W == getattr(b, name)).all() for name, W in a.items())


@pytest.mark.parametrize("stop_at, error", [(0, KeyboardInterrupt), (2, UnicodeError),
                                            (4, KeyboardInterrupt)])
def test_interrupted_and_resumed_is_the_same(text, whole, tmp_path, stop_at, error):
    """By Ctrl-C, or by a display that fails: what was measured by then is kept."""
    def interrupt(line):
        if line.split()[0] == str(stop_at):
            raise error

    output = tmp_path / "cut.npz"
    with pytest.raises(error):
        train_to_file(2, text, output, 5, interrupt)
    assert not output.exists()
    usable = mc.load_model(f"{output}.checkpoint")              # a model file, too
    assert [row["step"] for row in usable.metadata["log"]] == list(range(0, stop_at + 1, 2))
    resumed = resume(text, output)
    assert not Path(f"{output}.checkpoint").exists()
    assert same(resumed.weights, whole.weights)
    assert without_times(resumed) == without_times(whole) == without_times(mc.load_model(output))


def test_the_log_and_the_baselines_are_there(text, whole):
    assert whole.metadata["baselines"] == text.baselines
    log = whole.metadata["log"]
    assert [row["step"] for row in log] == [0, 2, 4, 5]
    assert all(row["tokens"] == row["step"] * 24 * 128 for row in log)
    assert log[0].keys() == {"step", "tokens", "seconds", "loss", "validation", "in_context", "gap",
                             "prefix_matching", "previous_token", "block"}


def test_in_memory_and_by_the_front_door_the_same_weights(text, whole):
    lines = []
    weights = runs.train_in_memory(2, text, mc.Recipe(5, seed=3), every=2, report=lines.append)
    assert same(weights, whole.weights)
    assert [int(line.split()[1]) for line in lines] == [0, 2, 4]
    recipe = mc.Recipe(steps=5, seed=3)
    assert (text.batches(recipe)(0) == batch(text.stream, 24, 128, text.tokenizer.start,
                                             recipe.seed, 0)).all()
    weights = mc.first_weights(2, text.tokenizer.d_vocab, recipe.seed)
    for step, weights, loss in mc.train(mc.first_state(recipe, weights), text.batches(recipe)):
        pass
    assert step == 5 and same(weights, whole.weights) and loss == whole.metadata["log"][-1]["loss"]


def test_a_checkpoint_of_another_text_or_none_is_refused(text, tmp_path):
    output = tmp_path / "model.npz"
    with pytest.raises(FileError, match="no such file"):
        resume(text, output)
    with pytest.raises(ZeroDivisionError):
        train_to_file(0, text, output, 2, lambda line: 1 / 0)
    with pytest.raises(mc.InputError, match="another text"):
        resume(text._replace(digest="0" * 64), output)


def test_an_output_that_appears_meanwhile_is_kept(text, tmp_path):
    output = tmp_path / "model.npz"
    with pytest.raises(FileError, match="exists"):
        train_to_file(0, text, output, 1, lambda line: output.write_bytes(b"precious"))
    assert output.read_bytes() == b"precious"
    kept = mc.load_model(f"{output}.checkpoint")
    assert (kept.weights.n_layers, kept.metadata["recipe"]["decay"]) == (0, 0)


def test_the_step_of_the_least_held_out_loss_is_kept(text, tmp_path, monkeypatch):
    """Also through an interruption after it; what is last is said."""
    losses = {0: 6.0, 2: 3.0, 4: 5.0, 5: 4.0}
    measure, seen, lines = runs.measure, [], []

    def made_up(weights, *rest):
        step = [0, 2, 4, 5][len(seen)]
        seen.append(weights)
        return {**measure(weights, *rest), "validation": losses[step]}

    monkeypatch.setattr(runs, "measure", made_up)
    output = tmp_path / "model.npz"

    def interrupt(line):
        lines.append(line)
        if line.split()[0] == "4":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_to_file(2, text, output, 5, interrupt)
    model = runs.resume(text, output, every=2, report=lines.append)
    assert model.metadata["kept_step"] == 2
    assert same(model.weights, seen[1]) and same(mc.load_model(output).weights, seen[1])
    assert lines[-1] == ("  kept: step 2, whose held-out loss is the least (3.000); the last has "
                         "4.000")


def test_going_on_with_a_finished_model(text, whole, tmp_path):
    """The log begins with the model as it came; interrupted and resumed is the same here too."""
    def interrupt(line):
        if line.split()[0] == "2":
            raise KeyboardInterrupt

    mc.save_model(tmp_path / "whole.npz", *whole)
    further = partial(runs.train_further, mc.load_model(tmp_path / "whole.npz"), text,
                      recipe=mc.Recipe(3, seed=1), every=2)
    model = further(tmp_path / "a.npz", report=silent)
    assert model.metadata["from"] == whole.metadata
    assert model.metadata["recipe"]["wait"] == 0 < whole.metadata["recipe"]["wait"]
    assert [row["step"] for row in model.metadata["log"]] == [0, 2, 3]
    assert model.metadata["log"][0]["validation"] == whole.metadata["log"][-1]["validation"]
    with pytest.raises(KeyboardInterrupt):
        further(tmp_path / "b.npz", report=interrupt)
    resumed = resume(text, tmp_path / "b.npz")
    assert same(resumed.weights, model.weights)
    assert without_times(resumed) == without_times(model)
    other = load_text([Path(mc.__file__).parent / "plain"])
    with pytest.raises(mc.InputError, match="its tokenizer"):
        runs.train_further(whole, other, tmp_path / "c.npz")


@pytest.mark.parametrize("force", [False, True])
def test_two_runs_with_one_output_leave_each_other_their_checkpoints(text, tmp_path, force):
    """A second run begins and is interrupted while the first goes on."""
    output, checkpoint = tmp_path / "model.npz", tmp_path / "model.npz.checkpoint"

    def stop(line):
        raise KeyboardInterrupt

    def second(line):
        if line.split()[0] == "4":
            with pytest.raises(KeyboardInterrupt):
                runs.train_to_file(0, text, output, mc.Recipe(5, seed=8), report=stop)

    if force:
        runs.train_to_file(2, text, output, mc.Recipe(5), force=True, every=2, report=second)
        assert output.exists() and not checkpoint.exists()
    else:
        with pytest.raises(FileError, match="checkpoint.*exists"):
            train_to_file(2, text, output, 5, second)
        assert mc.load_model(checkpoint).metadata["seed"] == 8


def test_a_text_that_is_too_short_is_told_from_one_that_is_not(text):
    """With as much as it asks for, or as few steps, it is content."""
    recipe = mc.Recipe(steps=650)
    passes = 650 * 24 * 128 / len(text.stream)
    line = runs.too_short(text, recipe)
    assert f"read it {passes:.0f} times" in line
    enough, fewer = (int(number.replace(",", "")) for number in re.findall(
        r"takes ([0-9,]+) kB.*about (\d+)", line)[0])
    assert runs.too_short(text, mc.Recipe(steps=fewer)) is None
    more = enough * 1000 / text.size * 1.01
    assert runs.too_short(text._replace(stream=np.zeros(int(len(text.stream) * more))),
                          recipe) is None


def test_contexts_too_short_for_a_score_leave_it_out():
    weights = induction_by_k_composition(60, 4)
    found = runs.measure(weights, np.ones((2, 4), int), START, seed=2)
    assert [name for name, value in found.items() if value is None] == [
        "in_context", "block", "gap", "prefix_matching", "previous_token"]


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


def test_interrupted_when_a_checkpoint_is_just_written(text, whole, tmp_path, monkeypatch):
    """That moment lasts: a file is flushed to the disk. The run knows the file as its own."""
    output, save, saved = tmp_path / "model.npz", runs.save_checkpoint, []

    def interrupted(*arguments):
        save(*arguments)
        saved.append(arguments)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_to_file(2, text, output, 5)
    assert len(saved) == 2
    assert same(resume(text, output).weights, whole.weights)
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]
