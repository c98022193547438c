"""How surprised the model is: mean next-token cross-entropy, in nats per predicted token.

Paper: "Term Importance Analysis", whose losses these are.
"""

import numpy as np

from minicircuits.notation import InputError


def cross_entropy(logits, tokens, in_place=False):
    """loss = −mean_{b, i<T−1} log softmax(logits_i)[token_{i+1}], with the probabilities.

    logits : (b, i, v); tokens : (b, i); in_place : the logits are overwritten with the
    probabilities. Returns the loss (a scalar of the logits' dtype, nats) and the probabilities
    (b, i, v), which the backward needs; the last position's are not in the loss. Raises
    InputError for a context of one token: it predicts nothing.
    """
    if tokens.shape[1] < 2:
        raise InputError("a loss needs contexts of at least 2 tokens; got 1")
    logits = np.subtract(logits, logits.real.max(-1, keepdims=True),
                         out=logits if in_place else None)
    right = logits[next_of(tokens)]
    probabilities = np.exp(logits, out=logits)
    total = probabilities.sum(-1, keepdims=True)     # pairwise: a product with ones loses digits
    probabilities /= total
    return (np.log(total[:, :-1, 0]) - right).mean(), probabilities


def cross_entropy_backward(probabilities, tokens, share=1, in_place=False):
    """dlogits = (softmax(logits) − one-hot of the next token) / count, (b, i, v).

    0 at the last position, whose next token is not in the context. share : what part of
    the batch these contexts are; `count` is the number of predictions in all of it. in_place :
    the probabilities are overwritten with dlogits.
    """
    count = tokens[:, 1:].size / share
    dlogits = np.divide(probabilities, count, out=probabilities if in_place else None)
    dlogits[:, -1] = 0
    dlogits[next_of(tokens)] -= 1 / count
    return dlogits


def next_of(tokens):
    """The index into (b, i, v) of every token that a position before it predicts: (b, i−1)."""
    b, i = tokens.shape
    return np.arange(b)[:, None], np.arange(i - 1), tokens[:, 1:]
