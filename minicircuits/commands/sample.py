"""`minicircuits sample`: a text, continued by a model."""

import codecs

import numpy as np

from minicircuits.behavior.sampling import sample as drawn
from minicircuits.interop.open_model import open_model
from minicircuits.training.model_file import PRETRAINED


def sample(options):
    """Prints the text and its continuation, each token as soon as it is drawn.

    Characters that would not print, and bytes that make no character, are escaped.
    """
    weights, tokenizer, _ = open_model(options.model or PRETRAINED, options.positions,
                                       options.tokens, options.start)
    text = options.text.encode("utf-8", "surrogateescape")         # the bytes that were typed
    ids = drawn(weights, tokenizer.encode(text), np.random.default_rng(options.seed),
                options.length, options.temperature, options.top_k, tokenizer.start)
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    show(decoder.decode(text))
    for id in ids:
        show(decoder.decode(tokenizer.show(id).encode() if id == tokenizer.start else
                            tokenizer.decode([id])))
    show(decoder.decode(b"", final=True) + "\n")


def show(text):
    print("".join(character if character.isprintable() or character in "\n\t"
                  else character.encode("unicode_escape").decode() for character in text),
          end="", flush=True)
