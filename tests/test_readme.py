"""What the README says runs: its Python blocks, its tables of functions, tests and questions."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading):
    """The cells of the first table below a heading, a list for each row."""
    table = README[README.index(f"## {heading}"):].split("\n|", 2)[2].split("\n\n")[0]
    found = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))]
             for row in table.splitlines()]
    return [row for row in found if not set(row[0]) <= set("-")]


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_the_two_commands_and_the_claim_come_first():
    first_screen = README[:README.index("\n## ")]
    for line in ("pip install . && minicircuits tour", 'pip install ".[test]" && pytest',
                 "mc.expand_logits", "mc.rebuild", "examples/four_parts.svg"):
        assert line in first_screen


@pytest.mark.parametrize("equation, function, test", [row[:3] for row in rows("Equations")])
def test_equations_are_where_it_says(equation, function, test):
    module, name = function.strip("`").rsplit(".", 1)
    assert hasattr(importlib.import_module(f"minicircuits.{module}"), name)
    path, name = test.strip("`").split("::")
    spec = importlib.util.spec_from_file_location("a_test", ROOT / "tests" / path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    assert callable(getattr(found, name))


def test_there_are_enough_equations():
    assert len(rows("Equations")) >= 20


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


@pytest.mark.parametrize("question, answer", rows("Find something out"))
def test_each_question_has_an_answer(question, answer, namespace):
    calls = re.findall(r"`([^`]+)`", answer)
    assert calls
    for call in calls:
        assert eval(call, dict(namespace)) is not None


def test_files_it_names_are_there():
    for name in re.findall(r"\((examples/[^)]+)\)|`((?:examples|tests)/[\w/.]+\.\w+)`", README):
        assert (ROOT / "".join(name)).exists(), name
    for name in re.findall(r"`(\d\d_\w+\.py)`", README):
        assert (ROOT / "examples" / name).exists(), name
