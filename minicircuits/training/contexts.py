"""What a model is looked at on: any text of one token or more, cut into contexts with names.

A text that nobody trains on is shown from its beginning, and nothing is held out of it: START,
then the tokens that fit, and again from the next token on. The last context of a text is as
long as what is left.
"""

from typing import NamedTuple

import numpy as np

from minicircuits.notation import InputError
from minicircuits.training.bigrams import unigram

LONGEST = 128         # tokens of a context: patterns (i, j) of more are too fine for a screen
LOGITS = 2 ** 26      # that a measurement takes, in some seconds: 512 contexts of 1,024 tokens
FEWEST = 16           # contexts that are kept however large the vocabulary is
READ = 20_000_000     # bytes of text that are cut into tokens, in some seconds
COUNTED = 4096        # tokens of a vocabulary whose bigrams are counted, in 8 d_vocab² bytes


class Contexts(NamedTuple):
    """Contexts of several lengths, their names, and what is known of the text as a whole."""
    tokens: list                   # int32 (i,), one a context; START first if there is one
    names: list                    # "book.txt, from token 127"
    probabilities: np.ndarray      # of tokens in the text, none of them 0: (v,)
    counts: np.ndarray | None      # bigrams (v, u), of the training text where one is known
    baselines: dict                # losses of counts on these contexts, nats per token; or {}
    notes: list                    # lines: what was cut or left out, and why
    held_out: bool = False         # from the training of the model that is looked at


def contexts_of(texts, tokenizer, n_ctx):
    """The `Contexts` of texts, pairs (name, bytes), for a model of n_ctx tokens (or None).

    Of a long text the first READ bytes are read, and of very many contexts the first are kept.
    Probabilities and counts are those of all that is read. Raises InputError where the texts have
    no token, or a context no room for one.
    """
    start, d_vocab = tokenizer.start, tokenizer.d_vocab
    length = min(n_ctx or LONGEST, LONGEST)
    step = length - (start is not None)              # tokens of the text in a context
    if step < 1:
        raise InputError(f"a context must have room for a token beside the start token; got "
                         f"n_ctx={n_ctx}")
    tokens, names, (texts, notes) = [], [], first_bytes(texts)
    for name, data in texts:
        ids = tokenizer.encode(data)
        for place in range(0, len(ids), step):
            first = [] if start is None else [start]
            tokens.append(np.array([*first, *ids[place:place + step]], np.int32))
            names.append(f"{name}, from token {place}" if len(ids) > step else name)
    if not tokens:
        raise InputError("a text must have at least one token; got an empty one")
    stream = np.concatenate(tokens)
    shares = unigram(np.bincount(stream[stream != start], minlength=d_vocab)[:, None])[:, 0]
    kept = max(FEWEST, LOGITS // (length * d_vocab))
    if length != n_ctx:
        notes.append(f"A context is {length} tokens here; this model can take "
                     f"{'any number' if n_ctx is None else f'{n_ctx:,}'}.")
    if len(tokens) > kept:
        notes.append(f"The first {kept} of {len(tokens):,} contexts are kept and measured.")
    return Contexts(tokens[:kept], names[:kept], shares, count_within(tokens, d_vocab), {}, notes)


def first_bytes(texts):
    """Texts as far as they are read, READ bytes in all; and notes on that, and on their bytes."""
    read, room = [], READ
    for name, data in texts:
        if room > 0:
            read.append((name, data[:room]))
        room -= len(data)
    strange = [name for name, data in texts[:len(read)] if not is_utf8(data)]
    notes = []
    if strange:
        others = f" and of {len(strange) - 1:,} more" if len(strange) > 1 else ""
        notes.append(f"Bytes of {strange[0]}{others} make no UTF-8: they are shown as \\xe9.")
    if room < 0:
        notes.append(f"The first {READ / 1e6:.0f} of {(READ - room) / 1e6:.0f} MB are read.")
    return read, notes


def count_within(contexts, d_vocab):
    """C (v, u), how often v came next after u in contexts (i,); None if d_vocab is too large."""
    if d_vocab > COUNTED:
        return None
    pairs = [context[1:].astype(np.int64) * d_vocab + context[:-1] for context in contexts]
    return np.bincount(np.concatenate(pairs), minlength=d_vocab ** 2).reshape(
        d_vocab, -1).astype(float)


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
