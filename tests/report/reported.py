"""A small model on a small text, and its page: what the tests of this folder look at."""

import base64
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.findings import heads
from minicircuits.findings.study import Study, sections
from minicircuits.report import data as page
from minicircuits.training.model_file import Model
from minicircuits.training.text import Text
from minicircuits.training.tokenizer import train_tokenizer
from tests.with_norms import random_model

TEXT = Path(mc.__file__).parent / "circuits"
LOG = [{"step": step, "tokens": 100 * step, "seconds": float(step), "loss": 7.0 - step / 100,
        "validation": 7.1 - step / 100, "in_context": -step / 200, "previous_token": 0.9,
        "prefix_matching": step / 1000} for step in (0, 50, 100, 150, 200)]


def unpack(packed):
    """What the page makes of `pack(array)` or `pack_floats(array)`, as float64."""
    data = base64.b64decode(packed["data"])
    if "scale" not in packed:
        return np.frombuffer(data, "<f4").reshape(packed["shape"]).astype(np.float64)
    integers = np.frombuffer(data, "<i2").reshape(packed["shape"])
    return integers * np.reshape(packed["scale"], (-1, *[1] * (integers.ndim - 1)))


class Reported(NamedTuple):
    model: Model
    text: Text
    study: Study
    found: dict         # all its sections in one
    data: dict          # its page's


@cache
def text():
    """Of 640 tokens: few are fitted quickly by bigrams."""
    source = b"".join(path.read_bytes() for path in sorted(TEXT.glob("*.py")))
    return mc.load_text([TEXT], train_tokenizer(source, 640))


def studied(weights, metadata, least=-1.0):
    """A `Reported` of any weights that fit the text, as if the model were too large for its page.

    least : what earns a head its name: by default any score does, so that there is all to show
    """
    model = Model(weights, text().tokenizer, metadata)
    study, found = Study(model, text().contexts(), 0), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "PREVIOUS", least)
        patch.setattr(heads, "least_prefix_matching", lambda block: least)
        for _, finding in sections(study):
            found |= finding
        patch.setattr(page, "LIVE", 0)
        return Reported(model, text(), study, found, page.page_data(study, found))


def living(one):
    """A `Reported` with the model in its page."""
    return one._replace(data=page.page_data(one.study, one.found))


@cache
def reported(n_layers):
    """A random model of some layers, its heads strong enough to have something to show."""
    weights = mc.init_weights(n_layers, 3, 24, 8, text().tokenizer.d_vocab, 128, "shortformer",
                              np.random.default_rng(n_layers), np.float32)
    return studied(weights.astype(np.float64), {
        "log": LOG, "seed": 0, "text_sha256": text().digest})


@cache
def normalized(n_layers):
    """A random model of some layers with biases and LayerNorm."""
    model, _ = random_model(0, "LN", "shortformer", n_layers, n_ctx=128, d_model=24, d_head=8,
                            d_vocab=text().tokenizer.d_vocab)
    return studied(model.folded(), {})
