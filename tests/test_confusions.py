"""What confuses readers of the paper: each answered by lines that run, beside the wrong version.

The docstring of each test is the answer; `is_not` marks what readers take it for. The model is
that of the README's first block, or one written by hand.
"""

import numpy as np
import pytest
from scipy.special import softmax

import minicircuits as mc
from minicircuits.circuits import hand_built
from minicircuits.circuits.copying import copying_companions
from minicircuits.notation import relative_error

weights = mc.init_weights(n_layers=2, n_heads=4, d_model=32, d_head=8, d_vocab=50, n_ctx=16,
                          positions="shortformer", rng=np.random.default_rng(0))
tokens = np.random.default_rng(1).integers(50, size=(1, 16))
acts = mc.forward(weights, tokens)
x, t = acts.residual[0, 0], tokens[0]
START, a, b, c = range(4)


def is_(actual, desired):
    return relative_error(actual, desired) < 1e-12


def is_not(wrong, desired):
    """Not by a hair's breadth: by more than 5 % of the largest entry."""
    return wrong.shape != desired.shape or relative_error(wrong, desired) > 0.05


def one_hot(token, d_vocab=4):
    return np.eye(d_vocab)[token]


def test_01_multiplication_order():
    """The paper multiplies on the left, TransformerLens on the right: its OV is ours
    transposed, its QK is ours as it is."""
    theirs = mc.to_transformer_lens(weights)
    W_Q, W_K, W_V, W_O = (theirs[f"blocks.0.attn.W_{name}"][3] for name in "QKVO")
    OV, QK = mc.W_OV(weights, 0, 3).AB, mc.W_QK(weights, 0, 3).AB
    assert is_(W_V @ W_O, OV.T) and is_not(W_V @ W_O, OV)
    assert is_(W_Q @ W_K.T, QK) and is_not(W_Q @ W_K.T, QK.T)


def test_02_tensor_product():
    """A ⊗ W is "A on positions, W on the residual": A x Wᵀ, or np.kron on x flattened; np.outer
    has the same numbers in other places."""
    A, W = acts.pattern[0, 0, 3], mc.W_OV(weights, 0, 3).AB
    moved = (A @ x @ W.T).ravel()
    assert is_(np.kron(A, W) @ x.ravel(), moved)
    outer = np.outer(A, W)                                   # (i·j, d·d), not (i·d, j·d)
    assert is_not(outer.reshape(16 * 32, 16 * 32) @ x.ravel(), moved)
    assert is_not(np.kron(W, A) @ x.ravel(), moved)


def test_03_rows_and_columns():
    """Query, destination, row; key, source, column: each row shares out one attention, a column
    does not."""
    assert is_(acts.pattern.sum(-1), np.ones((2, 1, 4, 16)))
    assert is_not(acts.pattern.sum(-2), np.ones((2, 1, 4, 16)))


def test_04_qk_is_not_symmetric():
    """QK is a bilinear form on two roles, [destination, source]: wanting is not mutual."""
    table = mc.qk_circuit(weights, 0, 3).AB
    part, *others = mc.expand_scores(weights, tokens, acts.pattern, layer=0, head=3)
    assert part.label == "token · token"
    assert is_(table[np.ix_(t, t)] / np.sqrt(8), part.scores[0])
    assert is_not(table.T[np.ix_(t, t)] / np.sqrt(8), part.scores[0])


def test_05_skip_trigrams_are_a_reading():
    """"Skip": the source may stand anywhere before. A reading, not a rewriting: attention is
    shared out over the context."""
    keep, hold, in_, mind, breath = 1, 2, 3, 4, 5
    machine = hand_built.skip_trigram_machine(9, [[(keep, in_, mind), (hold, in_, breath)]])

    def mind_after(*context):
        return mc.forward(machine, [context]).logits[0, -1, mind]

    assert mind_after(START, keep, in_) == mind_after(START, keep, 7, 8, in_) == 1
    assert mc.ov_circuit(machine, 0, 0)[mind, keep] == 1              # what the table says
    assert mind_after(START, keep, hold, in_) == 0.5 != 1             # what the model does


def test_06_q_and_k_composition_are_not_v_composition():
    """Q- and K-composition live inside A, V-composition multiplies two As: a virtual head."""
    by_V, by_K = hand_built.two_back(4, 5), hand_built.induction_by_k_composition(4, 5)
    context = np.array([[START, a, b, c, a]])
    for model, pair in (by_V, "V"), (by_K, "K"):
        for kind in "QKV":
            assert (mc.composition_scores(model, kind)[1, 0, 0, 0] > 0) == (kind == pair)
    virtual = mc.logits_by_order(by_K, context, mc.forward(by_K, context).pattern)[2]
    assert not virtual.any() and mc.forward(by_K, context).logits.any()
    virtual = mc.logits_by_order(by_V, context, mc.forward(by_V, context).pattern)[2]
    assert is_(virtual, mc.forward(by_V, context).logits)


def test_07_what_key_query_and_value_carry():
    """The key carries the previous token, the query the present one alone, the value the
    attended token itself."""
    model = hand_built.induction_by_k_composition(4, 5)
    made = mc.forward(model, [[START, a, b, c, a]])
    q, k, v = made.q[1, 0, 0, 4, :4], made.k[1, 0, 0, 2, :4], made.v[1, 0, 0, 2, :4]
    assert is_(q / q.max(), one_hot(a)) and is_not(q / q.max(), one_hot(c))    # c came before
    assert is_(k / k.max(), one_hot(a)) and is_not(k / k.max(), one_hot(b))    # b stands there
    assert is_(v, one_hot(b)) and is_not(v, one_hot(a))


def test_08_head_numbering():
    """Head 1.2 is head 2 of layer 1, both counted from 0."""
    path, = (path for path in mc.expand_logits(weights, tokens, acts.pattern)
             if path.label == "1.2")
    assert is_(path.A, acts.pattern[1, :, 2])
    assert is_not(path.A, acts.pattern[0, :, 1])             # "layer 1, head 2" from 1


def test_09_no_head_looks_ahead():
    """In "Potter can fly", *can* may read *Potter*, never the other way round."""
    def with_token(place):
        changed = tokens.copy()
        changed[0, place] = (changed[0, place] + 1) % 50
        return mc.forward(weights, changed).logits

    assert is_(with_token(-1)[:, :-1], acts.logits[:, :-1])  # the last word changes nothing before
    assert is_not(with_token(0)[:, 1:], acts.logits[:, 1:])  # the first changes what follows


def test_10_copying_can_be_shared():
    """Two heads together copy what neither does alone: ranks add."""
    first, second = mc.ov_circuit(weights, 0, 0), mc.ov_circuit(weights, 0, 1)
    assert (first.rank(), second.rank(), (first + second).rank()) == (8, 8, 16)
    Id = np.eye(4)
    first, second = mc.LowRank(Id[:, :2], Id[:2]), mc.LowRank(Id[:, 2:], Id[2:])
    assert copying_companions(first).top_own == copying_companions(second).top_own == 0.5
    assert copying_companions(first + second).top_own == 1 != 0.5


def test_11_softmax_of_w_q_w_k_is_not_a_formula():
    """There are tokens in it, a scale and a mask: A = softmax*(xᵀ W_QK x / √d_head)."""
    y, A, seen = x + weights.W_pos.T, acts.pattern[0, 0, 3], np.tri(16, dtype=bool)
    scores = y @ mc.W_QK(weights, 0, 3).AB @ y.T
    assert is_(softmax(np.where(seen, scores / np.sqrt(8), -np.inf), axis=-1), A)
    assert is_not(softmax(weights.W_Q[0, 3] @ weights.W_K[0, 3].T, axis=-1), A)      # no tokens
    assert is_not(softmax(np.where(seen, scores, -np.inf), axis=-1), A)              # no scale
    assert is_not(softmax(scores / np.sqrt(8), axis=-1), A)                          # no mask


def test_12_ov_reads_the_source():
    """OV: what attending to the source does to the logits at the destination; QK: how much the
    destination wants the source."""
    path, = (path for path in mc.expand_logits(weights, tokens, acts.pattern)
             if path.label == "0.3")
    table, A = mc.ov_circuit(weights, 0, 3).AB, acts.pattern[0, 0, 3]
    assert is_(A @ table[:, t].T, path.logits[0])
    assert is_not(table[:, t].T, path.logits[0])             # the destination's own column
    assert is_not(A @ table[t], path.logits[0])              # [source, out]


def test_13_the_residual_stream_keeps_the_token():
    """Copying heads are not there to keep the present token: the residual stream already does."""
    heads_wrote = sum(A @ x @ W.T for A, W in zip(acts.pattern[0, 0], (
        mc.W_OV(weights, 0, head).AB for head in range(4))))
    assert is_(x + heads_wrote, acts.residual[1, 0])
    assert is_not(heads_wrote, acts.residual[1, 0])
    silent = mc.without_heads(weights, list(np.ndindex(2, 4)))
    assert is_(mc.forward(silent, tokens).logits, mc.direct_path(weights).columns(tokens))


def test_14_term_importance_freezes_all_patterns():
    """It freezes all patterns and adds outputs order by order; zeroing a head and running again
    also changes what later heads attend to."""
    model, context = hand_built.induction_by_k_composition(4, 7), [[START, a, b, c, a, b, c]]
    found = mc.term_importance(model, context)
    without = mc.loss_without_heads(model, context, [(0, 0)])
    assert found.given_others[0] == 0 and without.frozen == found.losses[-1]
    assert without.recomputed > found.losses[-1] + 0.1


def test_15_virtual_heads_are_not_the_induction_heads():
    """Induction heads work by K-composition: without any virtual head they predict as before."""
    model, context = hand_built.induction_by_k_composition(4, 7), [[START, a, b, c, a, b, c]]
    acts = mc.forward(model, context)
    assert mc.prefix_matching_scores(model, context)[1, 0] == 1
    virtual, = mc.virtual_heads(model, context)
    assert virtual.heads == ((0, 0), (1, 0)) and virtual.importance == 0
    parts = mc.split_scores(model, context, acts.pattern, layer=1, head=0)
    seen = np.tri(7, dtype=bool)

    def pattern(scores):
        return softmax(np.where(seen, scores, -np.inf), axis=-1)

    assert is_(pattern(parts.neither + parts.K), acts.pattern[1, :, 0])
    assert is_not(pattern(parts.neither), acts.pattern[1, :, 0])      # all it has without K


@pytest.mark.parametrize("off", [0, 0.01])
def test_a_wrong_version_must_be_clearly_wrong(off):
    assert not is_not(acts.logits * (1 + off), acts.logits)
