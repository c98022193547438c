"""Bytes to tokens and back: byte-level BPE whose tokens can be read in a table.

Byte-pair encoding (Gage 1994; Sennrich et al. 2016) begins with the 256 bytes. Again and again
it joins the pair of neighbors that occurs most often. Here pairs are joined inside a *piece*
only: a word with the one space before it, up to three digits, a run of punctuation, or the end
of a line with the indentation of the next. So ` self`, `_name` and `\\n        ` can be tokens;
`self.` and `if not` cannot.

A character beyond ASCII is two to four bytes, which UTF-8 tells from any other bytes. It is one
token from the start where it has one, and its bytes stand alone where it has none. So no token
ends inside a character unless it is a single byte of it.

Every string of bytes comes back as it was, since nothing is normalized. No text gives START.
"""

import heapq
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add

import numpy as np

from minicircuits.notation import InputError

BEYOND_ASCII = r"""(?: [\xc2-\xdf][\x80-\xbf]
    | (?: \xe0[\xa0-\xbf] | [\xe1-\xec\xee\xef][\x80-\xbf] | \xed[\x80-\x9f] ) [\x80-\xbf]
    | (?: \xf0[\x90-\xbf] | [\xf1-\xf3][\x80-\xbf] | \xf4[\x80-\x8f] ) [\x80-\xbf]{2} )"""
CHARACTER = re.compile(BEYOND_ASCII, re.VERBOSE)       # of bytes that are read as Latin-1
# Bytes from 0x80, characters or not, count as letters. The bounds on lengths keep any text,
# however strange, in linear time: no piece is longer than LONGEST.
PIECE = re.compile(rb"""
    \ ?_{,2}(?:[A-Za-z]{1,32}+(?![\x80-\xff])  # a word, or snake, _case and __init__
             |(?:[A-Za-z]|%b|[\x80-\xff]){1,32})(?:__)?
  | \ ?[0-9]{1,3}
  | \ ?_{1,16}
  | \ ?[^\sA-Za-z0-9_\x80-\xff]{1,16}          # punctuation and control characters
  | \s{,16}\n[ \t]{,32}                        # ends of lines, then indentation
  | [^\S\n]{1,32}(?=\ \S) | [^\S\n]{1,32}      # other space, less the one that a word takes
""" % BEYOND_ASCII.encode(), re.VERBOSE)
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00\ufe0e\ufe0f\uffa0"    # printable, unseen
LONGEST = 133         # a space, __, 32 characters of four bytes, __
NAME = 48             # characters of a token's name in a figure
D_VOCAB, MAX_VOCAB = 1024, 2**16          # tokens to learn, by default and at most
ALONE = 2**16         # symbols from here on are no ids, and no merge reads them
AT_ONCE = 4096        # pieces: they stay in the fast memory of a core while merges are made
FIRST, LAST = chr(ALONE), "\U0010ffff"


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
        pieces, ids = _pieces(text), {}
        different = list(dict.fromkeys(pieces))
        for n in range(0, len(different), AT_ONCE):
            some = different[n:n + AT_ONCE]
            ids |= zip(some, self._encoded(some))
        characters = "".join(map(ids.__getitem__, pieces)).encode("utf-32-le", "surrogatepass")
        return (np.frombuffer(characters, "<u4") % ALONE).astype(np.int32)

    def _encoded(self, pieces):
        """The ids of each piece, as a string."""
        between = chr(self.start)
        encoded = between.join(piece.decode("latin-1") for piece in pieces)
        encoded = CHARACTER.sub(self._whole_or_alone, encoded)
        for new, (left, right) in enumerate(self.merges, 256):
            encoded = encoded.replace(chr(left) + chr(right), chr(new))
        return encoded.split(between)

    def _whole_or_alone(self, found):
        return self._characters.get(found[0]) or "".join(
            chr(ALONE + ord(byte)) for byte in found[0])

    @cached_property
    def _characters(self):
        """The characters beyond ASCII that are tokens, bytes read as Latin-1 -> id, as above."""
        tokens = [token.decode("latin-1") for token in self.tokens]
        return {token: chr(id) for id, token in reversed([*enumerate(tokens)])
                if CHARACTER.fullmatch(token)}

    def decode(self, ids):
        """The bytes that ids (i,) stand for; START stands for none. InputError on other ids."""
        return b"".join(self.tokens[id] for id in check_ids(ids, self.d_vocab).tolist())

    def show(self, id):
        r"""Token `id` in one line of visible characters: `␣the`, `\n␣␣␣␣`, `\xe2`, `<START>`."""
        return "<START>" if id == self.start else visible(self.decode([id]))


def train_tokenizer(text, d_vocab=D_VOCAB):
    """The `Tokenizer` of `d_vocab` tokens (bytes and START included) that BPE learns from `text`.

    Among pairs that occur equally often, the one with the smaller ids is joined first. A
    character beyond ASCII is as good as a pair, and comes after those as frequent; it takes as
    many merges as it has bytes, less one, and only then can be joined to others. Where the text
    runs out of what occurs twice, the vocabulary stays smaller than asked for.
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
    characters = _by_frequency(words, counts)[:MAX_VOCAB]
    waiting = {character: chr(ALONE + n) for n, character in enumerate(characters)}
    words = [CHARACTER.sub(lambda found: waiting.get(found[0], LAST), word) for word in words]
    occurs = defaultdict(int)             # what could become a token -> how often it occurs
    where = defaultdict(set)              # and the words that have it, or once had it
    for word, (symbols, count) in enumerate(zip(words, counts)):
        for candidate in _candidates(symbols):
            occurs[candidate] += count
            where[candidate].add(word)
    heap = [(-count, candidate) for candidate, count in occurs.items()]
    heapq.heapify(heap)
    ids = {}                              # pair -> the id that it was joined to

    def put(new, old):
        """Write `new` in the place of `old`, everywhere, and count what that makes possible."""
        made = set()
        for word in where.pop(old, ()):
            before = words[word]
            words[word] = after = before.replace(old, new)
            for candidate in _candidates(before):
                occurs[candidate] -= counts[word]
            for candidate in _candidates(after):
                occurs[candidate] += counts[word]
                if new in candidate:
                    where[candidate].add(word)
                    made.add(candidate)
        for candidate in made:
            heapq.heappush(heap, (-occurs[candidate], candidate))

    def join(left, right):
        """The id of a pair, which is made if need be."""
        if left + right not in ids:
            ids[left + right] = chr(256 + len(ids))
            put(ids[left + right], left + right)
        return ids[left + right]

    while heap and (room := d_vocab - 257 - len(ids)):
        count, candidate = heapq.heappop(heap)
        if -count != occurs[candidate]:   # it has become rarer since; none becomes more frequent
            heapq.heappush(heap, (-occurs[candidate], candidate))
        elif -count < 2:
            break
        elif len(candidate) == 2:
            join(*candidate)
        elif len(character := characters[ord(candidate) - ALONE]) <= room + 1:
            put(reduce(join, character), candidate)
    merges = [list(map(ord, pair)) for pair in ids]
    return Tokenizer.from_merges(np.array(merges, np.int32).reshape(-1, 2))


def _by_frequency(words, counts):
    """The characters beyond ASCII, of bytes read as Latin-1, the most frequent first."""
    often = Counter()
    for word, count in zip(words, counts):
        for character in CHARACTER.findall(word):
            often[character] += count
    return sorted(often, key=lambda character: (-often[character], character))


def _candidates(word):
    """What could become a token: pairs of neighboring ids, and characters that are no id yet."""
    pairs = list(map(add, word, word[1:]))
    if max(word) < FIRST:
        return pairs
    return [pair for pair in pairs if max(pair) < FIRST] + [
        symbol for symbol in word if FIRST <= symbol < LAST]


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

    Escaped are bytes that are no UTF-8, all that Unicode does not call printable (control
    characters, zero-width and bidirectional marks), and blanks. Distinct tokens may look alike.
    """
    return escaped(data.decode("utf-8", "backslashreplace").replace(" ", "␣"))


def escaped(text):
    """The text, on one line, with everything escaped that nobody sees; spaces stay."""
    return "".join(character if character.isprintable() and character not in BLANK
                   else character.encode("unicode_escape").decode() for character in text)


def visible_name(text):
    r"""A token in visible characters, on one line, in their order, at most NAME and a count.

    Tokens come from strangers: none may hide, or turn the line round. Spaces are ␣.

    >>> visible_name("a\0\u202eb \ud800"), visible_name(""), visible_name("x" * 5000)[46:]
    ('a\\x00\\u202eb␣\\ud800', '(empty)', 'xx… (5,000 characters)')
    """
    shown = escaped(text.replace(" ", "␣"))
    if len(shown) > NAME:
        shown = f"{shown[:NAME]}… ({len(text):,} characters)"
    return shown or "(empty)"


def _pieces(text):
    """The text cut where no merge may cross, as a list of bytes that together are the text."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    if not isinstance(text, bytes):
        raise InputError(f"a text must be bytes or str; got {type(text).__name__}")
    return PIECE.findall(text)
