"""Three whole models worked out by hand, number by number, for a reader with a pencil.

Weights are chosen so that every exponential is a whole number: a score of ln 2 counts 2, one
of ln 3 counts 3, and a pattern is a share of the counts. All three implementations have to
give these numbers, so none can be wrong in the same way as another.
"""

from math import log

import numpy as np
import pytest

from minicircuits.model import fast, transformer
from minicircuits.notation import Weights
from minicircuits.plain import model as plain

LN2, LN3 = log(2), log(3)


@pytest.fixture(params=["plain", "model", "fast"])
def model(request):
    """forward, loss, backward, loss_and_gradients; `fast` has the last of them alone."""
    home = plain if request.param == "plain" else transformer
    return (home.forward, home.loss, home.backward,
            (fast if request.param == "fast" else home).loss_and_gradients)


def equal(actual, by_hand):
    """The same shape and, but for the last digit of a float, the same numbers."""
    by_hand = np.asarray(by_hand, float)
    assert np.shape(actual) == by_hand.shape
    assert np.abs(actual - by_hand).max() <= 2e-15 * max(1, np.abs(by_hand).max())


def test_zero_layers_are_a_bigram_table(model):
    """Two dimensions, three tokens: logits = W_U W_E t, so exp(W_U W_E) holds the counts.

    W_E has a column per token:      W_U has a row per token:      exp(W_U W_E), [out, in]:

               a  b  c                  a  ln2   0                            a   b   c
               1  0  1                  b   0   ln6                        a  2   1   2
               0  1  1                  c   0    0                         b  1   6   6
                                                                           c  1   1   1
    After a, P(a b c) = (2, 1, 1)/4. After b, (1, 6, 1)/8. After c, (2, 6, 1)/9.
    """
    forward, loss, backward, loss_and_gradients = model
    weights = Weights(
        W_E=np.array([[1., 0., 1.],
                      [0., 1., 1.]]),
        W_pos=None, positions="none",
        W_Q=np.zeros((0, 1, 1, 2)), W_K=np.zeros((0, 1, 1, 2)),
        W_V=np.zeros((0, 1, 1, 2)), W_O=np.zeros((0, 1, 2, 1)),
        W_U=np.array([[LN2, 0.],
                      [0., log(6)],
                      [0., 0.]]))
    a, b, c = range(3)
    tokens = np.array([[a, b, a, c]])
    counts = [[2, 1, 1],      # after a, to predict b: 1/4
              [1, 6, 1],      # after b, to predict a: 1/8
              [2, 1, 1],      # after a, to predict c: 1/4
              [2, 6, 1]]      # after c: nothing to predict, no part in the loss
    equal(forward(weights, tokens).logits, [np.log(counts)])

    # loss = (ln 4 + ln 8 + ln 4)/3 = (2 + 3 + 2)/3 ln 2
    equal(loss(weights, tokens), 7 / 3 * LN2)

    # dlogits = (P − one-hot of the next token)/3, at the three places that predict:
    #     after a, b comes:  ( 1/2, −3/4,  1/4)/3
    #     after b, a comes:  (−7/8,  3/4,  1/8)/3
    #     after a, c comes:  ( 1/2,  1/4, −3/4)/3
    # dW_U = Σ dlogits xᵀ, and x is (1, 0) for a, (0, 1) for b. So the first column of dW_U
    # sums the two a's, the second is b's row. Each column sums to 0.
    value, gradients = loss_and_gradients(weights, tokens)
    equal(value, 7 / 3 * LN2)
    equal(gradients.W_U, [[1 / 3, -7 / 24],
                          [-1 / 6, 1 / 4],
                          [-1 / 6, 1 / 24]])
    # dW_E = Σ W_Uᵀ dlogits tᵀ: the same sums times ln2 and ln6. c only stands last: exactly 0.
    equal(gradients.W_E, [[LN2 / 3, -7 / 24 * LN2, 0],
                          [-log(6) / 6, log(6) / 4, 0]])
    assert (gradients.W_E[:, c] == 0).all()


def test_one_head_that_counts(model):
    """One head with d_head = 1 (so the scale 1/√d_head is 1), on the tokens a b a.

    The residual stream has a dimension for a, one for b and one to write to; only that one
    is unembedded.

        W_Q = (1, 1, 0)        q = 1 for both tokens
        W_K = (ln2, ln3, 0)    k = ln2 for a, ln3 for b: an a counts 2, a b counts 3
        W_V = (0, 5, 0)        v = 0 for a, 5 for b
        W_O = (0, 0, ln2)      z is written as z ln2, in the third dimension,
        W_U = (0, 0, 1) for a, (0, 0, 0) for b:    where it is the logit of a; that of b is 0.
    """
    forward, loss, backward, loss_and_gradients = model
    weights = Weights(
        W_E=np.array([[1., 0.],
                      [0., 1.],
                      [0., 0.]]),
        W_pos=None, positions="none",
        W_Q=np.array([[[[1., 1., 0.]]]]),
        W_K=np.array([[[[LN2, LN3, 0.]]]]),
        W_V=np.array([[[[0., 5., 0.]]]]),
        W_O=np.array([[[[0.], [0.], [LN2]]]]),
        W_U=np.array([[0., 0., 1.],
                      [0., 0., 0.]]))
    a, b = range(2)
    tokens = np.array([[a, b, a]])
    acts = forward(weights, tokens)
    equal(acts.q[0, 0, 0, :, 0], [1, 1, 1])
    equal(acts.k[0, 0, 0, :, 0], [LN2, LN3, LN2])
    equal(acts.v[0, 0, 0, :, 0], [0, 5, 0])

    # Every destination scores its sources the same; the mask is what differs.
    #     counts of a b a        shares               z = share of b × 5
    #     2 · ·                  1    ·    ·          0
    #     2 3 ·                  2/5  3/5  ·          3
    #     2 3 2                  2/7  3/7  2/7        15/7
    equal(acts.scores[0, 0, 0], [[LN2, LN3, LN2]] * 3)      # not masked
    equal(acts.pattern[0, 0, 0], [[1, 0, 0],
                                  [2 / 5, 3 / 5, 0],
                                  [2 / 7, 3 / 7, 2 / 7]])
    equal(acts.z[0, 0, 0, :, 0], [0, 3, 15 / 7])
    equal(acts.residual[1, 0], [[1, 0, 0],
                                [0, 1, 3 * LN2],
                                [1, 0, 15 / 7 * LN2]])
    equal(acts.logits[0], [[0, 0], [3 * LN2, 0], [15 / 7 * LN2, 0]])

    # First place: P(a b) = (1, 1)/2 and b comes. Second: (2³, 1)/9 and a comes.
    # loss = −(ln 1/2 + ln 8/9)/2 = −ln(4/9)/2 = ln 3/2
    equal(loss(weights, tokens), log(3 / 2))

    # Backward. dlogits = (P − one-hot)/2:  (1/2, 1/2 − 1)/2,  (8/9 − 1, 1/9)/2,  0.
    dlogits = [[[1 / 4, -1 / 4], [-1 / 18, 1 / 18], [0, 0]]]
    gradients, dacts = backward(weights, tokens, acts, np.array(dlogits))
    # dx = W_Uᵀ dlogits: only the third dimension, 1/4 and −1/18. dz = W_Oᵀ dx = ln2 times it.
    equal(dacts.residual[1, 0], [[0, 0, 1 / 4], [0, 0, -1 / 18], [0, 0, 0]])
    equal(dacts.z[0, 0, 0, :, 0], [LN2 / 4, -LN2 / 18, 0])
    # dpattern_ij = dz_i v_j: only b has a value, 5. Also where the mask is: row 0, column 1.
    equal(dacts.pattern[0, 0, 0], [[0, 5 / 4 * LN2, 0], [0, -5 / 18 * LN2, 0], [0, 0, 0]])
    # dscores = A (dA − Σ A dA). Second row: Σ A dA = 3/5 · (−5/18) = −1/6, so
    #     for a  2/5 (0 + 1/6) = 1/15       for b  3/5 (−5/18 + 1/6) = −1/15       (times ln2)
    # What one source gains, the others lose.
    equal(dacts.scores[0, 0, 0], [[0, 0, 0], [LN2 / 15, -LN2 / 15, 0], [0, 0, 0]])
    # dq_1 = Σ_j dscores_1j k_j = (ln2 − ln3) ln2/15; dk_j = dscores_1j q_1.
    dq = -log(3 / 2) * LN2 / 15
    equal(dacts.q[0, 0, 0, :, 0], [0, dq, 0])
    equal(dacts.k[0, 0, 0, :, 0], [LN2 / 15, -LN2 / 15, 0])
    # dv_j = Σ_i A_ij dz_i: 1 · 1/4 − 2/5 · 1/18 = 41/180 and −3/5 · 1/18 = −1/30 (times ln2)
    equal(dacts.v[0, 0, 0, :, 0], [41 / 180 * LN2, -LN2 / 30, 0])

    # Weights: what reads x = (1, 0, 0) at a and (0, 1, 0) at b.
    equal(gradients.W_Q, [[[[0, dq, 0]]]])
    equal(gradients.W_K, [[[[LN2 / 15, -LN2 / 15, 0]]]])
    equal(gradients.W_V, [[[[41 / 180 * LN2, -LN2 / 30, 0]]]])
    # dW_O = Σ dx z = −1/18 · 3;  dW_U = Σ dlogits xᵀ, opposite for the two tokens.
    equal(gradients.W_O, [[[[0], [0], [-1 / 6]]]])
    equal(gradients.W_U, [[1 / 4, -1 / 18, -LN2 / 6],
                          [-1 / 4, 1 / 18, LN2 / 6]])
    # dW_E: a column per token, x at that token: dx + W_Vᵀ dv + W_Kᵀ dk + W_Qᵀ dq.
    # For a: W_V gives (0, 5, 0) 41/180 ln2, W_K (ln2, ln3, 0) ln2/15, dx (0, 0, 1/4).
    # For b: W_V gives (0, 5, 0)(−ln2/30), W_K (ln2, ln3, 0)(−ln2/15), W_Q (1, 1, 0) dq.
    equal(gradients.W_E.T, [[LN2 * LN2 / 15, 41 / 36 * LN2 + LN3 * LN2 / 15, 1 / 4],
                            [-LN2 * LN2 / 15 + dq, -LN2 / 6 - LN3 * LN2 / 15 + dq, -1 / 18]])
    value, again = loss_and_gradients(weights, tokens)
    equal(value, log(3 / 2))
    for (name, dW), (_, desired) in zip(again.items(), gradients.items()):
        equal(dW, desired)


def test_two_layers_that_do_induction(model):
    """S a b a b: at the second a, the second layer looks at what followed the first a: b.

    The residual stream: which token (a, b; the start token S is all zero), which token came
    before (a′, b′), and five dimensions that only positions fill. Shortformer: W_Q and W_K
    read x + W_pos in both layers, nothing else does. d_head = 4, so 1/√d_head = 1/2.

    0.0, the previous-token head: position i asks for i − 1, with a score of ½ · 2000 against
    0, so its pattern is exactly 1 there (e⁻¹⁰⁰⁰ is 0 in floating point). It copies a to a′,
    b to b′.
    1.0, the induction head: the query is the present token, the key the previous one, worth
    ½ · 2 ln8: a match counts 8. Every query likes position 0 by ½ · 2 ln2: S counts 2, all
    others 1. It copies a to 12 a, b to 12 b.
    """
    forward, loss, backward, loss_and_gradients = model
    W_Q, W_K = np.zeros((2, 1, 4, 9)), np.zeros((2, 1, 4, 9))
    W_V, W_O = np.zeros((2, 1, 4, 9)), np.zeros((2, 1, 9, 4))
    #                    a b  a′b′ p0 p1 p2 p3 p4
    W_Q[0, 0] = 2000 * np.array([
                        [0, 0, 0, 0, 0, 1, 0, 0, 0],      # at p1, ask for
                        [0, 0, 0, 0, 0, 0, 1, 0, 0],
                        [0, 0, 0, 0, 0, 0, 0, 1, 0],
                        [0, 0, 0, 0, 0, 0, 0, 0, 1]])
    W_K[0, 0] = [[0, 0, 0, 0, 1, 0, 0, 0, 0],             # p0, and so on
                 [0, 0, 0, 0, 0, 1, 0, 0, 0],
                 [0, 0, 0, 0, 0, 0, 1, 0, 0],
                 [0, 0, 0, 0, 0, 0, 0, 1, 0]]
    W_V[0, 0, :2, :2] = [[1, 0],                          # read a, b …
                         [0, 1]]
    W_O[0, 0, 2:4, :2] = [[1, 0],                         # … write a′, b′
                          [0, 1]]
    W_Q[1, 0] = 2 * np.array([
                 [log(8), 0, 0, 0, 0, 0, 0, 0, 0],        # if I am a, I want
                 [0, log(8), 0, 0, 0, 0, 0, 0, 0],
                 [0, 0, 0, 0, LN2, LN2, LN2, LN2, LN2],   # wherever I am, I like
                 [0, 0, 0, 0, 0, 0, 0, 0, 0]])
    W_K[1, 0] = [[0, 0, 1, 0, 0, 0, 0, 0, 0],             # what came after a
                 [0, 0, 0, 1, 0, 0, 0, 0, 0],
                 [0, 0, 0, 0, 1, 0, 0, 0, 0],             # the start
                 [0, 0, 0, 0, 0, 0, 0, 0, 0]]
    W_V[1, 0, :2, :2] = np.eye(2)                         # read a, b …
    W_O[1, 0, :2, :2] = 12 * np.eye(2)                    # … write 12 a, 12 b
    W_E = np.zeros((9, 3))
    W_E[:2, 1:] = np.eye(2)                               # columns S, a, b
    W_pos = np.zeros((9, 5))
    W_pos[4:] = np.eye(5)
    W_U = np.zeros((3, 9))
    W_U[1:, :2] = LN2 * np.eye(2)                         # rows S, a, b: counts 1, 2^x_a, 2^x_b
    weights = Weights(W_E=W_E, W_pos=W_pos, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O, W_U=W_U,
                      positions="shortformer")
    S, a, b = range(3)
    tokens = np.array([[S, a, b, a, b]])
    acts = forward(weights, tokens)

    # Layer 0 looks one back; the first place has only itself. Exactly.
    #                             S  a  b  a  b
    equal(acts.pattern[0, 0, 0], [[1, 0, 0, 0, 0],
                                  [1, 0, 0, 0, 0],
                                  [0, 1, 0, 0, 0],
                                  [0, 0, 1, 0, 0],
                                  [0, 0, 0, 1, 0]])
    #                              a  b  a′ b′
    equal(acts.residual[1, 0], [[0, 0, 0, 0, 0, 0, 0, 0, 0],      # S
                                [1, 0, 0, 0, 0, 0, 0, 0, 0],      # a, after S
                                [0, 1, 1, 0, 0, 0, 0, 0, 0],      # b, after a
                                [1, 0, 0, 1, 0, 0, 0, 0, 0],      # a, after b
                                [0, 1, 1, 0, 0, 0, 0, 0, 0]])     # b, after a
    # Layer 1 counts 2 for S, 8 for what followed an earlier copy of me, 1 for all others.
    # The first a and b have no earlier copy and rest on S; the others find theirs.
    equal(acts.pattern[1, 0, 0], [[1, 0, 0, 0, 0],
                                  [2 / 3, 1 / 3, 0, 0, 0],
                                  [2 / 4, 1 / 4, 1 / 4, 0, 0],
                                  [2 / 12, 1 / 12, 8 / 12, 1 / 12, 0],
                                  [2 / 13, 1 / 13, 1 / 13, 8 / 13, 1 / 13]])
    # Each place ends as itself plus 12 of the mixture it attends to:
    #                                              itself    mixture: a, b
    equal(acts.residual[2, 0, :, :2], [[0, 0],              # nothing: S is zero
                                       [1 + 4, 0],          # 12 · 1/3 of a
                                       [3, 1 + 3],          # 12 · 1/4 of a and of b
                                       [1 + 2, 8],          # 12 · 2/12 of a, 8/12 of b
                                       [12 * 9 / 13, 1 + 12 * 2 / 13]])
    # Counts of the next token: 2 to the power of these. At the second a, b has 256 of 265.
    equal(np.exp(acts.logits[0, :4]), [[1, 1, 1],      # S, then a: 1/3
                                       [1, 32, 1],     # a, then b: 1/34
                                       [1, 8, 16],     # b, then a: 8/25
                                       [1, 8, 256]])   # a, then b: 256/265
    equal(loss(weights, tokens), -log(1 / 3 * 1 / 34 * 8 / 25 * 256 / 265) / 4)

    # One gradient: what the loss wants of the second a's attention (destination 3).
    # dlogits_3 = (1, 8, 256 − 265)/265/4. In the stream times ln2, through W_O times 12:
    #     dz_3 = 12 ln2 (8, −9)/1060 = ln2/265 (24, −27)
    # dpattern_3j = dz_3 · v_j, in units of ln2/265:     S 0   a 24   b −27   a 24
    # their mean: (2·0 + 1·24 − 8·27 + 1·24)/12 = −14
    # dscores_3j = A_3j (dpattern_3j + 14), times 12:    S 2·14   a 38   b 8·(−13)   a 38
    # More of b, less of all others.
    dlogits = np.zeros((1, 5, 3))
    dlogits[0, 3] = np.array([1, 8, -9]) / 265 / 4
    gradients, dacts = backward(weights, tokens, acts, dlogits)
    equal(dacts.scores[1, 0, 0, 3], np.array([28, 38, -104, 38, 0]) / 12 / 265 * LN2)
    # dk = dscores q/√d_head, and the second a's q is 2 ln8 for a′, halved by the scale. So at
    # b (place 2) the key wants more of a′: that is where layer 0 writes. K-composition.
    equal(dacts.k[1, 0, 0, 2, 0], -104 / 12 / 265 * LN2 * log(8))
    equal(dacts.residual[1, 0, 2, 2], -104 / 12 / 265 * LN2 * log(8))
    equal(dacts.z[0, 0, 0, 2, 0], -104 / 12 / 265 * LN2 * log(8))
