"""What heads and paths do to scores, logits and the loss: sums that are exact, and removals."""

from itertools import accumulate

import numpy as np
from scipy.special import log_softmax

from minicircuits.behavior import ablation, excerpt
from minicircuits.behavior.attribution import head_effects
from minicircuits.behavior.in_context import least_prefix_matching, ordered_versus_shuffled
from minicircuits.circuits.biases import resting_heads, without_biases
from minicircuits.circuits.expansion import (Ledger, count_paths, each_order, expand_logits, label,
                                             ledger)
from minicircuits.circuits.score_expansion import (count_terms, expand_scores, rebuild,
                                                   split_scores)
from minicircuits.cores import side_by_side
from minicircuits.findings.heads import heads_of, unwatched
from minicircuits.notation import relative_error

MAX_PATHS = 2000      # that are looked at one by one
MAX_TERMS = 100_000   # of the scores of all heads together
EXACT = {"float64": 1e-12, "float32": 1e-3}     # relative: some thousand roundings
MATTERS = 0.01        # nats a virtual head takes off; untrained ones that predict: 0.003 at most
MAX_LOGITS = 2 ** 30  # that virtual heads take, some ten seconds; a check takes an eighth


def one_by_one(weights):
    """Whether paths and terms are few enough to be summed one at a time."""
    return (sum(count_paths(weights)) <= MAX_PATHS
            and sum(count_terms(weights)) <= MAX_TERMS)


def few_tokens(weights):
    """How many tokens of a context MAX_LOGITS allows for, path by path; 2 at least."""
    paths = sum(count_paths(weights)) if one_by_one(weights) else weights.n_layers + 1
    return max(2, MAX_LOGITS // (8 * paths * weights.d_vocab))


def exactness(weights, tokens, acts, watch=unwatched):
    """Relative differences between the sums over paths and the forward pass, by object.

    Where there are too many, the sums are by order, and `limit` says so; else it is None.
    They are `exact` if `largest` of the differences is `allowed`.
    """
    case, norms, each = (weights, tokens, acts.pattern), acts.norms, one_by_one(weights)
    shares = ((path.logits for path in watch(expand_logits(*case, norms), "paths")) if each else
              each_order(*case, norms))
    logits = error_of_sum(shares, acts.logits)
    scores = [error_of_sum((term.scores for term in expand_scores(*case, layer, head, norms))
                           if each else split_scores(*case, layer, head, norms),
                           acts.scores[layer, :, head])
              for layer, head in watch(heads_of(weights), "heads")]
    rebuilt = rebuild(weights, tokens)
    differences = {"logits": logits, "scores": max(scores, default=0.0),
                   "patterns": relative_error(rebuilt.pattern, acts.pattern),
                   "rebuilt_logits": relative_error(rebuilt.logits, acts.logits)}
    largest, allowed = float(np.max([*differences.values()])), EXACT[weights.dtype.name]
    return {"paths": sum(count_paths(weights)), "terms": sum(count_terms(weights)),
            "precision": weights.dtype.name, "limit": None if each else
            f"More than {MAX_PATHS:,} paths or {MAX_TERMS:,} terms are not summed one by one, but "
            "by how many heads they go through.", **differences,
            "largest": largest, "allowed": allowed, "exact": largest <= allowed}


def error_of_sum(shares, whole):
    """How far Σ shares is from the whole, by the largest Σ|share|. One share is held at a time."""
    total = magnitude = 0
    for share in shares:
        total, magnitude = total + share, magnitude + np.abs(share)
    return relative_error(total, whole, magnitude.max())


def importance_table(weights, tokens, acts, watch=unwatched):
    """Term importance by order, and the virtual heads by importance.

    Virtual heads are tried on as many contexts as MAX_LOGITS allows. Orders at which they are too
    many for one context are left out. `limit` says so, or is None. matters: the most important
    virtual head, if it takes off more than MATTERS, and the model's loss is below that where every
    token is as likely; or None. Of a worse model all that is taken away takes off something.
    """
    found = ablation.term_importance(weights, tokens, acts)
    counts = count_paths(without_biases(weights))                # heads that rest make none
    virtual = list(accumulate([0, 0, *counts[2:]]))              # of at most so many heads
    room, b, limits = MAX_LOGITS // acts.logits[0].size, len(tokens), []
    most = min(MAX_PATHS, room)
    longest = max(order for order, paths in enumerate(virtual) if paths <= most)
    if (tried := room // max(1, virtual[longest])) < b:
        limits.append(f"Virtual heads are tried on {tried} of {b} contexts.")
    if longest < weights.n_layers:
        limits.append(f"Those of {longest + 1} heads and more, {virtual[-1] - virtual[longest]:,}, "
                      f"are too many to try: {most:,} are not.")
    heads = watch(ablation.each_virtual_head(weights, *excerpt(tokens, acts, slice(tried)),
                                             longest), "virtual heads", total=virtual[longest])
    heads = [head._asdict() | {"heads": label(head.heads)}
             for head in sorted(heads, key=lambda head: -head.importance)]
    predicts = found.losses[-1] < np.log(weights.d_vocab)
    matter = [head["heads"] for head in heads if predicts and head["importance"] > MATTERS]
    return {name: np.asarray(value).tolist() for name, value in found._asdict().items()} | {
        "virtual_heads": heads, "matters": matter[0] if matter else None,
        "limit": " ".join(limits) or None}


def induction_split(weights, tokens, acts, block, layer, head):
    """One head's scores on a block that is repeated, in four parts, on the stripe and off it.

    tokens, acts : of contexts that end in two blocks of `block` tokens
    On the stripe: the source that followed the earlier copy, i − (block − 1). Off it: the mean
    of all other sources the destination may see. A constant added to all scores of a destination
    changes neither a difference nor a pattern. The part with the largest difference is `carrier`;
    None is, where the total is no larger on the stripe, or attention there no induction head's.
    """
    T = tokens.shape[1]
    i, j = np.ogrid[T - block:T, :T]                                 # i: in the second block
    stripe = j == i - block + 1
    others = (j <= i) & ~stripe

    def mean_over(places, part):
        """Mean over the places of each destination, then over destinations and contexts."""
        return float(((part[:, -block:] * places).sum(-1) / places.sum(-1)).mean())

    split = split_scores(weights, tokens, acts.pattern, layer, head, acts.norms)
    parts = {name: {"stripe": mean_over(stripe, part), "elsewhere": mean_over(others, part)}
             for name, part in {**split._asdict(), "total": sum(split)}.items()}
    larger = {name: part["stripe"] - part["elsewhere"] for name, part in parts.items()}
    attention = mean_over(stripe, acts.pattern[layer, :, head])
    carries = larger["total"] > 0 and attention > least_prefix_matching(block)
    return {"parts": parts, "carrier": max(split._fields, key=larger.get) if carries else None,
            "block": block, "attention": attention}


def removals(weights, tokens, acts, induction, previous, start, seed):
    """What removing the induction head or the previous-token head does, in nats per token.

    previous : None leaves that out, where no head has earned the name
    gaps: of `ordered_versus_shuffled`, on the same blocks each time; removed: losses on the text.
    """
    heads = {"whole": [], "without_induction": [induction]} | (
        {"without_previous": [previous]} if previous else {})
    gaps = side_by_side(lambda some: float(ordered_versus_shuffled(
        ablation.without_heads(weights, some), start, np.random.default_rng(seed)).gap),
        heads.values())
    removed = [*filter(None, heads.values())]
    losses = side_by_side(lambda some: ablation.loss_without_heads(
        weights, tokens, some, acts)._asdict(), removed)
    return {"gaps": dict(zip(heads, gaps)), "removed": dict(zip(map(label, removed), losses))}


def log_shares(tokens, acts):
    """log p of the token that comes next, at each place (b, i) but the last of a context."""
    return np.array([log_softmax(logits[:-1], axis=-1)[np.arange(len(targets)), targets]
                     for logits, targets in zip(acts.logits, tokens[:, 1:])])     # one at a time


def confident(log_p):
    """Where the next token has a probability of one half or more, or as much as it gets."""
    return log_p >= min(np.log(0.5), log_p.max(initial=-np.inf))


def prediction(weights, tokens, acts, head):
    """The confident prediction that `head`, a pair (layer, head), helped most, as a ledger.

    Of places in `tokens` (b, i) whose true next token has a probability of one half or more, it is
    the one where the head added most to its logit, `effect`. Where there is none, the likeliest
    place is taken. The 8 strongest entries are listed.
    """
    log_p = log_shares(tokens, acts)
    effect = head_effects(weights, tokens, acts)[head[0], :, head[1]]
    best = np.where(confident(log_p), effect, -np.inf).argmax()
    context, place = map(int, np.unravel_index(best, effect.shape))
    target, one = int(tokens[context, place + 1]), slice(context, context + 1)
    found = {"row": context, "context": tokens[context, :place + 1].tolist(),
             "head": label([head]), "effect": float(effect[context, place]),
             "target": target, "probability": float(np.exp(log_p[context, place])),
             "logit": float(acts.logits[context, place, target])}
    if sum(count_paths(weights)) > MAX_PATHS:
        return found | {"limit": f"It has more than {MAX_PATHS:,} paths, too many to list."}
    norms = None if acts.norms is None else acts.norms[:, one]
    entries = ledger(weights, tokens[one], acts.pattern[:, one], place, target, norms)
    # Where a bias b_O starts says nothing: all of such a path is counted once, at `place`.
    resting = [(head,) for head in resting_heads(weights)]
    of_bias = np.array([path[:1] in resting for path in entries.paths])
    shares = entries.contributions[:, :place + 1].copy()
    shares[of_bias] = np.eye(place + 1)[place] * shares[of_bias].sum(1, keepdims=True)
    strongest = Ledger(entries.paths, shares).strongest(8)
    total = float(shares.sum())
    return found | {
        "sum": total, "entries": [
            [label(path), None if path[:1] in resting else source, value]
            for path, source, value in strongest if value],
        "others": total - sum(value for *_, value in strongest),
        "count": int(shares.size - place * of_bias.sum() - len(strongest))}
