"""Weights and activations, in from TransformerLens and out to it."""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from minicircuits.circuits.biases import (always_1, fold_biases, heads_at_work,
                                          positions_undivided, without_biases)
from minicircuits.circuits.normalization import fold_normalization
from minicircuits.door import as_array, brief, door
from minicircuits.interop.config import ASK, check_sizes, refuse, told
from minicircuits.interop.names import (ACTIVATIONS, BIASES, BRIDGE, BUFFER, DERIVED, NORMS, SIZES,
                                        WEIGHTS, each_array, reordered, split_heads, unwrapped)
from minicircuits.notation import (WEIGHT_AXES, Activations, InputError, NormalizedWeights, Tokens,
                                   Weights, check_acts, check_axes, check_tokens, relative_error)

HALF = 0.03           # more than the roundings of scores in bfloat16


@door
def from_transformer_lens(source: Any, positions: str | None = None, cfg: Any = None) -> Weights:
    """The `Weights` that compute what a TransformerLens model computes, as copies.

    source : a HookedTransformer or TransformerBridge, whose own `cfg` is read; or a state dict of
        one, key -> array or torch tensor. Prefixes of wrappers (`module.`, `_orig_mod.`) and
        the buffers `mask` and `IGNORE` are passed over.
    positions : "shortformer", "standard" or "none", unless the cfg says it. With "none" a W_pos
        must be absent or all zeros, since TransformerLens always has one.
    cfg : of a state dict: the model's cfg, a dict of it, or the path of a JSON file of that. One
        that TransformerLens made, as buffers or biases show, needs it. Without it you say that
        there is no norm, attention is causal, and scores are divided by √d_head.

    Biases become a dimension and a head (`fold_biases`). LayerNorm and RMSNorm are folded too,
    and the result is then a `NormalizedWeights`. float16 and bfloat16 become float32, other dtypes
    stay; tensors may be on a GPU. With no layers n_heads and d_head become 1.

    Raises InputError with the name of what has no place here: MLPs, rotary positions, grouped
    queries, bidirectional attention, no attention scale and others. A key left out or unknown,
    and a shape or dtype that disagrees, are named too.
    """
    if hasattr(source, "state_dict"):
        if cfg is None:
            cfg = getattr(getattr(source, "module", source), "cfg", None)    # in a DataParallel
        source = source.state_dict()
    if not isinstance(source, Mapping) or not all(isinstance(key, str) for key in source):
        raise InputError("source must be a state dict or a TransformerLens model; "
                         f"got {type(source).__name__}")
    theirs = unwrapped(source)
    positions, norm, settings = told(theirs, positions, cfg)
    arrays = {key: _array(key, theirs[key]) for key in theirs if not BUFFER.fullmatch(key)}
    table = BRIDGE if "embed.weight" in arrays else [*WEIGHTS, *BIASES, *NORMS]
    kinds = {re.sub(r"(?<=^blocks\.)\d+", "{l}", key) for key in arrays}
    gains = {"LN": "wb", "RMS": "w"}.get(norm, "")
    rows = [row for row in table if (row.ours, positions) != ("W_pos", "none") and (
        row.ours[-1] in gains if row.ours.startswith("ln")
        else row.ours in WEIGHT_AXES or row.theirs in kinds)]
    for key in {"pos_embed.W_pos", "pos_embed.weight"} & kinds if positions == "none" else ():
        if arrays.pop(key).any():
            raise InputError(f"{key} must be zero with positions='none'; got other numbers")
    found = _gathered(arrays, rows, f"a state dict with positions={positions!r}",
                      settings.get("n_heads"))
    biases, norms = ({name: found.pop(name) for name in [*found] if name.startswith(start)}
                     for start in ("b_", "ln"))
    if cfg is None and any(bias.any() for bias in biases.values()):
        raise InputError(ASK)
    weights = Weights(**{"W_pos": None} | found, positions=positions)
    check_sizes(settings, weights)
    if norm is None:
        return fold_biases(weights, **biases)
    return fold_normalization(weights, norm, settings["eps"], biases, norms)


@door
def to_transformer_lens(weights: Weights) -> dict[str, np.ndarray]:
    """The state dict, key -> copied array, of a TransformerLens model that computes the same.

    Its biases are there, as zeros; its buffers are not (their shape differs between versions),
    so load it with `strict=False`. With positions="none" there is no W_pos: set the model's
    to zero yourself. Where biases were folded in, it is a model one dimension and, for b_O, one
    head larger, of which all biases are still zero.

    `NormalizedWeights` are a model with normalization_type="RMSPre" and their eps, which has the
    biases as biases. Raises InputError for those with "shortformer" positions, since gains stand
    between what is divided and what is not.
    """
    biases = {}
    if isinstance(weights, NormalizedWeights):
        weights, biases = with_biases(weights)
    ours = dict(weights.items())
    state_dict = {key: reordered(ours[row.ours][index], row.axes, row.their_axes)
                  for row, index, key in each_array(WEIGHTS, weights.n_layers) if row.ours in ours}
    for row, index, key in each_array(BIASES, weights.n_layers):
        zero = np.zeros([getattr(weights, SIZES[axis]) for axis in row.their_axes.split()],
                        weights.dtype)
        state_dict[key] = biases[row.ours][index].copy() if row.ours in biases else zero
    return state_dict


def with_biases(weights):
    """What `fold_normalization` folds together: the matrices as `Weights`, and b_Q, b_K, b_O, b_U.

    What reads the 1 is a bias. Every head that takes it as its value adds it everywhere, since
    rows of a pattern sum to 1.
    """
    n, heads = weights.n_normalized, heads_at_work(weights)
    if positions_undivided(weights) or not always_1(weights)[n:].all():
        raise InputError("normalized weights with shortformer positions have no place in "
                         "TransformerLens, which multiplies these by the gains of its norms; keep "
                         "the model that they came from")
    ones = {name: getattr(weights, f"W_{name}")[..., n:].sum(-1) for name in "QKVU"}
    b_O = np.einsum("lhde,lhe->ld", weights.W_O[:, :, :n], ones["V"])
    return without_biases(weights), {"b_Q": ones["Q"][:, heads], "b_K": ones["K"][:, heads],
                                     "b_O": b_O, "b_U": ones["U"]}


@door
def activations_to_transformer_lens(weights: Weights, tokens: Tokens,
                                    acts: Activations) -> dict[str, np.ndarray]:
    """What `run_with_cache(tokens)` of that model caches: hook name -> copied array.

    acts : `forward(weights, tokens)`. These are all hooks that its attention-only models have
    by default; the logits are unembed.hook_out. Scores are −∞ where j > i. Without positions
    there is no hook_pos_embed. Not for gradients, whose scores are 0 there.
    """
    if isinstance(weights, NormalizedWeights):
        raise InputError("normalized weights have dimensions that a cache has not; ask a "
                         "TransformerLens model with the weights of to_transformer_lens")
    tokens = check_tokens(weights, tokens)
    check_acts(weights, tokens, acts)
    cache = {"hook_embed": weights.W_E.T[tokens]}
    if weights.W_pos is not None:
        cache["hook_pos_embed"] = np.tile(weights.W_pos.T[:tokens.shape[1]], (len(tokens), 1, 1))
    for row, index, key in each_array(ACTIVATIONS, weights.n_layers):
        cache[key] = reordered(getattr(acts, row.ours)[index], row.axes, row.their_axes)
        if row.ours == "scores":
            cache[key][..., ~np.tri(tokens.shape[1], dtype=bool)] = -np.inf
    for layer in range(weights.n_layers):
        out = np.tensordot(acts.z[layer], weights.W_O[layer], ((1, 3), (0, 2)))   # Σ_h W_O z
        cache[f"blocks.{layer}.hook_attn_out"] = out
        cache[f"blocks.{layer}.hook_resid_post"] = acts.residual[layer + 1].copy()
    return cache


@door
def activations_from_transformer_lens(cache: Any) -> Activations:
    """The `Activations` in a TransformerLens cache, as copies, in its dtype.

    cache : of a HookedTransformer, hook name -> array or torch tensor, with its batch axis.
    What follows from the others (embeddings, resid_post, attn_out, result, the heads' inputs)
    is dropped. Its scores are −∞ where j > i; there ours are computed here, as q·k / √d_head.
    With no layers n_heads and d_head become 1. A model with biases caches no constant dimension
    and no head that rests: of the weights with these, `forward` has the activations.

    Raises InputError with the name of the hook: norms, rotary positions, MLPs or any unknown
    hook; a hook or layer left out; a shape or a dtype that disagrees; a mask that is not causal;
    other scores than q·k / √d_head.
    """
    if not (hasattr(cache, "keys") and all(isinstance(key, str) for key in cache)):
        raise InputError(f"cache must map names of hooks to arrays; got {brief(cache)}")
    acts = _gathered({key: _array(key, cache[key]) for key in cache if not DERIVED.fullmatch(key)},
                     ACTIVATIONS, "a cache")
    scores, q = acts["scores"], acts["q"]
    own = q @ acts["k"].mT / np.sqrt(q.shape[-1], dtype=q.dtype)
    hidden = ~np.tri(scores.shape[-1], dtype=bool)                                # j > i
    for layer, wrong in enumerate(np.isneginf(scores) != hidden):
        if wrong.any():
            raise InputError(f"blocks.{layer}.attn.hook_attn_scores must be -inf exactly where "
                             f"the source comes after the destination; got {wrong.sum()} "
                             f"other scores of {wrong.size}")
    error = relative_error(scores[..., ~hidden], own[..., ~hidden], np.abs(own).max(initial=0))
    if not error < HALF:
        raise InputError("scores must be q·k / √d_head: no other scale, cap or bias has a place "
                         f"here; got a relative difference of {error:.2g}")
    np.copyto(scores, own, where=hidden)
    return Activations(**acts)


def n_layers_of(theirs):
    """How many layers the keys of a state dict or a cache name."""
    return len(set(re.findall(r"blocks\.(\d+)\.", " ".join(theirs))))


def _gathered(arrays, rows, what, n_heads=None):
    """{our name: our array}, copied from all of theirs, each of which must have its place."""
    n_layers = n_layers_of(arrays)
    places, sizes = list(each_array(rows, n_layers)), {} if n_layers else {"n_heads": 1,
                                                                           "d_head": 1}
    for row, _, key in places:
        if key not in arrays:
            raise InputError(f"{key} must be in {what} of {n_layers} layers; it is missing")
        arrays[key], axes = split_heads(arrays[key], row.their_axes, n_heads)
        check_axes(key, arrays[key], [SIZES.get(axis, axis) for axis in axes.split()], sizes)
        first, dtype = places[0][2], arrays[places[0][2]].dtype
        if arrays[key].dtype != dtype:
            raise InputError(f"{what} must have one dtype; got {first} {dtype}, "
                             f"{key} {arrays[key].dtype}")
    if unknown := arrays.keys() - {key for _, _, key in places}:
        refuse(what, min(unknown))
    found = {}
    for row in rows:
        layers = [n_layers + (row.ours == "residual")] if "{l}" in row.theirs else []
        shape = [sizes[SIZES.get(axis, axis)] for axis in row.axes.split()]
        found.setdefault(row.ours, np.empty([*layers, *shape], dtype))
    for row, index, key in places:
        found[row.ours][index] = reordered(arrays[key], row.their_axes.replace("·", " "), row.axes)
    return found


def _array(key, value):
    """An array of theirs as one of NumPy's, of four bytes a number or more."""
    array = as_array(key, value)
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
