"""A model on texts of any length: what is measured, and what is left out where they are short."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minicircuits as mc
from minicircuits.findings import study as module
from minicircuits.findings.study import Study, as_text, recorded_losses, rectangle, sections
from minicircuits.report.data import page_data
from minicircuits.report.packing import json_in_html
from minicircuits.terminal.sections import section
from minicircuits.training.contexts import contexts_of
from minicircuits.training.model_file import Model
from minicircuits.training.tokenizer import train_tokenizer
from minicircuits.training.vocabulary import Vocabulary

START = train_tokenizer(b"", 257)


class WithoutStart:
    d_vocab, start = 257, None
    show, decode = START.show, START.decode

    def encode(self, text):
        return START.encode(text)


def studied(texts, tokenizer=START, n_layers=2, n_ctx=8, positions="shortformer"):
    weights = mc.init_weights(n_layers, 2, 12, 5, 257, n_ctx or 1, positions,
                              np.random.default_rng(n_layers))
    contexts = contexts_of([(f"{n}", text) for n, text in enumerate(texts)], tokenizer,
                           weights.n_ctx)
    return Study(Model(weights, tokenizer, {}), contexts, seed=0)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), room=st.integers(1, 6))
def test_the_rectangle_has_most_tokens(lengths, room):
    T, chosen = rectangle(lengths, room)
    sizes = {T: T * min(room, sum(length >= T for length in lengths)) for T in range(1, 10)}
    assert chosen == [n for n, length in enumerate(lengths) if length >= T][:room]
    assert len(chosen) * T == (max(size for T, size in sizes.items() if T > 1)
                               if max(lengths) > 1 else len(chosen))


def test_the_rectangle_predicts_something_where_it_can():
    assert rectangle([1] * 9 + [2], 16) == (2, [9])
    assert rectangle([1, 1], 1) == (1, [0])


@pytest.mark.parametrize("tokenizer", [START, WithoutStart()])
def test_the_loss_is_over_every_predicted_token(tokenizer):
    study = studied([b"abracadabra" * 20, b"x", b"yz"], tokenizer)
    nats, predicted = 0, 0
    for context in study.contexts.tokens:
        if len(context) > 1:
            nats += float(mc.loss(study.weights, context[None])) * (len(context) - 1)
            predicted += len(context) - 1
    assert study.loss == pytest.approx(nats / predicted, rel=1e-12)
    tokens, acts = study.held_out
    assert tokens.shape == (16, 8)
    assert mc.relative_error(acts.logits, mc.forward(study.weights, tokens).logits) < 1e-12
    assert study.notes == ["What heads do is measured on 16 of "
                           f"{len(study.contexts.tokens)} contexts, 8 tokens of each."]


def test_large_models_stay_as_precise_as_they_are(monkeypatch):
    weights = mc.init_weights(1, 2, 12, 5, 257, 8, "none", np.random.default_rng(0), np.float32)
    contexts = contexts_of([("", b"abc")], START, 8)
    assert Study(Model(weights, START, {}), contexts, 0).weights.dtype == np.float64
    monkeypatch.setattr(module, "LARGE", 100)
    assert Study(Model(weights, START, {}), contexts, 0).weights.dtype == np.float32


def test_after_layer_0_the_most_frequent_sources_are_ranked(monkeypatch):
    monkeypatch.setattr(module, "SOURCES", 3)
    study = studied([b"aabbbcabcde" * 9])
    assert study.notes[-1] == ("Skip-trigrams after layer 0 are ranked among the 3 most frequent "
                               "of 257 sources.")
    every = mc.skip_trigrams(study.weights, 0, 1, study.contexts.probabilities, 128)
    assert [row.source for row in study.sources((0, 1))[1]] == [row.source for row in every]
    every = mc.skip_trigrams(study.weights, 1, 0, study.contexts.probabilities, 257)
    found = [(row.source, row.score) for row in study.sources((1, 0))[1]]
    assert found == [(row.source, row.score) for row in every if row.source in [*b"abc"]]
    assert not any("Skip-trigrams" in note for note in studied([b"a"], n_layers=1).notes)


@pytest.mark.parametrize("text", ["a", "ab", "abcab", "ab" * 70], ids=len)
@pytest.mark.parametrize("tokenizer, n_layers, n_ctx, positions", [
    (START, 0, 2, "standard"), (START, 1, 3, "shortformer"), (START, 2, 128, "shortformer"),
    (WithoutStart(), 0, None, "none"), (WithoutStart(), 1, 1, "standard"),
    (WithoutStart(), 2, 1, "standard"), (WithoutStart(), 2, None, "none")])
def test_every_section_of_any_text(text, tokenizer, n_layers, n_ctx, positions):
    """All numbers are JSON, all lines have 80 columns, and the page can be made."""
    study, found = studied([text.encode()], tokenizer, n_layers, n_ctx, positions), {}
    for name, finding in sections(study):
        found |= finding
        lines = "\n".join(section(name, found, tokenizer.show)).split("\n")
        assert max(map(len, lines)) <= 80 and "nan" not in " ".join(lines)
    json_in_html(found)
    json_in_html(page_data(study, found))


def test_what_a_short_text_has_not_is_left_out():
    """START and a letter: one context, one prediction, no distance to speak of."""
    found = dict(sections(studied([b"a"], n_ctx=128)))
    row = found["heads"]["heads"][0]
    assert "first" in row and not {"by_position", "offset"} & row.keys()
    found = dict(sections(studied([b"a"], WithoutStart(), n_ctx=128)))
    assert found["losses"]["losses"] == {} and "importance" not in found and "short" in found
    assert "first" not in found["heads"]["heads"][0]


@pytest.mark.parametrize("metadata", [
    {}, {"log": []}, {"log": 3, "baselines": {}}, {"log": [1], "baselines": {}},
    {"log": [{"step": 1}], "baselines": {}}, {"log": [{"step": 1, "validation": 2}]},
    {"log": [{"step": 1, "validation": "x"}], "baselines": {}},
    {"log": [{"step": 1, "validation": 2}], "baselines": 3, "kept_step": []}])
def test_metadata_of_strangers_record_nothing(metadata):
    assert recorded_losses(metadata) == {}
    good = {"log": [{"step": 1, "validation": 2}, {"step": 2, "validation": 3}],
            "baselines": {"counts": 5.0}}
    assert recorded_losses(good) == {"counts": 5, "this model": 3}
    assert recorded_losses(good | {"kept_step": 1}) == {"counts": 5, "this model": 2}


def test_a_table_of_bigrams_needs_no_training_text():
    found = dict(sections(studied([b"ab ab ax"], n_layers=0, n_ctx=16)))["bigrams"]
    assert "training_loss" not in found
    assert {tuple(map(tuple, row["text"])) for row in found["next_tokens"]
            if row["token"] == ord("a")} == {((ord("b"), 2 / 3), (ord("x"), 1 / 3))}


def test_a_context_is_text_with_spaces_between_names_that_are_words():
    words = Vocabulary(["<s>", "the", "cat", "sat\n"])
    assert as_text(words, [0, 1, 2, 3]) == r"<s> the cat sat\n"
    letters = START.encode("道 a".encode())
    assert as_text(START, [START.start, *letters, 255]) == r"<START>道 a\xff"
