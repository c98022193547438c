"""Foreign names of tokens: as they were spelled, as bytes, as shown, and with no names at all."""

import importlib.util
import json
import random

import numpy as np
import pytest

from minicircuits import files
from minicircuits.files import FileError, disk
from minicircuits.notation import InputError
from minicircuits.training import vocabulary as vocabulary_module
from minicircuits.training.tokenizer import train_tokenizer
from minicircuits.training.vocabulary import BYTE, Vocabulary, read_vocabulary
from tests.test_files import mutated

extra = pytest.mark.extra
package = (importlib.import_module("tokenizers") if importlib.util.find_spec("tokenizers")
           else None)
GPT2 = {"<|endoftext|>": 5, "Ġthe": 0, "the": 1, "Ċ": 2, "âĢ": 3, "Ļ": 4, "17": 7}


def written(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_gpt2s_letters_are_its_own_table():
    """Written out as OpenAI's `bytes_to_unicode` has it."""
    bs = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1),
          *range(ord("®"), ord("ÿ") + 1)]
    cs, n = bs[:], 0
    for b in range(256):
        if b not in bs:
            bs.append(b)
            cs.append(256 + n)
            n += 1
    assert BYTE == dict(zip(map(chr, cs), bs))


def test_a_vocabulary_of_gpt2(tmp_path):
    vocabulary = read_vocabulary(written(tmp_path / "vocab.json", GPT2), 9)
    assert [vocabulary.show(id) for id in range(9)] == [
        "␣the", "the", r"\n", r"\xe2\x80", r"\x99", "<|endoftext|>", "#6", "17", "#8"]
    assert vocabulary.start == 5 and vocabulary.d_vocab == 9
    encoded = vocabulary.encode("the\nĠthe ␣the  Ċ \\n #8 17 #17".removesuffix(" #17"))
    assert encoded.dtype == np.int32 and encoded.tolist() == [1, 0, 0, 2, 2, 8, 7]
    assert vocabulary.decode([5, 1, 0, 3, 4, 2]) == "the the’\n".encode()
    assert vocabulary.encode("").shape == (0,)
    with pytest.raises(InputError, match="names of tokens or ids up to #8, .*; got '#9'$"):
        vocabulary.encode("#9")


@pytest.mark.parametrize("names, shown, bytes", [
    (["the", "cat", "<s>"], ["the", "cat", "<s>"], b" the cat"),
    ([" the", "\n", "<s>"], ["␣the", r"\n", "<s>"], b" the\n"),
    (["▁the", "<0x0A>", "<s>"], ["␣the", r"\n", "<s>"], b" the\n"),
    (["Ġthe", "é", "<s>"], ["␣the", r"\xe9", "<s>"], b" the\xe9"),
    (["Ġ", " é", "<s>"], ["␣", "␣é", "<s>"], "  é".encode()),
    (["", None, "<s>"], ["#0", "#1", "<s>"], b" #0 #1"),
    (["#2", "#0", "<s>"], ["#2", "#0", "<s>"], b" #2 #0"),
    (["▁the", "Ġ", "<s>", "▁cat"], ["␣the", "Ġ", "<s>"], " theĠ".encode()),
    (["Ġthe", "▁", "<s>", "Ġcat"], ["␣the", "▁", "<s>"], " the▁".encode())])
def test_spellings(names, shown, bytes):
    vocabulary = Vocabulary(names)
    assert [vocabulary.show(id) for id in range(3)] == shown and vocabulary.start == 2
    assert vocabulary.decode([2, 0, 1]) == bytes
    assert vocabulary.encode(" ".join(shown)).tolist() == [0, 1, 2]
    assert Vocabulary([*names, *names]).encode(shown[0]).tolist() == [0]      # the first of equals


def test_tokens_without_names():
    vocabulary = read_vocabulary(None, 50)
    assert vocabulary.start is None and vocabulary.show(17) == "#17"
    assert vocabulary.encode(b"#17 3\n49").tolist() == [17, 3, 49]
    assert vocabulary.decode([17, 3]) == b" #17 #3"
    for text in ("the", "50", "-1", "1.5", "# 1"):
        with pytest.raises(InputError, match="must be ids up to #49, with spaces between"):
            vocabulary.encode(text)


def test_ids_are_those_of_the_vocabulary_as_in_a_tokenizer():
    vocabulary, tokenizer = Vocabulary([None] * 257), train_tokenizer(b"", 257)
    for ids in ([257], [-1], [[0]], [0.5]):
        messages = []
        for names in vocabulary, tokenizer:
            with pytest.raises(InputError) as caught:
                names.decode(ids)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
    with pytest.raises(InputError, match="ids must be from 0 to 256; got 257"):
        vocabulary.show(257)


@pytest.mark.parametrize("start, id", [
    (None, 5), ("none", None), (3, 3), ("3", 3), ("#3", 3), ("the", 1), ("␣the", 0), ("#8", 8)])
def test_the_start_token(start, id):
    names = [*map({id: name for name, id in GPT2.items()}.get, range(9))]
    assert Vocabulary(names, start).start == id


def test_a_start_token_that_is_not_there():
    for start in ("#9", "9", 9, -1, "<s>"):
        with pytest.raises(InputError, match="start must be a token's name, an id up to 8, or"):
            Vocabulary([None] * 9, start)
    with pytest.raises(InputError, match="each a text or None"):
        Vocabulary([b"the"])


TOKENIZER = {"version": "1.0", "added_tokens": [{"id": 4, "content": "<s>"}],
             "model": {"type": "BPE", "vocab": {"a": 0, "Ġb": 1, "c": 2}, "merges": []}}


@pytest.mark.parametrize("model", [
    TOKENIZER["model"], {"type": "Unigram", "vocab": [["a", -1.5], ["Ġb", -2], ["c", 0]]}])
def test_names_of_a_tokenizer(tmp_path, monkeypatch, model):
    monkeypatch.setattr(vocabulary_module, "tokenizers", None)
    path = written(tmp_path / "tokenizer.json", TOKENIZER | {"model": model})
    vocabulary = read_vocabulary(path, 6)
    assert [vocabulary.show(id) for id in range(6)] == ["a", "␣b", "c", "#3", "<s>", "#5"]
    assert vocabulary.start == 4 and vocabulary.encode("a Ġb").tolist() == [0, 1]
    with pytest.raises(InputError, match="needs a tokenizer.json and the package tokenizers"):
        vocabulary.encode("a b")


@pytest.mark.parametrize("content, message", [
    (["a", "b", "c", "d"], "the id 3 for 'd'"), ({"a": 3}, "the id 3 for 'a'"),
    ({"a": -1}, "the id -1"), ({"a": 1, "b": 1}, "the id 1 for 'a' and 'b'"),
    ({"a": True}, "'a': True"), ({"a": 1.0}, "'a': 1.0"), ([1], "1: 0"), (["a", None], "None: 1"),
    ({"a": "b"}, "'a': 'b'"), ("a", "neither"), (7, "neither"), (None, "neither"),
    ({"model": {}}, "neither"), ({"model": {"vocab": 3}}, "neither"),
    ({"model": {"vocab": [["a"]]}}, "neither"), ({"model": {"vocab": {}}}, "neither"),
    ({"model": {"vocab": {}}, "added_tokens": [{"id": 1}]}, "neither"),
    ({"model": {"vocab": {}}, "added_tokens": [{"id": [], "content": {}}]}, r"\{\}: \[\]")])
def test_files_that_name_no_tokens(tmp_path, content, message):
    with pytest.raises(FileError, match=f"must name the 3 tokens of a model; got .*{message}"):
        read_vocabulary(written(tmp_path / "names.json", content), 3)


def test_only_file_error_escapes(monkeypatch):
    rng, taken = random.Random(0), 0
    whole = [json.dumps(content).encode() for content in (GPT2, TOKENIZER, ["a", "Ġb"])]
    for _ in range(3000):
        data = mutated(rng, rng.choice(whole))
        for module in (files, disk):
            monkeypatch.setattr(module, "read_bytes", lambda path, largest=None: data)
        try:
            vocabulary = read_vocabulary("names.json", 9)
            assert all(map(vocabulary.show, range(9)))
            taken += 1
        except FileError as error:
            assert len(str(error).splitlines()) == 1
    assert 100 < taken < 2000


def trained():
    """A small byte-level tokenizer."""
    tokenizer = package.Tokenizer(package.models.BPE())
    tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 5, package.trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


@extra
def test_text_is_encoded_by_the_tokenizer_itself(tmp_path):
    tokenizer = trained()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = read_vocabulary(tmp_path / "tokenizer.json", tokenizer.get_vocab_size() + 3)
    text = "the cat é 中 <|endoftext|>\n"
    assert vocabulary.encode(text.encode()).tolist() == tokenizer.encode(text).ids
    assert vocabulary.start == 0
    assert vocabulary.decode(vocabulary.encode(text)) == "the cat é 中 \n".encode()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=90)
    tokenizer.save(str(tmp_path / "tokenizer.json"))          # says so in the file
    uncut = read_vocabulary(tmp_path / "tokenizer.json", tokenizer.get_vocab_size())
    assert uncut.encode(text).tolist() == vocabulary.encode(text).tolist()
    with pytest.raises(InputError, match="one that cuts or fills them up"):
        Vocabulary(["a"], encoder=tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.add_tokens(["dog"])
    with pytest.raises(InputError, match="ids must be from 0 to"):
        Vocabulary(["a"], encoder=tokenizer).encode("the dog")
    assert vocabulary.encode("\udc80").size and vocabulary.encode("").shape == (0,)


@extra
@pytest.mark.parametrize("change, message", [
    (lambda content: content["model"].update(type="None"), "did not match"),
    (lambda content: content["model"].pop("merges"), "Missing"),
    (lambda content: content.update(normalizer={"type": "Precompiled", "precompiled_charsmap": 1}),
     "Precompiled"),                                                # a panic
    (lambda content: content["added_tokens"][0].update(id=290, content="<s>"), "other ids")])
def test_a_tokenizer_that_is_none(tmp_path, change, message):
    content = json.loads(trained().to_str())
    change(content)
    path = written(tmp_path / "tokenizer.json", content)
    with pytest.raises(FileError, match=message):
        read_vocabulary(path, 300)
