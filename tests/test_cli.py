"""The command line as its user meets it: what it prints, what it leaves, how it refuses."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.cli import main
from minicircuits.commands import model, tour     # noqa: F401: so that what they bind is patched
from minicircuits.findings import effects, study
from minicircuits.model.transformer import layers
from minicircuits.terminal.sections import bigram_lines
from minicircuits.training.model_file import PRETRAINED, load_model, log_of, save_model
from minicircuits.training.recipe import SHAPE, Recipe
from minicircuits.training.tokenizer import D_VOCAB, train_tokenizer

PACKAGE = Path(mc.__file__).parent          # a text that is always there
TEXT = PACKAGE / "circuits"                 # a smaller one


class Done(NamedTuple):
    folder: Path
    status: int
    lines: list         # printed
    json: dict
    passes: list        # for each forward pass: (digest of the weights, set of its contexts)


def run(folder, *arguments):
    """A command in a folder, with --json, and every forward pass on record."""
    passes, printed = [], StringIO()

    def recorded(function):
        def call(weights, tokens):
            digest = hash(tuple(W.tobytes() for _, W in weights.items()))
            passes.append((digest, [tuple(context) for context in np.asarray(tokens).tolist()]))
            return function(weights, tokens)
        return call

    with pytest.MonkeyPatch.context() as patch, chdir(folder), redirect_stdout(printed):
        patch.setattr(study, "fit_zero_layer", lambda *_: 2.5)   # slow, and tested beside it
        for name, module in list(sys.modules.items()):           # wherever it is bound
            if name.startswith("minicircuits."):
                for attribute, value in list(vars(module).items()):
                    if value is layers:
                        patch.setattr(module, attribute, recorded(layers))
        status = main([*map(str, arguments), "--json", f"{arguments[0]}.json"])
    return Done(folder, status, printed.getvalue().splitlines(),
                json.loads((folder / f"{arguments[0]}.json").read_text()), passes)


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """A short tour, once."""
    return run(tmp_path_factory.mktemp("toured"), "tour", "--text", TEXT, "--steps", 3,
               "-o", "models")


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """`minicircuits report` of the model that comes along, once: it prints what `heads` does."""
    return run(tmp_path_factory.mktemp("packaged"), "report")


@pytest.fixture(scope="module")
def one_layer(toured):
    """`minicircuits heads` of the tour's one layer, on another text."""
    return run(toured.folder, "heads", "models/one_layer.npz", "--text", PACKAGE / "plain")


@pytest.fixture(params=["toured", "packaged", "one_layer"])
def done(request):
    return request.getfixturevalue(request.param)


def test_it_ends_well_and_prints_80_columns(done):
    """But for a command to type again, which is as long as the paths in it."""
    assert done.status == 0
    assert [line for line in done.lines
            if len(line) > 80 and not line.startswith("    minicircuits ")] == []


def test_no_context_goes_through_a_model_twice(done):
    """A context, not only a batch of them: 16 contexts of 32 are no reason to run again."""
    seen = [(weights, context) for weights, contexts in done.passes for context in contexts]
    assert len(seen) == len(set(seen)) > 50


def test_words_of_any_length_stay_within_80_columns():
    row = {"token": 0, "model": [[0, 0.12]] * 3, "text": [[0, 0.34]] * 3}
    lines = bigram_lines({"next_tokens": [row], "training_loss": 6.5, "fitted_loss": 2.25},
                         lambda token: "␣characteristically")
    assert max(len(line) for text in lines for line in text.split("\n")) <= 80
    assert lines[1].split() == ["␣characterist…", "the", "model", *["␣charact…", "0.12"] * 3]


def test_how_many_passes_a_report_takes(packaged):
    """The sample, in two batches; START and random blocks of three lengths, for all scores, for
    the split; two blocks for each of three models; and the text without either of two heads."""
    assert len(packaged.passes) == 2 + 3 + 1 + 1 + 3 * 2 + 2
    assert len({weights for weights, _ in packaged.passes}) == 3


def test_the_tour_leaves_its_files_and_figures_add_up(toured):
    assert sorted(path.name for path in (toured.folder / "models").iterdir()) == [
        "one_layer.npz", "report.html", "two_layers.npz", "zero_layers.npz"]
    for name in ("zero_layers", "one_layer", "two_layers"):
        errors = toured.json[name]["exactness"]
        assert max(errors["logits"], errors["scores"], errors["patterns"]) <= 1e-12


def test_what_an_induction_head_does_adds_up(packaged):
    prediction = packaged.json["prediction"]
    assert prediction["sum"] == pytest.approx(prediction["logit"], rel=1e-12)
    parts = packaged.json["split"]["parts"]
    assert sum(parts[name]["stripe"] for name in ("neither", "Q", "K", "both")) == pytest.approx(
        parts["total"]["stripe"], rel=1e-12)


def test_no_head_is_named_that_is_none(toured, packaged):
    """After three steps of training, and in the model that comes along."""
    for found, name in (toured.json["two_layers"], None), (packaged.json, [1, 3]):
        assert found["induction_head"] == name
        for key in "split", "removed", "prediction":
            assert (key in found) == (name is not None)
    assert any(line.startswith("  No head is an induction head: attention to what followed")
               for line in toured.lines)
    assert not any("← carries" in line for line in toured.lines)


def test_model_files_say_nothing_of_this_machine(toured):
    model = load_model(toured.folder / "models" / "two_layers.npz")
    assert {"python", "numpy", "scipy", "seed", "text_sha256", "recipe", "log"} < set(
        model.metadata)
    data = (toured.folder / "models" / "two_layers.npz").read_bytes()
    for secret in (str(toured.folder), str(PACKAGE), Path.home().name):
        assert len(secret) < 5 or secret.encode() not in data


@pytest.mark.parametrize("command", [["train"], ["report"]])
def test_an_output_without_a_name_is_refused_before_any_work(command, capsys):
    assert main([*command, "-o", ""]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("minicircuits: cannot write ''")


def test_where_output_has_no_code_for_a_character_it_is_a_question_mark(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main(["tour", "--help"])
    sys.stdout.seek(0)
    assert ended.value.code == 0 and "tour-2, ? that" in " ".join(
        sys.stdout.read().split())


def test_heads_of_a_model_of_your_own(one_layer):
    assert any(line.startswith("  0.3  ") for line in one_layer.lines)
    assert set(one_layer.json) == {"losses", "held_out", "recorded", "exactness", "blocks", "heads"}
    assert set(one_layer.json["losses"]) == {"this 1-layer model"}
    assert any("This model was trained on another text." in line for line in one_layer.lines)


def test_on_the_text_of_its_training_it_shows_what_was_held_out(toured):
    (toured.folder / "again").mkdir()
    found = run(toured.folder / "again", "heads", "../models/one_layer.npz", "--text", TEXT)
    assert any("its training text that was held out" in line for line in found.lines)
    assert found.json["losses"] == toured.json["one_layer"]["losses"]
    assert found.json["heads"] == toured.json["one_layer"]["heads"]


def test_the_model_that_comes_along(packaged):
    assert any("comes with this package" in line for line in packaged.lines)
    found = packaged.json
    layer, head = found["induction_head"]
    assert any(line.startswith(f"  {layer}.{head}  ") for line in packaged.lines)
    assert mc.load_pretrained().metadata["baselines"].items() < found["recorded"].items()
    assert list(found["losses"]) == ["this 2-layer model"] and len(found["recorded"]) == 3
    assert [row["induction"] for row in found["heads"]
            if (row["layer"], row["head"]) == (layer, head)] == [
                max(row["induction"] for row in found["heads"])]


def test_the_page_of_a_model_of_the_tours_shape_is_at_most_4_mb(packaged):
    assert 1e6 < (packaged.folder / "report.html").stat().st_size <= 4e6


def test_a_sentence(tmp_path):
    done = run(tmp_path, "report", "--sentence", "Potter can fly on a Nimbus 2000 to Hogwarts")
    assert done.status == 0 and max(map(len, done.lines)) <= 80
    assert "on your sentence: 23 tokens in 1" in done.lines[1]
    assert "by pos" not in next(line for line in done.lines if line.startswith("  head  "))
    assert len(done.json["prediction"]["context"]) <= 24


def test_a_model_among_the_texts_is_the_model(toured, monkeypatch, capsys):
    """In `--text FILE MODEL` it looks like a text; and "-" is standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one, two, three")))
    monkeypatch.chdir(toured.folder)
    assert main(["heads", "--text", "-", str(PACKAGE / "cli.py"), "models/one_layer.npz"]) == 0
    assert "models/one_layer.npz, on 2 texts: " in capsys.readouterr().out
    assert "must name a text" in refused(capsys, "heads", "--text", "models/one_layer.npz")


def test_texts_that_are_none(tmp_path, capsys):
    for name, content, complaint in (("empty", b"", "empty"), ("binary", b"a\0b", "binary"),
                                     ("utf16", "hey".encode("utf-16"), "iconv -f UTF-16")):
        (tmp_path / name).write_bytes(content)
        assert complaint in refused(capsys, "heads", "--text", tmp_path / name)
    (tmp_path / "empty").unlink()
    assert str(tmp_path / "utf16") in refused(capsys, "heads", "--text", tmp_path)
    assert "at least one token" in refused(capsys, "heads", "--sentence", "")
    refused(capsys, "heads", "--sentence", "a", "--text", tmp_path / "empty")


def test_a_sum_that_is_not_exact_ends_in_status_1(tmp_path, monkeypatch):
    monkeypatch.setitem(effects.EXACT, "float64", 1e-20)
    weights = mc.init_weights(1, 1, 8, 4, 257, 95, "shortformer", np.random.default_rng(0))
    save_model(tmp_path / "small.npz", weights, train_tokenizer(b"", 257), {})
    done = run(tmp_path, "heads", "small.npz", "--text", PACKAGE / "plain")
    assert done.status == 1 and "NOT EXACT" in done.lines[-1]


def test_without_a_command_it_shows_what_there_is(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in ("tour", "train", "heads", "report", "vectors", "check", "mutants"):
        assert f"\n    {command} " in shown


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
                            (binary, "binary"), (short, "got 0 of 9 bytes: about 8 kb are")):
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
    assert "a file of its own" in refused(capsys, "train", "--text", PACKAGE, "--force",
                                          "-o", there, "--json", there)
    assert there.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


def test_no_output_is_written_over_another_nor_over_the_model(tmp_path, capsys):
    path = tmp_path / "model.npz"
    path.write_bytes(PRETRAINED.read_bytes())
    for arguments in (["train", "--text", TEXT, "-o", path], ["heads", path],
                      ["report", path, "-o", tmp_path / "x.html"]):
        assert "file of its own" in refused(capsys, *arguments, "--json", path, "--force")
    assert "file of its own" in refused(capsys, "tour", "--text", TEXT, "-o", tmp_path / "t",
                                        "--json", tmp_path / "t" / "report.html")
    assert path.read_bytes() == PRETRAINED.read_bytes() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("output, status, says", [
    ("> /dev/full", 2, b"minicircuits: cannot write what was found: .*\n"), (">&-", 0, b"")])
def test_standard_output_that_takes_nothing(output, status, says):
    if not os.path.exists("/dev/full"):
        pytest.skip("no such device here")
    ran = subprocess.run(f"{sys.executable} -m minicircuits vectors list {output}", shell=True,
                         stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": PACKAGE.parent})
    assert ran.returncode == status and re.fullmatch(says, ran.stderr)


@pytest.mark.parametrize("log", [None, "x", 3, [[1]], [{"step": None}], [{"step": 1}]])
def test_what_a_stranger_says_of_training_is_not_shown(tmp_path, log):
    weights, tokenizer, known = load_model(PRETRAINED)
    save_model(tmp_path / "m.npz", weights, tokenizer, {"log": log, "kept_step": "a"})
    assert log_of(load_model(tmp_path / "m.npz").metadata) == [] != log_of(known) == known["log"]


def test_a_page_of_a_strangers_model(tmp_path):
    weights = mc.init_weights(1, 1, 4, 2, 257, 8, "standard", np.random.default_rng(0))
    for name, metadata in ("null", {"log": None}), ("text", {"log": "x", "kept_step": []}):
        path = tmp_path / f"{name}.npz"
        save_model(path, weights, train_tokenizer(b"", 257), metadata)
        assert main(["report", str(path), "--sentence", "abab", "-o", f"{path}.html"]) == 0


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
                      ["tour", "--steps", "many"], ["nothing"]):
        refused(capsys, *arguments)


def test_sizes_that_do_not_fit_together_are_refused_before_training(tmp_path, capsys):
    output = tmp_path / "model.npz"
    for arguments, says in (
            (["--vocabulary", 256], "d_vocab must be from 257"),
            (["--context", 1], "n_ctx must be at least 2"),
            (["--context", 100_000], "about .* kB are needed"),
            (["--d-model", 10 ** 6], "at most 134,217,728 parameters"),
            (["--heads", 0], "from 1 on"), (["--muon-rate", "inf"], "muon_rate must be float"),
            (["--positions", "rotary"], "invalid choice"),
            (["--from", PRETRAINED, "--d-head", 4], "give no others beside --from"),
            (["--from", PRETRAINED, "--context", 64], "give no others beside --from"),
            (["--from", PRETRAINED, "--resume"], "not allowed with")):
        assert re.search(says, refused(capsys, "train", "--text", TEXT, "-o", output, *arguments))
    assert not list(tmp_path.iterdir())


def test_defaults_in_the_help_are_those_of_the_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    recipe = asdict(Recipe())
    for option, default in (
            *((name, recipe[name]) for name in
              ("steps", "batch", "adamw_rate", "muon_rate", "qk_speed")),
            ("heads", SHAPE["n_heads"]), ("d-model", SHAPE["d_model"]), ("vocabulary", D_VOCAB),
            ("d-head", SHAPE["d_head"]), ("context", SHAPE["n_ctx"])):
        option = option.replace("_", "-")
        assert re.search(rf"--{option} \w+ [^()]*\(default {default}\)", shown), option
    assert f"(default {SHAPE['positions']})" in shown


def test_a_run_without_positions_goes_on_in_its_contexts(tmp_path, monkeypatch, capsys):
    """Its weights do not tell n_ctx: the command to go on does, and so does the finished file."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_bytes((PACKAGE / "cli.py").read_bytes()[:2500])
    sizes = ["--heads", "1", "--d-model", "8", "--d-head", "4", "--context", "9",
             "--vocabulary", "260", "--positions", "none", "--layers", "1"]

    def interrupted(*arguments):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr("minicircuits.runs.log_line", interrupted)
        assert main(["train", "--text", "text", "-o", "m.npz", "--steps", "2", *sizes]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "    minicircuits train -o m.npz --resume --context 9 --text text"
    assert "--resume goes on" in refused(capsys, "train", "--text", "text", "-o", "m.npz", *sizes)
    assert main(["train", "-o", "m.npz", "--resume", "--text", "text"]) == 0
    out = capsys.readouterr().out
    assert "    minicircuits sample '' m.npz\n" in out
    assert "worse than counting single tokens" in out
    assert main(["heads", "m.npz", "--text", "text"]) == 0
    assert "training text that was held out" in capsys.readouterr().out
    assert main(["train", "-o", "n.npz", "--from", "m.npz", "--text", "text", "--steps", "1"]) == 0
    assert load_model("n.npz").metadata["recipe"]["n_ctx"] == 9


def test_without_its_package_a_safetensors_is_refused_before_training(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minicircuits.files.tensors.safetensors", None)
    assert "needs the package" in refused(capsys, "train", "--text", TEXT, "--steps", 1,
                                          "-o", tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_model_of_ones_own_sizes_goes_on_and_is_looked_at(tmp_path, monkeypatch, capsys):
    """Contexts of 4 have no room for two blocks; another text and more steps; quoted again."""
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "my text.txt"
    text.write_bytes((PACKAGE / "cli.py").read_bytes())
    sizes = ["--heads", "1", "--d-model", "8", "--d-head", "4", "--context", "4",
             "--vocabulary", "260", "--steps", "2"]
    assert main(["train", "--text", str(TEXT), "-o", "small.npz", *sizes]) == 0
    assert main(["train", "--text", str(text), "-o", "further.npz", "--from", "small.npz",
                 "--steps", "1", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert f"minicircuits heads further.npz --text '{text}' --seed 3" in out
    model, before = load_model("further.npz"), load_model("small.npz")
    assert (model.weights.n_ctx, model.weights.d_vocab, model.tokenizer) == (
        4, 260, before.tokenizer)
    assert model.metadata["from"] == before.metadata
    assert main(["report", "further.npz", "--text", str(text)]) == 0
    shown = capsys.readouterr().out
    assert "Contexts are too short for random tokens that come twice." in shown
    assert "induct " not in shown and "is an induction head" not in shown


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


def test_the_first_line_comes_before_the_work(tmp_path, monkeypatch, capsys):
    """What is read, and on what a model is looked at, is said before it takes its time."""
    def interrupted(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(model, "load_text", interrupted)
    assert main(["train", "-o", str(tmp_path / "model.npz")]) == 130
    assert "The text is read and cut into tokens" in capsys.readouterr().out
    monkeypatch.setattr(model, "Study", interrupted)
    assert main(["heads", "--sentence", "one two"]) == 130
    assert "on your sentence: 4 tokens in 1 context." in capsys.readouterr().out
