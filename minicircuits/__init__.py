"""minicircuits: the mathematics of transformer circuits, exact and small.

The contents page: each name and the module that holds it, and the rooms. Nothing is imported,
not even NumPy, until a name is used. What editors and type checkers read instead is
`__init__.pyi`; it says the same.
"""

from importlib import import_module

_MODULES = {
    "door": "InputError",
    "notation": "Weights Activations NormalizedWeights NormalizedActivations relative_error",
    "files.weights": "save load",
    "model.transformer": "init_weights forward backward loss",
    "model.fast": "loss_and_gradients",
    "circuits.low_rank": "LowRank",
    "circuits.biases": "fold_biases resting_heads without_biases",
    "circuits.normalization": "fold_normalization",
    "circuits.heads": "direct_path ov_circuit qk_circuit positional_qk_circuits W_OV W_QK",
    "circuits.expansion": "expand_logits logits_by_order ledger count_paths",
    "circuits.score_expansion": "expand_scores split_scores variance_shares rebuild",
    "circuits.copying": "copying_score copying_companions",
    "circuits.composition": "composition_scores composition_excess composition_baseline",
    "circuits.skip_trigrams": "skip_trigrams",
    "circuits.induction": "induction_eigenvalues matching_circuit nearest_matches",
    "behavior.patterns": "prefix_matching_scores previous_token_scores first_token_scores "
                         "duplicate_token_scores attention_on offset_profiles position_share "
                         "value_weighted_patterns",
    "behavior.in_context": "induction_scores ordered_versus_shuffled random_blocks",
    "behavior.ablation": "term_importance virtual_heads without_heads loss_without_heads",
    "behavior.attribution": "head_effects source_effects patch_path",
    "behavior.sampling": "sample",
    "behavior.examples_in_text": "occurrences bugs",
    "training.model_file": "save_model load_model load_pretrained",
    "training.vocabulary": "Vocabulary",
    "training.text": "load_text",
    "training.recipe": "Recipe first_weights",
    "training.trainer": "first_state train",
    "interop.open_model": "open_model",
    "interop.transformer_lens": "from_transformer_lens to_transformer_lens "
                                "activations_from_transformer_lens "
                                "activations_to_transformer_lens",
}
_ROOMS = {room: room for room in (
    "notation", "model", "circuits", "behavior", "training", "plain", "findings", "terminal",
    "report", "commands", "testing", "files", "interop")} | {"hand_built": "circuits.hand_built"}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted([*_HOME, "hand_built"])
__version__ = "0.1.0"


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"minicircuits.{_HOME[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"minicircuits.{_ROOMS[name]}")
    else:
        raise AttributeError(f"module 'minicircuits' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
