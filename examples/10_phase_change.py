"""Does induction come suddenly? One layer and two, over the tokens they have seen.

    python examples/10_phase_change.py [--text FILE_OR_FOLDER ...] [--steps N]

Without --text nothing is trained here: it shows three runs of each kind that were recorded in
`phase_change.json` by `python tests/benchmarks/phase_change.py`. With --text it trains one run
of each kind on your text, in about two minutes.

What to look for: a model that gets better at using its context a little with every batch has
a curve without a step. Olsson et al. 2022 found a step, in models of two layers and more, where
induction heads form; and none in models of one layer, which cannot form them.

Paper: "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

import argparse
import os
import tempfile
from pathlib import Path

from minicircuits.cli import THREADS

for name in THREADS:
    os.environ.setdefault(name, "1")           # before NumPy loads: slices share out the cores

import numpy as np

import minicircuits as mc
from minicircuits import files
from minicircuits.runs import train_to_file
from minicircuits.terminal.layout import chart, heading, table
from minicircuits.terminal.progress import LOG_HEADING

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="train on it")
parser.add_argument("--steps", type=int, help="of training: fewer for a quick look")
options = parser.parse_args()

# 1. The logs. Each row was measured on the weights as they were after so many tokens.
if options.text:
    text, logs = mc.load_text(options.text), []
    with tempfile.TemporaryDirectory() as folder:
        for layers in (1, 2):
            print(heading(f"Training, layers: {layers}"), LOG_HEADING, sep="\n")
            model = train_to_file(layers, text, 0, Path(folder, f"{layers}.npz"), options.steps,
                                  every=25)
            logs.append((layers, 0, model.metadata["log"]))
else:
    recorded = files.read_json(Path(__file__).with_name("phase_change.json"))
    logs = [(run["layers"], run["seed"], run["log"]) for run in recorded["runs"]]

# 2. The same measurements of every run, as curves. The loss is that of held-out text; the other
# three ask what the context is good for: the loss late in a context less the loss early in it;
# the best head's attention to what followed last time, on repeated random tokens; and by how
# much such a block is cheaper in its old order than shuffled, which only induction can see.
TITLES = {"validation": "held-out loss (nats per token)",
          "in_context": "in-context score: loss at position 100 less that at 10 (nats)",
          "prefix_matching": "prefix matching of the best head (share of its attention)",
          "gap": "ordered block cheaper than a shuffled one by (nats per token)"}
print(heading("One layer (1) and two layers (2), each curve a run"))
marked = [(str(layers), log) for layers, _, log in logs]
for value, title in TITLES.items():
    print(*chart(title, marked, value, height=7), "", sep="\n")

# 3. How sudden? The largest part of a run's whole change, from its first row to its last, that
# falls into one tenth of its tokens. A straight line has 10 %, a single step 100 %; changes of
# less than 0.2 are not split, because rows scatter by about 0.1.
WINDOW, SMALL = 0.1, 0.2
SCORES = {"in_context": "in context", "prefix_matching": "prefix matching", "gap": "gap"}


def steepest(log, value):
    """(whole change, share of it in the window that has most, the token where that ends)."""
    tokens, values = (np.array([row[name] for row in log]) for name in ("tokens", value))
    whole, width = values[-1] - values[0], WINDOW * tokens[-1]
    ends = tokens[tokens >= width]
    shares = (np.interp(ends, tokens, values) - np.interp(ends - width, tokens, values)) / (
        whole or 1)
    return whole, shares.max(), ends[shares.argmax()]


rows = []
for layers, seed, log in sorted(logs, key=lambda run: run[:2]):
    rows.append({"run": f"layers {layers}, seed {seed}"})
    for value in SCORES:
        whole, share, end = steepest(log, value)
        split = f"{share:4.0%} by {end / 1e6:.2f}" if abs(whole) > SMALL else ""
        rows[-1][value] = f"{whole:+.2f} {split:<12}"
print(heading("The whole change; how much of it within a tenth of the tokens; by which token"))
print(*table(rows, [("", lambda row: row["run"]), *(
    (f"{title:<17}", lambda row, value=value: row[value]) for value, title in SCORES.items())]),
    sep="\n")
print("  (tokens in millions; the loss is left out: it falls most in the first tenth)")

# 4. What holds. In every run tokens are counted by whole batches. In the recorded ones, on each
# seed: one layer ends without a trace of induction, and predicts hardly better late in a context
# than early; with two layers all three scores turn, and prefix matching makes two fifths of its
# way or more within a tenth of the tokens. It is a bend, not a jump: the rest comes by and by.
for layers, seed, log in logs:
    assert all(row["tokens"] * log[1]["step"] == row["step"] * log[1]["tokens"] for row in log)
    if options.text:
        continue
    last = log[-1]
    if layers == 1:
        assert last["prefix_matching"] < 0.05 and last["gap"] < 0.1 and last["in_context"] > -0.2
    else:
        assert last["prefix_matching"] > 0.4 and last["gap"] > 1.5 and last["in_context"] < -0.4
        assert steepest(log, "prefix_matching")[1] > 0.4
print("\nAll identities hold.")
