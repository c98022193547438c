"""Terms of the scores: one by one against dense matrices, their sums against the model.

And the other half of the claim: `rebuild` makes the model's patterns without the model.
"""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minicircuits.circuits import expansion, score_expansion
from minicircuits.circuits.heads import positional_qk_circuits, qk_circuit
from minicircuits.circuits.score_expansion import Split, expand_scores, rebuild, split_scores
from minicircuits.model.transformer import forward
from minicircuits.notation import POSITIONS, InputError
from minicircuits.plain import model as plain
from tests.circuits import dense
from tests.circuits.dense import Frozen, draw_frozen, invertible, random_pattern, total
from tests.draws import assert_close, draw_case, random_case

SOME_LAYERS = st.sampled_from((2, 1, 3))


def draw_head(data, weights, last_layer=2):
    return (data.draw(st.integers(0, min(weights.n_layers - 1, last_layer))),
            data.draw(st.integers(0, weights.n_heads - 1)))


# The sum over pairs of paths is what the forward pass computes.

def check_sums_with_the_models_patterns(weights, tokens, layer, head):
    acts = forward(weights, tokens)
    terms = expand_scores(weights, tokens, acts.pattern, layer, head)
    scores, scale = total(term.scores for term in terms)
    assert_close(scores, acts.scores[layer, :, head], 1e-12, scale, "expand_scores")
    parts = split_scores(weights, tokens, acts.pattern, layer, head)
    assert_close(sum(parts), acts.scores[layer, :, head], 1e-12, scale, "split_scores")
    for kind, part in zip(Split._fields, parts):
        of_this_kind = [term.scores for term in terms if term.kind == kind]
        expected = sum(of_this_kind, np.zeros_like(scores))
        assert_close(part, expected, 1e-12, scale, kind)


@settings(max_examples=60, deadline=None)
@given(draw_frozen(n_layers=SOME_LAYERS), st.data())
def test_terms_sum_to_the_scores_of_the_forward_pass(case, data):
    head = draw_head(data, case.weights, last_layer=1)
    check_sums_with_the_models_patterns(case.weights, case.tokens, *head)


@settings(max_examples=12, deadline=None)
@given(draw_frozen(n_layers=st.just(3), max_heads=2), st.data())
def test_terms_sum_to_the_scores_of_a_third_layer(case, data):
    head = data.draw(st.integers(0, case.weights.n_heads - 1))
    check_sums_with_the_models_patterns(case.weights, case.tokens, 2, head)


def test_complex_weights_pass_through():
    for positions in POSITIONS:
        weights, tokens = random_case(0, n_layers=2, n_heads=2, positions=positions,
                                      dtype=np.complex128)
        check_sums_with_the_models_patterns(weights, tokens, 1, 1)


def test_every_head_of_one_model():
    """All layers and heads at once: a head that reads another's weights would show."""
    weights, tokens = random_case(1, n_layers=2, n_heads=3)
    for layer in range(2):
        for head in range(3):
            check_sums_with_the_models_patterns(weights, tokens, layer, head)


# Frozen patterns that no model would have, against loops.

def check_sums_with_any_patterns(weights, tokens, pattern, layer, head):
    scores, scale = total(term.scores
                          for term in expand_scores(weights, tokens, pattern, layer, head))
    looped = np.array([dense.looped_scores(weights, *context, layer, head)
                       for _, context in dense.contexts(tokens, pattern)])
    assert_close(scores, looped, 1e-12, scale, "expand_scores")
    assert_close(sum(split_scores(weights, tokens, pattern, layer, head)), looped, 1e-12, scale,
                 "split_scores")


@settings(max_examples=30, deadline=None)
@given(draw_frozen(n_layers=SOME_LAYERS), st.data())
def test_any_frozen_patterns_equal_the_loops(case, data):
    check_sums_with_any_patterns(*case, *draw_head(data, case.weights, last_layer=1))


def test_patterns_of_the_layer_itself_and_later_ones_do_not_matter():
    weights, tokens = random_case(2, n_layers=3)
    one, other = random_pattern(weights, tokens, 0), random_pattern(weights, tokens, 1)
    other[0] = one[0]
    for patterns in (one, other), (other, one):
        first, second = (split_scores(weights, tokens, pattern, 1, 2) for pattern in patterns)
        assert all((a == b).all() for a, b in zip(first, second))
    assert (split_scores(weights, tokens, one, 2, 0).K
            != split_scores(weights, tokens, other, 2, 0).K).any()


# Each term on its own.

def check_each_term(weights, tokens, pattern, layer, head):
    """(A_q t) W (A_k t)ᵀ, from each side's product of kron(A, W_OV) and one-hot sources."""
    QK = weights.W_Q[layer, head].T @ weights.W_K[layer, head] / sqrt(weights.d_head)
    for term in expand_scores(weights, tokens, pattern, layer, head):
        for b, (ids, A) in dense.contexts(tokens, pattern):
            n, started, x = len(ids), {}, {}
            for name, side in ("q", term.query), ("k", term.key):
                heads = dense.path_operator(weights, A, side.heads)
                start = dense.sources(weights, ids)[side.source]
                x[name] = (heads @ start).reshape(n, -1)
                embed = weights.W_E if side.source == "token" else weights.W_pos
                W = getattr(weights, f"W_{name.upper()}")[layer, head]
                assert_close(np.kron(side.A[b], side.W.AB),
                             np.kron(np.eye(n), W) @ heads @ np.kron(np.eye(n), embed),
                             1e-12, np.abs(W).sum() * np.abs(heads).max(), side.label)
                assert_close(side.q_or_k[b], x[name] @ W.T, 1e-12,
                             np.abs(W).sum() * np.abs(x[name]).max(), side.label)
                t = (dense.one_hot(ids, weights.d_vocab) if side.source == "token"
                     else dense.one_hot(range(n), weights.n_ctx))
                started[name] = side.A[b] @ t
            scores = np.array([[sum(x["q"][i, d] * QK[d, c] * x["k"][j, c]
                                    for d in range(len(QK)) for c in range(len(QK)))
                                for j in range(n)] for i in range(n)])
            scale = np.abs(x["q"]).max() * np.abs(QK).sum() * np.abs(x["k"]).max()
            assert_close(term.scores[b], scores, 1e-12, scale, term.label)
            assert_close(started["q"] @ term.W.AB @ started["k"].T, scores, 1e-12, scale,
                         term.label)


@settings(max_examples=25, deadline=None)
@given(draw_frozen(n_layers=st.sampled_from((2, 1)), max_heads=2), st.data())
def test_each_term_is_bilinear_in_two_paths(case, data):
    weights, tokens, pattern = case
    check_each_term(weights, tokens[:1], pattern[:, :1], *draw_head(data, weights))


@settings(max_examples=15, deadline=None)
@given(draw_frozen(n_layers=st.just(2), max_heads=2))
def test_terms_of_the_paper_in_its_own_letters(case):
    """W_Eᵀ W_QK W_E, and W_Eᵀ W_OV^qᵀ W_QK W_E, W_Eᵀ W_QK W_OV^k W_E, and both at once."""
    weights, tokens, pattern = case
    E, QK = weights.W_E, weights.W_Q[1, 0].T @ weights.W_K[1, 0] / sqrt(weights.d_head)
    OV = [W_O @ W_V for W_O, W_V in zip(weights.W_O[0], weights.W_V[0])]
    for term in expand_scores(weights, tokens, pattern, 1, 0):
        if (term.query.source, term.key.source) == ("token", "token"):
            W = {"neither": lambda: E.T @ QK @ E,
                 "Q": lambda: E.T @ OV[term.query.heads[0][1]].T @ QK @ E,
                 "K": lambda: E.T @ QK @ OV[term.key.heads[0][1]] @ E,
                 "both": lambda: (E.T @ OV[term.query.heads[0][1]].T @ QK
                                  @ OV[term.key.heads[0][1]] @ E)}[term.kind]()
            assert_close(term.W.AB, W, 1e-12)


def test_direct_terms_are_the_qk_circuits():
    """The token term and the three positional ones, less the scale."""
    weights, tokens = random_case(3, n_layers=2)
    terms = {term.label: term.W.AB for term in
             expand_scores(weights, tokens, random_pattern(weights, tokens), 1, 2)}
    positional = positional_qk_circuits(weights, 1, 2)
    for label, circuit in {"token · token": qk_circuit(weights, 1, 2),
                           "position · position": positional.position_position,
                           "position · token": positional.position_token,
                           "token · position": positional.token_position}.items():
        assert_close(terms[label], circuit.AB / 2, 1e-12, name=label)      # √d_head = 2


# How many there are, and what they are called.

@settings(max_examples=40, deadline=None)
@given(draw_case(n_layers=st.integers(1, 3)), st.data())
def test_numbers_of_terms(case, data):
    weights, tokens = case
    layer, head = draw_head(data, weights)
    if weights.positions == "standard" and layer == 2 and weights.n_heads > 4:
        layer = 1                                    # 4 · 8⁴ terms are too many for a test
    n_paths = (1 + weights.n_heads) ** layer
    expected = {"none": n_paths ** 2, "shortformer": (n_paths + 1) ** 2,
                "standard": 4 * n_paths ** 2}[weights.positions]
    terms = expand_scores(weights, tokens, random_pattern(weights, tokens), layer, head)
    assert len(terms) == expected
    direct = 1 if weights.positions == "none" else 2           # sides without heads
    n_sides = {"none": n_paths, "shortformer": n_paths + 1,
               "standard": 2 * n_paths}[weights.positions]
    kinds = [term.kind for term in terms]
    assert {kind: kinds.count(kind) for kind in Split._fields} == {
        "neither": direct ** 2, "Q": direct * (n_sides - direct),
        "K": direct * (n_sides - direct), "both": (n_sides - direct) ** 2}
    for term in terms:
        assert term.kind == {(False, False): "neither", (True, False): "Q",
                             (False, True): "K", (True, True): "both"}[
                                 bool(term.query.heads), bool(term.key.heads)]
        assert (term.layer, term.head) == (layer, head)
        assert all(earlier < layer for side in (term.query, term.key) for earlier, _ in side.heads)


def test_labels():
    weights, tokens = random_case(0, n_layers=2, n_heads=2)
    terms = expand_scores(weights, tokens, random_pattern(weights, tokens), 1, 0)
    labels = [term.label for term in terms]
    assert labels[:4] == ["token · token", "token · token→0.0", "token · token→0.1",
                          "token · position"]
    assert labels[-1] == "position · position" and len(set(labels)) == len(labels) == 16
    weights, tokens = random_case(0, n_layers=3, n_heads=2, positions="standard")
    terms = expand_scores(weights, tokens, random_pattern(weights, tokens), 2, 0)
    assert terms[-1].label == "position→0.1→1.1 · position→0.1→1.1"
    assert terms[-1].W.shape == (6, 6) and terms[0].W.shape == (7, 7)


def test_listing_terms_computes_nothing(monkeypatch):
    def never(*_):
        raise AssertionError("computed before it was asked for")
    for name in ("product", "propagate"):
        monkeypatch.setattr(score_expansion, name, never)
    for name in ("product", "reduce", "W_OV"):
        monkeypatch.setattr(expansion, name, never)
    weights, tokens = random_case(2, n_layers=3)
    terms = expand_scores(weights, tokens, random_pattern(weights, tokens), 2, 0)
    assert len(terms) == 17 ** 2 and all(term.label and term.kind for term in terms)


def test_sides_are_shared_between_terms():
    """One A, W and q or k for each side, not one for each pair."""
    weights, tokens = random_case(2, n_layers=2)
    terms = expand_scores(weights, tokens, random_pattern(weights, tokens), 1, 0)
    assert len({id(term.query) for term in terms}) == len({id(term.key) for term in terms}) == 5
    assert terms[0].query.q_or_k is terms[1].query.q_or_k


# Layer 0 has no Q- or K-composition; layer 1 has.

@pytest.mark.parametrize("positions", POSITIONS)
def test_layer_0_composes_with_nothing(positions):
    weights, tokens = random_case(4, n_layers=2, positions=positions)
    acts = forward(weights, tokens)
    parts = split_scores(weights, tokens, acts.pattern, 0, 1)
    assert_close(parts.neither, acts.scores[0, :, 1], 1e-12)
    assert not any(part.any() for part in (parts.Q, parts.K, parts.both))
    assert all(part.any() for part in split_scores(weights, tokens, acts.pattern, 1, 1))


def test_q_and_k_are_told_apart():
    """Exchanging W_Q and W_K transposes the scores and exchanges the two kinds."""
    weights, tokens = random_case(5, n_layers=2)
    pattern = random_pattern(weights, tokens)
    parts = split_scores(weights, tokens, pattern, 1, 0)
    swapped = split_scores(replace(weights, W_Q=weights.W_K, W_K=weights.W_Q), tokens,
                           pattern, 1, 0)
    for kind, other in zip(Split._fields, ("neither", "K", "Q", "both")):
        assert_close(getattr(swapped, kind), getattr(parts, other).mT, 1e-12, name=kind)
    assert np.abs(parts.Q - parts.K.mT).max() > 0.1


# The model rebuilt.

def check_rebuild(weights, tokens, tolerance=1e-12):
    acts, rebuilt = forward(weights, tokens), rebuild(weights, tokens)
    assert_close(rebuilt.pattern, acts.pattern, tolerance, name="pattern")
    assert_close(rebuilt.logits, acts.logits, tolerance, name="logits")


@settings(max_examples=120, deadline=None)
@given(draw_case())
def test_patterns_and_logits_are_rebuilt(case):
    check_rebuild(*case)


@settings(max_examples=20, deadline=None)
@given(draw_case())
def test_rebuilt_from_the_formulas_alone(case):
    """The same against loops that share nothing with either side."""
    acts, rebuilt = plain.forward(*case), rebuild(*case)
    assert_close(rebuilt.pattern, acts.pattern, 1e-12)
    assert_close(rebuilt.logits, acts.logits, 1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.complex128, 1e-12)])
def test_rebuild_in_other_dtypes(dtype, tolerance):
    for positions in POSITIONS:
        check_rebuild(*random_case(7, positions=positions, dtype=dtype), tolerance)


def test_scores_far_beyond_the_range_of_exp():
    weights, tokens = random_case(8, i=6)
    weights = replace(weights, W_Q=1e5 * weights.W_Q)
    check_rebuild(weights, tokens, 1e-8)


def test_rebuilt_patterns_are_causal():
    weights, tokens = random_case(9, i=6)
    rebuilt, other = rebuild(weights, tokens), tokens.copy()
    assert (rebuilt.pattern[..., np.triu(np.ones((6, 6), bool), 1)] == 0).all()
    assert_close(rebuilt.pattern.sum(-1), np.ones((2, 2, 3, 6)), 1e-14)
    other[:, 4:] = (other[:, 4:] + 1) % 7
    assert_close(rebuild(weights, other).logits[:, :4], rebuilt.logits[:, :4], 1e-14)


@pytest.mark.parametrize("positions", POSITIONS)
def test_one_token(positions):
    weights, tokens = random_case(10, i=1, positions=positions)
    rebuilt = rebuild(weights, tokens)
    assert (rebuilt.pattern == 1).all()
    check_rebuild(weights, tokens)


# Symmetries.

def terms_of(weights, tokens, pattern):
    return np.array([term.scores for term in expand_scores(weights, tokens, pattern, 1, 0)])


def test_every_term_keeps_a_change_of_basis_between_q_and_k():
    weights, tokens = random_case(11)
    pattern, M = random_pattern(weights, tokens), invertible(np.random.default_rng(0), 4)
    before = terms_of(weights, tokens, pattern)
    kept = replace(weights, W_Q=M @ weights.W_Q, W_K=np.linalg.inv(M).T @ weights.W_K)
    broken = replace(weights, W_Q=M @ weights.W_Q, W_K=np.linalg.inv(M) @ weights.W_K)
    assert_close(terms_of(kept, tokens, pattern), before, 1e-12)
    assert (np.abs(terms_of(broken, tokens, pattern) - before).max((1, 2, 3)) > 1e-3).all()


def test_every_term_keeps_a_rotation_of_the_residual_stream():
    weights, tokens = random_case(12)
    pattern = random_pattern(weights, tokens)
    R = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    rotated = replace(weights, W_E=R @ weights.W_E, W_pos=R @ weights.W_pos,
                      W_O=R @ weights.W_O, **{name: getattr(weights, name) @ R.T
                                              for name in ("W_Q", "W_K", "W_V", "W_U")})
    before = terms_of(weights, tokens, pattern)
    assert_close(terms_of(rotated, tokens, pattern), before, 1e-12)
    half = replace(rotated, W_K=weights.W_K)
    assert (np.abs(terms_of(half, tokens, pattern) - before).max((1, 2, 3)) > 1e-3).all()


def test_padding_heads_with_zeros_rescales_scores():
    """W_QK is the same, but √d_head is not."""
    weights, tokens = random_case(13)
    padded = replace(weights, **{name: np.pad(getattr(weights, name),
                                              ((0, 0), (0, 0), (0, 5), (0, 0)))
                                 for name in ("W_Q", "W_K", "W_V")},
                     W_O=np.pad(weights.W_O, ((0, 0), (0, 0), (0, 0), (0, 5))))
    pattern = random_pattern(weights, tokens)
    assert_close(terms_of(padded, tokens, pattern), terms_of(weights, tokens, pattern) * (2 / 3),
                 1e-12)
    assert np.abs(rebuild(padded, tokens).pattern - rebuild(weights, tokens).pattern).max() > 0.01


def test_a_constant_added_to_a_destinations_row_moves_no_pattern():
    """Dimension 0 is always one: read by W_K it is such a constant, read by W_Q it is not."""
    weights, tokens = random_case(14, positions="none")
    W_E, W_O = weights.W_E.copy(), weights.W_O.copy()
    W_E[0], W_O[:, :, 0] = 1, 0
    weights = replace(weights, W_E=W_E, W_O=W_O)
    reads_one = np.random.default_rng(0).normal(size=(2, 3, 4, 1)) * np.eye(5)[0]
    before = rebuild(weights, tokens)
    on_keys = replace(weights, W_K=weights.W_K + reads_one)
    moved = sum(split_scores(on_keys, tokens, before.pattern, 1, 0))
    moved = moved - sum(split_scores(weights, tokens, before.pattern, 1, 0))
    assert_close(moved, np.repeat(moved[..., :1], 4, -1), 1e-12)
    assert (np.abs(moved) > 1e-3).all()
    assert_close(rebuild(on_keys, tokens).pattern, before.pattern, 1e-12)
    on_queries = rebuild(replace(weights, W_Q=weights.W_Q + reads_one), tokens)
    assert np.abs(on_queries.pattern - before.pattern).max() > 0.01


# Bad input.

@pytest.mark.parametrize("call", [expand_scores, split_scores])
@pytest.mark.parametrize("layer, head", [(2, 0), (-1, 0), (0, 3), (0, -1)])
def test_a_head_that_is_none(call, layer, head):
    weights, tokens = random_case(0)
    with pytest.raises(InputError, match="layer < 2, head < 3, counted from 0; got"):
        call(weights, tokens, random_pattern(weights, tokens), layer, head)


@pytest.mark.parametrize("call", [expand_scores, split_scores])
def test_bad_patterns_and_tokens_get_one_clear_line(call):
    weights, tokens = random_case(0)
    with pytest.raises(InputError, match="j=4") as caught:
        call(weights, tokens, random_pattern(weights, tokens)[..., :3], 1, 0)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="tokens must be from 0 to 6; got 7"):
        call(weights, tokens * 0 + 7, random_pattern(weights, tokens), 1, 0)


@pytest.mark.parametrize("tokens", [[[0, 7]], [[0.0, 1.0]], [0, 1], [[0] * 7]])
def test_rebuild_checks_its_tokens(tokens):
    with pytest.raises(InputError):
        rebuild(random_case(0).weights, tokens)


def test_arguments_are_not_written_to():
    weights, tokens = random_case(1)
    pattern = random_pattern(weights, tokens)
    for array in (*dict(weights.items()).values(), tokens, pattern):
        array.setflags(write=False)
    for term in expand_scores(weights, tokens, pattern, 1, 2):
        term.scores
    split_scores(weights, tokens, pattern, 1, 2)
    rebuild(weights, tokens)


# The checks themselves fail on mistakes.

def other_way_round(read_parts):
    return lambda *layer: read_parts(*layer)[::-1]


def earlier_first(product):
    """W_OV^{earlier} W_OV^{later}, the wrong way round."""
    return lambda left, *middle: product(left, *middle[-2::-1], middle[-1])


def reversed_heads(reduce):
    return lambda step, heads, identity: reduce(step, heads[::-1], identity)


def another_reader(Path):
    """Keys read by W_Q."""
    return lambda source, heads, reader, weights, *rest: Path(source, heads, weights.W_Q[2, 1],
                                                              weights, *rest)


def without_scale(sqrt):
    return lambda number: 1.0


def one_layer_less(propagate):
    return lambda weights, x, pattern: propagate(weights, x, pattern[:-1])


def without_positions(residual_0):
    return lambda weights, tokens: weights.W_E.mT[tokens]


def unmasked(softmax):
    return lambda scores, axis: softmax(np.where(scores == -np.inf, 0, scores), axis=axis)


def over_destinations(softmax):
    return lambda scores, axis: softmax(scores, axis=-2)


CHECKS = {
    "sums with the model's patterns": lambda case: check_sums_with_the_models_patterns(
        *case[:2], 2, 1),
    "sums with any patterns": lambda case: check_sums_with_any_patterns(*case, 2, 1),
    "each term": lambda case: check_each_term(case.weights, case.tokens[:1], case.pattern[:, :1],
                                              2, 1),
    "rebuild": lambda case: check_rebuild(*case[:2]),
}
MISTAKES = [
    (score_expansion, "read_parts", other_way_round, (0,)),
    (score_expansion, "Path", another_reader, (0, 1, 2)),
    (expansion, "product", earlier_first, (0, 1, 2)),
    (expansion, "reduce", reversed_heads, (0, 1, 2)),
    (score_expansion, "sqrt", without_scale, (0, 1, 2, 3)),
    (score_expansion, "propagate", one_layer_less, (0, 1, 3)),
    (score_expansion, "residual_0", without_positions, (0, 1, 3)),
    (score_expansion, "softmax", unmasked, (3,)),
    (score_expansion, "softmax", over_destinations, (3,)),
]


@pytest.mark.parametrize("module, name, mistake, seen_by", MISTAKES,
                         ids=[f"{name} {mistake.__name__}" for _, name, mistake, _ in MISTAKES])
def test_the_checks_see_a_mistake(monkeypatch, module, name, mistake, seen_by):
    weights, tokens = random_case(1, positions="standard", n_layers=3, n_heads=2)
    case, checks = Frozen(weights, tokens, random_pattern(weights, tokens)), list(CHECKS.values())
    for check in checks:
        check(case)
    monkeypatch.setattr(module, name, mistake(getattr(module, name)))
    for number in seen_by:
        with pytest.raises(AssertionError):
            checks[number](case)
