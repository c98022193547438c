"""How time grows with size: fitted exponents beside the expected ones, in a few minutes.

    python tests/benchmarks/growth.py [--rounds 3]

Of everything that commands do, one size is varied at a time. The exponent is the slope of log
CPU seconds over log size. The expected one is that of the number of multiplications, over the
same sizes; where that is a sum of several powers, it is between them. Sums over paths and over
terms are set against their number, which they should follow with exponent 1. What `head dump` and
`copying companions` can leave out grows with the vocabulary: they stay below. `forward` keeps all
scores and patterns, which leave the cache in long contexts: it is above. Weights are float32.
Each round is a process of its own, BLAS held to one thread and slices on all cores; the exponent
is the median of rounds, with the least and the largest, milliseconds of CPU are the least of all.
"""

import argparse
import json
import statistics
import time
from importlib import import_module

from alternate import in_own_process, spread

BASE = dict(n_layers=2, n_heads=4, d_head=32, d_model=128, d_vocab=1024, n_ctx=128)
BATCH = 8
SECONDS, LEAST = 0.3, 3              # of CPU, and repeats, that one size is measured for


# Multiplications, and what is run, each of sizes as in BASE.

def attention(n_layers, n_heads, d_head, d_model, d_vocab, n_ctx):
    heads = 4 * n_ctx * n_heads * d_head * d_model + 2 * n_ctx ** 2 * n_heads * d_head
    return n_layers * heads


def forward(**size):
    """Of one context."""
    return attention(**size) + size["n_ctx"] * size["d_model"] * size["d_vocab"]


def through(n_layers, n_heads, d_head, d_model, d_vocab, n_ctx):
    """Of `propagate`: in each layer one order more than in the one before."""
    one = n_heads * (n_ctx ** 2 * d_model + 2 * n_ctx * d_head * d_model)
    return one * n_layers * (n_layers + 1) / 2


def rebuilt(n_layers, **size):
    return sum(through(n_layers=layer, **size) for layer in range(n_layers + 1)) + forward(
        n_layers=n_layers, **size)


def importance(**size):
    losses = 3 * size["n_layers"] + 1
    return through(**size) + losses * size["n_ctx"] * size["d_model"] * size["d_vocab"]


def compositions(n_layers, n_heads, d_head, d_model, d_vocab, n_ctx):
    pairs = n_heads ** 2 * n_layers * (n_layers - 1) / 2
    return d_model * d_head ** 2 * (pairs + 6 * n_layers * n_heads)    # thin: 2 QRs, 2 products


def table(d_vocab, d_head, **size):
    return d_vocab ** 2 * d_head


def paths(n_layers, n_heads, **size):
    return (1 + n_heads) ** n_layers


def virtual(n_layers, n_heads, **size):
    return paths(n_layers, n_heads) - 1 - n_layers * n_heads


def terms(n_layers, n_heads, **size):
    """Of a head of the last layer; positions are one path more."""
    return (paths(n_layers - 1, n_heads) + 1) ** 2


def steps(size):
    """{name: function of no arguments}: what is measured, on a model of this size."""
    np, mc = import_module("numpy"), import_module("minicircuits")
    rng = np.random.default_rng(0)
    W = mc.init_weights(positions="shortformer", rng=rng, dtype=np.float32, **size)
    batch = rng.integers(size["d_vocab"], size=(BATCH, size["n_ctx"]))
    one, last = batch[:1], (size["n_layers"] - 1, 0)
    shares = np.full(size["d_vocab"], 1 / size["d_vocab"])

    def acts(of=one):
        """Run when it is needed, and once."""
        if len(of) not in acts.known:
            acts.known[len(of)] = mc.forward(W, of)
        return acts.known[len(of)]
    acts.known = {}
    return {
        "training step": lambda: mc.loss_and_gradients(W, batch),
        "forward": lambda: mc.forward(W, batch),
        "sample, a token": lambda: list(mc.sample(W, one[0], np.random.default_rng(0), 1)),
        "induction scores": lambda: mc.induction_scores(W, 0, np.random.default_rng(0)),
        "term importance": lambda: mc.term_importance(W, batch, acts(batch)),
        "rebuild": lambda: mc.rebuild(W, one),
        "split of scores": lambda: mc.split_scores(W, one, acts().pattern, *last),
        "sum over paths": lambda: sum(
            path.logits for path in mc.expand_logits(W, one, acts().pattern)),
        "virtual heads": lambda: mc.virtual_heads(W, one, acts()),
        "ledger": lambda: mc.ledger(W, one, acts().pattern, size["n_ctx"] - 1, 0),
        "terms of a score": lambda: mc.variance_shares(
            mc.expand_scores(W, one, acts().pattern, *last)),
        "composition": lambda: mc.composition_scores(W, "K"),
        "head dump": lambda: mc.skip_trigrams(W, 0, 0, shares),
        "copying companions": lambda: mc.copying_companions(mc.ov_circuit(W, 0, 0)),
        "nearest matches": lambda: mc.nearest_matches(mc.qk_circuit(W, 0, 0)),
        "copying score": lambda: mc.copying_score(mc.ov_circuit(W, 0, 0))}


# (operation, what varies, its values, multiplications, sizes unlike BASE); where the
# multiplications are a number of paths or terms, times are set against that number.
SMALL = dict(n_heads=3, d_head=16, d_model=64, d_vocab=128, n_ctx=32)
BIG = dict(n_layers=4, n_heads=8, d_head=64, d_model=512)
LONG, MANY = (128, 256, 512, 1024), (2048, 4096, 8192)
VARIED = [
    ("training step", "n_ctx", LONG, forward, {}),
    ("training step", "d_vocab", (1024, *MANY), forward, {}),
    ("training step", "n_heads", (4, 8, 16, 32), forward, {}),
    ("training step", "n_layers", (2, 4, 8, 16), forward, {}),
    ("forward", "n_ctx", LONG, forward, {}),
    ("forward", "d_vocab", MANY, forward, {}),
    ("forward", "n_heads", (4, 8, 16), forward, {}),
    ("forward", "n_layers", (2, 4, 8), forward, {}),
    ("sample, a token", "n_ctx", LONG, attention, {}),
    ("induction scores", "n_heads", (4, 8, 16), attention, {}),
    ("term importance", "d_vocab", MANY, importance, {}),
    ("term importance", "n_layers", (2, 4, 8), importance, {}),
    ("rebuild", "n_ctx", LONG, rebuilt, {}),
    ("rebuild", "n_layers", (2, 4, 8, 16), rebuilt, {}),
    ("split of scores", "n_ctx", LONG, through, {}),
    ("sum over paths", "n_layers", (2, 3, 4, 5), paths, SMALL),
    ("virtual heads", "n_layers", (3, 4, 5), virtual, SMALL),
    ("ledger", "n_layers", (3, 4, 5, 6), paths, SMALL),
    ("terms of a score", "n_layers", (3, 4, 5), terms, SMALL),
    ("composition", "n_heads", (8, 16, 32), compositions, BIG),
    ("composition", "n_layers", (4, 8, 16), compositions, BIG),
    ("composition", "d_model", (256, 512, 1024), compositions, BIG),
    ("head dump", "d_vocab", MANY, table, {}),
    ("copying companions", "d_vocab", MANY, table, {}),
    ("nearest matches", "d_vocab", MANY, table, {}),
    ("copying score", "d_vocab", (8192, 16384, 32768), lambda d_vocab, **size: d_vocab, {})]
NUMBERS = paths, virtual, terms


def sizes(varied, values, others):
    return [BASE | others | {varied: value} for value in values]


def cpu_seconds(step):
    """Median of a call, after one to warm up."""
    step()
    times = []
    while sum(times) < SECONDS or len(times) < LEAST:
        begun = time.process_time()
        step()
        times.append(time.process_time() - begun)
    return statistics.median(times)


def measure():
    """CPU seconds of each of VARIED, in order of size."""
    return [[cpu_seconds(steps(size)[operation]) for size in sizes(varied, values, others)]
            for operation, varied, values, _, others in VARIED]


def slope(x, y):
    np = import_module("numpy")
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure()))
        return
    rounds = [in_own_process(__file__, "--measure", held=True) for _ in range(options.rounds)]
    print(f"{'':<42}{'expected':>9}  {'fitted':<22}milliseconds of CPU")
    for (operation, varied, values, count, others), *seconds in zip(VARIED, *rounds):
        counts = [count(**size) for size in sizes(varied, values, others)]
        what, over = (count.__name__, counts) if count in NUMBERS else (varied, values)
        print(f"{f'{operation}, {what} {over[0]:,} to {over[-1]:,}':<42}"
              f"{slope(over, counts):>9.2f}  {spread([slope(over, s) for s in seconds]):<22}"
              + "  ".join(f"{1e3 * min(times):.1f}" for times in zip(*seconds)))


if __name__ == "__main__":
    main()
