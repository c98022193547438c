"""How surprised the model is: mean next-token cross-entropy, in nats per predicted token.

Paper: "Term Importance Analysis", whose losses these are.
"""

import numpy as np

from minicircuits.notation import InputError


def cross_entropy(logits, tokens, out=None):
    """loss = −mean_{b, i<T−1} log softmax(logits_i)[token_{i+1}], with the probabilities.

    logits : (b, i, v); tokens : (b, i); out : where to put the probabilities, for instance
    the logits themselves. Returns the loss (a scalar of the logits' dtype, nats) and the
    probabilities (b, i, v), which the backward needs; the last position's are not in the
    loss. Raises InputError for a context of one token: it predicts nothing.
    """
    if tokens.shape[1] < 2:
        raise InputError("a loss needs contexts of at least 2 tokens; got 1")
    shift = logits.real.max(-1, keepdims=True)
    right = np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], -1) - shift[:, :-1]
    probabilities = np.subtract(logits, shift, out=out)
    np.exp(probabilities, out=probabilities)
    total = probabilities.sum(-1, keepdims=True)
    probabilities /= total
    return (np.log(total[:, :-1]) - right).mean(), probabilities


def cross_entropy_backward(probabilities, tokens, share=1, out=None):
    """dlogits = (softmax(logits) − one-hot of the next token) / count, (b, i, v).

    0 at the last position, whose next token is not in the context. share : of the batch that
    the loss is a mean over, where these contexts are not all of it; out : as above.
    """
    b, i, _ = probabilities.shape
    count = b * (i - 1) / share
    dlogits = np.divide(probabilities, count, out=out)
    dlogits[:, -1] = 0
    dlogits[np.arange(b)[:, None], np.arange(i - 1), tokens[:, 1:]] -= 1 / count
    return dlogits
