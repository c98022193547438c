"""How much text does it take? Two layers on some kB of the standard library's source.

    PYTHONPATH=. python tests/benchmarks/text_length.py
"""

import argparse
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from minicircuits.cli import THREADS

for name in THREADS:
    os.environ.setdefault(name, "1")
np = import_module("numpy")
mc = import_module("minicircuits")
runs = import_module("minicircuits.runs")
standard_library = import_module("minicircuits.training.text").standard_library


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kB", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("    kB  tokens read  least loss at step   at the end  prefix matching at the end")
    for size in options.kB:
        source = standard_library()
        order = np.random.default_rng(options.seed).permutation(len(source))
        with tempfile.TemporaryDirectory() as folder:
            room = size * 1000
            for n in order:
                Path(folder, f"{n}.txt").write_bytes(source[n][:room])
                room -= len(source[n][:room])
            text = mc.load_text([folder])
            recipe = mc.Recipe(seed=options.seed)
            log = runs.train_to_file(2, text, os.path.join(folder, "model.npz"), recipe,
                                     report=lambda line: print(line, file=sys.stderr)
                                     ).metadata["log"]
        best, last = min(log, key=lambda row: row["validation"]), log[-1]
        print(f"{size:6}  {last['tokens'] / len(text.stream):5.0f} times  "
              f"{best['validation']:10.3f} {best['step']:7}  {last['validation']:11.3f}  "
              f"{last['prefix_matching']:10.3f}", flush=True)


if __name__ == "__main__":
    main()
