"""The tokenizer against a slow BPE written from its definition, and the promises it makes."""

import io
from collections import Counter
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicircuits.notation import InputError
from minicircuits.training import tokenizer as module
from minicircuits.training.tokenizer import LONGEST, MAX_VOCAB, PIECE, Tokenizer, train_tokenizer

FRAGMENTS = [b"self", b"re", b"return", b"_name", b"__init__", b" ", b"  ", b"    ", b"\n", b"\r\n",
             b"\t", b"\x0b", b".", b"(", b"):", b"'", b"__", b"_", b"1", b"2026", b"aaaa", b"\0",
             "é→␣\u202e".encode(), "中国中".encode(), b"\xe4\xb8", b"\xff\xfe", b"<START>",
             b"A" * 70, b"-" * 70, b" " * 70]
CODE = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map(b"".join)
BYTES = st.one_of(st.binary(max_size=200), CODE)


@pytest.fixture(scope="module")
def tokenizer():
    with open(module.__file__, "rb") as file:
        return train_tokenizer(file.read(), d_vocab=400)


def join(ids, pair, new):
    """`ids` with every `pair`, from left to right, replaced by `new`."""
    joined = []
    for id in ids:
        if joined and (joined[-1], id) == pair:
            joined[-1] = new
        else:
            joined.append(id)
    return joined


def symbols(text):
    """Bytes as ints, but characters beyond ASCII as str, where UTF-8 has them."""
    for character in text.decode("utf-8", "surrogateescape"):
        if character.isascii() or "\udc80" <= character <= "\udcff":
            yield character.encode("utf-8", "surrogateescape")[0]
        else:
            yield character


def slow_merges(text, d_vocab):
    """BPE by counting everything again before each token, a pair or a character, is made."""
    words = [list(symbols(piece)) for piece in PIECE.findall(text)]
    merges = []

    def make(left, right):
        if (left, right) not in merges:
            merges.append((left, right))
        new = 256 + merges.index((left, right))
        words[:] = [join(word, (left, right), new) for word in words]
        return new

    while len(merges) < d_vocab - 257:
        room = d_vocab - 257 - len(merges)
        pairs = Counter(pair for word in words for pair in zip(word, word[1:])
                        if not any(isinstance(symbol, str) for symbol in pair))
        waiting = Counter(symbol for word in words for symbol in word if isinstance(symbol, str)
                          and len(symbol.encode()) - 1 <= room)
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        character = min(waiting, key=lambda symbol: (-waiting[symbol], symbol), default=None)
        if max(pairs[pair], waiting[character]) < 2:
            break
        if pairs[pair] >= waiting[character]:
            make(*pair)
        else:
            new = reduce(make, character.encode())
            words[:] = [[new if symbol == character else symbol for symbol in word]
                        for word in words]
    return tuple(merges)


def slow_encode(text, merges):
    """BPE by looking, again and again, for the earliest merge that is possible in a piece."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    ids = []
    for piece in PIECE.findall(text):
        word = []
        for symbol in symbols(piece):
            if isinstance(symbol, int):
                word.append(symbol)
            elif symbol.encode() in tokens:
                word.append(tokens.index(symbol.encode()))
            else:
                word += [-1 - byte for byte in symbol.encode()]      # in no merge
        while possible := set(zip(word, word[1:])) & set(merges):
            pair = min(possible, key=merges.index)
            word = join(word, pair, 256 + merges.index(pair))
        ids += [-1 - id if id < 0 else id for id in word]
    return ids


def kind(byte):
    """What a byte is: a law of its own, not the regular expression."""
    if byte in b" \t\r\v\f\n":
        return "space"
    if byte == ord("_") or byte >= 128 or chr(byte).isalpha():
        return "letter"
    return "digit" if chr(byte).isdigit() else "punctuation"


def stays_inside(token):
    """No boundary runs through it: one kind of byte, but for one space in front."""
    return len(set(map(kind, token))) <= 1 or (
        token[:1] == b" " and kind(token[1]) != "space" and len(set(map(kind, token[1:]))) == 1)


CHARACTERS = st.text("ab é中国语言日本ñ😀👍\u0301 \n.", max_size=60)


@given(trained_on=CHARACTERS, text=st.one_of(CHARACTERS, st.text(max_size=40)),
       d_vocab=st.integers(258, 300))
def test_no_token_ends_inside_a_character_that_has_a_token(trained_on, text, d_vocab):
    tokenizer = train_tokenizer(trained_on, d_vocab)
    ids = tokenizer.encode(text)
    assert ids.tolist() == slow_encode(text.encode("utf-8", "surrogatepass"), tokenizer.merges)
    assert tokenizer.decode(ids) == text.encode("utf-8", "surrogatepass")
    for character in set(text):
        if character.encode("utf-8", "surrogatepass") not in tokenizer.tokens:
            text = text.replace(character, "")
    for id in tokenizer.encode(text):
        tokenizer.tokens[id].decode()


@given(text=CHARACTERS, d_vocab=st.integers(258, 300))
def test_every_merge_is_whole_or_a_step_to_a_whole_character(text, d_vocab):
    tokenizer = train_tokenizer(text, d_vocab)
    whole = {token for token in tokenizer.tokens if is_utf8(token)}
    for token in tokenizer.tokens[256:]:
        assert token in whole or any(
            other.startswith(token) and len(other.decode()) == 1 for other in whole)


def is_utf8(token):
    try:
        return bool(token.decode()) or not token
    except UnicodeDecodeError:
        return False


@given(text=BYTES)
def test_no_piece_ends_inside_a_character(text):
    pieces = [piece.decode("utf-8", "surrogateescape") for piece in PIECE.findall(text)]
    assert "".join(pieces) == text.decode("utf-8", "surrogateescape")


def test_characters_by_hand():
    """中, é and 😀 occur 4, 3 and 2 times: 2, 1 and 3 merges, and no room for the last."""
    text = "中 中é.中é.中é😀😀"
    tokenizer = train_tokenizer(text, 257 + 5)
    zhong, e = "中".encode(), "é".encode()
    assert tokenizer.tokens[256:-1] == (zhong[:2], zhong, e, zhong + e)
    assert [tokenizer.show(id) for id in tokenizer.encode("中é国中")] == [
        "中é", *(rf"\x{byte:02x}" for byte in "国".encode()), "中"]
    assert train_tokenizer(text, 257 + 9).tokens[-2] == "😀".encode()


def test_merges_from_elsewhere_do_not_cut_characters_either():
    """One that ends inside é, one from é to ñ, and é itself, last: only é is ever made."""
    e, n = "é".encode(), "ñ".encode()
    tokenizer = Tokenizer.from_merges(np.array([[ord("a"), e[0]], [e[1], n[0]], [*e]]))
    assert tokenizer.encode("aéñ").tolist() == [ord("a"), 258, *n]
    assert tokenizer.encode(b"a" + e[:1]).tolist() == [256]         # where there is no character


@given(trained_on=BYTES, text=BYTES)
def test_any_bytes_come_back(trained_on, text):
    tokenizer = train_tokenizer(trained_on, d_vocab=300)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.dtype == np.int32 and ids.shape == (len(ids),)
    assert tokenizer.start not in ids


@given(text=CODE, more=CODE)
def test_training_is_the_slow_bpe(text, more):
    merges = slow_merges(text, 280)
    tokenizer = train_tokenizer(text, 280)
    assert tokenizer.merges == merges
    assert tokenizer.encode(text + more).tolist() == slow_encode(text + more, merges)


@given(text=CODE)
def test_pieces_and_tokens_stay_inside_the_boundaries(text):
    pieces = PIECE.findall(text)
    assert b"".join(pieces) == text
    assert all(len(piece) <= LONGEST and stays_inside(piece) for piece in pieces)
    assert all(stays_inside(token) for token in train_tokenizer(text, 300).tokens)


@pytest.mark.parametrize("text, pieces", [
    ("def __init__(self, x_old=12345):", "def| __init__|(|self|,| x|_old|=|123|45|):"),
    ("if a:\n        return\n\n\n    else", "if| a|:|\n        |return|\n\n\n    |else"),
    ("x  \n \n\ty\r\n z", "x|  \n \n\t|y|\r\n |z"),
    ("a   b\t\tc  ", "a|  | b|\t\t|c|  "),
    ("it's _ = ___", "it|'|s| _| =| ___"),
    ("open(path, 'rb')", "open|(|path|,| '|rb|')"),
    ("x" + 20 * " " + "\n    y", "x|" + 20 * " " + "|\n    |y"),
])
def test_pieces(text, pieces):
    assert "|".join(piece.decode() for piece in PIECE.findall(text.encode())) == pieces


def test_a_text_cannot_write_start(tokenizer):
    for text in "<START>", tokenizer.show(tokenizer.start), b"<START>":
        assert tokenizer.start not in tokenizer.encode(text)


def test_ids(tokenizer):
    assert tokenizer.d_vocab == len(tokenizer.tokens) == 400 == len(tokenizer.merges) + 257
    assert tokenizer.start == 399 and tokenizer.tokens[399] == b""
    assert tokenizer.tokens[:256] == tuple(bytes([byte]) for byte in range(256))
    for id, (left, right) in enumerate(tokenizer.merges, 256):
        assert tokenizer.tokens[id] == tokenizer.tokens[left] + tokenizer.tokens[right]


def test_str_is_its_utf8(tokenizer):
    assert np.array_equal(tokenizer.encode("é → ␣"), tokenizer.encode("é → ␣".encode()))
    assert tokenizer.decode(tokenizer.encode("\udcff")) == b"\xed\xb3\xbf"


def test_decode_leaves_start_out(tokenizer):
    assert tokenizer.decode([tokenizer.start, ord("a"), tokenizer.start, ord("b")]) == b"ab"
    assert tokenizer.decode([]) == b""


def test_equal_counts_and_overlaps_by_hand():
    # pieces |aaa| bcd| aaa| bcd|: (a, a) occurs 4 times, then (" ", b), (b, c), (c, d), (aa, a)
    # twice each, then (" b", c), (c, d) and (aa, a), and " b" is 257
    a, b, c, d, space = b"abcd "
    assert train_tokenizer("aaa bcd aaa bcd", 261).merges == ((a, a), (space, b), (c, d), (256, a))
    assert slow_merges(b"aaa bcd aaa bcd", 261) == ((a, a), (space, b), (c, d), (256, a))


def test_few_repetitions_make_a_small_vocabulary():
    assert train_tokenizer(b"", 1024).d_vocab == 257
    assert train_tokenizer(b"abcdefgh", 1024).d_vocab == 257
    assert train_tokenizer(b"ab.ab", 1024).merges == ((97, 98),)


@pytest.mark.parametrize("token, shown", [
    (b" the", "␣the"), (b"\n\n    ", r"\n\n␣␣␣␣"), (b"\r\t\x00\x1b", r"\r\t\x00\x1b"),
    (b"\xe2", r"\xe2"), ("é".encode(), "é"), ("\u202e".encode(), r"\u202e"),
    ("\u200b\xa0".encode(), r"\u200b\xa0"), (b"'\\", "'\\"),
])
def test_show(token, shown):
    merges = [[token[0], token[1]]] if len(token) > 1 else []
    merges += [[255 + k, byte] for k, byte in enumerate(token[2:], 1)]
    tokenizer = Tokenizer.from_merges(np.array(merges, int).reshape(-1, 2))
    assert tokenizer.show(tokenizer.tokens.index(token)) == shown
    assert tokenizer.show(tokenizer.start) == "<START>"


def test_every_token_is_shown_in_one_visible_line(tokenizer):
    shown = [tokenizer.show(id) for id in range(tokenizer.d_vocab)]
    assert all(text.isprintable() and text and " " not in text for text in shown)
    assert len(set(shown)) == tokenizer.d_vocab


def test_arrays_come_back(tokenizer):
    file = io.BytesIO()
    np.savez(file, merges=tokenizer.to_array())
    file.seek(0)
    again = Tokenizer.from_merges(np.load(file, allow_pickle=False)["merges"])
    assert again == tokenizer and again.tokens == tokenizer.tokens
    empty = train_tokenizer(b"")
    assert empty.to_array().shape == (0, 2)
    assert Tokenizer.from_merges(empty.to_array()) == empty


DOUBLING = np.array([[97, 97]] + [[256 + k, 256 + k] for k in range(700)])


@pytest.mark.parametrize("merges, message", [
    (np.int32(3), "axes (merge, 2)"),
    (np.zeros(4, int), "axes (merge, 2)"),
    (np.zeros((3, 3), int), "axes (merge, 2)"),
    (np.zeros((3, 2)), "float64 (3, 2)"),
    (np.zeros((3, 2), bool), "bool (3, 2)"),
    (np.zeros((MAX_VOCAB - 256, 2), int), "at most 65279"),
    (np.array([[97, 256]]), "merge 0 must join ids from 0 to 255; got [97, 256]"),
    (np.array([[97, 98], [-1, 3]]), "merge 1 must join ids from 0 to 256; got [-1, 3]"),
    (np.array([[97, 2**64 - 1]], np.uint64), "merge 0"),
    (DOUBLING, "merge 7 makes 256"),
])
def test_corrupt_merges_are_refused(merges, message):
    with pytest.raises(InputError) as error:
        Tokenizer.from_merges(merges)
    assert message in str(error.value) and "\n" not in str(error.value)


@given(merges=st.lists(st.tuples(st.integers(-1, 262), st.integers(-1, 262)), max_size=6),
       text=BYTES)
def test_merges_from_a_stranger_are_refused_or_lossless(merges, text):
    try:
        tokenizer = Tokenizer.from_merges(np.array(merges, int).reshape(-1, 2))
    except InputError:
        assert any(not 0 <= id < 256 + k for k, pair in enumerate(merges) for id in pair)
    else:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_largest_vocabulary_is_lossless():
    pairs = np.indices((256, 256)).reshape(2, -1).T[:MAX_VOCAB - 257]
    tokenizer = Tokenizer.from_merges(pairs)          # ids up to 65535, surrogates among them
    text = bytes(range(256)) * 3
    ids = tokenizer.encode(text)
    assert tokenizer.d_vocab == MAX_VOCAB and ids.max() > 0xdc00
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("call, message", [
    (lambda t: train_tokenizer(b"ab", 256), "d_vocab must be from 257"),
    (lambda t: train_tokenizer(b"ab", MAX_VOCAB + 1), "got 65537"),
    (lambda t: train_tokenizer(["ab"]), "a text must be bytes or str; got list"),
    (lambda t: t.encode(None), "got NoneType"),
    (lambda t: t.decode([400]), "ids must be from 0 to 399; got 400 to 400"),
    (lambda t: t.decode([3, -1]), "got -1 to 3"),
    (lambda t: t.decode([1.0]), "float64 (1,)"),
    (lambda t: t.decode([[1, 2]]), "axes (i,)"),
    (lambda t: t.decode(3), "axes (i,)"),
    (lambda t: t.show(400), "0 to 399"),
    (lambda t: t.show(-1), "0 to 399"),
])
def test_bad_input_gets_one_line(tokenizer, call, message):
    with pytest.raises(InputError) as error:
        call(tokenizer)
    assert message in str(error.value) and "\n" not in str(error.value)
