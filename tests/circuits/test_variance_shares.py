"""Which terms of a score decide between sources: shares of its variance, against loops."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minicircuits.circuits.hand_built import (induction_by_k_composition, induction_by_pointers,
                                              two_back)
from minicircuits.circuits.score_expansion import ScoreTerm, expand_scores, variance_shares
from minicircuits.model.transformer import forward
from tests.circuits.dense import draw_frozen
from tests.draws import SEEDS, assert_close, disguised, random_case


class OnlyScores(ScoreTerm):
    scores = None

    def __new__(cls, scores):
        term = super().__new__(cls, None, None, 0, 0)
        term.scores = scores
        return term


def terms_with(scores):
    """Terms that have nothing but scores (b, i, j)."""
    return [OnlyScores(np.asarray(one, float)) for one in scores]


def shares(terms):
    """Shares in the order of the terms, not by size."""
    found = {id(share.term): share.share for share in variance_shares(terms)}
    assert len(found) == len(terms)
    return np.array([found[id(term)] for term in terms])


def looped_shares(terms):
    """Σ_{b,i} Σ_{j≤i} (term_ij − its mean)(scores_ij − their mean), as a share of all terms'."""
    products = [0.0] * len(terms)
    for b, i in np.ndindex(terms[0].scores.shape[:2]):
        rows = [term.scores[b, i].tolist()[:i + 1] for term in terms]
        centered = [[number - sum(row) / (i + 1) for number in row] for row in rows]
        for j in range(i + 1):
            score = sum(row[j] for row in centered)
            for n, row in enumerate(centered):
                products[n] += row[j] * score
    total = sum(products)
    return np.array([product / total if total else 0.0 for product in products])


def check_shares(terms):
    found, expected = shares(terms), looped_shares(terms)
    assert_close(found, expected, 1e-11, max(1, np.abs(expected).max()))
    assert abs(found.sum() - expected.any()) < 1e-11 * max(1, np.abs(expected).sum())
    in_order = [share.share for share in variance_shares(terms)]
    assert in_order == sorted(in_order, reverse=True)


@settings(max_examples=60, deadline=None)
@given(draw_frozen(n_layers=st.sampled_from((1, 2)), max_heads=2), st.data())
def test_shares_equal_the_loops(case, data):
    layer = data.draw(st.integers(0, case.weights.n_layers - 1))
    terms = expand_scores(*case, layer, data.draw(st.integers(0, case.weights.n_heads - 1)))
    if case.tokens.shape[1] == 1:                               # no choice of sources
        assert not shares(terms).any()
    else:
        scores = np.tril(sum(term.scores for term in terms))
        means = scores.sum(-1, keepdims=True) / np.arange(1, scores.shape[-1] + 1)[:, None]
        assume((np.tril(scores - means) ** 2).sum() > 1e-6 * (scores ** 2).sum())
        check_shares(terms)


def test_shares_of_a_model():
    """Real patterns, every mode; the terms that come back are the ones that went in."""
    for positions in "shortformer", "standard", "none":
        weights, tokens = random_case(0, b=3, i=6, n_heads=2, positions=positions)
        terms = expand_scores(weights, tokens, forward(weights, tokens).pattern, 1, 1)
        check_shares(terms)
        assert {share.term.label for share in variance_shares(terms)} == {
            term.label for term in terms}


# By hand: destination 1 chooses between 0 and 1, destination 0 has no choice.

def table(first, second):
    return [[[0, 0], [first, second]]]


@pytest.mark.parametrize("scores, expected", [
    ([table(1, 3)], [1]),
    ([table(1, 3), table(0, 2)], [0.5, 0.5]),
    ([table(0, 3), table(0, -1)], [1.5, -0.5]),          # the second works against the first
    ([table(0, 1), table(5, 5)], [1, 0]),                # the same for all sources
    ([table(0, 1), table(0, -1)], [0, 0]),               # no variance in the sum
    ([table(2, 2), table(7, 7)], [0, 0]),                # no variance at all
])
def test_shares_by_hand(scores, expected):
    assert shares(terms_with(scores)).tolist() == expected


def test_destinations_count_by_their_variance_and_number_of_sources():
    """Deviations ±1 at destination 1; 2, −1, −1 at destination 2: 2 of 8, and 6 of 8."""
    one, other = np.zeros((1, 3, 3)), np.zeros((1, 3, 3))
    one[0, 1, :2], other[0, 2] = [1, -1], [2, -1, -1]
    assert shares(terms_with([one, other])).tolist() == [0.25, 0.75]


def test_a_term_that_is_uncorrelated_with_the_score_still_has_its_own_variance():
    one, other = np.zeros((1, 4, 4)), np.zeros((1, 4, 4))
    one[0, 3], other[0, 3] = [1, 1, -1, -1], [1, -1, 1, -1]
    assert shares(terms_with([one, 2 * other])).tolist() == [0.2, 0.8]


# Properties

@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_constant_for_a_destination_counts_for_nothing(seed):
    """Nor do entries that the mask removes, or a scale common to all."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, 2, 5, 5))
    before = shares(terms_with(scores))
    scale = max(1, np.abs(before).max())
    shifted = scores + rng.normal(size=(3, 2, 5, 1))
    future = scores + 100 * np.triu(rng.normal(size=(5, 5)), 1)
    for changed in shifted, future, -3 * scores, 1e155 * scores, 1e-200 * scores:
        assert_close(shares(terms_with(changed)), before, 1e-11, scale)
    for_a_source = scores + rng.normal(size=(3, 1, 1, 5))
    assert np.abs(shares(terms_with(for_a_source)) - before).max() > 1e-3


def test_shares_add_where_terms_do():
    one, two, three = np.random.default_rng(0).normal(size=(3, 2, 5, 5))
    apart, together = shares(terms_with([one, two, three])), shares(terms_with([one, two + three]))
    assert_close(np.array([apart[0], apart[1] + apart[2]]), together, 1e-12)


def test_shares_keep_bases():
    weights, tokens = random_case(1, i=6)
    other, pattern = disguised(weights, np.random.default_rng(0)), forward(weights, tokens).pattern
    assert_close(shares(expand_scores(other, tokens, pattern, 1, 2)),
                 shares(expand_scores(weights, tokens, pattern, 1, 2)), 1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_equal_scores_up_to_rounding_have_no_shares(seed):
    """One token all along, and no positions: the head cannot choose."""
    weights, tokens = random_case(seed, i=6, positions="none")
    tokens = np.full_like(tokens, 3)
    pattern = forward(weights, tokens).pattern
    assert not shares(expand_scores(weights, tokens, pattern, 1, 0)).any()


# Hand-built circuits: what the paper says of them is where the variance is.

@pytest.mark.parametrize("build, layer, label", [
    (two_back, 0, "position · position"), (two_back, 1, "position · position"),
    (induction_by_k_composition, 0, "position · position"),
    (induction_by_pointers, 1, "position→0.0 · position")])
def test_one_term_is_everything(build, layer, label):
    weights, tokens = build(4, 7), np.array([[0, 1, 2, 3, 1, 2, 3], [0, 2, 2, 1, 3, 1, 2]])
    terms = expand_scores(weights, tokens, forward(weights, tokens).pattern, layer, 0)
    first, *others = variance_shares(terms)
    assert (first.term.label, first.share) == (label, 1)
    assert {share.share for share in others} == {0}


def test_induction_decides_by_matching_and_by_resting():
    weights, tokens = induction_by_k_composition(4, 7), np.array([[0, 1, 2, 3, 1, 2, 3]])
    terms = expand_scores(weights, tokens, forward(weights, tokens).pattern, 1, 0)
    match, rest, *others = variance_shares(terms)
    assert match.term.label == "token · token→0.0" and rest.term.label == "token · token"
    assert 0 < rest.share < match.share
    assert {share.share for share in others} == {0}


# The check itself fails on mistakes.

def not_causal(n, dtype):
    return np.ones((n, n), dtype)


def each_alone(n, dtype):
    return np.eye(n, dtype=dtype)


def sources_after_destinations(n, dtype):
    return np.ones((n, n), dtype) & (np.arange(n)[:, None] <= np.arange(n))


@pytest.mark.parametrize("mistake", [not_causal, each_alone, sources_after_destinations])
def test_the_check_sees_a_mistake(monkeypatch, mistake):
    terms = terms_with(np.random.default_rng(1).normal(size=(3, 2, 5, 5)))
    check_shares(terms)
    monkeypatch.setattr(np, "tri", mistake)
    with pytest.raises(AssertionError):
        check_shares(terms)


def test_terms_are_held_one_at_a_time():
    """100 terms of 64² scores are 3.3 MB."""
    weights, tokens = random_case(0, b=1, i=64, n_layers=2, n_heads=9, n_ctx=64)
    terms = expand_scores(weights, tokens, forward(weights, tokens).pattern, 1, 0)
    for term in terms:
        term.query.q_or_k, term.key.q_or_k
    tracemalloc.start()
    try:
        variance_shares(terms)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(terms) >= 100 and peak < 1 << 20
