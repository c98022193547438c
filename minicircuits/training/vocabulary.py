"""Tokens of a foreign model: the names that others gave them, or their ids where nobody did.

A `Vocabulary` does what a `Tokenizer` does. It turns text into tokens as its own tokenizer
would, where that is known. Otherwise a text is tokens with spaces between: `The #17 ␣cat`.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicircuits import files
from minicircuits.door import door
from minicircuits.notation import InputError
from minicircuits.training.tokenizer import check_ids, visible

try:
    import tokenizers
except ImportError:                # the extra `tokenizers`
    tokenizers = None

# What stands before a text, if a vocabulary has it; the first of these that is there.
STARTS = ("<START>", "<|BOS|>", "<|begin_of_text|>", "<|startoftext|>", "<s>", "<bos>", "[BOS]",
          "<|endoftext|>")
PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTE = {chr(byte): byte for byte in PRINTED} | {          # of GPT-2's letter: "Ġ" is a space
    chr(256 + n): byte for n, byte in enumerate(sorted({*range(256)} - {*PRINTED}))}


class Vocabulary:
    """Names of tokens, by id; a token without a name is shown as `#17`.

    names : list of str, or of None where a token has no name; one for each id. They may be
        spelled as GPT-2 does (`Ġthe` for ` the`), as SentencePiece does (`▁the`), or as the text
        that they stand for. Without a space in any name they are whole words.
    start : the token before every text, its id or name, or "none". By default, a name that is
        commonly used for it, such as `<|endoftext|>`, if there is one.
    encoder : the tokenizer itself, a `tokenizers.Tokenizer`, or None

    >>> vocabulary = Vocabulary(["<s>", "Ġthe", "Ġcat", None])
    >>> [vocabulary.show(id) for id in range(4)], vocabulary.start
    (['<s>', '␣the', '␣cat', '#3'], 0)
    >>> vocabulary.encode("Ġthe ␣cat #3").tolist()
    [1, 2, 3]
    >>> vocabulary.decode([1, 2])
    b' the cat'
    """

    @door
    def __init__(self, names: Sequence[str | None], start: int | str | None = None,
                 encoder: Any = None):
        named = [(name, id) for id, name in enumerate(names) if name][::-1]
        if getattr(encoder, "truncation", None) or getattr(encoder, "padding", None):
            raise InputError("encoder must take texts as they are; got one that cuts or fills them "
                             "up: call its no_truncation() and no_padding()")
        begin = Counter(name[0] for name, _ in named)
        mark = max("Ġ▁", key=lambda letter: begin[letter])     # the other may be a mere letter
        spelled = SPELLED[mark] if begin[mark] else str.encode
        self.space = b"" if begin[mark] or any(" " in name for name, _ in named) else b" "
        self.tokens = [spelled(name or f"#{id}") for id, name in enumerate(names)]
        self.ids = {visible(self.tokens[id]): id for _, id in named} | dict(named)
        self.d_vocab, self.encoder = len(self.tokens), encoder
        self.reads_text = encoder is not None                # `encode` takes any text
        if start is None:
            self.start = next((self.ids[name] for name in STARTS if name in self.ids), None)
        else:
            self.start = None if start == "none" else self._id(
                str(start), True, f"start must be a token's name, an id up to {self.d_vocab - 1}, "
                "or none")

    def __repr__(self):
        return f"Vocabulary(d_vocab={self.d_vocab}, start={self.start})"

    def encode(self, text):
        """The ids of a text, int32 (i,), str or UTF-8 bytes. The start token is not put before it.

        Without an encoder, a text is names and ids such as `#17` (where no token has a name,
        also `17`), with white space between. Raises InputError on anything else. Bytes that are
        no UTF-8 become U+FFFD, since other tokenizers take characters.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        if self.encoder is None:
            what = (f"a text for this model must be {'names of tokens or ' if self.ids else ''}ids "
                    f"up to #{self.d_vocab - 1}, with spaces between (plain text needs a "
                    "tokenizer.json and the package tokenizers)")
            return np.array([self._id(word, not self.ids, what) for word in text.split()], np.int32)
        text = text.encode("utf-8", "replace").decode()
        with _strangers_code(files.expecting("a text must be one that its tokenizer encodes")):
            ids = self.encoder.encode(text, add_special_tokens=False).ids
        return check_ids(np.array(ids, np.int32), self.d_vocab)

    def decode(self, ids):
        """The bytes that ids (i,) stand for, as in `Tokenizer`; the start token stands for none."""
        return b"".join(self.space + self.tokens[id]
                        for id in check_ids(ids, self.d_vocab).tolist() if id != self.start)

    def show(self, id):
        r"""Token `id` in one line of visible characters: `␣the`, `\n`, `\xe2`, `<s>`, `#17`."""
        check_ids([id], self.d_vocab)
        return visible(self.tokens[id])

    def _id(self, word, digits, what):
        """The id of a name, or of `#17`, or of `17` where `digits` are one; or InputError."""
        number = re.fullmatch("#?([0-9]{1,9})" if digits else "#([0-9]{1,9})", word)
        named = word in self.ids and not (digits and number)          # a token's name may be "#17"
        id = self.ids[word] if named else int(number[1]) if number else self.d_vocab
        if id >= self.d_vocab:
            raise InputError(f"{what}; got {word[:40]!r}")
        return id


def _from_letters(name):
    """The bytes of a name in GPT-2's letters. One with others was added later, spelled as it is."""
    return bytes(map(BYTE.get, name)) if BYTE.keys() >= {*name} else name.encode()


def _from_pieces(name):
    """The bytes of a name of SentencePiece, in which `▁` is a space and `<0x0A>` a byte."""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", name)
    return bytes.fromhex(byte[1]) if byte else name.replace("▁", " ").encode()


SPELLED = {"Ġ": _from_letters, "▁": _from_pieces}     # by the letter that is a space before words


def read_vocabulary(path, d_vocab, start=None):
    """The `Vocabulary` of `d_vocab` tokens in a JSON file; without names where `path` is None.

    The file is a list of names; GPT-2's `vocab.json`, {name: id}; or a `tokenizer.json`, which
    encodes text too where the package tokenizers is installed. It may name fewer tokens than
    the model has, never more. Files come from strangers: FileError on anything else.
    """
    if path is None:
        return Vocabulary([None] * d_vocab, start)
    content, names = files.read_json(path), [None] * d_vocab
    expect = files.expecting(f"{str(path)!r} must name the {d_vocab} tokens of a model")
    try:
        pairs = _pairs(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        expect(False, "neither a list of names, nor a vocab.json, nor a tokenizer.json")
    for id, name in pairs:
        expect(isinstance(name, str) and type(id) is int, f"{name!r}: {id!r}"[:80])
        expect(0 <= id < d_vocab, f"the id {str(id)[:40]} for {name[:40]!r}")
        expect(names[id] in (None, name), f"the id {id} for {names[id]!r:.40} and {name!r:.40}")
        names[id] = name
    with_text = isinstance(content, dict) and isinstance(content.get("model"), dict)
    return Vocabulary(names, start, _encoder(content, names, expect) if with_text else None)


def _pairs(content):
    """(id, name) of every token in the JSON of a file; some error if it is of another form."""
    if isinstance(content, list):
        return list(enumerate(content))
    if not isinstance(content.get("model"), dict):           # a name may be "model"
        return [(id, name) for name, id in content.items()]
    tokens = content["model"]["vocab"]            # Unigram has [name, logarithm], others {name: id}
    tokens = tokens if isinstance(tokens, dict) else [name for name, _ in tokens]
    return _pairs(tokens) + [(token["id"], token["content"]) for token in content["added_tokens"]]


def _encoder(content, names, expect):
    """The tokenizer that the JSON of a file is; None without its package."""
    if tokenizers is None:
        return None
    whole = content | {"truncation": None, "padding": None}       # which would change a text
    with _strangers_code(expect):
        encoder = tokenizers.Tokenizer.from_str(json.dumps(whole))
    expect(all(encoder.id_to_token(id) == name for id, name in enumerate(names) if name),
           "a tokenizer that gives its tokens other ids")
    return encoder


@contextlib.contextmanager
def _strangers_code(expect):
    """What the package tokenizers raises, as FileError: plain Exceptions, and panics of Rust."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:                # such a panic is no Exception
        expect(False, repr(str(error))[:100])
