"""Which head and which source moved a logit; and one path patched, exactly. By path: `ledger`.

Of `NormalizedWeights`, effects are taken with the last norm frozen; `patch_path` recomputes norms.

Paper: "Attention Heads are Independent and Additive".
"""

import numpy as np

from minicircuits.behavior import tokens_and_acts
from minicircuits.circuits.normalization import as_read
from minicircuits.door import door
from minicircuits.model.attention import causal_softmax
from minicircuits.model.normalized import normalize
from minicircuits.notation import (Activations, InputError, NormalizedWeights, Tokens, Weights,
                                   check_head)


@door
def head_effects(weights: Weights, tokens: Tokens, acts: Activations | None = None) -> np.ndarray:
    """What each head adds directly, not through later heads, to the true next token's logit.

    W_U[token_{i+1}] · W_O z_i: (l, b, h, i−1), logits. What earlier heads put into its values
    is included. One row added to every row of W_U changes it; another basis does not.
    """
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    toward = toward_next(weights, tokens, acts)[:, None]                   # (b, 1, i−1, d)
    written = toward @ weights.W_O[:, None]                                # (l, b, h, i−1, e)
    return (written * acts.z[..., :-1, :]).sum(-1)


@door
def source_effects(weights: Weights, tokens: Tokens, layer: int, head: int,
                   acts: Activations | None = None) -> np.ndarray:
    """The same for one head, source by source: W_U[token_{i+1}] · W_O A_ij v_j; (b, i−1, j).

    Σ_j is `head_effects`. j is where this head read. After layer 0, what stands at j may come
    from earlier positions: `ledger` follows it.
    """
    check_head(weights, layer, head)
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    written = toward_next(weights, tokens, acts) @ weights.W_O[layer, head]        # (b, i−1, e)
    return acts.pattern[layer, :, head, :-1] * (written @ acts.v[layer, :, head].mT)


def toward_next(weights, tokens, acts):
    """W_U[token_{i+1}], divided by the last σ_i where x is: (b, i−1, d)."""
    norm = None if acts.norms is None else acts.norms[-1, :, :-1]
    return as_read(weights, weights.W_U[tokens[:, 1:]], norm)


@door
def patch_path(weights: Weights, tokens: Tokens, other_tokens: Tokens, sender: tuple[int, int],
               receiver: tuple[int, int] | None = None, reads: str = "qkv",
               acts: Activations | None = None,
               other_acts: Activations | None = None) -> np.ndarray:
    """Logits (b, i, v) with one path as it is on `other_tokens`, everything else unchanged.

    sender : (layer, head) whose output is exchanged, for one reader only
    receiver : None is the unembedding (the direct effect). (layer, head) is that head, in what
        it `reads` as "q", "k" or "v"; its pattern is recomputed, and its own change goes to the
        logits directly. Exact: the residual stream is a sum, and one term of it is exchanged.
        Norms σ of `NormalizedWeights` are recomputed wherever a changed x is read.
    """
    check_head(weights, *sender)
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    other_tokens, other = tokens_and_acts(weights, other_tokens, other_acts)
    if tokens.shape != other_tokens.shape:
        raise InputError("both sets of tokens must have the same axes (b, i); got "
                         f"{tokens.shape} and {other_tokens.shape}")
    layer, head = sender
    change = (other.z - acts.z)[layer, :, head] @ weights.W_O[sender].mT        # (b, i, d)
    if receiver is None:
        return acts.logits + change_read(weights, acts.residual[-1], change) @ weights.W_U.mT
    check_head(weights, *receiver)
    if not (layer < receiver[0] and reads and set(reads) <= set("qkv")):
        raise InputError("a path needs a receiver in a later layer that reads some of q, k, v; "
                         f"got {sender} → {receiver}, {reads!r}")
    later, h = receiver
    change = change_read(weights, acts.residual[later], change)
    q, k, v = (getattr(acts, name)[later, :, h]
               + (change @ W[receiver].mT if name in reads else 0)
               for name, W in zip("qkv", (weights.W_Q, weights.W_K, weights.W_V)))
    z = causal_softmax(q @ k.mT / np.sqrt(weights.d_head).astype(q.dtype)) @ v
    change = (z - acts.z[later, :, h]) @ weights.W_O[receiver].mT
    return acts.logits + change_read(weights, acts.residual[-1], change) @ weights.W_U.mT


def change_read(weights, x, change):
    """What changes in y, which is read, when x changes: the same, or with another σ."""
    if not isinstance(weights, NormalizedWeights):
        return change
    return normalize(weights, x + change)[1] - normalize(weights, x)[1]
