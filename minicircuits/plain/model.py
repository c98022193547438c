"""The whole model in plain loops: from tokens to logits, loss and every gradient.

Read it from top to bottom. The nine steps come first, numbered as in `minicircuits.model`. Each has
its backward below it. `forward` and `backward` then take them in order and in reverse.

    x[b, i, d]     one Python number. Letters are those of `notation`: b batch, i destination,
                   j source, l layer, h head, e head dimension, d residual dimension, v out token
    B, T, L, H, E, D, V    how many there are of each; T of both i and j
    dx             the gradient of one scalar, such as the loss, with respect to x; it has x's shape

Each line is an equation for one number: hold your own code against it. Nothing is shared with
`model`. Sums go through `math.fsum`, which rounds once. Weights may be complex. No step takes a
conjugate or an absolute value, so f(x + 1e-100j).imag / 1e-100 is the derivative of f. The known
bugs of the oracle are edits of this text (`testing/known_bugs.txt`).

Paper: "Transformer Overview", "Attention Heads are Independent and Additive".
"""

import cmath
import itertools
import math

import numpy as np

from minicircuits.notation import (ACTIVATION_AXES, Activations, InputError, NormalizedWeights,
                                   Weights, check_tokens)


def loops(*sizes):
    """`for i, j in loops(I, J)` is `for i in range(I): for j in range(J)`."""
    return itertools.product(*map(range, sizes))


def zeros(*sizes):
    """An array that holds Python numbers (dtype object), all 0."""
    return np.full(sizes, 0.0, object)


def total(terms):
    """Σ terms, rounded once; the real and the imaginary parts each on their own."""
    terms = list(terms)
    if isinstance(sum(terms), complex):
        return complex(math.fsum(term.real for term in terms),
                       math.fsum(term.imag for term in terms))
    return math.fsum(terms)


def exp(number):
    return cmath.exp(number) if isinstance(number, complex) else math.exp(number)


def log(number):
    return cmath.log(number) if isinstance(number, complex) else math.log(number)


# 1. Embed: x begins as W_E t, a column of W_E per token (+ W_pos if "standard").
def embed(W_E, W_pos, tokens, positions):
    (B, T), D = tokens.shape, len(W_E)
    x = zeros(B, T, D)
    for b, i, d in loops(B, T, D):
        x[b, i, d] = W_E[d, tokens[b, i]]
        if positions == "standard":
            x[b, i, d] += W_pos[d, i]
    return x


def embed_backward(dx, tokens, positions, dW_E, dW_pos):
    """Adds to dW_E and dW_pos, since tokens and positions occur more than once."""
    for b, i, d in loops(*dx.shape):
        dW_E[d, tokens[b, i]] += dx[b, i, d]
        if positions == "standard":
            dW_pos[d, i] += dx[b, i, d]


# 2. Add positions: W_Q and W_K read y = x, or x + W_pos if "shortformer".
def add_positions(x, W_pos, positions):
    y = zeros(*x.shape)
    for b, i, d in loops(*x.shape):
        y[b, i, d] = x[b, i, d] + W_pos[d, i] if positions == "shortformer" else x[b, i, d]
    return y


def add_positions_backward(dy, positions, dW_pos):
    """Adds to dW_pos; dx = dy."""
    for b, i, d in loops(*dy.shape):
        if positions == "shortformer":
            dW_pos[d, i] += dy[b, i, d]


# 3. Read: q = W_Q y, k = W_K y, v = W_V x, for every head. (q stands for all three here.)
def read(W, x):
    (B, T, D), (H, E, D) = x.shape, W.shape
    q = zeros(B, H, T, E)
    for b, h, i, e in loops(B, H, T, E):
        q[b, h, i, e] = total(W[h, e, d] * x[b, i, d] for d in range(D))
    return q


def read_backward(W, x, dq):
    (B, T, D), (H, E, D) = x.shape, W.shape
    dW, dx = zeros(H, E, D), zeros(B, T, D)
    for h, e, d in loops(H, E, D):
        dW[h, e, d] = total(dq[b, h, i, e] * x[b, i, d] for b, i in loops(B, T))
    for b, i, d in loops(B, T, D):
        dx[b, i, d] = total(W[h, e, d] * dq[b, h, i, e] for h, e in loops(H, E))
    return dW, dx


# 4. Score: scores_ij = q_i · k_j / √d_head.
def score(q, k):
    B, H, T, E = q.shape
    scores = zeros(B, H, T, T)
    for b, h, i, j in loops(B, H, T, T):
        scores[b, h, i, j] = total(q[b, h, i, e] * k[b, h, j, e] for e in range(E)) / math.sqrt(E)
    return scores


def score_backward(q, k, dscores):
    B, H, T, E = q.shape
    dq, dk = zeros(B, H, T, E), zeros(B, H, T, E)
    for b, h, i, e in loops(B, H, T, E):
        dq[b, h, i, e] = total(dscores[b, h, i, j] * k[b, h, j, e] for j in range(T)) / math.sqrt(E)
    for b, h, j, e in loops(B, H, T, E):
        dk[b, h, j, e] = total(dscores[b, h, i, j] * q[b, h, i, e] for i in range(T)) / math.sqrt(E)
    return dq, dk


# 5. Softmax: pattern_ij = exp(scores_ij) / Σ_{j' ≤ i} exp(scores_ij') for j ≤ i, 0 for j > i.
def softmax(scores):
    B, H, T, T = scores.shape
    pattern = zeros(B, H, T, T)
    for b, h, i in loops(B, H, T):
        sources = range(i + 1)
        largest = max(scores[b, h, i, j].real for j in sources)    # a shift changes nothing
        shares = {j: exp(scores[b, h, i, j] - largest) for j in sources}
        sum_exp = total(shares.values())
        for j in sources:
            pattern[b, h, i, j] = shares[j] / sum_exp
    return pattern


def softmax_backward(pattern, dpattern):
    B, H, T, T = pattern.shape
    dscores = zeros(B, H, T, T)
    for b, h, i in loops(B, H, T):
        sources = range(i + 1)
        mean = total(pattern[b, h, i, j] * dpattern[b, h, i, j] for j in sources)
        for j in sources:
            dscores[b, h, i, j] = pattern[b, h, i, j] * (dpattern[b, h, i, j] - mean)
    return dscores


# 6. Mix: z_i = Σ_j pattern_ij v_j.
def mix(pattern, v):
    B, H, T, E = v.shape
    z = zeros(B, H, T, E)
    for b, h, i, e in loops(B, H, T, E):
        z[b, h, i, e] = total(pattern[b, h, i, j] * v[b, h, j, e] for j in range(T))
    return z


def mix_backward(pattern, v, dz):
    B, H, T, E = v.shape
    dpattern, dv = zeros(B, H, T, T), zeros(B, H, T, E)
    for b, h, i, j in loops(B, H, T, T):
        dpattern[b, h, i, j] = total(dz[b, h, i, e] * v[b, h, j, e] for e in range(E))
    for b, h, j, e in loops(B, H, T, E):
        dv[b, h, j, e] = total(pattern[b, h, i, j] * dz[b, h, i, e] for i in range(T))
    return dpattern, dv


# 7. Write: the layer hands on x + Σ_h W_O z.
def write(W_O, x, z):
    (B, T, D), (H, D, E) = x.shape, W_O.shape
    out = zeros(B, T, D)
    for b, i, d in loops(B, T, D):
        out[b, i, d] = total([x[b, i, d], *(W_O[h, d, e] * z[b, h, i, e] for h, e in loops(H, E))])
    return out


def write_backward(W_O, z, dout):
    """dW_O and dz; dx = dout."""
    (B, T, D), (H, D, E) = dout.shape, W_O.shape
    dW_O, dz = zeros(H, D, E), zeros(B, H, T, E)
    for h, d, e in loops(H, D, E):
        dW_O[h, d, e] = total(dout[b, i, d] * z[b, h, i, e] for b, i in loops(B, T))
    for b, h, i, e in loops(B, H, T, E):
        dz[b, h, i, e] = total(W_O[h, d, e] * dout[b, i, d] for d in range(D))
    return dW_O, dz


# 8. Unembed: logits = W_U x.
def unembed(W_U, x):
    (B, T, D), V = x.shape, len(W_U)
    logits = zeros(B, T, V)
    for b, i, v in loops(B, T, V):
        logits[b, i, v] = total(W_U[v, d] * x[b, i, d] for d in range(D))
    return logits


def unembed_backward(W_U, x, dlogits):
    (B, T, D), V = x.shape, len(W_U)
    dW_U, dx = zeros(V, D), zeros(B, T, D)
    for v, d in loops(V, D):
        dW_U[v, d] = total(dlogits[b, i, v] * x[b, i, d] for b, i in loops(B, T))
    for b, i, d in loops(B, T, D):
        dx[b, i, d] = total(W_U[v, d] * dlogits[b, i, v] for v in range(V))
    return dW_U, dx


# 9. Loss: −mean of log softmax(logits_i)[token_{i+1}], over the first T − 1 positions.
def cross_entropy(logits, tokens):
    B, T, V = logits.shape
    if T < 2:
        raise InputError("a loss needs at least 2 tokens, one to predict; got 1")
    losses = []
    for b, i in loops(B, T - 1):
        largest = max(logits[b, i, v].real for v in range(V))
        sum_exp = total(exp(logits[b, i, v] - largest) for v in range(V))
        losses.append(log(sum_exp) - (logits[b, i, tokens[b, i + 1]] - largest))
    return total(losses) / (B * (T - 1))


def cross_entropy_backward(logits, tokens):
    B, T, V = logits.shape
    dlogits = zeros(B, T, V)
    for b, i in loops(B, T - 1):
        largest = max(logits[b, i, v].real for v in range(V))
        shares = [exp(logits[b, i, v] - largest) for v in range(V)]
        sum_exp = total(shares)
        for v in range(V):
            target = 1.0 if v == tokens[b, i + 1] else 0.0
            dlogits[b, i, v] = (shares[v] / sum_exp - target) / (B * (T - 1))
    return dlogits


def forward(weights, tokens, nudges=None):
    """Every intermediate, in float64 or complex128.

    nudges : {name: array}, for tests of derivatives: what is added to an intermediate as soon as
        it is computed, so that all later steps see the sum.
    """
    if isinstance(weights, NormalizedWeights):
        raise InputError("the plain loops have no norms; got NormalizedWeights")
    tokens, nudges = check_tokens(weights, tokens), nudges or {}
    W = {name: array.astype(object) for name, array in weights.items()}
    W_pos, positions, (L, H, E, D) = W.get("W_pos"), weights.positions, weights.W_Q.shape
    (B, T), V = tokens.shape, weights.d_vocab
    sizes = {"l": L, "l+1": L + 1, "b": B, "h": H, "i": T, "j": T, "d": D, "e": E, "v": V}
    acts = {name: zeros(*(sizes[letter] for letter in axes.split()))
            for name, axes in ACTIVATION_AXES.items()}

    def put(name, at, value):
        acts[name][at] = value + nudges[name][at].astype(object) if name in nudges else value
        return acts[name][at]

    x = put("residual", 0, embed(W["W_E"], W_pos, tokens, positions))
    for layer in range(L):
        y = add_positions(x, W_pos, positions)
        q = put("q", layer, read(W["W_Q"][layer], y))
        k = put("k", layer, read(W["W_K"][layer], y))
        v = put("v", layer, read(W["W_V"][layer], x))
        scores = put("scores", layer, score(q, k))
        pattern = put("pattern", layer, softmax(scores))
        z = put("z", layer, mix(pattern, v))
        x = put("residual", layer + 1, write(W["W_O"][layer], x, z))
    put("logits", ..., unembed(W["W_U"], x))
    dtype = np.result_type(np.float64, weights.dtype, *nudges.values())
    return Activations(**{name: array.astype(dtype) for name, array in acts.items()})


def loss(weights, tokens, nudges=None):
    """The mean next-token cross-entropy in nats: a Python number."""
    return cross_entropy(forward(weights, tokens, nudges).logits, np.asarray(tokens))


def backward(weights, tokens, acts, dlogits):
    """Gradients of a scalar from its dlogits (b, i, v): (Weights, Activations)."""
    tokens, positions = check_tokens(weights, tokens), weights.positions
    dtype = np.result_type(np.float64, weights.dtype, acts.logits)
    W = {name: array.astype(object) for name, array in weights.items()}
    a = {name: getattr(acts, name).astype(object) for name in ACTIVATION_AXES}
    dW = {name: zeros(*W[name].shape) for name in W}
    da = {name: zeros(*a[name].shape) for name in a}
    W_pos, dW_pos, L = W.get("W_pos"), dW.get("W_pos"), weights.n_layers
    da["logits"] = dlogits.astype(object)
    dW["W_U"], dx = unembed_backward(W["W_U"], a["residual"][L], da["logits"])
    da["residual"][L] = dx
    for layer in reversed(range(L)):
        x = a["residual"][layer]
        y = add_positions(x, W_pos, positions)
        dW["W_O"][layer], dz = write_backward(W["W_O"][layer], a["z"][layer], dx)
        dpattern, dv = mix_backward(a["pattern"][layer], a["v"][layer], dz)
        dscores = softmax_backward(a["pattern"][layer], dpattern)
        dq, dk = score_backward(a["q"][layer], a["k"][layer], dscores)
        dW["W_V"][layer], dx_v = read_backward(W["W_V"][layer], x, dv)
        dW["W_K"][layer], dy_k = read_backward(W["W_K"][layer], y, dk)
        dW["W_Q"][layer], dy_q = read_backward(W["W_Q"][layer], y, dq)
        add_positions_backward(dy_q + dy_k, positions, dW_pos)
        dx = dx + dx_v + dy_k + dy_q
        da["z"][layer], da["pattern"][layer], da["v"][layer] = dz, dpattern, dv
        da["scores"][layer], da["q"][layer], da["k"][layer] = dscores, dq, dk
        da["residual"][layer] = dx
    embed_backward(dx, tokens, positions, dW["W_E"], dW_pos)
    dW, da = ({name: array.astype(dtype) for name, array in d.items()} for d in (dW, da))
    return Weights(**{"W_pos": None} | dW, positions=positions), Activations(**da)


def loss_and_gradients(weights, tokens):
    """The loss and its gradients: (a Python number, Weights)."""
    acts, tokens = forward(weights, tokens), np.asarray(tokens)
    dlogits = cross_entropy_backward(acts.logits, tokens)
    return cross_entropy(acts.logits, tokens), backward(weights, tokens, acts, dlogits)[0]


def tensors(weights, tokens):
    """{name: array} of all the above for the oracle; contexts of one token have no loss."""
    acts, tokens = forward(weights, tokens), np.asarray(tokens)
    found = dict(vars(acts))
    if tokens.shape[1] > 1:
        found["loss"] = cross_entropy(acts.logits, tokens)
        dlogits = cross_entropy_backward(acts.logits, tokens)
        gradients, dacts = backward(weights, tokens, acts, dlogits)
        found |= {f"d{name}": array for name, array in [*vars(dacts).items(), *gradients.items()]}
    return found
