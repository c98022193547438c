"""TransformerLens's names and orientation: our weights as its state dict, and the reverse.

Its matrices act on the right, so each is the transpose of ours (names of its 3.x):

    W_E            (d, u)          embed.W_E                  (u, d)
    W_pos          (d, p)          pos_embed.W_pos            (p, d)
    W_Q W_K W_V    (l, h, e, d)    blocks.{l}.attn.W_Q …      (h, d, e)
    W_O            (l, h, d, e)    blocks.{l}.attn.W_O        (h, e, d)
    W_U            (v, d)          unembed.W_U                (d, v)

So its OV, W_V @ W_O, is ours transposed, and its QK, W_Q @ W_K.T, is ours as it is:

>>> import minicircuits as mc
>>> from minicircuits.circuits.heads import W_OV, W_QK
>>> weights = mc.init_weights(1, 2, 8, 4, 6, 5, "standard", np.random.default_rng(0))
>>> theirs = to_transformer_lens(weights)
>>> Q, K, V, O = (theirs[f"blocks.0.attn.W_{name}"][1] for name in "QKVO")
>>> bool(np.allclose(Q @ K.T, W_QK(weights, 0, 1).AB))
True
>>> bool(np.allclose(V @ O, W_OV(weights, 0, 1).AB.T))
True

A state dict does not tell the whole model. Ask its `cfg`: attn_only must be True,
normalization_type None ("LNPre" has no parameters that would show), attn_scale √d_head, and
positional_embedding_type is what `positions` says here. Activations are not translated, and
torch is not imported.
"""

import re

import numpy as np

from minicircuits.notation import WEIGHT_AXES, InputError, Weights, check_axes

OUTSIDE_BLOCKS = {"W_E": "embed.W_E", "W_pos": "pos_embed.W_pos", "W_U": "unembed.W_U"}
BLOCK = re.compile(r"blocks\.(\d+)\.")
BIAS = re.compile(r"blocks\.\d+\.attn\.b_[QKVO]|unembed\.b_U")
BUFFER = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE)")


def from_transformer_lens(state_dict, positions):
    """The `Weights` in a TransformerLens state dict, as copies, in its dtype.

    Parameters
    ----------
    state_dict : key -> array, or what `np.asarray` makes one of (a torch tensor on the CPU)
    positions : "shortformer", "standard" or "none"; with "none" a W_pos must be all zeros,
        since TransformerLens always has one, or absent

    Biases that are all zeros, and the buffers `mask` and `IGNORE`, are dropped. With no layers
    n_heads and d_head are not in a state dict: both become 1.

    Raises InputError with the name of the key: other biases, norms, rotary positions, MLPs or
    any unknown key; a key or layer left out; a shape or a dtype that disagrees.
    """
    arrays = {key: _array(key, value) for key, value in state_dict.items()
              if not BUFFER.fullmatch(key)}
    for key in list(arrays):
        if BIAS.fullmatch(key) or (positions, key) == ("none", OUTSIDE_BLOCKS["W_pos"]):
            if np.any(array := arrays.pop(key)):
                raise InputError(f"{key} must be zero, there is no place for it; got "
                                 f"{np.count_nonzero(array)} other numbers of {array.size}")
    n_layers = len({match[1] for match in map(BLOCK.match, state_dict) if match})
    places = list(_places(n_layers, positions))
    for _, _, key in places:
        if key not in arrays:
            raise InputError(f"{key} must be in a state dict of {n_layers} layers with "
                             f"positions={positions!r}; it is missing")
    if unknown := arrays.keys() - {key for _, _, key in places}:
        raise InputError(f"a state dict must hold attention, embeddings and unembedding alone; "
                         f"got {min(unknown)}")
    sizes, dtype = {"n_layers": n_layers}, arrays["embed.W_E"].dtype
    if n_layers == 0:
        sizes |= {"n_heads": 1, "d_head": 1}
    for name, _, key in places:
        *outer, rows, columns = WEIGHT_AXES[name]
        check_axes(key, arrays[key], (*outer[1:], columns, rows), sizes)
        if arrays[key].dtype != dtype:
            raise InputError(f"weights must share one dtype; got embed.W_E {dtype}, {key} "
                             f"{arrays[key].dtype}")
    weights = {name: np.empty([sizes[axis] for axis in axes], dtype)
               for name, axes in WEIGHT_AXES.items() if sizes.keys() >= set(axes)}
    for name, index, key in places:
        weights[name][index] = arrays[key].mT
    return Weights(**{"W_pos": None, **weights}, positions=positions)


def to_transformer_lens(weights):
    """The state dict, key -> copied array, of a TransformerLens model that computes the same.

    Its biases are there, as zeros; its buffers are not (their shape differs between versions),
    so load it with `strict=False`. With positions="none" there is no W_pos: set the model's
    to zero yourself.
    """
    state_dict = {key: np.array(getattr(weights, name)[index].mT, order="C")
                  for name, index, key in _places(weights.n_layers, weights.positions)}
    shapes = {"b_Q": weights.W_Q.shape[1:3], "b_K": weights.W_K.shape[1:3],
              "b_V": weights.W_V.shape[1:3], "b_O": weights.d_model}
    for layer in range(weights.n_layers):
        state_dict |= {f"blocks.{layer}.attn.{bias}": np.zeros(shape, weights.dtype)
                       for bias, shape in shapes.items()}
    state_dict["unembed.b_U"] = np.zeros(weights.d_vocab, weights.dtype)
    return state_dict


def _places(n_layers, positions):
    """For each array of a state dict: our name, the index in our array, its key."""
    for name in WEIGHT_AXES:
        if name not in OUTSIDE_BLOCKS:
            for layer in range(n_layers):
                yield name, layer, f"blocks.{layer}.attn.{name}"
        elif (name, positions) != ("W_pos", "none"):
            yield name, ..., OUTSIDE_BLOCKS[name]


def _array(key, value):
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:      # torch: a GPU, bfloat16, a gradient
        raise InputError(f"{key} must be an array; got {error}") from None
