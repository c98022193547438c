"""The crosswalk, row by row, against TransformerLens itself.

Needs the extra `peers`; the second stage of `.ci/run` has it. No model is larger than a few
hundred numbers, and none is fetched.
"""

import importlib
import importlib.util
import warnings

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.interop import (ACTIVATIONS, CIRCUITS, WEIGHTS, activations_from_transformer_lens,
                                  activations_to_transformer_lens, reordered)
from minicircuits.notation import POSITIONS
from tests.draws import random_case

pytestmark = pytest.mark.extra
torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def lens_model(**settings):
    """A HookedTransformer, attention-only, with no norm and no numbers yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # it is deprecated, and so is what it imports
        lens = importlib.import_module("transformer_lens")
        return lens.HookedTransformer(lens.HookedTransformerConfig(**{
            "attn_only": True, "normalization_type": None, "init_weights": False,
            "device": "cpu", **settings}))


def case_and_model(seed=0, n_layers=2, positions="shortformer", dtype="float64", **settings):
    """Ours, tokens, and a model of theirs that has loaded our export."""
    weights, tokens = random_case(seed, n_layers=n_layers, positions=positions, dtype=dtype)
    sizes = {name: getattr(weights, name)
             for name in ("n_layers", "n_heads", "d_head", "d_model", "d_vocab")}
    theirs = "standard" if positions == "none" else positions
    model = lens_model(**{**sizes, "n_ctx": weights.n_ctx or 6, "dtype": getattr(torch, dtype),
                          "positional_embedding_type": theirs, **settings})
    arrays = mc.to_transformer_lens(weights)
    state_dict = {key: torch.tensor(array) for key, array in arrays.items()}
    if positions == "none":
        state_dict["pos_embed.W_pos"] = torch.zeros_like(model.pos_embed.W_pos)
    left_out = model.load_state_dict(state_dict, strict=False)
    if not settings:
        assert not left_out.unexpected_keys
        assert all(key.endswith((".mask", ".IGNORE")) for key in left_out.missing_keys)
    return weights, tokens, model


def assert_close(theirs, ours, tolerance, name):
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype), name
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(theirs[~finite], ours[~finite], name)
    assert mc.relative_error(ours[finite], theirs[finite]) <= tolerance, name


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_it_computes_what_we_do(n_layers, positions, dtype):
    """The logits, and every activation it caches, under its name."""
    weights, tokens, model = case_and_model(n_layers, n_layers, positions, dtype)
    logits, cache = model.run_with_cache(torch.tensor(tokens))
    acts = mc.forward(weights, tokens)
    ours = activations_to_transformer_lens(weights, tokens, acts)
    assert_close(logits, acts.logits, TOLERANCE[dtype], "logits")
    assert cache.keys() - ours.keys() == ({"hook_pos_embed"} if positions == "none" else set())
    assert ours.keys() <= cache.keys()
    for key in ours:
        assert_close(cache[key], ours[key], TOLERANCE[dtype], key)


@pytest.mark.parametrize("positions", POSITIONS)
def test_theirs_ours_theirs_is_exact(positions):
    weights, tokens, model = case_and_model(1, positions=positions)
    ours = mc.from_transformer_lens({key: value.detach() for key, value in
                                     model.state_dict().items()}, positions=positions)
    again = mc.to_transformer_lens(ours)
    for key, value in model.state_dict().items():
        if not key.endswith((".mask", ".IGNORE")) and key in again:
            np.testing.assert_array_equal(again.pop(key), value.numpy(), key, strict=True)
    assert not again                                    # "none" has no W_pos to give back
    with torch.no_grad():
        cache = model.run_with_cache(torch.tensor(tokens))[1]
    acts = activations_from_transformer_lens(cache)
    again = activations_to_transformer_lens(ours, tokens, acts)
    for key in again:
        if not key.endswith("hook_attn_out"):           # the one that is computed
            np.testing.assert_array_equal(again[key], cache[key].numpy(), key, strict=True)


@pytest.mark.parametrize("row", WEIGHTS + ACTIVATIONS, ids=lambda row: row.theirs)
def test_rows_of_arrays(row):
    """theirs is ours with its axes in that order."""
    weights, tokens, model = case_and_model(2)
    theirs = {**model.state_dict(), **model.run_with_cache(torch.tensor(tokens))[1]}
    holder = weights if row in WEIGHTS else mc.forward(weights, tokens)
    ours = getattr(holder, row.ours)
    layered = "{l}" in row.theirs
    for layer in range(2 if layered else 1):
        index = layer if layered else -1 if row.ours == "residual" else ...
        expected = reordered(ours[index], row.axes, row.their_axes)
        actual = theirs[row.theirs.format(l=layer)].detach().numpy()
        if row.ours == "scores":
            seen = np.tri(actual.shape[-1], dtype=bool)
            assert np.isneginf(actual[..., ~seen]).all()
            actual, expected = actual[..., seen], expected[..., seen]
        assert_close(actual, expected, 1e-12, row.theirs)


@pytest.mark.parametrize("row", CIRCUITS, ids=lambda row: row.ours)
def test_rows_of_circuits(row):
    weights, _, model = case_and_model(3)

    def theirs(**names):
        result = eval(row.theirs, names | {name: getattr(model, name) for name in (
            "W_E", "W_U", "OV", "QK", "all_composition_scores")})
        return getattr(result, "AB", result).detach().numpy()

    if row.ours == "composition_scores":
        for kind in "QKV":
            ours = mc.composition_scores(weights, kind)
            assert ours.any()
            assert_close(theirs(kind=kind), reordered(ours, row.axes, row.their_axes), 1e-12, kind)
    else:
        for layer, h in np.ndindex(weights.n_layers, weights.n_heads):
            ours = getattr(mc, row.ours)(weights, layer, h).AB
            ours = reordered(ours, row.axes, row.their_axes)
            assert_close(theirs(l=layer, h=h), ours, 1e-12, row.ours)


def test_gradients_are_weights_and_go_the_same_way():
    weights, tokens, model = case_and_model(4, positions="standard")
    loss = model(torch.tensor(tokens), return_type="loss")
    loss.backward()
    ours, gradients = mc.loss_and_gradients(weights, tokens)
    assert abs(ours - loss.item()) <= 1e-12 * ours
    gradients = mc.to_transformer_lens(gradients)
    for key, parameter in model.named_parameters():
        if ".b_" not in key:                # there are no biases here to have gradients
            assert_close(parameter.grad, gradients[key], 1e-11, key)


def test_a_bias_of_theirs_is_refused_by_name():
    state_dict = case_and_model(5)[2].state_dict()
    state_dict["blocks.1.attn.b_V"][0, 0] = 1
    with pytest.raises(mc.InputError, match="^blocks.1.attn.b_V must be zero"):
        mc.from_transformer_lens(state_dict, positions="shortformer")


@pytest.mark.parametrize("settings, key, hook", [
    ({"normalization_type": "LN"}, "blocks.0.ln1.b", "blocks.0.ln1.hook_normalized"),
    ({"normalization_type": "LNPre"}, None, "blocks.0.ln1.hook_normalized"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 2}, "blocks.0.attn.rotary_cos",
     "blocks.0.attn.hook_rot_k"),
    ({"attn_only": False, "d_mlp": 3, "act_fn": "relu"}, "blocks.0.mlp.W_in",
     "blocks.0.hook_mlp_out")])
def test_what_has_no_place_here_is_refused_by_name(settings, key, hook):
    _, tokens, model = case_and_model(5, **settings)
    positions = "none" if "rotary_dim" in settings else "shortformer"
    if key:
        with pytest.raises(mc.InputError, match=f"got {key}$"):
            mc.from_transformer_lens(model.state_dict(), positions=positions)
    else:                                           # no parameter shows it: a cache does
        mc.from_transformer_lens(model.state_dict(), positions=positions)
    with torch.no_grad():
        cache = model.run_with_cache(torch.tensor(tokens))[1]
    with pytest.raises(mc.InputError, match=f"(got|^) ?{hook}"):
        activations_from_transformer_lens(cache)


def test_optional_hooks_are_dropped():
    weights, tokens, model = case_and_model(6)
    for setting in ("use_attn_result", "use_split_qkv_input"):
        getattr(model, f"set_{setting}")(True)
    with torch.no_grad():
        cache = model.run_with_cache(torch.tensor(tokens))[1]
    assert {"blocks.0.attn.hook_result", "blocks.0.hook_k_input"} <= cache.keys()
    z = activations_from_transformer_lens(cache).z
    assert_close(z, mc.forward(weights, tokens).z, 1e-12, "z")
