"""Does an induction head form, on every seed? Trains two layers and one, prints a table.

    python tests/benchmarks/induction_over_seeds.py --seeds 10

Columns: seconds and step at which prefix matching first passed 0.1 on blocks of 29; the
score of the best previous-token head of an earlier layer; the best head's prefix matching,
the least over blocks of 13, 29 and 47 random tokens; its copying score; by how many nats per
token an ordered second block is cheaper than a shuffled one, with all heads, without the
induction head, and without the previous-token head (patterns recomputed); training seconds
with the measurements along the way; and for one layer its best prefix matching.
"""

import argparse
import os
import sys
import tempfile
from importlib import import_module

from minicircuits.cli import THREADS

for name in THREADS:
    os.environ.setdefault(name, "1")
np = import_module("numpy")
mc = import_module("minicircuits")
effects = import_module("minicircuits.findings.effects")
heads = import_module("minicircuits.findings.heads")
Study = import_module("minicircuits.findings.study").Study
train_to_file = import_module("minicircuits.runs").train_to_file
BLOCKS = import_module("minicircuits.behavior.in_context").BLOCKS


def two_layers(text, recipe, folder):
    seed = recipe.seed
    model = train_to_file(2, text, os.path.join(folder, f"two-{seed}.npz"), recipe, report=log)
    study = Study(model, text.contexts(), seed)
    rows = heads.head_table(study.weights, study.sources, *study.held_out, study.start, seed)
    nearest = heads.named_heads(rows, BLOCKS)["nearest"]
    pair = [nearest[name]["head"] for name in ("induction_head", "previous_token_head")]
    row, earlier = (next(row for row in rows if (row["layer"], row["head"]) == head)
                    for head in pair)
    gaps = effects.removals(study.weights, *study.held_out, *pair, study.start, seed)["gaps"]
    formed = [entry for entry in model.metadata["log"] if entry["prefix_matching"] > 0.1]
    first = (f"{formed[0]['seconds']:5.0f} s at {formed[0]['step']:4d}" if formed
             else "never".rjust(15))
    return (f"{first}  {earlier['previous']:5.2f}  {row['induction']:9.2f}  "
            f"{row['copying']:7.2f}  {gaps['whole']:5.2f} {gaps['without_induction']:6.2f} "
            f"{gaps['without_previous']:6.2f}  {model.metadata['log'][-1]['seconds']:5.0f} s")


def one_layer(text, recipe, folder):
    model = train_to_file(1, text, os.path.join(folder, f"one-{recipe.seed}.npz"), recipe,
                          report=log)
    scores = mc.induction_scores(model.weights, model.tokenizer.start,
                                 np.random.default_rng(recipe.seed))
    return f"{scores.max():9.2f}"


def log(line):
    print(line, file=sys.stderr)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=mc.Recipe.steps)
    parser.add_argument("--text", nargs="+")
    options = parser.parse_args(arguments)
    text = mc.load_text(options.text)
    print("seed    first > 0.1   prev.  induction  copying   gap: all  −ind  −prev    time  "
          "one layer")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            recipe = mc.Recipe(options.steps, seed=seed)
            print(f"{seed:4d}  {two_layers(text, recipe, folder)}  "
                  f"{one_layer(text, recipe, folder)}", flush=True)


if __name__ == "__main__":
    main()
