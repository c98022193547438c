"""Everything a page says of one model, section by section, from the library's own functions.

What a model does not have, or would be too much, is absent with its reason; what is cut is
said so in a notice.
"""

from math import prod

import numpy as np

from minicircuits.circuits.expansion import count_paths
from minicircuits.findings import figures
from minicircuits.report import contexts
from minicircuits.report.packing import pack_floats, visible

MAX_TOKENS = 128          # of a context
MAX_HEADS = 64
MAX_PATHS = 1000          # of a ledger
MAX_VOCAB = 4096          # tokens to choose from


def content(model, text, results, seed):
    """The page of a trained model, as JSON has it.

    results : what `tour.take_apart(model, text, seed)` returned, so that terminal and page
    show the same numbers; text : a `Text`, whose first 16 held-out contexts are used.
    """
    weights = model.weights.astype(np.float64)
    held_out = text.validation[:16, :MAX_TOKENS]
    heads, notices = shown_heads(weights)
    if text.validation.shape[1] > MAX_TOKENS:
        notices.append(f"Contexts are cut: the first {MAX_TOKENS} of "
                       f"{text.validation.shape[1]:,} tokens are shown.")
    probabilities = text.counts.sum(1) / text.counts.sum()
    prediction = told(weights, held_out, results)
    random = figures.repeated_tokens(weights, model.tokenizer.start, seed)[:1]
    page = {"title": f"What a model of {counted(weights.n_layers, 'layer')} does, taken apart",
            "overview": overview(model, results), "notices": notices, "absent": {},
            "texts": [{"name": "held-out text", "tokens": held_out[prediction["row"]][None]},
                      {"name": "repeated random tokens", "tokens": random}]}
    if weights.n_layers:
        page["dump"] = figures.head_dump(weights, probabilities, held_out)
        page["heads"] = results["heads"]
    if weights.n_layers > 1:
        page |= {"composition": figures.composition_matrices(weights, seed),
                 "eigenvalues": figures.eigenvalue_pairs(weights),
                 "importance": results["importance"], "split": results["split"],
                 "induction": results["induction_head"],
                 "previous": results["previous_token_head"]}
    page["start"] = len(prediction["context"]) - 1
    page["ledger"] = {"place": len(prediction["context"]) - 1, "target": prediction["target"]}
    add_contexts(page, weights, heads)
    kept = vocabulary(page, weights.d_vocab, probabilities)
    add_ledger(page, weights, kept)
    page["vocabulary"] = [[id, visible(model.tokenizer.show(id))] for id in kept]
    return page | {"absent": absent(page, weights)}


def counted(n, noun):
    return f"{n} {noun}{'' if n == 1 else 's'}"


def shown_heads(weights):
    """The heads a page has room for, and a notice if that is not all of them."""
    heads = figures.heads_of(weights)
    if len(heads) <= MAX_HEADS:
        return heads, []
    return heads[:MAX_HEADS], [f"Attention is cut: the first {MAX_HEADS} of {len(heads):,} heads "
                               "are shown."]


def told(weights, held_out, results):
    """The prediction that the page opens at: the terminal's, or one of the same kind."""
    known = results.get("prediction")
    if known and len(known["context"]) <= held_out.shape[1]:
        return known
    if weights.n_layers == 0:
        return {"row": 0, "context": held_out[0, :-1].tolist(), "target": int(held_out[0, -1])}
    strongest = max(results["heads"], key=lambda row: row["copying"])
    return figures.prediction(weights, held_out, (strongest["layer"], strongest["head"]))


def overview(model, results):
    """Shape, training log, losses and exactness."""
    weights, log = model.weights, model.metadata.get("log", [])
    return {"n_layers": weights.n_layers, "n_heads": weights.n_heads, "d_model": weights.d_model,
            "d_head": weights.d_head, "d_vocab": weights.d_vocab, "n_ctx": weights.n_ctx,
            "positions": weights.positions,
            "parameters": sum(prod(W.shape) for _, W in weights.items()),
            "losses": results["losses"] | {"every token alike": float(np.log(weights.d_vocab))},
            "exactness": results["exactness"], "log": log, "formation": figures.formation(log),
            "made": {name: model.metadata[name] for name in ("minicircuits", "seed", "text_sha256")
                     if name in model.metadata}}


def add_contexts(page, weights, heads):
    """Attention in the page's texts, and the parts of the scores of heads after layer 0."""
    page["n_heads"], page["shown_heads"] = weights.n_heads, heads
    for text in page["texts"]:
        tokens = text["tokens"]
        text |= contexts.attention(weights, tokens, heads)
        text["parts"] = {f"{layer}.{head}": contexts.score_parts(weights, tokens, layer, head)
                         for layer, head in heads if layer}


def add_ledger(page, weights, kept):
    """What the page needs to take any logit of `kept` tokens apart."""
    if not room_for_ledger(weights):
        del page["ledger"]
        return
    page["ledger"] |= {
        "W_U": pack_floats(weights.W_U[kept]), "n_layers": weights.n_layers,
        "W_O": pack_floats(weights.W_O.reshape(-1, weights.d_model, weights.d_head)),
        "W_V": pack_floats(weights.W_V.reshape(-1, weights.d_head, weights.d_model)),
        "texts": [contexts.ledger_inputs(weights, np.array([text["tokens"]]))
                  for text in page["texts"]]}


def room_for_ledger(weights):
    return (sum(count_paths(weights)) <= MAX_PATHS
            and weights.n_layers * weights.n_heads <= MAX_HEADS)


def vocabulary(page, d_vocab, probabilities):
    """The ids that the page can name: all it mentions, then the most frequent; in order."""
    mentioned = {page["ledger"]["target"]}
    for text in page["texts"]:
        mentioned.update(text["tokens"], (v for row in text["next"] for v, _ in row))
    for head in page.get("dump", []):
        for row in head["rows"]:
            mentioned.update([row["source"]], (id for id, _ in row["destinations"] + row["outs"]))
    if d_vocab <= MAX_VOCAB:
        return list(range(d_vocab))
    others = (id for id in figures.top(probabilities, d_vocab).tolist() if id not in mentioned)
    kept = mentioned.union(id for _, id in zip(range(MAX_VOCAB - len(mentioned)), others))
    page["notices"].append(f"The vocabulary is cut: {len(kept):,} of {d_vocab:,} tokens can be "
                           "chosen in the ledger, those on this page and the most frequent.")
    return sorted(kept)


def absent(page, weights):
    """Why a section is not there, by section."""
    heads, layers = "A model without layers has no heads.", "It takes two layers to compose."
    reasons = {"attention": heads, "heads": heads} if weights.n_layers == 0 else {}
    if weights.n_layers < 2:
        reasons |= {"split": layers, "composition": layers, "importance": layers}
    if "ledger" not in page:
        reasons["ledger"] = (f"{sum(count_paths(weights)):,} paths are more than the "
                             f"{MAX_PATHS:,} that a ledger here can hold.")
    return reasons
