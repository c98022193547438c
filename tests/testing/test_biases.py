"""Every vector with biases: right candidates pass, on any of the ways that biases may go."""

import json
import shutil
from functools import partial

import numpy as np
import pytest

from minicircuits.circuits.biases import fold_biases
from minicircuits.cli import main
from minicircuits.notation import relative_error
from minicircuits.plain import model as plain
from minicircuits.testing import assert_matches, check, vectors
from minicircuits.testing.mutants import candidate, with_biases
from minicircuits.testing.steps import CIRCUITS
from tests.testing.candidates import bfloat16, in_low_precision, model, outputs, tf32

CASES = [*vectors.cases(drawn=5, biases=True),
         *vectors.cases("gpt2", drawn=3, biases=True)[3:9:2]]
ORDINARY = vectors.find("ordinary-standard", biases=True)
folded = partial(with_biases, fold_biases)


def by_itself(weights, tokens, biases, late=False):
    """One context at a time, in loops over layers and heads; `late` mixes first, then adds b_V."""
    W, b, T = dict(weights.items()), biases, tokens.shape[1]
    names = ("pattern", "z", "residual", "logits", *(() if late else ("q", "k", "v", "scores")))
    found = {name: [] for name in names}
    for context in tokens:
        x = W["W_E"].T[context]
        p = W["W_pos"].T[:T] if "W_pos" in W else 0 * x
        x, y = (x + p, 0 * p) if weights.positions == "standard" else (x, p)
        acts = {name: [] for name in ("q", "k", "v", "scores", "pattern", "z")}
        acts["residual"] = [x]
        for n in range(weights.n_layers):
            heads, out = {name: [] for name in acts}, x + b["b_O"][n]
            for h in range(weights.n_heads):
                q = (x + y) @ W["W_Q"][n, h].T + b["b_Q"][n, h]
                k = (x + y) @ W["W_K"][n, h].T + b["b_K"][n, h]
                v = x @ W["W_V"][n, h].T + (0 if late else b["b_V"][n, h])
                s = q @ k.T / np.sqrt(weights.d_head).astype(x.dtype)
                A = np.where(np.tri(T, dtype=bool), s, -np.inf)
                A = np.exp(A - A.max(-1, keepdims=True))
                A /= A.sum(-1, keepdims=True)
                z = A @ v + (b["b_V"][n, h] if late else 0)
                out = out + z @ W["W_O"][n, h].T
                for name, array in zip(heads, (q, k, v, s, A, z)):
                    heads[name].append(array)
            x = out
            for name in heads:
                acts[name].append(x if name == "residual" else heads[name])
        acts["logits"] = x @ W["W_U"].T + b["b_U"]
        for name in found:
            found[name].append(acts[name])
    found = {name: np.array(arrays) for name, arrays in found.items()}
    return {name: array if name == "logits" else np.moveaxis(array, 0, 1)
            for name, array in found.items() if weights.n_layers or name in ("residual", "logits")}


def gradients(weights, tokens, biases):
    """Logits, loss and the gradients of weights and biases alone, b_K's as the 0 that it is."""
    found = outputs(weights, tokens, biases, of=partial(folded, model))
    return found | ({"db_K": 0 * found["db_K"]} if "db_K" in found else {})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}-{case.shape}")
def test_right_candidates_pass(case):
    """By the steps themselves, folded, and with b_V added after mixing, as rows sum to 1."""
    for precision in ("float64", "float32"):
        late, whole = partial(by_itself, late=True), partial(folded, model)
        for right in by_itself, late, gradients, whole:
            report = check(case, right, precision)
            assert report, f"{precision} {report}"
    for precision, rounded in (("tf32", tf32), ("bfloat16", bfloat16)):
        case_32 = {name: b.astype("float32") for name, b in case.biases.items()}
        low = folded(in_low_precision(rounded), case.weights.astype("float32"), case.tokens,
                     case_32)
        assert check(case, low, precision), precision


def test_the_loops_on_folded_weights_agree():
    """On all tensors of the table with biases, and none more, to 1e-12."""
    for id in "one-token", "two-tokens", "ordinary-shortformer", "ordinary-standard":
        case = vectors.find(id, biases=True)
        loops, table = folded(plain.tensors, *inputs(case)), case.reference.arrays()
        assert loops.keys() == table.keys() and {*table} & {*CIRCUITS} == set()
        for name in table:
            assert loops[name].shape == table[name].shape
            assert relative_error(loops[name], table[name], max(1, abs(table[name]).max())) < 1e-12


def inputs(case):
    return case.weights, case.tokens, case.biases


def test_a_bias_that_is_forgotten_is_named(capsys):
    """b_K alone changes no pattern, since q_i · b_K is the same for all j: only k and scores."""
    for bias, tensor in dict(b_Q="q[0]", b_V="v[0]", b_O="residual[1]", b_U="logits").items():
        forgets = candidate(f"{bias}_missing")
        assert check(ORDINARY, forgets(*inputs(ORDINARY))).difference.tensor == tensor
        with pytest.raises(AssertionError, match=f"matches `{bias}_missing`"):
            assert_matches(forgets, cases=[ORDINARY])
    without_b_K = folded(model, *inputs(ORDINARY)[:2], ORDINARY.biases | {
        "b_K": 0 * ORDINARY.biases["b_K"]})
    assert check(ORDINARY, without_b_K).difference.tensor == "k[0]"
    assert check(ORDINARY, {name: without_b_K[name] for name in ("logits", "loss", "dW_E")})
    assert_matches(outputs, cases=[vectors.find("ordinary-standard")])


def test_biases_are_given_as_a_copy():
    def writes(weights, tokens, biases):
        found = folded(model, weights, tokens, biases)
        biases["b_O"] += 1
        return found
    assert check(ORDINARY, writes).note == "it wrote to its argument b_O"


@pytest.mark.parametrize("convention", ["paper", "transformer_lens"])
@pytest.mark.parametrize("shape", [[], ["--shape", "gpt2", "--tied"]])
def test_a_program_gets_biases_as_files(tmp_path, capsys, convention, shape):
    """Exported, answered by what stands there, checked."""
    options = ["--biases", "--convention", convention, *shape]
    assert main(["vectors", "export", str(tmp_path / "cases"), "ordinary-standard", *options]) == 0
    case = tmp_path / "cases" / "ordinary-standard"
    manifest = json.loads((case / "manifest.json").read_text())
    given = {tensor["name"] for tensor in manifest["tensors"] if tensor["role"] == "given"}
    b_Q = "b_Q" if convention == "paper" else "blocks.0.attn.b_Q"
    assert manifest["biases"] and b_Q in given
    answers = tmp_path / "answers" / "ordinary-standard"
    answers.mkdir(parents=True)
    for tensor in manifest["tensors"]:
        if tensor["role"] == "expected":
            shutil.copy(case / tensor["file"], answers)
    assert f"d{b_Q}.npy" in {path.name for path in answers.iterdir()}
    arguments = ["check", str(tmp_path / "answers"), "--case", "ordinary-standard", *options]
    assert main(arguments) == 0
    np.save(answers / f"d{b_Q}.npy", 2 * np.load(answers / f"d{b_Q}.npy"))
    capsys.readouterr()
    assert main(arguments) == 1
    assert "all are 2 times what is expected" in capsys.readouterr().out
    assert main(["vectors", "show", "ordinary-standard", "--biases"]) == 0
    assert "b_O              (l, d)" in capsys.readouterr().out
