"""The command line as its user meets it: what it prints, what it leaves, how it refuses."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import tour
from minicircuits.cli import main
from minicircuits.training.model_file import load_model, save_model
from minicircuits.training.tokenizer import train_tokenizer

PACKAGE = Path(mc.__file__).parent          # a text that is always there


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """A short tour, once: its folder, exit status and output."""
    folder = tmp_path_factory.mktemp("toured")
    done = subprocess.run(
        [sys.executable, "-m", "minicircuits", "tour", "--text", PACKAGE, "--steps", "3",
         "-o", "tour", "--json", "tour.json"],
        capture_output=True, text=True, cwd=folder, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONIOENCODING": "utf-8"})
    return folder, done


def test_tour_prints_80_columns_and_leaves_its_files(toured):
    folder, done = toured
    assert (done.returncode, done.stderr) == (0, "")
    too_wide = [line for line in done.stdout.splitlines() if len(line) > 80]
    assert not too_wide
    assert sorted(path.name for path in (folder / "tour").iterdir()) == [
        "one_layer.npz", "report.html", "two_layers.npz", "zero_layers.npz"]


def test_tour_figures_add_up(toured):
    folder, _ = toured
    figures = json.loads((folder / "tour.json").read_text())
    for name in ("zero_layers", "one_layer", "two_layers"):
        errors = figures[name]["exactness"]
        assert max(errors["logits"], errors["scores"], errors["patterns"]) <= 1e-12
    prediction = figures["two_layers"]["prediction"]
    assert prediction["sum"] == pytest.approx(prediction["logit"], rel=1e-12)
    parts = figures["two_layers"]["split"]["parts"]
    assert sum(parts[name]["stripe"] for name in ("neither", "Q", "K", "both")) == pytest.approx(
        parts["total"]["stripe"], rel=1e-12)


def test_model_files_say_nothing_of_this_machine(toured):
    folder, _ = toured
    model = load_model(folder / "tour" / "two_layers.npz")
    assert {"python", "numpy", "scipy", "seed", "text_sha256", "recipe", "log"} < set(
        model.metadata)
    data = (folder / "tour" / "two_layers.npz").read_bytes()
    for secret in (str(folder), str(PACKAGE), Path.home().name):
        assert len(secret) < 5 or secret.encode() not in data


def test_where_output_has_no_code_for_a_character_it_is_a_question_mark(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main(["tour", "--help"])
    sys.stdout.seek(0)
    assert ended.value.code == 0 and "tour-2, ? that" in " ".join(
        sys.stdout.read().split())


def test_heads_reads_a_model_of_the_tour(toured, capsys):
    folder, _ = toured
    assert main(["heads", str(folder / "tour" / "one_layer.npz"), "--text", str(PACKAGE)]) == 0
    assert "\n  0.3  " in capsys.readouterr().out


def test_heads_without_a_model_shows_the_one_that_comes_along(tmp_path, capsys):
    assert main(["heads", "--json", str(tmp_path / "heads.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("comes with this package" in line for line in lines)
    assert max(map(len, lines)) <= 80
    found = json.loads((tmp_path / "heads.json").read_text())
    model = mc.load_pretrained()
    layer, head = found["induction_head"]
    assert f"  {layer}.{head}  " in "\n".join(lines)
    recorded = {f"{name} (training text)": loss
                for name, loss in model.metadata["baselines"].items()}
    assert recorded.items() < found["losses"].items() and len(found["losses"]) == 4
    assert [row["induction"] for row in found["heads"]
            if (row["layer"], row["head"]) == (layer, head)] == [
                max(row["induction"] for row in found["heads"])]


def test_heads_of_the_pretrained_model_on_a_text_of_your_own(capsys):
    assert main(["heads", "--text", str(PACKAGE)]) == 0
    assert "(training text)" not in capsys.readouterr().out


def test_a_sum_that_is_not_exact_ends_in_status_1(toured, capsys, monkeypatch):
    folder, _ = toured
    monkeypatch.setattr(tour, "EXACT", 1e-20)
    assert main(["heads", str(folder / "tour" / "one_layer.npz"), "--text", str(PACKAGE)]) == 1
    assert "NOT EXACT" in capsys.readouterr().out


def refused(capsys, *arguments):
    """The one line on standard error that a command ends in, with status 2."""
    try:
        status = main(list(map(str, arguments)))
    except SystemExit as stop:                       # argparse's own refusals
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and "Traceback" not in error
    return error.strip().splitlines()[-1]


def test_texts_that_cannot_be_used(tmp_path, capsys):
    empty, binary, short = (tmp_path / name for name in ("empty", "binary", "short"))
    empty.write_bytes(b"")
    binary.write_bytes(b"a\0b" * 1000)
    short.write_text("too short")
    for text, complaint in ((tmp_path / "none", "no such file"), (empty, "empty"),
                            (binary, "binary"), (short, "at least 127 tokens")):
        line = refused(capsys, "train", "--text", text, "-o", tmp_path / "model.npz")
        assert complaint in line.lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["binary", "empty", "short"]


def test_outputs_are_refused_before_any_work(tmp_path, capsys):
    there = tmp_path / "there.npz"
    there.write_bytes(b"precious")
    for output in (there, tmp_path / "no_folder" / "model.npz", tmp_path):
        assert "cannot write" in refused(capsys, "train", "--text", PACKAGE, "-o", output)
        assert "cannot write" in refused(capsys, "tour", "--text", PACKAGE, "--steps", 1,
                                         "-o", tmp_path / "t", "--json", output)
    assert there.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


def test_model_files_that_are_none(tmp_path, capsys):
    foreign, corrupt = tmp_path / "foreign.npz", tmp_path / "corrupt.npz"
    np.savez(foreign, x=np.ones(3))
    weights = mc.init_weights(1, 2, 8, 4, 257, 8, "shortformer", np.random.default_rng(0))
    save_model(corrupt, weights, train_tokenizer(b"", 257), {})
    corrupt.write_bytes(corrupt.read_bytes()[:-100])
    for path in (foreign, corrupt, tmp_path / "none.npz", PACKAGE / "cli.py"):
        assert str(path.name) in refused(capsys, "heads", path)


def test_options_that_make_no_sense(tmp_path, capsys):
    for arguments in (["tour", "--steps", "0"], ["tour", "--seed", "-1"], ["train"],
                      ["tour", "--steps", "many"], ["nothing"], []):
        refused(capsys, *arguments)


def test_help_has_an_example(capsys):
    for command in ([], ["tour"], ["train"], ["heads"], ["report"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
        assert "example:\n  minicircuits " in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error():
    """As in `minicircuits vectors list | head -1`."""
    process = subprocess.Popen([sys.executable, "-m", "minicircuits", "vectors", "list"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)})
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 1
