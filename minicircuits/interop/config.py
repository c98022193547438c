"""What a TransformerLens `cfg` says that weights do not. What has no place here has a name."""

from collections.abc import Mapping
from math import isclose
from os import PathLike
import re

from minicircuits import files
from minicircuits.door import brief
from minicircuits.interop.names import BUFFER
from minicircuits.notation import InputError

ATTENTION_ONLY = "choose a model with attn_only=True"
CAUSAL = "choose a causal model, whose heads each have a key and see the whole context"
LEARNED = "choose a model with positional_embedding_type 'standard' or 'shortformer'"
WITHOUT = "choose a model that has none"
RESCALE = "multiply W_Q and b_Q by {} and set it to {}, and the model stays the same"
NORM = "LayerNorm or RMSNorm"

SETTINGS = {      # of a cfg: the values that have a place here, the name of others, what to do
    "attn_only": ((True,), "MLPs", ATTENTION_ONLY),
    "normalization_type": ((None, "LN", "LNPre", "RMS", "RMSPre"), "{} normalization", WITHOUT),
    "positional_embedding_type": (("standard", "shortformer"), "{} positions", LEARNED),
    "attention_dir": (("causal",), "{} attention", CAUSAL),
    "use_attn_scale": ((True,), "no attention scale", RESCALE.format("√d_head", "True")),
    "scale_attn_by_inverse_layer_idx": (
        (False,), "inverse layer scaling", RESCALE.format("1 / (layer + 1)", "False")),
    **{name: ((False, None, -1), what, WITHOUT) for name, what in {
        "use_local_attn": "local attention", "use_attention_sinks": "attention sinks",
        "attn_scores_soft_cap": "soft-capped scores", "output_logits_soft_cap":
        "soft-capped logits", "use_qk_norm": "norms of queries and keys", "clip_qkv":
        "clipped queries, keys and values", "use_logn_attn": "queries scaled by log n",
        "scale_embedding": "scaled embeddings", "post_embedding_ln": "a norm of the embedding",
        "use_normalization_before_and_after": "norms of what layers write",
        "rmsnorm_uses_offset": "RMSNorm with an offset", "num_experts": "MLPs of experts",
        "load_in_4bit": "weights of 4 bits"}.items()},
}
KEYS = {          # of a state dict or a cache: what they show, what to do
    r"\bmlp\b|\bln2\b|hook_mlp": ("MLPs", ATTENTION_ONLY),
    r"\brotary_|\bhook_rot_": ("rotary positions", LEARNED),
    r"\b_[Wb]_[KV]$": ("grouped queries", CAUSAL),
    r"\brel_pos_bias\b": ("relative positions", LEARNED),
    r"\b[qk]_norm\b": ("norms of queries and keys", WITHOUT),
    r"\bsinks$": ("attention sinks", WITHOUT),
    r"\bembed\.ln\b": ("a norm of the embedding", WITHOUT),
    r"\bln\w*\b": (NORM, "give the model itself or its cfg, which must say which one"),
}
FOREIGN = re.compile(rf"{BUFFER.pattern}|.*\bln\w*\.|embed.weight")  # what ours never has
ASK = ("a state dict does not tell which norm its model has (LNPre has no weights), its attention "
       "direction or scale; give the model itself, cfg=model.cfg, the path of a JSON file of "
       "that, or cfg={'normalization_type': None} if it has none and the rest is as usual")


def told(keys, positions, cfg):
    """The positions, the norm (or None) and all settings of the state dict with these keys.

    Raises InputError if too little is told, or what has no place here.
    """
    for key in keys:
        what, advice = concept(key)
        expect(what in (None, NORM), what, advice, key)
    if cfg is None and any(map(FOREIGN.match, keys)):
        raise InputError(ASK)
    settings = {"normalization_type": None} if cfg is None else as_mapping(cfg)
    for name, (values, what, advice) in SETTINGS.items():
        value = settings.get(name, values[0])
        expect(value in values, what.format(value), advice, f"{name}={value!r:.40}")
    norm, eps, n_heads, n_keys, theirs = map(settings.get, (
        "normalization_type", "eps", "n_heads", "n_key_value_heads", "positional_embedding_type"))
    if "normalization_type" not in settings or norm and not isinstance(eps, (int, float)) or (
            "embed.weight" in keys and (type(n_heads) is not int or n_heads < 1)):
        raise InputError("cfg must be TransformerLens's and say normalization_type, eps and n_heads"
                         f"; got {norm!r:.40}, {eps!r:.40} and {n_heads!r:.40}")
    expect(n_keys in (None, n_heads), "grouped queries", CAUSAL,
           f"n_key_value_heads={n_keys!r:.40}")
    expect(not settings.get("final_rms") or str(norm).startswith("RMS"),
           "RMSNorm at the end alone", WITHOUT, "final_rms=True")
    if positions is None and theirs is None:
        raise InputError("positions must be given with a state dict: shortformer, standard or none")
    if None not in (positions, theirs) and positions not in (theirs, "none"):
        raise InputError(f"positions must be {theirs!r}, as the cfg says; got {positions!r}")
    return positions or theirs, norm, settings


def as_mapping(cfg):
    """A cfg as a mapping: of an object its attributes, of the path of a JSON file its content."""
    cfg = files.read_json(cfg) if isinstance(cfg, (str, PathLike)) else getattr(
        cfg, "__dict__", cfg)
    if not isinstance(cfg, Mapping):
        raise InputError(f"cfg must be a cfg, a dict or a JSON file of one; got {brief(cfg)}")
    return cfg


def check_sizes(settings, weights):
    """Raises InputError unless these are the sizes, and the attention scale, of `weights`."""
    of_heads = ["n_heads", "d_head"] if weights.n_layers else []
    for name in ["n_layers", "d_model", "d_vocab", "n_ctx", *of_heads]:
        size, theirs = getattr(weights, name), settings.get(name, -1)
        if size is not None and theirs not in (-1, size):
            raise InputError(f"the cfg must be that of the weights, with {name}={size}; "
                             f"got {theirs!r:.40}")
    scale, usual = settings.get("attn_scale"), weights.d_head ** 0.5
    expect(not of_heads or scale in (-1, None) or isinstance(scale, (int, float))
           and isclose(scale, usual), "another attention scale",
           RESCALE.format("√d_head / attn_scale", usual), f"attn_scale={scale!r:.40}")


def concept(key):
    """What a key shows that has no place here as it stands, and what to do; or (None, None)."""
    return next((shown for pattern, shown in KEYS.items() if re.search(pattern, key)), (None, None))


def expect(fine, what, advice, came):
    """Raises InputError, in the name of the concept, unless `fine`."""
    if not fine:
        raise InputError(f"the model has {what}, for which there is no place here; {advice}; "
                         f"got {came}")


def refuse(what, key):
    """Raises InputError for a key that has no place here, by its concept where it has one."""
    expect(not concept(key)[0], *concept(key), key)
    raise InputError(f"{what} must hold attention, embeddings and unembedding alone; got {key}")
