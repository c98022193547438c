"""Forward and backward of one training step: here, and in PyTorch and JAX where installed.

    python tests/benchmarks/training_step.py [--against CHECKOUT]

Two layers, float32, three sizes. Each side runs in a process of its own, the processes in
turn, and the table has the medians over rounds, the least and the largest, and the medians as
ratios to minicircuits. `floor` is the time the products alone would take at the rate at which this
machine multiplies large matrices, on all cores; `of rate` is floor / median. `bare calls` are
the products and exponentials of a step in NumPy, in the same slices, with nothing between them:
about the least that code of these calls can take. `free` is minicircuits where OMP_NUM_THREADS
is not set, as in a process of your own. With --against, the same step of another checkout of this
project takes the place of the other libraries.
"""

import argparse
import statistics
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from alternate import in_own_process, in_turn, product_rate, timed

SIZES = {"small": dict(n_heads=4, d_head=16, d_model=64, d_vocab=256, n_ctx=64, batch=16),
         "middle": dict(n_heads=4, d_head=32, d_model=128, d_vocab=1024, n_ctx=128, batch=16),
         "large": dict(n_heads=8, d_head=32, d_model=256, d_vocab=2048, n_ctx=256, batch=8)}
LAYERS = 2
SIDES = {"minicircuits": "numpy", "free": "numpy", "bare calls": "numpy", "torch plain": "torch",
         "torch fused": "torch", "jax": "jax"}
HERE = Path(__file__).resolve().parents[2]


def arithmetic(n_heads, d_head, d_model, d_vocab, n_ctx, batch):
    """Floating-point operations of all matrix products, forward and backward."""
    tokens = batch * n_ctx
    heads = 4 * tokens * d_model * n_heads * d_head + 2 * batch * n_heads * n_ctx ** 2 * d_head
    return 3 * 2 * (LAYERS * heads + tokens * d_model * d_vocab)


def case(size):
    """Weights, and batches enough that none is timed twice in a row."""
    np, mc = import_module("numpy"), import_module("minicircuits")
    batch = size["batch"]
    shape = {name: value for name, value in size.items() if name != "batch"}
    weights = mc.init_weights(LAYERS, positions="shortformer", rng=np.random.default_rng(0),
                              dtype=np.float32, **shape)
    return weights, np.random.default_rng(1).integers(size["d_vocab"],
                                                      size=(8, batch, size["n_ctx"]))


def minicircuits_step(size):
    mc = import_module("minicircuits")
    weights, batches = case(size)
    return lambda n: float(mc.loss_and_gradients(weights, batches[n % 8])[0])


def bare_step(size):
    """The shapes and layouts of a step's large calls, on numbers that mean nothing."""
    np, fast = import_module("numpy"), import_module("minicircuits.model.fast")
    side_by_side = import_module("minicircuits.cores").side_by_side
    slices = fast.count_slices(case(size)[0], size["batch"], size["n_ctx"])
    b, n, h, e, d, v = (size["batch"] // slices, *(size[name] for name in (
        "n_ctx", "n_heads", "d_head", "d_model", "d_vocab")))

    def numbers(*shape):
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def one_slice():
        x, logits, W_U = numbers(b * n, d), numbers(b * n, v), numbers(v, d)
        dx, dW_U, over_logits = np.empty_like(x), np.empty_like(W_U), np.empty_like(logits)
        weights = [numbers(count * h * e, d) for count in (2, 1, 1)]      # W_Q on W_K, W_V, W_O
        read = [(W, numbers(b * n, len(W)), np.empty_like(W)) for W in weights]
        q, over_q = numbers(b, n, h, e).swapaxes(1, 2), numbers(b, n, h, e).swapaxes(1, 2)
        shapes = [(b, h, min(start + fast.BAND, n), min(fast.BAND, n - start))
                  for start in range(0, n, fast.BAND)]
        bands = [(slice(shape[2] - shape[3], shape[2]), slice(shape[2]), numbers(*shape),
                  np.empty(shape, np.float32)) for shape in shapes]

        def calls():
            for _ in range(LAYERS):
                for W, z, dW in read:
                    np.matmul(x, W.T, out=z)
                    np.matmul(z, W, out=dx)
                    np.matmul(z.T, x, out=dW)
                for rows, seen, A, over_A in bands:
                    for _ in range(2):             # scores and dpattern, z and dq, dv and dk
                        np.matmul(q[..., seen, :], q[..., rows, :].mT, out=over_A)
                        np.matmul(A.mT, q[..., seen, :], out=over_q[..., rows, :])
                        np.matmul(A, q[..., rows, :], out=over_q[..., seen, :])
                    np.exp(A, out=over_A)
            np.matmul(x, W_U.T, out=over_logits)
            np.exp(logits, out=over_logits)
            np.matmul(logits, W_U, out=dx)
            np.matmul(logits.T, x, out=dW_U)
        return calls

    parts = [one_slice() for _ in range(slices)]
    return lambda number: list(side_by_side(lambda calls: calls(), parts))


def torch_step(size, fused):
    torch = import_module("torch")
    F = torch.nn.functional
    weights, batches = case(size)
    W = {name: torch.tensor(array.copy(), requires_grad=True) for name, array in weights.items()}
    batches = torch.tensor(batches)
    n, rescale = size["n_ctx"], size["d_head"] ** -0.5
    mask = torch.ones(n, n, dtype=torch.bool).triu(1)

    def heads(x, W):
        """(b, i, d) and (h, e, d) as one product: (b, h, i, e)."""
        return F.linear(x, W.flatten(0, 1)).unflatten(-1, W.shape[:2]).transpose(1, 2)

    def step(number):
        tokens = batches[number % 8]
        for array in W.values():
            array.grad = None
        x, p = W["W_E"].T[tokens], W["W_pos"].T[:n]
        for W_Q, W_K, W_V, W_O in zip(W["W_Q"], W["W_K"], W["W_V"], W["W_O"]):
            q, k, v = heads(x + p, W_Q), heads(x + p, W_K), heads(x, W_V)
            if fused:
                z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                scores = (q * rescale) @ k.mT
                z = scores.masked_fill(mask, -torch.inf).softmax(-1) @ v
            x = x + F.linear(z.transpose(1, 2).flatten(2), W_O.transpose(0, 1).flatten(1))
        logits = F.linear(x[:, :-1], W["W_U"])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        return loss.item()
    return step


def jax_step(size):
    jax, jnp = import_module("jax"), import_module("jax.numpy")
    weights, batches = case(size)
    n, rescale = size["n_ctx"], size["d_head"] ** -0.5
    mask = jnp.tri(n, dtype=bool)

    def loss(W, tokens):
        x, p = W["W_E"].T[tokens], W["W_pos"].T[:n]
        for layer in range(LAYERS):
            q, k = (jnp.einsum("hed,bid->bhie", W[name][layer], x + p)
                    for name in ("W_Q", "W_K"))
            v = jnp.einsum("hed,bid->bhie", W["W_V"][layer], x)
            scores = jnp.einsum("bhie,bhje->bhij", q * rescale, k)
            pattern = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), -1)
            z = jnp.einsum("bhij,bhje->bhie", pattern, v)
            x = x + jnp.einsum("hde,bhie->bid", W["W_O"][layer], z)
        logits = jax.nn.log_softmax(x[:, :-1] @ W["W_U"].T)
        return -jnp.take_along_axis(logits, tokens[:, 1:, None], -1).mean()

    step = jax.jit(jax.value_and_grad(loss))
    W = {name: jnp.asarray(array) for name, array in weights.items()}
    return lambda number: float(jax.block_until_ready(step(W, batches[number % 8]))[0])


STEPS = {"minicircuits": minicircuits_step, "free": minicircuits_step, "bare calls": bare_step,
         "torch plain": partial(torch_step, fused=False),
         "torch fused": partial(torch_step, fused=True), "jax": jax_step,
         "against": minicircuits_step}
HELD = "minicircuits", "bare calls", "against"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="CHECKOUT", help="compare with that folder's alone")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(timed(STEPS[options.side](SIZES[options.size])))
        return
    sides = {side: HERE for side, module in SIDES.items() if find_spec(module)}
    if options.against:
        sides = dict.fromkeys(("minicircuits", "free"), HERE) | {"against": options.against}
    rate = product_rate(options.rounds)
    print(f"products of large matrices: {rate / 1e9:.0f} GFLOP/s")
    for name, size in SIZES.items():
        times = in_turn({side: partial(in_own_process, __file__, "--side", side, "--size", name,
                                       held=side in HELD, package=package)
                         for side, package in sides.items()}, options.rounds)
        ours, floor = statistics.median(times["minicircuits"]), arithmetic(**size) / rate
        print(f"\n{name}: {', '.join(f'{key} {value}' for key, value in size.items())}\n"
              f"  {'floor':<14}{floor * 1e3:8.2f} ms")
        for side, seconds in times.items():
            median = statistics.median(seconds)
            print(f"  {side:<14}{median * 1e3:8.2f} ms  ({min(seconds) * 1e3:.2f} to "
                  f"{max(seconds) * 1e3:.2f})  {median / ours:5.2f} ×   of rate "
                  f"{floor / median:4.0%}")


if __name__ == "__main__":
    main()
