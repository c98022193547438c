"""The two circuits of a head, on the residual stream and on tokens and positions.

Paper: "Splitting Attention Head terms into Query-Key and Output-Value Circuits". What a
head looks at (QK) and what it does there (OV) are separate matrices: W_Q and W_K, W_O and
W_V only ever act in pairs.
"""

from typing import NamedTuple

from minicircuits.circuits.low_rank import LowRank, product
from minicircuits.door import door
from minicircuits.notation import InputError, Weights, check_head


@door
def W_QK(weights: Weights, layer: int, head: int) -> LowRank:
    """W_Qᵀ W_K, a bilinear form [destination, source] on the residual stream: (d, d).

    scores_ij = y_iᵀ W_QK y_j / √d_head: the scale is the score's, not the matrix's.
    """
    check_head(weights, layer, head)
    return LowRank(weights.W_Q[layer, head].mT, weights.W_K[layer, head])


@door
def W_OV(weights: Weights, layer: int, head: int) -> LowRank:
    """W_O W_V, what the head writes for what it reads: (d, d), out ← source."""
    check_head(weights, layer, head)
    return LowRank(weights.W_O[layer, head], weights.W_V[layer, head])


@door
def direct_path(weights: Weights) -> LowRank:
    """W_U W_E (v, u): what each token does to the next one's logits without any head.

    The bigram table of a zero-layer model. Paper: "Zero-Layer Transformers".
    """
    return LowRank(weights.W_U, weights.W_E)


@door
def ov_circuit(weights: Weights, layer: int, head: int) -> LowRank:
    """W_U W_OV W_E (v, u) [out, source]: what attending to the source does to the logits.

    An entry is what the head adds to a logit if all its attention is on the source. Of the
    embedding alone: what earlier heads have put there is the business of `expand_logits`.

    >>> from minicircuits.circuits.hand_built import skip_trigram_machine
    >>> weights = skip_trigram_machine(d_vocab=3, heads=[[(1, 2, 2)]])       # 1 … 2 → 2
    >>> ov_circuit(weights, 0, 0).AB                                         # out 2, source 1
    array([[0., 0., 0.],
           [0., 0., 0.],
           [0., 1., 0.]])
    """
    return weights.W_U @ W_OV(weights, layer, head) @ weights.W_E


@door
def qk_circuit(weights: Weights, layer: int, head: int) -> LowRank:
    """W_Eᵀ W_QK W_E (u, u) [destination, source]: how well source matches destination.

    Not symmetric, and without 1/√d_head. A constant added to a destination's row changes no
    pattern. From layer 1 on it is one term of several: see `expand_scores`.
    """
    return weights.W_E.mT @ W_QK(weights, layer, head) @ weights.W_E


class PositionalQK(NamedTuple):
    """The positional terms of a head's scores, each LowRank [destination, source]."""
    position_position: LowRank     # W_posᵀ W_QK W_pos   (p, p)
    position_token: LowRank        # W_posᵀ W_QK W_E     (p, u)
    token_position: LowRank        # W_Eᵀ W_QK W_pos     (u, p)


@door
def positional_qk_circuits(weights: Weights, layer: int, head: int) -> PositionalQK:
    """How strongly destinations attend to sources for where they are. Unscaled, as `qk_circuit`.

    The same three in "shortformer" mode (W_pos is read directly, in every layer) and in
    "standard" mode (W_pos arrives by the residual stream). Raises InputError without
    positions. With `qk_circuit` they make up the scores of a head of layer 0:

        √d_head scores_ij = qk_circuit[token_i, token_j] + token_position[token_i, j]
                            + position_token[i, token_j] + position_position[i, j]
    """
    if weights.W_pos is None:
        raise InputError('positional circuits need positions; got positions="none"')
    E, P, QK = weights.W_E, weights.W_pos, W_QK(weights, layer, head)
    return PositionalQK(product(P.mT, QK, P), product(P.mT, QK, E), product(E.mT, QK, P))
