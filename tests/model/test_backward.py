"""Every gradient of every weight and every intermediate, against the complex step.

f(x + ih) = f(x) + ih f′(x) + O(h²): with h = 1e-100 the imaginary part over h is the
derivative to the last digits, since nothing is subtracted. The scalar is Σ c·logits with a
random cotangent c, or the loss. Weights go through the model's own forward in complex128
(held to the loops by `test_forward`), intermediates through nudges of the plain loops.

The checkers are tested too: each seeded mistake has to be found.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from minicircuits.model import fast
from minicircuits.model.transformer import backward, forward, loss, loss_and_gradients
from minicircuits.notation import POSITIONS, InputError
from minicircuits.plain import model as plain
from tests.draws import (arrays, assert_all_close, assert_close, assert_loss_close, draw_case,
                         random_case, roundings)

H = 1e-100
UNEQUAL = dict(b=1, i=3, n_heads=2, d_head=4, d_model=5, d_vocab=6, n_ctx=7)


# The checkers.

def complex_step(f, array):
    """df/darray, an entry at a time: f takes a nudge of array's shape."""
    derivative = np.zeros(array.shape)
    for index in np.ndindex(*array.shape):
        nudge = np.zeros(array.shape, np.complex128)
        nudge[index] = 1j * H
        derivative[index] = complex(f(nudge)).imag / H
    return derivative


def weights_by_complex_step(f, weights):
    """The derivative of f(weights) with respect to each weight."""
    lifted = weights.astype(np.complex128)
    return {name: complex_step(lambda nudge: f(replace(lifted, **{name: W + nudge})), W)
            for name, W in lifted.items()}


def activations_by_complex_step(f, acts):
    """The derivative of f(nudges) with respect to each intermediate."""
    return {name: complex_step(lambda nudge: f({name: nudge}), array)
            for name, array in arrays(acts).items()}


def scales(weights, acts, dacts):
    """The largest Σ|term| of the gradients whose terms may cancel, all behind the softmax.

    Where values are equal (one token in the vocabulary) nothing depends on the pattern, and
    what is left of dscores = A (dA − Σ A dA) is the rounding of its terms.
    """
    a, da = {n: abs(x) for n, x in arrays(acts).items()}, abs(dacts.pattern)
    y, W_pos = a["residual"][:-1], weights.W_pos
    if weights.positions == "shortformer":
        y = y + abs(W_pos.T[:y.shape[2]])
    scores = a["pattern"] * (da + (a["pattern"] * da).sum(-1, keepdims=True))
    q, k = scores @ a["k"], scores.mT @ a["q"]
    largest = {"scores": scores, "q": q, "k": k, "W_Q": np.einsum("lbhie,lbid->lhed", q, y),
               "W_K": np.einsum("lbhie,lbid->lhed", k, y)}
    if weights.positions == "shortformer":
        largest["W_pos"] = (np.einsum("lbhie,lhed->id", q, abs(weights.W_Q))
                            + np.einsum("lbhie,lhed->id", k, abs(weights.W_K)))
    return {name: array.max(initial=0) for name, array in largest.items()}


def check(actual, desired, scale, tolerance=1e-10):
    """Every array; one that is all zero is compared exactly, unless its terms cancel."""
    actual = arrays(actual) if not isinstance(actual, dict) else actual
    assert actual.keys() == desired.keys()
    for name, array in desired.items():
        largest = max(scale.get(name, 0), np.abs(array).max(initial=0))
        assert_close(actual[name], array, tolerance, largest, "d" + name)


def derivatives(case, cotangent):
    """Those of Σ cotangent·logits by complex step: of the weights, of the intermediates.

    The latter of up to two layers: nudged one by one, in loops, those of three take long.
    """
    weights, tokens = case
    return (
        weights_by_complex_step(
            lambda lifted: (cotangent * forward(lifted, tokens).logits).sum(), weights),
        activations_by_complex_step(
            lambda nudges: (cotangent * plain.forward(weights, tokens, nudges).logits).sum(),
            forward(weights, tokens)) if weights.n_layers < 3 else None)


def check_backward(backward, case, cotangent, true=None):
    """Whether `backward` is the derivative of `forward`, seen along `cotangent` (b, i, v)."""
    acts, (dW, da) = forward(*case), true or derivatives(case, cotangent)
    gradients, dacts = backward(*case, acts, cotangent)
    scale = scales(case.weights, acts, dacts)
    check(gradients, dW, scale)
    if da is not None:
        check(dacts, da, scale)


def random_cotangent(case, seed=99):
    weights, tokens = case
    return np.random.default_rng(seed).normal(size=(*tokens.shape, weights.d_vocab))


def dlogits_of_loss(weights, tokens):
    return plain.cross_entropy_backward(
        forward(weights, tokens).logits.astype(object), tokens).astype(weights.dtype)


# The gradients.

@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_every_gradient_by_complex_step(n_layers, positions):
    case = random_case(10 + n_layers, **UNEQUAL, n_layers=n_layers, positions=positions)
    check_backward(backward, case, random_cotangent(case))


@pytest.mark.parametrize("sizes", [
    dict(b=2, i=3, n_heads=1, d_head=5, d_model=4, d_vocab=6, n_ctx=3),    # d_head > d_model
    dict(b=3, i=2, n_heads=1, d_head=1, d_model=4, d_vocab=5, n_ctx=6),    # d_head = 1
    dict(b=2, i=3, n_heads=1, d_head=2, d_model=1, d_vocab=1, n_ctx=5),    # V = 1
    dict(b=3, i=1, n_heads=2, d_head=2, d_model=4, d_vocab=5, n_ctx=1),    # T = 1
], ids=str)
def test_every_gradient_by_complex_step_at_the_edges(sizes):
    case = random_case(20, **sizes, n_layers=1)
    check_backward(backward, case, random_cotangent(case))


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("n_layers", [0, 2])
def test_gradients_of_the_loss_by_complex_step(n_layers, positions):
    sizes = {**UNEQUAL, "b": 9, "d_head": 1, "n_layers": n_layers, "positions": positions}
    weights, tokens = random_case(15 + n_layers, **sizes)
    value, gradients = loss_and_gradients(weights, tokens)
    acts, dlogits = forward(weights, tokens), dlogits_of_loss(weights, tokens)
    assert_loss_close(value, loss(weights, tokens), acts.logits)
    scale = scales(weights, acts, backward(weights, tokens, acts, dlogits)[1])
    check(gradients, weights_by_complex_step(lambda lifted: loss(lifted, tokens), weights), scale)


@settings(max_examples=100, deadline=None)
@given(draw_case() | draw_case(dtype=np.complex128))
def test_every_gradient_equals_the_plain_loops(case):
    """Also the complex ones: the derivative itself, not its conjugate."""
    acts, cotangent = forward(*case), random_cotangent(case).astype(case.weights.dtype)
    if np.iscomplexobj(cotangent):
        cotangent += 1j * random_cotangent(case, 98)
    gradients, dacts = backward(*case, acts, cotangent)
    dW, da = plain.backward(*case, acts, cotangent)
    scale = scales(case.weights, acts, dacts)
    check(gradients, arrays(dW), scale, 1e-12)
    check(dacts, arrays(da), scale, 1e-12)


@settings(max_examples=40, deadline=None)
@given(draw_case(min_tokens=2))
def test_loss_and_gradients_equal_the_plain_loops(case):
    value, gradients = loss_and_gradients(*case)
    plain_value, dW = plain.loss_and_gradients(*case)
    acts = forward(*case)
    assert_loss_close(value, plain_value, acts.logits)
    dacts = backward(*case, acts, dlogits_of_loss(*case))[1]
    check(gradients, arrays(dW), scales(case.weights, acts, dacts), 1e-12)


@settings(max_examples=20, deadline=None)
@given(draw_case(min_tokens=2, dtype=np.float32))
def test_gradients_in_float32(case):
    """Float32 in, float32 out; off by at most 16 times what one rounding of everything does."""
    weights, tokens, rng = case.weights.astype(np.float64), case.tokens, np.random.default_rng(0)

    def gradients(nudges, cotangent_error):
        acts = plain.forward(weights, tokens, nudges)
        dlogits = plain.cross_entropy_backward(acts.logits.astype(object), tokens)
        dlogits = dlogits.astype(float) + cotangent_error * rng.choice([-1, 1], dlogits.shape)
        dW, dacts = backward(weights, tokens, acts, dlogits)
        return arrays(dW), scales(weights, acts, dacts)

    acts = forward(weights, tokens)
    exact, scale = gradients({}, 0)
    runs = [gradients(roundings(acts, rng), 2.0 ** -24)[0] for _ in range(3)]
    value, dW = fast.loss_and_gradients(*case)
    assert value.dtype == np.float32
    for name, array in arrays(dW).items():
        assert array.dtype == np.float32, name
        moved = max(np.abs(run[name] - exact[name]).max(initial=0) for run in runs)
        largest = max(scale.get(name, 0), np.abs(exact[name]).max(initial=0))
        assert np.abs(array - exact[name]).max(initial=0) <= 16 * moved + 2.0 ** -21 * largest, name


# Checks that need no reference: what a correct gradient cannot help but satisfy.

@settings(max_examples=60, deadline=None)
@given(draw_case(min_tokens=2))
def test_invariants(case):
    weights, tokens = case
    acts, dlogits = forward(weights, tokens), dlogits_of_loss(weights, tokens)
    g, dacts = backward(weights, tokens, acts, dlogits)
    scale = scales(weights, acts, dacts)
    largest = {name: max(scale.get(name, 0), np.abs(dW).max(initial=0))
               for name, dW in arrays(g).items()}

    def close(name, actual, desired, factor):
        assert_close(actual, desired, 1e-11, largest[name] * factor, name)

    # W_Q → M W_Q, W_K → M⁻ᵀ W_K changes nothing; nor does W_V → M W_V, W_O → W_O M⁻¹.
    W = {name: np.abs(array).max(initial=1) * weights.d_model for name, array in weights.items()}
    close("W_Q", g.W_Q @ weights.W_Q.mT, (g.W_K @ weights.W_K.mT).mT,
          W["W_Q"] + W["W_K"] * largest["W_K"] / (largest["W_Q"] or 1))
    close("W_V", g.W_V @ weights.W_V.mT, weights.W_O.mT @ g.W_O,
          W["W_V"] + W["W_O"] * largest["W_O"] / (largest["W_V"] or 1))
    # A constant added to every logit, or to a destination's scores, changes nothing.
    assert_close(g.W_U.sum(0), np.zeros(weights.d_model), 1e-12,
                 np.abs(acts.residual).max() * weights.d_vocab, "Σ_v dW_U")
    assert_close(dacts.scores.sum(-1), np.zeros(dacts.scores.shape[:-1]), 1e-12,
                 scale["scores"] * tokens.shape[1] or 1, "Σ_j dscores")
    assert_close(dacts.k.sum(-2), np.zeros(dacts.k.shape[:-2] + dacts.k.shape[-1:]), 1e-12,
                 scale["k"] * tokens.shape[1] or 1, "Σ_j dk")
    # What the loss does not depend on has a gradient of exactly 0.
    assert (g.W_E[:, np.setdiff1d(np.arange(weights.d_vocab), tokens[:, :-1])] == 0).all()
    if weights.W_pos is not None:
        assert (g.W_pos[:, tokens.shape[1] - 1:] == 0).all()
    assert (dacts.logits[:, -1] == 0).all() and (dacts.residual[:, :, -1] == 0).all()
    later = np.triu(np.ones((tokens.shape[1],) * 2, bool), 1)
    assert (dacts.scores[..., later] == 0).all()
    if weights.n_layers == 0 and weights.positions == "shortformer":
        assert (g.W_pos == 0).all()


def test_the_only_score_of_the_first_row_has_a_gradient_of_exactly_zero():
    """Its pattern is 1, whatever the score; so with one token nothing reads W_Q or W_K."""
    case = random_case(30)
    dacts = backward(*case, forward(*case), random_cotangent(case))[1]
    assert (dacts.scores[..., 0, :] == 0).all() and (dacts.q[..., 0, :] == 0).all()
    one = random_case(31, i=1)
    gradients = backward(*one, forward(*one), random_cotangent(one))[0]
    assert (gradients.W_Q == 0).all() and (gradients.W_K == 0).all()
    assert (gradients.W_V != 0).any()


def test_a_pattern_has_a_gradient_at_masked_entries_too():
    case = random_case(32)
    dacts = backward(*case, forward(*case), random_cotangent(case))[1]
    assert (dacts.pattern[..., 0, 1:] != 0).all()


# The checkers find what is seeded.

CASE = random_case(40, b=2, i=3, n_heads=2, d_head=4, d_model=5, d_vocab=6, n_layers=1)._replace(
    tokens=np.array([[1, 2, 1], [4, 1, 5]]))       # token 1 more than once
COTANGENT = random_cotangent(CASE)


@pytest.fixture(scope="module")
def true():
    return derivatives(CASE, COTANGENT)


def test_right_backwards_pass(true):
    check_backward(backward, CASE, COTANGENT, true)
    check_backward(plain.backward, CASE, COTANGENT, true)


@pytest.mark.parametrize("name", ["W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_U", "residual",
                                  "q", "k", "v", "scores", "pattern", "z", "logits"])
def test_the_checker_sees_an_array_off_by_a_thousandth(name, true):
    def off(*arguments):
        return tuple(replace(result, **{name: 1.001 * getattr(result, name)})
                     if name in arrays(result) else result for result in backward(*arguments))
    with pytest.raises(AssertionError, match=f"d{name}: relative error"):
        check_backward(off, CASE, COTANGENT, true)


def test_the_checker_sees_a_nan(true):
    def broken(*arguments):
        gradients, dacts = backward(*arguments)
        dacts.v[-1, 0, 0, -1, 0] = np.nan
        return gradients, dacts
    with pytest.raises(AssertionError, match="dv: relative error nan"):
        check_backward(broken, CASE, COTANGENT, true)


def test_the_checker_sees_noise_where_there_is_nothing():
    """Without layers a shortformer never reads its positions: not even 1e-20 is 0."""
    weights, _ = random_case(41, n_layers=0)
    case, c = (weights, np.array([[1]])), np.ones((1, 1, 7))

    def noisy(*arguments):
        gradients, dacts = backward(*arguments)
        return replace(gradients, W_pos=gradients.W_pos + 1e-20), dacts
    with pytest.raises(AssertionError, match="dW_pos: relative error inf"):
        check(noisy(*case, forward(*case), c)[0], derivatives(case, c)[0], {})


def test_a_cotangent_of_ones_is_blind_to_the_softmax():
    """Rows of A sum to 1, so Σ A does not move: a lost Jacobian is as right as the true one."""
    scores = np.random.default_rng(42).normal(size=(1, 2, 4, 4))
    pattern = plain.softmax(scores.astype(object))

    def error(softmax_backward, cotangent):
        step = complex_step(lambda nudge: (cotangent * plain.softmax(
            (scores + nudge).astype(object))).sum(), scores)
        return np.abs(softmax_backward(pattern, cotangent).astype(float) - step).max()

    ones, random = np.ones_like(scores), np.random.default_rng(43).normal(size=scores.shape)
    for wrong in (lambda pattern, dpattern: 0.0 * dpattern,                         # lost
                  lambda pattern, dpattern: 3 * plain.softmax_backward(pattern, dpattern)):
        assert error(wrong, ones) <= 1e-15          # the wrong ones pass …
        assert error(wrong, random) > 0.1           # … until the cotangent is random
    assert error(plain.softmax_backward, random) <= 1e-15


# Manners, and bad input.

def test_arguments_are_not_written_to_and_a_second_call_is_the_same():
    case = random_case(50)
    acts, cotangent = forward(*case), random_cotangent(case)
    for array in (*arrays(case.weights).values(), case.tokens, *arrays(acts).values(), cotangent):
        array.setflags(write=False)
    for first, second in zip(backward(*case, acts, cotangent), backward(*case, acts, cotangent)):
        for name, array in arrays(first).items():
            assert (array == arrays(second)[name]).all(), name


@pytest.mark.parametrize("layout", [
    np.asfortranarray, lambda a: a[(slice(None, None, -1),) * a.ndim].copy()[
        (slice(None, None, -1),) * a.ndim]], ids=["Fortran order", "negative strides"])
def test_memory_layout_does_not_matter(layout):
    weights, tokens = random_case(51)
    same = replace(weights, **{name: layout(W) for name, W in weights.items()})
    acts, c = forward(weights, tokens), random_cotangent((weights, tokens))
    laid_out = replace(acts, **{name: layout(array) for name, array in arrays(acts).items()})
    for actual, desired in zip(backward(same, layout(tokens), laid_out, layout(c)),
                               backward(weights, tokens, acts, c)):
        assert_all_close(actual, desired, 1e-13)
    assert_all_close(fast.loss_and_gradients(same, layout(tokens))[1],
                     fast.loss_and_gradients(weights, tokens)[1], 1e-13)


@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 3, 7), (4, 7), (1, 4, 7)])
def test_dlogits_of_a_wrong_shape(shape):
    case = random_case(52)
    with pytest.raises(InputError, match=r"dlogits must have axes \(b, i, v\)") as caught:
        backward(*case, forward(*case), np.zeros(shape))
    assert "\n" not in str(caught.value)


def test_dlogits_of_another_precision():
    weights, tokens = random_case(54, dtype=np.float32)
    acts = forward(weights, tokens)
    dlogits = np.random.default_rng(0).standard_normal(acts.logits.shape)
    dW, dacts = backward(weights, tokens, acts, dlogits)
    assert dW.dtype == dacts.residual.dtype == np.float32


def test_activations_of_other_tokens():
    weights, tokens = random_case(53)
    with pytest.raises(InputError, match="acts.residual must have axes"):
        backward(weights, tokens, forward(weights, tokens[:, :3]), np.zeros((2, 4, 7)))
