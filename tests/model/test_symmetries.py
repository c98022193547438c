"""What may be done to the weights or the tokens without changing what the model does.

Each is a property of every correct implementation, so none needs a reference. Where the loss
keeps its value, its gradients must change as the weights do: also checked, by one identity
for all (a linear change of a weight pulls its gradient back).
"""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits.model.fast import loss_and_gradients
from minicircuits.model.transformer import forward, loss
from tests.draws import assert_close, assert_loss_close, draw_case

symmetry = settings(max_examples=30, deadline=None)
CLOSE = 1e-10


def invertible(rng, *batch, n):
    """Matrices far from orthogonal, yet safe to invert: condition numbers up to about 10."""
    rotate, back = (np.linalg.qr(rng.normal(size=(*batch, n, n)))[0] for _ in range(2))
    return rotate * rng.uniform(0.5, 3, (*batch, 1, n)) @ back


def same(actual, desired, *names):
    for name in names:
        assert_close(getattr(actual, name), getattr(desired, name), CLOSE, name=name)


def same_slopes(case, changed_case):
    """Along a weight's own direction the loss has one slope, before and after: ⟨dW, W⟩.

    Holds for each W that the change multiplies by something fixed, which is all of them
    here: the loss as a function of s·W is the same function of s.
    """
    slopes, terms = [], 0
    for weights, tokens in case, changed_case:
        gradients = loss_and_gradients(weights, tokens)[1]
        products = {name: dW * getattr(weights, name) for name, dW in gradients.items()}
        slopes.append({name: product.sum() for name, product in products.items()})
        terms = max(terms, sum(np.abs(product).sum() for product in products.values()))
    for name in slopes[0]:
        assert abs(slopes[1][name] - slopes[0][name]) <= CLOSE * terms, name


@symmetry
@given(draw_case(min_tokens=2))
def test_another_basis_of_the_residual_stream(case):
    """x → M x: only products that meet in the stream can be seen. A rotation is one case."""
    weights, tokens = case
    M = invertible(np.random.default_rng(0), n=weights.d_model)
    M_inverse = np.linalg.inv(M)
    changed = replace(
        weights, W_E=M @ weights.W_E, W_U=weights.W_U @ M_inverse, W_O=M @ weights.W_O,
        W_pos=None if weights.W_pos is None else M @ weights.W_pos,
        W_Q=weights.W_Q @ M_inverse, W_K=weights.W_K @ M_inverse, W_V=weights.W_V @ M_inverse)
    acts, acts_changed = forward(*case), forward(changed, tokens)
    same(acts_changed, acts, "q", "k", "v", "scores", "pattern", "z", "logits")
    assert_close(acts_changed.residual, acts.residual @ M.T, CLOSE)
    same_slopes(case, (changed, tokens))
    gradients, gradients_changed = (loss_and_gradients(W, tokens)[1] for W in (weights, changed))
    assert_close(M.T @ gradients_changed.W_E, gradients.W_E, CLOSE,
                 np.abs(gradients.W_E).max() or 1)


@symmetry
@given(draw_case(min_tokens=2))
def test_another_basis_of_queries_and_keys(case):
    """W_Q → M W_Q, W_K → M⁻ᵀ W_K: scores see W_QK = W_Qᵀ W_K alone."""
    weights, tokens = case
    L, H, E, _ = weights.W_Q.shape
    M = invertible(np.random.default_rng(0), L, H, n=E)
    changed = replace(weights, W_Q=M @ weights.W_Q, W_K=np.linalg.inv(M).mT @ weights.W_K)
    same(forward(changed, tokens), forward(*case),
         "scores", "pattern", "v", "z", "residual", "logits")
    same_slopes(case, (changed, tokens))


@symmetry
@given(draw_case(min_tokens=2))
def test_another_basis_of_values(case):
    """W_V → M W_V, W_O → W_O M⁻¹: outputs see W_OV = W_O W_V alone."""
    weights, tokens = case
    L, H, E, _ = weights.W_Q.shape
    M = invertible(np.random.default_rng(0), L, H, n=E)
    changed = replace(weights, W_V=M @ weights.W_V, W_O=weights.W_O @ np.linalg.inv(M))
    acts, acts_changed = forward(*case), forward(changed, tokens)
    same(acts_changed, acts, "q", "k", "scores", "pattern", "residual", "logits")
    assert_close(acts_changed.z, np.einsum("lhfe,lbhie->lbhif", M, acts.z), CLOSE)
    same_slopes(case, (changed, tokens))


@symmetry
@given(draw_case())
def test_one_head_as_two_halves(case):
    """Outputs of heads are added, so one head is two with the same pattern, half each."""
    weights, tokens = case
    twice = {name: np.repeat(getattr(weights, name), 2, axis=1) for name in ("W_Q", "W_K", "W_V")}
    changed = replace(weights, **twice, W_O=np.repeat(weights.W_O, 2, axis=1) / 2)
    same(forward(changed, tokens), forward(*case), "residual", "logits")


@symmetry
@given(draw_case(min_tokens=2))
def test_the_vocabulary_in_another_order(case):
    weights, tokens = case
    order = np.random.default_rng(0).permutation(weights.d_vocab)       # new id -> old id
    changed = replace(weights, W_E=weights.W_E[:, order], W_U=weights.W_U[order])
    renamed = np.argsort(order)[tokens]
    acts, acts_changed = forward(*case), forward(changed, renamed)
    same(acts_changed, acts, "residual", "pattern")
    assert_close(acts_changed.logits, acts.logits[..., order], CLOSE)
    same_slopes(case, (changed, renamed))


@symmetry
@given(draw_case(min_tokens=2))
def test_contexts_of_a_batch_do_not_meet(case):
    weights, tokens = case
    order = np.random.default_rng(0).permutation(len(tokens))
    acts = forward(*case)
    assert_close(forward(weights, tokens[order]).logits, acts.logits[order], CLOSE)
    for b in range(len(tokens)):
        assert_close(forward(weights, tokens[b:b + 1]).logits, acts.logits[b:b + 1], CLOSE)
    losses = [loss(weights, tokens[b:b + 1]) for b in range(len(tokens))]
    assert_loss_close(loss(*case), np.mean(losses), acts.logits)
    same_slopes(case, (weights, tokens[order]))
    same_slopes(case, (weights, np.concatenate([tokens, tokens])))      # a mean, not a sum


@symmetry
@given(draw_case(min_tokens=2))
def test_a_constant_added_to_every_row_of_the_unembedding(case):
    """Logits move together, so probabilities, the loss and gradients elsewhere do not."""
    weights, tokens = case
    row = np.random.default_rng(0).normal(size=weights.d_model)
    changed = replace(weights, W_U=weights.W_U + row)
    acts, acts_changed = forward(*case), forward(changed, tokens)
    assert_close(acts_changed.logits - acts.logits,
                 np.repeat(acts.residual[-1] @ row[:, None], weights.d_vocab, axis=-1),
                 CLOSE, np.abs(acts.logits).max())
    assert_loss_close(loss(changed, tokens), loss(*case), acts_changed.logits, CLOSE)
    before, after = loss_and_gradients(*case)[1], loss_and_gradients(changed, tokens)[1]
    largest = max(np.abs(dW).max(initial=0) for _, dW in before.items())
    for (name, dW), (_, dW_changed) in zip(before.items(), after.items()):
        assert_close(dW_changed, dW, CLOSE, largest or 1, name)


@symmetry
@given(draw_case())
def test_a_constant_added_to_every_key(case):
    """It adds q_i·c/√d_head to the whole row of destination i, which no softmax can see.

    A constant reaches the keys through a dimension of the stream that is 1 everywhere.
    """
    weights, tokens = case
    constant = np.random.default_rng(0).normal(size=weights.W_K.shape[:-1] + (1,))

    def with_ones(c):
        grown = {name: np.concatenate([W, 0 * W[..., :1]], -1) for name, W in weights.items()
                 if name in ("W_Q", "W_V", "W_U")}
        W_O, W_pos = weights.W_O, weights.W_pos
        return replace(
            weights, **grown, W_K=np.concatenate([weights.W_K, c], -1),
            W_E=np.concatenate([weights.W_E, 0 * weights.W_E[:1] + 1]),
            W_O=np.concatenate([W_O, 0 * W_O[..., :1, :]], -2),
            W_pos=None if W_pos is None else np.concatenate([W_pos, 0 * W_pos[:1]]))

    acts, moved = forward(with_ones(0 * constant), tokens), forward(with_ones(constant), tokens)
    same(moved, acts, "pattern", "z", "logits")
    shift = acts.q @ constant[:, None] / weights.d_head ** 0.5        # (l, b, h, i, 1)
    assert_close(moved.scores, acts.scores + shift, CLOSE)


@symmetry
@given(draw_case(), st.integers(1, 3))
def test_a_wider_head_filled_with_zeros(case, more):
    """q·k does not change but √d_head does: scores shrink by √(d_head / wider)."""
    weights, tokens = case
    E, zeros = weights.d_head, ((0, 0), (0, 0), (0, more), (0, 0))
    wider = replace(weights, W_O=np.pad(weights.W_O, ((0, 0), (0, 0), (0, 0), (0, more))),
                    **{name: np.pad(getattr(weights, name), zeros)
                       for name in ("W_Q", "W_K", "W_V")})
    first = forward(*case).scores[:1]
    assert_close(forward(wider, tokens).scores[:1], first * (E / (E + more)) ** 0.5, CLOSE)
    wider = replace(wider, W_Q=wider.W_Q * ((E + more) / E) ** 0.5)
    same(forward(wider, tokens), forward(*case), "scores", "pattern", "residual", "logits")


@symmetry
@given(draw_case(positions=st.just("standard")))
def test_positions_in_tokens(case):
    """Standard positions can as well be the tokens' own, if each place has a token."""
    weights, tokens = case
    b, i = tokens.shape
    places = np.arange(i)
    W_E = weights.W_E[:, tokens] + weights.W_pos[:, None, places]      # (d, b, i)
    spelt = replace(weights, W_E=W_E.reshape(weights.d_model, b * i), positions="none", W_pos=None,
                    W_U=np.zeros((b * i, weights.d_model)))
    same(forward(spelt, np.arange(b * i).reshape(b, i)), forward(*case), "residual", "pattern")


@symmetry
@given(draw_case())
def test_more_room_changes_nothing(case):
    """More positions than are used, and tokens that never occur."""
    weights, tokens = case
    roomy = replace(weights, W_E=np.pad(weights.W_E, ((0, 0), (0, 2)), constant_values=9),
                    W_U=np.pad(weights.W_U, ((0, 2), (0, 0)), constant_values=9),
                    W_pos=None if weights.W_pos is None else np.pad(
                        weights.W_pos, ((0, 0), (0, 3)), constant_values=9))
    acts, acts_roomy = forward(*case), forward(roomy, tokens)
    same(acts_roomy, acts, "residual", "pattern")
    assert_close(acts_roomy.logits[..., :-2], acts.logits, CLOSE)
