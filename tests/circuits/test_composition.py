"""Composition scores against dense matrices and loops over all pairs; and the erratum."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minicircuits.circuits import composition
from minicircuits.circuits.composition import (chance_levels, composition_baseline,
                                               composition_excess, composition_score,
                                               composition_scores)
from minicircuits.notation import InputError, Weights
from tests.circuits.dense import draw_frozen, invertible
from tests.draws import SEEDS, assert_close, random_weights

KINDS = ("Q", "K", "V")
LAYERED = ("W_Q", "W_K", "W_V", "W_O")


def frobenius(M):
    return sum(abs(complex(number)) ** 2 for row in M for number in row) ** 0.5


def dense_scores(weights, kind):
    """One pair of heads after the other, with (d, d) matrices."""
    L, H = weights.n_layers, weights.n_heads
    scores = np.zeros((L, H, L, H))
    for layer, head, earlier_layer, earlier in product(range(L), range(H), range(L), range(H)):
        if earlier_layer < layer:
            W_QK = weights.W_Q[layer, head].T @ weights.W_K[layer, head]
            M = {"Q": W_QK.T, "K": W_QK,
                 "V": weights.W_O[layer, head] @ weights.W_V[layer, head]}[kind]
            W_OV = weights.W_O[earlier_layer, earlier] @ weights.W_V[earlier_layer, earlier]
            if frobenius(M) and frobenius(W_OV):
                scores[layer, head, earlier_layer, earlier] = (
                    frobenius(M @ W_OV) / frobenius(M) / frobenius(W_OV))
    return scores


def check_scores(weights, tolerance=1e-12):
    for kind in KINDS:
        scores, expected = composition_scores(weights, kind), dense_scores(weights, kind)
        assert scores.shape == expected.shape and scores.dtype == weights.dtype
        error = np.abs(scores - expected).max(initial=0)
        assert error <= tolerance, f"{kind}: off by {error:.1e}"
        assert scores.min(initial=0) >= 0 and scores.max(initial=0) <= 1 + tolerance


@settings(max_examples=50, deadline=None)
@given(draw_frozen(n_layers=st.sampled_from((3, 2, 1, 0)), max_heads=5))
def test_scores_equal_dense_matrices(case):
    check_scores(case.weights)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([(3, 5), (5, 3), (4, 4), (1, 6), (6, 1), (1, 1)]))
def test_heads_narrower_and_wider_than_the_residual_stream(seed, sizes):
    d_head, d_model = sizes
    check_scores(random_weights(np.random.default_rng(seed), d_head=d_head, d_model=d_model))


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_scores_are_0_where_not_earlier(seed):
    weights = random_weights(np.random.default_rng(seed), n_layers=3)
    for kind in KINDS:
        scores = composition_scores(weights, kind)
        for layer, earlier in product(range(3), range(3)):
            assert (scores[layer, :, earlier] != 0).all() == (earlier < layer)
            assert (scores[layer, :, earlier] == 0).all() == (earlier >= layer)


@pytest.mark.parametrize("n_layers", [0, 1])
def test_without_an_earlier_layer_there_is_nothing(n_layers):
    weights = random_weights(np.random.default_rng(0), n_layers=n_layers)
    for kind in KINDS:
        scores = composition_scores(weights, kind)
        assert scores.shape == (n_layers, 3, n_layers, 3) and not scores.any()


@pytest.mark.parametrize("name", LAYERED)
def test_a_head_that_is_zero_scores_0(name):
    """0/0: neither NaN nor a warning, and the other heads' scores stay."""
    weights = random_weights(np.random.default_rng(0), n_layers=3)
    for layer in 0, 1, 2:
        changed = getattr(weights, name).copy()
        changed[layer, 1] = 0
        check_scores(replace(weights, **{name: changed}))
    check_scores(replace(weights, **{name: 0 * getattr(weights, name)}))


def test_float32():
    weights = random_weights(np.random.default_rng(1), n_layers=3, d_model=9)
    rounded = weights.astype(np.float32)
    for kind in KINDS:
        scores = composition_scores(rounded, kind)
        assert scores.dtype == np.float32
        assert np.abs(scores - composition_scores(weights, kind)).max() < 1e-6


def test_complex_weights():
    """As norms do, by moduli: the scores are real."""
    weights = random_weights(np.random.default_rng(2), dtype=np.complex128)
    for kind in KINDS:
        assert composition_scores(weights, kind).dtype == np.float64
        assert np.abs(composition_scores(weights, kind) - dense_scores(weights, kind)).max() < 1e-12


@pytest.mark.parametrize("factor", [1e-200, 1e-100, 1e100, 1e155, 1e300])
def test_weights_far_from_1_score_the_same(factor):
    """Products leave the range of floats: still no zero, NaN or warning."""
    weights = random_weights(np.random.default_rng(3))
    scaled = replace(weights, **{name: factor * getattr(weights, name) for name in LAYERED})
    for kind in KINDS:
        assert_close(composition_scores(scaled, kind), composition_scores(weights, kind), 1e-12)
        check_definition(scaled, kind)


def check_definition(weights, kind):
    """The ratio of norms of each pair alone is what all pairs at once give."""
    scores = composition_scores(weights, kind)
    for later, h, earlier, g in zip(*np.nonzero(later_pairs(weights))):
        score = composition_score(weights, kind, (later, h), (earlier, g))
        assert abs(score - scores[later, h, earlier, g]) <= 1e-12


def later_pairs(weights):
    L, H = weights.n_layers, weights.n_heads
    return np.tri(L, k=-1, dtype=bool)[:, None, :, None] & np.ones((L, H, L, H), bool)


@settings(max_examples=20, deadline=None)
@given(draw_frozen(n_layers=st.sampled_from((3, 2))), st.sampled_from(KINDS))
def test_scores_equal_the_definition(case, kind):
    check_definition(case.weights, kind)


@pytest.mark.parametrize("name", LAYERED)
def test_by_definition_too_a_head_that_is_zero_scores_0(name):
    weights = random_weights(np.random.default_rng(0))
    nothing = replace(weights, **{name: 0 * getattr(weights, name)})
    for kind in KINDS:
        check_definition(nothing, kind)


# Clean circuits: closed forms, and overlap that is nothing but rounding.

def clean_weights(R, reads, writes):
    """Two layers of one head each, d_head 2: head l reads dimensions reads[l] for queries,
    keys and values, and writes writes[l]; then the residual stream is rotated by R."""
    d = len(R)
    read = {name: np.array([[np.eye(d)[list(dimensions)]] for dimensions in of_layer]) @ R.T
            for name, of_layer in reads.items()}
    W_O = R @ np.array([[np.eye(d)[:, list(dimensions)]] for dimensions in writes])
    return Weights(W_E=R, W_pos=None, W_U=R.T, W_O=W_O, positions="none", **read)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_subspaces_that_do_not_overlap(seed):
    """Exactly 0 but for rounding, where ⟨MᵀM, W Wᵀ⟩ would lose half of the digits.

    Layer 0 writes dimensions 4 and 5. Of layer 1 only the keys read there.
    """
    R = np.linalg.qr(np.random.default_rng(seed).normal(size=(9, 9)))[0]
    weights = clean_weights(R, {"W_Q": [(0, 1), (2, 3)], "W_K": [(0, 1), (4, 5)],
                                "W_V": [(0, 1), (6, 7)]}, writes=[(4, 5), (8, 0)])
    assert 0 <= composition_scores(weights, "Q")[1, 0, 0, 0] <= 1e-12
    assert 0 <= composition_scores(weights, "V")[1, 0, 0, 0] <= 1e-12
    assert abs(composition_scores(weights, "K")[1, 0, 0, 0] - 2 ** -0.5) <= 1e-12
    check_scores(weights)


def test_kinds_are_told_apart():
    """A head whose queries alone, or values alone, read what the first one writes."""
    for kind, name in zip(KINDS, ("W_Q", "W_K", "W_V")):
        reads = {other: [(0, 1), (6, 7)] for other in ("W_Q", "W_K", "W_V")}
        reads[name] = [(0, 1), (4, 5)]
        weights = clean_weights(np.eye(9), reads, writes=[(4, 5), (8, 0)])
        scores = [composition_scores(weights, k)[1, 0, 0, 0] for k in KINDS]
        assert np.abs(np.array(scores) - [2 ** -0.5 * (k == kind) for k in KINDS]).max() <= 1e-15


def test_rank_one_heads_in_closed_form():
    """‖a bᵀ c dᵀ‖ / (‖a bᵀ‖ ‖c dᵀ‖) = |cos of the angle between b and c|."""
    weights = random_weights(np.random.default_rng(4), d_head=1)
    reads = {"Q": weights.W_Q, "K": weights.W_K, "V": weights.W_V}
    for kind in KINDS:
        for head, earlier in product(range(3), range(3)):
            b, c = reads[kind][1, head, 0], weights.W_O[0, earlier, :, 0]
            cosine = abs(sum(b * c)) / (sum(b * b) * sum(c * c)) ** 0.5
            score = composition_scores(weights, kind)[1, head, 0, earlier]
            assert abs(score - cosine) <= 1e-12


def test_a_reader_of_everything_composes_in_full():
    """W_QK = Id, not rank-limited: what it keeps of each writer is all of it, over √d_model."""
    weights = random_weights(np.random.default_rng(5), d_head=5, d_model=5)
    identity = np.broadcast_to(np.eye(5), weights.W_Q.shape)
    whole = replace(weights, W_Q=identity, W_K=identity)
    for kind in "QK":
        assert_close(composition_scores(whole, kind)[1, :, 0], np.full((3, 3), 5 ** -0.5), 1e-12)


# The erratum.

def test_erratum_cyclic_permutation_keeps_the_trace_but_not_the_frobenius_norm():
    """The paper's first diagram took W_V¹ W_O² W_V² W_O¹ for W_O² W_V² W_O¹ W_V¹.

    Trace and non-zero eigenvalues are the same, which is why it went unseen; norms are not.
    """
    weights = random_weights(np.random.default_rng(6), n_layers=2, n_heads=3)
    scores, wrong_scores = composition_scores(weights, "V"), np.zeros((3, 3))
    for later, earlier in product(range(3), range(3)):
        factors = [weights.W_O[1, later], weights.W_V[1, later],
                   weights.W_O[0, earlier], weights.W_V[0, earlier]]
        right = np.linalg.multi_dot(factors)
        wrong = np.linalg.multi_dot(factors[-1:] + factors[:-1])
        assert abs(np.trace(right) - np.trace(wrong)) <= 1e-12
        for k in 2, 3, 4:                            # power sums: the same eigenvalues
            assert abs(np.trace(np.linalg.matrix_power(right, k))
                       - np.trace(np.linalg.matrix_power(wrong, k))) <= 1e-12
        norms = (frobenius(factors[0] @ factors[1]) * frobenius(factors[2] @ factors[3]))
        assert abs(scores[1, later, 0, earlier] - frobenius(right) / norms) <= 1e-12
        wrong_scores[later, earlier] = frobenius(wrong) / norms
    assert (np.abs(scores[1, :, 0] / wrong_scores - 1) > 0.01).all()


@pytest.mark.parametrize("kind", "QK")
def test_erratum_for_queries_and_keys(kind):
    """W_K W_O W_V W_Qᵀ for W_Qᵀ W_K W_O W_V; by d_head it is even of another shape."""
    weights = random_weights(np.random.default_rng(7), n_layers=2, n_heads=1)
    read, other = (weights.W_Q, weights.W_K) if kind == "Q" else (weights.W_K, weights.W_Q)
    factors = [other[1, 0].T, read[1, 0], weights.W_O[0, 0], weights.W_V[0, 0]]
    right, wrong = np.linalg.multi_dot(factors), np.linalg.multi_dot(factors[1:] + factors[:1])
    norms = frobenius(factors[0] @ factors[1]) * frobenius(factors[2] @ factors[3])
    score = composition_scores(weights, kind)[1, 0, 0, 0]
    assert abs(np.trace(right) - np.trace(wrong)) <= 1e-12
    assert abs(score - frobenius(right) / norms) <= 1e-12
    assert abs(score - frobenius(wrong) / norms) > 0.01


# Random weights.

@pytest.mark.parametrize("d_model, d_head", [(24, 3), (24, 24), (24, 40), (60, 8)])
def test_random_weights_score_one_over_root_d_model(d_model, d_head):
    """In the root mean square, whatever d_head and the number of heads."""
    weights = random_weights(np.random.default_rng(0), n_layers=3, n_heads=8, d_model=d_model,
                             d_head=d_head)
    later = later_pairs(weights)
    assert composition_baseline(d_model) == d_model ** -0.5
    for kind in KINDS:
        rms = np.sqrt((composition_scores(weights, kind)[later] ** 2).mean())
        assert abs(rms * d_model ** 0.5 - 1) < 0.1


def test_the_baseline_is_exact_for_a_writer_turned_every_way():
    """E‖M R W‖² = ‖M‖² ‖W‖² / d over random rotations R, for any fixed M and W."""
    rng = np.random.default_rng(0)
    M, W = rng.normal(size=(4, 6)) * [9, 1, 1, 0, 2, 1], rng.normal(size=(6, 2)) * 5
    squares = [frobenius(M @ np.linalg.qr(rng.normal(size=(6, 6)))[0] @ W) ** 2
               for _ in range(4000)]
    expected = (frobenius(M) * frobenius(W) * composition_baseline(6)) ** 2
    assert abs(np.mean(squares) / expected - 1) < 0.05


@pytest.mark.parametrize("d_model, d_head", [(24, 8), (64, 16), (16, 1), (8, 6), (6, 8)])
def test_random_pairs_pass_their_level_as_rarely_as_it_says(d_model, d_head):
    """One in a hundred of 3,456 pairs; hardly fewer where d_model is large."""
    rng, passed = np.random.default_rng(0), 0
    for _ in range(8):
        weights = random_weights(rng, n_layers=2, n_heads=12, d_model=d_model, d_head=d_head)
        passed += sum((composition_scores(weights, kind) > chance_levels(weights, kind, 0.01)).sum()
                      for kind in KINDS)
    assert passed < 52 and (passed > 17 or d_model < 24)           # 34.6 ± 6, were all apart


def test_the_level_of_a_pair_is_that_of_a_writer_turned_every_way():
    """The variance is exact, and of few eigenvalues the tail is long: more so than of many."""
    rng = np.random.default_rng(0)
    M, W = rng.normal(size=(4, 12)) * np.arange(12), rng.normal(size=(12, 2)) * [5, 1]
    scores = np.array([frobenius(M @ np.linalg.qr(rng.normal(size=(12, 12)))[0] @ W)
                       for _ in range(4000)]) / frobenius(M) / frobenius(W)
    weights = Weights(W_E=np.ones((12, 1)), W_pos=None, W_U=np.ones((1, 12)), positions="none",
                      W_Q=np.tile(np.eye(4, 12), (2, 1, 1, 1)), W_K=np.tile(M, (2, 1, 1, 1)),
                      W_V=np.tile(np.eye(4, 12), (2, 1, 1, 1)),
                      W_O=np.tile(np.pad(W, ((0, 0), (0, 2))), (2, 1, 1, 1)))
    for chance, room in (0.1, 0.02), (0.01, 0.005), (0.002, 0.002):
        level = chance_levels(weights, "K", chance)[1, 0, 0, 0]
        assert abs((scores > level).mean() - chance) < room
    others = chance_levels(replace(weights, W_K=weights.W_V), "K", 0.01)[1, 0, 0, 0]
    assert others < chance_levels(weights, "K", 0.01)[1, 0, 0, 0]


def test_a_pair_that_no_turn_changes_has_the_baseline_as_its_level():
    """All of the stream is read and written alike; and a head of zeros passes no level."""
    rng = np.random.default_rng(0)
    turns = np.linalg.qr(rng.normal(size=(4, 2, 1, 6, 6)))[0]
    weights = Weights(np.ones((6, 1)), None, *turns, np.ones((1, 6)), "none")
    for kind in KINDS:
        level = chance_levels(weights, kind, 1e-6)[1, 0, 0, 0]
        assert composition_scores(weights, kind)[1, 0, 0, 0] < level < 1.01 * 6 ** -0.5
        nothing = replace(weights, W_Q=0 * weights.W_Q, W_O=0 * weights.W_O)
        assert not (composition_scores(nothing, kind) > chance_levels(nothing, kind, 0.1)).any()


# Symmetries.

def agree(weights, other, kind):
    """True if all scores are kept, False if all change; a test expects one or the other."""
    moved = np.abs(composition_scores(other, kind) - composition_scores(weights, kind))[1, :, 0]
    return True if (moved <= 1e-12).all() else False if (moved > 1e-7).all() else None


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(KINDS))
def test_scores_keep_every_change_of_basis_of_a_head(seed, kind):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, n_layers=2)
    M, N = invertible(rng, 2, 3, 4), invertible(rng, 2, 3, 4)
    assert agree(weights, replace(
        weights, W_Q=M @ weights.W_Q, W_K=np.linalg.inv(M).mT @ weights.W_K,
        W_V=N @ weights.W_V, W_O=weights.W_O @ np.linalg.inv(N)), kind)
    broken = (replace(weights, W_Q=M @ weights.W_Q, W_K=np.linalg.inv(M) @ weights.W_K)
              if kind in "QK" else
              replace(weights, W_V=N @ weights.W_V, W_O=weights.W_O @ N.mT))
    assert agree(weights, broken, kind) is False


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(KINDS))
def test_scores_keep_rotations_of_the_residual_stream_and_no_other_change_of_it(seed, kind):
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, n_layers=2)
    rotation, other = np.linalg.qr(rng.normal(size=(5, 5)))[0], invertible(rng, 5)

    def changed(S):
        inverse = np.linalg.inv(S)
        return replace(weights, W_E=S @ weights.W_E, W_O=S @ weights.W_O, W_U=weights.W_U @ inverse,
                       W_pos=S @ weights.W_pos, **{name: getattr(weights, name) @ inverse
                                                   for name in ("W_Q", "W_K", "W_V")})
    assert agree(weights, changed(rotation), kind)
    assert agree(weights, changed(other), kind) is False      # the model is the same, though


@pytest.mark.parametrize("kind", KINDS)
def test_scores_follow_permuted_heads(kind):
    weights, order = random_weights(np.random.default_rng(0), n_layers=2), [2, 0, 1]
    permuted = replace(weights, **{name: getattr(weights, name)[:, order] for name in LAYERED})
    scores = composition_scores(weights, kind)
    assert_close(composition_scores(permuted, kind), scores[:, order][..., order], 1e-12)
    assert np.abs(scores[:, order][..., order] - scores).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_scores_keep_scales_padding_and_everything_outside_the_heads(kind):
    rng = np.random.default_rng(0)
    weights = random_weights(rng, n_layers=2)
    scales = rng.uniform(-3, 3, size=(2, 3, 1, 1))
    scaled = replace(weights, W_V=scales * weights.W_V, W_Q=scales * weights.W_Q)
    assert agree(weights, scaled, kind)
    assert agree(weights, replace(
        weights, **{name: np.pad(getattr(weights, name), ((0, 0), (0, 0), (0, 3), (0, 0)))
                    for name in ("W_Q", "W_K", "W_V")},
        W_O=np.pad(weights.W_O, ((0, 0), (0, 0), (0, 0), (0, 3)))), kind)
    assert agree(weights, replace(weights, W_E=2 * weights.W_E, W_U=weights.W_U + 1,
                                  W_pos=0 * weights.W_pos), kind)


def test_exchanging_queries_and_keys_exchanges_their_scores():
    weights = random_weights(np.random.default_rng(0), n_layers=2)
    swapped = replace(weights, W_Q=weights.W_K, W_K=weights.W_Q)
    for kind, other in zip("QKV", "KQV"):
        assert_close(composition_scores(swapped, kind), composition_scores(weights, other), 1e-12)


def test_an_earlier_heads_queries_and_a_later_heads_output_do_not_matter():
    """For Q and K; V is about what the later head writes too."""
    rng = np.random.default_rng(0)
    weights = random_weights(rng, n_layers=2)
    W_Q, W_O = weights.W_Q.copy(), weights.W_O.copy()
    W_Q[0], W_O[1] = rng.normal(size=(2, *W_Q[0].shape))[0], rng.normal(size=W_O[1].shape)
    for kind in KINDS:
        assert agree(weights, replace(weights, W_Q=W_Q), kind)
        assert agree(weights, replace(weights, W_O=W_O), kind) is (kind != "V")


# Bad input.

@pytest.mark.parametrize("kind", ["q", "QK", "", None, ["Q"]])
def test_a_kind_that_is_none(kind):
    with pytest.raises(InputError, match="kind must be (Q, K or V|a text); got"):
        composition_scores(random_weights(np.random.default_rng(0)), kind)


def test_weights_are_not_written_to():
    weights = random_weights(np.random.default_rng(0))
    for _, array in weights.items():
        array.setflags(write=False)
    for kind in KINDS:
        composition_scores(weights, kind)
        chance_levels(weights, kind, 0.1)


# The checks themselves fail on mistakes.

def test_the_checks_see_a_mistake(monkeypatch):
    weights = random_weights(np.random.default_rng(8), n_layers=3)
    check_scores(weights)
    qr = np.linalg.qr
    mistakes = [
        *((np.linalg, "qr", wrong) for wrong in (
            lambda W, mode: W.mT @ W, lambda W, mode: qr(W, mode).mT,
            lambda W, mode: np.abs(qr(W, mode)))),
        *((composition, "unit", wrong) for wrong in (
            lambda W: W, lambda W: W / np.sqrt((W ** 2).sum((-2, -1), keepdims=True) + 1e-9),
            lambda W: W / np.abs(W).max((-2, -1), keepdims=True)))]
    for mistake in mistakes:
        with monkeypatch.context() as patched, pytest.raises((AssertionError, ValueError)):
            patched.setattr(*mistake)
            check_scores(weights)
    right = composition_scores

    def transposed(weights, kind):
        return right(replace(weights, W_O=weights.W_V.mT, W_V=weights.W_O.mT), kind)

    def earlier_times_later(weights, kind):
        backwards = replace(weights, **{name: getattr(weights, name)[::-1] for name in LAYERED})
        return right(backwards, kind)[::-1, :, ::-1].transpose(2, 3, 0, 1)

    for wrong in (transposed, earlier_times_later, lambda W, kind: right(W, kind) ** 2,
                  lambda W, kind: right(W, "K"), lambda W, kind: right(W, kind) * np.nan):
        monkeypatch.setitem(globals(), "composition_scores", wrong)
        with pytest.raises(AssertionError):
            check_scores(weights)


def test_excess_is_over_the_baseline_where_heads_can_compose():
    weights = random_weights(np.random.default_rng(4), n_layers=3)
    for kind in "QKV":
        scores, excess = composition_scores(weights, kind), composition_excess(weights, kind)
        for later, h, earlier, g in product(range(3), repeat=4):
            pair = later, h, earlier, g
            expected = scores[pair] - 1 / np.sqrt(weights.d_model) if earlier < later else 0
            assert abs(excess[pair] - expected) <= 1e-15
