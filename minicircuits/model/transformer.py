"""The attention-only transformer: its four steps in order, and in reverse.

    x_0 = W_E t            x_{l+1} = x_l + Σ_h (A^{l,h} ⊗ W_OV^{l,h}) x_l
    logits = W_U x_L       A^{l,h}_ij = softmax*_j (y_iᵀ W_QK^{l,h} y_j / √d_head)

Positions p = W_pos are added in "standard" mode to x_0, and y = x; in "shortformer" mode only
to what W_Q and W_K read, y = x + p, in every layer. Paper: "Transformer Overview".
"""

import numpy as np

from minicircuits.model.attention import Heads, attention, attention_backward
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.embedding import (embed, embed_backward, embed_positions,
                                          embed_positions_backward)
from minicircuits.model.unembedding import unembed, unembed_backward
from minicircuits.notation import (ACTIVATION_AXES, POSITIONS, Activations, InputError,
                                   Weights, check_axes, check_tokens)


def init_weights(n_layers, n_heads, d_model, d_head, d_vocab, n_ctx, positions, rng,
                 dtype=np.float64):
    """Weights to start training from, drawn from `rng`; n_ctx is unused without positions.

    Matrices are N(0, 1/fan-in) (all heads of a layer are the fan-in of its W_O), embeddings
    small, N(0, 0.05²), and positions sinusoids of amplitude 2. The same `rng` gives the same
    weights in every dtype, up to rounding. (The tour's runs start from these with two changes:
    `training.recipe.first_weights`.) Raises InputError for sizes below 1, or 0 for n_layers.
    """
    sizes = dict(n_layers=n_layers, n_heads=n_heads, d_model=d_model, d_head=d_head,
                 d_vocab=d_vocab)
    for name, size in sizes.items():
        if size < (least := int(name != "n_layers")):
            raise InputError(f"{name} must be at least {least}; got {size}")
    if positions not in POSITIONS:
        raise InputError(f"positions must be one of {', '.join(POSITIONS)}; got {positions!r}")

    def normal(*shape, std):
        return (std * rng.standard_normal(shape)).astype(dtype)

    reads = (n_layers, n_heads, d_head, d_model)
    return Weights(
        W_E=normal(d_vocab, d_model, std=0.05).T,      # .T: a token's column is contiguous
        W_pos=None if positions == "none" else (2 * sinusoids(n_ctx, d_model)).astype(dtype).T,
        W_Q=normal(*reads, std=d_model ** -0.5),
        W_K=normal(*reads, std=d_model ** -0.5),
        W_V=normal(*reads, std=d_model ** -0.5),
        W_O=normal(n_layers, n_heads, d_model, d_head, std=(n_heads * d_head) ** -0.5),
        W_U=normal(d_vocab, d_model, std=d_model ** -0.5),
        positions=positions)


def sinusoids(n_ctx, d_model, fastest=1, slowest=1e-4):
    """sin and cos of p·f, half of the dimensions each: (p, d).

    The angular frequencies f (radians per position) fall geometrically from `fastest`
    towards `slowest`, as in Vaswani et al. 2017.
    """
    half = (d_model + 1) // 2
    angles = np.arange(n_ctx)[:, None] * fastest * (slowest / fastest) ** (np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :d_model]


def forward(weights, tokens):
    """Every intermediate of the forward pass on tokens (b, i), as `Activations`.

    Raises InputError for tokens that are not integers from 0 to d_vocab−1 in axes (b, i),
    or for a context longer than n_ctx. `loss` gives the loss, `backward` the gradients.
    """
    tokens = check_tokens(weights, tokens)
    return stacked(forward_lists(weights, tokens), weights, tokens)


def backward(weights, tokens, acts, dlogits):
    """The gradients of Σ dlogits·logits: of every weight, and of every intermediate.

    acts : what `forward(weights, tokens)` gave; dlogits : (b, i, v). Returns `Weights` and
    `Activations`, every gradient in the shape of what it is the gradient of.
    """
    tokens, dlogits = check_tokens(weights, tokens), np.asarray(dlogits, weights.dtype)
    for name, logits in ("acts.logits", acts.logits), ("dlogits", dlogits):
        check_axes(name, logits, ("b", "i", "v"),
                   dict(zip("bi", tokens.shape), v=weights.d_vocab))
    gradients, dacts = backward_lists(weights, tokens, acts, dlogits)
    return (Weights(positions=weights.positions, **gradients),
            stacked(dacts, weights, tokens))


def loss(weights, tokens):
    """Mean next-token cross-entropy over the first T−1 positions: a scalar, in nats."""
    tokens = check_tokens(weights, tokens)
    return cross_entropy(forward_lists(weights, tokens, lean=True).logits, tokens, in_place=True)[0]


def forward_lists(weights, tokens, lean=False):
    """The forward pass itself. Layered fields of its `Activations` are lists, by layer.

    For `loss` and `slices`, which need no stacked arrays and so copy none. lean : as in
    `attention`.
    """
    x = embed(weights.W_E, tokens)                                          # 1
    p = 0 if weights.W_pos is None else embed_positions(weights.W_pos, tokens.shape[1])
    if weights.positions == "standard":
        x, p = x + p, 0                                                     # 2
    residual, heads = [x], []
    for W in layers(weights):
        out, steps = attention(x, p, *W, lean)                              # 3
        x = x + out
        residual.append(x)
        heads.append(steps)
    return Activations(residual=residual, logits=unembed(weights.W_U, x),   # 4
                       **by_step(heads))


def backward_lists(weights, tokens, acts, dlogits, lean=False):
    """The same steps in reverse, from dlogits to a dict of every weight's gradient, and to
    `Activations` of gradients whose layered fields are lists. lean : as in `attention_backward`.
    """
    shortformer = weights.positions == "shortformer"
    p = embed_positions(weights.W_pos, tokens.shape[1]) if shortformer else 0
    dx, dW_U = unembed_backward(dlogits, weights.W_U, acts.residual[-1])    # 4
    dp = np.zeros_like(dx)
    dresidual, dheads, dlayers = [dx], [], []
    for layer, W in reversed(list(enumerate(layers(weights)))):
        heads = Heads(*(getattr(acts, step)[layer] for step in Heads._fields))
        dx_read, dp_read, dW, dsteps = attention_backward(                  # 3
            dx, acts.residual[layer], p, *W, heads, lean)
        dx, dp = dx + dx_read, dp + dp_read     # x goes on, and is read by the heads
        dresidual.insert(0, dx)
        dheads.insert(0, dsteps)
        dlayers.insert(0, dW)
    if weights.positions == "standard":
        dp = dx                                                             # 2
    gradients = {
        "W_E": embed_backward(dx, tokens, weights.d_vocab),                 # 1
        "W_pos": None if weights.W_pos is None else embed_positions_backward(dp, weights.n_ctx),
        **{name: np.array([dW[n] for dW in dlayers], weights.dtype).reshape(
            getattr(weights, name).shape) for n, name in enumerate(LAYERED)},
        "W_U": dW_U}
    return gradients, Activations(residual=dresidual, logits=dlogits, **by_step(dheads))


LAYERED = ("W_Q", "W_K", "W_V", "W_O")


def layers(weights):
    """The four matrices of each layer: (h, e, d) three times and (h, d, e)."""
    return zip(*(getattr(weights, name) for name in LAYERED))


def by_step(heads):
    """A list of `Heads`, one a layer, as a list for each of its fields."""
    return {step: [getattr(layer, step) for layer in heads] for step in Heads._fields}


def stacked(acts, weights, tokens):
    """The same activations with every field one array, of the axes in ACTIVATION_AXES."""
    b, i = tokens.shape
    sizes = {"l": weights.n_layers, "l+1": weights.n_layers + 1, "b": b, "i": i, "j": i,
             "h": weights.n_heads, "e": weights.d_head, "d": weights.d_model,
             "v": weights.d_vocab}
    return Activations(**{
        name: np.asarray(getattr(acts, name), weights.dtype).reshape(
            [sizes[axis] for axis in axes.split()])
        for name, axes in ACTIVATION_AXES.items()})
