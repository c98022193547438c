"""Composition scores of all pairs of 144 heads: here, and by TransformerLens 3.9.

    python tests/benchmarks/composition.py --python /path/to/an/environment/with/it/bin/python
    python tests/benchmarks/composition.py --against CHECKOUT

12 layers of 12 heads, d_model 768, d_head 64, float32, the same random weights. The sum over the
three kinds, each side in a process of its own, in turn; medians of rounds, the least and the
largest. The values must agree. Without --python only this side is timed; with --against another
checkout of this project is, too.
"""

import argparse
import json
import os
import tempfile
from functools import partial
from importlib import import_module

from alternate import in_own_process, in_turn, product_rate, ratios, spread, timed

LAYERS, HEADS, D_MODEL, D_HEAD = 12, 12, 768, 64


def minicircuits_scores(file):
    mc = import_module("minicircuits")
    weights = mc.load(file)
    return lambda kind: mc.composition_scores(weights, kind)


def transformer_lens_scores(file):
    """In an environment that need not have this project in it."""
    np, torch = import_module("numpy"), import_module("torch")
    lens = import_module("transformer_lens")
    model = lens.HookedTransformer(lens.HookedTransformerConfig(
        n_layers=LAYERS, n_heads=HEADS, d_model=D_MODEL, d_head=D_HEAD, d_vocab=10, n_ctx=8,
        attn_only=True, normalization_type=None, device="cpu"))
    with np.load(file) as arrays, torch.no_grad():
        for layer, block in enumerate(model.blocks):
            for name in ("W_Q", "W_K", "W_V", "W_O"):
                getattr(block.attn, name).copy_(torch.from_numpy(arrays[name][layer]).mT)

    @torch.no_grad()
    def scores(kind):
        return model.all_composition_scores(kind).numpy().transpose(2, 3, 0, 1)   # later first
    return scores


SIDES = {"minicircuits": minicircuits_scores, "against": minicircuits_scores,
         "transformer_lens": transformer_lens_scores}


def measure(side, file, output):
    np, scores, saved = import_module("numpy"), SIDES[side](file), {}
    seconds = {kind: timed(lambda _: saved.update({kind: scores(kind)}), seconds=1, least=1)
               for kind in "QKV"}
    np.savez(output, **saved)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", help="the Python of an environment with TransformerLens 3.9")
    parser.add_argument("--against", metavar="CHECKOUT", help="another one of this project")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(*options.side)))
        return
    np, mc = import_module("numpy"), import_module("minicircuits")
    with tempfile.TemporaryDirectory() as folder:
        weights, *outputs = (os.path.join(folder, f"{name}.npz") for name in ("weights", *SIDES))
        mc.save(weights, mc.init_weights(LAYERS, HEADS, D_MODEL, D_HEAD, 10, 8, "none",
                                         np.random.default_rng(0), np.float32))
        measured = {side: partial(in_own_process, __file__, "--side", side, weights, output)
                    for side, output in zip(SIDES, outputs)}
        sides = {"minicircuits": partial(measured["minicircuits"], held=True)}
        if options.against:
            sides["against"] = partial(measured["against"], held=True, package=options.against)
        if options.python:
            sides["transformer_lens"] = partial(measured["transformer_lens"],
                                                python=options.python)
        results = in_turn(sides, options.rounds)
        scores = {side: dict(np.load(output)) for side, output in zip(SIDES, outputs)
                  if side in sides}
    # a later layer's heads against each earlier layer's: one inner product of d_model per entry
    floor = 3 * 2 * D_MODEL * (HEADS * D_HEAD) ** 2 * LAYERS * (LAYERS - 1) / 2
    print(f"floor of the products alone: {floor / product_rate(3):.2f} s")
    totals = {side: [sum(run.values()) for run in runs] for side, runs in results.items()}
    for side, times in totals.items():
        print(f"{side:<18}{spread(times)} s   ratio "
              f"{spread(ratios(times, totals['minicircuits']), '{:.1f}')}")
    for side, theirs in scores.items():
        error = max(np.abs(scores["minicircuits"][kind] - theirs[kind]).max() for kind in "QKV")
        print(f"values of {side} differ by at most {error:.1e}")
        assert error < 1e-6


if __name__ == "__main__":
    main()
