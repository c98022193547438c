"""TransformerLens's names and orientation. Its keys are written out here once more, by hand."""

from dataclasses import replace
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.circuits.biases import BIAS_AXES, fold_biases
from minicircuits.circuits.normalization import fold_normalization
from minicircuits.interop import (activations_from_transformer_lens,
                                  activations_to_transformer_lens, crosswalk,
                                  from_transformer_lens, to_transformer_lens)
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError
from tests.draws import arrays, assert_close, draw_case, random_case, random_weights

PLAIN = {"normalization_type": None}
W_Q, b_O = "blocks.0.attn.W_Q", "blocks.0.attn.b_O"
HOOKS = ["hook_embed", "hook_pos_embed", "unembed.hook_in", "unembed.hook_out"]
BLOCK_HOOKS = ["hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v",
               "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z", "hook_attn_out",
               "hook_resid_post"]


def cache_of(seed=0, **sizes):
    weights, tokens = random_case(seed, **sizes)
    return activations_to_transformer_lens(weights, tokens, forward(weights, tokens))


def state_dict_of(seed=0, **sizes):
    return to_transformer_lens(random_weights(np.random.default_rng(seed), **sizes))


def assert_same_arrays(actual, desired):
    assert actual.keys() == desired.keys()
    for name in desired:
        assert actual[name].dtype == desired[name].dtype, name
        np.testing.assert_array_equal(actual[name], desired[name], name, strict=True)


class OnTheCPU:
    """What is known of a torch tensor here."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class OnTheGPU:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@given(draw_case(), st.sampled_from(["float32", "float64", "complex128"]))
def test_ours_theirs_ours(case, dtype):
    weights = case.weights.astype(dtype)
    back = from_transformer_lens(to_transformer_lens(weights), positions=weights.positions)
    assert back.positions == weights.positions
    if weights.n_layers:
        assert_same_arrays(dict(back.items()), dict(weights.items()))
    else:                                   # no state dict tells these two
        assert (back.n_heads, back.d_head, back.W_Q.dtype) == (1, 1, weights.dtype)
        outside = ("W_E", "W_U") if weights.W_pos is None else ("W_E", "W_pos", "W_U")
        assert_same_arrays({name: getattr(back, name) for name in outside},
                           {name: getattr(weights, name) for name in outside})


@given(draw_case())
def test_theirs_ours_theirs(case):
    theirs = to_transformer_lens(case.weights)
    ours = from_transformer_lens({key: OnTheCPU(array) for key, array in theirs.items()},
                                 positions=case.weights.positions)
    assert_same_arrays(to_transformer_lens(ours), theirs)


def test_every_key_shape_and_number_of_a_two_layer_model():
    weights = random_weights(np.random.default_rng(0), n_layers=2, n_heads=3, d_head=4, d_model=5,
                             d_vocab=7, n_ctx=6, dtype=np.float32)
    shapes = {"embed.W_E": (7, 5), "pos_embed.W_pos": (6, 5),
              "unembed.W_U": (5, 7), "unembed.b_U": (7,)}
    for block in ("blocks.0.attn.", "blocks.1.attn."):
        shapes |= {block + "W_Q": (3, 5, 4), block + "W_K": (3, 5, 4), block + "W_V": (3, 5, 4),
                   block + "W_O": (3, 4, 5), block + "b_Q": (3, 4), block + "b_K": (3, 4),
                   block + "b_V": (3, 4), block + "b_O": (5,)}
    theirs = to_transformer_lens(weights)
    assert {key: array.shape for key, array in theirs.items()} == shapes
    assert {array.dtype for array in theirs.values()} == {np.dtype(np.float32)}
    assert theirs["embed.W_E"][6, 4] == weights.W_E[4, 6]
    assert theirs["pos_embed.W_pos"][5, 1] == weights.W_pos[1, 5]
    assert theirs["unembed.W_U"][4, 6] == weights.W_U[6, 4]
    assert theirs["blocks.1.attn.W_Q"][2, 4, 3] == weights.W_Q[1, 2, 3, 4]
    assert theirs["blocks.0.attn.W_K"][1, 0, 2] == weights.W_K[0, 1, 2, 0]
    assert theirs["blocks.1.attn.W_V"][0, 3, 1] == weights.W_V[1, 0, 1, 3]
    assert theirs["blocks.0.attn.W_O"][2, 3, 4] == weights.W_O[0, 2, 4, 3]
    assert not any(array.any() for key, array in theirs.items() if ".b_" in key)


def test_nothing_is_shared():
    theirs = state_dict_of()
    before = {key: array.copy() for key, array in theirs.items()}
    ours = from_transformer_lens(theirs, positions="shortformer")
    ours = replace(ours, W_E=np.asfortranarray(ours.W_E))       # its transpose is in C order
    again = to_transformer_lens(ours)
    for key in theirs:
        assert not any(np.shares_memory(theirs[key], array) for _, array in ours.items())
        assert not any(np.shares_memory(again[key], array) for _, array in ours.items())
    assert_same_arrays(theirs, before)


def test_buffers_and_zero_biases_are_dropped_and_may_be_absent():
    theirs = state_dict_of(n_layers=1)
    ours = from_transformer_lens(theirs, positions="standard")
    buffers = {"blocks.0.attn.mask": np.zeros((0, 0), bool),
               "blocks.0.attn.IGNORE": OnTheGPU()}          # not even looked at
    without = {key: array for key, array in theirs.items() if ".b_" not in key}
    for state_dict in ({**theirs, **buffers}, without):
        same = from_transformer_lens(state_dict, "standard", PLAIN)
        assert_same_arrays(dict(same.items()), dict(ours.items()))


def test_no_positions():
    theirs = state_dict_of(positions="none")
    assert "pos_embed.W_pos" not in theirs
    zero = {**theirs, "pos_embed.W_pos": np.zeros((6, 5))}
    assert from_transformer_lens(zero, positions="none").W_pos is None
    with pytest.raises(InputError, match="pos_embed.W_pos must be zero"):
        from_transformer_lens(state_dict_of(), positions="none")
    with pytest.raises(InputError, match="pos_embed.W_pos must be in .* it is missing"):
        from_transformer_lens(theirs, positions="shortformer")


@pytest.mark.parametrize("key, what", [
    ("ln_final.w", "LayerNorm"), ("blocks.0.ln1.w", "LayerNorm"), ("blocks.1.ln1.b", "LayerNorm"),
    ("blocks.0.attn.rotary_sin", "rotary positions"), ("blocks.1.mlp.W_in", "MLPs"),
    ("blocks.0.mlp.b_out", "MLPs"), ("blocks.0.attn._W_K", "grouped queries"),
    ("blocks.0.attn.q_norm.w", "norms of queries and keys"), ("blocks.0.attn.sinks", "sinks"),
    ("embed.ln.w", "a norm of the embedding"), ("blocks.0.attn.W_QK", "a state dict .* alone"),
    ("embed.W_E.extra", "a state dict .* alone"), ("head", "a state dict .* alone")])
def test_a_key_that_has_no_place_here_is_named_by_its_concept(key, what):
    for value in (np.ones(5), np.zeros(5)):             # a norm of zeros is a norm all the same
        with pytest.raises(InputError, match=f"{what}.*got {key}$"):
            from_transformer_lens({**state_dict_of(), key: value}, "shortformer", PLAIN)


@pytest.mark.parametrize("key", [
    "embed.W_E", "pos_embed.W_pos", "unembed.W_U", "blocks.0.attn.W_Q", "blocks.1.attn.W_K",
    "blocks.1.attn.W_V", "blocks.0.attn.W_O"])
def test_a_missing_key_is_named(key):
    theirs = state_dict_of()
    del theirs[key]
    with pytest.raises(InputError, match=f"^{key} must be in a state dict .* of 2 layers"):
        from_transformer_lens(theirs, positions="shortformer")


def test_a_layer_left_out_is_named():
    theirs = {key: array for key, array in state_dict_of(n_layers=3).items() if ".1." not in key}
    with pytest.raises(InputError, match="^blocks.1.attn.W_Q must be in"):
        from_transformer_lens(theirs, positions="shortformer")
    biases_only = {**state_dict_of(n_layers=0), b_O: np.zeros(5)}
    with pytest.raises(InputError, match="^blocks.0.attn.W_Q must be in"):
        from_transformer_lens(biases_only, positions="shortformer")


@pytest.mark.parametrize("key, value, message", [
    (W_Q, np.ones((3, 4, 5)), r"blocks.0.attn.W_Q must have axes \(n_heads, d_model, d_head\)"),
    ("unembed.W_U", np.ones((5, 8)), "unembed.W_U .* with d_model=5, d_vocab=7; got"),
    (W_Q, np.ones((3, 5, 4), np.float32), "blocks.0.attn.W_Q float32"),
    ("embed.W_E", np.ones((7, 5), np.float16), "embed.W_E float32, pos_embed.W_pos float64"),
    ("embed.W_E", np.ones((7, 5), int), "embed.W_E int64"),
    ("embed.W_E", np.full((7, 5), np.nan), "W_E must be finite"),
    (W_Q, [[1], [2, 3]], "blocks.0.attn.W_Q must be an array"),
    (W_Q, OnTheGPU(), "blocks.0.attn.W_Q must be an array; got can't convert cuda:0"),
    (W_Q, np.float64(1), "blocks.0.attn.W_Q must have axes")])
def test_a_wrong_array_is_named(key, value, message):
    with pytest.raises(InputError, match=message):
        from_transformer_lens({**state_dict_of(), key: value}, positions="shortformer")


def test_unknown_positions():
    with pytest.raises(InputError, match="positions must be one of"):
        from_transformer_lens(state_dict_of(), positions="rotary")


# What a state dict does not tell

BUFFERS = {"blocks.0.attn.mask": np.zeros((0, 0), bool)}


def test_positions_are_enough_for_what_we_wrote_and_a_cfg_for_the_rest(tmp_path):
    theirs, ours = state_dict_of(), random_weights(np.random.default_rng(0))
    told = {**PLAIN, "positional_embedding_type": "shortformer", "n_heads": 3, "attn_scale": 2.0}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(told))
    wrapped = {f"model.module.{key}".replace("attn", "_orig_mod.attn"): theirs[key]
               for key in theirs}
    for arguments in [(theirs, "shortformer"), (theirs, None, told), (theirs, "shortformer", PLAIN),
                      (theirs, None, SimpleNamespace(**told)), ({**theirs, **BUFFERS}, None, path),
                      (wrapped, None, str(path))]:
        assert_same_arrays(dict(from_transformer_lens(*arguments).items()), dict(ours.items()))


@pytest.mark.parametrize("change, positions, cfg, message", [
    ({}, None, None, "^positions must be given with a state dict"),
    (BUFFERS, "shortformer", None, "^a state dict does not tell which norm"),
    ({"ln_final.w": np.ones(5)}, "shortformer", None, "^a state dict does not tell which norm"),
    ({"embed.weight": np.ones((7, 5))}, "standard", None, "^a state dict does not tell which norm"),
    ({"embed.weight": np.ones((7, 5))}, "standard", PLAIN, "^cfg must .* n_heads; got .*None$"),
    ({"embed.weight": np.ones((7, 5))}, "standard", {**PLAIN, "n_heads": True}, "got .*True$"),
    ({}, "standard", {"n_embd": 5}, "^cfg must be TransformerLens's and say normalization_type"),
    ({}, "standard", {"normalization_type": "LN"}, "^cfg must be TransformerLens's and say"),
    ({}, None, PLAIN, "^positions must be given with a state dict"),
    ({}, "standard", {**PLAIN, "positional_embedding_type": "shortformer"},
     "^positions must be 'shortformer', as the cfg says; got 'standard'"),
    ({}, "standard", 3, "^cfg must be a cfg, a dict or a JSON file of one; got 3"),
    ({}, "standard", {**PLAIN, "n_ctx": 7}, "^the cfg must be that of the weights, with n_ctx=6"),
    ({}, "standard", {**PLAIN, "attn_scale": 1.0}, "^the model has another attention scale"),
    ({}, "standard", {**PLAIN, "attn_only": False}, "^the model has MLPs.* got attn_only=False"),
    ({}, "standard", {**PLAIN, "n_heads": 3, "n_key_value_heads": 1}, "has grouped queries"),
    ({"module.embed.W_E": 1}, "standard", None, "^a state dict must hold one model")])
def test_what_is_told_too_little_or_wrongly_is_one_line(change, positions, cfg, message):
    with pytest.raises(InputError, match=message) as raised:
        from_transformer_lens({**state_dict_of(), **change}, positions, cfg)
    assert len(str(raised.value).splitlines()) == 1


def test_what_is_no_state_dict():
    with pytest.raises(InputError, match="must be a state dict or a .* model; got str"):
        from_transformer_lens("model.npz", "standard")
    with pytest.raises(InputError, match="must be a state dict or a .* model; got dict"):
        from_transformer_lens({0: np.ones(5)}, "standard")


@pytest.mark.parametrize("kind", ["LN", "RMS"])
def test_biases_and_norms_are_found_by_their_keys(kind):
    """Against the folding of what was put there; a gain left out is named."""
    rng = np.random.default_rng(1)
    theirs, weights = state_dict_of(positions="standard"), random_weights(
        np.random.default_rng(0), positions="standard")
    biases = {name: rng.normal(size=[getattr(weights, axis) for axis in axes])
              for name, axes in BIAS_AXES.items()}
    norms = {f"{norm}_{letter}": rng.normal(size=(2, 5)[norm == "ln_final":])
             for norm in ("ln1", "ln_final") for letter in "wb"[:2 if kind == "LN" else 1]}
    for name, array in (biases | norms).items():
        place = name.replace("_w", ".w").replace("_b", ".b") if name in norms else (
            f"attn.{name}" if name != "b_U" else "unembed.b_U")
        for layer in range(2):
            if name in ("b_U", "ln_final_w", "ln_final_b"):
                theirs[place] = array
            else:
                theirs[f"blocks.{layer}.{place}"] = array[layer]
    without = {key: array for key, array in theirs.items() if ".ln1." not in key
               and "ln_final" not in key}
    assert_same_arrays(dict(from_transformer_lens(without, "standard", PLAIN).items()),
                       dict(fold_biases(weights, **biases).items()))
    with pytest.raises(InputError, match="^a state dict does not tell which norm"):
        from_transformer_lens(without, "standard")          # none of ours has a bias
    cfg = {"normalization_type": kind, "eps": 0.01}
    actual = from_transformer_lens(theirs, "standard", cfg)
    desired = fold_normalization(weights, kind, 0.01, biases, norms)
    assert_same_arrays(dict(actual.items()), dict(desired.items()))
    assert (actual.eps, actual.n_normalized) == (0.01, 5)
    again = from_transformer_lens(to_transformer_lens(actual), "standard",
                                  cfg | {"normalization_type": "RMSPre"})
    assert_same_arrays(dict(again.items()), dict(actual.items()))
    with pytest.raises(InputError, match="dimensions that a cache has not"):
        activations_to_transformer_lens(actual, [[0]], forward(actual, [[0]]))
    apart = fold_normalization(replace(weights, positions="shortformer"), kind, 0.01, {}, norms)
    with pytest.raises(InputError, match="shortformer positions have no place in Transformer"):
        to_transformer_lens(apart)
    del theirs["blocks.1.ln1.w"]
    with pytest.raises(InputError, match="^blocks.1.ln1.w must be in"):
        from_transformer_lens(theirs, "standard", cfg)


def test_half_precision_is_widened():
    theirs = {key: array.astype(np.float16) for key, array in state_dict_of().items()}
    ours = from_transformer_lens(theirs, "shortformer")
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours.W_E.T, theirs["embed.W_E"])


# Activations

@given(draw_case(), st.sampled_from(["float32", "float64"]))
@settings(deadline=None)
def test_activations_ours_theirs_ours(case, dtype):
    weights, tokens = case.weights.astype(dtype), case.tokens
    acts = forward(weights, tokens)
    cache = activations_to_transformer_lens(weights, tokens, acts)
    back = arrays(activations_from_transformer_lens(cache))
    if weights.n_layers == 0:                   # no cache tells how many heads there are not
        back = {name: back[name] for name in ("residual", "logits")}
    seen = np.tri(tokens.shape[1], dtype=bool)
    for name, array in back.items():
        ours = getattr(acts, name)
        if name == "scores":                    # hidden ones are computed again
            assert_close(array, ours, 1e-5 if dtype == "float32" else 1e-12, np.abs(
                acts.q).max() * np.abs(acts.k).max() * weights.d_head ** 0.5, name)
            array, ours = array[..., seen], ours[..., seen]
        np.testing.assert_array_equal(array, ours, name, strict=True)
    again = activations_to_transformer_lens(weights, tokens,
                                            activations_from_transformer_lens(cache))
    assert_same_arrays(again, cache)


def test_every_hook_shape_and_number_of_a_two_layer_model():
    weights, tokens = random_case(0, b=2, i=4, n_heads=3, d_head=4, d_model=5, d_vocab=7)
    acts, cache = forward(weights, tokens), cache_of()
    assert cache.keys() == {*HOOKS, *(f"blocks.{layer}.{hook}" for layer in range(2)
                                      for hook in BLOCK_HOOKS)}
    assert cache["hook_embed"][1, 2, 3] == weights.W_E[3, tokens[1, 2]]
    assert cache["hook_pos_embed"][1, 2, 3] == weights.W_pos[3, 2]
    assert cache["unembed.hook_in"][1, 2, 3] == acts.residual[2, 1, 2, 3]
    assert cache["unembed.hook_out"][1, 2, 6] == acts.logits[1, 2, 6]
    for layer in range(2):
        block = {hook: cache[f"blocks.{layer}.{hook}"] for hook in BLOCK_HOOKS}
        assert block["hook_resid_pre"][1, 2, 3] == acts.residual[layer, 1, 2, 3]
        assert block["hook_resid_post"][1, 2, 3] == acts.residual[layer + 1, 1, 2, 3]
        np.testing.assert_allclose(block["hook_resid_pre"] + block["hook_attn_out"],
                                   block["hook_resid_post"], rtol=1e-12)
        for name in "qkvz":                     # (b, i, h, e), ours is (b, h, i, e)
            assert block[f"attn.hook_{name}"].shape == (2, 4, 3, 4)
            assert block[f"attn.hook_{name}"][1, 3, 2, 0] == getattr(acts, name)[layer, 1, 2, 3, 0]
        scores, pattern = block["attn.hook_attn_scores"], block["attn.hook_pattern"]
        assert scores.shape == pattern.shape == (2, 3, 4, 4)
        assert scores[1, 2, 3, 0] == acts.scores[layer, 1, 2, 3, 0]
        assert scores[1, 2, 0, 3] == -np.inf and np.isneginf(scores).sum() == 2 * 3 * 6
        assert pattern[1, 2, 3, 0] == acts.pattern[layer, 1, 2, 3, 0] and pattern[1, 2, 0, 3] == 0
    for array in cache.values():
        assert not any(np.shares_memory(array, ours) for ours in arrays(acts).values())


@pytest.mark.parametrize("positions, hooks", [("none", [HOOKS[0], *HOOKS[2:]]),
                                              ("standard", HOOKS)])
def test_hooks_of_no_layers(positions, hooks):
    cache = cache_of(n_layers=0, positions=positions)
    assert sorted(cache) == sorted(hooks)
    embedded = cache["hook_embed"] + cache.get("hook_pos_embed", 0)
    np.testing.assert_array_equal(embedded, cache["unembed.hook_in"])


@pytest.mark.parametrize("key, value, message", [
    ("blocks.0.ln1.hook_scale", np.ones((2, 4, 1)), "got blocks.0.ln1.hook_scale$"),
    ("ln_final.hook_normalized", np.ones((2, 4, 5)), "got ln_final.hook_normalized$"),
    ("blocks.1.attn.hook_rot_q", np.ones((2, 4, 3, 4)), "got blocks.1.attn.hook_rot_q$"),
    ("blocks.1.hook_mlp_out", np.ones((2, 4, 5)), "got blocks.1.hook_mlp_out$"),
    ("blocks.1.attn.hook_q", None, "^blocks.1.attn.hook_q must be in a cache of 2 layers"),
    ("unembed.hook_out", None, "^unembed.hook_out must be in a cache of 2 layers"),
    ("blocks.1.attn.hook_k", np.ones((2, 3, 4, 4)), r"^blocks.1.attn.hook_k must have axes \(b, i, "
     r"n_heads, d_head\) with b=2, i=4, n_heads=3, d_head=4; got shape \(2, 3, 4, 4\)"),
    ("blocks.1.attn.hook_k", np.ones((2, 4, 3, 4), np.float32), "blocks.1.attn.hook_k float32"),
    ("blocks.1.attn.hook_k", OnTheGPU(), "blocks.1.attn.hook_k must be an array; got can't"),
    ("blocks.1.attn.hook_attn_scores", np.ones((2, 3, 4, 4)), "^blocks.1.attn.hook_attn_scores "
     "must be -inf exactly where .*; got 36 other scores of 96"),
    ("blocks.0.attn.hook_attn_scores", np.full((2, 3, 4, 4), -np.inf), "got 60 other scores"),
    ("blocks.1.attn.hook_attn_scores", np.where(np.tri(4) > 0, np.ones((2, 3, 4, 4)), -np.inf),
     "scores must be q·k / √d_head")])
def test_a_wrong_cache_is_named(key, value, message):
    cache = {**cache_of(), key: value}
    with pytest.raises(InputError, match=message):
        activations_from_transformer_lens({key: value for key, value in cache.items()
                                           if value is not None})


def test_hooks_that_follow_from_others_are_dropped():
    cache = cache_of()
    more = {"blocks.0.attn.hook_result": OnTheGPU(), "blocks.1.hook_q_input": OnTheGPU()}
    without = {key: array for key, array in cache.items() if "embed" not in key.split(".")[-1]}
    for other in ({**cache, **more}, without):
        assert_same_arrays(arrays(activations_from_transformer_lens(other)),
                           arrays(activations_from_transformer_lens(cache)))


def test_the_table_says_what_is_transposed():
    transposed = {line.split()[0]: line.endswith("yes") for line in crosswalk().splitlines()[1:]}
    assert transposed == {
        "W_E": True, "W_pos": True, "W_U": True,
        "W_Q": True, "W_K": True, "W_V": True, "W_O": True,
        "residual": False, "q": True, "k": True, "v": True, "z": True, "scores": False,
        "pattern": False, "logits": False, "W_OV": True, "W_QK": False, "ov_circuit": True,
        "qk_circuit": False, "composition_scores": True}
