"""Circuits written by hand: what they do on every short sequence, then how the scores see it.

The specifications are plain Python on one sequence of ids at a time. Patterns are compared
exactly, 1/m included; so are logits, but for the rounding of sums of 1/m.
"""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import log, sqrt

import numpy as np
import pytest

from minicircuits.circuits.composition import composition_scores
from minicircuits.circuits.copying import copying_score
from minicircuits.circuits.expansion import expand_logits
from minicircuits.circuits.hand_built import (SHARP, START, bigram_model,
                                              induction_by_k_composition, induction_by_pointers,
                                              skip_trigram_machine, two_back)
from minicircuits.circuits.heads import W_OV, W_QK, direct_path, ov_circuit, qk_circuit
from minicircuits.circuits.score_expansion import expand_scores, rebuild, split_scores
from minicircuits.model.transformer import forward, loss
from minicircuits.notation import InputError
from tests.draws import assert_close

INDUCTIONS = (induction_by_k_composition, induction_by_pointers)
KEEP, IN, AT, MIND, BAY = 1, 2, 3, 4, 5
TRIGRAMS = [(KEEP, IN, MIND), (KEEP, AT, BAY)]
MACHINES = {"one head, with the bug": [TRIGRAMS], "two heads": [TRIGRAMS[:1], TRIGRAMS[1:]]}
V, LONGEST = 4, 7                   # START and three tokens; START and up to six of them


def every(d_vocab, longest, start=True):
    """All sequences of each length, in one array (b, i) a length: START first, or anything."""
    if not start:
        return [np.array(list(product(range(d_vocab), repeat=n))) for n in range(1, longest + 1)]
    return [np.array([(START, *rest) for rest in product(range(1, d_vocab), repeat=n - 1)])
            for n in range(1, longest + 1)]


def one_hot(n, places):
    """Attention shared equally by `places`, as a row of n."""
    return [1 / len(places) if j in places else 0 for j in range(n)]


def previous(tokens, i):
    return [max(i - 1, 0)]


def earlier_copies(tokens, i):
    return [j for j in range(i) if tokens[j] == tokens[i]] or [0]


def followers(tokens, i):
    """Of every earlier copy of the present token, the next place; nothing found: START's."""
    return [j for j in range(1, i + 1) if tokens[j - 1] == tokens[i]] or [0]


def assert_attends(pattern, tokens, rule):
    """Every row of pattern (b, i, j) is shared equally by the places that the rule names."""
    n = tokens.shape[1]
    wanted = [[one_hot(n, rule(sequence, i)) for i in range(n)] for sequence in tokens.tolist()]
    np.testing.assert_array_equal(pattern, wanted, strict=True)


def assert_says(logits, tokens, rule):
    """Logits (b, i, v) are those of the rule, {token: logit} or 0; exactly so where 0 or 1."""
    wanted = np.zeros(logits.shape)
    for b, sequence in enumerate(tokens.tolist()):
        for i in range(len(sequence)):
            for token, logit in rule(sequence, i).items():
                wanted[b, i, token] = logit
    assert_close(logits, wanted, 1e-15, scale=1)
    whole = (wanted == 0) | (wanted == 1)
    np.testing.assert_array_equal(logits[whole], wanted[whole])


def induced(tokens, i):
    """What followed, each token by its share; nothing if the present token is new."""
    found = [tokens[j] for j in followers(tokens, i) if j > 0]
    return {token: count / len(found) for token, count in Counter(found).items()}


# Zero layers

def test_bigram_model_says_its_table():
    table = np.log([[0.5, 0.1, 0.3], [0.2, 0.8, 0.3], [0.3, 0.1, 0.4]])     # [next, present]
    weights = bigram_model(table)
    for tokens in every(3, 4, start=False):
        logits = forward(weights, tokens).logits
        np.testing.assert_array_equal(logits, table.T[tokens], strict=True)
    nats = -(log(0.1) + log(0.3)) / 2                                       # 1 → 2, 2 → 1
    assert abs(loss(weights, [[1, 2, 1]]) - nats) < 1e-15
    np.testing.assert_array_equal(direct_path(weights).AB, table)
    table[:] = 0                                                # the weights are their own
    assert weights.W_U.all()


def test_bigram_model_refuses_what_is_no_table():
    with pytest.raises(InputError, match="W_U must have axes"):
        bigram_model(np.zeros((3, 4)))
    with pytest.raises(InputError, match="W_U must be finite; got 1 NaN or Inf of 4"):
        bigram_model([[-np.inf, 0], [0, -1]])


# Two back

@pytest.mark.parametrize("n_ctx", [5, 9])
def test_two_back_says_the_token_two_back(n_ctx):
    weights = two_back(3, n_ctx)
    for tokens in every(3, 5, start=False):
        acts = forward(weights, tokens)
        assert_attends(acts.pattern[0, :, 0], tokens, previous)
        assert_attends(acts.pattern[1, :, 0], tokens, previous)
        assert_says(acts.logits, tokens, lambda sequence, i: {sequence[max(i - 2, 0)]: 1})


def test_two_back_is_its_virtual_head():
    weights, tokens = two_back(3, 5), every(3, 5, start=False)[-1]
    acts = forward(weights, tokens)
    *others, virtual = expand_logits(weights, tokens, acts.pattern)
    assert [path.label for path in others] == ["direct", "0.0", "1.0"]
    assert not any(path.logits.any() for path in others)
    np.testing.assert_array_equal(virtual.logits, acts.logits)
    assert_attends(virtual.A, tokens, lambda sequence, i: [max(i - 2, 0)])
    np.testing.assert_array_equal(virtual.W.AB, np.eye(3))
    assert copying_score(virtual.W) == 1
    for layer in range(2):
        terms = split_scores(weights, tokens, acts.pattern, layer, 0)
        one_back = np.broadcast_to(np.eye(5, k=-1), terms.neither.shape)
        assert_close(terms.neither, SHARP * one_back, 1e-12)        # positions, and only they
        assert not (terms.Q.any() or terms.K.any() or terms.both.any())
    for kind, score in ("V", 1 / sqrt(3)), ("K", 0), ("Q", 0):
        assert_composes(weights, kind, score)


def assert_composes(weights, kind, score):
    """1.0 with 0.0: 0 is exact. W_OV copies one-hots, so that a score ≤ 1/√(their number)."""
    scores = composition_scores(weights, kind)
    if score:
        assert abs(scores[1, 0, 0, 0] - score) < 1e-14
    else:
        assert scores[1, 0, 0, 0] == 0


# Induction

@pytest.mark.parametrize("n_ctx", [LONGEST, LONGEST + 4])
@pytest.mark.parametrize("build", INDUCTIONS)
def test_induction_attends_to_followers_and_says_them(build, n_ctx):
    """[a][b] … [a] → [b], on every sequence: repeats, runs, several followers, no copy."""
    weights = build(V, n_ctx)
    first = previous if build is induction_by_k_composition else earlier_copies
    for tokens in every(V, LONGEST):
        acts = forward(weights, tokens)
        assert_attends(acts.pattern[0, :, 0], tokens, first)
        assert_attends(acts.pattern[1, :, 0], tokens, followers)
        assert_says(acts.logits, tokens, induced)
        resting = acts.pattern[1, :, 0, :, 0] == 1
        assert not acts.z[1, :, 0][resting].any()           # nothing is moved from START


@pytest.mark.parametrize("build", INDUCTIONS)
def test_induction_predicts_the_commonest_follower(build):
    """By argmax, spelled out for one context: <START> a b a b a c a."""
    logits = forward(build(V, 8), [[START, 1, 2, 1, 2, 1, 3, 1]]).logits[0]
    assert_close(logits[-1], np.array([0, 0, 2 / 3, 1 / 3]), 1e-15)         # b b c
    assert logits.argmax(-1)[3:].tolist() == [2, 1, 2, 0, 2]                # c is new: all 0
    assert not logits[[0, 1, 2, 6]].any()
    assert forward(build(V, 3), [[START, 3, 3]]).logits[0, -1].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("build", INDUCTIONS)
@pytest.mark.parametrize("block", [5, 7, 13])
def test_induction_stripe_on_repeated_tokens(build, block):
    """Two blocks of distinct random tokens: the stripe is at −(block − 1), for every block."""
    order = 1 + np.random.default_rng(block).permutation(29)[:block]
    tokens = np.array([[START, *order, *order]])
    acts = forward(build(30, 2 * block + 1), tokens)
    second = np.arange(block + 1, 2 * block + 1)
    assert (acts.pattern[1, 0, 0, second, second - block + 1] == 1).all()
    assert (acts.pattern[1, 0, 0, 1:block + 1, 0] == 1).all()
    assert (acts.logits[0, second[:-1]].argmax(-1) == order[1:]).all()


@pytest.mark.parametrize("build", INDUCTIONS)
def test_induction_in_float32(build):
    weights, tokens = build(V, LONGEST), every(V, LONGEST)[-1]
    single = forward(weights.astype(np.float32), tokens).pattern
    assert_close(single, forward(weights, tokens).pattern.astype(np.float32), 1e-7)


@pytest.mark.parametrize("build", INDUCTIONS)
def test_induction_needs_both_its_heads(build):
    """Without what 0.0 writes, 1.0 finds nothing and says nothing."""
    weights, tokens = build(V, LONGEST), every(V, LONGEST)[-1]
    acts = forward(replace(weights, W_O=weights.W_O * [[[[0]]], [[[1]]]]), tokens)
    lost = acts.pattern[1, :, 0]
    if build is induction_by_k_composition:
        assert_attends(lost, tokens, lambda sequence, i: [0])
        assert not acts.logits.any()
    else:                           # no pointer at all: attention without any preference
        assert_attends(lost, tokens, lambda sequence, i: range(i + 1))
    direct, first, *_ = expand_logits(weights, tokens, forward(weights, tokens).pattern)
    assert not (direct.logits.any() or first.logits.any())


def test_scores_of_k_composition():
    """The match is K-composition and nothing else; resting is in the embeddings."""
    weights, tokens = induction_by_k_composition(V, LONGEST), every(V, LONGEST)[-1]
    pattern = forward(weights, tokens).pattern
    split = split_scores(weights, tokens, pattern, 1, 0)
    before = np.concatenate([tokens[:, :1], tokens[:, :-1]], 1)         # START's is START
    match = (tokens[:, :, None] == before[:, None, :]).astype(float)
    rest = np.broadcast_to((tokens == START)[:, None, :].astype(float), match.shape)
    assert_close(split.K, 2 * SHARP * match, 1e-12)
    assert_close(split.neither, SHARP * rest, 1e-12)
    assert not (split.Q.any() or split.both.any())

    same, = [term for term in expand_scores(weights, tokens, pattern, 1, 0)
             if term.label == "token · token→0.0"]
    assert_close(same.W.AB, 2 * SHARP * np.eye(V), 1e-12)       # W_Eᵀ W_QK W_OV W_E / √d_head
    assert copying_score(same.W) == 1
    # ‖2 Id‖ of ‖2 Id and START's column‖, with ‖W_OV‖ = ‖Id‖
    for kind, score in ("K", 2 * sqrt(V) / sqrt(4 * V + V) / sqrt(V)), ("Q", 0), ("V", 0):
        assert_composes(weights, kind, score)


def test_scores_of_pointers():
    """Pointing is Q-composition and nothing else."""
    n = LONGEST
    weights, tokens = induction_by_pointers(V, n), every(V, n)[-1]
    acts = forward(weights, tokens)
    same = (tokens[:, :, None] == tokens[:, None, :]).astype(float)
    start = (tokens == START)[:, None, :]
    assert_close(acts.scores[0, :, 0], SHARP * (2 * same - 2 * np.eye(n) + start), 1e-12)
    split = split_scores(weights, tokens, acts.pattern, 1, 0)
    wanted = np.zeros((len(tokens), n, n))
    for b, sequence in enumerate(tokens.tolist()):
        for i in range(n):
            copies = earlier_copies(sequence, i)
            for copy in copies:
                wanted[b, i, copy + 1 if copy else 0] = SHARP * n / len(copies)
    assert_close(split.Q, wanted, 1e-12)
    assert not (split.neither.any() or split.K.any() or split.both.any())
    # `after` has n − 1 ones (nothing comes after the last place), W_OV has n
    for kind, score in ("Q", 1 / sqrt(n)), ("K", 0), ("V", 0):
        assert_composes(weights, kind, score)


@pytest.mark.parametrize("build", INDUCTIONS)
def test_induction_copies_all_but_start(build):
    circuit = ov_circuit(build(V, LONGEST), 1, 0)
    np.testing.assert_array_equal(circuit.AB, np.diag([0, 1, 1, 1]))
    assert copying_score(circuit) == 1


@pytest.mark.parametrize("build", [two_back, *INDUCTIONS])
def test_blocks_do_not_overlap(build):
    """What is embedded and what each head writes stand on rows of their own, all one-hot."""
    weights = build(V, LONGEST)
    written = [weights.W_E, weights.W_pos, weights.W_O[0, 0], weights.W_O[1, 0]]
    rows = np.array([W.any(1) for W in written])
    assert (rows.sum(0) == 1).all()                             # and none is left over
    for W in written[:2]:
        np.testing.assert_array_equal(W.T @ W, np.eye(W.shape[1]))
    np.testing.assert_array_equal(weights.W_E[:V], np.eye(V))
    assert not direct_path(weights).AB.any()
    x = forward(weights, [[START, *[1] * (LONGEST - 1)]]).residual
    assert x[..., rows[1]].any() == (build is induction_by_pointers)    # positions in values?
    assert {W.dtype.name for _, W in weights.items()} == {"float64"}


# Skip-trigrams

def told(trigrams, tokens, i):
    """Where one head looks, and what it says: a source's outs, whatever the destination."""
    places = [j for j in range(i + 1) if (tokens[j], tokens[i]) in {t[:2] for t in trigrams}] or [0]
    said = Counter()
    for j in places:
        for out in {out for source, _, out in trigrams if source == tokens[j]}:
            said[out] += 1 / len(places)
    return places, said


@pytest.mark.parametrize("heads", [*MACHINES.values(),
                                   [[(1, 1, 2), (2, 1, 2), (3, 2, 1)], [], [(1, 2, 3)] * 2]])
def test_skip_trigram_machine_does_what_it_is_told(heads):
    """On every sequence; the last machine has a source that is its own destination, two
    sources for one destination, a head without anything to do, and something told twice."""
    d_vocab = 1 + max((max(trigram) for head in heads for trigram in head))
    weights = skip_trigram_machine(d_vocab, heads)
    for tokens in every(d_vocab, 5):
        acts = forward(weights, tokens)
        for head, trigrams in enumerate(heads):
            assert_attends(acts.pattern[0, :, head], tokens,
                           lambda sequence, i: told(trigrams, sequence, i)[0])
        assert_says(acts.logits, tokens, lambda sequence, i: sum(
            (told(trigrams, sequence, i)[1] for trigrams in heads), Counter()))


def keep_table(heads):
    """Logits of mind and bay after `<START> keep … in` and `<START> keep … at`: (2, 2)."""
    weights = skip_trigram_machine(7, heads)
    tokens = np.array([[START, KEEP, 6, 6, IN], [START, KEEP, 6, 6, AT]])
    return forward(weights, tokens).logits[:, -1, [MIND, BAY]]


def test_one_head_has_the_bug_and_two_avoid_it():
    """For one source a head's table (destination, out) has rank 1, so two ones force four."""
    bug, mended = map(keep_table, MACHINES.values())
    np.testing.assert_array_equal(bug, [[1, 1], [1, 1]])
    np.testing.assert_array_equal(mended, [[1, 0], [0, 1]])
    assert np.linalg.matrix_rank(bug) == 1 and np.linalg.matrix_rank(mended) == 2


def test_circuits_of_the_skip_trigram_machine():
    weights = skip_trigram_machine(6, [TRIGRAMS])
    QK, OV = np.zeros((6, 6)), np.zeros((6, 6))
    QK[:, START], QK[IN, KEEP], QK[AT, KEEP] = 1, 2, 2
    OV[MIND, KEEP] = OV[BAY, KEEP] = 1
    assert_close(qk_circuit(weights, 0, 0).AB / sqrt(weights.d_head), SHARP * QK, 1e-12)
    np.testing.assert_array_equal(ov_circuit(weights, 0, 0).AB, OV)
    assert not direct_path(weights).AB.any() and copying_score(ov_circuit(weights, 0, 0)) == 0


# Both rivers

@pytest.mark.parametrize("weights", [
    bigram_model(np.log([[0.5, 0.1, 0.2, 0.4]] * 4)), two_back(V, 6), *(
        build(V, 6) for build in INDUCTIONS), *(
        skip_trigram_machine(6, heads) for heads in MACHINES.values())])
def test_expansions_agree_on_hand_built_circuits(weights):
    for tokens in every(V, 6):
        acts = forward(weights, tokens)
        rebuilt = rebuild(weights, tokens)
        np.testing.assert_array_equal(rebuilt.pattern, acts.pattern, strict=True)
        assert_close(rebuilt.logits, acts.logits, 1e-15, scale=1)
        paths = expand_logits(weights, tokens, acts.pattern)
        assert_close(sum(path.logits for path in paths), acts.logits, 1e-15, scale=1)
        for layer in range(weights.n_layers):
            for head in range(weights.n_heads):
                terms = expand_scores(weights, tokens, acts.pattern, layer, head)
                assert_close(sum(term.scores for term in terms), acts.scores[layer, :, head],
                             1e-12)


def test_residual_tables_of_the_induction_head():
    """W_QK and W_OV of 1.0 by blocks, for the reader who prints them."""
    weights = induction_by_k_composition(2, 3)                  # token before out place
    QK = W_QK(weights, 1, 0).AB / (SHARP * sqrt(weights.d_head))
    assert_close(QK, np.array([
        # token   before    out     place
        [1, 0,    2, 0,    0, 0,    0, 0, 0],                   # token: START
        [1, 0,    0, 2,    0, 0,    0, 0, 0],                   # token: a
        *[[0] * 9] * 7], float), 1e-15)
    OV = np.zeros((9, 9))
    OV[5, 1] = 1                                                # out: a ← token: a
    np.testing.assert_array_equal(W_OV(weights, 1, 0).AB, OV)
