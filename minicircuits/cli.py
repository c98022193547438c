"""The command line: `minicircuits tour`, and its parts each on its own.

Exit status 0, 1 (a check failed), 2 (bad input: one line on standard error), 130 (Ctrl-C).
"""

import argparse
import os
import sys
from functools import partial
from importlib import import_module

import minicircuits as mc     # a contents page: NumPy is not loaded yet

# Training uses all cores by itself, so BLAS has to keep to one. It reads these when NumPy loads.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
           "VECLIB_MAXIMUM_THREADS")
WITHOUT_TEXT = "\n\nWithout --text the text is the source of this Python's standard library."
WITHOUT_MODEL = (
    "\n  minicircuits {} --sentence 'Potter can fly on a Nimbus 2000 to Hogwarts'"
    "\n\nWithout MODEL, the model is one of two layers that comes with this package;"
    "\nwithout a text, it is a short one that comes along too.")


def parser():
    top = argparse.ArgumentParser(
        prog="minicircuits", description="A Mathematical Framework for Transformer Circuits, "
        "as NumPy:\ntrain small attention-only transformers and take them apart exactly.",
        epilog="example:\n  minicircuits tour", formatter_class=argparse.RawTextHelpFormatter)
    top.add_argument("--version", action="version", version=f"minicircuits {mc.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name, help, example, module, epilog=""):
        """A command whose work is the function `name` of `minicircuits.module`."""
        ends = "" if help.endswith("?") else "."
        sub = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ends,
                                  epilog=f"example:\n  minicircuits {example}{epilog}",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        sub.set_defaults(module=module)
        return sub

    main_job(command)
    oracle(command)
    return top


def main_job(command):
    """The commands that read a text."""
    tour = command("tour", "train zero, one and two layers on text, and take each apart",
                   "tour --text my_book.txt", "commands.tour", WITHOUT_TEXT)
    train = command("train", "train one model on text",
                    "train --layers 2 -o model.npz", "commands.model", WITHOUT_TEXT)
    heads = command("heads", "what the heads of a trained model do, in tables",
                    "heads tour-1/two_layers.npz", "commands.model", WITHOUT_MODEL.format("heads"))
    report = command("report", "the same as one HTML page, to click through offline",
                     "report tour-1/two_layers.npz -o report.html", "commands.model",
                     WITHOUT_MODEL.format("report"))
    for sub in tour, train, heads, report:
        looks = sub in (heads, report)
        texts = sub.add_mutually_exclusive_group()
        texts.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own text"
                           + (", of any length; - is standard input" if looks else ""))
        if looks:
            texts.add_argument("--sentence", metavar="TEXT", help="your own text, given here")
        sub.add_argument("--seed", type=whole, default=0, metavar="N",
                         help="of every random choice (default 0)")
        sub.add_argument("--json", metavar="FILE", help="also write the figures printed, as JSON")
        sub.add_argument("--force", action="store_true", help="overwrite files that exist")
    sample = command("sample", "continue a text with a model", "sample 'def open('",
                     "commands.sample",
                     "\n\nEach token is drawn from softmax(logits / temperature)."
                     "\nWhere the text is longer than the model's context, the context slides.")
    sample.add_argument("text", metavar="TEXT", help="to be continued; may be empty")
    sample.add_argument("--length", type=positive, default=100, metavar="N",
                        help="tokens to add (default 100)")
    sample.add_argument("--temperature", type=number, default=1.0, metavar="X",
                        help="0 always takes the likeliest token (default 1)")
    sample.add_argument("--top-k", type=positive, metavar="N",
                        help="draw from the N likeliest tokens (default: from all)")
    sample.add_argument("--seed", type=whole, default=0, metavar="N", help="(default 0)")
    for sub in heads, report, sample:
        sub.add_argument("model", nargs="?", metavar="MODEL",
                         help="a model file, or weights of others, .safetensors or .npz")
        sub.add_argument("--positions", choices=("shortformer", "standard", "none"),
                         help="where the weights of others add positions, if no config says it")
        sub.add_argument("--tokens", metavar="FILE", help="names of their tokens: a JSON list, a "
                         "vocab.json or a tokenizer.json")
        sub.add_argument("--start", metavar="TOKEN", help="their token before every text: a name, "
                         "an id, or none")
    tour.add_argument("-o", "--output", metavar="FOLDER",
                      help="for the models (default: the first of tour-1, tour-2, … that is new)")
    train.add_argument("-o", "--output", metavar="FILE", required=True, help="model file, .npz")
    for sub in tour, train:
        sizes_and_rates(sub)
    further = train.add_mutually_exclusive_group()
    further.add_argument("--from", dest="begun", metavar="MODEL",
                         help="go on with a finished model: more steps, or another text. Its "
                         "tokens and sizes stay; the log begins anew")
    further.add_argument("--resume", action="store_true",
                         help="go on from OUTPUT.checkpoint as if never interrupted (with the "
                         "same --text; all else is the checkpoint's)")
    report.add_argument("-o", "--output", metavar="FILE", default="report.html",
                        help="(default report.html)")


def sizes_and_rates(sub):
    """The numbers of `training.recipe`, in the order in which they are worth changing."""
    first = sub.add_argument_group("worth changing")
    first.add_argument("--steps", type=positive, metavar="N",
                       help="of training: fewer for a quick look or a short text (default 500)")
    if "train" in sub.prog:
        first.add_argument("--layers", type=whole, metavar="N", help="0, 1, 2 or more (default 2)")
    sizes = sub.add_argument_group(
        "sizes: smaller is faster; with the defaults, induction forms")
    for option, name, default, help in (
            ("--heads", "n_heads", 4, "in a layer"),
            ("--d-model", "d_model", 128, "of the residual stream"),
            ("--d-head", "d_head", 32, "of queries, keys and values"),
            ("--vocabulary", "d_vocab", 1024, "tokens to learn from the text, from 257 on"),
            ("--context", "n_ctx", 128, "tokens of a context, from 2 on")):
        sizes.add_argument(option, dest=name, type=positive, metavar="N",
                           help=f"{help} (default {default})")
    sizes.add_argument("--positions", choices=("shortformer", "standard", "none"),
                       help="where they are added (default shortformer)")
    rates = sub.add_argument_group("seldom worth changing")
    rates.add_argument("--batch", type=positive, metavar="N", help="contexts a step (default 24)")
    for name, default, help in (("adamw_rate", 0.012, "for W_E, W_pos and W_U"),
                                ("muon_rate", 0.07, "for the heads"),
                                ("qk_speed", 1.5, "of W_Q and W_K, times that: sharper heads")):
        rates.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="RATE",
                           help=f"{help} (default {default})")


def oracle(command):
    """The commands that test an implementation."""
    vectors = command("vectors", "golden vectors to test an implementation against",
                      "vectors export cases", "testing.commands")
    actions = vectors.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="each vector and the bugs it hunts")
    show = actions.add_parser("show", help="a vector's tensors, or the numbers of one")
    show.add_argument("id", metavar="ID")
    show.add_argument("tensor", metavar="TENSOR", nargs="?")
    export = actions.add_parser("export", help="write vectors as folders of .npy files")
    export.add_argument("folder", metavar="FOLDER")
    export.add_argument("id", metavar="ID", nargs="*", help="(default: the core set)")
    export.add_argument("--force", action="store_true", help="overwrite files that exist")
    verify = actions.add_parser("verify", help="compare checksums and recompute the core set")
    verify.add_argument("folder", metavar="FOLDER", nargs="*", help="exported cases instead")
    check = command("check", "is an implementation right, and if not, which step is wrong?",
                    "check --program './mine {case} {out}'", "testing.commands",
                    "\n\nAnswers are .npy files named as the expected tensors are, any of them.")
    check.add_argument("folder", metavar="FOLDER", nargs="?",
                       help="of answers: FOLDER/ID/logits.npy and so on")
    check.add_argument("--program", metavar="COMMAND",
                       help="run on every case; {case} and {out} become folders")
    check.add_argument("--timeout", type=positive, default=60, metavar="SECONDS",
                       help="for a program, each case (default 60)")
    check.add_argument("--case", nargs="+", action="extend", metavar="ID",
                       help="only these vectors")
    mutants = command("mutants", "known bugs, and the vectors that catch each",
                      "mutants", "testing.commands")
    for sub, default, drawn in ((export, 0, "and the first N cases of the larger set"),
                                (check, None, "also the first N cases of the larger set\n"
                                              "(default: 10 for a program without --case)")):
        sub.add_argument("--drawn", type=whole, default=default, metavar="N", help=drawn)
        sub.add_argument("--weights", metavar="FILE", help="a case of your own, named own: "
                         "weights that mc.save wrote, and --tokens")
        sub.add_argument("--tokens", metavar="FILE.npy", help="of axes (b, i)")
    for sub in show, export, check:
        sub.add_argument("--shape", choices=("gpt2",), help="the same models with d_model = "
                         "n_heads · d_head and standard positions")
        sub.add_argument("--tied", action="store_true",
                         help="with W_U = W_Eᵀ; dW_E is then the gradient of both")
        sub.add_argument("--biases", action="store_true", help="with b_Q, b_K, b_V, b_O and b_U")
        sub.add_argument("--norm", choices=("LNPre", "RMSPre"),
                         help="with this norm before W_Q, W_K, W_V and W_U; forward alone")
    for sub in export, check:
        sub.add_argument("--convention", choices=("paper", "transformer_lens"), default="paper",
                         help="names and axes of the tensors (default paper)")
        sub.add_argument("--precision", choices=("float64", "float32", "tf32", "bfloat16"),
                         default="float64", help="what is claimed (default float64)")
    for sub in listing, check, mutants:
        sub.add_argument("--json", nargs="?", const="-", metavar="FILE",
                         help="print JSON instead, or write it to FILE")


def whole(text, least=0):
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on; got {text!r}")
    return int(text)


positive = partial(whole, least=1)


def number(text):
    try:
        if 0 <= float(text) < float("inf"):
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number from 0 on; got {text!r}")


def main(arguments=None):
    """Run one command; returns its exit status."""
    for stream in (sys.stdout, sys.stderr):       # "←" becomes "?" where it has no code, and
        if hasattr(stream, "reconfigure"):        # pipes get lines at once; a caller's may lack it
            stream.reconfigure(errors="replace", line_buffering=True)
    options = parser().parse_args(arguments)
    if options.command is None:
        parser().print_help()
        return 0
    for name in THREADS:
        os.environ.setdefault(name, "1")
    try:
        module = import_module(f"minicircuits.{options.module}")
        status = getattr(module, options.command)(options) or 0
        print(end="", flush=True)                 # None where standard output is closed
        return status
    except mc.InputError as error:
        print(f"minicircuits: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"minicircuits: not enough memory for these sizes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minicircuits: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())    # nothing more goes out
        if isinstance(error, BrokenPipeError):     # whoever reads has enough: `… | head`
            return 1
        print(f"minicircuits: cannot write what was found: {error.strerror}", file=sys.stderr)
        return 2
