"""Bytes to tokens and back: byte-level BPE whose tokens can be read in a table.

Byte-pair encoding (Gage 1994; Sennrich et al. 2016) begins with the 256 bytes. Again and again
it joins the pair of neighbors that occurs most often. Here pairs are joined inside a *piece*
only: a word with the one space before it, up to three digits, a run of punctuation, or the end
of a line with the indentation of the next. So ` self`, `_name` and `\\n        ` can be tokens;
`self.` and `if not` cannot.

Every string of bytes comes back as it was, since nothing is normalized. No text gives START.
"""

import heapq
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from minicircuits.notation import InputError

# Bytes from 0x80 (UTF-8 beyond ASCII) count as letters. The bounds on lengths keep any text,
# however strange, in linear time: no piece is longer than LONGEST.
PIECE = re.compile(rb"""
    \ ?_{,2}[A-Za-z\x80-\xff]{1,32}(?:__)?     # a word, or snake, _case and __init__
  | \ ?[0-9]{1,3}
  | \ ?_{1,16}
  | \ ?[^\sA-Za-z0-9_\x80-\xff]{1,16}          # punctuation and control characters
  | \s{,16}\n[ \t]{,32}                        # ends of lines, then indentation
  | [^\S\n]{1,32}(?=\ \S) | [^\S\n]{1,32}      # other space, less the one that a word takes
""", re.VERBOSE)
LONGEST = 64
MAX_VOCAB = 2**16


@dataclass(frozen=True)
class Tokenizer:
    """The tokens, and the merges that made them; `from_merges` and `train_tokenizer` build it.

    tokens : tuple of bytes, index = id. Ids 0 to 255 are the bytes, 256 + k is merge k, and the
             last is START, which stands for no bytes.
    merges : tuple of pairs of ids, in the order in which they are applied
    """

    tokens: tuple = field(repr=False)
    merges: tuple = field(repr=False)
    reads_text = True                     # `encode` takes any text

    @classmethod
    def from_merges(cls, merges):
        """The tokenizer with these merges, integers (merge, 2). They may come from a stranger.

        Raises InputError unless every merge joins two tokens made before it, into one of at
        most LONGEST bytes. Does not ask whether the merges are useful, or all different.
        """
        merges = np.asarray(merges)
        if (merges.shape[1:] != (2,) or merges.dtype.kind not in "iu"
                or len(merges) > MAX_VOCAB - 257):
            raise InputError(f"merges must be integers with axes (merge, 2), at most "
                             f"{MAX_VOCAB - 257} merges; got {merges.dtype} {merges.shape}")
        tokens = [bytes([byte]) for byte in range(256)]
        for pair in merges.tolist():
            if min(pair) < 0 or max(pair) >= len(tokens):
                raise InputError(f"merge {len(tokens) - 256} must join ids from 0 to "
                                 f"{len(tokens) - 1}; got {pair}")
            tokens.append(tokens[pair[0]] + tokens[pair[1]])
            if len(tokens[-1]) > LONGEST:
                raise InputError(f"a token must have at most {LONGEST} bytes; merge "
                                 f"{len(tokens) - 257} makes {len(tokens[-1])}")
        return cls((*tokens, b""), tuple(map(tuple, merges.tolist())))

    def to_array(self):
        """The merges, int32 (merge, 2): all that `from_merges` needs to make this tokenizer."""
        return np.array(self.merges, np.int32).reshape(-1, 2)

    @property
    def d_vocab(self):
        return len(self.tokens)

    @property
    def start(self):
        """The id of START."""
        return len(self.tokens) - 1

    def encode(self, text):
        """The ids of a text, int32 (i,). A str counts as its UTF-8. START is not put before it.

        Every different piece is encoded once. Meanwhile an id is a character, a piece is a
        string, and a merge is `str.replace`. A merge makes possible only merges that come
        after it, so each of them has to be made once only, in order.
        """
        pieces = _pieces(text)
        between = chr(self.start)
        different = dict.fromkeys(pieces)
        encoded = between.join(piece.decode("latin-1") for piece in different)
        for new, (left, right) in enumerate(self.merges, 256):
            encoded = encoded.replace(chr(left) + chr(right), chr(new))
        ids = dict(zip(different, encoded.split(between)))
        characters = "".join(map(ids.__getitem__, pieces)).encode("utf-32-le", "surrogatepass")
        return np.frombuffer(characters, "<u4").astype(np.int32)

    def decode(self, ids):
        """The bytes that ids (i,) stand for; START stands for none. InputError on other ids."""
        return b"".join(self.tokens[id] for id in check_ids(ids, self.d_vocab).tolist())

    def show(self, id):
        r"""Token `id` in one line of visible characters: `␣the`, `\n␣␣␣␣`, `\xe2`, `<START>`."""
        return "<START>" if id == self.start else visible(self.decode([id]))


def train_tokenizer(text, d_vocab=1024):
    """The `Tokenizer` of `d_vocab` tokens (bytes and START included) that BPE learns from `text`.

    Among pairs that occur equally often, the one with the smaller ids is joined first. Where
    the text runs out of pairs that occur twice, the vocabulary stays smaller than asked for.
    Raises InputError unless 257 <= d_vocab <= MAX_VOCAB.

    >>> tokenizer = train_tokenizer("low lower lowest", d_vocab=260)
    >>> [tokenizer.show(id) for id in tokenizer.encode("low lowest")]
    ['low', '␣low', 'e', 's', 't']
    >>> tokenizer.decode(tokenizer.encode("low lowest"))
    b'low lowest'
    """
    if not 257 <= d_vocab <= MAX_VOCAB:
        raise InputError(f"d_vocab must be from 257 (256 bytes and <START>) to {MAX_VOCAB}; got "
                         f"{d_vocab}")
    pieces = Counter(_pieces(text))
    words = [piece.decode("latin-1") for piece in pieces]        # strings of ids, as in `encode`
    counts = list(pieces.values())
    pairs = defaultdict(int)              # pair -> how often it occurs
    where = defaultdict(set)              # pair -> the words that have it, or once had it
    for word, (characters, count) in enumerate(zip(words, counts)):
        for pair in zip(characters, characters[1:]):
            pairs[pair] += count
            where[pair].add(word)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < d_vocab - 257:
        count, pair = heapq.heappop(heap)
        if -count != pairs[pair]:         # it has become rarer since; pairs never become more
            heapq.heappush(heap, (-pairs[pair], pair))
            continue
        if -count < 2:
            break
        new = chr(256 + len(merges))
        merges.append([ord(character) for character in pair])
        made = set()
        for word in where.pop(pair):
            before = words[word]
            words[word] = after = before.replace("".join(pair), new)
            for old in zip(before, before[1:]):
                pairs[old] -= counts[word]
            for fresh in zip(after, after[1:]):
                pairs[fresh] += counts[word]
                if new in fresh:
                    where[fresh].add(word)
                    made.add(fresh)
        for fresh in made:
            heapq.heappush(heap, (-pairs[fresh], fresh))
    return Tokenizer.from_merges(np.array(merges, np.int32).reshape(-1, 2))


def check_ids(ids, d_vocab):
    """`ids` as an array (i,) of integers from 0 to d_vocab − 1, or InputError."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.size and ids.dtype.kind not in "iu":
        raise InputError(f"ids must be integers with axes (i,); got {ids.dtype} {ids.shape}")
    if ids.size and not 0 <= ids.min() <= ids.max() < d_vocab:
        raise InputError(f"ids must be from 0 to {d_vocab - 1}; got {ids.min()} to {ids.max()}")
    return ids


def visible(data):
    r"""Bytes in one line of visible characters, with `␣` for a space.

    Escaped are bytes that are no UTF-8, and all that Unicode does not call printable:
    control characters, zero-width and bidirectional marks. Distinct tokens may look alike.
    """
    text = data.decode("utf-8", "backslashreplace").replace(" ", "␣")
    return "".join(character if character.isprintable()
                   else character.encode("unicode_escape").decode() for character in text)


def _pieces(text):
    """The text cut where no merge may cross, as a list of bytes that together are the text."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes):
        raise InputError(f"a text must be bytes or str; got {type(text).__name__}")
    return PIECE.findall(text)
