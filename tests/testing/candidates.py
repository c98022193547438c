"""Right implementations, to be found right."""

import numpy as np

import minicircuits as mc
from minicircuits.model.cross_entropy import cross_entropy, cross_entropy_backward
from minicircuits.notation import ACTIVATION_AXES


def model(weights, tokens):
    """Every tensor but the circuits, by `minicircuits.model`."""
    acts = mc.forward(weights, tokens)
    found = {name: getattr(acts, name) for name in ACTIVATION_AXES}
    if tokens.shape[1] > 1:
        found["loss"] = cross_entropy(acts.logits, tokens)
        dlogits = cross_entropy_backward(acts.logits, tokens)
        gradients, dacts = mc.backward(weights, tokens, acts, dlogits)
        found |= {f"d{name}": getattr(dacts, name) for name in ACTIVATION_AXES}
        found |= {f"d{name}": array for name, array in gradients.items()}
    return found


def outputs(weights, tokens, *biases, of=model):
    """Logits, loss and the gradients of weights and biases alone."""
    return {name: array for name, array in of(weights, tokens, *biases).items()
            if name in ("logits", "loss") or name.startswith(("dW", "db"))}


def circuits(weights, tokens):
    """The circuits, by `minicircuits.circuits`."""
    heads = [*np.ndindex(weights.n_layers, weights.n_heads)]

    def every(function):
        stack = np.array([function(weights, *head) for head in heads])
        return stack.reshape(weights.n_layers, weights.n_heads, *stack.shape[1:])
    of_heads = {function.__name__: every(lambda *head: function(*head).AB)
                for function in (mc.W_QK, mc.W_OV, mc.qk_circuit, mc.ov_circuit)}
    of_heads["copying_score"] = every(lambda *head: mc.copying_score(mc.ov_circuit(*head)))
    return {
        **(of_heads if heads else {}),
        "direct_path": mc.direct_path(weights).AB,
        "logits_by_order": mc.logits_by_order(weights, tokens,
                                              mc.forward(weights, tokens).pattern),
        **{f"composition_{kind}": mc.composition_scores(weights, kind) for kind in "QKV"}}


def in_low_precision(rounded):
    """The forward pass in float32 with operands and results of its products through `rounded`."""
    def forward(weights, tokens):
        def product(letters, *arrays):
            return rounded(np.einsum(letters, *map(rounded, arrays)))

        W, T = dict(weights.items()), tokens.shape[1]
        x, p = W["W_E"].T[tokens], 0
        if weights.positions != "none":
            p = W["W_pos"].T[:T]
            x, p = (x + p, 0) if weights.positions == "standard" else (x, p)
        found = {name: [] for name in ("q", "k", "v", "scores", "pattern", "z")}
        found["residual"] = [x]
        for W_Q, W_K, W_V, W_O in zip(*(W[name] for name in ("W_Q", "W_K", "W_V", "W_O"))):
            q, k, v = (product("hed,bid->bhie", M, y)
                       for M, y in ((W_Q, x + p), (W_K, x + p), (W_V, x)))
            scores = product("bhie,bhje->bhij", q, k) / np.float32(W_Q.shape[1] ** 0.5)
            shares = np.where(np.tri(T, dtype=bool), scores, -np.inf)
            shares = np.exp(shares - shares.max(-1, keepdims=True))
            pattern = shares / shares.sum(-1, keepdims=True)
            z = product("bhij,bhje->bhie", pattern, v)
            x = x + product("hde,bhie->bid", W_O, z)
            for name, array in zip(found, (q, k, v, scores, pattern, z, x)):
                found[name].append(array)
        found["logits"] = product("vd,bid->biv", W["W_U"], x)
        return {name: array for name, array in found.items() if len(array)}
    return forward


def rounding(dropped):
    """A function that rounds to a float32 without its last `dropped` bits, to even."""
    def rounded(array):
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
        bits += (1 << (dropped - 1)) - 1 + (bits >> dropped & 1)
        return (bits >> dropped << dropped).astype(np.uint32).view(np.float32)
    return rounded


bfloat16, tf32 = rounding(16), rounding(13)
