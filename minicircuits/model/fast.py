"""The loss and its gradients once more, in half of the textbook's processor time, to train with.

Here is what each trick saves of a step, at the three sizes of `tests/benchmarks/training_step.py`
(processor time, on one machine):

1. A batch is cut into slices, which are done side by side: on two cores nearly half of the wait.
2. Destinations are done in bands of 64, with only the sources that they see: 0, 8 and 15 %.
3. Scores and patterns have a row for each source, (j, i): 2, 1 and 5 %. So a sum over sources is
   a product with ones: 4, 0 and 3 %.
4. They turn into each other in place, 17, 5 and 7 %, and products fill the gradients where they
   lie: 3, 2 and 3 %. Freed memory is kept for the next arrays (by `cores`): 20, 13 and 5 %.
5. Scores and logits are shifted by their largest only where a sum of their exponentials is beyond
   e^±60: 10, 5 and 7 %.
6. Probabilities are not divided by their sums; x and dx are, which are smaller: 1, 2 and 2 %.

These bought nothing: a workspace that is kept from step to step (memory just freed is warmer),
copies of what a product reads transposed, and Σ_j A dA as z·dz inside the product that gives dA.
Nor did keys and values with a column for each source: heads' products are 7 % quicker so, but
those that make k and v are 15 % slower.
"""

from functools import partial
from math import ceil, exp, log2, sqrt

import numpy as np
from scipy.sparse import csc_array

from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.model.embedding import add_positions, add_positions_backward, embed
from minicircuits.model.normalized import refuse_training
from minicircuits.notation import InputError, Tokens, Weights, check_tokens

SLICE_BYTES = 4 << 20       # of the logits, or of one layer's scores
BAND = 64                   # destinations that are done at once
CAUSAL = np.tri(BAND, dtype=np.float32).T.copy()            # (j, i): 1 where i sees j, else 0
LARGEST = exp(60)           # sums from 1 / LARGEST to LARGEST suit any dtype


@door
def loss_and_gradients(weights: Weights, tokens: Tokens,
                       slices: int | None = None) -> tuple[float, Weights]:
    """The loss (scalar, nats per predicted token) and its gradients, a `Weights`.

    The numbers of `transformer.loss_and_gradients`, but for rounding, made to train with.
    tokens : (b, i) integers, i ≥ 2. slices : how many parts the batch is cut into. By default
    shapes and dtype alone decide, and parts are added in their order. So the result does not
    depend on the machine's cores. Raises InputError for bad tokens, for contexts of one token,
    and for slices below 1.
    """
    refuse_training(weights)
    tokens = check_tokens(weights, tokens)
    b, i = tokens.shape
    if i < 2:
        raise InputError("a loss needs contexts of at least 2 tokens; got 1")
    if slices is not None and not (isinstance(slices, (int, np.integer)) and slices >= 1):
        raise InputError(f"slices must be a whole number of at least 1; got {slices!r}")
    parts = np.array_split(tokens, min(slices or count_slices(weights, b, i), b))
    part = partial(part_of_loss, weights, stacked(weights), b * (i - 1))
    results = side_by_side(part, parts)
    loss, dW = next(results)
    for loss_of_slice, dW_of_slice in results:
        loss += loss_of_slice
        for name in dW_of_slice:
            dW[name] += dW_of_slice[name]
    dW_Q, dW_K = dW["reads"].swapaxes(0, 1)
    return loss, Weights(dW["W_E"], dW.get("W_pos"), dW_Q / sqrt(weights.d_head), dW_K,
                         dW["W_V"][:, 0], dW["W_O"][:, 0].mT, dW["W_U"], weights.positions)


def count_slices(weights, b, i):
    """So many that the largest array of one has at most `SLICE_BYTES`: a power of two."""
    largest = b * i * max(weights.n_heads * i, weights.d_vocab) * weights.dtype.itemsize
    return 2 ** max(1, ceil(log2(largest / SLICE_BYTES)))


def stacked(weights):
    """Stacks of m matrices (l, m, h, e, d): W_Q / √d_head and W_K, which read y; W_V; and W_Oᵀ."""
    return {"reads": np.stack([weights.W_Q / sqrt(weights.d_head), weights.W_K], axis=1),
            "W_V": np.ascontiguousarray(weights.W_V)[:, None],
            "W_O": np.ascontiguousarray(weights.W_O.mT)[:, None]}


def part_of_loss(weights, stacks, count, tokens):
    """What some contexts add to a loss over `count` predictions, and to a dict of gradients."""
    W_pos, positions, kept = weights.W_pos, weights.positions, []
    layers = list(zip(*stacks.values()))
    x = embed(weights.W_E, W_pos, tokens, positions)
    for W in layers:
        y = add_positions(x, W_pos, positions)
        steps, out = attention(x, y, *W)
        kept.append((x, y, *steps))
        x = np.add(x, out, out=out)
    loss, dx, dW_U = prediction(weights.W_U, x, tokens, count)
    dW = {"W_U": dW_U} | {name: np.empty(W.shape, W.dtype) for name, W in stacks.items()}
    if W_pos is not None:
        dW["W_pos"] = np.zeros_like(W_pos)
    for layer in reversed(range(len(layers))):
        dx, dy = attention_backward(dx, *layers[layer], *kept.pop(),
                                    *(dW[name][layer] for name in stacks))
        add_positions_backward(dy, positions, dW.get("W_pos"))
    if positions == "standard":
        dW["W_pos"][:, :dx.shape[1]] = dx.sum(0).T
    dW["W_E"] = embed_backward(dx, tokens, weights.d_vocab)
    return loss, dW


def attention(x, y, W_reads, W_V, W_O):
    """What a layer adds to x, and (q and k, v, bands with their patterns, z) for the way back."""
    qk, (v,), bands = into_heads(y, W_reads), into_heads(x, W_V), []
    (q, k), z = qk, np.empty_like(v)
    for start in range(0, z.shape[-2], BAND):
        rows, seen = slice(start, start + BAND), slice(start + BAND)
        A = softmax(partial(np.matmul, k[..., seen, :], q[..., rows, :].mT))
        np.matmul(A.mT, v[..., seen, :], out=z[..., rows, :])
        bands.append((rows, seen, A))
    return (qk, v, bands, z), (flat(z[None]) @ W_O.reshape(-1, W_O.shape[-1])).reshape(x.shape)


def attention_backward(dout, W_reads, W_V, W_O, x, y, qk, v, bands, z, dW_reads, dW_V, dW_O):
    """From dout: dx, and dy, which is a part of it. Fills the gradients of the stacks."""
    dz, (q, k) = into_heads(dout, W_O)[0], qk
    dqk, dv = np.empty_like(qk), np.empty_like(v)
    dq, dk = dqk
    for rows, seen, A in reversed(bands):
        first = A.shape[-2] == v.shape[-2]         # the last band comes first: it sees all sources
        dA = v[..., seen, :] @ dz[..., rows, :].mT
        add_product(A, dz[..., rows, :], dv[..., seen, :], first)
        softmax_backward(A, dA)
        np.matmul(dA.mT, k[..., seen, :], out=dq[..., rows, :])
        add_product(dA, q[..., rows, :], dk[..., seen, :], first)
    d = x.shape[-1]
    np.matmul(flat(z[None]).T, dout.reshape(-1, d), out=dW_O.reshape(-1, d))
    np.matmul(flat(dv[None]).T, x.reshape(-1, d), out=dW_V.reshape(-1, d))
    np.matmul(flat(dqk).T, y.reshape(-1, d), out=dW_reads.reshape(-1, d))
    dx = (flat(dv[None]) @ W_V.reshape(-1, d)).reshape(x.shape)
    dy = (flat(dqk) @ W_reads.reshape(-1, d)).reshape(x.shape)
    dx += dout
    dx += dy
    return dx, dy


def into_heads(x, W):
    """W x of m stacks of heads as one product: (b, i, d), (m, h, e, d) -> (m, b, h, i, e)."""
    (b, i, d), (m, h, e, _) = x.shape, W.shape
    z = x.reshape(b * i, d) @ W.reshape(m * h * e, d).T
    return z.reshape(b, i, m, h, e).transpose(2, 0, 3, 1, 4)


def flat(z):
    """(m, b, h, i, e), as `into_heads` gives it, as the matrix (b·i, m·h·e) it is in memory."""
    m, b, h, i, e = z.shape
    return z.transpose(1, 3, 0, 2, 4).reshape(b * i, m * h * e)


def softmax(scores):
    """A of a band, (b, h, j, i), of which the last source is the last destination.

    scores(out=) computes them. Where their sum of exponentials is out of range, they are computed
    again and shifted. That may be for the sake of a masked one.
    """
    A = scores(out=None)
    i = A.shape[-1]
    square, causal = A[..., -i:, :], CAUSAL[:i, :i].astype(A.dtype, copy=False)
    np.exp(A, out=A)
    square *= causal
    total = sum_over_sources(A)
    if not in_range(total):
        scores(out=A)
        np.copyto(square, -np.inf, where=causal == 0)
        A -= A.real.max(-2, keepdims=True)
        np.exp(A, out=A)
        total = sum_over_sources(A)
    A /= total
    return A


def softmax_backward(A, dA):
    """dscores = A dA − A Σ_j A dA, in the place of dA; A is used up."""
    dA *= A
    A *= sum_over_sources(dA)
    dA -= A


def sum_over_sources(A):
    """(b, h, j, i) to (b, h, 1, i)."""
    return np.ones((1, A.shape[-2]), A.dtype) @ A


def in_range(total):
    """Whether sums of exponentials are far from overflow and from 0; False where one is NaN."""
    return 1 / LARGEST <= total.real.min() and total.real.max() <= LARGEST


def add_product(A, z, v, first):
    """A z, put into v the first time, then added to it."""
    if first:
        np.matmul(A, z, out=v)
    else:
        v += A @ z


def prediction(W_U, x, tokens, count):
    """What the places that predict add to the loss; dx (b, i, d); dW_U.

    dlogits = (shares − total [v is next]) / (total · count), and the division is left to x, dx.
    """
    b, i, d = x.shape
    x, following = x[:, :-1].reshape(-1, d), tokens[:, 1:].ravel()
    at_next = np.arange(len(following)), following
    shares = x @ W_U.T
    of_next = shares[at_next]
    total = np.exp(shares, out=shares).sum(-1)  # pairwise: a product with ones would lose digits
    if not in_range(total):
        largest = np.matmul(x, W_U.T, out=shares).real.max(-1, keepdims=True)
        shares -= largest
        of_next -= largest[:, 0]
        total = np.exp(shares, out=shares).sum(-1)
    shares[at_next] -= total
    divisor = (total * count)[:, None]
    dx = np.zeros((b, i, d), x.dtype)
    dx[:, :-1] = (shares @ W_U / divisor).reshape(b, i - 1, d)
    return (np.log(total) - of_next).sum() / count, dx, shares.T @ (x / divisor)


def embed_backward(dx, tokens, d_vocab):
    """dW_E = Σ_{b,i} dx tᵀ, with the one-hot t (u, b·i) as a sparse matrix."""
    n = tokens.size
    t = csc_array((np.ones(n, dx.dtype), tokens.ravel(), np.arange(n + 1)), shape=(d_vocab, n))
    return (t @ dx.reshape(n, -1)).T
