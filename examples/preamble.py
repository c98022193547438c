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
from minicircuits.findings.study import Study
from minicircuits.runs import too_short, train_in_memory
from minicircuits.terminal import layout
from minicircuits.training.model_file import Model
from minicircuits.training.text import contexts_for, read_named, sample

FOLDER = Path(__file__).resolve().parent


def options(description, text="train on your own text", sentence=False, **numbers):
    """--text, --sentence where a sentence will do, and a number for each of `numbers`. In a
    notebook, whose argv is the kernel's, all are as by default."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help=text)
    if sentence:
        texts.add_argument("--sentence", metavar="TEXT", help="the same, given here")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=(
            "of training on the text: if given, two layers are trained first" if default is None
            else f"default {default}"))
    if Path(sys.argv[0]).resolve().parent != FOLDER:
        return parser.parse_args([])
    sys.excepthook = in_one_line
    return parser.parse_args()


def in_one_line(kind, error, trace):
    """What Python calls at the end of a script that fails: bad input has no need of a trace."""
    if issubclass(kind, mc.InputError):
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def own(chosen):
    """Whether the text or the model is the reader's."""
    return any(vars(chosen).get(name) is not None for name in ("text", "sentence", "steps"))


def texts_of(chosen):
    """The texts asked for, a list of (name, bytes)."""
    if chosen.sentence is not None:
        return [("your sentence", chosen.sentence.encode("utf-8", "surrogateescape"))]
    return read_named(chosen.text) if chosen.text else []


def words(chosen, default):
    """The words of the first text asked for, or of the text `default`; InputError without any."""
    texts = texts_of(chosen) or [("", default.encode())]
    if not (found := texts[0][1].decode(errors="replace").split()):
        raise mc.InputError(f"{texts[0][0]} must have a word; got none")
    return found


def train(n_layers, text, steps):
    """A model of `n_layers` after `steps` of training on a prepared text, in float64."""
    recipe = mc.Recipe(steps)
    if warning := too_short(text, recipe):
        say(warning)
    weights = train_in_memory(n_layers, text, recipe).astype(float)
    print()
    return weights


def two_layers(chosen):
    """A `Study` of a model of two layers on a text.

    It is the packaged model, on the text asked for or the sample. Where steps are asked for, a
    model is trained on the text, and is looked at on what is held out.
    """
    if chosen.steps:
        if chosen.sentence:
            raise mc.InputError("a sentence is too short to train on: leave --steps out")
        text = mc.load_text(chosen.text)
        model = Model(train(2, text, chosen.steps), text.tokenizer, {})
        return Study(model, text.contexts(), seed=0)
    model = mc.load_pretrained()
    return Study(model, contexts_for(model, texts_of(chosen) or sample()), seed=0)


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
