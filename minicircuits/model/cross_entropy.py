"""How surprised the model is, and back (step 9). Paper: "Term Importance Analysis"."""

import numpy as np

from minicircuits.notation import InputError


def cross_entropy(logits, tokens):
    """9. loss = −mean_{b, i<T−1} log softmax(logits_i)[token_{i+1}]: a scalar, nats.

    logits : (b, i, v); tokens : (b, i). log softmax(logits)_v = logits_v − log Σ_v' exp(logits_v').
    Rows are shifted as in `causal_softmax`. Raises InputError for contexts of one token.
    """
    if tokens.shape[1] < 2:
        raise InputError("a loss needs contexts of at least 2 tokens; got 1")
    logits = (logits - logits.real.max(-1, keepdims=True))[:, :-1]
    of_next = np.take_along_axis(logits, tokens[:, 1:, None], -1)
    return (np.log(np.exp(logits).sum(-1, keepdims=True)) - of_next).mean()


def cross_entropy_backward(logits, tokens):
    """9. loss = −mean log softmax(logits)[next]: dlogits = (softmax(logits) − [v is next]) / count.

    (b, i, v). 0 at the last position, which predicts nothing; count is that of all others.
    """
    shares = np.exp(logits - logits.real.max(-1, keepdims=True))
    dlogits = shares / shares.sum(-1, keepdims=True)
    dlogits[:, :-1] -= np.arange(logits.shape[-1]) == tokens[:, 1:, None]
    dlogits[:, -1] = 0
    return dlogits / tokens[:, 1:].size
