"""How surprised the model is: mean next-token cross-entropy, in nats per predicted token."""

import numpy as np

from minicircuits.notation import InputError


def cross_entropy(logits, tokens):
    """loss = −mean_{b, i<T−1} log softmax(logits_i)[token_{i+1}], with the probabilities.

    logits : (b, i, v); tokens : (b, i). Returns the loss (a scalar of the logits' dtype,
    nats) and the probabilities (b, i−1, v), which the backward needs.
    Raises InputError for a context of one token: it predicts nothing.
    """
    if tokens.shape[1] < 2:
        raise InputError("a loss needs contexts of at least 2 tokens; got 1")
    logits = logits[:, :-1]
    shift = logits.real.max(-1, keepdims=True)
    probabilities = logits - shift
    np.exp(probabilities, out=probabilities)
    total = probabilities.sum(-1, keepdims=True)
    probabilities /= total
    right = np.take_along_axis(logits, tokens[:, 1:, None], -1)
    return (np.log(total) - (right - shift)).mean(), probabilities


def cross_entropy_backward(probabilities, tokens, share=1):
    """dlogits = (softmax(logits) − one-hot of the next token) / count, (b, i, v).

    0 at the last position, whose next token is not in the context. `share` : of the batch
    that the loss is a mean over, where these contexts are not all of it.
    """
    b, n, v = probabilities.shape
    count = b * n / share
    dlogits = np.empty((b, n + 1, v), probabilities.dtype)
    np.divide(probabilities, count, out=dlogits[:, :-1])
    dlogits[:, -1] = 0
    dlogits[np.arange(b)[:, None], np.arange(n), tokens[:, 1:]] -= 1 / count
    return dlogits
