"""`minicircuits vectors`, `check` and `mutants`, as somebody with another language meets them."""

import io
import json
import os
import sys
import tempfile
import textwrap
import time

import numpy as np
import pytest

from minicircuits.cli import main
from minicircuits.testing import commands
from minicircuits.testing.mutants import candidate
from minicircuits.testing.vectors import core, find

# An implementation that reads the manifest alone: {case} and {out} are its arguments.
PROGRAM = '''
    import json, sys
    import numpy as np
    case, out = sys.argv[1:3]
    manifest = json.load(open(case + "/manifest.json"))
    W = {t["name"]: np.load(case + "/" + t["file"]) for t in manifest["tensors"]}
    x = W["W_E"].T[W["tokens"]]
    T, p = x.shape[1], 0
    if manifest["positions"] != "none":
        p = W["W_pos"].T[:T]
    if manifest["positions"] == "standard":
        x, p = x + p, 0
    patterns = []
    for W_Q, W_K, W_V, W_O in zip(W["W_Q"], W["W_K"], W["W_V"], W["W_O"]):
        q, k = (np.einsum("hed,bid->bhie", M, x + p) for M in (W_Q, W_K))
        v = np.einsum("hed,bid->bhie", W_V, x)
        scores = np.einsum("bhie,bhje->bhij", q, k) / SCALE
        scores = np.where(np.tri(T, k=DIAGONAL, dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        patterns.append(shares / shares.sum(-1, keepdims=True))
        x = x + np.einsum("hde,bhij,bhje->bid", W_O, patterns[-1], v)
    np.save(out + "/logits.npy", x @ W["W_U"].T)
    if patterns:
        np.save(out + "/pattern.npy", patterns)
'''
RIGHT = {"SCALE": "np.sqrt(q.shape[-1]).astype(q.dtype)", "DIAGONAL": "0"}


@pytest.fixture
def program(tmp_path):
    """program(text) -> the command that runs it."""
    def written(text=PROGRAM, **changes):
        for name, value in {**RIGHT, **changes}.items():
            text = text.replace(name, value)
        (tmp_path / "mine.py").write_text(textwrap.dedent(text))
        return f"'{sys.executable}' '{tmp_path / 'mine.py'}' {{case}} {{out}}"
    return written


def run(capsys, *arguments):
    """(status, lines on standard output, lines on standard error)."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "/" in out or "{" in out or max(map(len, ["", *out.splitlines()])) <= 80
    return status, out.splitlines(), err.splitlines()


def test_a_right_program_passes(program, capsys):
    status, lines, _ = run(capsys, "check", "--program", program(), "--drawn", 1,
                           "--case", "exact", "circuits", "one-token")
    assert status == 0 and "4 cases, 0 wrong" in lines and "no gradient was checked" in lines
    assert "loss not supplied in 3 cases of 4" not in lines
    assert any(line.startswith("not supplied, so not checked: residual, q") for line in lines)


def test_a_right_program_in_float32(program, capsys):
    status, lines, _ = run(capsys, "check", "--program", program(), "--precision", "float32",
                           "--case", "ordinary-shortformer", "--case", "square-heads")
    assert status == 0 and lines[:2] == ["ok    ordinary-shortformer: 3 tensors right",
                                         "ok    square-heads: 2 tensors right"]


def test_a_planted_bug_is_named_in_one_command(program, capsys):
    status, lines, _ = run(capsys, "check", "--program", program(SCALE="q.shape[-1]"),
                           "--case", "ordinary-shortformer")
    assert status == 1 and "WRONG ordinary-shortformer: pattern[0]" in lines
    assert any("to tell which, supply scores" in line for line in lines)
    assert "  matches `scale_by_d_head`: scores are divided by d_head, not √d_head" in lines
    status, lines, _ = run(capsys, "check", "--program", program(DIAGONAL="1"),
                           "--case", "exact")
    assert status == 1
    assert "  matches `mask_one_ahead`: a destination sees the next token" in lines


@pytest.mark.parametrize("text, note", [
    ("import sys; sys.exit('no such tensor')", "the program ended with status 1: no such tensor"),
    ("raise RuntimeError('bad\\x1b[31m luck')", "ended with status 1: RuntimeError: bad?[31m luck"),
    ("import numpy, sys; numpy.save(sys.argv[2] + '/logits.npy', numpy.zeros((1, 2, 3)))",
     "logits must have axes (b, i, v) with b=2, i=4, v=4; got shape (1, 2, 3)"),
    ("import os; os.kill(os.getpid(), 9)", "the program ended with status -9"),
])
def test_a_program_that_fails_is_one_line(program, capsys, text, note):
    status, lines, _ = run(capsys, "check", "--program", program(text), "--case", "exact")
    said = " ".join(line.strip() for line in lines[:-1])
    assert status == 1 and lines[-1] == "1 case, 1 wrong"
    assert said.startswith("WRONG exact: ") and said.endswith(note)


def test_a_program_that_hangs_is_stopped_with_all_it_started(program, capsys, tmp_path):
    hangs = f"""
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2); open({str(
            tmp_path / 'late')!r}, 'w')"])
        time.sleep(60)
        """
    start = time.monotonic()
    status, lines, _ = run(capsys, "check", "--program", program(hangs), "--timeout", 1,
                           "--case", "exact")
    assert time.monotonic() - start < 30
    assert status == 1 and lines == ["WRONG exact: no answer within 1 s", "1 case, 1 wrong"]
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("leaves, found", [
    ("[(os.mkdir('d'), os.chdir('d')) for _ in range(99)]", "none  exact: nothing was supplied"),
    ("os.mkfifo('logits.npy')", "WRONG exact: cannot read '{out}/logits.npy': not a regular file"),
    ("os.makedirs('a/b'); os.chmod('a', 0); os.symlink('/', 'c')", "none  exact"),
    ("import shutil; shutil.rmtree(sys.argv[2])", "WRONG exact: cannot read the folder '{out}'"),
])
def test_whatever_a_program_leaves_behind_the_run_goes_on(
        program, capsys, tmp_path, monkeypatch, leaves, found):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, lines, _ = run(capsys, "check", "--program", program(
        f"import os, sys; os.chdir(sys.argv[2]); {leaves}"), "--case", "exact", "circuits")
    assert status == 1 and lines[0].startswith(found) and "circuits" in lines[1]
    assert os.listdir(tmp_path) == ["mine.py"] and os.path.exists("/usr")


def test_a_program_that_goes_on_writing_does_not_stop_the_run(tmp_path, monkeypatch):
    """Its folder is left after a while."""
    monkeypatch.setattr(commands.os, "rmdir", lambda path: (_ for _ in ()).throw(OSError()))
    (tmp_path / "work" / "out").mkdir(parents=True)
    commands.remove(str(tmp_path / "work"), seconds=0.1)


def test_a_program_may_decline_a_case(program, capsys):
    """Nothing written is nothing checked: no mistake, but never a pass where all are declined."""
    declines = PROGRAM.replace("np.save(out", "if len(patterns) == 1: np.save(out")
    status, lines, _ = run(capsys, "check", "--program", program(declines), "--case",
                           "ordinary-standard", "exact")
    assert status == 0 and "none  exact: nothing was supplied, so nothing was checked" in lines
    assert "nothing was checked in 1 of them: exact" in lines
    status, lines, _ = run(capsys, "check", "--program", program(declines), "--case", "exact")
    assert status == 1


def test_a_program_is_run_on_drawn_cases_too(program, capsys, monkeypatch):
    monkeypatch.setattr(commands, "core", lambda: {"exact": None})
    monkeypatch.setattr(commands, "DRAWN", 2)
    status, lines, _ = run(capsys, "check", "--program", program())
    assert status == 0 and lines[3] == "3 cases, 0 wrong" and lines[2].startswith("ok    drawn2-2")


# As on Windows.

def test_without_process_groups_a_program_is_still_stopped(program, capsys, monkeypatch):
    monkeypatch.setattr(commands, "WINDOWS", True)
    monkeypatch.delattr(os, "killpg")
    monkeypatch.setattr(commands, "signal", None)
    status, lines, _ = run(capsys, "check", "--program", program("import time; time.sleep(60)"),
                           "--timeout", 1, "--case", "exact")
    assert status == 1 and lines == ["WRONG exact: no answer within 1 s", "1 case, 1 wrong"]
    assert run(capsys, "check", "--program", program(), "--case", "exact")[0] == 0


def test_a_backslash_is_a_letter_where_paths_have_it(monkeypatch):
    command = r"""C:\my\mine.exe 'a b' "C:\Program Files\x" {case}"""
    monkeypatch.setattr(commands, "WINDOWS", True)
    assert commands.words_of(command.replace(r"\\", "\\")) == [
        r"C:\my\mine.exe", "a b", r"C:\Program Files\x", "{case}"]
    monkeypatch.setattr(commands, "WINDOWS", False)
    assert commands.words_of(r"a\ b 'c d'") == ["a b", "c d"]


@pytest.mark.parametrize("arguments", [("vectors", "list"), ("vectors", "show", "exact"),
                                       ("check", "--program", "PROGRAM", "--case", "exact")])
def test_a_stream_of_few_letters_gets_all_lines(program, monkeypatch, arguments):
    """Redirected output is cp1252 on Windows, which has no √ and no −."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    wrong = program(SCALE="q.shape[-1]", DIAGONAL="1")
    assert main([wrong if word == "PROGRAM" else word for word in arguments]) in (0, 1)
    stream.flush()
    assert stream.buffer.getvalue().decode("cp1252").count("\n") > 5


# Folders of answers.

def test_drawn_answers_are_checked_beside_those_that_are_there(tmp_path, capsys):
    for id in "exact", "drawn2-1", "drawn2-2":
        vector = find(id)
        (tmp_path / id).mkdir()
        np.save(tmp_path / id / "logits.npy", vector.reference.expected["logits", None])
    status, lines, _ = run(capsys, "check", tmp_path, "--drawn", 1)
    assert status == 1 and "3 cases, 0 wrong" in lines
    assert any(line.startswith("no answer to: no-layers") for line in lines)


def test_answers_in_a_folder(tmp_path, capsys):
    assert run(capsys, "vectors", "export", tmp_path / "cases", "exact", "circuits",
               "--drawn", 1) == (0, [f"3 cases in {tmp_path / 'cases'}"], [])
    assert run(capsys, "vectors", "verify", tmp_path / "cases")[0] == 0
    refused = run(capsys, "check", tmp_path / "cases", "--case", "exact")
    assert refused[0] == 2 and "holds the expected numbers, not an answer" in refused[2][0]
    for case in (tmp_path / "cases").iterdir():
        (case / "manifest.json").rename(case / ".manifest.json")     # now they are answers
    status, lines, _ = run(capsys, "check", tmp_path / "cases")
    assert status == 1 and "3 cases, 0 wrong" in lines               # of all: see the next line
    assert any(line.startswith("no answer to: no-layers, one-token") for line in lines)
    found = candidate("dk_untransposed")(core()["exact"].weights, core()["exact"].tokens)
    np.save(tmp_path / "cases" / "exact" / "dk.npy", found["dk"])
    status, lines, _ = run(capsys, "check", tmp_path / "cases", "--json", tmp_path / "out.json")
    figures = json.loads((tmp_path / "out.json").read_text())
    assert status == 1 and not figures["passed"] and len(figures["cases"]) == 3
    difference = [case for case in figures["cases"] if case["case"] == "exact"][0]["difference"]
    assert difference["step"] == "dk" and "dk_untransposed" in difference["looks_like"]
    assert run(capsys, "check", tmp_path / "cases" / "circuits", "--case", "circuits")[0] == 0
    (tmp_path / "cases" / "exact" / "q.npy").write_bytes(b"damaged")
    status, lines, errors = run(capsys, "check", tmp_path / "cases")
    assert status == 2 and len(errors) == 1 and "must be an array of numbers" in errors[0]


def test_the_other_convention(tmp_path, capsys):
    export = ("vectors", "export", tmp_path / "theirs", "ordinary-standard")
    assert run(capsys, *export, "--convention", "transformer_lens")[0] == 0
    assert (tmp_path / "theirs" / "ordinary-standard" / "blocks.0.attn.hook_q.npy").exists()
    (tmp_path / "theirs" / "ordinary-standard" / "manifest.json").unlink()
    check = ("check", tmp_path / "theirs", "--case", "ordinary-standard")
    assert run(capsys, *check, "--convention", "transformer_lens")[0] == 0
    status, _, errors = run(capsys, *check)
    assert status == 2 and "say --convention transformer_lens" in errors[0]


@pytest.mark.parametrize("arguments, says", [
    (["check"], "check needs a FOLDER of answers or --program COMMAND; got neither"),
    (["check", "a", "--program", "b"], "got both"),
    (["check", "/nowhere"], "cannot read the folder '/nowhere': no such file or directory"),
    (["check", "--program", "./mine {case}"], "--program needs {out} where its folder goes"),
    (["check", "--program", "/nowhere {case} {out}"], "cannot run '/nowhere'"),
    (["check", "--program", "'a {case} {out}"], "cannot split"),
    (["check", "--program", ""], "--program needs {case}"),
    (["check", "x", "--drawn", "10001"], "--drawn must be at most 10000"),
    (["check", "x", "--precision", "half"], "invalid choice"),
    (["check", "--program", "x {case} {out}", "--case", "none"], "a vector must be one of exact"),
    (["vectors", "show", "exact", "nothing"], "a tensor of exact must be one of W_E"),
    (["vectors", "verify", "/nowhere"], "cannot read the folder '/nowhere'"),
    (["vectors"], "ACTION"),
])
def test_bad_input_is_status_2_and_one_line(capsys, arguments, says):
    status, _, errors = run(capsys, *arguments)
    assert status == 2 and says in errors[-1]


def test_an_empty_folder_and_one_answer_without_its_case(tmp_path, capsys):
    status, _, errors = run(capsys, "check", tmp_path)
    assert status == 2 and "must hold a folder of .npy files for each vector" in errors[0]
    np.save(tmp_path / "logits.npy", np.zeros(1))
    status, _, errors = run(capsys, "check", tmp_path)
    assert status == 2 and "say to which vector with --case ID" in errors[0]


def test_an_export_that_exists_is_refused_before_anything_is_written(tmp_path, capsys):
    assert run(capsys, "vectors", "export", tmp_path / "a", "exact")[0] == 0
    status, _, errors = run(capsys, "vectors", "export", tmp_path / "a", "circuits", "exact")
    assert status == 2 and "it exists already" in errors[0]
    assert not (tmp_path / "a" / "circuits").exists()


def test_lists(capsys):
    status, lines, _ = run(capsys, "vectors", "list")
    assert status == 0 and [line for line in lines if line in core()] == list(core())
    _, lines, _ = run(capsys, "vectors", "list", "--json")
    assert [vector["id"] for vector in json.loads("\n".join(lines))] == list(core())
    _, lines, _ = run(capsys, "vectors", "show", "exact", "tokens")
    assert lines == str(core()["exact"].tokens).splitlines()
    _, lines, _ = run(capsys, "vectors", "show", "exact", "loss")
    assert lines == ["40.75000005626759"]                # all its digits
    _, lines, _ = run(capsys, "vectors", "show", "exact")
    assert "  dW_Q             (l, h, e, d) (2, 1, 4, 8)" in lines
    status, lines, _ = run(capsys, "vectors", "verify")
    assert status == 0 and lines == [f"ok    {id}" for id in core()]
