"""What the present token alone says of the next one: counts, as yardsticks for models.

A count is C[v, u]: how often token v came next after token u, with the axes (v, u) of the
direct path W_U W_E. Losses are in nats per predicted token, as the model's are.

    unigram       p(v)   = (C[v, ·] + α) / (C[·, ·] + α d_vocab)
    bigram        p(v|u) = (C[v, u] + β p(v)) / (C[·, u] + β)
    zero layers   p(v|u) = softmax_v (W_U W_E)[v, u]

A bigram is interpolated: seen n times, u has a share of n / (n + β) in its predictions. An
array of counts takes 8 d_vocab² bytes.

Paper: "Zero-Layer Transformers".
"""

import numpy as np
import scipy                          # scipy.optimize loads when it is used, which is seldom
from scipy.special import xlogy

from minicircuits.notation import InputError


def count_bigrams(tokens, d_vocab):
    """C (v, u), float64, from tokens (b, i), where rows are contexts, or from a stream (i,)."""
    tokens = np.atleast_2d(tokens)
    if tokens.dtype.kind not in "iu" or tokens.ndim != 2 or tokens[:, 1:].size == 0:
        raise InputError(f"bigrams are counted in integers with axes (b, i), i at least 2; got "
                         f"{tokens.dtype} {tokens.shape}")
    if tokens.min() < 0 or tokens.max() >= d_vocab:
        raise InputError(f"tokens must be from 0 to {d_vocab - 1}; got {tokens.min()} to "
                         f"{tokens.max()}")
    pairs = tokens[:, 1:].astype(np.int64) * d_vocab + tokens[:, :-1]
    return np.bincount(pairs.ravel(), minlength=d_vocab ** 2).reshape(d_vocab, -1).astype(float)


def count_in_contexts(stream, start, n_ctx, d_vocab):
    """C (v, u) as it is on average in contexts of n_ctx tokens, drawn as `text.batch` does.

    To each n_ctx − 2 bigrams of the stream comes one from START to whatever token it is. In
    contexts of 2 tokens there are no others.
    """
    C = count_bigrams(stream, d_vocab)
    first = C.sum(1) / max(1, n_ctx - 2)
    if n_ctx == 2:
        C[:] = 0
    C[:, start] += first
    return C


def unigram(C, alpha=1.0):
    """p(v), (v, 1), from counts C (v, u): no token is impossible, however rare."""
    count = C.sum(1, keepdims=True) + alpha
    return count / count.sum()


def bigram(C, beta=50.0):
    """p(v|u), (v, u), from counts C (v, u); for a token u never seen, the unigram's p(v)."""
    return (C + beta * unigram(C)) / (C.sum(0) + beta)


def counted_loss(p, C):
    """−Σ C log p / Σ C, nats per token: what p (v, u) or (v, 1) loses on the text behind C."""
    return float(-xlogy(C, p).sum() / C.sum())


def zero_layer_loss(W_U, W_E, C):
    """The loss of a model without layers on the text behind C, exactly, and its gradients.

    W_U : (v, d); W_E : (d, u). Returns nats per token, dW_U, dW_E.
    """
    C = C / C.sum()
    logits = W_U @ W_E
    logits -= logits.max(0)
    p = np.exp(logits)
    total = p.sum(0)
    loss = (C.sum(0) * np.log(total)).sum() - (C * logits).sum()      # −Σ C log (p / total)
    dlogits = C.sum(0) / total * p - C
    return loss, dlogits @ W_E.T, W_U.T @ dlogits


def fit_zero_layer(C, d_model, rng, iterations=150):
    """The least loss of a model without layers on the text behind C, nats, found by L-BFGS.

    It starts from small random weights and comes near from above: on 1,024 tokens to about
    0.02 nats. In float32. Columns of W_E are in units of 1/√(their token's share of the text),
    so that rare tokens are not far away.
    """
    C = C.astype(np.float32)
    d_vocab = len(C)
    unit = 1 / np.sqrt(C.sum(0) / C.sum() + np.float32(1e-6))

    def loss_and_gradient(flat):
        W_U, W_E = np.split(flat.astype(np.float32), 2)
        loss, dW_U, dW_E = zero_layer_loss(W_U.reshape(d_vocab, d_model),
                                           W_E.reshape(d_model, d_vocab) * unit, C)
        return float(loss), np.concatenate([dW_U, dW_E * unit], axis=None).astype(float)

    W_U = rng.normal(0, d_model ** -0.5, (d_vocab, d_model))
    W_E = rng.normal(0, d_model ** -0.5, (d_model, d_vocab)) / unit
    begin = np.concatenate([W_U, W_E], axis=None)
    return scipy.optimize.minimize(loss_and_gradient, begin, jac=True, method="L-BFGS-B",
                                   options={"maxiter": iterations}).fun
