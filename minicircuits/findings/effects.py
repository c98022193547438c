"""What heads and paths do to scores, logits and the loss: sums that are exact, and removals."""

import numpy as np
from scipy.special import log_softmax

from minicircuits.behavior import ablation
from minicircuits.behavior.attribution import head_effects
from minicircuits.behavior.in_context import ordered_versus_shuffled
from minicircuits.circuits.expansion import expand_logits, label, ledger
from minicircuits.circuits.score_expansion import expand_scores, rebuild, split_scores
from minicircuits.findings.heads import heads_of
from minicircuits.notation import relative_error

BLOCK = 29            # tokens of a block that is repeated


def exactness(weights, tokens, acts):
    """Relative differences between the sums over paths and the forward pass, by object."""
    paths = [path.logits for path in expand_logits(weights, tokens, acts.pattern, acts.norms)]
    scale = sum(map(np.abs, paths)).max()
    errors = {"paths": len(paths), "terms": 0, "scores": 0.0,
              "logits": relative_error(sum(paths), acts.logits, scale)}
    for layer, head in heads_of(weights):
        total = magnitude = 0
        terms = expand_scores(weights, tokens, acts.pattern, layer, head, acts.norms)
        errors["terms"] += len(terms)
        for part in (term.scores for term in terms):          # one at a time: they are many
            total, magnitude = total + part, magnitude + np.abs(part)
        error = relative_error(total, acts.scores[layer, :, head], magnitude.max())
        errors["scores"] = max(errors["scores"], error)
    rebuilt = rebuild(weights, tokens)
    return errors | {"patterns": relative_error(rebuilt.pattern, acts.pattern),
                     "rebuilt_logits": relative_error(rebuilt.logits, acts.logits)}


def importance_table(weights, tokens, acts):
    """Term importance by order, and the virtual heads by importance."""
    found = ablation.term_importance(weights, tokens, acts)
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()} | {
        "virtual_heads": [virtual._asdict() | {"heads": label(virtual.heads)}
                          for virtual in ablation.virtual_heads(weights, tokens, acts)]}


def induction_split(weights, tokens, acts, layer, head):
    """One head's scores on a block that is repeated, in four parts, on the stripe and off it.

    On the stripe: the source that followed the earlier copy, i − (BLOCK − 1). Off it: the mean
    of all other sources the destination may see. A constant added to all scores of a destination
    changes neither a difference nor a pattern. The part with the largest difference is `carrier`.
    """
    i, j = np.ogrid[BLOCK + 1:tokens.shape[1], :tokens.shape[1]]     # i: in the second block
    stripe = j == i - BLOCK + 1
    others = (j <= i) & ~stripe

    def mean_over(places, part):
        """Mean over the places of each destination, then over destinations and contexts."""
        return float(((part[:, BLOCK + 1:] * places).sum(-1) / places.sum(-1)).mean())

    split = split_scores(weights, tokens, acts.pattern, layer, head, acts.norms)
    parts = {name: {"stripe": mean_over(stripe, part), "elsewhere": mean_over(others, part)}
             for name, part in {**split._asdict(), "total": sum(split)}.items()}
    carrier = max(split._fields, key=lambda name: parts[name]["stripe"] - parts[name]["elsewhere"])
    return {"parts": parts, "carrier": carrier, "block": BLOCK,
            "attention": mean_over(stripe, acts.pattern[layer, :, head])}


def removals(weights, tokens, acts, induction, previous, start, seed):
    """What removing the induction head or the previous-token head does, in nats per token.

    gaps: of `ordered_versus_shuffled`, on the same blocks each time; removed: losses on the text.
    """
    without = {"whole": [], "without_induction": [induction], "without_previous": [previous]}
    return {"gaps": {name: float(ordered_versus_shuffled(
                ablation.without_heads(weights, heads), start, np.random.default_rng(seed)).gap)
                     for name, heads in without.items()},
            "removed": {label((head,)): ablation.loss_without_heads(
                weights, tokens, [head], acts)._asdict() for head in (induction, previous)}}


def prediction(weights, tokens, acts, head):
    """The confident prediction that `head`, a pair (layer, head), helped most, as a ledger.

    Among places in `tokens` (b, i) where the model gives the true next token at least even
    odds, the one where the head added most to its logit. The 8 strongest entries are listed.
    """
    following = tokens[:, 1:]
    log_p = np.take_along_axis(log_softmax(acts.logits[:, :-1], axis=-1),
                               following[..., None], -1)[..., 0]
    effect = head_effects(weights, tokens, acts)[head[0], :, head[1]]
    confident = log_p >= min(np.log(0.5), log_p.max())         # or as confident as it gets
    best = np.where(confident, effect, -np.inf).argmax()
    context, place = np.unravel_index(best, effect.shape)
    target, one = int(following[context, place]), slice(context, context + 1)
    norms = None if acts.norms is None else acts.norms[:, one]
    entries = ledger(weights, tokens[one], acts.pattern[:, one], int(place), target, norms)
    strongest = [entry for entry in entries.strongest(8) if entry[1] <= place]
    total = float(entries.contributions.sum())
    return {"row": int(context), "context": tokens[context, :place + 1].tolist(),
            "target": target, "probability": float(np.exp(log_p[context, place])),
            "logit": float(acts.logits[context, place, target]), "sum": total,
            "entries": [[label(path), source, value] for path, source, value in strongest],
            "others": total - sum(value for *_, value in strongest),
            "count": entries.contributions[:, :place + 1].size - len(strongest)}
