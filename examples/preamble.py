"""What all examples begin with: their options, their models, and how they print on 80 columns.

It comes before NumPy: BLAS asks for OMP_NUM_THREADS when it loads. One thread is best here,
because training shares out its work over the cores by itself.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import textwrap
from pathlib import Path

import minicircuits as mc
from minicircuits import runs
from minicircuits.terminal import layout
from minicircuits.training.corpus import read_texts

FOLDER = Path(__file__).resolve().parent


def options(description, text="train on your own text", **numbers):
    """--text, and an option with a default for each of `numbers`: an argparse.Namespace.

    A notebook has no options, since `sys.argv` is the kernel's there: all are as by default.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help=text)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N",
                            help=f"{default} by default")
    from_here = Path(sys.argv[0]).resolve().parent == FOLDER
    return parser.parse_args(sys.argv[1:] if from_here else [])


def words(options, default):
    """The words of the first file asked for, or of the text `default`."""
    text = read_texts(options.text)[0].decode(errors="replace") if options.text else default
    return text.split()


def train(n_layers, text, steps):
    """A model of `n_layers` after `steps` of training on a prepared text, in float64."""
    weights = runs.trained(n_layers, text, steps=steps).astype(float)
    print()
    return weights


def two_layers(options):
    """A model of two layers and its prepared text: packaged, or trained on the text asked for."""
    if options.text:
        text = runs.prepare(options.text)
        return train(2, text, options.steps), text
    weights, tokenizer, _ = mc.load_pretrained()
    return weights.astype(float), runs.prepare(None, tokenizer, weights.n_ctx)


def heading(title):
    print(layout.heading(title).lstrip("\n"))


def say(text):
    """A paragraph, filled to the width, and an empty line."""
    print(textwrap.fill(" ".join(text.split()), layout.WIDTH, initial_indent="  ",
                        subsequent_indent="  "), end="\n\n")


def table(titles, rows):
    """Aligned columns, from titles and rows of anything that has a text; and an empty line."""
    print(*layout.table(titles, [[str(cell) for cell in row] for row in rows]), "", sep="\n")
