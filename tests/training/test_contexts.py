"""Any text in contexts: nothing lost, nothing twice, each with its name."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicircuits as mc
from minicircuits.notation import InputError
from minicircuits.training import contexts as module
from minicircuits.training.bigrams import count_bigrams
from minicircuits.training.contexts import contexts_of
from minicircuits.training.text import contexts_for, load_text, read_named
from minicircuits.training.tokenizer import train_tokenizer

BYTE = train_tokenizer(b"", 257)                     # ids are bytes; START is 256


class WithoutStart:
    d_vocab, start = 256, None

    def encode(self, text):
        return np.frombuffer(text, np.uint8).astype(np.int32)


@given(texts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), n_ctx=st.integers(2, 200),
       tokenizer=st.sampled_from([BYTE, WithoutStart()]))
def test_contexts_are_the_texts_from_their_beginnings(texts, n_ctx, tokenizer):
    named = [(f"{n}.txt", text) for n, text in enumerate(texts)]
    if not any(texts):
        with pytest.raises(InputError, match="at least one token"):
            contexts_of(named, tokenizer, n_ctx)
        return
    found = contexts_of(named, tokenizer, n_ctx)
    read = {name: b"" for name, _ in named}
    for context, name in zip(found.tokens, found.names, strict=True):
        if tokenizer.start is not None:
            assert context[0] == tokenizer.start
            context = context[1:]
        name, _, place = name.partition(", from token ")
        assert int(place or 0) == len(read[name])
        read[name] += bytes(context.astype(np.uint8))
    assert [*read.values()] == texts
    assert max(map(len, found.tokens)) <= min(n_ctx, 128)
    assert found.probabilities.sum() == pytest.approx(1) and found.probabilities.min() > 0
    assert np.array_equal(found.counts, sum(
        (count_bigrams(context, tokenizer.d_vocab) for context in found.tokens
         if len(context) > 1), start=np.zeros_like(found.counts)))


def test_by_hand():
    found = contexts_of([("a", b"abcde"), ("b", b"xy")], BYTE, 3)
    assert [context.tolist() for context in found.tokens] == [
        [256, *b"ab"], [256, *b"cd"], [256, *b"e"], [256, *b"xy"]]
    assert found.names == ["a, from token 0", "a, from token 2", "a, from token 4", "b"]
    assert found.notes == [] and not found.held_out and found.baselines == {}


def test_what_is_cut_is_said(monkeypatch):
    monkeypatch.setattr(module, "LOGITS", 20 * 257 * 4)
    monkeypatch.setattr(module, "COUNTED", 256)
    found = contexts_of([("a", b"abc" * 30 + b"\xff")], BYTE, 4)
    assert len(found.tokens) == len(found.names) == 20 and found.counts is None
    assert found.probabilities[0xff] == 2 / (91 + 257)       # also of what is not kept
    assert found.notes == ["Bytes of a make no UTF-8: they are shown as numbers, such as \\xe9.",
                           "The first 20 of 31 contexts are kept and measured."]
    for n_ctx, can in (None, "any number"), (1024, "1,024"):
        assert contexts_of([("a", b"a")], BYTE, n_ctx).notes == [
            f"A context is 128 tokens here; this model can take {can}."]


def test_a_long_text_is_read_as_far_as_there_is_time(monkeypatch):
    monkeypatch.setattr(module, "READ", 5_000_000)
    texts = [("a", b"a" * 3_000_000), ("b", b"\xff" * 4_000_000), ("c", b"\xff" * 1_000_000)]
    read, notes = module.first_bytes(texts)
    assert [(name, len(data)) for name, data in read] == [("a", 3_000_000), ("b", 2_000_000)]
    assert notes == ["Bytes of b make no UTF-8: they are shown as numbers, such as \\xe9.",
                     "The first 5 of 8 MB are read."]
    monkeypatch.undo()
    assert module.first_bytes(texts) == (texts, [
        "Bytes of b and of 1 more make no UTF-8: they are shown as numbers, such as \\xe9."])


def test_a_context_has_room_for_a_token():
    with pytest.raises(InputError, match="room for a token"):
        contexts_of([("a", b"a")], BYTE, 1)
    assert contexts_of([("a", b"a")], WithoutStart(), 1).tokens[0].tolist() == [97]


def test_the_text_of_the_training_is_known_by_its_digest(tmp_path):
    data = b"some words, and some more words. " * 20
    (tmp_path / "text").write_bytes(data)
    text = load_text([tmp_path / "text"], BYTE, 8)
    model = SimpleNamespace(tokenizer=BYTE, weights=SimpleNamespace(n_ctx=8),
                            metadata={"text_sha256": text.digest})
    held_out = contexts_for(model, [("text", data)])
    assert held_out.held_out and np.array_equal(held_out.tokens, text.validation)
    assert held_out.baselines == text.baselines
    assert np.array_equal(held_out.counts, text.counts)
    other = contexts_for(model, [("text", data + b"!")])
    assert not other.held_out and other.notes == [
        "This model was trained on another text."]
    model.metadata = {}
    assert contexts_for(model, [("text", data)]).notes == []


def test_names_of_texts(tmp_path, monkeypatch):
    (tmp_path / "f" / "g").mkdir(parents=True)
    (tmp_path / "f" / "g" / "a.txt").write_bytes(b"1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"2")))
    assert read_named([tmp_path / "f", "-", tmp_path / "f" / "g" / "a.txt"]) == [
        ("g/a.txt", b"1"), ("standard input", b"2"), ("a.txt", b"1")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_said_with_the_way_to_convert_it(tmp_path, encoding):
    for name, text in ("o'ne.txt", "\ufeffany text"), ("zh.txt", "\ufeff我和你"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        with pytest.raises(InputError) as error:
            mc.load_text([tmp_path / name])
        assert "must be UTF-8; got UTF-16" in str(error.value)
        assert "iconv -f UTF-16 -t UTF-8" in str(error.value) and "\n" not in str(error.value)
