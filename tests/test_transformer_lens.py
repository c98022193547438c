"""The crosswalk, row by row, against TransformerLens itself.

Needs the extra `peers`; the second stage of `.ci/run` has it. No model is larger than a few
hundred numbers, and none is fetched.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import warnings

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import files
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
    ours = mc.from_transformer_lens(model, positions=None if positions != "none" else positions)
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


def biased(model, steps=0):
    """The model with random numbers everywhere, then trained for some steps to repeat tokens."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        half = torch.randint(model.cfg.d_vocab, (8, 3), generator=generator)
        optimizer.zero_grad()
        model(torch.cat([half, half], 1), return_type="loss").backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("steps", [0, 30])
@pytest.mark.parametrize("positions", ["shortformer", "standard"])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_a_model_with_biases_is_one_without(n_layers, positions, steps):
    """Logits, patterns, scores, every path and the terms of every score."""
    weights, tokens, model = case_and_model(n_layers, n_layers, positions)
    model = biased(model, steps)
    ours, i, H = mc.from_transformer_lens(model), tokens.shape[1], weights.n_heads
    assert (ours.d_model, ours.positions) == (weights.d_model + 1, positions)
    logits, cache = model.run_with_cache(torch.tensor(tokens))
    acts = mc.forward(ours, tokens)
    assert_close(logits, acts.logits, 1e-10, "logits")
    seen = np.tri(i, dtype=bool)
    for layer in range(n_layers):
        attention = f"blocks.{layer}.attn.hook_"
        assert_close(cache[attention + "pattern"], acts.pattern[layer, :, :H], 1e-10, "pattern")
        theirs = cache[attention + "attn_scores"].detach().numpy()
        assert_close(theirs[..., seen], acts.scores[layer, :, :H][..., seen], 1e-10, "scores")
        for head in range(H):
            terms = mc.expand_scores(ours, tokens, acts.pattern, layer, head)
            assert_close(theirs[:, head][..., seen], sum(term.scores for term in terms)[..., seen],
                         1e-10, "terms")
    paths = mc.expand_logits(ours, tokens, acts.pattern)
    assert len(paths) == (1 + ours.n_heads) ** n_layers
    assert_close(logits, sum(path.logits for path in paths), 1e-10, "paths")
    assert_close(logits, mc.logits_by_order(ours, tokens, acts.pattern).sum(0), 1e-10, "orders")


@pytest.mark.parametrize("n_layers", [0, 2])
@pytest.mark.parametrize("norm", ["LN", "LNPre", "RMS", "RMSPre"])
def test_a_folded_model_goes_back(norm, n_layers):
    """Gains and centers stand in its matrices; what is left to do is RMSPre."""
    weights, tokens, model = case_and_model(n_layers, n_layers, "standard", normalization_type=norm)
    ours = mc.from_transformer_lens(biased(model))
    again = lens_model(**{**model.cfg.to_dict(), "normalization_type": "RMSPre"})
    arrays = mc.to_transformer_lens(ours)
    left_out = again.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()},
                                     strict=False)
    assert not left_out.unexpected_keys
    assert all(key.endswith((".mask", ".IGNORE")) for key in left_out.missing_keys)
    assert_close(again(torch.tensor(tokens)), model(torch.tensor(tokens)).detach().numpy(), 1e-10,
                 "logits")


@pytest.mark.parametrize("steps, biases", [(0, True), (30, True), (0, False)])
@pytest.mark.parametrize("positions", ["shortformer", "standard"])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("norm", ["LN", "LNPre", "RMS", "RMSPre"])
def test_a_normalized_model_frozen(norm, n_layers, positions, steps, biases):
    """Logits, norms, patterns, scores; through theirs, every path and the parts of every score."""
    weights, tokens, model = case_and_model(n_layers, n_layers, positions, normalization_type=norm)
    model, i, H = biased(model, steps), tokens.shape[1], weights.n_heads
    if not biases:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".b_" in name:
                    parameter.zero_()
    ours = mc.from_transformer_lens(model)
    logits, cache = model.run_with_cache(torch.tensor(tokens))
    acts = mc.forward(ours, tokens)
    assert_close(logits, acts.logits, 1e-10, "logits")
    names = [*(f"blocks.{layer}.ln1" for layer in range(n_layers)), "ln_final"]
    norms = np.stack([cache[f"{name}.hook_scale"].detach().numpy()[..., 0] for name in names])
    assert_close(norms, acts.norms, 1e-10, "norms")
    seen, pattern = np.tri(i, dtype=bool), acts.pattern.copy()
    for layer in range(n_layers):
        attention = f"blocks.{layer}.attn.hook_"
        assert_close(cache[attention + "pattern"], acts.pattern[layer, :, :H], 1e-10, "pattern")
        pattern[layer, :, :H] = cache[attention + "pattern"].detach().numpy()
    for layer, head in np.ndindex(n_layers, H):
        theirs = cache[f"blocks.{layer}.attn.hook_attn_scores"].detach().numpy()[:, head]
        assert_close(theirs[..., seen], acts.scores[layer, :, head][..., seen], 1e-10, "scores")
        terms = mc.expand_scores(ours, tokens, pattern, layer, head, norms)
        split = mc.split_scores(ours, tokens, pattern, layer, head, norms)
        for parts in (term.scores for term in terms), split:
            assert_close(theirs[..., seen], sum(parts)[..., seen], 1e-10, "parts")
    paths = mc.expand_logits(ours, tokens, pattern, norms)
    assert len(paths) == (1 + ours.n_heads) ** n_layers
    assert_close(logits, sum(path.logits for path in paths), 1e-10, "paths")
    assert_close(logits, mc.logits_by_order(ours, tokens, pattern, norms).sum(0), 1e-10, "orders")
    assert_close(logits, mc.rebuild(ours, tokens).logits, 1e-10, "rebuilt")
    if n_layers:
        losses = mc.loss_without_heads(ours, tokens, [(n_layers - 1, 0)])
        hook = f"blocks.{n_layers - 1}.attn.hook_z"
        b_V = model.blocks[-1].attn.b_V[0] + model.blocks[-1].attn.W_V[0].T @ (
            model.blocks[-1].ln1.b if norm == "LN" else torch.zeros(ours.n_normalized).double())

        def without(z, hook):
            z[:, :, 0] = b_V                       # what it says wherever it looks
            return z
        loss = model.run_with_hooks(torch.tensor(tokens), return_type="loss",
                                    fwd_hooks=[(hook, without)])
        assert_close(loss, np.float64(losses.recomputed), 1e-10, "without a head")


@pytest.mark.parametrize("positions", ["shortformer", "standard"])
def test_a_folded_model_goes_back_exactly(positions):
    """As a model without biases, one dimension and one head larger."""
    weights, tokens, model = case_and_model(1, positions=positions)
    ours = mc.from_transformer_lens(biased(model))
    again = lens_model(**{name: getattr(ours, name) for name in (
        "n_layers", "n_heads", "d_head", "d_model", "d_vocab", "n_ctx")},
        dtype=torch.float64, positional_embedding_type=positions)
    state_dict = mc.to_transformer_lens(ours)
    assert not any(array.any() for key, array in state_dict.items() if ".b_" in key)
    again.load_state_dict({key: torch.tensor(array) for key, array in state_dict.items()}, False)
    assert_close(again(torch.tensor(tokens)), model(torch.tensor(tokens)).detach().numpy(), 1e-12,
                 "logits")
    for (name, theirs), (_, array) in zip(mc.from_transformer_lens(again).items(), ours.items()):
        np.testing.assert_array_equal(theirs, array, name, strict=True)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened(dtype):
    model = biased(case_and_model(2)[2]).to(getattr(torch, dtype))
    ours = mc.from_transformer_lens(dict(model.named_parameters()), "shortformer", model.cfg)
    assert all(parameter.requires_grad for parameter in model.parameters())
    expected = mc.from_transformer_lens(model.to(torch.float32))
    assert ours.dtype == np.float32
    for (name, array), (_, wide) in zip(ours.items(), expected.items()):
        np.testing.assert_array_equal(array, wide, name, strict=True)


def test_wrappers_and_the_ways_to_say_the_cfg(tmp_path):
    model = biased(case_and_model(2, positions="standard")[2])
    ours, bare = mc.from_transformer_lens(model), model.state_dict()
    compiled = torch.compile(model, backend="eager")
    cfg = tmp_path / "config.json"
    cfg.write_text(json.dumps(model.cfg.to_dict(), default=str))
    parallel = torch.nn.DataParallel(compiled)
    with_prefixes = parallel.state_dict()
    assert all(key.startswith("module._orig_mod.") for key in with_prefixes)
    for source, told in [(compiled, None), (parallel, None), (bare, model.cfg), (bare, str(cfg)),
                         (bare, model.cfg.to_dict()), (with_prefixes, cfg),
                         (bare, {"normalization_type": None})]:
        same = mc.from_transformer_lens(source, "standard", told)
        for (name, array), (_, desired) in zip(same.items(), ours.items()):
            np.testing.assert_array_equal(array, desired, name, strict=True)
    with pytest.raises(mc.InputError, match="does not tell which norm"):
        mc.from_transformer_lens(bare, "standard")
    with pytest.raises(mc.InputError, match="positions must be 'standard', as the cfg says"):
        mc.from_transformer_lens(model, "shortformer")
    with pytest.raises(mc.InputError, match="the cfg must be that of the weights, with n_heads=3"):
        mc.from_transformer_lens(bare, cfg={**model.cfg.to_dict(), "n_heads": 2})


@pytest.mark.parametrize("norm", [None, "LN", "LNPre", "RMSPre"])
def test_a_bridge(tmp_path, norm):
    """Other names, and the heads of a layer in one matrix. RMS it computes in float32."""
    bridge = importlib.import_module("transformer_lens.model_bridge").TransformerBridge
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        model = bridge.boot_native({
            "n_layers": 2, "d_model": 6, "n_heads": 2, "d_head": 4, "n_ctx": 5, "d_vocab": 7,
            "attn_only": True, "normalization_type": norm, "device": "cpu"}).to(torch.float64)
    tokens = np.array([[3, 1, 4, 1, 5], [2, 6, 5, 3, 5]])
    ours, theirs = mc.from_transformer_lens(biased(model)), model(torch.tensor(tokens))
    assert_close(theirs, mc.forward(ours, tokens).logits, 1e-10, "logits")
    with pytest.raises(mc.InputError, match="does not tell which norm"):
        mc.from_transformer_lens(model.state_dict(), "standard")
    files.write_arrays(tmp_path / "bridge.npz", {
        key: value.detach().numpy() for key, value in model.state_dict().items()})
    (tmp_path / "bridge.json").write_text(json.dumps(model.cfg.to_dict(), default=str))
    for (name, array), (_, W) in zip(mc.open_model(tmp_path / "bridge.npz").weights.items(),
                                     ours.items()):
        np.testing.assert_array_equal(array, W, name, strict=True)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_file_of_a_model_is_opened(tmp_path, dtype):
    save = importlib.import_module("safetensors.torch").save_file
    model = biased(case_and_model(2, positions="standard")[2]).to(getattr(torch, dtype))
    path = tmp_path / "model.safetensors"
    save(model.state_dict(), path, metadata={"embed.W_E": "dtype"})
    (tmp_path / "config.json").write_text(json.dumps(model.cfg.to_dict(), default=str))
    opened = mc.open_model(path).weights
    for (name, array), (_, desired) in zip(opened.items(),
                                           mc.from_transformer_lens(model).items()):
        np.testing.assert_array_equal(array, desired, name, strict=True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(mc.InputError, match="does not tell which norm.*config.json beside it"):
        mc.open_model(path, "standard")


@pytest.mark.parametrize("what, settings", {
    "MLPs": {"attn_only": False, "d_mlp": 3, "act_fn": "relu"},
    "rotary positions": {"positional_embedding_type": "rotary", "rotary_dim": 2},
    "alibi positions": {"positional_embedding_type": "alibi"},
    "grouped queries": {"n_key_value_heads": 1},
    "bidirectional attention": {"attention_dir": "bidirectional"},
    "local attention": {"use_local_attn": True, "window_size": 2, "attn_types": ["local"] * 2},
    "no attention scale": {"use_attn_scale": False},
    "another attention scale": {"attn_scale": 3.0},
    "inverse layer scaling": {"scale_attn_by_inverse_layer_idx": True},
    "soft-capped scores": {"attn_scores_soft_cap": 5.0},
    "soft-capped logits": {"output_logits_soft_cap": 5.0},
    "norms of queries and keys": {"use_qk_norm": True},
    "clipped queries": {"clip_qkv": 1.0},
    "attention sinks": {"use_attention_sinks": True},
    "a norm of the embedding": {"post_embedding_ln": True},
    "RMSNorm at the end alone": {"normalization_type": "LN", "final_rms": True},
}.items())
def test_what_has_no_place_here_is_refused_by_name(what, settings):
    model = case_and_model(5, **settings)[2]
    with pytest.raises(mc.InputError, match=f"^the model has {what}.* no place here"):
        mc.from_transformer_lens(model)
    with pytest.raises(mc.InputError, match=f"^the model has {what}|does not tell which norm"):
        mc.from_transformer_lens(model.state_dict(), "shortformer")     # not silently either


def test_what_the_advice_says_keeps_the_model():
    """Scores without their scale, or over the number of the layer: into W_Q and b_Q."""
    for settings, factor in [({"use_attn_scale": False}, lambda layer: 2),
                             ({"attn_scale": 3.0}, lambda layer: 2 / 3),
                             ({"scale_attn_by_inverse_layer_idx": True},
                              lambda layer: 1 / (layer + 1))]:
        _, tokens, model = case_and_model(6, d_head=4, **settings)
        state_dict = {key: value.clone() for key, value in biased(model).state_dict().items()}
        for layer in range(2):
            for name in "W_Q", "b_Q":
                state_dict[f"blocks.{layer}.attn.{name}"] *= factor(layer)
        ours = mc.from_transformer_lens(state_dict, "shortformer", {"normalization_type": None})
        assert_close(model(torch.tensor(tokens)), mc.forward(ours, tokens).logits, 1e-12,
                     str(settings))


def test_a_cache_of_other_scores_is_refused():
    """Nothing but its numbers tells it from ours."""
    for settings in {"use_attn_scale": False}, {"attn_scores_soft_cap": 0.5}, {"attn_scale": 9.0}:
        _, tokens, model = case_and_model(5, **settings)
        with torch.no_grad():
            cache = model.run_with_cache(torch.tensor(tokens))[1]
        with pytest.raises(mc.InputError, match="scores must be q·k / √d_head"):
            activations_from_transformer_lens(cache)


@pytest.mark.parametrize("settings, hook, what", [
    ({"normalization_type": "LNPre"}, "blocks.0.ln1.hook_normalized", "LayerNorm"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 2}, "blocks.0.attn.hook_rot_k",
     "rotary positions"),
    ({"attn_only": False, "d_mlp": 3, "act_fn": "relu"}, "blocks.0.hook_mlp_out", "MLPs")])
def test_a_cache_that_has_no_place_here_is_refused_by_name(settings, hook, what):
    _, tokens, model = case_and_model(5, **settings)
    with torch.no_grad():
        cache = model.run_with_cache(torch.tensor(tokens))[1]
    with pytest.raises(mc.InputError, match=f"{what}.*got {hook}$"):
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
