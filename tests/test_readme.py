"""What the READMEs say is so: their Python runs and prints what is shown, and their tables hold."""

import importlib
import json
import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.cli import main
from minicircuits.findings.study import Study, sections
from minicircuits.training.contexts import contexts_of
from minicircuits.training.model_file import Model

ROOT = Path(__file__).parent.parent
NAMES = ["README.md", "minicircuits/README.md", "examples/README.md",
         "minicircuits/testing/README.md", "tests/README.md", "tests/benchmarks/README.md"]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
BLOCK = re.compile(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)


def rows(name, heading):
    """The cells of the first table below a heading, a list for each row."""
    text = TEXTS[name]
    table = text[text.index(f"## {heading}"):].split("\n|", 2)[2].split("\n\n")[0]
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))]
             for row in table.splitlines()]
    return [row for row in found if not set(row[0]) <= set("-")]


@pytest.mark.parametrize("name", [name for name in NAMES if BLOCK.search(TEXTS[name])])
def test_python_runs_and_prints_what_is_shown(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_text.txt").write_bytes((ROOT / "minicircuits" / "notation.py").read_bytes())
    namespace = {}
    for block, shown in BLOCK.findall(TEXTS[name]):
        with redirect_stdout(StringIO()) as printed:
            exec(compile(block, name, "exec"), namespace)
        if shown:
            assert printed.getvalue() == shown


def test_the_first_readme_is_short_and_begins_with_two_commands_and_numbers():
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= 150
    first_screen = text[:text.index("\n## ")]
    for part in "pip install . && minicircuits tour", 'pip install ".[test]" && pytest', "```text":
        assert part in first_screen


def test_its_first_commands_run(monkeypatch, tmp_path, capsys):
    """But for those that take minutes; training stops after two steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_text.txt").write_bytes((ROOT / "minicircuits" / "notation.py").read_bytes())
    model_from_elsewhere(tmp_path)
    block = re.search("```sh\n(.*?)```", TEXTS["README.md"], re.DOTALL)[1]
    lines = [line.partition("  #")[0] for line in block.splitlines()[2:]]
    assert len(lines) >= 4
    for command in " && ".join(lines).split(" && "):
        program, name, *arguments = shlex.split(command)
        assert program == "minicircuits"
        assert main([name, *arguments, *["--steps", "2"] * (name == "train")]) == 0
        assert capsys.readouterr().out
    assert {"report.html", "mine.npz"} < {path.name for path in tmp_path.iterdir()}


def model_from_elsewhere(folder):
    """A model.safetensors of TransformerLens, its model.json, and a tokenizer.json."""
    weights = mc.init_weights(2, 2, 8, 4, 40, 9, "standard", np.random.default_rng(0))
    header, data = {}, b""
    for key, array in mc.to_transformer_lens(weights).items():
        ends = [len(data), len(data) + array.nbytes]
        header[key] = {"dtype": "F64", "shape": array.shape, "data_offsets": ends}
        data += array.tobytes()
    header = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (folder / "model.json").write_text(json.dumps(
        {"normalization_type": None, "positional_embedding_type": "standard"}))
    (folder / "tokenizer.json").write_text(json.dumps(
        {"model": {"type": "BPE", "vocab": {chr(90 + id): id for id in range(40)}, "merges": []},
         "added_tokens": []}))


def test_its_table_over_seeds_is_made(capsys):
    text = str(ROOT / "minicircuits" / "notation.py")
    importlib.import_module("induction_over_seeds").main(
        ["--seeds", "1", "--steps", "1", "--text", text])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 and len(table[1].split()) == 11


def test_the_patterns_it_shows_are_those_of_the_head_written_by_hand():
    block = re.search(r"```text\n(head 0\.0.*?)```", TEXTS["README.md"], re.DOTALL)[1]
    shown = np.array([[int(number) for number in re.findall(r"\b[01]\b", line)]
                      for line in block.splitlines()[1:]], dtype=object)
    pattern = mc.forward(mc.hand_built.induction_by_k_composition(4, 5),
                         [[0, 1, 2, 3, 1]]).pattern
    for i, numbers in enumerate(shown):
        assert numbers == [*pattern[0, 0, 0, i, :i + 1], *pattern[1, 0, 0, i, :i + 1]]


EQUATIONS = rows("minicircuits/README.md", "Equations")


@pytest.mark.parametrize("equation, function, test", [row[:3] for row in EQUATIONS])
def test_equations_are_where_it_says(equation, function, test):
    module, name = function.strip("`").rsplit(".", 1)
    assert hasattr(importlib.import_module(f"minicircuits.{module}"), name)
    path, name = test.strip("`").split("::")
    assert f"\ndef {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8")


def test_every_public_name_is_in_some_readme():
    words = {word for text in TEXTS.values() for word in re.findall(r"\w+", text)}
    assert set(mc.__all__) <= words


def found_in_four_models():
    """All that --json writes of models with 0, 1 and 2 layers, and with biases."""
    rng, text = np.random.default_rng(0), mc.load_text([str(ROOT / "README.md")], None, 16, 300)
    models = [mc.init_weights(L, 2, 8, 4, 300, 16, "standard", rng) for L in (0, 1)]
    models.append(mc.fold_biases(models[1], b_U=np.ones(300)))
    studies = [Study(Model(weights, text.tokenizer, {}), text.contexts(), 0) for weights in models]
    packaged = mc.load_pretrained()
    contexts = contexts_of([("", b"one two three one two three"), ("", b"a b a b a b")],
                           packaged.tokenizer, 128)
    for study in *studies, Study(packaged, contexts, 0):
        found = {}
        for _, finding in sections(study):
            found |= finding
        yield found


def keys_within(finding):
    """The names of fields in a finding; not names of heads, losses, or the four parts."""
    if isinstance(finding, list):
        return {key for one in finding[:1] for key in keys_within(one)}
    if not isinstance(finding, dict):
        return set()
    own = {key for key in finding if key.isidentifier()}
    return own.union(*map(keys_within, finding.values()))


def test_keys_of_json_are_those_it_lists():
    table = {key: cells[1] for cells in rows("minicircuits/README.md", "What `--json`")
             for key in re.findall("`(.*?)`", cells[0])}
    found = list(found_in_four_models())
    assert set().union(*found) == set(table)
    for finding in found:
        for key in finding.keys() - {"losses", "recorded"}:
            written = {*re.findall("`(.*?)`", table[key]), "induction_head", "previous_token_head"}
            assert keys_within(finding[key]) <= written, key


def test_there_are_enough_equations():
    assert len(EQUATIONS) >= 25


@pytest.fixture(scope="module")
def namespace():
    """What the answers are written for: a trained model, and tokens that repeat."""
    model, rng = mc.load_pretrained(), np.random.default_rng(0)
    weights, start = model.weights, model.tokenizer.start
    tokens, other_tokens = (mc.random_blocks(weights.d_vocab, 8, 2, 3, start, rng)
                            for _ in range(2))
    return dict(mc=mc, weights=weights, tokens=tokens, other_tokens=other_tokens, rng=rng,
                start=start, pattern=mc.forward(weights, tokens).pattern,
                token_probabilities=np.full(weights.d_vocab, 1 / weights.d_vocab))


@pytest.mark.parametrize("question, answer", rows("README.md", "Ask it"))
def test_each_question_has_an_answer(question, answer, namespace):
    calls = re.findall(r"`([^`]+)`", answer)
    assert calls
    for call in calls:
        assert eval(call, dict(namespace)) is not None


@pytest.mark.parametrize("name", NAMES)
def test_files_and_links_it_names_are_there(name):
    here, text = (ROOT / name).parent, TEXTS[name]
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (here / link).exists(), link
    for file in re.findall(r"`((?:examples|tests)/[\w/.]+\.\w+)`", text):
        assert (ROOT / file).exists(), file
    for chapter in re.findall(r"`(\d\d_\w+\.py)`", text):
        assert (ROOT / "examples" / chapter).exists(), chapter
