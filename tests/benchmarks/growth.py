"""How time grows with size: fitted exponents beside the expected ones, in a minute or two.

    python tests/benchmarks/growth.py

A training step (loss and gradients, float32) against context, vocabulary, heads and layers, one
of them varied at a time; and `expand_logits` against depth. The exponent is the slope of log
time over log size; the expected one is that of the number of operations in the matrix products,
over the same sizes. The expansion has (1 + heads)^layers paths: its time is set against their
number, which it should follow with exponent 1. Smaller sizes are left out where they cost
little but calls. One process, BLAS held to one thread and slices on all cores.
"""

import argparse
import json
from importlib import import_module

from alternate import in_own_process, timed

BASE = dict(n_layers=2, n_heads=4, d_head=32, d_model=128, d_vocab=1024, n_ctx=128)
BATCH = 8
VARIED = {"n_ctx": (128, 256, 512, 1024), "d_vocab": (1024, 2048, 4096, 8192),
          "n_heads": (4, 8, 16, 32), "n_layers": (2, 4, 8, 16)}
HEADS, DEPTHS = 3, (2, 3, 4, 5)


def operations(n_layers, n_heads, d_head, d_model, d_vocab, n_ctx):
    """Multiplications of a forward pass; a backward pass has twice as many."""
    tokens = BATCH * n_ctx
    heads = 4 * tokens * n_heads * d_head * d_model + 2 * tokens * n_ctx * n_heads * d_head
    return n_layers * heads + tokens * d_model * d_vocab


def step_seconds(size):
    np, mc = import_module("numpy"), import_module("minicircuits")
    weights = mc.init_weights(positions="shortformer", rng=np.random.default_rng(0),
                              dtype=np.float32, **size)
    batches = np.random.default_rng(1).integers(size["d_vocab"], size=(4, BATCH, size["n_ctx"]))
    return timed(lambda n: mc.loss_and_gradients(weights, batches[n % 4]), seconds=1.5)


def expansion_seconds(n_layers):
    np, mc = import_module("numpy"), import_module("minicircuits")
    weights = mc.init_weights(n_layers, HEADS, 64, 16, 100, 32, "shortformer",
                              np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(100, size=(1, 32))
    pattern = mc.forward(weights, tokens).pattern
    return timed(lambda _: sum(path.logits for path in mc.expand_logits(weights, tokens, pattern)))


def measure():
    """Pairs (number of operations or paths, seconds), by what is varied, in order of size."""
    points = {}
    for name, values in VARIED.items():
        sizes = [BASE | {name: value} for value in values]
        points[name] = [(operations(**size), step_seconds(size)) for size in sizes]
    points["depth"] = [((1 + HEADS) ** depth, expansion_seconds(depth)) for depth in DEPTHS]
    return points


def slope(x, y):
    np = import_module("numpy")
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().measure:
        print(json.dumps(measure()))
        return
    print(f"{'':<33}{'expected':>9}{'fitted':>8}   milliseconds")
    for name, points in in_own_process(__file__, "--measure", held=True).items():
        counts, seconds = zip(*points)
        title = (f"step, {name} {VARIED[name][0]} to {VARIED[name][-1]}" if name in VARIED else
                 f"expansion, paths {counts[0]:,} to {counts[-1]:,}")
        sizes = VARIED.get(name, counts)
        print(f"{title:<33}{slope(sizes, counts):>9.2f}{slope(sizes, seconds):>8.2f}   "
              + "  ".join(f"{1e3 * time:.1f}" for time in seconds))


if __name__ == "__main__":
    main()
