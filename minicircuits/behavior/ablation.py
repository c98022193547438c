"""What is lost without some terms: paths by order, virtual heads one by one, heads removed.

Virtual heads are paths of order ≥ 2: heads one after the other through values. Q- and
K-composition act inside the patterns, so induction heads are not virtual heads. Where patterns
are frozen, so are the norms σ of `NormalizedWeights`; where they are recomputed, norms are too.

Paper: "Term Importance Analysis", "Virtual Attention Heads".
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from minicircuits.behavior import tokens_and_acts
from minicircuits.circuits.copying import copying_score
from minicircuits.circuits.expansion import count_paths, expand_logits, logits_by_order
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.transformer import forward
from minicircuits.notation import Activations, Tokens, Weights, check_head


class TermImportance(NamedTuple):
    """Losses in nats per token, patterns frozen; an order is a number of heads, 0 … n_layers."""
    losses: np.ndarray          # (order,): with the paths of at most that order; last: the model
    marginal: np.ndarray        # (order,): what each order takes off; the first: off ln d_vocab
    counts: list                # how many paths each order has
    given_direct: np.ndarray    # (l,): what a layer's single heads take off the direct path alone
    given_others: np.ndarray    # (l,): the same, once the other layers' single heads are there


def term_importance(weights: Weights, tokens: Tokens,
                    acts: Activations | None = None) -> TermImportance:
    """How much of the loss the paths of each order account for, as the paper measures it.

    All patterns are frozen; then the logits are summed order by order. A head that only steers
    another's attention counts for nothing here; `loss_without_heads` sees it.
    """
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    by_order = logits_by_order(weights, tokens, acts.pattern, acts.norms)
    losses = np.array([cross_entropy(logits, tokens) for logits in by_order.cumsum(0)])
    marginal = -np.diff(losses, prepend=np.log(weights.d_vocab).astype(losses.dtype))
    paths = expand_logits(weights, tokens, acts.pattern, acts.norms)
    singles = [sum(path.logits for path in paths if path.order == 1 and path.heads[0][0] == layer)
               for layer in range(weights.n_layers)]
    direct, all_singles = by_order[0], sum(singles, by_order[0])
    return TermImportance(
        losses, marginal, count_paths(weights),
        np.array([losses[0] - cross_entropy(direct + single, tokens) for single in singles]),
        np.array([cross_entropy(all_singles - single, tokens) - losses[1] for single in singles]))


class VirtualHead(NamedTuple):
    heads: tuple          # ((layer, head), …), first to last
    copying: float        # copying score of W_U W_OV … W_OV W_E
    importance: float     # nats per token: loss without this one path, minus the loss


def virtual_heads(weights: Weights, tokens: Tokens,
                  acts: Activations | None = None) -> list[VirtualHead]:
    """Every virtual head, the most important first; patterns frozen. One cross-entropy a path."""
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    loss = cross_entropy(acts.logits, tokens)
    paths = expand_logits(weights, tokens, acts.pattern, acts.norms)
    found = [VirtualHead(path.heads, copying_score(path.W),
                         float(cross_entropy(acts.logits - path.logits, tokens) - loss))
             for path in paths if path.order >= 2]
    return sorted(found, key=lambda virtual: -virtual.importance)


def without_heads(weights: Weights, heads: list[tuple[int, int]]) -> Weights:
    """The same weights with the heads (layer, head) of `heads` writing nothing: W_O = 0."""
    W_O = weights.W_O.copy()
    for layer, head in heads:
        check_head(weights, layer, head)
        W_O[layer, head] = 0
    return replace(weights, W_O=W_O)


class WithoutHeads(NamedTuple):
    frozen: float         # loss with all patterns as they were
    recomputed: float     # loss with later patterns computed without the heads


def loss_without_heads(weights: Weights, tokens: Tokens, heads: list[tuple[int, int]],
                       acts: Activations | None = None) -> WithoutHeads:
    """The loss without some heads, nats per token: later patterns once frozen, once recomputed.

    recomputed − frozen is what they do through later heads' attention. acts : the whole model's.
    """
    ablated = without_heads(weights, heads)
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    frozen = logits_by_order(ablated, tokens, acts.pattern, acts.norms).sum(0)
    return WithoutHeads(
        float(cross_entropy(frozen, tokens)),
        float(cross_entropy(forward(ablated, tokens).logits, tokens)))
