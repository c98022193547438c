"""Worked example: a small PyTorch implementation, checked; and one with a bug, found.

Needs the extra `peers`; the second stage of `.ci/run` has it.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minicircuits
from minicircuits.notation import POSITIONS
from minicircuits.testing import assert_matches, broken_invariants, check
from minicircuits.testing.steps import AXES, BIAS_LETTERS, CIRCUITS, FORWARD
from minicircuits.testing.vectors import core, drawn

pytestmark = pytest.mark.extra
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(minicircuits.__file__).parents[1])}
torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None


def attention_only(W, positions, tokens, masked=1, kept=None):
    """Somebody's model. `kept` collects what it computes on the way, by name."""
    T, kept = tokens.shape[1], {} if kept is None else kept
    x, p = W["W_E"].T[tokens], 0
    if positions == "standard":
        x = x + W["W_pos"].T[:T]
    elif positions == "shortformer":
        p = W["W_pos"].T[:T]
    kept |= {name: [] for name in ("q", "k", "v", "scores", "pattern", "z")} | {"residual": [x]}
    future = torch.ones(T, T).triu(masked).bool()
    for W_Q, W_K, W_V, W_O in zip(W["W_Q"], W["W_K"], W["W_V"], W["W_O"]):
        q, k = ((x + p)[:, None] @ M.mT for M in (W_Q, W_K))
        v = x[:, None] @ W_V.mT
        scores = q @ k.mT / W_Q.shape[1] ** 0.5
        pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
        z = pattern @ v
        x = x + (z @ W_O.mT).sum(1)
        for name, tensor in zip(kept, (q, k, v, scores, pattern, z, x)):
            kept[name].append(tensor)
    kept["logits"] = x @ W["W_U"].T
    return kept["logits"]


def candidate(weights, tokens, masked=1, every=False):
    """Its tensors: outputs and the weights' gradients, or `every` intermediate and gradient."""
    W = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    tokens, kept = torch.tensor(tokens, dtype=torch.int64), {}
    logits = attention_only(W, weights.positions, tokens, masked, kept)
    if tokens.shape[1] == 1:
        return {"logits": logits}
    for tensor in [logits, *(t for name in FORWARD[:-1] for t in kept[name])]:
        tensor.retain_grad()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    found = {"loss": loss, "logits": logits}
    found |= {f"d{name}": tensor.grad for name, tensor in W.items() if tensor.grad is not None}
    if every:
        found["dlogits"] = logits.grad
        for name in FORWARD[:-1]:
            if kept[name]:
                found[name] = torch.stack(kept[name])
                found[f"d{name}"] = torch.stack([tensor.grad for tensor in kept[name]])
    return found


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_correct_model_is_never_flagged(precision, every, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_matches(lambda *case: candidate(*case, every=every), precision,
                       [*core().values(), *map(drawn, range(1, 60))])
    finally:
        torch.set_num_threads(before)


def test_every_tensor_is_checked_and_the_bug_is_named():
    report = check(core()["ordinary-shortformer"], lambda *case: candidate(*case, every=True))
    assert set(report.not_supplied) == set(CIRCUITS)
    others = {*CIRCUITS, "normalized", *(f"d{name}" for name in BIAS_LETTERS)}
    assert {label.partition("[")[0] for label in report.checked} == AXES.keys() - others
    wrong = check(core()["ordinary-shortformer"], lambda *case: candidate(
        *case, masked=2, every=True))
    assert wrong.difference.tensor == "pattern[0]"
    assert wrong.looks_like == ("mask_one_ahead",)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_hold_without_a_reference(positions):
    vector = next(v for v in map(drawn, range(1, 99)) if v.weights.positions == positions
                  and v.weights.n_layers == 2 and v.weights.d_head > 2)
    assert broken_invariants(vector.weights, vector.tokens,
                             candidate(vector.weights, vector.tokens)) == []


FIRST_CHECK = """
import torch
from minicircuits.testing import assert_matches
from mine import MyModel

def candidate(weights, tokens):
    model = MyModel(**dict(weights.items()), positions=weights.positions)
    return {"logits": model(torch.tensor(tokens).long())}

assert_matches(candidate)
"""
MINE = """
import torch

class MyModel(torch.nn.Module):
    def __init__(self, positions, **weights):
        super().__init__()
        self.positions = positions
        for name, array in weights.items():
            setattr(self, name, torch.nn.Parameter(torch.tensor(array)))

    def forward(self, tokens):
        x, p, T = self.W_E.T[tokens], 0, tokens.shape[1]
        if self.positions != "none":
            p = self.W_pos.T[:T]
        if self.positions == "standard":
            x, p = x + p, 0
        future = torch.ones(T, T).triu(1).bool()
        for W_Q, W_K, W_V, W_O in zip(self.W_Q, self.W_K, self.W_V, self.W_O):
            q, k, v = (x + p)[:, None] @ W_Q.mT, (x + p)[:, None] @ W_K.mT, x[:, None] @ W_V.mT
            scores = (q @ k.mT / W_Q.shape[1] ** 0.5).masked_fill(future, -torch.inf)
            x = x + (scores.softmax(-1) @ v @ W_O.mT).sum(1)
        return x @ self.W_U.T
"""


def test_a_first_check_takes_under_ten_lines(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "first.py").write_text(FIRST_CHECK)
    assert len([line for line in FIRST_CHECK.splitlines() if line.strip()]) < 10
    done = subprocess.run([sys.executable, "first.py"], cwd=tmp_path, capture_output=True,
                          text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("31 cases, 0 wrong\nnot supplied, so not checked: residual, q")


def test_one_command_finds_a_planted_bug(tmp_path):
    """A program that reads a case and writes its logits, no more; its mask is one off."""
    (tmp_path / "mine.py").write_text(MINE.replace("triu(1)", "triu(2)"))
    (tmp_path / "run.py").write_text("""
import json, sys
import numpy as np
import torch
from mine import MyModel
case, out = sys.argv[1:]
manifest = json.load(open(case + "/manifest.json"))
arrays = {t["name"]: np.load(case + "/" + t["file"]) for t in manifest["tensors"]}
tokens = torch.tensor(arrays.pop("tokens")).long()
logits = MyModel(manifest["positions"], **arrays)(tokens)
np.save(out + "/logits.npy", logits.detach().numpy())
""")
    done = subprocess.run(
        [sys.executable, "-m", "minicircuits", "check", "--json", "--case", "ordinary-shortformer",
         "--program", f"'{sys.executable}' run.py {{case}} {{out}}"],
        cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    case, = json.loads(done.stdout)["cases"]
    assert case["difference"]["step"] == "logits" and case["difference"]["missing"] == ["residual"]
    assert case["difference"]["looks_like"] == ["mask_one_ahead"]
