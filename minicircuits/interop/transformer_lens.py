"""Weights and activations, in from TransformerLens and out to it."""

from collections.abc import Mapping
import re

import numpy as np

from minicircuits.interop.names import (ACTIVATIONS, BIAS, BUFFER, DERIVED, SIZES, WEIGHTS,
                                        each_array, reordered)
from minicircuits.notation import (Activations, InputError, Tokens, Weights, check_axes,
                                   check_tokens)


def from_transformer_lens(state_dict: Mapping, positions: str) -> Weights:
    """The `Weights` in a TransformerLens state dict, as copies, in its dtype.

    state_dict : key -> array, or what `np.asarray` makes one of (a torch tensor on the CPU).
    positions : "shortformer", "standard" or "none". With "none" a W_pos must be absent or all
    zeros, since TransformerLens always has one. So must biases. The buffers `mask` and `IGNORE`
    are dropped. With no layers n_heads and d_head are not in a state dict: both become 1.

    Raises InputError with the name of the key: other biases, norms, rotary positions, MLPs or
    any unknown key; a key or layer left out; a shape or a dtype that disagrees.
    """
    zero = [key for key in state_dict
            if BIAS.fullmatch(key) or (positions, key) == ("none", "pos_embed.W_pos")]
    for key in zero:
        if (array := _array(key, state_dict[key])).any():
            raise InputError(f"{key} must be zero, there is no place for it; got "
                             f"{np.count_nonzero(array)} other numbers of {array.size}")
    rows = [row for row in WEIGHTS if (row.ours, positions) != ("W_pos", "none")]
    weights = _gathered(state_dict, [*zero, *filter(BUFFER.fullmatch, state_dict)], rows,
                        f"a state dict with positions={positions!r}")
    return Weights(**{"W_pos": None, **weights}, positions=positions)


def to_transformer_lens(weights: Weights) -> dict[str, np.ndarray]:
    """The state dict, key -> copied array, of a TransformerLens model that computes the same.

    Its biases are there, as zeros; its buffers are not (their shape differs between versions),
    so load it with `strict=False`. With positions="none" there is no W_pos: set the model's
    to zero yourself.
    """
    ours = dict(weights.items())
    state_dict = {key: reordered(ours[row.ours][index], row.axes, row.their_axes)
                  for row, index, key in each_array(WEIGHTS, weights.n_layers) if row.ours in ours}
    per_head = (weights.n_heads, weights.d_head)
    for layer in range(weights.n_layers):
        for bias, shape in zip("QKVO", (per_head, per_head, per_head, weights.d_model)):
            state_dict[f"blocks.{layer}.attn.b_{bias}"] = np.zeros(shape, weights.dtype)
    return {**state_dict, "unembed.b_U": np.zeros(weights.d_vocab, weights.dtype)}


def activations_to_transformer_lens(weights: Weights, tokens: Tokens,
                                    acts: Activations) -> dict[str, np.ndarray]:
    """What `run_with_cache(tokens)` of that model caches: hook name -> copied array.

    acts : `forward(weights, tokens)`. These are all hooks that its attention-only models have
    by default; the logits are unembed.hook_out. Scores are −∞ where j > i. Without positions
    there is no hook_pos_embed. Not for gradients, whose scores are 0 there.
    """
    tokens = check_tokens(weights, tokens)
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


def activations_from_transformer_lens(cache: Mapping) -> Activations:
    """The `Activations` in a TransformerLens cache, as copies, in its dtype.

    cache : hook name -> array, or a detached torch tensor on the CPU, with its batch axis.
    What follows from the others (embeddings, resid_post, attn_out, result, the heads' inputs)
    is dropped. Its scores are −∞ where j > i; there ours are computed here, as q·k / √d_head.
    With no layers n_heads and d_head become 1.

    Raises InputError with the name of the hook: norms, rotary positions, MLPs or any unknown
    hook; a hook or layer left out; a shape or a dtype that disagrees; a mask that is not causal.
    """
    acts = _gathered(cache, list(filter(DERIVED.fullmatch, cache)), ACTIVATIONS, "a cache")
    scores, q, k = acts["scores"], acts["q"], acts["k"]
    hidden = ~np.tri(scores.shape[-1], dtype=bool)                                # j > i
    for layer, wrong in enumerate(np.isneginf(scores) != hidden):
        if wrong.any():
            raise InputError(f"blocks.{layer}.attn.hook_attn_scores must be -inf exactly where "
                             f"the source comes after the destination; got {wrong.sum()} "
                             f"other scores of {wrong.size}")
    np.copyto(scores, q @ k.mT / np.sqrt(q.shape[-1], dtype=q.dtype), where=hidden)
    return Activations(**acts)


def _gathered(theirs, dropped, rows, what):
    """{our name: our array}, copied from theirs, each of which has its place or is dropped."""
    n_layers = len(set(re.findall(r"blocks\.(\d+)\.", " ".join(theirs))))
    arrays = {key: _array(key, theirs[key]) for key in theirs if key not in dropped}
    places = list(each_array(rows, n_layers))
    first, sizes = places[0][2], {} if n_layers else {"n_heads": 1, "d_head": 1}
    for row, _, key in places:
        if key not in arrays:
            raise InputError(f"{key} must be in {what} of {n_layers} layers; it is missing")
        check_axes(key, arrays[key], [SIZES.get(axis, axis) for axis in row.their_axes.split()],
                   sizes)
        if arrays[key].dtype != arrays[first].dtype:
            raise InputError(f"{what} must have one dtype; got {first} {arrays[first].dtype}, "
                             f"{key} {arrays[key].dtype}")
    if unknown := arrays.keys() - {key for _, _, key in places}:
        raise InputError(f"{what} must hold attention, embeddings and unembedding alone; "
                         f"got {min(unknown)}")
    gathered = {}
    for row in rows:
        shape = [sizes[SIZES.get(axis, axis)] for axis in row.axes.split()]
        if "{l}" in row.theirs:
            shape = [n_layers + (row.ours == "residual"), *shape]
        gathered.setdefault(row.ours, np.empty(shape, arrays[first].dtype))
    for row, index, key in places:
        gathered[row.ours][index] = reordered(arrays[key], row.their_axes, row.axes)
    return gathered


def _array(key, value):
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:      # torch: a GPU, bfloat16, a gradient
        raise InputError(f"{key} must be an array; got {error}") from None
