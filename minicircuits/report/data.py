"""Everything a page says of one model, section by section, packed from what was found.

What a model does not have, or what would be too much, is left out, and `absent` says why. What
is cut has a notice.
"""

from itertools import accumulate

import numpy as np
from scipy.special import logsumexp, softmax

from minicircuits.behavior import excerpt
from minicircuits.behavior.attribution import source_effects
from minicircuits.behavior.patterns import value_lengths
from minicircuits.circuits.biases import resting_heads
from minicircuits.circuits.expansion import count_paths
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.findings.effects import MAX_PATHS
from minicircuits.findings.figures import MAX_TOKENS, figures, likest_induction, opening
from minicircuits.findings.heads import heads_of, unwatched
from minicircuits.findings.study import likeliest
from minicircuits.report.packing import pack, pack_floats
from minicircuits.training.tokenizer import Tokenizer, escaped, visible_name

LIVE = 3_000_000          # parameters of a model that runs in the page
MAX_HEADS = 64
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
    repeated = [("repeated random tokens", study.repeated[0][0])] if study.block else []
    row, place, head = opening(study, found)
    page = {**figures(study, found, watch), "opening": study.measured[row], "start": place,
            "head": heads.index(head) if head in heads[:MAX_HEADS] else 0,
            "notices": notices, "shown_heads": heads[:MAX_HEADS],
            "texts": [{"name": escaped(name), "tokens": tokens[:MAX_TOKENS].tolist()}
                      for name, tokens in (*zip(contexts.names, contexts.tokens), *repeated)],
            "ledger": sum(count_paths(weights)) <= MAX_PATHS and len(heads) <= MAX_HEADS,
            "vocabulary": [[id, visible_name(tokenizer.show(id))] for id in range(weights.d_vocab)]}
    if size <= LIVE:
        page |= running_model(weights, tokenizer)
        if weights.n_layers > 1:                       # scores come apart of any head, on any text
            page["absent"].pop("split", None)
    else:
        notices.append(f"A model runs in its page up to {LIVE:,} parameters; this one has "
                       f"{size:,}. Shown is what was computed before.")
        page |= given_texts(study, found, page)
    if not page["ledger"]:
        page["absent"]["ledger"] = (
            f"A ledger here has room for {MAX_PATHS:,} paths, {MAX_HEADS} heads and "
            f"{LEDGER / 1e6:.0f} MB of weights, and there are more.")
    return page


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
    later = [head for head in heads if head[0]] if found.get("split") else []
    notices += notice("Four parts of a score are cut", MAX_SPLIT, len(later),
                      "heads, those with most prefix matching,")
    in_parts = likest_induction(found.get("heads", []), later, MAX_SPLIT)
    apart = {order[0], [*runs][-1]}
    ledger = page["ledger"] and given_ledger(study, [texts[n] for n in apart], notices)
    for n in apart:
        texts[n]["parts"] = score_parts(weights, *runs[n], in_parts)
        texts[n] |= path_inputs(runs[n][1], heads) if ledger else {}
    return {"texts": [*texts.values()], "opening": 0, "ledger": ledger}


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
        "W_U": weights.W_U[rows], "mean_U": weights.W_U.mean(0)[None], "W_O": weights.W_O,
        "W_V": weights.W_V})}


def notice(what, most, total, noun):
    """A notice that not all is shown, in a list; an empty one if all is."""
    return [f"{what}: the first {most} of {total:,} {noun} are shown."] if total > most else []


def running_model(weights, tokenizer):
    """The model, to run in the page; and, where it can, how it reads text there."""
    by_token = {name: W.mT for name, W in weights.items() if name in ("W_E", "W_pos")}
    return {"model": packed(weights, dict(weights.items()) | by_token)
            | {"start": tokenizer and tokenizer.start},
            "merges": tokenizer.to_array().tolist() if isinstance(tokenizer, Tokenizer) else None}


def packed(weights, matrices):
    """Matrices of a model, and what else a page must know to read them."""
    return {"positions": weights.positions, "rests": resting_heads(weights),
            **{name: getattr(weights, name, None) for name in ("n_normalized", "eps")},
            **{name: pack_floats(W) for name, W in matrices.items()}}


def given_text(weights, tokens, acts, heads):
    """Three views of each head (layer, head) on one text (1, i), and the 8 likeliest next tokens.

    `effects` on the true next token's logit have a row less than patterns. `lengths` (head, j) of
    what is written for a source: times the pattern they are the value-weighted pattern.
    """
    effects = [source_effects(weights, tokens, *head, acts)[0, :, :-1] for head in heads]
    return {"tokens": tokens[0].tolist(),
            "next": [likeliest(softmax(row), 8) for row in acts.logits[0]],
            "pattern": pack(triangles(of_heads(acts.pattern, heads))),
            "lengths": pack_floats(of_heads(value_lengths(weights, acts), heads)),
            "effects": pack(triangles(effects))}


def score_parts(weights, tokens, acts, heads):
    """The four parts of each head's scores on one text: neither, Q, K and both."""
    return {f"{layer}.{head}": pack(triangles(part[0] for part in split_scores(
        weights, tokens, acts.pattern, layer, head, acts.norms))) for layer, head in heads}


def path_inputs(acts, heads):
    """What a ledger reads of a run on one text. Many patterns are multiplied: they are floats."""
    return {"pattern": pack_floats(triangles(of_heads(acts.pattern, heads))),
            "run": {"embedded": pack_floats(acts.residual[0][0]),      # (i, d) enters layer 0
                    "residual": pack_floats(acts.residual[-1][0]),     # (i, d) is unembedded
                    "normalizer": logsumexp(acts.logits[0], axis=-1).tolist(),
                    "norms": None if acts.norms is None else acts.norms[:, 0].tolist()}}


def of_heads(array, heads):
    """What heads have on the one text of an array (l, 1, h, …)."""
    return [array[layer, 0, head] for layer, head in heads]


def triangles(squares):
    """The entries j ≤ i of each (i, i) array, row by row: (head, i·(i+1)/2)."""
    return np.array([square[np.tril_indices(len(square))] for square in squares])
