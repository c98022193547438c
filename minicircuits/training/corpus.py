"""Text to batches of tokens: the reader's own files, or the source of Python's library.

A text is bytes. Names and places of files are forgotten as soon as they are read, so that
none can end up in a model file; the text itself is known there by its `digest`.

Every context is START and then n_ctx - 1 tokens in a row from anywhere in a stream, which is
many texts end to end. START occurs nowhere else: it marks where a context begins, and a
context may run from one text into the next (with the standard library, 1 in 50 does).
"""

import hashlib
import os
import re
import sysconfig

import numpy as np

from minicircuits import files
from minicircuits.notation import InputError

# What tests the library, is not the library, was made by a program, or belongs to this host.
LEFT_OUT = re.compile(r"tests?|idle_test|(site|dist)-packages|encodings|pydoc_data|"
                      r"(site|user)customize\.py|_sysconfigdata.*|config-.*")
HIDDEN = re.compile(r"\..*")
HELD_OUT = 0.05                # of the bytes


def standard_library():
    """The source of this Python's standard library, a list of bytes, 10 MB, or InputError.

    Without its tests, generated tables, and what names folders of this host.
    """
    paths = _files_below(sysconfig.get_path("stdlib"), LEFT_OUT)
    texts = _texts_in(path for path in paths if path.endswith(".py"))
    if not texts:
        raise InputError("there is no source of Python's standard library on this machine: "
                         "choose another text with --text FILE_OR_FOLDER ...")
    return texts


def read_texts(paths):
    """The texts in these files and folders, a list of bytes.

    Folders are read to the bottom, in the order of names. Left out are empty and binary files
    (those with a NUL byte) and names that begin with a dot, such as `.git`. Raises InputError
    where a path leads to no text, or a file cannot be read.
    """
    texts = []
    for path in paths:
        found = _texts_in(_files_below(path, HIDDEN) if os.path.isdir(path) else [path])
        if not found:
            raise InputError(f"{str(path)!r} must be text; got nothing but empty or binary files")
        texts += found
    return texts


def _files_below(folder, left_out):
    """The paths of all files below `folder`, but for names that the pattern `left_out` matches."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not left_out.fullmatch(name))
        paths = (os.path.join(here, name) for name in sorted(names) if not left_out.fullmatch(name))
        yield from filter(os.path.isfile, paths)


def _texts_in(paths):
    """The contents of files, without those that are empty or binary."""
    return [data for data in map(files.read_bytes, paths) if data and b"\0" not in data]


def digest(texts):
    """The SHA-256 of a set of texts, as 64 hexadecimal digits. Their order does not matter."""
    return hashlib.sha256(b"".join(sorted(map(_hash, texts)))).hexdigest()


def split(texts):
    """Texts for training and for validation, each joined end to end: a pair of bytes.

    The texts are put in the order of their hashes, so their content alone decides. The last
    HELD_OUT of the bytes is for validation. The text that the border falls in is cut there.
    """
    stream = b"".join(sorted(texts, key=_hash))
    border = len(stream) - round(HELD_OUT * len(stream))
    return stream[:border], stream[border:]


def _hash(text):
    return hashlib.sha256(text).digest()


def batch(stream, n, n_ctx, start, seed, step):
    """Contexts for one step of training, from random places of the stream: int32 (b, i).

    They depend on the arguments alone, so that training can be resumed at any step.

    stream : ids (token,), without START, at least n_ctx - 1 of them, or InputError
    n, n_ctx : number of contexts, and their length with START, whose id is `start`
    seed, step : integers >= 0
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(step,)))
    places = stretches(stream, n_ctx)
    return contexts(places[rng.integers(len(places), size=n)], start)


def spread(stream, n, n_ctx, start):
    """Contexts for validation, from n places spread evenly over the stream: int32 (b, i).

    Always the same ones; they overlap where the stream has no room. Otherwise as `batch`.
    """
    places = stretches(stream, n_ctx)
    return contexts(places[np.linspace(0, len(places) - 1, n).astype(int)], start)


def stretches(stream, n_ctx):
    """Every n_ctx - 1 tokens in a row, by the place where they begin: a view (place, i)."""
    if len(stream) < n_ctx - 1:
        raise InputError(f"a text for contexts of {n_ctx} must have at least {n_ctx - 1} tokens; "
                         f"got {len(stream)}")
    return np.lib.stride_tricks.sliding_window_view(stream, n_ctx - 1)


def contexts(tokens, start):
    """START, then the tokens of each row: int32 (b, i)."""
    return np.insert(tokens.astype(np.int32), 0, start, axis=1)
