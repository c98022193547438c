"""The C and the JavaScript example pass `minicircuits check`; a bug planted in them is named."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from minicircuits.cli import main
from minicircuits.testing.vectors import core

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "oracle"
FLAGS = ["-O2", "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
needs_c = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node")


def program(folder, name, old="", new=""):
    """The command that runs an example in which `old` is `new`; compiled, where need be."""
    source = (EXAMPLES / name).read_text(encoding="utf-8")
    assert not old or source.count(old) == 1
    path = folder / name
    path.write_text(source.replace(old, new) if old else source, encoding="utf-8")
    if path.suffix == ".mjs":
        return f"node {path} {{case}} {{out}}"
    compiled = subprocess.run(["cc", *FLAGS, "-o", path.with_suffix(""), path, "-lm"],
                              capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    return f"{path.with_suffix('')} {{case}} {{out}}"


def check(folder, command, *options):
    """The exit status of `minicircuits check`, and what it reports, case by case."""
    status = main(["check", "--program", command, "--json", str(folder / "report.json"), *options])
    return status, json.loads((folder / "report.json").read_text())["cases"]


@pytest.mark.parametrize("name, gradients", [
    pytest.param("attention_only.c", False, marks=needs_c),
    pytest.param("attention_only.mjs", True, marks=needs_node)])
def test_they_are_right(tmp_path, name, gradients):
    ids = [id for id in core() if id != "large"]                  # which takes JavaScript 7 s
    status, cases = check(tmp_path, program(tmp_path, name), "--drawn", "3", "--case", *ids)
    assert status == 0 and all(case["passed"] for case in cases)
    assert [case["case"] for case in cases][:-3] == ids
    expected = {"residual", "q", "k", "v", "scores", "pattern", "z", "logits", "loss"}
    if gradients:
        expected |= {f"d{name}" for name in (*expected - {"loss"}, "W_E", "W_pos", "W_Q", "W_K",
                                             "W_V", "W_O", "W_U")}
    checked = {name.split("[")[0] for case in cases for name in case["checked"]}
    assert checked == expected


C, JS = "attention_only.c", "attention_only.mjs"


@pytest.mark.parametrize("name, old, new, tensor, says", [
    pytest.param(C, " /= sqrt(E)", " *= 1", "scores[0]", "scores_without_scale", marks=needs_c),
    pytest.param(C, "W_O[l][h][d][e] * z[l][b][h][i][e]", "W_O[l][h][d][e] * z[l][b][0][i][e]",
                 "residual[1]", None, marks=needs_c),
    pytest.param(JS, "read(W.W_V, x[l])", "read(W.W_K, x[l])", "v[0]", "values_by_W_K",
                 marks=needs_node),
    pytest.param(JS, "q(b, h, i, e)) / Math.sqrt(E)", "q(b, h, i, e))", "dk[1]", None,
                 marks=needs_node)])
def test_a_planted_bug_is_named(tmp_path, name, old, new, tensor, says):
    status, [case] = check(tmp_path, program(tmp_path, name, old, new),
                           "--case", "ordinary-shortformer")
    assert status == 1 and not case["passed"]
    assert case["difference"]["tensor"] == tensor
    assert not case["difference"]["missing"]            # its inputs were supplied, and right
    assert says is None or says in case["difference"]["looks_like"]
