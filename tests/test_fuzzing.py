"""Every loader on thousands of mutated files: its one documented error escapes, nothing else.

`.npz` and JSON: tests/test_files.py; `.safetensors`: tests/test_safetensors.py.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from minicircuits import files
from minicircuits.files import FileError, disk
from minicircuits.testing import exchange
from minicircuits.testing.vectors import core
from minicircuits.training.model_file import Model, load_model, model_to_arrays
from minicircuits.training.tokenizer import train_tokenizer
from tests.draws import random_weights
from tests.test_files import mutated, npy


def refused(read, seed, contents, rounds):
    """How many of `rounds` mutants of these contents `read` refuses, each in one line."""
    rng, count = random.Random(seed), 0
    for _ in range(rounds):
        try:
            read(mutated(rng, rng.choice(contents)))
        except FileError as error:
            assert len(str(error).splitlines()) == 1
            count += 1
    return count


def test_npy(monkeypatch):
    monkeypatch.setattr(disk, "read_bytes", lambda data, largest: data)
    contents = [npy(np.zeros((2, 3))), npy(np.float32(1)), npy(np.zeros((0, 3), int)),
                npy(np.ones(4, bool))]
    assert 1000 < refused(files.read_npy, 0, contents, 2000) < 2000


@pytest.mark.parametrize("member", ["merges", "metadata", "positions"])
def test_models_and_tokenizers(member, monkeypatch):
    """Members that are arrays, under right names, with something else in them."""
    tokenizer = train_tokenizer(b"the theme of the thesis " * 20, 270)
    weights = random_weights(np.random.default_rng(0), n_layers=1, n_heads=1,
                             d_vocab=tokenizer.d_vocab)
    model = Model(weights, tokenizer, {"seed": 1, "loss": [2.5, None]})
    arrays = model_to_arrays("x", model)
    inside = arrays[member]

    def read(data):
        data = data[:len(data) // inside.itemsize * inside.itemsize]
        shape = (-1, *inside.shape[1:])
        content = np.frombuffer(data, inside.dtype)
        if content.size % np.prod(inside.shape[1:], dtype=int) == 0:
            content = content.reshape(shape)
        monkeypatch.setattr(files, "read_arrays", lambda _: {**arrays, member: content})
        return load_model("x")

    assert 500 < refused(read, 1, [inside.tobytes()], 1000) <= 1000


@pytest.mark.parametrize("work", ["verify_case", "read_answer"])
def test_cases_and_answers(work, tmp_path, monkeypatch):
    """Mutants of each file of a case in turn."""
    vector = core()["ordinary-shortformer"]
    exchange.write_case(tmp_path / "case", vector)
    contents = {path.name: path.read_bytes() for path in (tmp_path / "case").iterdir()}
    rng = random.Random(2)

    def read(data):
        def read_bytes(path, largest=None):
            path = Path(path)
            return data if path.name == damaged else contents.get(path.name, b"")

        monkeypatch.setattr(disk, "read_bytes", read_bytes)
        monkeypatch.setattr(files, "read_bytes", read_bytes)
        if work == "verify_case":
            return exchange.verify_case(tmp_path / "case")
        return exchange.read_answer(tmp_path / "case", vector)

    count = 0
    for _ in range(60):
        damaged = ("manifest.json" if work == "verify_case" else
                   rng.choice(sorted(contents.keys() - {"manifest.json"})))
        count += refused(read, rng.random(), [contents[damaged]], 10)
    assert 200 < count <= 600
