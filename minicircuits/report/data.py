"""Everything a page says of one model, section by section, packed from what was found.

What a model does not have, or what would be too much, is left out, and `absent` says why. What
is cut has a notice.
"""

from itertools import accumulate

from minicircuits.behavior import excerpt
from minicircuits.circuits.expansion import count_paths
from minicircuits.findings.effects import MAX_PATHS
from minicircuits.findings.figures import MAX_TOKENS, figures, opening
from minicircuits.findings.heads import heads_of, unwatched
from minicircuits.report.packing import visible
from minicircuits.report.texts import (MAX_HEADS, given_text, notice, packed, path_inputs,
                                       running_model, score_parts)
from minicircuits.training.tokenizer import escaped

LIVE = 3_000_000          # parameters of a model that runs in the page
MAX_SPLIT = 16            # heads whose scores come in four parts
ATTENTION = 6_000_000     # bytes of the page for the attention on contexts
LEDGER = 4_000_000        # bytes of it for what a ledger is made of
FLOAT, SHORT = 16 / 3, 8 / 3         # bytes of a number in `pack_floats` and `pack`


def page_data(study, found, watch=unwatched):
    """The page of a `Study` and of all its `sections` in one dict, as JSON has it."""
    weights, contexts, tokenizer = study.weights, study.contexts, study.model.tokenizer
    heads, size = heads_of(weights), sum(W.size for _, W in weights.items())
    notices = [*study.notes, *found.get("folded", []),
               *notice("Attention is cut", MAX_HEADS, len(heads), "heads"),
               *notice("Contexts are cut", MAX_TOKENS, max(map(len, contexts.tokens)), "tokens")]
    row, place = opening(study, found)
    page = {**figures(study, found, watch), "start": place, "opening": study.measured[row],
            "notices": notices, "shown_heads": heads[:MAX_HEADS],
            "texts": [{"name": escaped(name), "tokens": tokens[:MAX_TOKENS].tolist()}
                      for name, tokens in zip(contexts.names, contexts.tokens)],
            "ledger": sum(count_paths(weights)) <= MAX_PATHS and len(heads) <= MAX_HEADS,
            "vocabulary": [[id, visible(tokenizer.show(id))] for id in range(weights.d_vocab)]}
    if study.block:
        page["texts"].append({"name": "repeated random tokens",
                              "tokens": study.repeated[0][0].tolist()})
    if size <= LIVE:
        page |= running_model(weights, tokenizer, study.start)
    else:
        notices.append(f"A model runs in its page up to {LIVE:,} parameters; this one has "
                       f"{size:,}. Shown is what was computed before.")
        page |= given_texts(study, found, page)
    return page | {"absent": absent(page, weights.n_layers)}


def given_texts(study, found, page):
    """Texts of a model that does not run in the page: as many contexts as there is room for, the
    opening one first. Scores and logits come apart of the first and the last, repeated tokens."""
    weights, heads, notices = study.weights, page["shown_heads"], page["notices"]
    order = sorted(study.kept, key=lambda n: (n != page["opening"], n))
    sizes = accumulate(len(heads) * len(page["texts"][n]["tokens"]) ** 2 * SHORT for n in order)
    most, total = max(1, sum(size <= ATTENTION for size in sizes)), len(study.contexts.tokens)
    if most < total:
        notices.append(f"Contexts are cut: {most} of {total:,} are shown, the one with the "
                       "prediction and the first others.")
    runs = {n: excerpt(*study.kept[n], slice(1), MAX_TOKENS) for n in order[:most]}
    if study.block:
        runs[-1] = excerpt(*study.repeated, slice(1))
    texts = {n: page["texts"][n] | given_text(weights, *run, heads) for n, run in runs.items()}
    apart, in_parts = [*{order[0], [*runs][-1]}], heads_in_parts(found, notices)
    ledger = page["ledger"] and given_ledger(study, [texts[n] for n in apart], notices)
    for n in apart:
        texts[n]["parts"] = score_parts(weights, *runs[n], in_parts)
        texts[n] |= path_inputs(runs[n][1], heads) if ledger else {}
    return {"texts": [*texts.values()], "opening": 0, "ledger": ledger}


def heads_in_parts(found, notices):
    """The heads whose scores come in four parts: those with most prefix matching, in order."""
    rows = [row for row in found["heads"][:MAX_HEADS] if row["layer"]] if found.get("split") else []
    notices += notice("Four parts of a score are cut", MAX_SPLIT, len(rows),
                      "heads, those with most prefix matching,")
    best = sorted(rows, key=lambda row: -row["induction"])[:MAX_SPLIT]
    return sorted((row["layer"], row["head"]) for row in best)


def given_ledger(study, texts, notices):
    """The weights that add up paths to logits: of the tokens of texts, and of as many others, the
    most frequent, as there is room for. None if it is too much."""
    weights, shares = study.weights, study.contexts.probabilities
    needed = {id for text in texts for row in text["next"] for id, _ in row}.union(
        *(text["tokens"] for text in texts))
    numbers = weights.W_O.size + weights.W_V.size + 2 * weights.d_model * sum(
        len(text["tokens"]) for text in texts)
    room = int((LEDGER / FLOAT - numbers) / weights.d_model)
    if room < len(needed):
        return None
    rows = sorted(sorted(range(len(shares)), key=lambda id: (id not in needed, -shares[id]))[:room])
    if len(rows) < len(shares):
        notices.append(f"The vocabulary is cut: {len(rows):,} of {len(shares):,} tokens can "
                       "be chosen in the ledger, those of its texts and the most frequent.")
    return {"tokens": rows, **packed(weights, {
        "W_U": weights.W_U[rows], "W_O": weights.W_O, "W_V": weights.W_V})}


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
    if not page["ledger"]:
        reasons["ledger"] = (f"A ledger here has room for {MAX_PATHS:,} paths, {MAX_HEADS} heads "
                             f"and {LEDGER / 1e6:.0f} MB of weights, and there are more.")
    return reasons
