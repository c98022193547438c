"""What is expected, by six derivations: loops, table of steps, model, paths, 50 digits, fractions.

And the complex step, for every gradient.
"""

import decimal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

import minicircuits as mc
from minicircuits.notation import POSITIONS, relative_error
from minicircuits.plain import circuits as plain_circuits
from minicircuits.plain import model as plain
from minicircuits.testing import vectors
from minicircuits.testing.steps import AXES, BIAS_LETTERS, UNIT, Reference
from minicircuits.testing.strategies import draw_case, random_case
from tests.testing import exact
from tests.testing.candidates import circuits, model

ONE = dict(b=1, i=3, n_heads=2, d_head=2, d_model=3, d_vocab=4, n_ctx=3)


def assert_equal(actual, desired, tolerance=1e-11):
    """Every tensor in both, to `tolerance` of the largest number, or of 1/1000.

    Eigenvalues near 0 keep fewer digits, by as much as the matrix is larger than they are.
    """
    for name in desired.keys() & actual.keys():
        a, b = np.asarray(actual[name]), np.asarray(desired[name])
        scale = max(abs(b).max(initial=0), 1e-3)
        assert a.shape == b.shape and relative_error(a, b, scale) <= (
            1e-8 if name == "copying_score" else tolerance), name


@settings(max_examples=40, deadline=None)
@given(draw_case(min_tokens=2))
def test_steps_equal_the_loops_and_the_model(case):
    table = Reference(*case).arrays()
    loops = plain.tensors(*case)
    loops |= plain_circuits.tensors(*case, loops["pattern"])
    absent = {f"d{name}" for name in (*BIAS_LETTERS, *["W_pos"] * (case.weights.W_pos is None))}
    absent.add("normalized")
    assert loops.keys() == AXES.keys() - absent
    assert_equal(table, loops)
    assert_equal(model(*case), loops)


@settings(max_examples=20, deadline=None)
@given(draw_case(min_tokens=2))
def test_circuits_equal_the_loops(case):
    """`minicircuits.circuits` against dense matrices in loops."""
    loops = plain_circuits.tensors(*case, mc.forward(*case).pattern)
    assert_equal(circuits(*case), loops, 1e-10)


@pytest.mark.parametrize("positions", POSITIONS)
def test_paths_give_the_logits_and_patterns(positions):
    weights, tokens = random_case(50, positions=positions)
    table, rebuilt = Reference(weights, tokens).arrays(), mc.rebuild(weights, tokens)
    assert_equal({"pattern": rebuilt.pattern, "logits": rebuilt.logits,
                  "logits_by_order": mc.logits_by_order(weights, tokens, rebuilt.pattern)}, table)


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradients_by_complex_step(positions):
    weights, tokens = random_case(51, **ONE, n_layers=2, positions=positions)
    lifted, table = weights.astype(np.complex128), Reference(weights, tokens).arrays()
    for name, W in lifted.items():
        dW = np.zeros(W.shape)
        for index in np.ndindex(*W.shape):
            moved = W.copy()
            moved[index] += 1e-100j
            dW[index] = mc.loss(replace(lifted, **{name: moved}), tokens).imag / 1e-100
        assert_equal({f"d{name}": dW}, table)


@pytest.mark.parametrize("positions", POSITIONS)
def test_fifty_digits(positions):
    """Forward to the last digit of float64; two gradients by differences, at no loss of digits."""
    weights, tokens = random_case(52, **ONE, n_layers=1, positions=positions)
    table = Reference(weights, tokens).arrays()
    with decimal.localcontext(exact.DIGITS):
        patterns, logits = exact.forward(weights, tokens[0], exact.Decimals)
        assert relative_error(np.array(logits, float), table["logits"][0]) <= 4e-15
        for h, i in np.ndindex(2, 3):
            assert relative_error(np.array(patterns[0][h][i], float),
                                  table["pattern"][0, 0, h, i, :i + 1]) <= 4e-15
        value = exact.loss(weights, tokens[0])
        assert abs(float(value) - table["loss"]) <= 4e-15 * abs(table["logits"]).max()
        step = decimal.Decimal("1e-20")
        for name, index in ("W_K", (0, 1, 0, 2)), ("W_E", (1, tokens[0, 0])):
            def moved(by):
                class Moved(exact.Decimals):
                    number = staticmethod(lambda x: decimal.Decimal(float(x)) + (
                        by if x == getattr(weights, name)[index] else 0))
                return exact.loss(weights, tokens[0], Moved)
            slope = (moved(step) - moved(-step)) / (2 * step)
            assert abs(float(slope) - table[f"d{name}"][index]) <= 1e-12


def test_fractions():
    """The vector that is exact is exact: its numbers are these fractions, in every bit."""
    vector = vectors.core()["exact"]
    for b, tokens in enumerate(vector.tokens):
        patterns, logits = exact.forward(vector.weights, tokens, exact.Fractions)
        assert np.array_equal(np.array(logits, float), vector.stored["logits"][b])
        for row, numbers in zip(logits, vector.stored["logits"][b].astype(np.float32).tolist()):
            assert row == numbers                                # in float32 too
        for layer, of_layer in enumerate(patterns):
            for i in range(len(tokens)):
                assert of_layer[0][i] == vector.stored["pattern"][layer, b, 0, i, :i + 1].tolist()


def test_every_tensor_has_axes_and_every_axis_the_size_of_its_letter():
    weights, tokens = random_case(53, positions="standard")
    sizes = {"l": 2, "l+1": 3, "b": 2, "i": 4, "j": 4, "h": 3, "d": 5, "e": 4, "u": 7, "v": 7,
             "p": 6}
    arrays = Reference(weights, tokens).arrays()
    assert arrays.keys() == AXES.keys() - {f"d{name}" for name in BIAS_LETTERS} - {"normalized"}
    for name, array in arrays.items():
        assert array.shape == tuple(sizes[letter] for letter in AXES[name].split()), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_bound_holds_for_operands_and_results_rounded_either_way(precision):
    """Every step, with all it reads and what it gives moved by one rounding."""
    rng, u = np.random.default_rng(0), UNIT[precision]
    for seed, positions in enumerate(POSITIONS):
        reference = Reference(*random_case(60 + seed, positions=positions))
        for step in reference.steps:
            if step.name in ("copying_score", "composition_Q", "composition_K", "composition_V"):
                continue                     # their bounds are not of this form

            def rounded(array):
                return array * (1 + u * rng.choice([-1, 1], np.shape(array)))

            inputs = [reference.expected[key] for key in step.inputs]
            W = {name: rounded(array) if name not in ("p", "scale") else array
                 for name, array in reference.W.items()}
            off = abs(rounded(step.value(W, *map(rounded, inputs)))
                      - step.value(reference.W, *inputs))
            bound = step.bound(u, reference.W, *inputs)
            assert (off <= bound + 1e-300).all(), (step.label, (off / bound).max())
            if step.name != "dscores":
                assert (bound <= 2000 * u * (1 + abs(reference.expected[step[:2]])
                                             .max(initial=0) * 10)).all(), step.label


def test_stored_numbers_take_the_place_of_computed_ones():
    vector = vectors.core()["circuits"]
    stored = {name: array + 1 for name, array in vector.stored.items()}
    for name, array in Reference(vector.weights, vector.tokens, stored).arrays().items():
        assert np.array_equal(array, stored[name]), name
