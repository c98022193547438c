"""Arrays come back as they were to four digits; text comes out visible, whatever went in."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from minicircuits.report.packing import json_in_html, pack, pack_floats
from minicircuits.training.tokenizer import BLANK, NAME, train_tokenizer, visible_name
from tests.draws import SEEDS
from tests.report.reported import unpack


@given(SEEDS, st.integers(0, 4), st.integers(0, 5), st.integers(1, 3))
def test_an_array_comes_back_to_the_step_of_its_row(seed, rows, i, d):
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(rows, i, d)) * 10.0 ** rng.integers(-9, 9, (rows, 1, 1))
    packed = json.loads(json.dumps(pack(array)))
    assert unpack(packed).shape == array.shape
    error = np.abs(unpack(packed) - array).max((1, 2), initial=0)
    assert (error <= np.abs(array).max((1, 2), initial=0) / 65534 * (1 + 1e-9)).all()


def test_zeros_and_the_largest_are_exact():
    array = np.array([[0.0, 0.0], [1.0, -1.0], [0.0, 3.5]])
    assert np.array_equal(unpack(pack(array)), array)


def test_floats_come_back_as_float32():
    array = np.random.default_rng(0).normal(size=(2, 3))
    back = unpack(json.loads(json.dumps(pack_floats(array))))
    assert np.array_equal(back, array.astype(np.float32).astype(np.float64))


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError):
        json_in_html([float("nan")])


HOSTILE = ["</script><script>alert(1)</script>", "<!--", "<img src=x onerror=alert(1)>", '"\'`',
           "&lt;", "\0", "\x1b[31m", "\r\n", "\u2028\u2029", "\u202egnp.exe", "\u2066\u200f\u200b",
           "\ud800", "\udfff\ud800", "\ufeff", "x" * 5000, "", " ", "\u3164\ufe0f", "{{data}}",
           "שלום", "$&", "\\n"]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_tokens_are_visible_and_short(text):
    shown = visible_name(text)
    assert shown and shown.isprintable() and " " not in shown[:NAME]
    assert not set(shown) & set(BLANK)
    assert len(shown) <= NAME + 25
    shown.encode()                            # no lone surrogates


@given(st.text(st.characters(codec=None), max_size=60))
def test_any_text_is_visible(text):
    test_tokens_are_visible_and_short(text)


def test_a_cut_says_what_was_there():
    assert visible_name("x" * NAME) == "x" * NAME
    assert visible_name("x" * 5000) == "x" * NAME + "… (5,000 characters)"


def test_tokens_read_as_the_tokenizer_shows_them():
    tokenizer = train_tokenizer("low lower\n  lowest é \u200b", 270)
    for id in range(tokenizer.d_vocab):
        assert visible_name(tokenizer.show(id)) == tokenizer.show(id)


@given(st.recursive(st.text(st.characters(codec=None)), st.lists))
def test_json_that_no_parser_of_html_can_mistake(value):
    text = json_in_html([value, *HOSTILE])
    assert text.isascii() and not set(text) & set("<>&")
    assert json.loads(text) == [value, *HOSTILE]
