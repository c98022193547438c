"""Virtual heads: what two or more heads, one after the other through values, do together.

Paper: "Virtual Attention Heads". Their pattern and their circuit are those of a `Path` of
order ≥ 2. Q- and K-composition are not here: they act inside the patterns. So induction heads
are not virtual heads.
"""

from typing import NamedTuple

from minicircuits.behavior.ablation import loss_of
from minicircuits.circuits.copying import copying_score
from minicircuits.circuits.expansion import expand_logits
from minicircuits.model.transformer import forward


class VirtualHead(NamedTuple):
    heads: tuple          # ((layer, head), …), first to last
    copying: float        # copying score of W_U W_OV … W_OV W_E
    importance: float     # nats per token: loss without this one path, minus the loss


def virtual_heads(weights, tokens):
    """Every virtual head, the most important first. tokens : (b, i).

    Patterns are frozen, so this is the effect of the path alone. One cross-entropy a path:
    for models of more than two layers there are many.

    >>> from minicircuits.circuits.hand_built import induction_by_k_composition
    >>> virtual, = virtual_heads(induction_by_k_composition(4, 5), [[0, 1, 2, 3, 1]])
    >>> virtual.heads, virtual.copying, virtual.importance
    (((0, 0), (1, 0)), 0.0, 0.0)
    """
    acts = forward(weights, tokens)
    loss = loss_of(acts.logits, tokens)
    found = [VirtualHead(path.heads, copying_score(path.W),
                         float(loss_of(acts.logits - path.logits, tokens) - loss))
             for path in expand_logits(weights, tokens, acts.pattern) if path.order >= 2]
    return sorted(found, key=lambda virtual: -virtual.importance)
