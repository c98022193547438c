"""Does induction come suddenly? One layer and two, over the tokens they have seen.

    python examples/10_phase_change.py [--text FILE_OR_FOLDER ...] [--steps N]

Without --text nothing is trained here: it shows three runs of each kind that were recorded in
`phase_change.json` by `python tests/benchmarks/phase_change.py`. With --text it trains one run
of each kind on your text.

Paper: "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads".
"""
# %% The logs: each row was measured on the weights as they were after so many tokens
from preamble import FOLDER, chart, heading, options, say, table
import tempfile
from pathlib import Path

import numpy as np

import minicircuits as mc
from minicircuits import files
from minicircuits.runs import too_short, train_to_file
from minicircuits.terminal.progress import LOG_HEADING

chosen = options(__doc__, text="train on it", steps=mc.Recipe.steps)
if chosen.text:
    text, logs = mc.load_text(chosen.text), []
    if warning := too_short(text, mc.Recipe(chosen.steps)):
        say(warning)
    with tempfile.TemporaryDirectory() as folder:
        for layers in (1, 2):
            heading(f"Training, layers: {layers}")
            print(LOG_HEADING)
            output = Path(folder, f"{layers}.npz")
            model = train_to_file(layers, text, output, mc.Recipe(chosen.steps), every=25)
            print()
            logs.append((layers, 0, model.metadata["log"]))
else:
    recorded = files.read_json(FOLDER / "phase_change.json")
    logs = [(run["layers"], run["seed"], run["log"]) for run in recorded["runs"]]

# %% The curves
heading("One layer (1) and two layers (2), each curve a run")
say("""A model that gets a little better at using its context with every batch has a curve without a
    step. Olsson et al. 2022 found a step in models of two layers and more, where induction heads
    form. They found none in models of one layer, which cannot form them.""")
say("""The first curve is the loss on held-out text. The others ask what the context is good for.
    One is the loss late in a context, less the loss early in it. Then come prefix matching and the
    gap between a shuffled and an ordered block (example 05), on random tokens that come twice.""")
TITLES = {"validation": "held-out loss (nats per token)",
          "in_context": "in-context score: loss at position 100 less that at 10 (nats)",
          "prefix_matching": "prefix matching of the best head (share of its attention)",
          "gap": "ordered block cheaper than a shuffled one by (nats per token)"}
for value, title in TITLES.items():
    print(*chart(title, [(str(layers), log) for layers, _, log in logs], value, 7), "", sep="\n")

# %% How sudden?
SCORES = {"in_context": "in context", "prefix_matching": "prefix matching", "gap": "gap"}


def steepest(log, value):
    """(whole change, share of it in the tenth of tokens that has most, where that ends)."""
    tokens, values = (np.array([row[name] for row in log]) for name in ("tokens", value))
    whole, width = values[-1] - values[0], tokens[-1] / 10
    ends = tokens[tokens >= width]
    changes = np.interp(ends, tokens, values) - np.interp(ends - width, tokens, values)
    shares = changes / (whole or 1)
    return whole, shares.max(), ends[shares.argmax()]


def described(whole, share, end):
    return f"{whole:+.2f}  " + (f"{share:.0%} by {end / 1e6:.2f}" if abs(whole) > 0.2 else " " * 11)


heading("How sudden is it?")
say("""First comes by how much each score changes over a run. Then comes how much of that change
    falls into one tenth of the tokens, at most, and after how many millions. A straight line has 10
    %, and a single step 100 %. Changes of less than 0.2 are not split, because scores scatter by
    about 0.1.""")
table(["", *SCORES.values()], [
    [f"layers {layers}, seed {seed}", *(described(*steepest(log, value)) for value in SCORES)]
    for layers, seed, log in sorted(logs, key=lambda run: run[:2])])
if not chosen.text:
    say("""With one layer no score changes much. With two all of them do, and prefix matching makes
        about half of its way within a tenth of the tokens. It is a bend, not a jump: the rest comes
        by and by.""")

# %% The identities
for layers, seed, log in logs:                   # tokens are counted by whole batches
    assert all(row["tokens"] * log[1]["step"] == row["step"] * log[1]["tokens"] for row in log)
    if chosen.text:
        continue
    last = log[-1]
    if layers == 1:                              # no trace of induction, on any seed
        assert last["prefix_matching"] < 0.05 and last["gap"] < 0.1 and last["in_context"] > -0.2
    else:
        assert last["prefix_matching"] > 0.4 and last["gap"] > 1.5 and last["in_context"] < -0.4
        assert steepest(log, "prefix_matching")[1] > 0.4
print("All identities hold.")
