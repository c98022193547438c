"""A small model on a small text, and its page: what the tests of this folder look at."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

import minicircuits as mc
from minicircuits import tour
from minicircuits.report.content import content
from minicircuits.training.model_file import Model
from minicircuits.training.text import Text

TEXT = Path(mc.__file__).parent / "circuits"
LOG = [{"step": step, "tokens": 100 * step, "seconds": float(step), "loss": 7.0 - step / 100,
        "validation": 7.1 - step / 100, "in_context": -step / 200, "previous_token": 0.9,
        "prefix_matching": step / 1000} for step in (0, 50, 100, 150, 200)]


class Reported(NamedTuple):
    model: Model
    text: Text
    results: dict       # of `tour.take_apart`
    content: dict


@cache
def text():
    return mc.load_text([TEXT])


@cache
def reported(n_layers):
    """A random model of some layers, its heads strong enough to have something to show."""
    weights = mc.init_weights(n_layers, 3, 24, 8, text().tokenizer.d_vocab, 128, "shortformer",
                              np.random.default_rng(n_layers), np.float32)
    weights = weights.astype(np.float64)
    model = Model(weights, text().tokenizer, {"log": LOG, "seed": 0})
    results = tour.take_apart(model, text(), 0)
    return Reported(model, text(), results, content(model, text(), results, 0))
