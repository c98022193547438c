"""Paths of the logits: one by one against A ⊗ W written out, their sums against the model."""

from dataclasses import replace
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minicircuits.circuits import expansion
from minicircuits.circuits.expansion import (count_paths, expand_logits, head_sequences, ledger,
                                             logits_by_order, propagate, residual_0)
from minicircuits.model.transformer import forward
from minicircuits.notation import POSITIONS, InputError
from tests.circuits import dense
from tests.circuits.dense import Frozen, draw_frozen, invertible, random_pattern, total
from tests.draws import SEEDS, assert_close, draw_case, random_case


# The sum over paths is the forward pass.

def check_sums_with_the_models_patterns(weights, tokens):
    acts = forward(weights, tokens)
    logits, scale = total(path.logits for path in expand_logits(weights, tokens, acts.pattern))
    assert_close(logits, acts.logits, 1e-12, scale, "expand_logits")
    orders = logits_by_order(weights, tokens, acts.pattern)
    assert orders.shape == (weights.n_layers + 1, *acts.logits.shape)
    assert_close(orders.sum(0), acts.logits, 1e-12, scale, "logits_by_order")
    x = propagate(weights, residual_0(weights, tokens), acts.pattern).sum(0)
    assert_close(x, acts.residual[-1], 1e-12, name="propagate")


@settings(max_examples=100, deadline=None)
@given(draw_frozen())
def test_paths_sum_to_the_logits_of_the_forward_pass(case):
    check_sums_with_the_models_patterns(case.weights, case.tokens)


@settings(max_examples=30, deadline=None)
@given(draw_case(n_layers=st.sampled_from((1, 2)), dtype=np.complex128))
def test_complex_weights_pass_through(case):
    check_sums_with_the_models_patterns(*case)


@pytest.mark.parametrize("positions", POSITIONS)
def test_float32_stays_float32(positions):
    weights, tokens = random_case(0, positions=positions, dtype=np.float32)
    acts = forward(weights, tokens)
    logits, scale = total(path.logits for path in expand_logits(weights, tokens, acts.pattern))
    assert_close(logits, acts.logits, 1e-6, scale)
    assert_close(logits_by_order(weights, tokens, acts.pattern).sum(0), acts.logits, 1e-6, scale)
    row = ledger(weights, tokens[:1], acts.pattern[:, :1], 3, 2).contributions
    assert row.dtype == np.float32


# Frozen patterns that no model would have, against loops.

def check_sums_with_any_patterns(weights, tokens, pattern):
    logits, scale = total(path.logits for path in expand_logits(weights, tokens, pattern))
    looped = np.array([dense.looped_logits(weights, *context)
                       for _, context in dense.contexts(tokens, pattern)])
    assert_close(logits, looped, 1e-12, scale, "expand_logits")
    assert_close(logits_by_order(weights, tokens, pattern).sum(0), looped, 1e-12, scale,
                 "logits_by_order")


@settings(max_examples=40, deadline=None)
@given(draw_frozen())
def test_any_frozen_patterns_equal_the_loops(case):
    check_sums_with_any_patterns(*case)


@settings(max_examples=30, deadline=None)
@given(draw_frozen())
def test_the_product_form_multiplied_out(case):
    """(Id ⊗ W_U) Π_l (Id + Σ_h A ⊗ W_OV) (Id ⊗ W_E) t, as one big matrix."""
    weights, tokens, pattern = case
    logits, scale = total(path.logits for path in expand_logits(*case))
    for b, (ids, A) in dense.contexts(tokens, pattern):
        T = (np.kron(np.eye(len(ids)), weights.W_U)
             @ dense.model_operator(weights, A, weights.n_layers))
        assert_close(logits[b].ravel(), T @ dense.entering(weights, ids), 1e-12, scale)


# Each path on its own.

def check_each_path(weights, tokens, pattern):
    """kron(A, W) is the product of its heads' kron(A, W_OV), and logits is kron(A, W) t."""
    for path in expand_logits(weights, tokens, pattern):
        for b, (ids, A) in dense.contexts(tokens, pattern):
            n = len(ids)
            heads = dense.path_operator(weights, A, path.heads)
            out = np.kron(np.eye(n), weights.W_U) @ heads
            W = np.kron(np.eye(n), weights.W_E)
            assert_close(np.kron(path.A[b], path.W.AB), out @ W, 1e-12, name=path.label)
            logits = np.kron(path.A[b], path.W.AB) @ dense.one_hot(ids, weights.d_vocab).ravel()
            if weights.positions == "standard":
                W = np.kron(np.eye(n), weights.W_pos)
                of_places = np.kron(path.A[b], path.W_from(weights.W_pos).AB)
                assert_close(of_places, out @ W, 1e-12)
                logits = logits + of_places @ dense.one_hot(range(n), weights.n_ctx).ravel()
            assert_close(path.logits[b].ravel(), logits, 1e-12,
                         np.abs(out @ dense.entering(weights, ids)).max(), path.label)


@settings(max_examples=25, deadline=None)
@given(draw_frozen(max_heads=2))
def test_each_path_is_a_tensor_product(case):
    weights, tokens, pattern = case
    check_each_path(weights, tokens[:2], pattern[:, :2])


@settings(max_examples=25, deadline=None)
@given(draw_frozen(max_heads=2))
def test_attention_along_a_path_goes_over_every_route(case):
    for path in expand_logits(*case):
        A = np.moveaxis(case.pattern, 1, 0)[0]
        n = A.shape[-1]
        routes = np.array([[dense.route_product(A, path.heads, i, j) for j in range(n)]
                           for i in range(n)])
        assert_close(path.A[0], routes, 1e-12, name=path.label)


@settings(max_examples=25, deadline=None)
@given(draw_frozen())
def test_no_path_is_wider_than_it_has_to_be(case):
    weights = case.weights
    for path in expand_logits(*case):
        narrowest = min(weights.d_model, weights.d_head) if path.order else weights.d_model
        assert path.W.A.shape == (weights.d_vocab, narrowest)
        assert path.W.B.shape == (narrowest, weights.d_vocab)


@settings(max_examples=40, deadline=None)
@given(draw_frozen())
def test_sums_by_order(case):
    orders, paths = logits_by_order(*case), expand_logits(*case)
    for order, logits in enumerate(orders):
        expected, scale = total(path.logits for path in paths if path.order == order)
        assert_close(logits, expected, 1e-12, scale)


# How many there are, and what they are called.

@settings(max_examples=40, deadline=None)
@given(draw_case(n_layers=st.integers(0, 3)))
def test_numbers_of_paths(case):
    weights, tokens = case
    L, H = weights.n_layers, weights.n_heads
    paths = expand_logits(weights, tokens, random_pattern(weights, tokens))
    assert len(paths) == (1 + H) ** L
    by_order = [sum(path.order == order for path in paths) for order in range(L + 1)]
    assert by_order == [comb(L, order) * H ** order for order in range(L + 1)]
    assert by_order == count_paths(weights)
    assert {path.heads for path in paths} == set(dense.paths(L, H))
    assert [path.order for path in paths] == sorted(path.order for path in paths)
    for path in paths:
        assert path.order == len(path.heads)
        assert all(earlier < later for (earlier, _), (later, _) in pairwise(path.heads))


def test_counts_of_the_papers_two_layer_model():
    """Paper, "Term Importance Analysis": 1 direct path, 24 single heads, 144 virtual heads."""
    weights, tokens = random_case(0, n_layers=2, n_heads=12)
    assert count_paths(weights) == [1, 24, 144]
    assert len(head_sequences(2, 12)) == 169
    assert len(expand_logits(weights, tokens, random_pattern(weights, tokens))) == 169


def test_labels():
    weights, tokens = random_case(0, n_layers=3, n_heads=2)
    paths = expand_logits(weights, tokens, random_pattern(weights, tokens))
    labels = [path.label for path in paths]
    assert labels[:7] == ["direct", "0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert labels[7:11] == ["0.0→1.0", "0.0→1.1", "0.1→1.0", "0.1→1.1"]
    assert labels[-2:] == ["0.1→1.1→2.0", "0.1→1.1→2.1"]
    assert len(set(labels)) == len(labels)
    assert repr(paths[-1]) == "Path(source='token', heads=((0, 1), (1, 1), (2, 1)))"


def test_the_zero_layer_model_is_its_direct_path():
    weights, tokens = random_case(1, n_layers=0)
    path, = expand_logits(weights, tokens, random_pattern(weights, tokens))
    assert (path.label, path.order) == ("direct", 0)
    assert (path.A == np.eye(4)).all() and path.A.shape == (2, 4, 4)
    assert_close(path.W.AB, weights.W_U @ weights.W_E, 1e-14)


def test_listing_paths_computes_nothing(monkeypatch):
    """5⁵ paths at once, each as cheap as its name."""
    def never(*_):
        raise AssertionError("computed before it was asked for")
    for name in ("W_OV", "product", "reduce"):
        monkeypatch.setattr(expansion, name, never)
    weights, tokens = random_case(2, n_layers=5, n_heads=4)
    pattern = random_pattern(weights, tokens)
    paths = expand_logits(weights, tokens, pattern)
    assert len(paths) == 5 ** 5 and all(path.label for path in paths)
    assert all(path.pattern is pattern for path in paths)


# Propagation.

@settings(max_examples=40, deadline=None)
@given(draw_frozen(), st.integers(0, 3))
def test_propagation_of_any_stream_through_the_first_layers(case, layers):
    """One linear map, split by order: each path's operator on any x, not only on tokens."""
    weights, tokens, pattern = case
    layers = min(layers, weights.n_layers)
    x = np.random.default_rng(0).normal(size=(*tokens.shape, weights.d_model))
    orders = propagate(weights, x, pattern[:layers])
    assert orders.shape == (layers + 1, *x.shape)
    expected, size = np.zeros_like(orders), np.zeros_like(orders)
    for b, (_, A) in dense.contexts(tokens, pattern):
        for heads in dense.paths(layers, weights.n_heads):
            part = (dense.path_operator(weights, A, heads) @ x[b].ravel()).reshape(x[b].shape)
            expected[len(heads), b] += part
            size[len(heads), b] += np.abs(part)
    assert_close(orders, expected, 1e-12, size.max())


# The ledger.

def check_ledger(weights, tokens, pattern, destination, target):
    """Σ over routes and paths, by loops; one entry a path and source position."""
    book = ledger(weights, tokens[:1], pattern[:, :1], destination, target)
    logit = dense.looped_logits(weights, tokens[0], pattern[:, 0])[destination, target]
    assert_close(book.contributions.sum(), np.asarray(logit), 1e-12,
                 np.abs(book.contributions).sum(), "the logit")
    assert sorted(book.paths) == sorted(dense.paths(weights.n_layers, weights.n_heads))
    assert list(map(len, book.paths)) == sorted(map(len, book.paths))
    x = dense.entering(weights, tokens[0]).reshape(-1, weights.d_model)
    for heads, row in zip(book.paths, book.contributions):
        r = weights.W_U[target]
        for layer, head in reversed(heads):
            r = r @ (weights.W_O[layer, head] @ weights.W_V[layer, head])
        expected = np.array([
            dense.route_product(pattern[:, 0], heads, destination, j) * sum(r * x[j])
            for j in range(len(x))])
        assert_close(row, expected, 1e-12, np.abs(book.contributions).max(), str(heads))


@settings(max_examples=40, deadline=None)
@given(draw_frozen(max_heads=2), st.data())
def test_ledger_of_a_logit(case, data):
    destination = data.draw(st.integers(0, case.tokens.shape[1] - 1))
    target = data.draw(st.integers(0, case.weights.d_vocab - 1))
    check_ledger(*case, destination, target)


@settings(max_examples=20, deadline=None)
@given(draw_frozen(max_heads=2))
def test_ledger_and_paths_tell_the_same(case):
    weights, tokens, pattern = case
    book = ledger(weights, tokens[:1], pattern[:, :1], tokens.shape[1] - 1, 0)
    by_heads = dict(zip(book.paths, book.contributions.sum(1)))
    scale = np.abs(book.contributions).sum()
    for path in expand_logits(weights, tokens[:1], pattern[:, :1]):
        assert_close(np.asarray(by_heads[path.heads]), path.logits[0, -1, 0], 1e-12, scale)


def test_rows_of_a_ledger_come_in_the_order_of_the_paths():
    weights, tokens = random_case(3, b=1, n_layers=3)
    pattern = random_pattern(weights, tokens)
    paths = expand_logits(weights, tokens, pattern)
    assert ledger(weights, tokens, pattern, 0, 0).paths == [path.heads for path in paths]


def test_strongest_entries_of_a_ledger():
    weights, tokens = random_case(3, b=1)
    book = ledger(weights, tokens, random_pattern(weights, tokens), 2, 5)
    every = [(heads, j, book.contributions[row, j])
             for row, heads in enumerate(book.paths) for j in range(4)]
    every.sort(key=lambda entry: -abs(entry[2]))
    assert book.strongest(5) == every[:5]
    assert book.strongest(10 ** 6) == every and book.strongest(0) == []
    assert all(type(j) is int and type(amount) is float for _, j, amount in book.strongest(3))


def test_a_causal_ledger_has_nothing_after_its_destination():
    weights, tokens = random_case(4, b=1)
    book = ledger(weights, tokens, forward(weights, tokens).pattern, 1, 5)
    assert (book.contributions[:, 2:] == 0).all() and (book.contributions[1:, :2] != 0).all()


# Symmetries of every path.

def logits_of_paths(weights, tokens, pattern):
    return {path.heads: path.logits for path in expand_logits(weights, tokens, pattern)}


def assert_paths_agree(one, other, agree=True):
    """Every path of `one` with heads keeps its logits in `other`; or every one changes."""
    scale = max(np.abs(logits).max() for logits in one.values())
    for heads in one:
        error = np.abs(one[heads] - other[heads]).max() / scale
        assert (error <= 1e-11) == agree or (not agree and not heads), f"{heads}: {error}"


def change_value_basis(weights, rng, inverse=np.linalg.inv):
    M = invertible(rng, weights.n_layers, weights.n_heads, weights.d_head)
    return replace(weights, W_V=M @ weights.W_V, W_O=weights.W_O @ inverse(M))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_every_path_keeps_a_change_of_basis_inside_a_head(seed):
    rng = np.random.default_rng(seed)
    weights, tokens = random_case(seed, n_layers=2)
    pattern = random_pattern(weights, tokens, seed)
    before = logits_of_paths(weights, tokens, pattern)
    assert_paths_agree(before, logits_of_paths(change_value_basis(weights, rng), tokens, pattern))
    wrong = change_value_basis(weights, rng, inverse=lambda M: M.mT)
    assert_paths_agree(before, logits_of_paths(wrong, tokens, pattern), agree=False)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(POSITIONS))
def test_every_path_keeps_a_rotation_of_the_residual_stream(seed, positions):
    weights, tokens = random_case(seed, n_layers=2, positions=positions)
    pattern = random_pattern(weights, tokens, seed)
    R = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    rotated = replace(weights, W_E=R @ weights.W_E, W_O=R @ weights.W_O,
                      W_V=weights.W_V @ R.T, W_U=weights.W_U @ R.T,
                      W_pos=None if weights.W_pos is None else R @ weights.W_pos)
    before = logits_of_paths(weights, tokens, pattern)
    assert_paths_agree(before, logits_of_paths(rotated, tokens, pattern))
    half = replace(rotated, W_V=weights.W_V)
    assert_paths_agree(before, logits_of_paths(half, tokens, pattern), agree=False)


def test_permuting_heads_permutes_paths():
    weights, tokens = random_case(5, n_layers=2, n_heads=3)
    pattern, order = random_pattern(weights, tokens), [2, 0, 1]
    permuted = replace(weights, W_V=weights.W_V[:, order], W_O=weights.W_O[:, order])
    before = logits_of_paths(weights, tokens, pattern)
    after = logits_of_paths(permuted, tokens, pattern[:, :, order])
    renamed = {tuple((layer, order[head]) for layer, head in heads): logits
               for heads, logits in after.items()}
    assert_paths_agree(before, renamed)
    assert any(np.abs(before[heads] - after[heads]).max() > 0.01 for heads in before)


@pytest.mark.parametrize("positions", POSITIONS)
def test_permuting_the_vocabulary_permutes_logits(positions):
    weights, tokens = random_case(6, positions=positions)
    pattern, order = random_pattern(weights, tokens), np.random.default_rng(0).permutation(7)
    permuted = replace(weights, W_E=weights.W_E[:, order], W_U=weights.W_U[order])
    renamed = np.argsort(order)[tokens]
    after = logits_of_paths(permuted, renamed, pattern)
    before = logits_of_paths(weights, tokens, pattern)
    assert_paths_agree({heads: logits[..., order] for heads, logits in before.items()}, after)


def test_permuting_the_batch_permutes_every_path():
    weights, tokens = random_case(7, b=3)
    pattern, order = random_pattern(weights, tokens), [2, 0, 1]
    before = logits_of_paths(weights, tokens, pattern)
    after = logits_of_paths(weights, tokens[order], pattern[:, order])
    assert_paths_agree({heads: logits[order] for heads, logits in before.items()}, after)


@pytest.mark.parametrize("positions", POSITIONS)
def test_causal_patterns_make_every_path_causal_and_others_do_not(positions):
    weights, tokens = random_case(8, i=6, positions=positions)
    any_pattern = random_pattern(weights, tokens)
    for pattern, causal in (np.tril(any_pattern), True), (any_pattern, False):
        whole = logits_of_paths(weights, tokens, pattern)
        prefix = logits_of_paths(weights, tokens[:, :4], pattern[..., :4, :4])
        assert_paths_agree({heads: logits[:, :4] for heads, logits in whole.items()}, prefix,
                           agree=causal)


def test_a_row_added_to_W_U_moves_logits_but_no_probability():
    """Of each path, too, the logits of all tokens move alike."""
    weights, tokens = random_case(9)
    row = np.random.default_rng(0).normal(size=5)
    moved = replace(weights, W_U=weights.W_U + row)
    pattern = random_pattern(weights, tokens)
    before, after = (logits_of_paths(W, tokens, pattern) for W in (weights, moved))
    assert_paths_agree(before, after, agree=False)
    for heads in before:
        shift = after[heads] - before[heads]
        assert_close(shift, np.repeat(shift[..., :1], 7, -1), 1e-12, np.abs(after[heads]).max())


# Bad input.

BAD_PATTERNS = {
    "a layer short": (slice(1), "l=2"),
    "no batch": ((slice(None), 0), r"pattern must have axes \(l, b, h, i, j\)"),
    "another batch": ((slice(None), slice(1)), "b=2"),
    "a head short": ((slice(None), slice(None), slice(2)), "h=3"),
    "too few destinations": ((..., slice(3), slice(None)), "i=4"),
    "too few sources": ((..., slice(3)), "j=4"),
}


@pytest.mark.parametrize("index, says", BAD_PATTERNS.values(), ids=BAD_PATTERNS)
@pytest.mark.parametrize("call", [expand_logits, logits_by_order])
def test_bad_patterns_get_one_clear_line(call, index, says):
    weights, tokens = random_case(0)
    with pytest.raises(InputError, match=says) as caught:
        call(weights, tokens, random_pattern(weights, tokens)[index])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, object, str])
@pytest.mark.parametrize("call", [expand_logits, logits_by_order])
def test_patterns_that_would_not_add_up_are_refused(call, dtype):
    """As Booleans, two ways from one place to another would count as one."""
    weights, tokens = random_case(0)
    with pytest.raises(InputError, match="pattern must") as caught:
        call(weights, tokens, np.ones((2, 2, 3, 4, 4)).astype(dtype))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [expand_logits, logits_by_order])
@pytest.mark.parametrize("tokens", [[[0, 7]], [[-1, 0]], [[0.0, 1.0]], [0, 1]])
def test_bad_tokens_get_one_clear_line(call, tokens):
    weights, _ = random_case(0)
    with pytest.raises(InputError, match="tokens must"):
        call(weights, tokens, np.ones((2, 1, 3, 2, 2)))


@pytest.mark.parametrize("destination, target", [(4, 0), (-1, 0), (0, 7), (0, -1)])
def test_a_ledger_of_a_place_or_token_that_is_none(destination, target):
    weights, tokens = random_case(0, b=1)
    with pytest.raises(InputError, match="destination < 4 and target < 7; got"):
        ledger(weights, tokens, random_pattern(weights, tokens), destination, target)


def test_a_ledger_is_of_one_context():
    weights, tokens = random_case(0, b=2)
    with pytest.raises(InputError, match="b=1"):
        ledger(weights, tokens, random_pattern(weights, tokens), 0, 0)


def test_arguments_are_not_written_to():
    weights, tokens = random_case(1)
    pattern = random_pattern(weights, tokens)
    for array in (*dict(weights.items()).values(), tokens, pattern):
        array.setflags(write=False)
    for path in expand_logits(weights, tokens, pattern):
        path.logits
    logits_by_order(weights, tokens, pattern)
    ledger(weights, tokens[:1], pattern[:, :1], 2, 3)
    assert_paths_agree(logits_of_paths(weights, tokens, pattern),
                       logits_of_paths(weights, tokens.tolist(), pattern.copy()))


# The checks themselves fail on mistakes.

def transposed(function):
    return lambda *arguments: function(*arguments).mT


def doubled(function):
    return lambda *arguments: function(*arguments) * (1 + 1e-9)


def reversed_heads(reduce):
    return lambda step, heads, identity: reduce(step, heads[::-1], identity)


def earlier_first(product):
    """W_OV^{earlier} W_OV^{later}, the wrong way round."""
    return lambda left, *middle: product(left, *middle[-2::-1], middle[-1])


def without_positions(function):
    return lambda weights, tokens: weights.W_E.mT[tokens]


CHECKS = {
    "sums with the model's patterns": lambda case: check_sums_with_the_models_patterns(*case[:2]),
    "sums with any patterns": lambda case: check_sums_with_any_patterns(*case),
    "each path": lambda case: check_each_path(*case),
    "ledger": lambda case: check_ledger(*case, 1, 2),
}
MISTAKES = [
    ("W_OV", transposed, CHECKS),
    ("W_OV", doubled, CHECKS),
    ("reduce", reversed_heads, list(CHECKS)[:3]),
    ("reduce", transposed, list(CHECKS)[:3]),
    ("product", earlier_first, list(CHECKS)[:3]),
    ("residual_0", without_positions, [list(CHECKS)[n] for n in (0, 1, 3)]),
]


@pytest.mark.parametrize("name, mistake, seen_by", MISTAKES,
                         ids=[f"{name} {mistake.__name__}" for name, mistake, _ in MISTAKES])
def test_the_checks_see_a_mistake(monkeypatch, name, mistake, seen_by):
    weights, tokens = random_case(1, positions="standard", n_layers=2, n_heads=2)
    case = Frozen(weights, tokens, random_pattern(weights, tokens))
    for check in CHECKS.values():
        check(case)
    monkeypatch.setattr(expansion, name, mistake(getattr(expansion, name)))
    monkeypatch.setitem(globals(), name, getattr(expansion, name))
    for check in seen_by:
        with pytest.raises(AssertionError):
            CHECKS[check](case)


def test_the_sum_cannot_see_a_wrong_mask():
    """Why `rebuild` is needed: with frozen patterns the claim is linearity, no more."""
    weights, tokens = random_case(2)
    flat = replace(weights, W_Q=0 * weights.W_Q)
    wrong = np.full((2, 2, 3, 4, 4), 0.25)
    logits, scale = total(path.logits for path in expand_logits(flat, tokens, wrong))
    assert_close(logits, np.array([dense.looped_logits(flat, *context) for _, context in
                                   dense.contexts(tokens, wrong)]), 1e-12, scale)
    assert np.abs(logits - forward(flat, tokens).logits).max() > 0.01
