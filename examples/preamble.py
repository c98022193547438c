"""What all examples begin with: their options, their models, and how they print on 80 columns.

It comes before NumPy, which asks for OMP_NUM_THREADS when it loads. Training uses the cores by
itself: the threads of BLAS would only fight for them.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np

import minicircuits as mc
from minicircuits.runs import train_in_memory
from minicircuits.terminal import layout
from minicircuits.training.text import read_texts

FOLDER = Path(__file__).resolve().parent


def options(description, text="train on your own text", **numbers):
    """--text, and a number for each of `numbers`. In a notebook, whose argv is the kernel's, all
    are as by default."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help=text)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    started = Path(sys.argv[0]).resolve().parent == FOLDER
    return parser.parse_args(sys.argv[1:] if started else [])


def words(chosen, default):
    """The words of the first file asked for, or of the text `default`."""
    return (read_texts(chosen.text)[0].decode(errors="replace") if chosen.text else default).split()


def train(n_layers, text, steps):
    """A model of `n_layers` after `steps` of training on a prepared text, in float64."""
    weights = train_in_memory(n_layers, text, mc.Recipe(steps)).astype(float)
    print()
    return weights


def two_layers(chosen):
    """A model of two layers and its prepared text: packaged, or trained on the text asked for."""
    if chosen.text:
        text = mc.load_text(chosen.text)
        return train(2, text, chosen.steps), text
    weights, tokenizer, _ = mc.load_pretrained()
    return weights.astype(float), mc.load_text(None, tokenizer, weights.n_ctx)


def heading(title):
    print(layout.heading(title).lstrip("\n"))


def say(text):
    """A paragraph, filled to the width, and an empty line."""
    print(textwrap.fill(" ".join(text.split()), layout.WIDTH, initial_indent="  ",
                        subsequent_indent="  "), end="\n\n")


def table(titles, rows):
    """Aligned columns, from titles and rows of anything that has a text; and an empty line."""
    print(*layout.table(titles, [[str(cell) for cell in row] for row in rows]), "", sep="\n")


def chart(title, logs, value, height=8):
    """One measurement of several training runs over tokens seen, as curves.

    logs : pairs of a mark (one character) and a run's log, whose rows have "tokens" and
    `value`; runs of one kind share a mark, and where curves meet the last one drawn is seen.
    Curves are straight between measurements. Both axes are linear.
    """
    low, high = (extreme(row[value] for _, log in logs for row in log) for extreme in (min, max))
    end = max(log[-1]["tokens"] for _, log in logs)
    columns = np.arange(layout.WIDTH - 11)
    lines = [[" "] * len(columns) for _ in range(height)]
    for mark, log in logs:
        tokens = [row["tokens"] for row in log]
        reached = columns <= tokens[-1] / (end or 1) * columns[-1]
        at = np.interp(columns[reached] / columns[-1] * end, tokens, [row[value] for row in log])
        rows = np.rint((high - at) / ((high - low) or 1) * (height - 1)).astype(int)
        for column, row in enumerate(rows):
            lines[row][column] = mark
    labels = {0: f"{high:.2f}", height - 1: f"{low:.2f}"}
    lines = [f"{labels.get(n, ''):>8} │{''.join(line).rstrip()}" for n, line in enumerate(lines)]
    right = f"{end / 1e6:.1f} million tokens"
    return [f"  {title}", *lines, f"{'':>8} └{'─' * len(columns)}",
            f"{'':>9}0{right:>{len(columns)}}"]
