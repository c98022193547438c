"""Term importance against the paper's own runs; heads removed, patterns frozen or not.

The twins are plain loops that go through the layers once a run; nothing in them knows paths.
"""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.behavior import ablation
from minicircuits.behavior.ablation import loss_without_heads, term_importance, without_heads
from minicircuits.circuits.hand_built import (induction_by_k_composition, induction_by_pointers,
                                              two_back)
from minicircuits.model.transformer import forward, loss
from minicircuits.notation import POSITIONS, InputError
from minicircuits.plain import model as plain
from tests.draws import assert_close, disguised, draw_case, random_case

LAYERED = ("W_Q", "W_K", "W_V", "W_O")
DEPTHS = st.sampled_from((2, 1, 3, 0))


# Loop twins.

def embedding(weights, tokens):
    return plain.embed(weights.W_E, weights.W_pos, np.asarray(tokens), weights.positions)


def written(weights, layer, heads, x, pattern):
    """What some heads of a layer write together, through patterns (b, h, i, j): (b, i, d)."""
    z = plain.mix(pattern[:, heads], plain.read(weights.W_V[layer, heads], x))
    return plain.write(weights.W_O[layer, heads], 0 * x, z)


def looped_loss(weights, x, tokens):
    return float(plain.cross_entropy(plain.unembed(weights.W_U, x), np.asarray(tokens)))


def papers_runs(weights, tokens):
    """The algorithm of "Term Importance Analysis": the losses of its runs, and start + outputs
    of the first, by layer."""
    every = list(range(weights.n_heads))
    pattern = plain.forward(weights, tokens).pattern            # 1. run, save every pattern
    start = embedding(weights, tokens)
    added = [0 * start] * weights.n_layers                      # 2. run again, adding nothing
    losses, singles = [], None
    for _ in range(weights.n_layers + 1):
        x, saved = start, []
        for layer in range(weights.n_layers):
            saved.append(written(weights, layer, every, x, pattern[layer]))
            x = x + added[layer]
        losses.append(looped_loss(weights, x, tokens))
        added, singles = saved, singles or saved                # 3. add what this run saved
    return losses, start, singles


def looped_without(weights, tokens, heads, frozen):
    """The loss if some heads are passed over, the others' patterns saved before or not."""
    saved, x = plain.forward(weights, tokens).pattern, embedding(weights, tokens)
    for layer in range(weights.n_layers):
        left = [head for head in range(weights.n_heads) if (layer, head) not in heads]
        y = plain.add_positions(x, weights.W_pos, weights.positions)
        pattern = saved[layer] if frozen else plain.softmax(plain.score(
            plain.read(weights.W_Q[layer], y), plain.read(weights.W_K[layer], y)))
        x = x + written(weights, layer, left, x, pattern)
    return looped_loss(weights, x, tokens)


# Term importance

def check_term_importance(weights, tokens):
    found, (losses, start, singles) = term_importance(weights, tokens), papers_runs(weights, tokens)
    assert_close(found.losses, np.array(losses), 1e-12, scale=1)
    before = [log(weights.d_vocab), *losses]
    assert_close(found.marginal, np.array([before[n] - before[n + 1] for n in range(len(losses))]),
                 1e-12, scale=1)
    paths = Counter(sum(head is not None for head in path) for path in product(
        [None, *range(weights.n_heads)], repeat=weights.n_layers))
    assert found.counts == [paths[order] for order in range(weights.n_layers + 1)]
    added_first, taken_last = np.zeros((2, weights.n_layers))
    for layer, single in enumerate(singles or []):
        others = sum((s for n, s in enumerate(singles) if n != layer), start)
        added_first[layer] = losses[0] - looped_loss(weights, start + single, tokens)
        taken_last[layer] = looped_loss(weights, others, tokens) - losses[1]
    assert_close(found.given_direct, added_first, 1e-12, scale=1)
    assert_close(found.given_others, taken_last, 1e-12, scale=1)


@settings(max_examples=40, deadline=None)
@given(draw_case(n_layers=DEPTHS, min_tokens=2))
def test_term_importance_is_what_the_papers_runs_give(case):
    check_term_importance(*case)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", range(4))
def test_term_importance_at_every_depth_in_every_mode(n_layers, positions):
    case = random_case(n_layers, n_layers=n_layers, n_heads=2, i=3, positions=positions)
    check_term_importance(*case)
    found = term_importance(*case)
    assert abs(found.losses[-1] - loss(*case)) < 1e-12
    assert abs(found.marginal.sum() - (log(7) - loss(*case))) < 1e-12
    assert len(found.losses) == len(found.marginal) == len(found.counts) == n_layers + 1
    if n_layers == 1:           # nothing else to be given: both are the marginal effect
        assert abs(found.given_direct - found.marginal[1]) < 1e-12
        assert abs(found.given_others - found.marginal[1]) < 1e-12
    if n_layers > 1:            # on random weights every number is another
        assert len({round(float(effect), 9) for effects in found[1::2] + found[4:]
                    for effect in effects}) == 3 * n_layers + 1


def test_virtual_heads_are_the_second_order():
    """two_back says what it says by one path of two heads; no shorter path says anything."""
    tokens = np.array([[0, 1, 2, 3, 1, 2, 3], [0, 2, 2, 1, 3, 1, 2]])
    weights = two_back(4, 7)
    found = term_importance(weights, tokens)
    assert_close(found.losses, np.array([log(4), log(4), loss(weights, tokens)]), 1e-15, scale=1)
    assert not (found.given_direct.any() or found.given_others.any() or found.marginal[:2].any())


@pytest.mark.parametrize("build", [induction_by_k_composition, induction_by_pointers])
def test_a_head_that_only_steers_counts_for_nothing(build):
    """Induction does all it does by one single head, 1.0, given its pattern; 0.0 made that."""
    weights, tokens = build(4, 7), np.array([[0, 1, 2, 3, 1, 2, 3]])
    found, gain = term_importance(weights, tokens), log(4) - loss(weights, tokens)
    assert gain > 0.1
    assert_close(found.marginal, np.array([0, gain, 0]), 1e-15, scale=1)
    assert_close(found.given_direct, np.array([0, gain]), 1e-15, scale=1)
    assert_close(found.given_others, np.array([0, gain]), 1e-15, scale=1)


@pytest.mark.parametrize("dtype", [np.complex128, np.float64, np.float32])
def test_dtypes_follow_the_weights(dtype):
    found = term_importance(*random_case(1, dtype=dtype))
    assert {array.dtype for array in (found.losses, *found[3:])} == {np.dtype(dtype)}
    assert dtype == np.complex128 or found.marginal.dtype == dtype


# Heads removed

def test_without_heads_changes_what_they_write_and_nothing_else():
    weights, _ = random_case(2, n_layers=3)
    for _, W in weights.items():
        W.setflags(write=False)
    heads = [(0, 2), (2, 0), (2, 1), (0, 2)]
    ablated = without_heads(weights, heads)
    for name, W in ablated.items():
        assert name == "W_O" or W is getattr(weights, name)
    for layer, head in product(range(3), range(3)):
        expected = weights.W_O[layer, head] * ((layer, head) not in heads)
        np.testing.assert_array_equal(ablated.W_O[layer, head], expected, strict=True)
    assert not np.shares_memory(ablated.W_O, weights.W_O)
    np.testing.assert_array_equal(without_heads(weights, []).W_O, weights.W_O)


@pytest.mark.parametrize("head", [(3, 0), (0, 3), (-1, 0), (0, -1)])
def test_a_head_that_is_not_there(head):
    weights, tokens = random_case(2, n_layers=3)
    for call in (lambda: without_heads(weights, [(0, 0), head]),
                 lambda: loss_without_heads(weights, tokens, [head])):
        with pytest.raises(InputError, match=f"got {head[0]}.{head[1]}"):
            call()


def check_loss_without_heads(weights, tokens, heads):
    found = loss_without_heads(weights, tokens, heads)
    for value, frozen in (found.frozen, True), (found.recomputed, False):
        assert_close(np.asarray(value), np.array(looped_without(weights, tokens, heads, frozen)),
                     1e-12, scale=1)
    return found


@settings(max_examples=20, deadline=None)
@given(draw_case(n_layers=DEPTHS, min_tokens=2), st.data())
def test_losses_without_heads_equal_the_loops(case, data):
    every = list(product(range(case.weights.n_layers), range(case.weights.n_heads)))
    heads = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    found = check_loss_without_heads(*case, heads)
    if not heads or min(layer for layer, _ in heads) == case.weights.n_layers - 1:
        assert abs(found.frozen - found.recomputed) < 1e-12        # nobody is there to be steered


def test_earlier_heads_steer_later_ones():
    """On random weights the two losses differ, for any head of an earlier layer."""
    case = random_case(3, n_layers=3)
    for layer, head in product(range(3), range(3)):
        found = check_loss_without_heads(*case, [(layer, head)])
        assert (abs(found.frozen - found.recomputed) > 1e-6) == (layer < 2)
    assert abs(loss_without_heads(*case, []).frozen - loss(*case)) < 1e-12


def test_without_the_head_that_steers():
    """Frozen, 1.0 goes on as before; recomputed, it finds nothing, rests, and says nothing."""
    weights, tokens = induction_by_k_composition(4, 7), np.array([[0, 1, 2, 3, 1, 2, 3]])
    found = loss_without_heads(weights, tokens, [(0, 0)])
    assert abs(found.frozen - loss(weights, tokens)) < 1e-15
    assert abs(found.recomputed - log(4)) < 1e-15
    for without_the_other in loss_without_heads(weights, tokens, [(1, 0)]):
        assert abs(without_the_other - log(4)) < 1e-15


def test_bad_input_gets_an_error():
    weights, tokens = random_case(5)
    for call in (term_importance, lambda *case: loss_without_heads(*case, [])):
        with pytest.raises(InputError, match="at least 2 tokens; got 1"):
            call(weights, tokens[:, :1])
        with pytest.raises(InputError, match="from 0 to 6; got 7"):
            call(weights, tokens * 0 + 7)
    assert abs(term_importance(weights, tokens.tolist()).losses[-1] - loss(weights, tokens)) < 1e-12


# Symmetries.

def every_number(weights, tokens):
    found = term_importance(weights, tokens)
    alone = [loss_without_heads(weights, tokens, [(layer, 1)]) for layer in range(2)]
    return np.concatenate([found.losses, found.given_direct, found.given_others, *alone])


def renamed(weights, new):
    return replace(weights, W_E=weights.W_E[:, new], W_U=weights.W_U[new])


@pytest.mark.parametrize("positions", POSITIONS)
def test_losses_keep_what_leaves_the_model_the_same(positions):
    weights, tokens = random_case(6, positions=positions)
    before, rng = every_number(weights, tokens), np.random.default_rng(0)
    new = rng.permutation(7)
    for same, context in ((disguised(weights, rng), tokens),
                          (replace(weights, W_U=weights.W_U + rng.normal(size=5)), tokens),
                          (renamed(weights, new), new.argsort()[tokens]),
                          (weights, tokens[::-1])):
        assert_close(every_number(same, context), before, 1e-12, scale=1)
    heads = replace(weights, **{name: getattr(weights, name)[:, [2, 1, 0]] for name in LAYERED})
    assert_close(every_number(heads, tokens), before, 1e-12, scale=1)    # 1 stays where it is


# The checks themselves fail on mistakes.

def not_frozen(logits_by_order):
    return lambda weights, tokens, *_: logits_by_order(
        weights, tokens, forward(weights, tokens).pattern)


def one_order_short(logits_by_order):
    return lambda *case: logits_by_order(*case) * np.array([1, 1, 0])[:, None, None, None]


def of_the_present_token(cross_entropy):
    return lambda logits, tokens: cross_entropy(logits, np.roll(tokens, 1, axis=1))


def one_head_too_many(without_heads):
    return lambda weights, heads: without_heads(weights, [*heads, (0, 2)])


@pytest.mark.parametrize("what, mistake", [
    ("logits_by_order", one_order_short), ("cross_entropy", of_the_present_token)])
def test_the_check_of_term_importance_sees_a_mistake(monkeypatch, what, mistake):
    case = random_case(8)
    check_term_importance(*case)
    monkeypatch.setattr(ablation, what, mistake(getattr(ablation, what)))
    with pytest.raises(AssertionError):
        check_term_importance(*case)


@pytest.mark.parametrize("what, mistake", [
    ("logits_by_order", not_frozen), ("logits_by_order", one_order_short),
    ("cross_entropy", of_the_present_token), ("without_heads", one_head_too_many)])
def test_the_check_without_heads_sees_a_mistake(monkeypatch, what, mistake):
    case = random_case(8)
    check_loss_without_heads(*case, [(0, 1)])
    monkeypatch.setattr(ablation, what, mistake(getattr(ablation, what)))
    with pytest.raises(AssertionError):
        check_loss_without_heads(*case, [(0, 1)])
