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
from minicircuits.circuits.biases import resting_heads, without_biases
from minicircuits.circuits.copying import copying_score
from minicircuits.circuits.expansion import count_paths, expand_logits, propagate, residual_0
from minicircuits.circuits.heads import W_OV
from minicircuits.circuits.low_rank import product
from minicircuits.circuits.normalization import as_read, frozen
from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.transformer import forward
from minicircuits.notation import Activations, Tokens, Weights, check_head, check_real


class TermImportance(NamedTuple):
    """Losses in nats per token, patterns frozen; an order is a number of heads, 0 … n_layers."""
    losses: np.ndarray          # (order,): with the paths of at most that order; last: the model
    marginal: np.ndarray        # (order,): what each order takes off; the first: off ln d_vocab
    counts: list                # how many paths each order has
    given_direct: np.ndarray    # (l,): what a layer's single heads take off the direct path alone
    given_others: np.ndarray    # (l,): the same, once the other layers' single heads are there


@door
def term_importance(weights: Weights, tokens: Tokens,
                    acts: Activations | None = None) -> TermImportance:
    """How much of the loss the paths of each order account for, as the paper measures it.

    All patterns are frozen; then the logits are summed order by order. A head that only steers
    another's attention counts for nothing here; `loss_without_heads` sees it.
    """
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    tokens, pattern, norms = frozen(weights, tokens, acts.pattern, acts.norms)
    x = residual_0(weights, tokens)
    singles = [sum(A[:, head] @ x @ W_OV(weights, layer, head).mT               # (b, i, d) each
                   for head in range(weights.n_heads)) for layer, A in enumerate(pattern)]
    all_singles = sum(singles, x)

    def losses_of(ways):
        return np.array([*side_by_side(lambda x: loss_at_end(weights, x, norms[-1], tokens), ways)])

    losses = losses_of(propagate(weights, x, pattern).cumsum(0))
    marginal = -np.diff(losses, prepend=np.log(weights.d_vocab).astype(losses.dtype))
    return TermImportance(losses, marginal, count_paths(weights),
                          losses[0] - losses_of(x + one for one in singles),
                          losses_of(all_singles - one for one in singles) - losses[1:2])


def loss_at_end(weights, x, norm, tokens):
    """The cross-entropy of what W_U makes of x (b, i, d); norm : the frozen σ, or None."""
    return mean_loss((y @ weights.W_U.mT for y in as_read(weights, x, norm)), tokens)


def mean_loss(logits, tokens):
    """The cross-entropy of contexts whose logits (i, v) come one after the other."""
    return np.mean([cross_entropy(one[None], context[None])
                    for one, context in zip(logits, tokens)])


class VirtualHead(NamedTuple):
    heads: tuple          # ((layer, head), …), first to last
    copying: float        # copying score of W_U W_OV … W_OV W_E
    importance: float     # nats per token: loss without this one path, minus the loss


@door
def virtual_heads(weights: Weights, tokens: Tokens,
                  acts: Activations | None = None) -> list[VirtualHead]:
    """Every virtual head, the most important first; patterns frozen. One cross-entropy a path.

    Paths of a bias are none: those through heads that rest. `copying` is of the matrices
    `without_biases`.
    """
    check_real(weights)
    return sorted(each_virtual_head(weights, *tokens_and_acts(weights, tokens, acts)),
                  key=lambda virtual: -virtual.importance)


def each_virtual_head(weights, tokens, acts, longest=None):
    """Yields the virtual heads by order, those of at most `longest` heads, or all.

    M N and N M have the same eigenvalues but for zeros, so W_U W W_E copies as W (W_E W_U) does,
    which is small.
    """
    loss, matrices = mean_loss(acts.logits, tokens), without_biases(weights)
    W_E_W_U = matrices.W_E @ matrices.W_U

    def measured(path):
        W = product(*(W_OV(matrices, *head) for head in reversed(path.heads)), W_E_W_U)
        importance = mean_loss(map(np.subtract, acts.logits, path.logits), tokens) - loss
        return VirtualHead(path.heads, copying_score(W), float(importance))

    resting = {*resting_heads(weights)}
    yield from side_by_side(measured, [
        path for path in expand_logits(weights, tokens, acts.pattern, acts.norms, longest)
        if path.order >= 2 and resting.isdisjoint(path.heads)])


@door
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


@door
def loss_without_heads(weights: Weights, tokens: Tokens, heads: list[tuple[int, int]],
                       acts: Activations | None = None) -> WithoutHeads:
    """The loss without some heads, nats per token: later patterns once frozen, once recomputed.

    recomputed − frozen is what they do through later heads' attention. acts : the whole model's.
    """
    check_real(weights)
    ablated = without_heads(weights, heads)
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    _, pattern, norms = frozen(weights, tokens, acts.pattern, acts.norms)
    x = propagate(ablated, residual_0(ablated, tokens), pattern).sum(0)                # (b, i, d)
    return WithoutHeads(
        float(loss_at_end(weights, x, norms[-1], tokens)),
        float(cross_entropy(forward(ablated, tokens).logits, tokens)))
