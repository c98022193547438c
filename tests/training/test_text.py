"""What is read and what is left out; what is held out; contexts."""

import os
import sysconfig

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicircuits.notation import InputError
from minicircuits.training.text import (batch, digest, load_text, read_texts, split, spread,
                                        standard_library)

START = 999
STREAM = np.arange(100, dtype=np.int32)     # token = place, so that contexts tell where they are
STREAM.setflags(write=False)


def write(folder, **contents):
    """Files below `folder`; in names, `__` stands for / and a last `_py` for .py."""
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def refused(call, *arguments):
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_standard_library_is_the_source_without_what_does_not_run_it(tmp_path, monkeypatch):
    write(tmp_path, b_py=b"b", a__z_py=b"z", a__y__x_py=b"x", c_py=b"", d_txt=b"d",
          e_py=b"\0", test__a_py=b"1", a__tests__a_py=b"2", a__idle_test__a_py=b"3",
          encodings__a_py=b"4", pydoc_data__a_py=b"5")
    for name in ("_sysconfigdata__linux.py", "config-3.11-linux/run.py", "sitecustomize.py",
                 "site-packages/numpy/a.py", "dist-packages/a.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"6")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": tmp_path}.get)
    assert standard_library() == [b"b", b"z", b"x"]


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_without_a_standard_library_the_reader_is_asked_for_a_text(tmp_path, monkeypatch, folder):
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / folder))
    assert "--text FILE_OR_FOLDER" in refused(standard_library)


def test_the_standard_library_of_this_python():
    texts = standard_library()
    size = sum(map(len, texts))
    assert 5e6 < size < 2e7 and len(texts) > 300
    assert any(b"class ArgumentParser(" in text for text in texts)
    assert not any(b"class Test_TestCase(" in text for text in texts)     # unittest's own tests
    training, validation = split(texts)
    assert len(training) + len(validation) == size


def test_own_files_and_folders(tmp_path):
    write(tmp_path, f__b=b"2", f__a__d=b"4", f__a__c=b"3", f__tests__t_py=b"5", f__binary=b"x\0y",
          f__empty=b"", g=b"7")
    write(tmp_path / "f", **{".git__config": b"user = me", ".hidden": b"8"})
    os.symlink(tmp_path / "nowhere", tmp_path / "f" / "dangling")
    os.symlink(tmp_path / "f", tmp_path / "f" / "circle")
    os.mkfifo(tmp_path / "f" / "pipe")                # reading it would never end
    assert read_texts([tmp_path / "g", str(tmp_path / "f")]) == [b"7", b"2", b"3", b"4", b"5"]


def test_a_dot_in_the_path_that_was_asked_for_is_fine(tmp_path):
    write(tmp_path, **{".notes__a": b"1"})
    assert read_texts([tmp_path / ".notes", tmp_path / ".notes" / "a"]) == [b"1", b"1"]


def test_text_that_is_none(tmp_path):
    write(tmp_path, empty=b"", binary=b"PNG\0", f__binary=b"\0", g=b"text")
    for name, came in [("empty", "must be text; got nothing but empty or binary files"),
                       ("binary", "must be text"), ("f", "must be text"),
                       ("missing", "no such file")]:
        message = refused(read_texts, [tmp_path / "g", tmp_path / name])
        assert came in message and repr(str(tmp_path / name)) in message


TEXTS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=60)


@given(texts=TEXTS, data=st.data())
def test_digest_is_of_the_set_of_texts(texts, data):
    assert digest(texts) == digest(data.draw(st.permutations(texts)))
    assert len(digest(texts)) == 64
    assert digest(texts) != digest([*texts, b"more"])


def test_digest_sees_where_a_text_ends():
    assert len({digest([b"ab", b"c"]), digest([b"a", b"bc"]), digest([b"abc"]), digest([])}) == 4


@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=60), data=st.data())
def test_whole_texts_are_held_out_but_for_one(lengths, data):
    texts = [bytes([k]) * length for k, length in enumerate(lengths)]
    training, validation = split(texts)
    assert (training, validation) == split(data.draw(st.permutations(texts)))
    assert len(validation) == round(0.05 * sum(lengths))
    sides = [(training.count(k), validation.count(k)) for k in range(len(texts))]
    assert [sum(side) for side in sides] == lengths
    assert sum(all(side) for side in sides) <= 1


def test_a_single_text_is_held_out_by_its_end():
    text = bytes(range(200))
    assert split([text]) == (text[:190], text[190:])
    assert split([]) == (b"", b"")


def test_what_is_held_out_is_not_what_comes_last():
    held_out = {split([bytes([k]) * 10 for k in range(start, start + 40)])[1][-1] - start
                for start in range(0, 200, 40)}
    assert len(held_out) > 1


@given(n=st.integers(1, 7), n_ctx=st.integers(2, 101), seed=st.integers(0, 2**70),
       step=st.integers(0, 10**6))
def test_contexts_are_start_and_a_stretch_of_the_stream(n, n_ctx, seed, step):
    for tokens in batch(STREAM, n, n_ctx, START, seed, step), spread(STREAM, n, n_ctx, START):
        assert tokens.shape == (n, n_ctx) and tokens.dtype == np.int32
        assert (tokens[:, 0] == START).all()
        assert (tokens[:, 1:] == tokens[:, 1:2] + np.arange(n_ctx - 1)).all()
        assert tokens[:, 1:].min() >= 0 and tokens[:, 1:].max() < 100


def test_a_batch_is_a_function_of_seed_and_step():
    drawn = [batch(STREAM, 9, 12, START, seed, step).tobytes()
             for seed in range(3) for step in range(3)]
    again = [batch(STREAM, 9, 12, START, seed, step).tobytes()
             for seed in range(3) for step in range(3)]
    assert drawn == again and len(set(drawn)) == 9


def test_step_0_is_not_the_generator_that_the_seed_makes():
    rng = np.random.default_rng(5)
    places = batch(STREAM, 20, 2, START, 5, 0)[:, 1]
    assert not np.array_equal(places, rng.integers(100, size=20))


def test_every_place_of_the_stream_is_drawn_about_equally_often():
    places = batch(STREAM, 89_000, 12, START, 0, 0)[:, 1]
    counts = np.bincount(places, minlength=100)
    assert counts[89] > 0 and counts[90:].sum() == 0      # 89 + 11 tokens end the stream
    assert abs(counts[:90] - 89_000 / 90).max() < 6 * (89_000 / 90) ** 0.5


def test_validation_reaches_from_the_first_token_to_the_last():
    tokens = spread(STREAM, 5, 21, START)
    assert tokens[:, 1].tolist() == [0, 20, 40, 60, 80]
    assert tokens[0, 1] == 0 and tokens[-1, -1] == 99
    assert np.array_equal(spread(STREAM[:20], 3, 21, START)[:, 1:], STREAM[:20] * np.ones((3, 1)))


def test_a_text_shorter_than_the_context():
    for call in (lambda: batch(STREAM[:19], 3, 21, START, 0, 0),
                 lambda: spread(STREAM[:19], 3, 21, START)):
        assert refused(call) == "a text for contexts of 21 must have at least 20 tokens; got 19"


@pytest.mark.parametrize("arguments, says", [
    (("/",), "must be a list"), ((None, None, 1), "n_ctx must be at least 2")])
def test_what_is_no_list_of_texts_or_no_context_is_refused_at_once(arguments, says):
    with pytest.raises(InputError, match=says):
        load_text(*arguments)
