"""What the page shows beside what the terminal says, and where it opens."""

import numpy as np

from minicircuits.behavior import excerpt
from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.in_context import formed
from minicircuits.circuits.biases import positions_undivided, without_biases
from minicircuits.findings.effects import confident, log_shares, prediction
from minicircuits.findings.heads import (composition_matrices, eigenvalue_pairs, head_dump,
                                         head_spectra, roles, unwatched)
from minicircuits.training.model_file import log_of

MAX_TOKENS = 128          # of a context that is shown


def figures(study, found, watch=unwatched):
    """What the figures of a page show of a `Study` and of all its `sections`, by figure."""
    weights, n_layers = study.weights, study.weights.n_layers
    shown = {"title": f"What a {n_layers}-layer model does, taken apart",
             "overview": overview(study.model, found), "bigrams": found.get("next_tokens")}
    if n_layers:
        held_out = excerpt(*study.held_out, slice(None), MAX_TOKENS)
        shown |= {"dump": head_dump(weights, study.sources, *held_out), "heads": found["heads"],
                  "spectra": head_spectra(weights),
                  "roles": [role and f"{role[0]} {role[1]:.2f}"
                            for role in roles(found["heads"], found["blocks"])]}
    if n_layers > 1:
        shown |= {"composition": composition_matrices(weights, study.composed),
                  "eigenvalues": eigenvalue_pairs(weights, found["heads"], study.composed, watch),
                  "importance": found.get("importance"), "split": found.get("split"),
                  "induction": found["induction_head"], "previous": found["previous_token_head"]}
    return shown | {"absent": absent(shown, n_layers)}


def absent(shown, n_layers):
    """Why a figure is not there, by section."""
    reasons = dict.fromkeys(("attention", "heads") * (n_layers < 1),
                            "A model without layers has no heads.")
    if n_layers < 2:
        reasons |= dict.fromkeys(("split", "composition", "importance"),
                                 "It takes two layers to compose.")
    elif not shown["split"]:
        reasons["split"] = "No head has earned the name of an induction head."
    if n_layers > 1 and not shown["importance"]:
        reasons["importance"] = "The text has one token, and none that comes next."
    return reasons


def opening(study, found):
    """Row, place and head of the prediction that a page opens at: the terminal's, or one like it.

    That is the one that the head copying best helped most. Row, place: of `study.held_out`.
    """
    weights, (tokens, acts) = study.weights, excerpt(*study.held_out, slice(None), MAX_TOKENS)
    if not weights.n_layers or tokens.shape[1] < 2:
        return 0, max(0, tokens.shape[1] - 2), None
    copying = max(found["heads"], key=lambda row: row["copying"])
    head = found.get("induction_head") or (copying["layer"], copying["head"])
    chosen = prediction(weights, tokens, acts, head)
    return chosen["row"], len(chosen["context"]) - 1, head


def strongest_move(weights, tokens, acts, heads):
    """Context, place and head's number where, of the `confident` predictions that came true, one
    head adds most to one from a single earlier token."""
    effects = np.array([source_effects(weights, tokens, *head, acts) for head in heads])
    if not effects.size:                                    # of one token nothing comes next
        return 0, 0, 0
    sure = confident(log_shares(tokens, acts))[..., None]
    best = np.where(sure, np.tril(effects, -1), -np.inf).argmax()
    head, context, place, _ = map(int, np.unravel_index(best, effects.shape))
    return context, place, head


def likest_induction(rows, heads, most):
    """Of some heads those with most prefix matching, in order; rows: of `head_table`."""
    best = sorted((row for row in rows if (row["layer"], row["head"]) in heads),
                  key=lambda row: -row["induction"])[:most]
    return sorted((row["layer"], row["head"]) for row in best)


def overview(model, found):
    """Shape (of the matrices, before biases and norms went in), training log, losses, exactness."""
    weights, log = without_biases(model.weights), log_of(model.metadata)
    kept = model.metadata.get("kept_step")              # what formed later is not in the model
    kept = kept if type(kept) is int else np.inf
    sizes = ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "n_ctx")
    positions = "shortformer" if positions_undivided(model.weights) else weights.positions
    return {**{name: getattr(weights, name) for name in sizes}, "positions": positions,
            "parameters": sum(W.size for _, W in weights.items()),
            "losses": found["losses"] | {"every token alike": float(np.log(weights.d_vocab))},
            "exactness": found["exactness"], "log": log,
            "formation": formation([row for row in log if row["step"] <= kept]),
            "made": {name: model.metadata[name]
                     for name in ("minicircuits", "seed", "kept_step", "text_sha256")
                     if name in model.metadata}}


def formation(log):
    """The first measurement of a run with an induction head, and the one before; or None."""
    return next(({"step": row["step"], "before": before and before["step"]}
                 for before, row in zip([None, *log], log) if formed(row)), None)
