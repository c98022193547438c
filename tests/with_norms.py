"""Models with norms, gains and biases, as their arrays say; nothing is folded here.

`run` is LayerNorm and RMSNorm in straightforward NumPy. It shares no code with the package.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

import minicircuits as mc

KINDS = ("LN", "LNPre", "RMS", "RMSPre")
MODELS = list(product(KINDS, ("shortformer", "standard", "none"), range(4)))
EPS = 1e-3


class Model(NamedTuple):
    weights: mc.Weights       # the matrices alone
    kind: str
    biases: dict
    norms: dict

    def folded(self):
        return mc.fold_normalization(self.weights, self.kind, EPS, self.biases, self.norms)


def random_model(seed=0, kind="LN", positions="shortformer", n_layers=2, biased=True, n_heads=3,
                 d_vocab=7, n_ctx=8, d_model=10, d_head=4):
    """A `Model`, and tokens (2, 6); its gains and biases are of the size of its matrices."""
    rng = np.random.default_rng(seed)
    weights = mc.init_weights(n_layers, n_heads, d_model, d_head, d_vocab, n_ctx, positions, rng)
    biases, norms, L, H = {}, {}, n_layers, n_heads
    if biased:
        shapes = {"b_Q": (L, H, d_head), "b_K": (L, H, d_head), "b_V": (L, H, d_head),
                  "b_O": (L, d_model), "b_U": (d_vocab,)}
        biases = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    if not kind.endswith("Pre"):
        norms = {"ln1_w": rng.normal(size=(L, d_model)), "ln_final_w": rng.normal(size=d_model)}
    if kind == "LN":
        norms |= {"ln1_b": rng.normal(size=(L, d_model)), "ln_final_b": rng.normal(size=d_model)}
    return Model(weights, kind, biases, norms), rng.integers(0, d_vocab, (2, 6))


def part(arrays, name, layer=...):
    """A bias or a gain of a layer; 0 or 1 where there is none."""
    return arrays[name][layer] if name in arrays else float(name.endswith("_w"))


def centered(model, x):
    return x - x.mean(-1, keepdims=True) if model.kind.startswith("LN") else x


def sigma(model, x):
    return np.sqrt((centered(model, x) ** 2).mean(-1) + EPS)


def normed(model, x, name, layer=..., given=None):
    """The norm `name` of x, in full; or with a σ that is given, without the bias b."""
    y = centered(model, x) / (sigma(model, x) if given is None else given)[..., None]
    y = y * part(model.norms, f"{name}_w", layer)
    return y + part(model.norms, f"{name}_b", layer) if given is None else y


def embedded(model, tokens):
    """What enters layer 0, and what W_Q and W_K read besides."""
    W = model.weights
    x = W.W_E.T[tokens]
    if W.positions == "none":
        return x, 0
    at = W.W_pos.T[:tokens.shape[1]]
    return (x, at) if W.positions == "shortformer" else (x + at, 0)


def head(model, layer, h, y, y_q, y_k):
    """scores, pattern, and what the head writes, without b_O."""
    W, b = model.weights, model.biases
    q, k, v = (read @ getattr(W, f"W_{name}")[layer, h].T + part(b, f"b_{name}", (layer, h))
               for name, read in (("Q", y_q), ("K", y_k), ("V", y)))
    scores = q @ k.mT / np.sqrt(W.d_head)
    shares = np.where(np.tri(scores.shape[-1]), np.exp(scores - scores.max(-1, keepdims=True)), 0)
    pattern = shares / shares.sum(-1, keepdims=True)
    return scores, pattern, pattern @ v @ W.W_O[layer, h].T


def constant(model, layer, h):
    """What a head writes wherever it looks, since rows of a pattern sum to 1: its b_V, (d,)."""
    W = model.weights
    b_V = W.W_V[layer, h] @ (np.zeros(W.d_model) + part(model.norms, "ln1_b", layer))
    return W.W_O[layer, h] @ (b_V + part(model.biases, "b_V", (layer, h)))


def run(model, tokens, without=()):
    """residual, scores, pattern, norms and logits by name; written: (layer, head) -> (b, i, d).

    without : heads (layer, head) that write their `constant` alone.
    """
    W = model.weights
    x, at = embedded(model, tokens)
    found = {"residual": [x], "scores": [], "pattern": [], "norms": [sigma(model, x)]}
    written = {}
    for layer in range(W.n_layers):
        y = normed(model, x, "ln1", layer)
        heads = [head(model, layer, h, y, y + at, y + at) for h in range(W.n_heads)]
        for h, (_, _, out) in enumerate(heads):
            removed = 0 * out + constant(model, layer, h)
            written[layer, h] = removed if (layer, h) in without else out
            x = x + written[layer, h]
        x = x + part(model.biases, "b_O", layer)
        for name, value in (("residual", x), ("norms", sigma(model, x)),
                            ("scores", np.stack([scores for scores, *_ in heads], 1)),
                            ("pattern", np.stack([pattern for _, pattern, _ in heads], 1))):
            found[name].append(value)
    found = {name: np.array(values) for name, values in found.items()}
    return found | {"written": written, "logits": unembedded(model, x)}


def unembedded(model, x):
    return normed(model, x, "ln_final") @ model.weights.W_U.T + part(model.biases, "b_U")


def through(model, tokens, found, heads):
    """logits of a path through `heads`, its patterns and norms as `found`: no bias is in it.

    A head H of a layer with H heads is its b_O with the heads' constants; it reads none.
    """
    W, b, H = model.weights, model.biases, model.weights.n_heads
    x = embedded(model, tokens)[0]
    for n, (layer, h) in enumerate(heads):
        if h < H:
            y = normed(model, x, "ln1", layer, found["norms"][layer])
            x = found["pattern"][layer][:, h] @ y @ W.W_V[layer, h].T @ W.W_O[layer, h].T
        else:
            b_O = part(b, "b_O", layer) + sum(constant(model, layer, g) for g in range(H))
            x = 0 * x + (0 if n else b_O)
    logits = normed(model, x, "ln_final", given=found["norms"][-1]) @ W.W_U.T
    if heads:
        return logits
    return logits + part(b, "b_U") + W.W_U @ (np.zeros(W.d_model) + part(model.norms, "ln_final_b"))
