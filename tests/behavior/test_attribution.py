"""Effects of heads and sources on the next token's logit, and paths patched: against loops."""

from dataclasses import replace
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.behavior import attribution, tokens_and_acts
from minicircuits.behavior.attribution import head_effects, patch_path, source_effects
from minicircuits.circuits.expansion import expand_logits, ledger
from minicircuits.circuits.hand_built import induction_by_k_composition, two_back
from minicircuits.model.transformer import forward
from minicircuits.notation import POSITIONS, InputError
from minicircuits.plain import model as plain
from tests.draws import assert_close, disguised, draw_case, random_case

LAYERED = ("W_Q", "W_K", "W_V", "W_O")
READS = ["".join(kinds) for kinds in chain(*(combinations("qkv", n) for n in (1, 2, 3)))]


def every_head(weights):
    return list(product(range(weights.n_layers), range(weights.n_heads)))


# Effects of heads and of sources

def looped_sources(weights, tokens):
    """W_U[next] · W_O A_ij v_j, number by number: (l, b, h, i−1, j); and the largest Σ|term|."""
    acts, (B, T) = plain.forward(weights, tokens), tokens.shape
    effects = np.zeros((weights.n_layers, B, weights.n_heads, T - 1, T))
    largest = 0
    for layer, b, h, i in np.ndindex(effects.shape[:-1]):
        right, size = weights.W_U[tokens[b, i + 1]], 0
        for j in range(i + 1):
            terms = [right[d] * weights.W_O[layer, h, d, e] * acts.pattern[layer, b, h, i, j]
                     * acts.v[layer, b, h, j, e]
                     for d in range(weights.d_model) for e in range(weights.d_head)]
            effects[layer, b, h, i, j] = sum(terms)
            size += sum(map(abs, terms))
        largest = max(largest, size)
    return effects, largest


def check_effects(weights, tokens):
    expected, scale = looped_sources(weights, tokens)
    assert_close(head_effects(weights, tokens), expected.sum(-1), 1e-12, scale)
    for layer, head in every_head(weights):
        sources = source_effects(weights, tokens, layer, head)
        assert_close(sources, expected[layer, :, head], 1e-12, scale)
        T = tokens.shape[1]
        assert not sources[:, ~np.tri(T, dtype=bool)[:-1]].any()     # later sources: exactly 0


@settings(max_examples=30, deadline=None)
@given(draw_case())
def test_effects_equal_the_loops(case):
    check_effects(*case)


@settings(max_examples=30, deadline=None)
@given(draw_case(min_tokens=2))
def test_effects_and_the_direct_path_sum_to_the_logit(case):
    """In every mode. The direct path of "standard" mode has positions in it."""
    weights, tokens = case
    acts = forward(weights, tokens)
    right = weights.W_U[tokens[:, 1:]]
    direct = (right * acts.residual[0][:, :-1]).sum(-1)
    logit = np.take_along_axis(acts.logits[:, :-1], tokens[:, 1:, None], -1)[..., 0]
    scale = (np.abs(right) * np.abs(acts.residual).max(0)[:, :-1]).sum(-1).max() * 10
    assert_close(direct + head_effects(weights, tokens).sum((0, 2)), logit, 1e-12, scale)


@settings(max_examples=25, deadline=None)
@given(draw_case(min_tokens=2))
def test_an_effect_is_the_sum_of_the_ledgers_paths_that_end_in_the_head(case):
    """And of a first-layer head's, source by source: later ones read what was moved before."""
    weights, tokens = case
    pattern = forward(weights, tokens).pattern
    effects = head_effects(weights, tokens)
    summed, scale = np.zeros_like(effects), 0
    for b, i in np.ndindex(tokens.shape[0], tokens.shape[1] - 1):
        book = ledger(weights, tokens[b:b + 1], pattern[:, b:b + 1], i, tokens[b, i + 1])
        scale = max(scale, np.abs(book.contributions).sum())
        for heads, contributions in zip(book.paths, book.contributions):
            if heads:
                layer, head = heads[-1]
                summed[layer, b, head, i] += contributions.sum()
            if len(heads) == 1 and heads[0][0] == 0:
                sources = source_effects(weights, tokens, *heads[0])[b, i]
                assert_close(sources, contributions, 1e-12, scale)
    assert_close(effects, summed, 1e-12, scale)


def test_a_head_built_by_hand():
    """Two back: 1.0 raises what stands two places back by 1, 0.0 writes where nobody looks."""
    weights, tokens = two_back(4, 6), np.array([[1, 2, 3, 1, 2, 2]])
    effects = head_effects(weights, tokens)
    assert not effects[0].any()
    assert effects[1, 0, 0].tolist() == [0, 0, 1, 1, 0]    # next: 2 3 1 2 2; two back: 1 1 1 2 3
    one_back = np.eye(6, k=-1)[1:-1]                       # v holds what 0.0 read one back of j
    assert source_effects(weights, tokens, 1, 0)[0, 1:].tolist() == (
        one_back * [[0], [1], [1], [0]]).tolist()


def test_one_token_and_no_layers_have_no_effects():
    weights, tokens = random_case(0)
    assert head_effects(weights, tokens[:, :1]).shape == (2, 2, 3, 0)
    assert source_effects(weights, tokens[:, :1], 1, 2).shape == (2, 0, 1)
    assert head_effects(random_case(0, n_layers=0).weights, tokens).shape == (0, 2, 3, 3)


def test_bad_input_of_effects():
    weights, tokens = random_case(2)
    for layer, head in (2, 0), (0, 3), (-1, 0), (0, -1):
        with pytest.raises(InputError, match=f"got {layer}.{head}"):
            source_effects(weights, tokens, layer, head)
    for call in head_effects, lambda *case: source_effects(*case, 0, 0):
        with pytest.raises(InputError, match="from 0 to 6; got 7"):
            call(weights, tokens * 0 + 7)


# One path patched

def looped_patch(weights, tokens, other_tokens, sender, receiver, reads):
    """The logits, from what every head writes: the sender's taken from the other tokens where
    the receiver reads it, and what the receiver then writes."""
    acts, other = plain.forward(weights, tokens), plain.forward(weights, other_tokens)
    start = plain.embed(weights.W_E, weights.W_pos, tokens, weights.positions)

    def writes(z, head):
        return plain.write(weights.W_O[head][None], 0 * start, z)

    wrote = {head: writes(acts.z[head[0]][:, [head[1]]], head) for head in every_head(weights)}
    exchanged = writes(other.z[sender[0]][:, [sender[1]]], sender)
    if receiver is None:
        wrote[sender] = exchanged
    else:
        before = {head: out for head, out in wrote.items() if head[0] < receiver[0]}
        read = {}
        for name in "qkv":
            x = sum(({**before, sender: exchanged} if name in reads else before).values(), start)
            if name != "v":
                x = plain.add_positions(x, weights.W_pos, weights.positions)
            read[name] = plain.read(getattr(weights, f"W_{name.upper()}")[receiver][None], x)
        pattern = plain.softmax(plain.score(read["q"], read["k"]))
        wrote[receiver] = writes(plain.mix(pattern, read["v"]), receiver)
    return plain.unembed(weights.W_U, sum(wrote.values(), start)).astype(float)


def check_patch(weights, tokens, other, sender, receiver, reads):
    found = patch_path(weights, tokens, other, sender, receiver, reads)
    expected = looped_patch(weights, tokens, other, sender, receiver, reads)
    scale = (np.abs(weights.W_U).max() * weights.d_model
             * max(np.abs(forward(weights, text).residual).max() for text in (tokens, other)))
    assert_close(found, expected, 1e-12, scale)


@settings(max_examples=15, deadline=None)
@given(draw_case(n_layers=st.sampled_from((2, 3))), st.sampled_from(READS), st.data())
def test_a_patched_path_equals_the_loops(case, reads, data):
    weights, tokens = case
    other = np.random.default_rng(tokens.sum()).integers(weights.d_vocab, size=tokens.shape)
    head = st.integers(0, weights.n_heads - 1)
    later = data.draw(st.integers(1, weights.n_layers - 1))
    sender = data.draw(st.integers(0, later - 1)), data.draw(head)
    check_patch(weights, tokens, other, sender, (later, data.draw(head)), reads)
    check_patch(weights, tokens, other, sender, None, "qkv")
    check_patch(weights, tokens, other, (later, data.draw(head)), None, "qkv")


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_every_way_to_read_is_another_and_each_equals_the_loops(positions, reads):
    (weights, tokens), other = random_case(3, positions=positions), random_case(4).tokens
    assert (tokens != other).any(1).all()
    check_patch(weights, tokens, other, (0, 2), (1, 0), reads)
    assert_close(patch_path(weights, tokens, other, (0, 2), (1, 0), reads[::-1]),
                 patch_path(weights, tokens, other, (0, 2), (1, 0), reads), 1e-12)
    patched = [patch_path(weights, tokens, other, (0, 2), (1, 0), others) for others in READS]
    differ = [np.abs(logits - patched[READS.index(reads)]).max() > 1e-6 for logits in patched]
    assert sum(differ) == len(READS) - 1


def test_direct_effects_of_all_heads_make_one_model_into_the_other():
    """Logits are a sum over heads and the embedding: exchange every term, in any order."""
    (weights, tokens), other = random_case(6, n_layers=3), random_case(7).tokens
    before, after = forward(weights, tokens), forward(weights, other)
    changes = sum(patch_path(weights, tokens, other, head) - before.logits
                  for head in every_head(weights))
    changes = changes + (after.residual[0] - before.residual[0]) @ weights.W_U.T
    assert_close(before.logits + changes, after.logits, 1e-12)


def test_patched_values_are_a_virtual_head():
    """With reads="v" the receiver's pattern stays, and what is exchanged is the path 0.0→1.0.

    (Both texts have the same patterns here, as both heads go by positions alone.)
    """
    weights, tokens = two_back(4, 6), np.array([[1, 2, 1, 2, 3, 2]])
    other = np.array([[3, 1, 0, 0, 2, 1]])
    paths = [expand_logits(weights, text, forward(weights, text).pattern)[-1]
             for text in (tokens, other)]
    assert paths[0].label == "0.0→1.0"
    found = patch_path(weights, tokens, other, (0, 0), (1, 0), "v")
    np.testing.assert_array_equal(found, paths[1].logits)
    for reads in "q", "k", "qk":
        np.testing.assert_array_equal(
            patch_path(weights, tokens, other, (0, 0), (1, 0), reads), paths[0].logits)


def test_induction_reads_the_previous_token_by_its_keys():
    """<START> a b c a: the other text has a before c, so a now finds c; q and v do not care."""
    weights = induction_by_k_composition(4, 5)
    tokens, other = np.array([[0, 1, 2, 3, 1]]), np.array([[0, 2, 1, 3, 1]])
    before = forward(weights, tokens).logits
    assert before[0, -1].tolist() == [0, 0, 1, 0]
    for reads in "k", "qk", "kv", "qkv":
        found = patch_path(weights, tokens, other, (0, 0), (1, 0), reads)
        assert found[0, -1].tolist() == [0, 0, 0, 1]
    for reads in "q", "v", "qv":
        np.testing.assert_array_equal(
            patch_path(weights, tokens, other, (0, 0), (1, 0), reads), before)
    np.testing.assert_array_equal(patch_path(weights, tokens, other, (0, 0)), before)


def test_effects_and_patches_keep_dtypes_and_arguments():
    for dtype in (np.float32, np.complex128):
        (weights, tokens), other = random_case(9, dtype=dtype), random_case(10).tokens
        for array in (tokens, other, *dict(weights.items()).values()):
            array.setflags(write=False)
        for receiver in None, (1, 1):
            found = patch_path(weights, tokens.tolist(), other.tolist(), (0, 0), receiver)
            assert found.dtype == dtype and found.shape == (2, 4, 7)
        assert head_effects(weights, tokens.tolist()).dtype == dtype
        assert source_effects(weights, tokens.tolist(), 1, 0).dtype == dtype


@pytest.mark.parametrize("sender, receiver, reads, message", [
    ((2, 0), None, "qkv", "got 2.0"),
    ((0, 0), (2, 0), "qkv", "got 2.0"),
    ((0, 0), (1, 3), "qkv", "got 1.3"),
    ((1, 0), (1, 1), "qkv", "in a later layer"),
    ((1, 0), (0, 0), "qkv", "in a later layer"),
    ((0, 0), (1, 1), "", "reads some of q, k, v"),
    ((0, 0), (1, 1), "qx", "reads some of q, k, v; .*'qx'"),
])
def test_bad_paths(sender, receiver, reads, message):
    weights, tokens = random_case(11)
    with pytest.raises(InputError, match=message):
        patch_path(weights, tokens, tokens, sender, receiver, reads)


def test_bad_tokens():
    weights, tokens = random_case(11)
    for other in tokens[:1], tokens[:, :3]:
        with pytest.raises(InputError, match=r"same axes \(b, i\); got \(2, 4\) and"):
            patch_path(weights, tokens, other, (0, 0))
    with pytest.raises(InputError, match="from 0 to 6; got 7"):
        patch_path(weights, tokens, tokens * 0 + 7, (0, 0))


# Symmetries.

def every_effect(weights, tokens):
    return np.concatenate([head_effects(weights, tokens)[..., None], np.stack([
        [source_effects(weights, tokens, layer, head) for head in range(3)]
        for layer in range(2)]).swapaxes(1, 2)], axis=-1)


def every_patch(weights, tokens):
    other = (tokens + 1) % 7
    return np.array([patch_path(weights, tokens, other, (0, g), receiver)
                     for g in range(3) for receiver in (None, (1, 0), (1, 1), (1, 2))])


@pytest.mark.parametrize("positions", POSITIONS)
def test_effects_and_patches_keep_bases(positions):
    weights, tokens = random_case(12, positions=positions)
    same = disguised(weights, np.random.default_rng(0))
    assert_close(every_effect(same, tokens), every_effect(weights, tokens), 1e-12)
    assert_close(every_patch(same, tokens), every_patch(weights, tokens), 1e-12)


def test_effects_follow_heads_vocabulary_and_batch():
    weights, tokens = random_case(13)
    before, order = every_effect(weights, tokens), [2, 0, 1]
    heads = replace(weights, **{name: getattr(weights, name)[:, order] for name in LAYERED})
    assert_close(every_effect(heads, tokens), before[:, :, order], 1e-12)
    new = np.random.default_rng(0).permutation(7)
    renamed = replace(weights, W_E=weights.W_E[:, new], W_U=weights.W_U[new])
    assert_close(every_effect(renamed, new.argsort()[tokens]), before, 1e-12)
    assert_close(every_effect(weights, tokens[::-1]), before[:, ::-1], 1e-12)


def test_effects_move_with_a_constant_added_to_every_row_of_W_U():
    """By the constant's product with what the head writes, whatever the next token is."""
    weights, tokens = random_case(14)
    constant = np.random.default_rng(0).normal(size=5)
    raised = replace(weights, W_U=weights.W_U + constant)
    moved = head_effects(raised, tokens) - head_effects(weights, tokens)
    acts = forward(weights, tokens)
    wrote = np.array([[acts.z[layer, :, head] @ weights.W_O[layer, head].T @ constant
                       for head in range(3)] for layer in range(2)]).swapaxes(1, 2)[..., :-1]
    assert_close(moved, wrote, 1e-12)
    assert np.abs(moved).min() > 1e-6


# The checks themselves fail on mistakes.

def on_first(mistake):
    """`mistake` on what the first call returns, the next calls as they are."""
    def broken(function):
        calls = iter([mistake])
        return lambda *args: next(calls, lambda x: x)(function(*args))
    return broken


@pytest.mark.parametrize("mistake", [
    lambda tokens, acts: (np.roll(tokens, 1, 1), acts),
    lambda tokens, acts: (tokens, replace(acts, z=acts.z[..., ::-1, :], v=acts.v[..., ::-1, :])),
])
def test_the_checks_of_effects_see_a_mistake(monkeypatch, mistake):
    case = random_case(15)
    check_effects(*case)
    monkeypatch.setattr(attribution, "tokens_and_acts",
                        lambda *args: mistake(*tokens_and_acts(*args)))
    with pytest.raises(AssertionError):
        check_effects(*case)


@pytest.mark.parametrize("what, mistake", [
    ("causal_softmax", lambda function: lambda scores: function(scores * 2)),
    ("causal_softmax", lambda function: lambda scores: function(scores.mT)),
    ("tokens_and_acts", on_first(lambda found: (found[0], replace(found[1], q=found[1].k)))),
    ("tokens_and_acts", on_first(lambda found: (
        found[0], replace(found[1], z=found[1].z[:, :, ::-1])))),
])
def test_the_check_of_patches_sees_a_mistake(monkeypatch, what, mistake):
    (weights, tokens), other = random_case(16), random_case(17).tokens
    for reads in READS:
        check_patch(weights, tokens, other, (0, 0), (1, 2), reads)
    monkeypatch.setattr(attribution, what, mistake(getattr(attribution, what)))
    with pytest.raises(AssertionError):
        check_patch(weights, tokens, other, (0, 0), (1, 2), "qkv")
