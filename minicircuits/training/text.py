"""A text as training needs it: read, split, tokenized, and counted."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicircuits import files
from minicircuits.training import corpus
from minicircuits.training.bigrams import (bigram, count_bigrams, count_in_contexts, counted_loss,
                                           unigram)
from minicircuits.training.recipe import SHAPE
from minicircuits.training.tokenizer import Tokenizer, train_tokenizer

SAMPLE = Path(__file__).with_name("sample.txt")


class Text(NamedTuple):
    """A text in tokens, and what counting alone says of it."""
    tokenizer: Tokenizer
    stream: np.ndarray           # training ids (token,)
    validation: np.ndarray       # held-out contexts (b, i)
    counts: np.ndarray           # bigrams of the training text in contexts (v, u)
    baselines: dict              # held-out losses of counts, nats per token
    digest: str
    size: int                    # bytes

    def batches(self, recipe):
        """The function step -> contexts (b, i) that `train` takes."""
        return partial(corpus.batch, self.stream, recipe.batch, recipe.n_ctx,
                       self.tokenizer.start, recipe.seed)


def load_text(paths: list | None = None, tokenizer: Tokenizer | None = None,
              n_ctx: int = SHAPE["n_ctx"]) -> Text:
    """Read a text, hold out a part, tokenize and count it: a `Text`.

    paths : a list of files and folders, or None for the source of Python's standard library
    tokenizer : that of a trained model, or None to learn one of 1,024 tokens from the text
    n_ctx : length of the held-out contexts. Raises InputError if the text is too short for one.
    """
    texts = corpus.read_texts(paths) if paths else corpus.standard_library()
    training, held_out = corpus.split(texts)
    tokenizer = tokenizer or train_tokenizer(training)
    stream, held_out = tokenizer.encode(training), tokenizer.encode(held_out)
    validation = corpus.spread(held_out, 32, n_ctx, tokenizer.start)
    counts = count_in_contexts(stream, tokenizer.start, n_ctx, tokenizer.d_vocab)
    ahead = count_bigrams(validation, tokenizer.d_vocab)
    return Text(tokenizer, stream, validation, counts,
                {"unigram counts": counted_loss(unigram(counts), ahead),
                 "bigram counts, interpolated": counted_loss(bigram(counts), ahead)},
                corpus.digest(texts), sum(map(len, texts)))


def load_sample(model):
    """The packaged sample as a `Text` for `model`: all of it is held out, and counted.

    It was written for this package, in English and in code: no model has seen it in training.
    The baselines are those on the text that the model was trained on, with the model's own.
    """
    data, tokenizer = files.read_bytes(SAMPLE), model.tokenizer
    stream, n_ctx = tokenizer.encode(data), model.weights.n_ctx
    recorded = {**model.metadata["baselines"],
                "this model": model.metadata["log"][-1]["validation"]}
    return Text(tokenizer, stream, corpus.spread(stream, 16, n_ctx, tokenizer.start),
                count_in_contexts(stream, tokenizer.start, n_ctx, tokenizer.d_vocab),
                {f"{name} (training text)": loss for name, loss in recorded.items()},
                corpus.digest([data]), len(data))
