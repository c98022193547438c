"""The model and its backward as a table of steps: each an equation, with a bound on its rounding.

A step computes one tensor (of one layer) from others. Given *any* arrays for those, a
candidate's own included, it says what the tensor should be and how far rounding alone may take
it, so each step can be judged apart from all before it. Most are sums of products, and the same
equation gives all three parts of their bound γ_k Σ|a||b|, γ_k = k u / (1 − k u): on absolute
values it is Σ|a||b|, on ones it counts the terms k.

Always float64; `UNIT` is the unit roundoff u that a candidate claims. The circuits are steps
too. Written in `einsum`, sharing nothing with `model`, `circuits` or `plain`.
"""

from functools import cached_property, reduce
from typing import Callable, NamedTuple

import numpy as np
from numpy import einsum

from minicircuits.notation import ACTIVATION_AXES, check_tokens

UNIT = {"float64": 2.0 ** -53, "float32": 2.0 ** -24, "tf32": 2.0 ** -11, "bfloat16": 2.0 ** -8}
FLOOR = {"float64": 1e-290, "float32": 1e-30, "tf32": 1e-30, "bfloat16": 1e-30}   # underflow
DTYPE = {name: "float64" if name == "float64" else "float32" for name in UNIT}    # what is given
MAX_CIRCUITS = 2 ** 20   # numbers in the largest of a case: with more, it has no circuits
NORMS = "LNPre", "RMSPre"  # of cases with one: without parameters, LN with centering
EPS = 1e-5               # that a norm adds to the mean of squares
EXP_ULPS = 4             # what an exp or a log may be off by
WEIGHT_LETTERS = {"W_E": "d u", "W_pos": "d p", "W_Q": "l h e d", "W_K": "l h e d",
                  "W_V": "l h e d", "W_O": "l h d e", "W_U": "v d"}
BIAS_LETTERS = {"b_Q": "l h e", "b_K": "l h e", "b_V": "l h e", "b_O": "l d", "b_U": "v"}
BACKWARD = ("logits", "residual", "z", "pattern", "scores", "q", "k", "v")
CIRCUIT_AXES = {"W_QK": "l h d d", "W_OV": "l h d d", "direct_path": "v u",
                "qk_circuit": "l h u u", "ov_circuit": "l h v u", "copying_score": "l h",
                "composition_Q": "l h l h", "composition_K": "l h l h",
                "composition_V": "l h l h", "logits_by_order": "l+1 b i v"}
AXES = {**ACTIVATION_AXES, "normalized": "l+1 b i d", "loss": "",
        **{f"d{name}": ACTIVATION_AXES[name] for name in BACKWARD},
        **{f"d{name}": axes for name, axes in (WEIGHT_LETTERS | BIAS_LETTERS).items()},
        **CIRCUIT_AXES}      # of every tensor that a candidate may supply
FORWARD, CIRCUITS = tuple(ACTIVATION_AXES), tuple(CIRCUIT_AXES)


class Step(NamedTuple):
    name: str
    layer: int | None        # None: the tensor has no axis of layers, or this is all of it
    inputs: tuple            # keys (name, layer) of other steps
    value: Callable          # value(W, *inputs); W : name -> array, as `constants` gives it
    bound: Callable          # bound(u, W, *inputs): how far rounding may take it, elementwise

    @property
    def key(self):
        return self.name, self.layer

    @property
    def label(self):
        return self.name if self.layer is None else f"{self.name}[{self.layer}]"


def part(arrays, key):
    """The tensor of a key (name, layer) among {name: array}."""
    name, layer = key
    return arrays[name] if layer is None else arrays[name][layer]


def products(name, layer, inputs, value, terms=None, unsigned=None):
    """The step of a sum of products, of so many terms; or of as many as it gives on ones.

    3 roundings more: of two operands (bfloat16, tf32) and of the result. `unsigned` is the
    equation without its minus signs.
    """
    unsigned = unsigned or value

    def bound(u, W, *arrays):
        k = terms or unsigned(W.ones, *map(np.ones_like, arrays))
        return gamma(k + 3, u) * unsigned(W.sizes, *map(abs, arrays))

    return Step(name, layer, tuple(inputs), value, bound)


def gamma(k, u):
    return k * u / np.maximum(1 - k * u, 0.1)


def softmax(x, allowed=True):
    """With the relative error that a shifted softmax may have, in units of u."""
    x = np.where(allowed, x, -np.inf)
    top = x.max(-1, keepdims=True)
    shares = np.exp(x - top)
    p = shares / shares.sum(-1, keepdims=True)
    size = np.where(allowed, abs(x) + abs(top), 0)
    return p, size + (p * size).sum(-1, keepdims=True) + x.shape[-1] + 2 + 2 * EXP_ULPS


def softmax_bound(u, p, relative):
    return p * np.expm1(np.minimum(u * relative, 50))


class Constants(dict):
    """name -> array of what the equations read; and ones and absolute values for their bounds."""
    ones = cached_property(lambda self: {name: np.ones_like(W) for name, W in self.items()})
    sizes = cached_property(lambda self: {name: abs(W) for name, W in self.items()})


def constants(weights, tokens, biases):
    """The weights and biases, p (i, d) or 0 that W_Q and W_K add, and the scale."""
    W = {name: np.asarray(array, np.float64) for name, array in [*weights.items(), *biases.items()]}
    p = W["W_pos"].T[:tokens.shape[1]] if weights.positions == "shortformer" else np.zeros(())
    return Constants(**W, p=p, scale=1 / np.sqrt(weights.d_head))


def bias(W, name, *layer):
    """That of a layer, for every position; 0 where there are none."""
    return W[name][layer][..., None, :] if name in W else 0


def embedded(W, weights, tokens):
    x = W["W_E"].T[tokens]
    return x + W["W_pos"].T[:tokens.shape[1]] if weights.positions == "standard" else x


def normalization(norm, n):
    """The step y = c/σ. Its bound holds for σ of mean c², and of mean x² − (mean x)²."""
    def parts(x):
        c = x - x.mean(-1, keepdims=True) if norm == "LNPre" else x
        return c, np.sqrt((c ** 2).mean(-1, keepdims=True) + EPS)

    def bound(u, W, x):
        (c, sigma), k = parts(x), x.shape[-1] + 6
        of_c = gamma(k, u) * (abs(x) + abs(x).mean(-1, keepdims=True) * (norm == "LNPre"))
        squares = np.maximum((x ** 2).mean(-1, keepdims=True) / sigma ** 2, 1)
        of_sigma = np.sqrt((of_c ** 2).mean(-1, keepdims=True)) / sigma + gamma(k, u) * squares
        return (of_c + abs(c) * of_sigma) / sigma / np.maximum(1 - of_sigma, 0.1)

    return Step("normalized", n, (("residual", n),), lambda W, x: np.divide(*parts(x)), bound)


def forward(weights, tokens, norm=None):
    """The steps from tokens (b, i) to logits."""
    causal = np.tri(tokens.shape[1], dtype=bool)
    yield products("residual", 0, [], lambda W: embedded(W, weights, tokens))
    for n in range(weights.n_layers):
        x, q, k, v, s, A, z = ((name, n) for name in FORWARD[:-1])
        reads = [("normalized" if norm else "residual", n)]
        if norm:
            yield normalization(norm, n)
        yield products("q", n, reads, lambda W, x, n=n:
                       einsum("hed,bid->bhie", W["W_Q"][n], x + W["p"]) + bias(W, "b_Q", n))
        yield products("k", n, reads, lambda W, x, n=n:
                       einsum("hed,bjd->bhje", W["W_K"][n], x + W["p"]) + bias(W, "b_K", n))
        yield products("v", n, reads, lambda W, x, n=n:
                       einsum("hed,bjd->bhje", W["W_V"][n], x) + bias(W, "b_V", n))
        yield products("scores", n, [q, k],
                       lambda W, q, k: einsum("bhie,bhje->bhij", q, k) * W["scale"])
        yield Step("pattern", n, (s,), lambda W, s: softmax(s, causal)[0],
                   lambda u, W, s: softmax_bound(u, *softmax(s, causal)))
        yield products("z", n, [A, v], lambda W, A, v: einsum("bhij,bhje->bhie", A, v))
        yield products("residual", n + 1, [x, z], lambda W, x, z, n=n:
                       x + einsum("hde,bhie->bid", W["W_O"][n], z) + bias(W, "b_O", n))
    if norm:
        yield normalization(norm, weights.n_layers)
    yield products("logits", None, [("normalized" if norm else "residual", weights.n_layers)],
                   lambda W, x: einsum("vd,bid->biv", W["W_U"], x) + bias(W, "b_U"))


def loss(weights, tokens):
    """The loss and its gradient by the logits."""
    (b, T), V = tokens.shape, weights.d_vocab
    n_predicted, predicts = b * (T - 1), (np.arange(T) < T - 1)[:, None]    # not the last position
    target = np.zeros((b, T, V))
    target[:, :-1] = np.eye(V)[tokens[:, 1:]]

    def value(W, x):
        top = x.max(-1)
        nats = np.log(np.exp(x - top[..., None]).sum(-1)) + (top - (target * x).sum(-1))
        return nats[:, :-1].sum() / n_predicted

    def bound(u, W, x):
        relative = softmax(x)[1].max(-1)
        sizes = relative + 2 * abs(x).max(-1) + 2 * (target * abs(x)).sum(-1) + np.log(V)
        return u * (n_predicted + 2) * sizes[:, :-1].sum() / n_predicted

    def dlogits_bound(u, W, x):
        p, relative = softmax(x)
        return predicts * (softmax_bound(u, p, relative) + 4 * u * (p + target)) / n_predicted

    yield Step("loss", None, (("logits", None),), value, bound)
    yield Step("dlogits", None, (("logits", None),),
               lambda W, x: (softmax(x)[0] * predicts - target) / n_predicted, dlogits_bound)


def backward(weights, tokens):
    """The steps from dlogits to the gradients of the activations, then of the weights."""
    L, T, dlogits = weights.n_layers, tokens.shape[1], ("dlogits", None)
    yield products("dresidual", L, [dlogits], lambda W, g: einsum("vd,biv->bid", W["W_U"], g))
    for n in reversed(range(L)):
        x, q, k, v, s, A, z = ((name, n) for name in FORWARD[:-1])
        dx, dq, dk, dv, ds, dA, dz = ((f"d{name}", n) for name in FORWARD[:-1])
        dout = ("dresidual", n + 1)
        yield products("dz", n, [dout], lambda W, g, n=n: einsum("hde,bid->bhie", W["W_O"][n], g))
        yield products("dpattern", n, [dz, v], lambda W, g, v: einsum("bhie,bhje->bhij", g, v))
        yield products("dscores", n, [A, dA, dz, v], lambda W, A, dA, dz, v:
                       A * (dA - (A * dA).sum(-1, keepdims=True)), unsigned=dscores_size)
        yield products("dq", n, [ds, k], lambda W, g, k:
                       einsum("bhij,bhje->bhie", g, k) * W["scale"])
        yield products("dk", n, [ds, q], lambda W, g, q:
                       einsum("bhij,bhie->bhje", g, q) * W["scale"])
        yield products("dv", n, [A, dz], lambda W, A, g: einsum("bhij,bhie->bhje", A, g))
        yield products("dresidual", n, [dout, dq, dk, dv], lambda W, g, dq, dk, dv, n=n: (
            g + einsum("hed,bhie->bid", W["W_Q"][n], dq)
            + einsum("hed,bhie->bid", W["W_K"][n], dk)
            + einsum("hed,bhie->bid", W["W_V"][n], dv)))

    yield products("dW_U", None, [dlogits, ("residual", L)],
                   lambda W, g, x: einsum("biv,bid->vd", g, x))
    for n in reversed(range(L)):
        x, dout = ("residual", n), ("dresidual", n + 1)
        yield products("dW_O", n, [dout, ("z", n)],
                       lambda W, g, z: einsum("bid,bhie->hde", g, z))
        yield products("dW_V", n, [("dv", n), x], lambda W, g, x: einsum("bhie,bid->hed", g, x))
        for read in "KQ":
            yield products(f"dW_{read}", n, [(f"d{read.lower()}", n), x],
                           lambda W, g, x: einsum("bhie,bid->hed", g, x + W["p"]))

    def dW_pos(W, *arrays):
        total = np.zeros_like(W["W_pos"])
        if weights.positions == "standard":
            total[:, :T] = einsum("bid->di", *arrays)
        for n, g in enumerate(arrays if weights.positions == "shortformer" else ()):
            total[:, :T] += einsum("hed,bhie->di", W["W_K" if n % 2 else "W_Q"][n // 2], g)
        return total

    def dW_E(W, g):
        total = np.zeros_like(W["W_E"])
        np.add.at(total.T, tokens, g)
        return total

    if weights.positions != "none":
        yield products("dW_pos", None, [("dresidual", 0)] if weights.positions == "standard" else
                       [(name, n) for n in range(L) for name in ("dq", "dk")], dW_pos)
    yield products("dW_E", None, [("dresidual", 0)], dW_E)


def of_biases(weights):
    """The gradients of biases: sums over contexts and positions."""
    yield products("db_U", None, [("dlogits", None)], lambda W, g: g.sum((0, 1)))
    for n in reversed(range(weights.n_layers)):
        yield products("db_O", n, [("dresidual", n + 1)], lambda W, g: g.sum((0, 1)))
        for letter in "VKQ":
            yield products(f"db_{letter}", n, [(f"d{letter.lower()}", n)],
                           lambda W, g: g.sum((0, 2)))


def with_tied_embeddings(steps):
    """The steps with dW_E + dW_Uᵀ in the place of both."""
    of_U, of_E = (next(step for step in steps if step.name == name) for name in ("dW_U", "dW_E"))

    def both(of_U, of_E):
        def value(*arguments):
            *arguments, dx, dlogits, x = arguments
            return of_E(*arguments, dx) + of_U(*arguments, dlogits, x).T
        return value

    steps = [step for step in steps if step not in (of_U, of_E)]
    return [*steps, Step("dW_E", None, of_E.inputs + of_U.inputs, both(of_U.value, of_E.value),
                         both(of_U.bound, of_E.bound))]


def dscores_size(W, A, dA, dz, v):
    """Σ_j A_ij dA_ij may also be had as z_i·dz_i, whose terms are larger."""
    terms = dA + einsum("bhie,bhje->bhij", dz, v)
    return A * (terms + (A * terms).sum(-1, keepdims=True))


def circuits(weights, tokens):
    """The circuits as steps: from the weights alone, but for the last."""
    (b, T), L, V = tokens.shape, weights.n_layers, weights.d_vocab
    E, D = weights.d_head, weights.d_model

    def chain(name, letters, *names):
        return products(name, None, [], lambda W: einsum(
            letters, *(W[name] for name in names), optimize=True), terms=2 * D + E)

    yield products("W_QK", None, [], lambda W: einsum("lhed,lhef->lhdf", W["W_Q"], W["W_K"]))
    yield products("W_OV", None, [], lambda W: einsum("lhde,lhef->lhdf", W["W_O"], W["W_V"]))
    yield products("direct_path", None, [], lambda W: W["W_U"] @ W["W_E"])
    yield chain("qk_circuit", "du,lhed,lhef,fw->lhuw", "W_E", "W_Q", "W_K", "W_E")
    yield chain("ov_circuit", "vd,lhde,lhef,fu->lhvu", "W_U", "W_O", "W_V", "W_E")
    yield Step("copying_score", None, (), copying, copying_bound)
    for kind in "QKV":
        yield Step(f"composition_{kind}", None, (), lambda W, kind=kind: composition(W, kind)[0],
                   lambda u, W, kind=kind: composition_bound(u, W, kind))

    def by_order(W, *pattern):
        orders = np.zeros((L + 1, b, T, D))
        orders[0] = embedded(W, weights, tokens)
        for n, A in enumerate(pattern):
            orders[1:] += einsum("bhij,hde,hef,objf->obid", A, W["W_O"][n], W["W_V"][n],
                                 orders[:-1], optimize=True)
        return einsum("vd,obid->obiv", W["W_U"], orders)

    yield products("logits_by_order", None, [("pattern", n) for n in range(L)], by_order,
                   terms=(L + 1) * (T + E + 2 * D + V))


def copying(W, noise=lambda size: 0):
    """Σλ / Σ|λ| of W_U W_O W_V W_E, its factors in the cyclic order that starts at the narrowest.

    Its eigenvalues but for zeros, which rounding would move.
    """
    factors = [W["W_U"], W["W_O"], W["W_V"], W["W_E"]]
    n = min(range(4), key=lambda n: factors[n].shape[-2])
    factors = factors[n:] + factors[:n]
    M = reduce(np.matmul, factors) + noise(reduce(np.matmul, map(abs, factors)))
    values = np.linalg.eigvals(M)
    size, rounding = abs(values).sum(-1), 1e-13 * np.sqrt((abs(M) ** 2).sum((-2, -1)))
    return np.where(size > rounding, values.sum(-1).real / np.where(size > 0, size, 1), 0)


def copying_bound(u, W):
    """16 times what random roundings of every weight and of the product do: eigenvalues have no
    simpler bound.
    """
    rng, exact = np.random.default_rng(0), copying(W)

    def noise(size):
        return u * size * rng.uniform(-1, 1, size.shape)

    moved = [abs(copying({name: W[name] + noise(abs(W[name]))
                          for name in ("W_V", "W_E", "W_U", "W_O")}, noise) - exact)
             for _ in range(8)]
    return 16 * np.max(moved, 0) + 64 * u


def composition(W, kind):
    """‖M W_OV‖ / ‖M‖ / ‖W_OV‖ (l, h, l', g), and the same of absolute values above the line."""
    A, B = {"Q": ("W_K", "W_Q"), "K": ("W_Q", "W_K"), "V": ("W_O", "W_V")}[kind]

    def norms(W):
        M, OV = (W[A] if kind == "V" else W[A].mT) @ W[B], W["W_O"] @ W["W_V"]
        pairs = einsum("lhde,mgef->lhmgdf", M, OV)
        return [np.sqrt((X ** 2).sum((-2, -1))) for X in (pairs, M, OV)]

    (pairs, M, OV), (sizes, _, _) = norms(W), norms({name: abs(X) for name, X in W.items()})
    later = np.tri(len(M), k=-1, dtype=bool)[:, None, :, None]
    both = M[:, :, None, None] * OV
    below = np.where(both == 0, 1, both)
    return np.where(later, pairs / below, 0), np.where(later & (both > 0), sizes / below, 0)


def composition_bound(u, W, kind):
    """Also for norms taken from Gram matrices, which lose half the digits of a small score."""
    score, size = composition(W, kind)
    error = gamma(4 * (W["W_E"].shape[0] + W["W_Q"].shape[2]), u)
    return error * size + np.minimum(np.sqrt(error) * size,
                                     error * size ** 2 / np.maximum(score, 1e-300))


def eight_times(key, run, exact):
    """8 |run − exact|; of a pattern as much as 8 times the error of its scores would make."""
    error = 8 * abs(run - exact)
    if key[0] != "pattern":
        return error
    by_scores = np.expm1(np.minimum(8 * abs(np.log(run / exact)), 700))
    return np.fmax(error, np.minimum(exact * by_scores, 1))


class Reference:
    """Every tensor of a case in float64, and what a candidate may differ by."""

    def __init__(self, weights, tokens, stored=None, tied=False, biases=None,
                 norm=None):
        """`stored` (name -> array) replaces what is computed here: it is authoritative.

        If W_U and W_E are tied, dW_E is the gradient of both, and there is no dW_U. With biases
        (name -> array) or a norm there are no circuits, and with a norm no gradient but dlogits.
        """
        tokens = check_tokens(weights, tokens)
        self.W = constants(weights, tokens, biases or {})
        self.steps = [*forward(weights, tokens, norm)]
        if tokens.shape[1] > 1:
            self.steps += loss(weights, tokens)
        if tokens.shape[1] > 1 and not norm:
            steps = backward(weights, tokens)
            self.steps += with_tied_embeddings([*steps]) if tied else steps
            self.steps += of_biases(weights) if biases else ()
        heads = weights.n_layers * weights.n_heads
        numbers = max(heads * weights.d_vocab ** 2, (heads * weights.d_model) ** 2)
        if numbers <= MAX_CIRCUITS and not (biases or norm):
            self.steps += circuits(weights, tokens)
        self.expected = self.run(self.steps)
        self.expected |= {step.key: part(stored, step.key) for step in self.steps
                          if step.name in (stored or {})}
        self._allowed = {}

    @np.errstate(all="ignore")
    def run(self, steps, disturb=lambda key, value: value):
        """{(name, layer): array} of the steps; `disturb` changes each before its use."""
        values = {}
        for step in steps:
            value = step.value(self.W, *(values[key] for key in step.inputs))
            values[step.key] = disturb(step.key, value)
        return values

    @np.errstate(all="ignore")
    def allowed(self, precision):
        """{(name, layer): array}: how far a right candidate may end from `expected`, end to end.

        (Not for what follows from the weights alone: there the bound is enough.)
        8 times the most that 8 runs are off, in each of which every step is moved by random
        fractions of its bound, and the step's own bound. (Permuting the order of summation
        would do less: this also covers a scale applied elsewhere, or another exp.)
        """
        if precision not in self._allowed:
            steps = [step for step in self.steps if step.inputs or step.name == "residual"]
            rng, exact, u = np.random.default_rng(0), self.run(steps), UNIT[precision]
            bounds = {step.key: step.bound(u, self.W, *(exact[key] for key in step.inputs))
                      for step in steps}
            runs = [self.run(steps, lambda key, value: value + bounds[key] * rng.uniform(
                -1, 1, value.shape)) for _ in range(8)]
            self._allowed[precision] = {
                key: bound + FLOOR[precision] + np.max(
                    [eight_times(key, run[key], exact[key]) for run in runs], 0)
                for key, bound in bounds.items()}
        return self._allowed[precision]

    def arrays(self):
        """{name: array} with layers stacked, in the order of computation."""
        layers = {}
        for (name, layer), array in self.expected.items():
            layers.setdefault(name, {})[layer] = array
        return {name: found[None] if None in found else np.stack([found[n] for n in sorted(found)])
                for name, found in layers.items()}
