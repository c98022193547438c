"""Every example runs, cell by cell, with the assertions it ends in, on 80 columns.

Those that train do so for a few steps here, on the source of this package: what such a model has
learned they do not assert, the identities they do.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minicircuits as mc

FOLDER = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.name for path in FOLDER.glob("[0-9]*.py"))
KERNEL = ["/usr/lib/ipykernel_launcher.py", "-f", "/run/kernel-1.json"]
TEXT = ["--text", str(FOLDER.parent / "minicircuits" / "circuits")]
TRAINED = [*TEXT, "--steps", "5"]
LONG = {"01_zero_layer_bigrams.py": TRAINED, "03_one_layer_skip_trigrams.py": TRAINED,
        "09_real_vocabulary.py": [*TEXT, "--heads", "1", "--tokens", "2000"]}
SENTENCE, LETTER = ["--sentence", "Aber, aber. 我和你"], ["--sentence", "a"]
ON_A_TEXT = [("00_notation.py", TEXT), ("00_notation.py", LETTER),
             ("02_derive_the_backward.py", SENTENCE), ("04_hand_built_circuits.py", TEXT),
             ("04_hand_built_circuits.py", LETTER), ("05_two_layer_induction.py", TRAINED),
             ("05_two_layer_induction.py", SENTENCE), ("07_virtual_heads.py", LETTER),
             ("08_term_importance.py", LETTER), ("10_phase_change.py", TRAINED),
             ("11_biases_and_normalization.py", LETTER)]


def cells(name):
    """What an editor runs one by one: the source up to a line `# %%`, to the next, and so on."""
    return [cell for cell in (FOLDER / name).read_text(encoding="utf-8").split("\n# %%")]


def run_cells(name, argv, monkeypatch):
    """All cells in one namespace, which has no __file__, as in a notebook of that folder."""
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.syspath_prepend(FOLDER)
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells(name)):
        exec(compile(f"#{cell}" if number else cell, f"{name}, cell {number}", "exec"), namespace)


def check_output(text):
    assert text.splitlines()[-1] == "All identities hold."
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", NAMES)
def test_its_cells_run_in_a_notebook(name, monkeypatch, capsys):
    """By default, whatever the arguments of the kernel are; those that train long, as a script."""
    argv = [str(FOLDER / name), *LONG[name]] if name in LONG else KERNEL
    run_cells(name, argv, monkeypatch)
    check_output(capsys.readouterr().out)


@pytest.mark.parametrize("name, arguments", ON_A_TEXT)
def test_it_runs_on_a_text(name, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)        # which scripts replace
    run_cells(name, [str(FOLDER / name), *arguments], monkeypatch)
    check_output(capsys.readouterr().out)


def test_training_says_that_a_text_is_short(monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    preamble = importlib.import_module("preamble")
    (tmp_path / "short.txt").write_text("".join(f"{n} {n * n}\n" for n in range(1000)))
    text = mc.load_text([tmp_path / "short.txt"], n_ctx=16, d_vocab=300)
    for steps, said in (4, False), (400, True):
        preamble.train(0, text, steps)
        assert ("is short" in capsys.readouterr().out) == said


@pytest.mark.parametrize("name", NAMES)
def test_it_is_cells_with_titles(name):
    first, *others = cells(name)
    assert len(others) >= 3 and all(cell[0] == " " for cell in others)
    compile(first, name, "exec")                # a cell of its own: what the example is about
    assert f"examples/{name}" in first and "Paper: " in first


def test_they_are_numbered_in_reading_order():
    assert [int(name[:2]) for name in NAMES] == list(range(12))


def test_the_readme_lists_them():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in readme.splitlines() if line.startswith("| `")]
    assert [row[0].strip(" `") + ".py" for row in rows] == NAMES
    for room in re.findall("`(.*?)`", "".join(row[-1] for row in rows)):
        assert (FOLDER.parent / "minicircuits" / f"{room}.py").exists(), room


def script(name, *arguments):
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent), "PYTHONIOENCODING": "utf-8",
                                "PYTHONWARNINGS": "error"}
    return subprocess.run([sys.executable, str(FOLDER / name), *arguments], env=environment,
                          capture_output=True, text=True, encoding="utf-8", timeout=300)


def test_it_is_a_script():
    done = script("00_notation.py")
    assert (done.returncode, done.stderr) == (0, "")
    check_output(done.stdout)


@pytest.mark.parametrize("arguments, complaint", [
    (["--text", "no such file"], "no such file"), (["--txt", "x"], "--txt"),
    (["--sentence", "  "], "must have a word")])
def test_a_wrong_argument_is_an_error(arguments, complaint):
    done = script("00_notation.py", *arguments)
    assert done.returncode != 0 and complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
