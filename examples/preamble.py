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

import minicircuits as mc
from minicircuits.runs import train_in_memory
from minicircuits.terminal import layout
from minicircuits.training.corpus import read_texts

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
    weights = train_in_memory(n_layers, text, steps=steps).astype(float)
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
