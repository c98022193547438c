"""`minicircuits train`, `heads` and `report`: a model trained, in tables, and as a page."""

import time

from minicircuits import files
from minicircuits.findings.study import Study, sections
from minicircuits.report.data import page_data
from minicircuits.report.page import html_file
from minicircuits.runs import resume, train_to_file
from minicircuits.terminal.progress import LOG_HEADING, watched
from minicircuits.terminal.sections import section
from minicircuits.training.model_file import load_model, load_pretrained
from minicircuits.training.recipe import SHAPE
from minicircuits.training.text import load_sample, load_text

EXACT = 1e-12         # relative, in float64


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
    study = Study(*model_and_text(options), options.seed)
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
    for name, finding in sections(study, lambda heads: watched(heads, "heads")):
        found |= finding
        print(*section(name, found, study.model.tokenizer.show), sep="\n")
    return found


def model_and_text(options):
    """The model and the text asked for; without either, those that come with this package."""
    model = load_model(options.model) if options.model else load_pretrained()
    if options.model or options.text:
        return model, read_text(options, model.tokenizer, model.weights.n_ctx or SHAPE["n_ctx"])
    text = load_sample(model)
    print(f"\nThe model that comes with this package, on {len(text.stream):,} tokens of a text "
          "that it\nhas not seen.")
    return model, text


def read_text(options, *tokenizer_and_n_ctx):
    """The text asked for, in the tokens and the context of a model if there is one."""
    began = time.perf_counter()
    text = load_text(options.text, *tokenizer_and_n_ctx)
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
