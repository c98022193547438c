"""The command line: `minicircuits tour`, and its parts each on its own.

Exit status 0, 1 (a check failed), 2 (bad input: one line on standard error), 130 (Ctrl-C).
"""

import argparse
import os
import sys
from importlib import import_module

import minicircuits as mc     # a contents page: NumPy is not loaded yet

# Batch slices share out the cores, so BLAS has to keep to one; it asks when NumPy loads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
           "VECLIB_MAXIMUM_THREADS")
WITHOUT_TEXT = "\n\nWithout --text the text is the source of this Python's standard library."
WITHOUT_MODEL = WITHOUT_TEXT + (
    "\nWithout MODEL it is a two-layer model that comes with this package; and without both,\n"
    "the text is a short one that comes along too.")


def parser():
    top = argparse.ArgumentParser(
        prog="minicircuits", description="A Mathematical Framework for Transformer Circuits, "
        "as NumPy: train small attention-only transformers and take them apart exactly.",
        epilog="example:\n  minicircuits tour", formatter_class=argparse.RawTextHelpFormatter)
    top.add_argument("--version", action="version", version=f"minicircuits {mc.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, help, example, module, epilog=""):
        """A command whose work is the function `name` of `minicircuits.module`."""
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".",
                                  epilog=f"example:\n  {example}{epilog}",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(module=module)
        return sub

    def text_command(name, help, example, epilog=WITHOUT_TEXT):
        """One that reads a text: a part of the main job."""
        sub = command(name, help, example, "tour", epilog)
        sub.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own text")
        sub.add_argument("--seed", type=whole, default=0, metavar="N",
                         help="of every random choice (default 0)")
        sub.add_argument("--json", metavar="FILE", help="also write the figures printed, as JSON")
        sub.add_argument("--force", action="store_true", help="overwrite files that exist")
        return sub

    tour = text_command("tour", "train zero, one and two layers on text, and take each apart",
                        "minicircuits tour --text my_book.txt")
    tour.add_argument("-o", "--output", metavar="FOLDER",
                      help="for the models (default: the first of tour-1, tour-2, … that is new)")
    tour.add_argument("--steps", type=positive, metavar="N",
                      help="of training, for each model: fewer for a quick look")

    train = text_command("train", "train one model on text",
                         "minicircuits train --layers 2 -o model.npz")
    train.add_argument("-o", "--output", metavar="FILE", required=True, help="model file, .npz")
    train.add_argument("--layers", type=whole, default=2, metavar="N", help="(default 2)")
    train.add_argument("--steps", type=positive, metavar="N", help="of training")
    train.add_argument("--resume", action="store_true",
                       help="go on from OUTPUT.checkpoint as if never interrupted (with the "
                       "same --text; layers, steps and seed are the checkpoint's)")

    heads = text_command("heads", "what the heads of a trained model do, in tables",
                         "minicircuits heads tour-1/two_layers.npz", WITHOUT_MODEL)
    heads.add_argument("model", nargs="?", metavar="MODEL", help="a model file")
    return top


def whole(text):
    """An integer ≥ 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number; got {text!r}")
    return int(text)


def positive(text):
    if whole(text) == 0:
        raise argparse.ArgumentTypeError("must be at least 1; got 0")
    return int(text)


def main(arguments=None):
    """Run one command; returns its exit status."""
    options = parser().parse_args(arguments)
    for name in THREADS:
        os.environ.setdefault(name, "1")
    try:
        module = import_module(f"minicircuits.{options.module}")
        return getattr(module, options.command)(options) or 0
    except mc.InputError as error:
        print(f"minicircuits: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minicircuits: interrupted", file=sys.stderr)
        return 130
