"""The skip-trigram tables of 12 heads at GPT-2's shape: here, and in PyTorch in blocks.

    python tests/benchmarks/head_dump.py

Random float32 weights, d_vocab 50,257, d_model 768, d_head 64, token probabilities as 1/rank.
Per head: the 10 sources u with the largest max QK[:, u] · max OV[:, u] · p_u^0.1, and for each
its 5 strongest destinations and outs. Both circuits have 2.5 billion entries. `in full` is the
definition, `strongest_sources`, which computes all entries in blocks. So does PyTorch, in blocks
of whole rows or columns or in tiles that stay in cache, either at the best of several sizes,
found before the clock starts. Each side runs in a process of its own, in turn. Times are seconds
a head, and ratios are of one head and round: medians, the least and the largest. The slow sides do
the first 3 heads alone. `floor` is the time that all the products of a head alone would take. The
peak is of the whole process, weights included. All sides must name the same sources.
"""

import argparse
import json
import resource
import sys
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec

from alternate import in_own_process, in_turn, product_rate, ratios, spread

D_VOCAB, D_MODEL, D_HEAD, SOURCES, K = 50_257, 768, 64, 10, 5
SIDES = {"minicircuits": "numpy", "minicircuits, in full": "numpy", "torch, blocks": "torch",
         "torch, tiles": "torch"}
FEW = 3                                # heads of all sides but the first


def dump(side, n_heads):
    """Seconds of each head's table on one side, the sources in it, and the peak in GiB."""
    np, mc = import_module("numpy"), import_module("minicircuits")
    rng = np.random.default_rng(0)
    weights = mc.init_weights(1, 12, D_MODEL, D_HEAD, D_VOCAB, 1, "none", rng, np.float32)
    probabilities = 1 / np.arange(1, D_VOCAB + 1)
    probabilities /= probabilities.sum()
    strongest_sources = TABLES[side](weights, probabilities)
    seconds, sources = [], []
    for head in range(n_heads):
        begun = time.perf_counter()
        sources.append(strongest_sources(head))
        seconds.append(time.perf_counter() - begun)
    return {"seconds": seconds, "sources": sources,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20}


def minicircuits_tables(weights, probabilities):
    mc = import_module("minicircuits")
    return lambda head: [row.source for row in mc.skip_trigrams(weights, 0, head, probabilities,
                                                                SOURCES, K)]


def minicircuits_in_full(weights, probabilities):
    """The same with nothing left out."""
    np, mc = import_module("numpy"), import_module("minicircuits")
    definition = import_module("minicircuits.circuits.skip_trigrams").strongest_sources
    factor = probabilities.astype(np.float32) ** 0.1

    def strongest_sources(head):
        circuits = mc.qk_circuit(weights, 0, head), mc.ov_circuit(weights, 0, head)
        best = definition(*circuits, factor, SOURCES)
        for W in circuits:
            np.argsort(-W.columns(best), axis=1)[:, :K]
        return best.tolist()
    return strongest_sources


def torch_tables(weights, probabilities, tiles):
    torch = import_module("torch")
    W = {name: torch.from_numpy(array) for name, array in weights.items()}
    factor = torch.from_numpy(probabilities).float() ** 0.1

    def circuits(head):
        """QK and OV, each as factors (v, e) and (e, u)."""
        W_Q, W_K, W_V, W_O = (W[name][0, head] for name in ("W_Q", "W_K", "W_V", "W_O"))
        return ((W["W_E"].T @ W_Q.T, W_K @ W["W_E"]), (W["W_U"] @ W_O, W_V @ W["W_E"]))

    def by_source(A, B, size, space):
        """Maxima of blocks of `size` sources, each a row."""
        sources = B.T.contiguous()
        return torch.cat([torch.mm(rows, A.T, out=space[:len(rows)]).amax(1)
                          for rows in sources.split(size)])

    def by_row(A, B, size, space):
        """A running maximum over blocks of `size` rows of the circuit."""
        best = torch.full((B.shape[1],), -torch.inf)
        for rows in A.split(size):
            torch.maximum(best, torch.mm(rows, B, out=space[:len(rows)]).amax(0), out=best)
        return best

    def tiled(A, B, size, space):
        """Blocks of `size` sources by 2,048 rows, which stay in cache."""
        maxima, space = [], space.view(-1)
        for columns in B.T.contiguous().split(size):
            best = torch.full((len(columns),), -torch.inf)
            for rows in A.split(2048):
                block = space[:len(columns) * len(rows)].view(len(columns), len(rows))
                torch.maximum(best, torch.mm(columns, rows.T, out=block).amax(1), out=best)
            maxima.append(best)
        return torch.cat(maxima)

    def seconds(way, size):
        """On a tenth of one circuit, the better of two."""
        (A, B), _ = circuits(0)
        A, B = (A[:D_VOCAB // 10], B) if way is by_row else (A, B[:, :D_VOCAB // 10])
        space, times = torch.empty(size, D_VOCAB), []
        for _ in range(2):
            begun = time.perf_counter()
            way(A, B, size, space)
            times.append(time.perf_counter() - begun)
        return min(times)

    with torch.inference_mode():
        way, size = min(((way, size) for way in ((tiled,) if tiles else (by_source, by_row))
                         for size in (128, 512, 1024, 2048)), key=lambda best: seconds(*best))
        space = torch.empty(size, D_VOCAB)

    @torch.inference_mode()
    def strongest_sources(head):
        QK, OV = circuits(head)
        attended, added = way(*QK, size, space), way(*OV, size, space)
        scores = torch.where((attended > 0) & (added > 0), attended * added * factor, 0)
        best = scores.topk(SOURCES).indices
        for A, B in (QK, OV):
            (A @ B[:, best]).topk(K, dim=0)
        return best.tolist()

    print(f"  torch: {way.__name__}, {size}", file=sys.stderr)
    return strongest_sources


TABLES = {"minicircuits": minicircuits_tables, "minicircuits, in full": minicircuits_in_full,
          "torch, blocks": partial(torch_tables, tiles=False),
          "torch, tiles": partial(torch_tables, tiles=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--heads", type=int, default=12, help="of 12")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(dump(options.side, options.heads)))
        return
    heads = {side: options.heads if side == "minicircuits" else min(FEW, options.heads)
             for side, module in SIDES.items() if find_spec(module)}
    rate = product_rate(options.rounds)
    floor = 2 * 2 * D_VOCAB ** 2 * D_HEAD + 4 * 2 * D_VOCAB * D_MODEL * D_HEAD
    results = in_turn({side: partial(in_own_process, __file__, "--side", side, "--heads", n,
                                     held=side.startswith("mini"))
                       for side, n in heads.items()}, options.rounds)
    print(f"products of large matrices: {rate / 1e9:.0f} GFLOP/s"
          f"\n  {'floor':<25}{floor / rate:5.2f} s a head")
    ours = results["minicircuits"]
    for side, runs in results.items():
        pairs = list(zip(runs, ours))
        assert all(run["sources"] == own["sources"][:heads[side]] for run, own in pairs)
        times = [seconds for run in runs for seconds in run["seconds"]]
        ratio = [ratio for run, own in pairs for ratio in ratios(run["seconds"], own["seconds"])]
        print(f"  {side:<25}{spread(times)} s   ratio {spread(ratio)}"
              f"   at most {max(run['peak'] for run in runs):.2f} GiB")


if __name__ == "__main__":
    main()
