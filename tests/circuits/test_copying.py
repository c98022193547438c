"""The copying score against the eigenvalues of the dense matrix, and what it can not see."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minicircuits.circuits import copying
from minicircuits.circuits.copying import copying_companions, copying_score
from minicircuits.circuits.expansion import expand_logits
from minicircuits.circuits.heads import ov_circuit
from minicircuits.circuits.low_rank import LowRank
from minicircuits.notation import InputError
from tests.circuits.dense import draw_frozen, invertible
from tests.draws import SEEDS, draw_case, random_case, random_weights


def random_circuit(rng, n=30, r=4):
    return LowRank(rng.normal(size=(n, r)), rng.normal(size=(r, n)))


# The score against dense eigenvalues.

def check_score(circuit, tolerance=1e-12):
    """Σλ / Σ|λ| over all eigenvalues of the table; errors grow as eigenvectors get parallel."""
    score, table = copying_score(circuit), circuit.AB
    values, vectors = np.linalg.eig(circuit.AB)
    moved = np.linalg.norm(table) * np.linalg.cond(vectors) / np.abs(values).sum()
    error = abs(score - (values.sum() / np.abs(values).sum()).real)
    assert type(score) is float and -1 <= score <= 1
    assert error <= tolerance * max(1, moved), f"{score}: off by {error:.1e}"
    return score


def first_circuits(case):
    """Single heads, a sum of heads, a virtual head: whatever this model has of them."""
    weights, tokens, pattern = case
    circuits = [path.W for path in expand_logits(weights, tokens, pattern)][:12]
    if weights.n_heads > 1:
        circuits.append(ov_circuit(weights, 0, 0) + ov_circuit(weights, 0, 1))
    return circuits


@settings(max_examples=60, deadline=None)
@given(draw_frozen(n_layers=st.sampled_from((2, 1))))
def test_score_equals_the_dense_eigenvalues(case):
    for circuit in first_circuits(case):
        check_score(circuit, 1e-11)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 40), st.integers(1, 6))
def test_score_of_random_circuits(seed, n, r):
    check_score(random_circuit(np.random.default_rng(seed), n, r), 1e-12)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_score_of_a_known_spectrum(seed):
    """Real eigenvalues, a complex pair, zeros: no eigenvalue routine on this side."""
    rng = np.random.default_rng(seed)
    *real, a, b = rng.normal(size=5)
    middle = np.zeros((5, 5))
    middle[[0, 1, 2], [0, 1, 2]] = real
    middle[3:, 3:] = [[a, b], [-b, a]]
    M = invertible(rng, 9)
    W = LowRank(M[:, :5] @ middle, np.linalg.inv(M)[:5])
    expected = (sum(real) + 2 * a) / (np.abs(real).sum() + 2 * np.hypot(a, b))
    assert abs(copying_score(W) - expected) <= 1e-12 * max(1, W.norm())


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 120, 180])
def test_score_of_a_rotation(degrees):
    """λ = e^{±iφ}: the score is cos φ."""
    angle = np.radians(degrees)
    W = LowRank(np.eye(7, 2), np.array([[np.cos(angle), -np.sin(angle)],
                                        [np.sin(angle), np.cos(angle)]]) @ np.eye(2, 7))
    assert abs(copying_score(W) - np.cos(angle)) <= 1e-14


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 20), st.integers(1, 6))
def test_perfect_copying_scores_1_and_its_negative_minus_1(seed, n, r):
    """A Aᵀ: every token raises those that are like it. Never beyond 1, not even by rounding."""
    A = np.random.default_rng(seed).normal(size=(n, r))
    W = LowRank(A, A.T)
    assert 1 - 1e-12 <= copying_score(W) <= 1
    assert -1 <= copying_score(W * -1) <= -1 + 1e-12


def test_the_identity():
    assert copying_score(LowRank(np.eye(4), np.eye(4))) == 1
    assert copying_score(LowRank(-np.eye(4), np.eye(4))) == -1


@pytest.mark.parametrize("W", [LowRank(np.zeros((5, 2)), np.ones((2, 5))),
                               LowRank(np.ones((5, 0)), np.ones((0, 5))),
                               LowRank(np.ones((5, 2)), np.zeros((2, 5)))], ids=repr)
def test_a_zero_circuit_scores_0(W):
    assert copying_score(W) == 0 and type(copying_score(W)) is float


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 3), st.booleans())
def test_a_head_that_writes_where_nobody_reads_scores_0(seed, r, with_norms_that_differ):
    """Nilpotent: every eigenvalue is 0, in a basis where that is so up to rounding only."""
    rng = np.random.default_rng(seed)
    R = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    scale = 1e6 if with_norms_that_differ else 1
    W = LowRank(R[:, :r] @ rng.normal(size=(r, r)) * scale, rng.normal(size=(r, r)) @ R[:, r:2*r].T)
    assert copying_score(W) == 0


def test_a_chain_of_tokens_scores_0():
    """a → b → c → …: defective, all eigenvalues 0, exactly so in this basis."""
    assert copying_score(LowRank(np.eye(6, 5, k=-1), np.eye(5, 6))) == 0


def test_random_circuits_score_about_0():
    """Standard deviation ≈ 1.5 / d_head."""
    rng = np.random.default_rng(0)
    for d_head in 4, 16:
        scores = [copying_score(random_circuit(rng, 60, d_head)) for _ in range(300)]
        assert abs(np.mean(scores)) < 0.3 / d_head
        assert 1.2 / d_head < np.std(scores) < 1.8 / d_head


def test_float32_circuits():
    weights, _ = random_case(0)
    for head in range(3):
        exact = copying_score(ov_circuit(weights, 1, head))
        rounded = copying_score(ov_circuit(weights.astype(np.float32), 1, head))
        assert type(rounded) is float and abs(rounded - exact) < 1e-4


@pytest.mark.parametrize("dtype, factor", [(np.float32, 1e-15), (np.float32, 1e13),
                                           (np.float32, 1e25), (np.float64, 1e-200),
                                           (np.float64, 1e200)])
def test_score_does_not_depend_on_the_scale(dtype, factor):
    """Nor is a wrong one clipped to 1: products of both factors may leave the range of floats."""
    W = random_circuit(np.random.default_rng(1))
    factors = W.A.astype(dtype) * dtype(factor), W.B.astype(dtype) * dtype(factor)
    assert abs(copying_score(LowRank(*factors)) - copying_score(W)) < 100 * np.finfo(dtype).eps


def test_only_square_circuits_have_a_score():
    W = LowRank(np.ones((5, 2)), np.ones((2, 4)))
    for call in copying_score, copying_companions:
        for circuit in W, W.mT:
            with pytest.raises(InputError, match="square.*; got") as caught:
                call(circuit)
            assert "\n" not in str(caught.value)


# Symmetries, kept and broken as the docstring says.

def scores(weights):
    return np.array([[copying_score(ov_circuit(weights, layer, head))
                      for head in range(weights.n_heads)] for layer in range(weights.n_layers)])


def kept(before, after):
    return np.abs(after - before).max() <= 1e-9


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 20), st.integers(1, 5))
def test_score_keeps_scales_similarities_and_transposition(seed, n, r):
    rng = np.random.default_rng(seed)
    W, M = random_circuit(rng, n, r), invertible(rng, n)
    score = copying_score(W)
    for same in W * 7.5, W.mT, M @ W @ np.linalg.inv(M), LowRank(W.A * 1e-3, W.B):
        assert kept(score, copying_score(same))
    assert kept(score, -copying_score(W * -0.1))


def test_score_keeps_what_changes_no_token_level_circuit():
    weights, rng = random_weights(np.random.default_rng(0)), np.random.default_rng(1)
    before, M = scores(weights), invertible(rng, 4)
    assert np.ptp(before) > 0.1
    R = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    same = {
        "values": replace(weights, W_V=M @ weights.W_V, W_O=weights.W_O @ np.linalg.inv(M)),
        "residual": replace(weights, W_E=R @ weights.W_E, W_O=R @ weights.W_O,
                            W_V=weights.W_V @ R.T, W_U=weights.W_U @ R.T),
        "queries and keys": replace(weights, W_Q=rng.normal(size=weights.W_Q.shape),
                                    W_K=0 * weights.W_K),
        "positions": replace(weights, W_pos=rng.normal(size=weights.W_pos.shape)),
        "vocabulary": replace(weights, W_E=weights.W_E[:, ::-1], W_U=weights.W_U[::-1]),
        "padding": replace(weights, **{name: np.pad(getattr(weights, name),
                                                    ((0, 0), (0, 0), (0, 3), (0, 0)))
                                       for name in ("W_Q", "W_K", "W_V")},
                           W_O=np.pad(weights.W_O, ((0, 0), (0, 0), (0, 0), (0, 3)))),
    }
    for change, changed in same.items():
        assert kept(before, scores(changed)), change
    order = [2, 0, 1]
    permuted = replace(weights, W_O=weights.W_O[:, order], W_V=weights.W_V[:, order])
    assert kept(before[:, order], scores(permuted))


def test_score_changes_with_what_changes_the_circuits():
    weights, rng = random_weights(np.random.default_rng(0)), np.random.default_rng(1)
    before, M = scores(weights), invertible(rng, 4)
    different = {
        "W_OV transposed inside": replace(weights, W_O=weights.W_V.mT, W_V=weights.W_O.mT),
        "a row added to W_U": replace(weights, W_U=weights.W_U + 3 * rng.normal(size=5)),
        "W_U centered": replace(weights, W_U=weights.W_U - weights.W_U.mean(0)),
        "tokens renamed on one side": replace(weights, W_U=weights.W_U[::-1]),
        "half of a change of basis": replace(weights, W_V=M @ weights.W_V),
    }
    for change, changed in different.items():
        assert (np.abs(scores(changed) - before) > 1e-3).all(), change


def test_the_score_cannot_see_a_transposed_circuit_but_the_table_can():
    W = ov_circuit(random_weights(np.random.default_rng(0)), 0, 0)
    assert kept(copying_score(W), copying_score(W.mT))
    assert np.abs(W.AB - W.AB.T).max() > 0.1


# Companions.

def check_companions(W, k):
    table, n = W.AB, len(W.AB)
    own_rank = []
    for source in range(n):
        column = [table[out, source] for out in range(n)]
        own_rank.append(sum(number > column[source] for number in column))
    companions = copying_companions(W, k)
    mean = sum(table[u, u] for u in range(n)) / n - table.sum() / n ** 2
    size = (np.abs(W.A) @ np.abs(W.B)).max()                     # entries may cancel
    assert abs(companions.diagonal_excess - mean) <= 1e-12 * size * n
    assert companions.top_own == sum(rank == 0 for rank in own_rank) / n
    assert abs(companions.top_k_own - sum(rank < k for rank in own_rank) / n) <= 1e-15
    assert all(type(number) is float for number in companions)


@settings(max_examples=60, deadline=None)
@given(draw_case(n_layers=st.just(1)), st.integers(1, 4))
def test_companions_equal_the_dense_table(case, k):
    check_companions(ov_circuit(case.weights, 0, 0), k)


@pytest.mark.parametrize("tile", [1, 7, 1024])
@pytest.mark.parametrize("r", [1, 4, 16])
def test_companions_of_many_tokens_whatever_the_tiles(monkeypatch, r, tile):
    """A token never outdoes itself, however the two ways to its own entry round."""
    monkeypatch.setattr(copying, "TILE", tile)
    A = np.random.default_rng(r).normal(size=(90, r))
    check_companions(LowRank(A, A.T), 3)
    check_companions(random_circuit(np.random.default_rng(r), 90, r), 3)


def test_companions_of_perfect_copying():
    A = np.random.default_rng(0).normal(size=(80, 16))
    A /= np.linalg.norm(A, axis=1, keepdims=True)
    companions = copying_companions(LowRank(A, A.T))
    assert companions.top_own == companions.top_k_own == 1
    assert companions.diagonal_excess > 0.9
    negative = copying_companions(LowRank(-A, A.T))
    assert negative.top_own == negative.top_k_own == 0 and negative.diagonal_excess < -0.9


def test_companions_see_outs_and_sources_exchanged_where_the_score_does_not():
    """Every source raises out 2 most; yet what raises an out most is the token itself."""
    table = np.eye(6)
    table[2] = [2, 2, 3, 2, 2, 2]
    W = LowRank(table, np.eye(6))
    assert abs(copying_score(W) - copying_score(W.mT)) <= 1e-12
    assert copying_companions(W, 1).top_own == 1 / 6
    assert copying_companions(W.mT, 1).top_own == 1


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_companions_keep_a_row_added_to_W_U_and_the_score_does_not(seed):
    """A score of ±1, all λ of one sign, may stay; those of all heads do not."""
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, d_vocab=30)
    moved = replace(weights, W_U=weights.W_U + 3 * rng.normal(size=5))
    assert np.abs(scores(weights) - scores(moved)).max() > 1e-6
    before, after = ov_circuit(weights, 1, 2), ov_circuit(moved, 1, 2)
    for one, other in zip(copying_companions(before, 4), copying_companions(after, 4)):
        assert abs(one - other) <= 1e-12 * np.abs(after.AB).max()


def test_companions_of_one_token():
    assert copying_companions(LowRank(np.ones((1, 2)), np.ones((2, 1)))) == (0, 1, 1)


# The checks themselves fail on mistakes.

@pytest.mark.parametrize("mistake", [
    lambda W: LowRank(W.A * (1 + np.arange(W.shape[0])[:, None] / 1e6), W.B),
    lambda W: LowRank(W.A[::-1], W.B),
    lambda W: LowRank(W.A, W.B) + LowRank(np.full((len(W.A), 1), 0.1), np.ones((1, len(W.A)))),
], ids=["rows rescaled", "outs reversed", "a row added"])
def test_the_checks_see_a_mistake(monkeypatch, mistake):
    W = random_circuit(np.random.default_rng(0))
    check_score(W)
    score, companions = copying_score(mistake(W)), copying_companions(mistake(W), 3)
    monkeypatch.setitem(globals(), "copying_score", lambda _: score)
    monkeypatch.setitem(globals(), "copying_companions", lambda *_: companions)
    with pytest.raises(AssertionError):
        check_score(W)
    if mistake(W).B.shape == W.B.shape:         # a row added: companions keep it
        with pytest.raises(AssertionError):
            check_companions(W, 3)
