"""Trains one layer and two on several seeds, measured often, and records the logs as JSON.

    python tests/benchmarks/phase_change.py -o phase_change.json

`examples/10_phase_change.py` reads what it writes. The runs are those of `minicircuits train`,
with a measurement every 25 steps instead of 50.
"""

import argparse
import os
import sys
import tempfile
from importlib import import_module

from minicircuits.cli import THREADS

for name in THREADS:
    os.environ.setdefault(name, "1")
files = import_module("minicircuits.files")
train_to_file = import_module("minicircuits.runs").train_to_file
load_text = import_module("minicircuits.training.text").load_text
Recipe = import_module("minicircuits.training.recipe").Recipe
VALUES = ("step", "tokens", "validation", "in_context", "prefix_matching", "gap")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    files.check_output(options.output, force=True)
    text = load_text(options.text)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for n_layers in (1, 2):
                log(f"layers: {n_layers}, seed: {seed}")
                output = os.path.join(folder, f"{n_layers}-{seed}.npz")
                metadata = train_to_file(n_layers, text, output, Recipe(seed=seed),
                                         every=25, report=log).metadata
                found.append({"layers": n_layers, "seed": seed, "log": [
                    {name: round(row[name], 4) for name in VALUES} for row in metadata["log"]]})
    shared = {name: metadata[name] for name in ("recipe", "text_sha256", "python", "numpy")}
    shared["recipe"] = {name: value for name, value in shared["recipe"].items() if name != "seed"}
    files.write_json(options.output, {**shared, "runs": found}, force=True)


def log(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
