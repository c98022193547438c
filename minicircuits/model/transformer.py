"""The attention-only transformer: its steps in order, and in reverse.

    x_0 = W_E t            x_{l+1} = x_l + Σ_h (A^{l,h} ⊗ W_OV^{l,h}) x_l
    logits = W_U x_L       A^{l,h}_ij = softmax*_j (y_iᵀ W_QK^{l,h} y_j / √d_head)

Positions are columns p of W_pos. In "standard" mode they are added once, to x_0, and y = x. In
"shortformer" mode only W_Q and W_K read them, y = x + p, in every layer.
Paper: "Transformer Overview".
"""

import numpy as np
from numpy.typing import DTypeLike

from minicircuits.door import door
from minicircuits.model.attention import (
    causal_softmax, causal_softmax_backward, mix, mix_backward, read, read_backward, score,
    score_backward, write, write_backward)
from minicircuits.model.cross_entropy import cross_entropy, cross_entropy_backward
from minicircuits.model.embedding import (add_positions, add_positions_backward, embed,
                                          embed_backward, unembed_backward)
from minicircuits.model.normalized import layers_normalized, logits_at, refuse_training
from minicircuits.notation import (Activations, NormalizedWeights, Tokens, Weights, check_acts,
                                   check_array, check_sizes, check_tokens, empty_activations)


def loss_and_gradients(weights, tokens):
    """The loss (scalar, nats per predicted token) and its gradients, a `Weights`.

    Learning in four lines. `fast.loss_and_gradients` gives the same numbers sooner.
    """
    refuse_training(weights)
    acts = forward(weights, tokens)
    nats = cross_entropy(acts.logits, np.asarray(tokens))
    dlogits = cross_entropy_backward(acts.logits, np.asarray(tokens))
    return nats, backward(weights, tokens, acts, dlogits)[0]


@door
def loss(weights: Weights, tokens: Tokens) -> float:
    """Mean next-token cross-entropy over the first T−1 positions: a scalar, nats."""
    return cross_entropy(forward(weights, tokens).logits, np.asarray(tokens))


@door
def forward(weights: Weights, tokens: Tokens) -> Activations:
    """Every intermediate of the forward pass on tokens (b, i), as `Activations`.

    Raises InputError for tokens that are not integers from 0 to d_vocab−1 in axes (b, i),
    or for a context longer than n_ctx. `loss` gives the loss, `backward` the gradients.
    """
    acts = layers(weights, tokens)
    acts.logits[:] = logits_at(weights, acts, slice(None))                           # 8
    return acts


def layers(weights, tokens):
    """Steps 1 to 7 alone: `Activations` whose logits wait for step 8, at all places or some."""
    W, tokens = weights, check_tokens(weights, tokens)
    if isinstance(weights, NormalizedWeights):
        return layers_normalized(weights, tokens)
    acts = empty_activations(weights, tokens)
    acts.residual[0] = embed(W.W_E, W.W_pos, tokens, W.positions)                    # 1
    for layer in range(W.n_layers):
        attention(weights, acts, layer)                                              # 2 to 7
    return acts


@door
def backward(weights: Weights, tokens: Tokens, acts: Activations,
             dlogits: np.ndarray) -> tuple[Weights, Activations]:
    """The gradients of Σ dlogits·logits: of every weight, and of every intermediate.

    acts : what `forward(weights, tokens)` gave; dlogits : (b, i, v). Returns `Weights` and
    `Activations`, every gradient in the shape of what it is the gradient of.
    """
    refuse_training(weights)
    W, tokens = weights, check_tokens(weights, tokens)
    check_acts(weights, tokens, acts)
    check_array(weights, tokens, "dlogits", dlogits, "b i v")
    dW = {"W_pos": None, **{name: np.zeros_like(array) for name, array in W.items()}}
    dacts = empty_activations(weights, tokens)
    dacts.logits[:] = dlogits
    dW["W_U"], dacts.residual[-1] = unembed_backward(W.W_U, acts.residual[-1], dacts.logits)  # 8
    for layer in reversed(range(W.n_layers)):
        attention_backward(weights, acts, layer, dW, dacts)                          # 7 to 2
    embed_backward(dacts.residual[0], tokens, W.positions, dW["W_E"], dW["W_pos"])   # 1
    return Weights(positions=W.positions, **dW), dacts


def attention(weights, acts, layer):
    """Fills acts.q to acts.z of a layer, and the residual stream that leaves it."""
    x, W = acts.residual[layer], weights
    q, k, v, scores, A, z = of_layer(acts, layer)
    y = add_positions(x, W.W_pos, W.positions)                                       # 2
    q[:] = read(W.W_Q[layer], y)                                                     # 3
    k[:] = read(W.W_K[layer], y)
    v[:] = read(W.W_V[layer], x)
    scores[:] = score(q, k)                                                          # 4
    A[:] = causal_softmax(scores)                                                    # 5
    z[:] = mix(A, v)                                                                 # 6
    acts.residual[layer + 1] = write(W.W_O[layer], x, z)                             # 7


def attention_backward(weights, acts, layer, dW, dacts):
    """Fills dW and dacts of a layer, from the residual stream that leaves it to what enters."""
    x, W, dx = acts.residual[layer], weights, dacts.residual[layer + 1]
    q, k, v, _, A, z = of_layer(acts, layer)
    dq, dk, dv, dscores, dA, dz = of_layer(dacts, layer)
    y = add_positions(x, W.W_pos, W.positions)
    dW["W_O"][layer], dz[:] = write_backward(W.W_O[layer], z, dx)                    # 7
    dA[:], dv[:] = mix_backward(A, v, dz)                                            # 6
    dscores[:] = causal_softmax_backward(A, dA)                                      # 5
    dq[:], dk[:] = score_backward(q, k, dscores)                                     # 4
    dW["W_V"][layer], dx_v = read_backward(W.W_V[layer], x, dv)                      # 3
    dW["W_K"][layer], dy_k = read_backward(W.W_K[layer], y, dk)
    dW["W_Q"][layer], dy_q = read_backward(W.W_Q[layer], y, dq)
    add_positions_backward(dy_k + dy_q, W.positions, dW["W_pos"])                    # 2
    dacts.residual[layer] = dx + dx_v + dy_k + dy_q


def of_layer(acts, layer):
    """A layer's q, k, v, scores, pattern and z, as views: to fill, or to read."""
    return (getattr(acts, name)[layer] for name in ("q", "k", "v", "scores", "pattern", "z"))


@door
def init_weights(n_layers: int, n_heads: int, d_model: int, d_head: int, d_vocab: int,
                 n_ctx: int | None, positions: str, rng: np.random.Generator,
                 dtype: "DTypeLike" = np.float64) -> Weights:
    """Weights to start training from, drawn from `rng`; n_ctx is unused without positions.

    Matrices are N(0, 1/fan-in) (all heads of a layer are the fan-in of its W_O), embeddings
    small, N(0, 0.05²), and positions sinusoids of amplitude 2. The same `rng` gives the same
    weights in every dtype, up to rounding. Raises InputError for sizes below 1 (n_layers: 0),
    and for modes that are not in `POSITIONS`.
    """
    check_sizes(n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_head=d_head,
                d_vocab=d_vocab, n_ctx=n_ctx or 1)

    def normal(*shape, std):
        return (std * rng.standard_normal(shape)).astype(dtype)

    reads, std = (n_layers, n_heads, d_head, d_model), d_model ** -0.5
    W_E = normal(d_vocab, d_model, std=0.05).T         # .T: a token's column is contiguous
    W_Q, W_K, W_V = (normal(*reads, std=std) for _ in range(3))
    W_O = normal(n_layers, n_heads, d_model, d_head, std=(n_heads * d_head) ** -0.5)
    W_U = normal(d_vocab, d_model, std=std)
    W_pos = (None if positions == "none" or n_ctx is None
             else (2 * sinusoids(n_ctx, d_model)).astype(dtype).T)
    return Weights(W_E, W_pos, W_Q, W_K, W_V, W_O, W_U, positions)


def sinusoids(n_ctx, d_model, fastest=1, slowest=1e-4):
    """sin and cos of p·f, half of the dimensions each (Vaswani et al. 2017): (p, d).

    The frequencies f, in radians per position, fall geometrically from `fastest` to `slowest`.
    """
    half = (d_model + 1) // 2
    angles = np.arange(n_ctx)[:, None] * fastest * (slowest / fastest) ** (np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :d_model]
