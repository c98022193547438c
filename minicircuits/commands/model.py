"""`minicircuits train`, `heads` and `report`: a model trained, in tables, and as a page."""

import time
from functools import partial

from minicircuits import files
from minicircuits.findings.study import Study, sections
from minicircuits.report.data import page_data
from minicircuits.report.page import report_html
from minicircuits.runs import LOG_HEADING, SHAPE, prepare, prepare_sample, run
from minicircuits.terminal.layout import watched
from minicircuits.terminal.sections import section
from minicircuits.training.model_file import load_model
from minicircuits.training.pretrained import load_pretrained

EXACT = 1e-12         # relative, in float64


def train(options):
    if not options.resume:
        files.check_output(f"{options.output}.checkpoint", options.force)
    files.check_output(options.output, options.force)
    check_json(options)
    text = read_text(options)
    print(LOG_HEADING)
    model = run(options.layers, text, options.seed, options.output, options.steps,
                options.resume, options.force)
    print(f"  written: {options.output}")
    write_json(options, model.metadata)


def heads(options):
    check_json(options)
    found = print_findings(Study(*model_and_text(options), options.seed))
    write_json(options, found)
    return exact_status(found["exactness"])


def report(options):
    files.check_output(options.output, options.force)
    check_json(options)
    study = Study(*model_and_text(options), options.seed)
    found = print_findings(study)
    write_json(options, found)
    write_page(options.output, study, found, options)
    print(f"\n  written: {options.output}")
    return exact_status(found["exactness"])


def print_findings(study):
    """Every section of a `Study`, printed as soon as it is found; and all of them, in one dict."""
    found = {}
    for name, finding in sections(study, partial(watched, name="heads")):
        found |= finding
        print(*section(name, found, study.model.tokenizer.show), sep="\n")
    return found


def write_page(path, study, found, options):
    files.write_bytes(path, report_html(page_data(study, found)), options.force)


def model_and_text(options):
    """The model and the text asked for; without either, those that come with this package."""
    model = load_model(options.model) if options.model else load_pretrained()
    if options.model or options.text:
        return model, read_text(options, model)
    text = prepare_sample(model)
    print(f"\nThe model that comes with this package, on {len(text.stream):,} tokens of a text "
          "that it\nhas not seen.")
    return model, text


def read_text(options, model=None):
    """The text asked for, in the tokens and the context of `model` if there is one."""
    began = time.perf_counter()
    text = prepare(options.text) if model is None else prepare(
        options.text, model.tokenizer, model.weights.n_ctx or SHAPE["n_ctx"])
    print(f"\nText: {text.size / 1e6:.1f} MB, {len(text.stream):,} tokens of "
          f"{text.tokenizer.d_vocab} for training, read and tokenized in "
          f"{time.perf_counter() - began:.0f} s.")
    return text


def check_json(options):
    """Refuses what --json names before any work is done."""
    if options.json:
        files.check_output(options.json, options.force)


def write_json(options, results):
    if options.json:
        files.write_json(options.json, results, options.force)


def exact_status(*exactness):
    """The exit status: 1 if some sum over paths was not what the forward pass gave."""
    largest = max(errors[name] for errors in exactness
                  for name in ("logits", "scores", "patterns", "rebuilt_logits"))
    if largest <= EXACT:
        return 0
    print(f"  NOT EXACT: a relative difference of {largest:.1e} is more than {EXACT}")
    return 1
