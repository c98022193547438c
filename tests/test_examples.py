"""Every example runs, with the assertions it ends in, and prints what fits on 80 columns.

Those that train do so for a few steps here, on the source of this package: what such a model has
learned they do not assert, the identities they do.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
TEXT = ["--text", str(FOLDER.parent / "minicircuits" / "circuits")]
ARGUMENTS = {
    "00_notation.py": [], "01_zero_layer_bigrams.py": [*TEXT, "--steps", "5"],
    "03_one_layer_skip_trigrams.py": [*TEXT, "--steps", "5"], "06_toy_induction.py": TEXT,
    "05_two_layer_induction.py": [], "08_term_importance.py": [], "07_virtual_heads.py": [],
    "04_hand_built_circuits.py": [], "02_derive_the_backward.py": [],
    "09_real_vocabulary.py": ["--heads", "1", "--tokens", "2000"], "10_phase_change.py": [],
}
ON_A_TEXT = {"00_notation.py": TEXT, "05_two_layer_induction.py": [*TEXT, "--steps", "5"],
             "04_hand_built_circuits.py": TEXT, "02_derive_the_backward.py": TEXT}


def run(name, arguments):
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent), "PYTHONIOENCODING": "utf-8",
                                "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(FOLDER / name), *arguments], env=environment,
                          capture_output=True, text=True, encoding="utf-8", timeout=300)


@pytest.mark.parametrize("name, arguments", [*ARGUMENTS.items(), *ON_A_TEXT.items()])
def test_it_runs_to_the_end(name, arguments):
    done = run(name, arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("All identities hold.", "Every assertion held.")
    wide = [line for line in done.stdout.splitlines() if len(line) > 80]
    assert not wide


def test_none_is_left_out():
    assert {path.name for path in FOLDER.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ["00_notation.py", "06_toy_induction.py", "08_term_importance.py"])
def test_a_text_that_is_not_there_is_an_error(name):
    done = run(name, ["--text", "no such file"])
    assert done.returncode != 0 and "no such file" in done.stderr.splitlines()[-1]
