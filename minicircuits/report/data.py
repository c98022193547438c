"""Everything a page says of one model, section by section, packed from what was found.

What a model does not have, or what would be too much, is left out, and `absent` says why. What
is cut has a `notice`.
"""

import numpy as np
from scipy.special import logsumexp

from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.patterns import formed, value_weighted_patterns
from minicircuits.circuits.expansion import count_paths
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.findings.effects import prediction
from minicircuits.findings.heads import composition_matrices, eigenvalue_pairs, head_dump, heads_of
from minicircuits.findings.study import excerpt
from minicircuits.report.packing import pack, pack_floats, visible

MAX_TOKENS = 128          # of a context
MAX_HEADS = 64
MAX_PATHS = 1000          # of a ledger
MAX_VOCAB = 4096          # tokens to choose from


def page_data(study, found):
    """The page of a `Study` and of all its `sections` in one dict, as JSON has it."""
    weights, probabilities = study.weights, study.token_probabilities
    held_out = excerpt(*study.held_out, slice(None), MAX_TOKENS)
    heads, (_, T) = heads_of(weights), study.held_out[0].shape
    notices = (notice("Attention is cut", MAX_HEADS, len(heads), "heads")
               + notice("Contexts are cut", MAX_TOKENS, T, "tokens"))
    shown = heads[:MAX_HEADS]
    opening = opening_prediction(weights, *held_out, found)
    place, row = len(opening["context"]) - 1, opening["row"]
    texts = {"held-out text": excerpt(*held_out, slice(row, row + 1)),
             "repeated random tokens": excerpt(*study.repeated, slice(1))}
    page = {"title": f"What a {weights.n_layers}-layer model does, taken apart",
            "overview": overview(study.model, found), "notices": notices, "start": place,
            "n_heads": weights.n_heads, "shown_heads": shown,
            "texts": [{"name": name, **attention_views(weights, *text, shown),
                       "parts": score_parts(weights, *text, shown)}
                      for name, text in texts.items()]}
    if weights.n_layers:
        page |= {"dump": head_dump(weights, probabilities, *held_out), "heads": found["heads"]}
    if weights.n_layers > 1:
        page |= {"composition": composition_matrices(weights, study.seed),
                 "eigenvalues": eigenvalue_pairs(weights),
                 "importance": found["importance"], "split": found["split"],
                 "induction": found["induction_head"], "previous": found["previous_token_head"]}
    named = named_tokens(page, opening["target"], probabilities)
    if sum(count_paths(weights)) <= MAX_PATHS and len(heads) <= MAX_HEADS:
        page["ledger"] = {
            "place": place, "target": opening["target"], "n_layers": weights.n_layers,
            "W_U": pack_floats(weights.W_U[named]),
            "W_O": pack_floats(weights.W_O.reshape(-1, weights.d_model, weights.d_head)),
            "W_V": pack_floats(weights.W_V.reshape(-1, weights.d_head, weights.d_model)),
            "texts": [{"embedded": pack_floats(acts.residual[0][0]),      # (i, d) enters layer 0
                       "residual": pack_floats(acts.residual[-1][0]),     # (i, d) is unembedded
                       "normalizer": logsumexp(acts.logits[0], axis=-1).tolist()}
                      for _, acts in texts.values()]}
    page["vocabulary"] = [[id, visible(study.model.tokenizer.show(id))] for id in named]
    return page | {"absent": absent(page, weights.n_layers)}


def notice(what, most, total, noun):
    """A notice that not all is shown, in a list; an empty one if all is."""
    return [f"{what}: the first {most} of {total:,} {noun} are shown."] if total > most else []


def opening_prediction(weights, tokens, acts, found):
    """The prediction that the page opens at: the one that was found, or one of the same kind."""
    known = found.get("prediction")
    if known and len(known["context"]) <= tokens.shape[1]:
        return known
    if weights.n_layers == 0:
        return {"row": 0, "context": tokens[0, :-1].tolist(), "target": int(tokens[0, -1])}
    copying = max(found["heads"], key=lambda row: row["copying"])
    return prediction(weights, tokens, acts, (copying["layer"], copying["head"]))


def overview(model, found):
    """Shape, training log, losses and exactness."""
    weights, log = model.weights, model.metadata.get("log", [])
    sizes = ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "n_ctx", "positions")
    return {**{name: getattr(weights, name) for name in sizes},
            "parameters": sum(W.size for _, W in weights.items()),
            "losses": found["losses"] | {"every token alike": float(np.log(weights.d_vocab))},
            "exactness": found["exactness"], "log": log, "formation": formation(log),
            "made": {name: model.metadata[name] for name in ("minicircuits", "seed", "text_sha256")
                     if name in model.metadata}}


def formation(log):
    """The first measurement of a run with an induction head, and the one before; or None."""
    return next(({"step": row["step"], "before": before and before["step"]}
                 for before, row in zip([None, *log], log) if formed(row)), None)


def named_tokens(page, target, probabilities):
    """The ids that the page can name: all it mentions, and the most frequent; in order."""
    named = {target, *strongest(probabilities, MAX_VOCAB)[0].tolist()}
    for text in page["texts"]:
        named.update(text["tokens"], (v for row in text["next"] for v, _ in row))
    for head in page.get("dump", []):
        for row in head["rows"]:
            named.update([row["source"]], (id for id, _ in row["destinations"] + row["outs"]))
    if len(named) < len(probabilities):
        page["notices"].append(
            f"The vocabulary is cut: {len(named):,} of {len(probabilities):,} tokens can be "
            "chosen in the ledger, those on this page and the most frequent.")
    return sorted(named)


def absent(page, n_layers):
    """Why a section is not there, by section."""
    reasons = {}
    if n_layers < 1:
        reasons = dict.fromkeys(("attention", "heads"), "A model without layers has no heads.")
    if n_layers < 2:
        reasons |= dict.fromkeys(("split", "composition", "importance"),
                                 "It takes two layers to compose.")
    if "ledger" not in page:
        reasons["ledger"] = (f"A ledger here has room for {MAX_PATHS:,} paths and {MAX_HEADS} "
                             "heads, and there are more.")
    return reasons


def attention_views(weights, tokens, acts, heads):
    """The heads (layer, head) on one context (1, i) in three views; the 8 likeliest next tokens.

    Each view packs the lower triangle of (head, i, j), row by row: `pattern`, `moved`
    (value-weighted) and `effects` on the true next token's logit, which has a row less.
    """
    moved = value_weighted_patterns(weights, tokens, acts)
    normalizer = logsumexp(acts.logits[0], axis=-1)
    return {"tokens": tokens[0].tolist(),
            "next": [[[int(v), float(np.exp(logit - total))]
                      for v, logit in zip(*strongest(row, 8))]
                     for row, total in zip(acts.logits[0], normalizer)],
            "pattern": pack_floats(triangles(acts.pattern[layer, 0, head]
                                             for layer, head in heads)),
            "moved": pack(triangles(moved[layer, 0, head] for layer, head in heads)),
            "effects": pack(triangles(source_effects(weights, tokens, *head, acts)[0, :, :-1]
                                      for head in heads))}


def triangles(squares):
    """The entries j ≤ i of each (i, i) array, row by row: (head, i·(i+1)/2)."""
    return np.array([square[np.tril_indices(len(square))] for square in squares])


def score_parts(weights, tokens, acts, heads):
    """neither, Q, K and both, of every head after layer 0 on one context: packed triangles."""
    return {f"{layer}.{head}": pack(triangles(part[0] for part in split_scores(
        weights, tokens, acts.pattern, layer, head, acts.norms))) for layer, head in heads if layer}
