"""Skip-trigrams found in a text, and the bugs of a head's table: against loops and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.behavior import examples_in_text
from minicircuits.behavior.examples_in_text import Bug, bugs, occurrences
from minicircuits.circuits.hand_built import (START, induction_by_k_composition,
                                              skip_trigram_machine)
from minicircuits.notation import InputError
from minicircuits.plain import model as plain
from tests.circuits.dense import dense_circuits
from tests.draws import (SEEDS, assert_close, disguised, draw_case, random_case,
                         random_weights)

KEEP, IN, AT, MIND, BAY, X = 1, 2, 3, 4, 5, 6
TRIGRAMS = [(KEEP, IN, MIND), (KEEP, AT, BAY)]
ONE_HEAD, TWO_HEADS = [TRIGRAMS], [TRIGRAMS[:1], TRIGRAMS[1:]]


# Loop twins.

def probability(logits, out):
    """softmax(logits)[out], one place."""
    raised = [np.exp(logit - max(logits)) for logit in logits]
    return raised[out] / sum(raised)


def looped_occurrences(weights, tokens, layer, head, source, destination, out):
    """{(b, j, i): (probability, the same for a model whose head reads no values)}."""
    W_V, found = weights.W_V.copy(), {}
    W_V[layer, head] = 0
    logits = [plain.forward(model, tokens).logits
              for model in (weights, replace(weights, W_V=W_V))]
    for b, context in enumerate(tokens.tolist()):
        for i in range(len(context) - 1):
            if context[i] == destination and context[i + 1] == out:
                earlier = [j for j in range(i) if context[j] == source]
                if earlier:
                    found[b, max(earlier), i] = [probability(each[b, i].tolist(), out)
                                                 for each in logits]
    return found


def has(context, source, destination, out):
    """Does [source] … [destination] [out] stand in the context?"""
    return any(context[j] == source and context[i] == destination and context[i + 1] == out
               for i in range(len(context) - 1) for j in range(i))


def looped_bugs(weights, tokens, layer, head, source, k):
    """{wrong pair: (its strength, the right pairs that could force it on each side)}."""
    QK, OV = dense_circuits(weights, layer, head)
    wanted, raised = ({u: row[source] for u, row in enumerate(table)} for table in (QK, OV))
    real = {(d, o) for d in strongest(wanted, k) for o in strongest(raised, k)
            if any(has(context, source, d, o) for context in tokens.tolist())}
    found = {}
    for d, o in real:
        for other_d, other_o in real:
            if (d, other_o) not in real:
                strength, left, right = found.setdefault(
                    (d, other_o), (wanted[d] * raised[other_o], set(), set()))
                left.add((d, o))
                right.add((other_d, other_o))
    return found


def strongest(scores, k):
    return [u for u in sorted(scores, key=lambda u: (-scores[u], u))[:k] if scores[u] > 0]


# Occurrences

def check_occurrences(weights, tokens, *trigram):
    found = occurrences(weights, tokens, *trigram)
    expected = looped_occurrences(weights, tokens, *trigram)
    assert len(found) == len(expected)
    assert {(place.context, place.source, place.destination) for place in found} == set(expected)
    for place in found:
        values = np.array([place.probability, place.without])
        assert_close(values, np.array(expected[place[:3]]), 1e-12, scale=1)
    helped = [place.probability - place.without for place in found]
    assert helped == sorted(helped, reverse=True)
    return found


@settings(max_examples=25, deadline=None)
@given(draw_case(n_layers=st.sampled_from((1, 2, 3))), st.integers(1, 3), st.data())
def test_occurrences_equal_the_loops(case, few, data):
    """Few tokens, so that there are some; often the three are the same."""
    weights, few = case.weights, min(few, case.weights.d_vocab)
    trigram = [data.draw(st.integers(0, few - 1)) for _ in range(3)]
    check_occurrences(weights, case.tokens % few, data.draw(st.integers(0, weights.n_layers - 1)),
                      data.draw(st.integers(0, weights.n_heads - 1)), *trigram)


@pytest.mark.parametrize("positions", ["shortformer", "standard", "none"])
def test_occurrences_in_every_mode_and_of_every_head(positions):
    weights, tokens = random_case(0, b=4, i=6, positions=positions)
    tokens[:, 1:3] = [[1, 2]]
    tokens[::2, 4:] = [2, 3]                    # 1 2 … 2 3 in contexts 0 and 2
    tokens[3] = [3, 2, 3, 1, 2, 3]              # the source may stand next to the destination,
    for layer in range(2):                      # but not after it
        for head in range(3):
            found = check_occurrences(weights, tokens, layer, head, 1, 2, 3)
            places = sorted(place[:3] for place in found)
            assert places[0][0] == 0 and places[-1] == (3, 3, 4) and (3, 3, 1) not in places


def test_the_nearest_source_before_the_destination():
    weights = random_weights(np.random.default_rng(1))
    text = [[1, 1, 4, 2, 3, 1], [2, 3, 1, 5, 2, 4], [4, 2, 2, 2, 3, 2]]
    assert [place[:3] for place in occurrences(weights, text, 0, 0, 1, 2, 3)] == [(0, 1, 3)]
    assert [place[:3] for place in occurrences(weights, text, 0, 0, 2, 2, 3)] == [(2, 2, 3)]
    assert [place[:3] for place in occurrences(weights, text, 0, 0, 3, 2, 4)] == [(1, 1, 4)]
    assert [place[:3] for place in occurrences(weights, text, 0, 0, 5, 2, 4)] == [(1, 3, 4)]
    assert occurrences(weights, text, 0, 0, 1, 3, 2) == []       # not before; or not next


def test_occurrences_are_python_numbers():
    weights = random_weights(np.random.default_rng(2), dtype=np.float32)
    place, = occurrences(weights, np.array([[1, 2, 3]]), 0, 0, 1, 2, 3)
    assert [type(number) for number in place] == [int, int, int, float, float]


def test_probabilities_of_the_machine():
    """Logits 1 for what a head says: e/(2e + 5) of seven tokens with the bug, e/(e + 6) without."""
    text = np.array([[START, X, X, X, X], [START, KEEP, X, IN, MIND], [START, KEEP, AT, BAY, X],
                     [START, X, X, IN, MIND]])
    e = np.e
    bugged, mended = (skip_trigram_machine(7, heads) for heads in (ONE_HEAD, TWO_HEADS))
    for weights, head, trigram, expected in (
            (bugged, 0, (KEEP, IN, MIND), (1, 1, 3, e / (2 * e + 5), 1 / 7)),
            (bugged, 0, (KEEP, AT, BAY), (2, 1, 2, e / (2 * e + 5), 1 / 7)),
            (mended, 0, (KEEP, IN, MIND), (1, 1, 3, e / (e + 6), 1 / 7)),
            (mended, 1, (KEEP, IN, MIND), (1, 1, 3, e / (e + 6), e / (e + 6)))):
        place, = occurrences(weights, text, 0, head, *trigram)
        assert place[:3] == expected[:3]
        assert_close(np.array(place[3:]), np.array(expected[3:]), 1e-15)


def test_the_head_is_removed_and_later_patterns_recomputed():
    """Induction without its previous-token head finds nothing; frozen, it would still."""
    weights, text = induction_by_k_composition(5, 6), np.array([[START, 1, 2, 3, 1, 2]])
    place, = occurrences(weights, text, 0, 0, 2, 1, 2)
    assert place[:3] == (0, 2, 4)
    assert_close(np.array(place[3:]), np.array([np.e / (np.e + 4), 1 / 5]), 1e-15)


def test_the_most_helped_comes_first_and_the_harmed_last():
    weights, tokens = random_case(9, b=7, i=6, d_vocab=3)
    found = check_occurrences(weights, tokens, 1, 0, 0, 1, 2)
    assert found[0].probability > found[0].without and found[-1].probability < found[-1].without


@pytest.mark.parametrize("call", [lambda *case: occurrences(*case, 1, 2, 3),
                                  lambda *case: bugs(*case, 1)])
def test_bad_input(call):
    weights = random_case(5).weights
    for layer, head in (2, 0), (0, 3), (-1, 0):
        for text in [[1, 2, 3]], [[0, 0, 0]]:               # also where nothing would be found
            with pytest.raises(InputError, match=f"got {layer}.{head}"):
                call(weights, text, layer, head)
    with pytest.raises(InputError, match="from 0 to 6; got 7"):
        call(weights, [[1, 2, 7]], 0, 0)


# Bugs

def check_bugs(weights, tokens, layer, head, source, k):
    found = bugs(weights, tokens, layer, head, source, k)
    expected = looped_bugs(weights, tokens, layer, head, source, k)
    assert len(found) == len(expected) and {bug.wrong for bug in found} == set(expected)
    for bug in found:
        strength, left, right = expected[bug.wrong]
        assert bug.source == source and bug.right[0] in left and bug.right[1] in right
        assert bug.right[0] != bug.right[1]
        assert_close(np.float64(bug.strength), np.float64(strength), 1e-12, max(1, strength))
    assert [bug.strength for bug in found] == sorted((bug.strength for bug in found), reverse=True)
    return found


@settings(max_examples=80, deadline=None)
@given(draw_case(n_layers=st.sampled_from((1, 2))), SEEDS, st.integers(0, 8), st.data())
def test_bugs_equal_the_loops(case, seed, k, data):
    """In one to three contexts: few skip-trigrams, or nearly all that there can be."""
    weights, source = case.weights, data.draw(st.integers(0, case.weights.d_vocab - 1))
    rng, n = np.random.default_rng(seed), weights.n_ctx or 9
    tokens = rng.integers(weights.d_vocab, size=(rng.integers(1, 4), n))
    check_bugs(weights, tokens, data.draw(st.integers(0, weights.n_layers - 1)),
               data.draw(st.integers(0, weights.n_heads - 1)), source, k)


def test_bugs_of_a_larger_table():
    """Many of them, most where the table is wide; none where nothing can be crossed."""
    rng = np.random.default_rng(6)
    weights, tokens = random_weights(rng, d_vocab=30, n_ctx=40), rng.integers(30, size=(9, 40))
    numbers = [len(check_bugs(weights, tokens, 1, 2, 4, k)) for k in (0, 1, 3, 12, 20, 30)]
    assert numbers[:2] == [0, 0] and numbers[-1] > 50
    assert bugs(weights, tokens, 1, 2, 4) == bugs(weights, tokens, 1, 2, 4, k=20)


def keep(*contexts):
    """Contexts of five tokens, filled up."""
    return np.array([[*context, X, X, X, X][:6] for context in contexts])


BOTH = keep([START, KEEP, IN, MIND], [START, KEEP, X, AT, BAY])


def test_the_papers_bug():
    """keep … in → bay and keep … at → mind, of keep … in → mind and keep … at → bay."""
    weights = skip_trigram_machine(7, ONE_HEAD)
    found = bugs(weights, BOTH, 0, 0, KEEP)
    strength = found[0].strength
    right = ((IN, MIND), (AT, BAY))
    assert found == [Bug(KEEP, right, (IN, BAY), strength),
                     Bug(KEEP, right[::-1], (AT, MIND), strength)]
    QK, OV = dense_circuits(weights, 0, 0)
    assert strength == QK[IN, KEEP] * OV[BAY, KEEP] > 0
    assert bugs(weights, BOTH, 0, 0, X) == []                          # not its source


def test_two_heads_have_no_bug():
    weights = skip_trigram_machine(7, TWO_HEADS)
    assert [bugs(weights, BOTH, 0, head, KEEP) for head in range(2)] == [[], []]


@pytest.mark.parametrize("more, wrong", [
    ([START, KEEP, X, IN, BAY], [(AT, MIND)]),       # the text has this one: it is no bug
    ([START, IN, BAY, KEEP], [(IN, BAY), (AT, MIND)]),                # but keep comes after
    ([START, X, IN, BAY], [(IN, BAY), (AT, MIND)]),                   # or not at all
    ([START, KEEP, IN, X, BAY], [(IN, BAY), (AT, MIND)]),             # bay is not next
    ([KEEP, IN, BAY], [(AT, MIND)])])                # neighbors, from the first place on
def test_what_the_text_has_is_no_bug(more, wrong):
    weights = skip_trigram_machine(7, ONE_HEAD)
    found = bugs(weights, np.concatenate([BOTH, keep(more)]), 0, 0, KEEP)
    assert [bug.wrong for bug in found] == wrong


def test_right_pairs_come_from_any_context():
    weights = skip_trigram_machine(7, ONE_HEAD)
    assert bugs(weights, BOTH[:1], 0, 0, KEEP) == bugs(weights, BOTH[1:], 0, 0, KEEP) == []
    together = np.array([[START, KEEP, IN, MIND, AT, BAY]])
    assert bugs(weights, together, 0, 0, KEEP) == bugs(weights, BOTH, 0, 0, KEEP)


def test_a_source_that_is_its_own_destination_needs_another_before_it():
    weights = skip_trigram_machine(7, [[(KEEP, KEEP, MIND), (KEEP, AT, BAY)]])
    assert bugs(weights, keep([START, KEEP, MIND], [START, KEEP, AT, BAY]), 0, 0, KEEP) == []
    found = bugs(weights, keep([START, KEEP, KEEP, MIND], [START, KEEP, AT, BAY]), 0, 0, KEEP)
    assert [bug.wrong for bug in found] == [(KEEP, BAY), (AT, MIND)]


def test_negative_entries_force_nothing():
    """Two wrongs would make a right: QK < 0 and OV < 0 have a positive product."""
    weights = skip_trigram_machine(7, ONE_HEAD)
    opposite = replace(weights, W_Q=-weights.W_Q, W_O=-weights.W_O)
    assert bugs(opposite, BOTH, 0, 0, KEEP) == []
    assert bugs(replace(weights, W_O=-weights.W_O), BOTH, 0, 0, KEEP) == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_too_short_for_two_skip_trigrams(length):
    weights = skip_trigram_machine(7, ONE_HEAD)
    assert bugs(weights, BOTH[:, 1:1 + length], 0, 0, KEEP) == []


# Symmetries.

def test_examples_and_bugs_keep_bases():
    rng = np.random.default_rng(9)
    weights, tokens = random_weights(rng, n_ctx=30), rng.integers(7, size=(2, 30))
    same = disguised(weights, rng)
    for call in (lambda W: bugs(W, tokens, 1, 1, 2),
                 lambda W: occurrences(W, tokens, 1, 1, *tokens[0, 7:10])):
        before, after = call(weights), call(same)
        assert before and [each[:3] for each in before] == [each[:3] for each in after]
        assert_close(np.array([each[3:] for each in after]),
                     np.array([each[3:] for each in before]), 1e-12, scale=1)


def test_a_constant_added_to_every_row_of_W_U_keeps_examples_but_not_bugs():
    """Probabilities stay; which outs count as raised does not."""
    rng = np.random.default_rng(8)
    weights, tokens = random_weights(rng, n_ctx=30), rng.integers(7, size=(2, 30))
    raised = replace(weights, W_U=weights.W_U + 2 * rng.normal(size=5))
    before, after = (occurrences(W, tokens, 1, 1, *tokens[0, 7:10]) for W in (weights, raised))
    assert before and [place[:3] for place in before] == [place[:3] for place in after]
    assert_close(np.array([place[3:] for place in after]),
                 np.array([place[3:] for place in before]), 1e-12)
    assert bugs(weights, tokens, 1, 1, 3) != bugs(raised, tokens, 1, 1, 3)


# The checks themselves fail on mistakes.

@pytest.mark.parametrize("what, mistake", [
    ("without_heads", lambda without: lambda weights, heads: weights),
    ("without_heads", lambda without: lambda weights, heads: without(weights, [(0, 0)])),
    ("softmax", lambda p: lambda logits, axis: np.roll(p(logits, axis), 1, axis)),
    ("forward", lambda f: lambda weights, tokens: f(weights, tokens[::-1])),
    ("Occurrence", lambda Occurrence: lambda b, j, i, *p: Occurrence(b, 0, i, *p)),
])
def test_the_check_of_occurrences_sees_a_mistake(monkeypatch, what, mistake):
    weights, tokens = random_case(9, b=5, i=6)
    tokens %= 2
    found = check_occurrences(weights, tokens, 1, 1, 1, 0, 1)
    assert len({place.context for place in found}) > 1 and any(place.source for place in found)
    monkeypatch.setattr(examples_in_text, what, mistake(getattr(examples_in_text, what)))
    with pytest.raises(AssertionError):
        check_occurrences(weights, tokens, 1, 1, 1, 0, 1)


@pytest.mark.parametrize("what, mistake", [
    ("qk_circuit", lambda circuit: lambda *head: circuit(*head).mT),
    ("ov_circuit", lambda circuit: lambda *head: circuit(*head).mT),
    ("qk_circuit", lambda circuit: lambda weights, layer, head: circuit(weights, layer, 0)),
    ("check_tokens", lambda check: lambda weights, tokens: check(weights, tokens)[:, ::-1]),
    ("check_tokens", lambda check: lambda weights, tokens: check(weights, tokens)[:1]),
])
def test_the_check_of_bugs_sees_a_mistake(monkeypatch, what, mistake):
    rng = np.random.default_rng(10)
    weights, tokens = random_weights(rng, n_ctx=20), rng.integers(7, size=(2, 20))
    assert check_bugs(weights, tokens, 1, 2, 3, 4)
    monkeypatch.setattr(examples_in_text, what, mistake(getattr(examples_in_text, what)))
    with pytest.raises(AssertionError):
        check_bugs(weights, tokens, 1, 2, 3, 4)
