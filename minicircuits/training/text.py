"""A text as training needs it: read, split, tokenized, counted, and cut into batches.

A text is bytes. Names and places of files are forgotten as soon as they are read, so that none
can end up in a model file. The text itself is known there by its `digest`.

Every context is START and then n_ctx - 1 tokens in a row from anywhere in a stream, which is
many texts end to end. START occurs nowhere else: it marks where a context begins. A context may
run from one text into the next (with the standard library, 1 in 50 does).
"""

import hashlib
import os
import re
import shlex
import sys
import sysconfig
from functools import partial
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicircuits import files
from minicircuits.door import door
from minicircuits.notation import InputError
from minicircuits.training import bigrams
from minicircuits.training.contexts import COUNTED, Contexts, contexts_of
from minicircuits.training.recipe import SHAPE
from minicircuits.training.tokenizer import D_VOCAB, Tokenizer, train_tokenizer

SAMPLE = Path(__file__).with_name("sample.txt")
# What tests the library, is not the library, was made by a program, or belongs to this host.
LEFT_OUT = re.compile(r"tests?|idle_test|(site|dist)-packages|encodings|pydoc_data|"
                      r"(site|user)customize\.py|_sysconfigdata.*|config-.*")
HIDDEN = re.compile(r"\..*")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")            # how it begins, in either order of bytes


class Text(NamedTuple):
    """A text in tokens, and what counting alone says of it."""
    tokenizer: Tokenizer
    stream: np.ndarray           # training ids (token,)
    validation: np.ndarray       # held-out contexts (b, i)
    counts: np.ndarray | None    # bigrams of the training text in contexts (v, u)
    baselines: dict              # held-out losses of counts, nats per token
    digest: str
    size: int                    # bytes

    def batches(self, recipe):
        """The function step -> contexts (b, i) that `train` takes."""
        return partial(batch, self.stream, recipe.batch, recipe.n_ctx,
                       self.tokenizer.start, recipe.seed)

    def contexts(self):
        """The held-out part as `Contexts`, with counts and probabilities of the other part."""
        names = [f"held-out text, context {n}" for n in range(len(self.validation))]
        shares = bigrams.unigram(next_tokens(self.stream, self.tokenizer.d_vocab)
                                 if self.counts is None else self.counts)[:, 0]
        return Contexts(list(self.validation), names, shares, self.counts, self.baselines, [],
                        held_out=True)


@door
def load_text(paths: list[str | os.PathLike] | None = None, tokenizer: Tokenizer | None = None,
              n_ctx: int = SHAPE["n_ctx"], d_vocab: int = D_VOCAB) -> Text:
    """Read a text, hold out a part, tokenize and count it: a `Text`.

    paths : a list of files and folders, or None for the source of Python's standard library
    tokenizer : that of a trained model, or None to learn one of `d_vocab` tokens from the text
    n_ctx : length of the held-out contexts, at least 2. Raises InputError if the text is too
        short for one. Bigrams are counted for at most COUNTED tokens: there are d_vocab² of them.
    """
    if n_ctx < 2:
        raise InputError(f"n_ctx must be at least 2; got {n_ctx}")
    return prepared(read_texts(paths) if paths else standard_library(), tokenizer, n_ctx, d_vocab)


def prepared(texts, tokenizer, n_ctx, d_vocab=D_VOCAB):
    """`load_text` of texts that are read already: a list of bytes."""
    training, held_out = split(texts)
    size, tokenizer = sum(map(len, texts)), tokenizer or train_tokenizer(training, d_vocab)
    stream, held_out = tokenizer.encode(training), tokenizer.encode(held_out)
    if len(held_out) < n_ctx - 1:
        bytes_a_token = max(3, size / (len(stream) + len(held_out)))     # short texts tell little
        needed = 20 * (n_ctx - 1) * bytes_a_token
        raise InputError(f"a text to train on, in contexts of {n_ctx}, must hold out at least "
                         f"{n_ctx - 1} tokens, 5 % of it; got {len(held_out)} of {size:,} bytes: "
                         f"about {ceil(needed / 1000):,} kB are needed")
    validation, d_vocab = spread(held_out, 32, n_ctx, tokenizer.start), tokenizer.d_vocab
    if d_vocab > COUNTED:
        baselines = {"unigram counts": bigrams.counted_loss(
            bigrams.unigram(next_tokens(stream, d_vocab)),
            next_tokens(validation[:, 1:], d_vocab))}
        return Text(tokenizer, stream, validation, None, baselines, digest(texts), size)
    counts = bigrams.count_in_contexts(stream, tokenizer.start, n_ctx, d_vocab)
    ahead = bigrams.count_bigrams(validation, d_vocab)
    baselines = {
        "unigram counts": bigrams.counted_loss(bigrams.unigram(counts), ahead),
        "bigram counts, interpolated": bigrams.counted_loss(bigrams.bigram(counts), ahead)}
    return Text(tokenizer, stream, validation, counts, baselines, digest(texts), size)


def next_tokens(tokens, d_vocab):
    """How often each token is predicted, whatever came before it: (v, 1)."""
    return np.bincount(tokens.ravel(), minlength=d_vocab)[:, None]


def context_length(model):
    """n_ctx of a model; where it takes any, that of its training, if its metadata say one."""
    recipe = model.metadata.get("recipe")
    said = recipe.get("n_ctx") if isinstance(recipe, dict) else None
    return model.weights.n_ctx or (said if type(said) is int and said > 1 else SHAPE["n_ctx"])


def contexts_for(model, texts):
    """The `Contexts` on which a model is looked at: the texts, pairs (name, bytes), whole.

    If they are what the model was trained on (its metadata know by digest), it is the part that
    was held out then.
    """
    known, data = model.metadata.get("text_sha256"), [data for _, data in texts]
    if known == digest(data):
        return prepared(data, model.tokenizer, context_length(model)).contexts()
    contexts = contexts_of(texts, model.tokenizer, model.weights.n_ctx)
    if known:
        contexts.notes.append("This model was trained on another text.")
    return contexts


def sample():
    """The text that comes with this package, in English and in code: a list of (name, bytes).

    It was written for it: no model has seen it in training.
    """
    return [("the sample text of this package", files.read_bytes(SAMPLE))]


def standard_library():
    """The source of this Python's standard library, a list of bytes, 10 MB, or InputError.

    Without its tests, generated tables, and what names folders of this host.
    """
    paths = _files_below(sysconfig.get_path("stdlib"), LEFT_OUT)
    texts = [data for path in paths if path.endswith(".py")
             and is_text(data := files.read_bytes(path))]
    if not texts:
        raise InputError("there is no source of Python's standard library on this machine: "
                         "choose another text with --text FILE_OR_FOLDER ...")
    return texts


def read_texts(paths):
    """The texts in these files and folders, a list of bytes.

    Folders are read to the bottom, in the order of names. Left out are empty and binary files
    (those with a NUL byte), UTF-16, and names that begin with a dot, such as `.git`. Raises
    InputError where a path leads to no text, or a file cannot be read.
    """
    return [data for _, data in read_named(paths)]


def read_named(paths):
    """`read_texts` with a name for each, a list of (name, bytes): its path from a folder on.

    The path "-" is standard input.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise InputError(f"paths must be a list of files and folders; got {str(paths)!r} alone")
    texts = []
    for path in paths:
        found = _named(path)
        if not (kept := [(name, data) for name, data in found if is_text(data)]):
            what = "standard input" if path == "-" else repr(str(path))
            for name, data in found:
                if data.startswith(UTF_16):
                    file = os.path.join(path, name) if os.path.isdir(path) else path
                    raise InputError(f"{what} must be UTF-8; got UTF-16. To convert it: iconv "
                                     f"-f UTF-16 -t UTF-8 {shlex.quote(str(file))} > converted.txt")
            raise InputError(f"{what} must be text; got nothing but empty or binary files")
        texts += kept
    return texts


def is_text(data):
    """Whether bytes are text: there are some, none is 0 as in binary files, and it is no UTF-16."""
    return bool(data) and b"\0" not in data and not data.startswith(UTF_16)


def _named(path):
    """What a path leads to, a list of (name, bytes)."""
    if path == "-":
        return [("standard input", sys.stdin.buffer.read())]
    if os.path.isdir(path):
        return [(os.path.relpath(file, path), files.read_bytes(file))
                for file in _files_below(path, HIDDEN)]
    return [(os.path.basename(path), files.read_bytes(path))]


def _files_below(folder, left_out):
    """The paths of all files below `folder`, but for names that the pattern `left_out` matches."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not left_out.fullmatch(name))
        paths = (os.path.join(here, name) for name in sorted(names) if not left_out.fullmatch(name))
        yield from filter(os.path.isfile, paths)


def digest(texts):
    """The SHA-256 of a set of texts, as 64 hexadecimal digits. Their order does not matter."""
    hashes = sorted(hashlib.sha256(text).digest() for text in texts)
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def split(texts):
    """Texts for training and for validation, each joined end to end: a pair of bytes.

    The texts are put in the order of their hashes, so their content alone decides. The last
    5 % of the bytes are for validation. The text that the border falls in is cut there.
    """
    stream = b"".join(sorted(texts, key=lambda text: hashlib.sha256(text).digest()))
    border = len(stream) - round(0.05 * len(stream))
    return stream[:border], stream[border:]


def batch(stream, n, n_ctx, start, seed, step):
    """Contexts for one step of training, from random places of the stream: int32 (b, i).

    They depend on the arguments alone, so that training can be resumed at any step.

    stream : ids (token,), without START, at least n_ctx - 1 of them, or InputError
    n, n_ctx : number of contexts, and their length with START, whose id is `start`
    seed, step : integers >= 0
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(step,)))
    places = stretches(stream, n_ctx)
    return np.insert(places[rng.integers(len(places), size=n)], 0, start, axis=1)


def spread(stream, n, n_ctx, start):
    """Contexts for validation, from n places spread evenly over the stream: int32 (b, i).

    Always the same ones; they overlap where the stream has no room. Otherwise as `batch`.
    """
    places = stretches(stream, n_ctx)
    return np.insert(places[np.linspace(0, len(places) - 1, n).astype(int)], 0, start, axis=1)


def stretches(stream, n_ctx):
    """Every n_ctx - 1 tokens in a row, by the place where they begin: a view, int32 (place, i)."""
    if len(stream) < n_ctx - 1:
        raise InputError(f"a text for contexts of {n_ctx} must have at least {n_ctx - 1} tokens; "
                         f"got {len(stream)}")
    return np.lib.stride_tricks.sliding_window_view(np.asarray(stream, np.int32), n_ctx - 1)
