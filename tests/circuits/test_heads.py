"""The two circuits of a head: entry by entry, and by what they say about the model."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minicircuits.circuits import heads
from minicircuits.circuits.heads import (W_OV, W_QK, direct_path, ov_circuit,
                                         positional_qk_circuits, qk_circuit)
from minicircuits.circuits.low_rank import LowRank
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError
from tests.circuits.dense import invertible
from tests.draws import SEEDS, assert_close, draw_case, random_case, random_weights

SOME_LAYERS = st.sampled_from((1, 2))


def looped(*matrices):
    """The product of arrays, a number at a time, as Σ and Σ|·| over all inner indices."""
    product, size = np.eye(len(matrices[0])), np.eye(len(matrices[0]))
    for matrix in matrices:
        product, size = (
            np.array([[sum(left[i, k] * right[k, j] for k in range(len(right)))
                       for j in range(right.shape[1])] for i in range(len(left))])
            for left, right in ((product, matrix), (size, np.abs(matrix))))
    return product, size.max()


def check_circuits(weights, layer, head):
    Q, K, V, out = (getattr(weights, name)[layer, head] for name in ("W_Q", "W_K", "W_V", "W_O"))
    E, P, U = weights.W_E, weights.W_pos, weights.W_U
    circuits = {"direct": (direct_path(weights), (U, E)),
                "W_QK": (W_QK(weights, layer, head), (Q.T, K)),
                "W_OV": (W_OV(weights, layer, head), (out, V)),
                "QK": (qk_circuit(weights, layer, head), (E.T, Q.T, K, E)),
                "OV": (ov_circuit(weights, layer, head), (U, out, V, E))}
    if P is not None:
        positional = positional_qk_circuits(weights, layer, head)
        circuits |= {"position, position": (positional.position_position, (P.T, Q.T, K, P)),
                     "position, token": (positional.position_token, (P.T, Q.T, K, E)),
                     "token, position": (positional.token_position, (E.T, Q.T, K, P))}
    for name, (circuit, factors) in circuits.items():
        assert isinstance(circuit, LowRank)
        assert_close(circuit.AB, *looped(*factors)[:1], 1e-12, looped(*factors)[1], name)
        assert circuit.A.shape[1] == min(factor.shape[1] for factor in factors[:-1]), name


@settings(max_examples=60, deadline=None)
@given(draw_case(n_layers=SOME_LAYERS), st.data())
def test_circuits_equal_loops_and_stay_narrow(case, data):
    weights = case.weights
    check_circuits(weights, data.draw(st.integers(0, weights.n_layers - 1)),
                   data.draw(st.integers(0, weights.n_heads - 1)))


# What they say about the model, which is another derivation.

@settings(max_examples=40, deadline=None)
@given(draw_case(n_layers=st.just(0)))
def test_the_direct_path_is_the_zero_layer_model(case):
    weights, tokens = case
    logits = forward(replace(weights, W_pos=None, positions="none"), tokens).logits
    scale = np.abs(weights.W_U).max() * np.abs(weights.W_E).max() * weights.d_model
    assert_close(direct_path(weights).columns(tokens), logits, 1e-12, scale)


@settings(max_examples=60, deadline=None)
@given(draw_case(n_layers=SOME_LAYERS), st.data())
def test_qk_circuits_are_the_scores_of_layer_0(case, data):
    """Destination in the rows, source in the columns; 1/√d_head is not in them."""
    weights, tokens = case
    head = data.draw(st.integers(0, weights.n_heads - 1))
    t, p = tokens, np.arange(tokens.shape[1])
    parts = [qk_circuit(weights, 0, head)[t[:, :, None], t[:, None]]]
    if weights.positions != "none":
        positional = positional_qk_circuits(weights, 0, head)
        parts += [positional.position_position[p[:, None], p] + np.zeros_like(parts[0]),
                  positional.position_token[p[:, None], t[:, None]],
                  positional.token_position[t[:, :, None], p]]
    scores = forward(weights, tokens).scores[0, :, head] * weights.d_head ** 0.5
    assert_close(sum(parts), scores, 1e-12, sum(map(np.abs, parts)).max())


@settings(max_examples=40, deadline=None)
@given(draw_case(n_layers=st.just(1)), st.data())
def test_ov_circuits_are_what_attending_does_to_the_logits(case, data):
    """Of one layer: logits = direct path + Σ_h Σ_j A_ij OV[out, source j]."""
    weights, tokens = case
    weights = replace(weights, W_pos=None, positions="none")
    acts = forward(weights, tokens)
    parts = [direct_path(weights).columns(tokens)]
    for head in range(weights.n_heads):
        table = ov_circuit(weights, 0, head).AB
        parts.append(np.array([[sum(A[i, j] * table[:, context[j]] for j in range(len(context)))
                                for i in range(len(context))]
                               for A, context in zip(acts.pattern[0, :, head], tokens)]))
    assert_close(sum(parts), acts.logits, 1e-12, sum(map(np.abs, parts)).max())


def test_qk_is_not_symmetric_and_ov_not_its_own_transpose():
    weights = random_weights(np.random.default_rng(0))
    for circuit in qk_circuit(weights, 0, 0), ov_circuit(weights, 0, 0), W_QK(weights, 1, 2):
        assert np.abs(circuit.AB - circuit.AB.T).max() > 0.1


@pytest.mark.parametrize("positions", ["shortformer", "standard"])
def test_positional_circuits_are_the_same_in_both_modes(positions):
    weights = random_weights(np.random.default_rng(0))
    for one, other in zip(positional_qk_circuits(weights, 1, 2), positional_qk_circuits(
            replace(weights, positions=positions), 1, 2)):
        assert (one.AB == other.AB).all()


# Symmetries.

def circuits_of(weights):
    positional = positional_qk_circuits(weights, 1, 2)
    return {"direct": direct_path(weights).AB, "OV": ov_circuit(weights, 1, 2).AB,
            "QK": qk_circuit(weights, 1, 2).AB,
            **{name: circuit.AB for name, circuit in positional._asdict().items()}}


POSITIONAL = ("position_position", "position_token", "token_position")
ALL = ("direct", "OV", "QK", *POSITIONAL)


def assert_changed(weights, other, changed):
    """Those circuits change that are named, each by a lot, and the others not at all."""
    before, after = circuits_of(weights), circuits_of(other)
    for name in ALL:
        error = np.abs(after[name] - before[name]).max() / np.abs(before[name]).max()
        assert error > 1e-3 if name in changed else error <= 1e-11, f"{name}: {error:.1e}"


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_which_circuits_keep_a_change_of_basis(seed):
    rng = np.random.default_rng(seed)
    W, M = random_weights(rng), invertible(rng, 4)
    inverse = np.linalg.inv(M)
    assert_changed(W, replace(W, W_Q=M @ W.W_Q, W_K=inverse.T @ W.W_K), ())
    assert_changed(W, replace(W, W_Q=M @ W.W_Q, W_K=inverse @ W.W_K), ("QK", *POSITIONAL))
    assert_changed(W, replace(W, W_V=M @ W.W_V, W_O=W.W_O @ inverse), ())
    assert_changed(W, replace(W, W_V=M @ W.W_V, W_O=W.W_O @ M.T), ("OV",))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_all_circuits_keep_a_rotation_of_the_residual_stream(seed):
    rng = np.random.default_rng(seed)
    W, R = random_weights(rng), np.linalg.qr(rng.normal(size=(5, 5)))[0]
    rotated = {"W_E": R @ W.W_E, "W_pos": R @ W.W_pos, "W_O": R @ W.W_O, "W_U": W.W_U @ R.T,
               "W_Q": W.W_Q @ R.T, "W_K": W.W_K @ R.T, "W_V": W.W_V @ R.T}
    assert_changed(W, replace(W, **rotated), ())
    for name, changed in {"W_E": ALL[:3] + ALL[4:], "W_pos": POSITIONAL, "W_O": ("OV",),
                          "W_U": ("direct", "OV"), "W_Q": ALL[2:], "W_K": ALL[2:],
                          "W_V": ("OV",)}.items():
        assert_changed(W, replace(W, **{name: rotated[name]}), changed)


def test_a_row_added_to_W_U_shifts_every_column_of_tables_of_logits():
    W, row = random_weights(np.random.default_rng(0)), np.random.default_rng(1).normal(size=5)
    moved = replace(W, W_U=W.W_U + row)
    assert_changed(W, moved, ("direct", "OV"))
    for name in "direct", "OV":
        shift = circuits_of(moved)[name] - circuits_of(W)[name]
        assert_close(shift, np.repeat(shift[:1], 7, 0), 1e-12)


def test_permuting_heads_and_the_vocabulary():
    W, heads_in, words = random_weights(np.random.default_rng(0)), [1, 2, 0], [3, 0, 6, 1, 5, 2, 4]
    permuted = replace(W, **{name: getattr(W, name)[:, heads_in]
                             for name in ("W_Q", "W_K", "W_V", "W_O")})
    for circuit in ov_circuit, qk_circuit, W_OV, W_QK:
        assert (circuit(permuted, 1, 1).AB == circuit(W, 1, 2).AB).all()
    renamed = replace(W, W_E=W.W_E[:, words], W_U=W.W_U[words])
    for name, table in circuits_of(renamed).items():
        rows = words if name in ("direct", "OV", "QK", "token_position") else range(6)
        columns = words if name in ("direct", "OV", "QK", "position_token") else range(6)
        assert_close(table, circuits_of(W)[name][np.ix_(rows, columns)], 1e-12, name=name)


def test_padding_a_head_with_zeros_changes_no_circuit():
    W = random_weights(np.random.default_rng(0))
    assert_changed(W, replace(
        W, **{name: np.pad(getattr(W, name), ((0, 0), (0, 0), (0, 3), (0, 0)))
              for name in ("W_Q", "W_K", "W_V")},
        W_O=np.pad(W.W_O, ((0, 0), (0, 0), (0, 0), (0, 3)))), ())


# Bad input.

@pytest.mark.parametrize("call", [W_QK, W_OV, ov_circuit, qk_circuit, positional_qk_circuits])
@pytest.mark.parametrize("layer, head", [(2, 0), (0, 3), (-1, 0), (0, -1)])
def test_a_head_that_is_none_gets_one_clear_line(call, layer, head):
    with pytest.raises(InputError, match=f"counted from 0; got {layer}.{head}") as caught:
        call(random_weights(np.random.default_rng(0)), layer, head)
    assert "\n" not in str(caught.value)


def test_a_model_without_layers_has_no_heads():
    weights, _ = random_case(0, n_layers=0)
    with pytest.raises(InputError, match="layer < 0"):
        ov_circuit(weights, 0, 0)


def test_without_positions_there_are_no_positional_circuits():
    with pytest.raises(InputError, match="need positions"):
        positional_qk_circuits(random_weights(np.random.default_rng(0), positions="none"), 0, 0)


# The checks themselves fail on mistakes.

@pytest.mark.parametrize("name, mistake", [
    ("W_QK", lambda W, layer, head: LowRank(W.W_K[layer, head].mT, W.W_Q[layer, head])),
    ("W_QK", lambda W, layer, head: LowRank(W.W_Q[layer, head].mT / 2, W.W_K[layer, head])),
    ("W_OV", lambda W, layer, head: LowRank(W.W_V[layer, head].mT, W.W_O[layer, head].mT)),
    ("W_OV", lambda W, layer, head: LowRank(W.W_O[layer, head], W.W_V[layer, head - 1])),
    ("product", lambda *factors: LowRank(np.asarray(factors[0]), (factors[1] @ factors[2]).AB)),
], ids=["QK transposed", "QK scaled", "OV transposed", "another head's values", "too wide"])
def test_the_checks_see_a_mistake(monkeypatch, name, mistake):
    weights = random_weights(np.random.default_rng(0), d_vocab=11, n_ctx=9)
    check_circuits(weights, 1, 2)
    monkeypatch.setattr(heads, name, mistake)
    monkeypatch.setitem(globals(), name, mistake)
    with pytest.raises(AssertionError):
        check_circuits(weights, 1, 2)
