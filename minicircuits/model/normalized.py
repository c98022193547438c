"""A model with LayerNorm or RMSNorm, forward: for use, not for training.

Each layer, and at last W_U, reads y: x with its first n dimensions divided by σ, a number for
each context and position. All other steps are the textbook's. `circuits.normalization` makes
such weights of a model with gains and biases.
"""

import numpy as np

from minicircuits.model.attention import causal_softmax, mix, read, score, write
from minicircuits.model.embedding import embed, unembed
from minicircuits.notation import (InputError, NormalizedActivations, NormalizedWeights,
                                   empty_activations)


def normalize(weights, x):
    """σ = √(mean of the first n squares + eps), (b, i); and y, x with those n divided by σ."""
    n = weights.n_normalized
    sigma = np.sqrt((x[..., :n] ** 2).mean(-1) + weights.eps)
    return sigma, np.concatenate([x[..., :n] / sigma[..., None], x[..., n:]], axis=-1)


def layers_normalized(weights, tokens):
    """`NormalizedActivations` on checked tokens (b, i): the steps of `transformer.layers`."""
    W, acts = weights, empty_activations(weights, tokens)
    x, norms = acts.residual, np.empty((W.n_layers + 1, *tokens.shape), W.dtype)
    x[0] = embed(W.W_E, W.W_pos, tokens, W.positions)                                # 1
    for layer in range(W.n_layers):
        norms[layer], y = normalize(W, x[layer])
        acts.q[layer] = read(W.W_Q[layer], y)                                        # 3
        acts.k[layer] = read(W.W_K[layer], y)
        acts.v[layer] = read(W.W_V[layer], y)
        acts.scores[layer] = score(acts.q[layer], acts.k[layer])                     # 4
        acts.pattern[layer] = causal_softmax(acts.scores[layer])                     # 5
        acts.z[layer] = mix(acts.pattern[layer], acts.v[layer])                      # 6
        x[layer + 1] = write(W.W_O[layer], x[layer], acts.z[layer])                  # 7
    norms[-1], _ = normalize(W, x[-1])
    return NormalizedActivations(**vars(acts), norms=norms)


def logits_at(weights, acts, places):
    """8. The logits at some places i of the contexts, a slice: (b, i, v)."""
    x = acts.residual[-1][:, places]
    return unembed(weights.W_U, normalize(weights, x)[1] if isinstance(weights, NormalizedWeights)
                   else x)


def refuse_training(weights):
    if isinstance(weights, NormalizedWeights):
        raise InputError("NormalizedWeights are for use, not for training; gradients need weights "
                         "without norms")
