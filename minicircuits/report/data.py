"""Everything a page says of one model, section by section, packed from what was found.

What a model does not have, or what would be too much, is left out, and `absent` says why. What
is cut has a `notice`.
"""

import numpy as np
from scipy.special import logsumexp

from minicircuits.behavior import excerpt
from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.in_context import formed
from minicircuits.behavior.patterns import value_lengths
from minicircuits.circuits.biases import (positions_undivided, resting_heads,
                                          without_biases)
from minicircuits.circuits.expansion import count_paths
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.findings.effects import MAX_PATHS, prediction
from minicircuits.findings.heads import (composition_matrices, eigenvalue_pairs, head_dump,
                                         head_spectra, heads_of, roles, unwatched)
from minicircuits.report.packing import escaped, pack, pack_floats, visible
from minicircuits.training.model_file import log_of
from minicircuits.training.tokenizer import Tokenizer

LIVE = 3_000_000          # parameters of a model that runs in the page
MAX_TOKENS = 128          # of a context
MAX_HEADS = 64
MAX_SPLIT = 16            # heads whose scores come in four parts
MAX_VOCAB = 4096          # tokens to choose from
ATTENTION = 6_000_000     # bytes of the page for the attention on contexts
LEDGER = 4_000_000        # bytes of it for what a ledger is made of
FLOAT = 4 * 4 / 3         # bytes of a number in `pack_floats`


def page_data(study, found, watch=unwatched):
    """The page of a `Study` and of all its `sections` in one dict, as JSON has it."""
    weights, contexts = study.weights, study.contexts
    heads, T = heads_of(weights), max(map(len, contexts.tokens))
    shown, opening = heads[:MAX_HEADS], opening_prediction(study, found)
    notices = [*study.notes, *found.get("folded", []),
               *notice("Attention is cut", MAX_HEADS, len(heads), "heads"),
               *notice("Contexts are cut", MAX_TOKENS, T, "tokens")]
    whole, place = study.measured[opening["row"]], len(opening["context"]) - 1
    texts = {n: {"name": escaped(name), "tokens": tokens[:MAX_TOKENS].tolist()}
             for n, (name, tokens) in enumerate(zip(contexts.names, contexts.tokens))}
    if study.block:
        texts["repeated"] = {"name": "repeated random tokens",
                             "tokens": study.repeated[0][0].tolist()}
    size, model, apart = sum(W.size for _, W in weights.items()), {}, {}
    if size <= LIVE:
        model = running_model(study)
    else:
        notices.append(f"A model runs in its page up to {LIVE:,} parameters; this one has "
                       f"{size:,}. Shown is what was computed before.")
        apart, texts = given_texts(study, found, shown, texts, whole, notices)
    page = {**model, "title": f"What a {weights.n_layers}-layer model does, taken apart",
            "overview": overview(study.model, found), "notices": notices, "start": place,
            "shown_heads": shown, "texts": list(texts.values()),
            "opening": list(texts).index(whole)}
    if not weights.n_layers:
        page["bigrams"] = found["next_tokens"]
    if weights.n_layers:
        held_out = excerpt(*study.held_out, slice(None), MAX_TOKENS)
        page |= {"dump": head_dump(weights, study.sources, *held_out), "heads": found["heads"],
                 "spectra": head_spectra(weights),
                 "roles": [role and f"{role[0]} {role[1]:.2f}"
                           for role in roles(found["heads"], found["blocks"])]}
    if weights.n_layers > 1:
        page |= {"composition": composition_matrices(weights, study.composed),
                 "eigenvalues": eigenvalue_pairs(weights, found["heads"], study.composed,
                                                 watch),
                 "importance": found.get("importance"), "split": found.get("split"),
                 "induction": found["induction_head"], "previous": found["previous_token_head"]}
    named = set(range(weights.d_vocab)) if model else named_tokens(page, opening["target"])
    if sum(count_paths(weights)) <= MAX_PATHS and len(heads) <= MAX_HEADS:
        needed = {opening["target"]}.union(*(tokens_of(texts[n]) for n in apart))
        ledger = {} if model else given_ledger(study, needed, apart.values(), notices)
        if model or ledger:
            page["ledger"] = {"place": place, "target": opening["target"], **ledger}
        named.update(ledger.get("tokens", []))
    page["vocabulary"] = [[id, visible(study.model.tokenizer.show(id))] for id in sorted(named)]
    return page | {"absent": absent(page, weights.n_layers)}


def running_model(study):
    """The model, to run in the page: its weights; and how it reads text, where the page can."""
    weights, tokenizer = study.weights, study.model.tokenizer
    merges = tokenizer.to_array().tolist() if isinstance(tokenizer, Tokenizer) else None
    return {"merges": merges, "model": {
        "positions": weights.positions, "start": study.start, "rests": resting_heads(weights),
        **{name: getattr(weights, name, None) for name in ("n_normalized", "eps")},
        **{name: pack_floats(W.mT if name in ("W_E", "W_pos") else W)
           for name, W in weights.items()}}}


def given_texts(study, found, heads, texts, opening, notices):
    """(tokens, acts) of the texts whose scores and logits come apart; and all texts of a page."""
    weights, contexts = study.weights, study.contexts.tokens
    views = first_views(study, heads, opening)
    if len(views) < len(contexts):
        beside = ", and the one with the prediction" * (opening >= len(views))
        notices.append(f"Contexts are cut: {len(views)} of {len(contexts):,} are shown, "
                       f"from the beginning on{beside}.")
    apart = {opening: excerpt(*study.kept[opening], slice(1), MAX_TOKENS)}
    if study.block:
        apart["repeated"] = excerpt(*study.repeated, slice(1))
        views["repeated"] = attention_views(weights, *apart["repeated"], heads, pack_floats)
    in_parts = []
    if found.get("split"):
        later = [row for row in found["heads"] if 0 < row["layer"]
                 and (row["layer"], row["head"]) in heads]
        best = sorted(later, key=lambda row: -row["induction"])[:MAX_SPLIT]
        in_parts = sorted((row["layer"], row["head"]) for row in best)
        notices += notice("Four parts of a score are cut", MAX_SPLIT, len(later),
                          "heads, those with most prefix matching,")
    for n, text in apart.items():
        views[n]["parts"] = score_parts(weights, *text, in_parts)
    return apart, {n: text | views[n] for n, text in texts.items() if n in views}


def first_views(study, heads, opening):
    """The attention on contexts, by place: on the opening one, and on as many as fit, in order."""
    views, room = {}, ATTENTION
    for n in [opening, *sorted(study.kept.keys() - {opening})]:
        found = attention_views(study.weights, *excerpt(*study.kept[n], slice(1), MAX_TOKENS),
                                heads, pack if views else pack_floats)
        room -= sum(len(packed["data"]) for packed in found.values() if "data" in packed)
        if views and room < 0:
            break
        views[n] = found
    return views


def given_ledger(study, needed, texts, notices):
    """What the page needs to add up paths to logits, on texts (tokens, acts); {} if too much.

    needed : the tokens whose logits it must have; others are the most frequent
    """
    weights, probabilities = study.weights, study.contexts.probabilities
    numbers = weights.W_O.size + weights.W_V.size + 2 * sum(
        acts.residual[0].size for _, acts in texts)
    room = int((LEDGER / FLOAT - numbers) / weights.d_model)
    if room < len(needed):
        return {}
    frequent = [id for id in strongest(probabilities, MAX_VOCAB)[0].tolist() if id not in needed]
    rows = sorted([*needed, *frequent[:room - len(needed)]])
    if len(rows) < len(probabilities):
        notices.append(f"The vocabulary is cut: {len(rows):,} of {len(probabilities):,} tokens can "
                       "be chosen in the ledger, those of its texts and the most frequent.")
    return {
        "tokens": rows, "n_normalized": getattr(weights, "n_normalized", None),
        "rests": resting_heads(weights), "W_U": pack_floats(weights.W_U[rows]),
        "mean_U": pack_floats(weights.W_U.mean(0)[None]),
        "W_O": pack_floats(weights.W_O), "W_V": pack_floats(weights.W_V),
        "texts": [{"embedded": pack_floats(acts.residual[0][0]),      # (i, d) enters layer 0
                   "residual": pack_floats(acts.residual[-1][0]),     # (i, d) is unembedded
                   "normalizer": logsumexp(acts.logits[0], axis=-1).tolist(),
                   "norms": None if acts.norms is None else acts.norms[:, 0].tolist()}
                  for _, acts in texts]}


def notice(what, most, total, noun):
    """A notice that not all is shown, in a list; an empty one if all is."""
    return [f"{what}: the first {most} of {total:,} {noun} are shown."] if total > most else []


def opening_prediction(study, found):
    """The prediction that the page opens at: the one that was found, or one of the same kind."""
    weights, (tokens, acts) = study.weights, excerpt(*study.held_out, slice(None), MAX_TOKENS)
    known = found.get("prediction")
    if known and len(known["context"]) <= tokens.shape[1]:
        return known
    if weights.n_layers and tokens.shape[1] > 1:
        copying = max(found["heads"], key=lambda row: row["copying"])
        return prediction(weights, tokens, acts, (copying["layer"], copying["head"]))
    *context, target = tokens[0].tolist()
    if not context:                                # no next token is known: the likeliest
        context, target = [target], int(acts.logits[0, 0].argmax())
    return {"row": 0, "context": context, "target": target}


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


def named_tokens(page, target):
    """The ids of all tokens that the page mentions, beside those to choose from."""
    return {target}.union(*map(tokens_of, page["texts"]), *(
        [row["source"], *(id for id, _ in row["destinations"] + row["outs"])]
        for head in page.get("dump", []) for row in head["rows"]), *(
        [row["token"], *(id for id, _ in row["model"] + row.get("text", []))]
        for row in page.get("bigrams", [])))


def tokens_of(text):
    """The ids of a text, and of what may come next in it."""
    return {*text["tokens"], *(id for row in text["next"] for id, _ in row)}


def absent(page, n_layers):
    """Why a section is not there, by section."""
    reasons = dict.fromkeys(("attention", "heads") * (n_layers < 1),
                            "A model without layers has no heads.")
    if n_layers < 2:
        reasons |= dict.fromkeys(("split", "composition", "importance"),
                                 "It takes two layers to compose.")
    elif not page["split"]:
        reasons["split"] = "No head has earned the name of an induction head."
    if n_layers > 1 and not page["importance"]:
        reasons["importance"] = "The text has one token, and none that comes next."
    if "ledger" not in page:
        reasons["ledger"] = (f"A ledger here has room for {MAX_PATHS:,} paths, {MAX_HEADS} heads "
                             f"and {LEDGER / 1e6:.0f} MB of weights, and there are more.")
    return reasons


def attention_views(weights, tokens, acts, heads, pack_pattern=pack):
    """The heads (layer, head) on one context (1, i) in three views; the 8 likeliest next tokens.

    `pattern` packs the lower triangle of (head, i, j), row by row, and so does `effects` on the
    true next token's logit, which has a row less. `lengths` (head, j) of what is written for a
    source: times the pattern they are the value-weighted pattern.
    """
    normalizer = logsumexp(acts.logits[0], axis=-1)
    lengths = value_lengths(weights, acts)
    return {"tokens": tokens[0].tolist(),
            "next": [[[int(v), float(np.exp(logit - total))]
                      for v, logit in zip(*strongest(row, 8))]
                     for row, total in zip(acts.logits[0], normalizer)],
            "pattern": pack_pattern(triangles(acts.pattern[layer, 0, head]
                                              for layer, head in heads)),
            "lengths": pack_floats([lengths[layer, 0, head] for layer, head in heads]),
            "effects": pack(triangles(source_effects(weights, tokens, *head, acts)[0, :, :-1]
                                      for head in heads))}


def triangles(squares):
    """The entries j ≤ i of each (i, i) array, row by row: (head, i·(i+1)/2)."""
    return np.array([square[np.tril_indices(len(square))] for square in squares])


def score_parts(weights, tokens, acts, heads):
    """neither, Q, K and both, of every head after layer 0 on one context: packed triangles."""
    return {f"{layer}.{head}": pack(triangles(part[0] for part in split_scores(
        weights, tokens, acts.pattern, layer, head, acts.norms))) for layer, head in heads if layer}
