"""The tables: ours and theirs, name by name and axis by axis; see the room's page."""

import re
from typing import NamedTuple

import numpy as np

from minicircuits.notation import InputError


class Row(NamedTuple):
    """One object on both sides: `theirs` is `ours` with its axes in the order `their_axes`."""
    ours: str          # a field of Weights or Activations, of one layer l; a function
    axes: str
    theirs: str        # a key of a state dict, of a cache; a property of a HookedTransformer
    their_axes: str


WEIGHTS = [
    Row("W_E", "d u", "embed.W_E", "u d"),
    Row("W_pos", "d p", "pos_embed.W_pos", "p d"),
    Row("W_Q", "h e d", "blocks.{l}.attn.W_Q", "h d e"),
    Row("W_K", "h e d", "blocks.{l}.attn.W_K", "h d e"),
    Row("W_V", "h e d", "blocks.{l}.attn.W_V", "h d e"),
    Row("W_O", "h d e", "blocks.{l}.attn.W_O", "h e d"),
    Row("W_U", "v d", "unembed.W_U", "d v"),
]
ACTIVATIONS = [
    Row("residual", "b i d", "blocks.{l}.hook_resid_pre", "b i d"),
    Row("q", "b h i e", "blocks.{l}.attn.hook_q", "b i h e"),
    Row("k", "b h j e", "blocks.{l}.attn.hook_k", "b j h e"),
    Row("v", "b h j e", "blocks.{l}.attn.hook_v", "b j h e"),
    Row("scores", "b h i j", "blocks.{l}.attn.hook_attn_scores", "b h i j"),     # masked: −∞
    Row("pattern", "b h i j", "blocks.{l}.attn.hook_pattern", "b h i j"),
    Row("z", "b h i e", "blocks.{l}.attn.hook_z", "b i h e"),
    Row("residual", "b i d", "unembed.hook_in", "b i d"),                        # the last
    Row("logits", "b i v", "unembed.hook_out", "b i v"),
]
CIRCUITS = [
    Row("W_OV", "out in", "OV[l, h]", "in out"),
    Row("W_QK", "destination source", "QK[l, h]", "destination source"),
    Row("ov_circuit", "v u", "W_E @ OV[l, h] @ W_U", "u v"),
    Row("qk_circuit", "destination source", "W_E @ QK[l, h] @ W_E.T", "destination source"),
    Row("composition_scores", "l h m g", "all_composition_scores(kind)", "m g l h"),
]
# What `Weights` have no field for: folded in on the way in, zero or absent on the way out.
BIASES = [
    *(Row(f"b_{letter}", "h e", f"blocks.{{l}}.attn.b_{letter}", "h e") for letter in "QKV"),
    Row("b_O", "d", "blocks.{l}.attn.b_O", "d"),
    Row("b_U", "v", "unembed.b_U", "v"),
]
NORMS = [Row(f"{norm}_{letter}", "d", f"{theirs}.{letter}", "d") for letter in "wb"
         for norm, theirs in (("ln1", "blocks.{l}.ln1"), ("ln_final", "ln_final"))]
# A TransformerBridge keeps what torch's own layers hold: the heads of a layer in one matrix.
BRIDGE = [
    Row("W_E", "d u", "embed.weight", "u d"),
    Row("W_pos", "d p", "pos_embed.weight", "p d"),
    *(Row(f"W_{letter}", "h e d", f"blocks.{{l}}.attn.{letter.lower()}.weight", "h·e d")
      for letter in "QKV"),
    Row("W_O", "h d e", "blocks.{l}.attn.o.weight", "d h·e"),
    Row("W_U", "v d", "unembed.weight", "v d"),
    *(Row(f"b_{letter}", "h e", f"blocks.{{l}}.attn.{letter.lower()}.bias", "h·e")
      for letter in "QKV"),
    Row("b_O", "d", "blocks.{l}.attn.o.bias", "d"),
    Row("b_U", "v", "unembed.bias", "v"),
    *(row._replace(theirs=row.theirs[:-1] + {"w": "weight", "b": "bias"}[row.theirs[-1]])
      for row in NORMS),
]
SIZES = {"d": "d_model", "e": "d_head", "h": "n_heads", "p": "n_ctx", "u": "d_vocab",
         "v": "d_vocab", "j": "i"}                  # letters of one size
WRAPPERS = re.compile(r"^((module|model|_orig_mod)\.)+|\b_orig_mod\.")    # what torch adds
BUFFER = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE)")
DERIVED = re.compile(r"hook_(pos_)?embed|blocks\.\d+\.(hook_(attn_in|[qkv]_input|attn_out"
                     r"|resid_post)|attn\.hook_result)")


def crosswalk(*names: str) -> str:
    """The rows of these objects, or all, as the lines of a table."""
    rows = [(*row, "no" if row.axes == row.their_axes else "yes")
            for row in WEIGHTS + ACTIVATIONS + CIRCUITS if not names or row.ours in names]
    lines = [("ours", "axes", "TransformerLens", "axes", "transposed"), *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def reordered(array, axes, new_axes):
    """A copy of `array` with its axes, named by letters, in another order."""
    if axes != new_axes:                          # a letter may be there twice: d d
        axes = axes.split()
        array = np.transpose(array, [axes.index(axis) for axis in new_axes.split()])
    return np.array(array, order="C")


def split_heads(array, axes, n_heads):
    """`array` and its axes, where its axis h·e, which only a bridge has, becomes two: h and e.

    Not where n_heads does not divide it: then the array has too few axes, as the caller sees.
    """
    place = len(axes.partition("h·e")[0].split())
    if "h·e" in axes and array.ndim == len(axes.split()) and not array.shape[place] % n_heads:
        array = array.reshape(*array.shape[:place], n_heads, -1, *array.shape[place + 1:])
    return array, axes.replace("·", " ")


def unwrapped(theirs):
    """A state dict without the prefixes of torch's wrappers, or InputError if two keys agree."""
    keys = {WRAPPERS.sub("", key): key for key in theirs}
    if len(keys) < len(theirs):
        raise InputError("a state dict must hold one model; got a key with two prefixes")
    return {key: theirs[wrapped] for key, wrapped in keys.items()}


def each_array(rows, n_layers):
    """Each array of theirs: its row, its index in our array, its key."""
    for row in rows:
        if "{l}" in row.theirs:
            for layer in range(n_layers):
                yield row, layer, row.theirs.format(l=layer)
        else:
            yield row, n_layers if row.ours == "residual" else ..., row.theirs
