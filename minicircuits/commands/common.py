"""What the commands share: text in, JSON out, and the exit status."""

import time

from minicircuits import files
from minicircuits.runs import SHAPE, prepare

EXACT = 1e-12         # relative, in float64


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
