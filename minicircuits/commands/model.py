"""`minicircuits train`, `heads` and `report`: a model trained, in tables, and as a page."""

import os
import shlex
import time
from contextlib import contextmanager
from dataclasses import fields

import numpy as np

from minicircuits import files
from minicircuits.findings.study import Study, sections
from minicircuits.interop.open_model import open_model
from minicircuits.notation import InputError
from minicircuits.report.data import page_data
from minicircuits.report.page import html_file
from minicircuits.runs import resume, too_short, train_further, train_to_file
from minicircuits.terminal.layout import paragraph, plural, size, wrapped
from minicircuits.terminal.progress import LOG_HEADING, LOG_LEGEND, watched
from minicircuits.terminal.sections import section
from minicircuits.training.model_file import PRETRAINED, load_model
from minicircuits.training.recipe import SHAPE, Recipe
from minicircuits.training.text import (context_length, contexts_for, load_text, read_named,
                                        sample)
from minicircuits.training.tokenizer import D_VOCAB
from minicircuits.training.vocabulary import Vocabulary

SIZES = ("layers", "n_heads", "d_model", "d_head", "d_vocab", "positions")
MODELS = (".npz", ".safetensors")


def train(options):
    checkpoint = f"{options.output}.checkpoint"
    if os.path.exists(checkpoint) and not (options.resume or options.force):
        raise InputError(f"{checkpoint!r} is of a run that has not ended: --resume goes on "
                         "with it, --force begins anew")
    check_outputs(options, *([] if options.resume else [checkpoint]), options.output)
    files.check_arrays_output(options.output, options.force)
    begun = load_model(checkpoint if options.resume else options.begun) if (
        options.resume or options.begun) else None
    if options.begun:
        kept = SIZES if begun.weights.n_ctx is None else (*SIZES, "n_ctx")
        if any(getattr(options, name) is not None for name in kept):
            raise InputError("a model that goes on keeps its sizes: give no others beside --from")
    text = read_text(options, begun)
    numbers = None if options.resume else recipe(options, text)
    print(LOG_HEADING)
    with resumable(options, options.output):
        if options.resume:
            model = resume(text, options.output, options.force)
        elif options.begun:
            model = train_further(begun, text, options.output, numbers, options.force)
        else:
            layers = 2 if options.layers is None else options.layers
            model = train_to_file(layers, text, options.output, numbers, shape(options),
                                  options.force)
    print(f"  written: {options.output}", *what_next(options, options.output), sep="\n")
    write_json(options, model.metadata)


def recipe(options, text):
    """The `Recipe` asked for; says so if the text is short for it."""
    names = [field.name for field in fields(Recipe)]
    asked = {name: value for name, value in vars(options).items()
             if name in names and value is not None}
    if warning := too_short(text, Recipe(**asked)):
        print(wrapped(warning))
    return Recipe(**asked)


def shape(options):
    """The sizes asked for, as in SHAPE."""
    return {name: default if (asked := getattr(options, name)) is None else asked
            for name, default in SHAPE.items()}


@contextmanager
def resumable(options, output):
    """Says after Ctrl-C how a run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        context = ["--context", str(options.n_ctx)] if options.n_ctx else []
        command = again(options, "train", "-o", output, "--resume", *context)
        print("  interrupted; to go on:", f"    {command}", sep="\n")
        raise


def again(options, *arguments):
    """A command that repeats text and seed of this one, as the shell takes it."""
    text = ["--text", *options.text] if options.text else []
    seed = ["--seed", str(options.seed)] if options.seed else []
    return shlex.join(["minicircuits", *arguments, *text, *seed])


def what_next(options, output):
    """Lines with commands that use a model file."""
    return ["  to look at its heads:", f"    {again(options, 'heads', output)}",
            "  to have it write:", f"    {shlex.join(['minicircuits', 'sample', '', output])}"]


def heads(options, *pages):
    check_outputs(options, *pages)
    study = opened(options)
    found = print_findings(study)
    write_json(options, found)
    for page in pages:
        write_page(options, page, study, found)
        print(f"\n  written: {page}")
    return exact_status(found["exactness"])


def report(options):
    return heads(options, options.output)


def print_findings(study):
    """Every section of a `Study`, printed as soon as it is found; and all of them, in one dict."""
    found = {}
    for name, finding in sections(study, watched):
        found |= finding
        print(*section(name, found, study.model.tokenizer.show), sep="\n")
    return found


def opened(options):
    """The `Study` of the model and the text asked for, and lines that say what it is of."""
    path, texts = asked(options)
    model = open_model(path or PRETRAINED, options.positions, options.tokens, options.start)
    if texts is None:
        reads = model.tokenizer.reads_text
        texts = sample() if reads else random_tokens(model.tokenizer, options.seed)
    name = path or "The model that comes with this package"
    if isinstance(model.tokenizer, Vocabulary):           # from elsewhere: what it was taken for
        name = "T" + model.metadata["origin"][1:]
    contexts, start = contexts_for(model, texts), model.tokenizer.start
    what = ("the part of its training text that was held out" if contexts.held_out else
            texts[0][0] if len(texts) == 1 else f"{len(texts)} texts")
    seen = sum(map(len, contexts.tokens)) - len(contexts.tokens) * (start is not None)
    print("\n" + wrapped(f"{name}, on {what}: {plural(seen, 'token')} in "
                         f"{plural(len(contexts.tokens), 'context')}."))
    study = Study(model, contexts, options.seed)
    print(*map(wrapped, study.notes), sep="\n", end="\n" if study.notes else "")
    return study


def asked(options):
    """The path of a model or None, and texts, a list of (name, bytes) or None.

    In `--text FILE MODEL` the model is among the texts; its name tells it from them.
    """
    path, paths = options.model, options.text
    if options.sentence is not None:
        return path, [("your sentence", options.sentence.encode("utf-8", "surrogateescape"))]
    if paths is None:
        return path, None
    if path is None and (models := [path for path in paths if path.lower().endswith(MODELS)]):
        path, paths = models[0], [path for path in paths if path != models[0]]
        if not paths:
            raise InputError(f"--text must name a text; got only the model {path!r}")
    return path, read_named(paths)


def random_tokens(tokenizer, seed):
    """What a model is looked at on that reads no text, where none is given: a list as above."""
    ids = np.random.default_rng(seed).integers(tokenizer.d_vocab, size=1024)
    return [("random tokens", " ".join(f"#{id}" for id in ids if id != tokenizer.start).encode())]


def read_text(options, begun=None):
    """The text asked for, prepared for training; in tokens and contexts of a model that goes on."""
    began = time.perf_counter()
    print("\nThe text is read and cut into tokens, which may take some seconds.")
    n_ctx = begun and begun.weights.n_ctx or options.n_ctx or (
        context_length(begun) if begun else SHAPE["n_ctx"])
    text = load_text(options.text, begun and begun.tokenizer, n_ctx, options.d_vocab or D_VOCAB)
    print(f"  {size(text.size)}, {len(text.stream):,} tokens for training, of a vocabulary of "
          f"{text.tokenizer.d_vocab:,}; it took {time.perf_counter() - began:.0f} s.",
          paragraph(LOG_LEGEND), sep="\n")
    return text


def check_outputs(options, *paths):
    """Refuses what cannot be written, or exists and is not forced, before any work is done."""
    check_different(*paths, options.json, getattr(options, "model", None))
    for path in [*paths, options.json]:
        if path is not None:
            files.check_output(path, options.force)


def check_different(*paths):
    """Raises InputError if two of these outputs, or an output and a model, are one file."""
    paths = [os.path.realpath(path) for path in paths if path is not None]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise InputError(f"each output needs a file of its own; got {min(twice)!r} twice")


def write_json(options, results):
    if options.json:
        files.write_json(options.json, results, options.force)


def write_page(options, path, study, found):
    files.write_bytes(path, html_file("page", page_data(study, found, watched)), options.force)


def exact_status(*exactness):
    """The exit status: 1 if some sum over paths was not what the forward pass gave."""
    for errors in exactness:
        if not errors["exact"]:
            print(f"  NOT EXACT: a relative difference of {errors['largest']:.1e} is more than "
                  f"{errors['allowed']} in {errors['precision']}")
            return 1
    return 0
