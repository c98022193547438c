"""Which head, which path and which source moved a logit.

Paper: "Attention Heads as Independent Additive Operations": the heads' outputs are added,
so each has an effect of its own on every logit.
"""

import numpy as np

from minicircuits.model.transformer import forward
from minicircuits.notation import check_tokens


def head_effects(weights, tokens):
    """What each head adds, by the residual stream alone, to the true next token's logit.

    W_U[token_{i+1}] · W_O z_i: (l, b, h, i−1), logits. Includes what earlier heads put into
    its values, not what it does through later heads. For one place by path and by source
    position, see `ledger`.
    """
    tokens = check_tokens(weights, tokens)
    acts = forward(weights, tokens)
    right = weights.W_U[tokens[:, 1:]]                                # (b, i−1, d)
    written = np.einsum("bid,lhde->lbhie", right, weights.W_O, optimize=True)
    return (written * acts.z[..., :-1, :]).sum(-1)
