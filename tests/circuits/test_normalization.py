"""Norms, gains and biases folded in, and frozen: against the same model with nothing folded."""

import re
from dataclasses import replace

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.circuits.biases import without_biases
from minicircuits.model import transformer
from minicircuits.plain import model as plain
from tests.with_norms import EPS, MODELS, embedded, normed, part, random_model, run, through

CLOSE = 1e-12


def close(actual, desired):
    assert mc.relative_error(actual, desired) <= CLOSE


@pytest.mark.parametrize("kind, positions, n_layers", MODELS)
@pytest.mark.parametrize("biased", [True, False])
def test_the_folded_model_computes_the_same(kind, positions, n_layers, biased):
    model, tokens = random_model(1, kind, positions, n_layers, biased)
    acts, found = mc.forward(model.folded(), tokens), run(model, tokens)
    heads = slice(model.weights.n_heads)                   # those that rest come after
    close(acts.logits, found["logits"])
    close(acts.norms, found["norms"])
    if n_layers:
        close(acts.pattern[:, :, heads], found["pattern"])
        close(acts.scores[:, :, heads], found["scores"])


@pytest.mark.parametrize("kind, positions, n_layers", MODELS)
def test_every_path_is_itself_and_all_sum_to_the_logits(kind, positions, n_layers):
    model, tokens = random_model(2, kind, positions, n_layers, n_heads=2)
    weights, found = model.folded(), run(model, tokens)
    acts = mc.forward(weights, tokens)
    paths = mc.expand_logits(weights, tokens, acts.pattern, acts.norms)
    scale = np.abs(acts.logits).max()
    for path in paths:
        expected = through(model, tokens, found, path.heads)
        assert mc.relative_error(path.logits, expected, scale) <= CLOSE, path.label
    close(sum(path.logits for path in paths), found["logits"])
    by_order = mc.logits_by_order(weights, tokens, acts.pattern, acts.norms)
    for order, logits in enumerate(by_order):
        same = sum(path.logits for path in paths if path.order == order)
        assert mc.relative_error(logits, same, scale) <= CLOSE
    entries = mc.ledger(weights, tokens[:1], acts.pattern[:, :1], 4, 3, acts.norms[:, :1])
    assert entries.paths == [path.heads for path in paths]
    shares = np.array([path.logits[0, 4, 3] for path in paths])
    assert mc.relative_error(entries.contributions.sum(1), shares, scale) <= CLOSE


@pytest.mark.parametrize("kind, positions, n_layers", [case for case in MODELS if case[2] > 1])
def test_scores_in_parts(kind, positions, n_layers):
    model, tokens = random_model(3, kind, positions, n_layers, n_heads=2)
    weights, found, W = model.folded(), run(model, tokens), model.weights
    acts, layer, head = mc.forward(weights, tokens), n_layers - 1, 1
    x, at = embedded(model, tokens)
    sides = {}
    for name in "QK":       # all that is read, and what is read directly: x_0, positions, biases
        b = part(model.norms, "ln1_b", layer) + at
        y = normed(model, x, "ln1", layer, found["norms"][layer]) + b
        everything = normed(model, found["residual"][layer], "ln1", layer) + at
        sides[name] = [read @ getattr(W, f"W_{name}")[layer, head].T
                       + part(model.biases, f"b_{name}", (layer, head)) for read in (y, everything)]
    (q, all_q), (k, all_k) = sides["Q"], sides["K"]
    parts = (q @ k.mT, (all_q - q) @ k.mT, q @ (all_k - k).mT, (all_q - q) @ (all_k - k).mT)
    split = mc.split_scores(weights, tokens, acts.pattern, layer, head, acts.norms)
    terms = mc.expand_scores(weights, tokens, acts.pattern, layer, head, acts.norms)
    scale = sum(map(np.abs, parts)).max() / np.sqrt(W.d_head)
    for kind, expected in zip(split._fields, parts):
        expected = expected / np.sqrt(W.d_head)
        assert mc.relative_error(getattr(split, kind), expected, scale) <= CLOSE
        same = sum(term.scores for term in terms if term.kind == kind)
        assert mc.relative_error(same, expected, scale) <= CLOSE
    close(sum(split), found["scores"][layer][:, head])


@pytest.mark.parametrize("kind, positions, n_layers", MODELS)
def test_rebuilt_with_its_norms(kind, positions, n_layers):
    model, tokens = random_model(4, kind, positions, n_layers)
    weights = model.folded()
    acts, rebuilt = mc.forward(weights, tokens), mc.rebuild(weights, tokens)
    close(rebuilt.logits, acts.logits)
    close(rebuilt.pattern, acts.pattern)


def test_any_norms_can_be_frozen():
    """The sum is linear in 1/σ: with all σ twice as large, half of what is not a bias is left."""
    model, tokens = random_model(5, "RMS", "standard", 1, biased=False)
    weights = model.folded()
    acts = mc.forward(weights, tokens)
    orders = mc.logits_by_order(weights, tokens, acts.pattern, acts.norms)
    halves = mc.logits_by_order(weights, tokens, acts.pattern, 2 * acts.norms)
    close(halves[0], orders[0] / 2)
    close(halves[1], orders[1] / 4)


def test_the_form_of_folded_weights():
    weights, _ = random_model(6, positions="shortformer")[0].folded(), None
    assert repr(weights).endswith(f"n_normalized=10, eps={EPS})")
    assert (weights.d_model, weights.n_heads, weights.positions) == (21, 4, "standard")
    assert mc.resting_heads(weights) == [(0, 3), (1, 3)]
    for W, axis in (weights.W_E[:10], 0), (weights.W_O[:, :, :10], 2):
        assert np.abs(W.mean(axis)).max() < 1e-15
    single = weights.astype(np.float32)
    assert isinstance(single, mc.NormalizedWeights) and single.dtype == np.float32


def test_matrices_alone():
    model, _ = random_model(7, "RMSPre", "standard")
    for folded in mc.fold_biases(model.weights, **model.biases), model.folded():
        alone = without_biases(folded)
        assert type(alone) is mc.Weights
        for name, W in model.weights.items():
            np.testing.assert_array_equal(getattr(alone, name), W)


def raises(*words):
    return pytest.raises(mc.InputError, match=".*".join(map(re.escape, words)))


def test_what_is_refused():
    model, tokens = random_model()
    weights = model.folded()
    acts = mc.forward(weights, tokens)
    for call in mc.expand_logits, mc.logits_by_order:
        with raises("norms", "acts.norms", "got none"):
            call(weights, tokens, acts.pattern)
        with raises("norms", "got some for Weights"):
            call(model.weights, tokens, acts.pattern[:, :, :3], acts.norms)
        with raises("norms must have axes", "got shape (2, 2, 6)"):
            call(weights, tokens, acts.pattern, acts.norms[1:])
    for call in (lambda: mc.backward(weights, tokens, acts, acts.logits),
                 lambda: mc.loss_and_gradients(weights, tokens),
                 lambda: transformer.loss_and_gradients(weights, tokens)):
        with raises("for use, not for training"):
            call()
    with raises("plain loops have no norms"):
        plain.forward(weights, tokens)
    with raises("kind must be one of LN, LNPre, RMS, RMSPre; got 'BN'"):
        mc.fold_normalization(model.weights, "BN", EPS, {}, {})
    with raises("must have no norms yet"):
        mc.fold_normalization(weights, "LN", EPS, {}, {})
    with raises("b_N"):
        mc.fold_normalization(model.weights, "LN", EPS, {"b_N": acts.logits}, {})
    with raises("ln1_w must have axes (n_layers, d_model)"):
        mc.fold_normalization(model.weights, "LN", EPS, {}, {"ln1_w": acts.logits})


@pytest.mark.parametrize("change", [
    {"n_normalized": 0}, {"n_normalized": 99}, {"eps": -1.0}, {"eps": np.nan},
    {"positions": "shortformer"}, "W_O", "W_V"])
def test_weights_that_are_not_of_this_form(change):
    """W_O may not write what is not divided; a head's W_V may not read both kinds."""
    weights = random_model()[0].folded()
    if isinstance(change, str):
        W = getattr(weights, change).copy()
        W[:] = 1
        change = {change: W}
    with raises("must"):
        replace(weights, **change)


@pytest.mark.parametrize("ending", [".npz"])
def test_they_are_saved_and_loaded_bit_for_bit(tmp_path, ending):
    weights = random_model()[0].folded()
    mc.save(tmp_path / f"weights{ending}", weights)
    again = mc.load(tmp_path / f"weights{ending}")
    assert (again.n_normalized, again.eps) == (weights.n_normalized, weights.eps)
    for name, W in weights.items():
        np.testing.assert_array_equal(getattr(again, name), W)


@pytest.mark.parametrize("strange", [{"eps": None}, {"eps": np.ones(2)}, {"n_normalized": 1.5},
                                     {"n_normalized": 99}])
def test_a_file_with_half_a_norm_is_refused(tmp_path, strange):
    weights = random_model()[0].folded()
    arrays = mc.files.weights_to_arrays(weights) | strange
    mc.files.write_arrays(tmp_path / "w.npz", {k: v for k, v in arrays.items() if v is not None})
    with raises("w.npz", "must hold weights"):
        mc.load(tmp_path / "w.npz")
