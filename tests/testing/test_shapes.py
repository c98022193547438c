"""Every vector in the shape of a GPT-2, with tied embeddings, and a case of one's own."""

import json
from dataclasses import replace

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.cli import main
from minicircuits.notation import InputError
from minicircuits.testing import assert_matches, check, vectors
from minicircuits.testing.mutants import MUTANTS, candidate
from minicircuits.testing.steps import CIRCUITS
from minicircuits.testing.strategies import random_case
from tests.testing.candidates import circuits, model, outputs

SMALL = [id for id, vector in vectors.core().items() if vector.stored]


@pytest.mark.parametrize("id", [*SMALL, "past-128", "drawn2-3", "drawn2-7"])
def test_the_gpt2_shape_is_the_same_model(id):
    """Cut back, its forward pass is what is stored; its gradients keep what they were."""
    own, shaped = vectors.find(id), vectors.find(id, "gpt2")
    w, (_, h, e, d) = shaped.weights, own.weights.W_Q.shape
    short = own.weights.positions == "shortformer"
    assert w.positions == "standard" and w.d_model == w.n_heads * w.d_head and w.n_heads == h
    assert np.log2(w.d_head / e) % 2 == 0                      # so that the scale is exact
    theirs, ours = shaped.reference.arrays(), own.reference.arrays()
    scale = {"q": (w.d_head / e) ** 0.5, "dq": (e / w.d_head) ** 0.5, "dW_Q": (e / w.d_head) ** 0.5}
    cut = [name for name in ours if name.removeprefix("d") in (
        "q", "k", "v", "z", "scores", "pattern", "logits", "loss", "W_V", "W_O", "W_U", "W_E")]
    for name in [*cut, *({"dW_Q", "dW_K"} & ours.keys())]:
        full = theirs[name]
        if short and name in ("dW_Q", "dW_K"):                 # of tokens, and of positions
            full = full[..., :d] + full[..., d:2 * d]
        part = full[tuple(map(slice, ours[name].shape))] / scale.get(name, 1)
        size = max(abs(ours[name]).max(initial=0), 1e-30)
        if name in ("dq", "dW_Q", "dW_E") and id == "scores-of-every-height":
            continue                                           # rounding of numbers at 1e15
        assert np.allclose(part, ours[name], rtol=1e-9, atol=1e-11 * size), name


def test_right_candidates_pass_in_the_gpt2_shape_and_tied(capsys):
    def tied(weights, tokens):
        assert np.array_equal(weights.W_U, weights.W_E.T)
        found = outputs(weights, tokens)
        if "dW_U" in found:
            found["dW_E"] = found["dW_E"] + found.pop("dW_U").T
        return found

    shaped = [vectors.find(id, "gpt2") for id in (*vectors.core(), "drawn2-1") if id != "large"]
    assert_matches(outputs, cases=shaped)                      # `large` has this shape anyway
    assert_matches(tied, "float32", [vectors.find(id, "gpt2", True) for id in SMALL])
    assert_matches(model, cases=[vectors.find(id, "gpt2") for id in SMALL])
    assert_matches(circuits, cases=[vectors.find(id, "gpt2") for id in ("circuits", "drawn2-1")])
    wrong = check(vectors.find("ordinary-standard", tied=True), outputs)
    assert wrong.difference.tensor == "dW_E" and wrong.meaningless == ("dW_U",)


def test_known_bugs_die_in_the_gpt2_shape():
    """Those of a forward and a backward pass with standard positions."""
    small = {biases: [vectors.find(id, "gpt2", biases=biases) for id in SMALL]
             for biases in (False, True)}
    other = {"W_O_transposed", "positions_in_the_residual"}    # needs d_head = d_model; shortformer
    for name in MUTANTS.keys() - other:
        standard = MUTANTS[name].function not in ("add_positions", "add_positions_backward")
        if standard and MUTANTS[name].step not in (*CIRCUITS, "call") and not any(
                name in vector.hunts for vector in vectors.core().values()):
            if "pos" in name:
                continue
            assert any(check(v, candidate(name)(v.weights, v.tokens, v.biases)).wrong
                       for v in small[MUTANTS[name].of_biases]), name


def test_a_tied_gradient_that_lacks_one_side_is_named():
    case = vectors.find("ordinary-standard", "gpt2", tied=True)
    found = model(case.weights, case.tokens)
    del found["dW_U"]
    report = check(case, found)
    assert report.difference.tensor == "dW_E" and not report.difference.missing
    assert "dW_U" not in case.reference.arrays()
    doubled = candidate("scatter_overwritten")(case.weights, case.tokens)
    case = replace(case, tokens=np.array([[1, 1, 2], [2, 1, 1]]))
    doubled = case.answered(candidate("scatter_overwritten")(case.weights, case.tokens))
    assert "scatter_overwritten" in check(case, doubled).looks_like


def test_an_unknown_shape():
    with pytest.raises(InputError, match="shape must be None or 'gpt2'; got 'gpt3'"):
        vectors.cases("gpt3")


# From the command line.

def own(tmp_path, **sizes):
    weights, tokens = random_case(9, **sizes)
    mc.save(tmp_path / "weights.npz", weights)
    np.save(tmp_path / "tokens.npy", tokens)
    return weights, tokens, ["--weights", str(tmp_path / "weights.npz"),
                             "--tokens", str(tmp_path / "tokens.npy")]


@pytest.mark.parametrize("shape", [[], ["--shape", "gpt2"], ["--shape", "gpt2", "--tied"]])
def test_a_case_of_ones_own(tmp_path, capsys, shape):
    weights, tokens, options = own(tmp_path, n_heads=3, d_head=2)
    assert main(["vectors", "export", str(tmp_path / "cases"), *options, *shape]) == 0
    manifest = json.loads((tmp_path / "cases" / "own" / "manifest.json").read_text())
    assert (manifest["id"], manifest["shape"], manifest["tied"]) == (
        "own", "gpt2" if shape else None, "--tied" in shape)
    given = mc.Weights(**{name: np.load(tmp_path / "cases" / "own" / f"{name}.npy")
                          for name, _ in weights.items()}, positions=manifest["positions"])
    (tmp_path / "answers" / "own").mkdir(parents=True)
    np.save(tmp_path / "answers" / "own" / "logits.npy", mc.forward(given, tokens).logits)
    assert main(["check", str(tmp_path / "answers"), *options, *shape]) == 0
    assert "1 case, 0 wrong" in capsys.readouterr().out
    if not shape:
        assert all(np.array_equal(W, getattr(given, name)) for name, W in weights.items())
        assert main(["check", str(tmp_path / "answers"), *options, "--tied"]) == 1


def test_a_case_of_ones_own_that_is_none(tmp_path, capsys):
    _, _, options = own(tmp_path)
    np.save(tmp_path / "floats.npy", np.zeros((2, 3)))
    for arguments, says in ((options[:2], "needs both --weights FILE and --tokens FILE.npy"),
                            ([*options[:3], str(tmp_path / "floats.npy")], "tokens must be"),
                            ([*options[:3], str(tmp_path / "none.npy")], "cannot read")):
        assert main(["vectors", "export", str(tmp_path / "cases"), *arguments]) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "cases").exists()


def test_a_large_vocabulary_has_no_circuits(tmp_path):
    """All heads' circuits of 50,000 tokens would not fit into memory."""
    case = vectors.Vector("own", *random_case(9, d_vocab=2000, n_heads=1, i=3))
    assert check(case, model) and "W_QK" not in case.reference.arrays()
