"""Mutants of every file of an exported case: one error escapes, in one line, and nothing else.

Other files: tests/test_files.py, test_safetensors.py, test_open_model.py, and in training/
test_model_file.py and test_vocabulary.py.
"""

import random
from pathlib import Path

import pytest

from minicircuits import files
from minicircuits.files import FileError, disk
from minicircuits.testing import exchange
from minicircuits.testing.vectors import core
from tests.test_files import mutated


@pytest.mark.parametrize("work", ["verify_case", "read_answer"])
def test_cases_and_answers(work, tmp_path, monkeypatch):
    vector, rng, refused = core()["ordinary-shortformer"], random.Random(2), 0
    exchange.write_case(tmp_path / "case", vector)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "case").iterdir()}
    names = ["manifest.json"] if work == "verify_case" else sorted(whole.keys() - {"manifest.json"})
    for _ in range(600):
        name = rng.choice(names)
        contents = {**whole, name: mutated(rng, whole[name])}
        for module in (files, disk):
            monkeypatch.setattr(module, "read_bytes",
                                lambda path, largest=None: contents.get(Path(path).name, b""))
        try:
            if work == "verify_case":
                exchange.verify_case(tmp_path / "case")
            else:
                exchange.read_answer(tmp_path / "case", vector)
        except FileError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert 200 < refused <= 600
