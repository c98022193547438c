"""`minicircuits train`, `heads` and `report`: a model trained, in tables, and as a page."""

import time

import numpy as np

from minicircuits import files
from minicircuits.findings.study import Study, sections
from minicircuits.interop.open_model import open_model
from minicircuits.report.data import page_data
from minicircuits.report.page import html_file
from minicircuits.runs import resume, train_to_file
from minicircuits.terminal.layout import plural, wrapped
from minicircuits.terminal.progress import LOG_HEADING, watched
from minicircuits.terminal.sections import section
from minicircuits.training.model_file import PRETRAINED
from minicircuits.training.text import contexts_for, load_text, read_named, sample

EXACT = 1e-12         # relative, in float64
MODELS = (".npz", ".safetensors")


def train(options):
    checkpoint = [] if options.resume else [f"{options.output}.checkpoint"]
    check_outputs(options, *checkpoint, options.output)
    text = read_text(options)
    print(LOG_HEADING)
    if options.resume:
        model = resume(text, options.output, options.force)
    else:
        model = train_to_file(options.layers, text, options.seed, options.output, options.steps,
                              options.force)
    print(f"  written: {options.output}")
    write_json(options, model.metadata)


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
    study = Study(model, contexts_for(model, texts), options.seed)
    contexts = study.contexts
    what = ("the part of its training text that was held out" if contexts.held_out else
            texts[0][0] if len(texts) == 1 else f"{len(texts)} texts")
    seen = sum(map(len, contexts.tokens)) - len(contexts.tokens) * (study.start is not None)
    print()
    for line in (f"{name}, on {what}: {plural(seen, 'token')} in "
                 f"{plural(len(contexts.tokens), 'context')}.", *study.notes):
        print(wrapped(line))
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
    return path, read_named(paths)


def random_tokens(tokenizer, seed):
    """What a model is looked at on that reads no text, where none is given: a list as above."""
    ids = np.random.default_rng(seed).integers(tokenizer.d_vocab, size=1024)
    return [("random tokens", " ".join(f"#{id}" for id in ids if id != tokenizer.start).encode())]


def read_text(options):
    """The text asked for, prepared for training."""
    began = time.perf_counter()
    text = load_text(options.text)
    print(f"\nText: {text.size / 1e6:.1f} MB, {len(text.stream):,} tokens of "
          f"{text.tokenizer.d_vocab} for training, read and tokenized in "
          f"{time.perf_counter() - began:.0f} s.")
    return text


def check_outputs(options, *paths):
    """Refuses what cannot be written, or exists and is not forced, before any work is done."""
    for path in [*paths, options.json]:
        if path is not None:
            files.check_output(path, options.force)


def write_json(options, results):
    if options.json:
        files.write_json(options.json, results, options.force)


def write_page(options, path, study, found):
    files.write_bytes(path, html_file("page", page_data(study, found)), options.force)


def exact_status(*exactness):
    """The exit status: 1 if some sum over paths was not what the forward pass gave."""
    largest = max(errors[name] for errors in exactness
                  for name in ("logits", "scores", "patterns", "rebuilt_logits"))
    if largest <= EXACT:
        return 0
    print(f"  NOT EXACT: a relative difference of {largest:.1e} is more than {EXACT}")
    return 1
