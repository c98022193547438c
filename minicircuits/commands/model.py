"""`minicircuits heads` and `report`: what a trained model does, in tables and as a page."""

from functools import partial

from minicircuits import files
from minicircuits.commands.common import check_json, exact_status, read_text, write_json
from minicircuits.findings.study import Study, sections
from minicircuits.report.data import page_data
from minicircuits.report.page import report_html
from minicircuits.runs import prepare_sample
from minicircuits.terminal.layout import watched
from minicircuits.terminal.sections import section
from minicircuits.training.model_file import load_model
from minicircuits.training.pretrained import load_pretrained


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
    files.write_bytes(options.output, report_html(page_data(study, found)), options.force)
    print(f"\n  written: {options.output}")
    return exact_status(found["exactness"])


def print_findings(study):
    """Every section of a `Study`, printed as soon as it is found; and all of them, in one dict."""
    found = {}
    for name, finding in sections(study, partial(watched, name="heads")):
        found |= finding
        print(*section(name, found, study.model.tokenizer.show), sep="\n")
    return found


def model_and_text(options):
    """The model and the text asked for; without either, those that come with this package."""
    model = load_model(options.model) if options.model else load_pretrained()
    if options.model or options.text:
        return model, read_text(options, model)
    text = prepare_sample(model)
    print(f"\nThe model that comes with this package, on {len(text.stream):,} tokens of a text "
          "that it\nhas not seen.")
    return model, text
