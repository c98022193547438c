"""`minicircuits train`: one model from a text."""

from minicircuits import files
from minicircuits.commands.common import check_json, read_text, write_json
from minicircuits.runs import LOG_HEADING, run


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
