"""What the page is given is what the library says, cut only with a notice."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.behavior.patterns import offset_profiles
from minicircuits.circuits.composition import chance_levels, composition_baseline
from minicircuits.findings import figures, heads
from minicircuits.findings.effects import prediction
from minicircuits.findings.heads import heads_of
from minicircuits.behavior import excerpt
from minicircuits.report import data
from minicircuits.report.data import given_text
from tests.draws import assert_all_close, assert_close, random_case
from tests.report.reported import LOG, living, reported, studied, unpack


@pytest.fixture(scope="module")
def two():
    return reported(2)


def square(rows, n):
    """The triangles of heads, packed row by row, as (head, i, j)."""
    full = np.zeros((len(rows), n, n))
    full[:, *np.tril_indices(n)] = rows
    return full


def apart(page):
    """The texts whose scores and logits come apart: the opening one, and random tokens."""
    return [page["texts"][page["opening"]], page["texts"][-1]]


def test_contexts_are_named_and_in_order(two):
    names = [text["name"] for text in two.data["texts"]]
    assert len(names) > 5 and names[-1] == "repeated random tokens"
    contexts = dict(zip(two.study.contexts.names, two.study.contexts.tokens))
    assert names[1:-1] == [name for name in contexts if name in names[1:]]
    assert two.data["opening"] == 0
    for text in two.data["texts"][:-1]:
        assert text["tokens"] == contexts[text["name"]].tolist()
    assert [n for n, text in enumerate(two.data["texts"]) if "parts" in text] == [
        0, len(names) - 1]


def test_attention_is_the_librarys(two):
    weights = two.model.weights
    for text in two.data["texts"]:
        tokens = np.array([text["tokens"]])
        n = tokens.shape[1]
        acts, moved = mc.forward(weights, tokens), mc.value_weighted_patterns(weights, tokens)
        pattern = square(unpack(text["pattern"]), n)
        assert_close(pattern, acts.pattern[:, 0].reshape(-1, n, n), 2e-5)
        assert_close(pattern * unpack(text["lengths"])[:, None],
                     moved[:, 0].reshape(-1, n, n), 4e-5)
        effects = square(unpack(text["effects"]), n - 1)
        for row, (layer, head) in zip(effects, two.data["shown_heads"]):
            desired = mc.source_effects(weights, tokens, layer, head)[0]
            assert_close(row, desired[:, :n - 1], 2e-5)
            assert not desired[:, n - 1:].any()


def test_next_tokens_are_the_likeliest(two):
    text = two.data["texts"][3]
    logits = mc.forward(two.model.weights, [text["tokens"]]).logits[0]
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    for listed, row in zip(text["next"], probabilities, strict=True):
        assert [share for _, share in listed] == pytest.approx(sorted(row)[:-9:-1])
        assert [share for _, share in listed] == pytest.approx([row[v] for v, _ in listed])


def test_score_parts_are_the_split(two):
    for text in apart(two.data):
        tokens = np.array([text["tokens"]])
        n = tokens.shape[1]
        pattern = mc.forward(two.model.weights, tokens).pattern
        assert set(text["parts"]) == {"1.0", "1.1", "1.2"}
        for name, packed in text["parts"].items():
            layer, head = map(int, name.split("."))
            split = mc.split_scores(two.model.weights, tokens, pattern, layer, head)
            for part, desired in zip(square(unpack(packed), n), split, strict=True):
                assert_close(part, np.tril(desired[0]), 2e-5)


def test_repeated_tokens_are_those_of_the_split(two):
    """The heat map shows the first of the contexts over which the table takes its mean."""
    tokens, _ = two.study.repeated
    assert two.data["texts"][-1]["tokens"] == tokens[0].tolist()
    assert tokens.shape == (8, 59) and (tokens[:, 1:30] == tokens[:, 30:]).all()


def test_the_page_opens_at_the_prediction_of_the_terminal(two):
    prediction, page = two.found["prediction"], two.data
    place = page["start"]
    tokens = apart(page)[0]["tokens"]
    assert tokens[:place + 1] == prediction["context"]
    assert prediction["target"] == tokens[place + 1]


def test_ledger_inputs_make_the_logits(two):
    ledger = two.data["ledger"]
    for text in apart(two.data):
        inputs = text["run"]
        logits = mc.forward(two.model.weights, [text["tokens"]]).logits[0]
        made = unpack(inputs["residual"]) @ unpack(ledger["W_U"]).T
        assert_close(made, logits, 1e-6)
        total = np.exp(logits - np.array(inputs["normalizer"])[:, None]).sum(-1)
        assert total == pytest.approx(1)


def test_composition_is_the_excess(two):
    found, weights = two.data["composition"], two.model.weights
    for kind in "QKV":
        scores = mc.composition_scores(weights, kind)
        for (l2, h), row in zip(found["later"], found[kind], strict=True):
            for (l1, g), value in zip(found["earlier"], row, strict=True):
                assert value + composition_baseline(24) == pytest.approx(scores[l2, h, l1, g])
        levels = chance_levels(weights, kind, heads.CHANCE / 27)         # three kinds of 3 × 3
        for (l2, h), row in zip(found["later"], found["levels"][kind], strict=True):
            assert row == pytest.approx([levels[l2, h, l1, g] - 24 ** -0.5
                                         for l1, g in found["earlier"]])
            assert 0 < max(row) <= found["noise"] < 1


def test_eigenvalue_pairs(two):
    pairs = two.data["eigenvalues"]
    assert len(pairs) == 9
    for pair in pairs:
        scores = mc.induction_eigenvalues(two.model.weights, pair["earlier"], pair["later"])
        assert (pair["copying"], pair["matching"]) == pytest.approx(scores, abs=1e-9)


def test_spectra_are_the_eigenvalues(two, monkeypatch):
    """In the order of the heads, over the largest modulus; cut; and none of a head that is zero."""
    assert [(row["layer"], row["head"]) for row in two.data["spectra"]] == [
        (row["layer"], row["head"]) for row in two.found["heads"]]
    for row, head in zip(two.data["spectra"], two.found["heads"]):
        circuit = mc.ov_circuit(two.model.weights, row["layer"], row["head"])
        values, found = circuit.eigenvalues(), np.array(row["copying"]) @ [1, 1j]
        assert_close(np.sort_complex(found), np.sort_complex(values / abs(values[0])), 1e-9)
        assert found.real.sum() / abs(found).sum() == pytest.approx(head["copying"])
    monkeypatch.setattr(heads, "SPECTRUM", 3)
    W_O = two.model.weights.W_O.copy()
    W_O[1, 2] = 0
    assert [len(row["copying"]) for row in heads.head_spectra(
        replace(two.model.weights, W_O=W_O))] == [3] * 5 + [0]


@pytest.mark.parametrize("fed", [False, True])
def test_head_dump_is_ranked(two, fed):
    """Of tokens alone; and through a head of layer 0, if that feeds all keys after it."""
    weights, text = two.model.weights, two.text
    study = copy(two.study)
    study.ranked, study.feeders = {}, {(1, h): (0, 1) for h in range(3)} if fed else {}
    probabilities = two.study.contexts.probabilities
    assert_close(probabilities, (text.counts.sum(1) + 1) / (text.counts + 1 / 640).sum(), 1e-12)
    profiles = offset_profiles(weights, text.validation[:16])
    for head in heads.head_dump(weights, study.sources, *study.held_out):
        layer, h = head["layer"], head["head"]
        through = (0, 1) if layer and fed else None
        found = mc.skip_trigrams(weights, layer, h, probabilities, n_sources=128, through=through)
        assert head["through"] == through
        assert [row["rank"] for row in head["rows"]] == [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128]
        assert head["profile"] == pytest.approx(profiles[layer, h, :64])
        for row in head["rows"]:
            entry = found[row["rank"] - 1]
            assert (row["source"], row["score"]) == (entry.source, entry.score)
            assert row["destinations"] == list(zip(entry.destinations, entry.destination_scores))
            assert row["outs"] == list(zip(entry.outs, entry.out_logits))


def test_formation():
    assert figures.formation(LOG) == {"step": 150, "before": 100}      # 0.1 itself is not above
    assert figures.formation(LOG[:3]) is None
    assert figures.formation(LOG[4:]) == {"step": 200, "before": None}


@pytest.mark.parametrize("n_layers, missing", [
    (0, {"attention", "heads", "split", "composition", "importance"}),
    (1, {"split", "composition", "importance"}), (2, set())])
def test_what_is_absent_says_why(n_layers, missing):
    page = reported(n_layers).data
    assert set(page["absent"]) == missing and all(page["absent"].values())
    assert not any("cut" in notice for notice in page["notices"] if "Contexts" not in notice)


def test_three_layers(two):
    """Everything that the page has for two layers, it has for three; heads read earlier layers."""
    page = studied(random_case(1, n_layers=3, n_heads=2, n_ctx=128,
                               d_vocab=two.model.weights.d_vocab).weights, {}).data
    assert not page["absent"] and all(len(text["parts"]) == 4 for text in apart(page))
    found = page["composition"]
    for later, row in zip(found["later"], found["K"], strict=True):
        assert [value is None for value in row] == [
            earlier[0] >= later[0] for earlier in found["earlier"]]


def test_what_formed_after_the_step_that_was_kept_is_not_in_the_model(two):
    for kept, formed in (100, None), (150, {"step": 150, "before": 100}):
        model = two.model._replace(metadata={"log": LOG, "kept_step": kept})
        assert figures.overview(model, two.found)["formation"] == formed


def test_without_an_induction_head_what_shows_one_is_absent(two):
    page = studied(two.model.weights, {}, least=0.99).data
    assert set(page["absent"]) == {"split"} and page["induction"] is page["previous"] is None
    assert [text["parts"] for text in apart(page)] == [{}, {}]


def test_cuts_are_told(two, monkeypatch):
    for name, most in (("LIVE", 10), ("MAX_TOKENS", 100), ("MAX_SPLIT", 2),
                       ("ATTENTION", 1_000_000), ("LEDGER", 125_000)):
        monkeypatch.setattr(data, name, most)
    monkeypatch.setattr(figures, "MAX_TOKENS", 100)
    monkeypatch.setattr(data, "opening", lambda *_: (9, 58, (1, 0)))   # not among the first
    page = data.page_data(two.study, two.found)
    d_vocab, opening = two.model.weights.d_vocab, page["texts"][page["opening"]]
    n, rows = len(page["texts"]) - 1, len(page["ledger"]["tokens"])
    size = sum(W.size for _, W in two.model.weights.items())
    assert page["notices"] == [
        *two.study.notes,
        "Contexts are cut: the first 100 of 128 tokens are shown.",
        f"A model runs in its page up to 10 parameters; this one has {size:,}. Shown is what was "
        "computed before.",
        f"Contexts are cut: {n} of 32 are shown, the one with the prediction and the first others.",
        "Four parts of a score are cut: the first 2 of 3 heads, those with most prefix matching, "
        "are shown.",
        f"The vocabulary is cut: {rows} of {d_vocab:,} tokens can be chosen in the ledger, those "
        "of its texts and the most frequent."]
    assert 3 < n < 12 and rows < d_vocab
    assert len(opening["tokens"]) == 100 and opening["pattern"]["shape"] == [6, 5050]
    assert len(opening["parts"]) == 2
    assert [id for id, _ in page["vocabulary"]] == list(range(d_vocab))
    for text in apart(page):
        assert {*text["tokens"], *(id for row in text["next"] for id, _ in row)} <= {
            *page["ledger"]["tokens"]}


@pytest.mark.parametrize("name, most", [("MAX_PATHS", 15), ("LEDGER", 100_000),
                                        ("MAX_HEADS", 5)])
def test_a_ledger_that_is_too_much_is_left_out(two, monkeypatch, name, most):
    monkeypatch.setattr(data, "LIVE", 0)
    monkeypatch.setattr(data, name, most)
    page = data.page_data(two.study, two.found)
    assert set(page["absent"]) == {"ledger"} and "there are more" in page["absent"]["ledger"]
    told = "Attention is cut: the first 5 of 6 heads are shown." in page["notices"]
    assert told == (name == "MAX_HEADS") == (page["texts"][0]["pattern"]["shape"][0] < 6)


def test_a_small_model_runs_in_its_page(two):
    """Its weights, its merges, every token's name and every context; and no array of a run."""
    page, weights = living(two).data, two.model.weights
    assert [text["tokens"] for text in page["texts"]] == [
        *(tokens.tolist() for tokens in two.study.contexts.tokens),
        two.study.repeated[0][0].tolist()]
    assert not any({"pattern", "next", "parts", "run"} & text.keys() for text in page["texts"])
    assert page["texts"][page["opening"]]["tokens"] == apart(two.data)[0]["tokens"]
    assert page["notices"] == two.study.notes and not page["absent"]
    for name, W in weights.items():
        assert_close(unpack(page["model"][name]), W.mT if name in ("W_E", "W_pos") else W, 1e-6)
    assert [name for _, name in page["vocabulary"]] == [
        data.visible_name(two.model.tokenizer.show(id)) for id in range(weights.d_vocab)]
    assert page["merges"] == two.model.tokenizer.to_array().tolist()
    assert page["start"] == two.data["start"] and page["ledger"] is True


def test_an_excerpt_is_what_the_model_gives_on_it():
    """One context of three, and its first two tokens: nothing that comes later is missed."""
    for positions in "shortformer", "standard", "none":
        weights, tokens = random_case(4, b=3, i=5, positions=positions)
        cut, acts = excerpt(tokens, mc.forward(weights, tokens), slice(1, 2), 2)
        assert (cut == tokens[1:2, :2]).all()
        assert_all_close(acts, mc.forward(weights, cut), 1e-12)


def test_the_strongest_move_is_of_the_induction_head():
    """Of the packaged model, on tokens that come twice; of one token there is none."""
    model = mc.load_pretrained()
    weights, tokens = model.weights, np.array([[model.tokenizer.start, *range(300, 320)] * 2])
    tokens = np.delete(tokens, 21, 1)
    context, place, head = figures.strongest_move(
        weights, tokens, mc.forward(weights, tokens), heads_of(weights))
    assert (context, heads_of(weights)[head]) == (0, (1, 3)) and 20 < place < 40
    one = tokens[:, :1]
    assert figures.strongest_move(weights, one, mc.forward(weights, one),
                                  heads_of(weights)) == (0, 0, 0)


def test_a_context_of_one_token():
    weights = random_case(0).weights
    tokens = np.array([[3]])
    found = given_text(weights, tokens, mc.forward(weights, tokens), heads_of(weights))
    assert found["effects"]["shape"] == [6, 0] and found["pattern"]["shape"] == [6, 1]


def test_a_prediction_lists_no_source_after_its_place():
    """One head a layer and two tokens: there are fewer entries than are listed."""
    weights = mc.init_weights(2, 1, 6, 3, 5, 4, "none", np.random.default_rng(0))
    tokens = np.array([[0, 1]])
    found = prediction(weights, tokens, mc.forward(weights, tokens), (1, 0))
    assert [source for _, source, _ in found["entries"]] == [0] * 4
    assert found["count"] == 0 and found["sum"] == pytest.approx(found["logit"])
