"""The checker: it passes what is right, in every precision, and says what is wrong."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minicircuits as mc
from minicircuits.notation import InputError
from minicircuits.plain import model as plain
from minicircuits.testing import assert_matches, check, mutants
from minicircuits.testing.steps import AXES, CIRCUITS
from minicircuits.testing.strategies import draw_case, draw_special_case, random_case
from minicircuits.testing.vectors import cases, core, find
from tests.testing.candidates import bfloat16, circuits, in_low_precision, model, outputs, tf32

ORDINARY = core()["ordinary-shortformer"]
STORED = [vector for vector in core().values() if vector.stored]
SMALL = [core()[id] for id in ("exact", "ordinary-shortformer", "square-heads")]


def in_other_order(weights, tokens):
    """The model with its sums in another order: its residual, head and head-size axes permuted."""
    rng, W = np.random.default_rng(0), dict(weights.items())
    d, e, h = map(rng.permutation, (weights.d_model, weights.d_head, weights.n_heads))
    moved = {"W_E": W["W_E"][d], "W_U": W["W_U"][:, d],
             "W_O": W["W_O"][:, h][..., d, :][..., e],
             **{name: W[name][:, h][:, :, e][..., d] for name in ("W_Q", "W_K", "W_V")}}
    if "W_pos" in W:
        moved["W_pos"] = W["W_pos"][d]
    found = outputs(replace(weights, **moved), tokens)
    d, e, h = map(np.argsort, (d, e, h))
    for name in found.keys() & {"dW_E", "dW_pos"}:
        found[name] = found[name][d]
    if "dW_U" in found:
        found["dW_U"] = found["dW_U"][:, d]
        found["dW_O"] = found["dW_O"][:, h][:, :, d][..., e]
        for name in ("dW_Q", "dW_K", "dW_V"):
            found[name] = found[name][:, h][:, :, e][..., d]
    return found


def in_slices(weights, tokens):
    """Loss and gradients as `loss_and_gradients` adds them up from slices of the batch."""
    if tokens.shape[1] < 2:
        return {"logits": mc.forward(weights, tokens).logits}
    loss, gradients = mc.loss_and_gradients(weights, tokens, slices=2)
    return {"loss": loss, **{f"d{name}": array for name, array in gradients.items()}}


RIGHT = {"every tensor": model, "outputs": outputs, "loops": plain.tensors, "slices": in_slices,
         "other order": in_other_order}


# What is right passes.

@pytest.mark.parametrize("name, precision", [
    *((name, "float64") for name in RIGHT), ("every tensor", "float32"), ("outputs", "float32"),
    ("outputs", "tf32"), ("outputs", "bfloat16")])
def test_right_candidates_pass_the_core_set(name, precision):
    low = name == "outputs" and precision != "float64"
    most = 60 if name == "loops" else 300 if low else 1000         # tokens
    chosen = [case for case in cases(drawn=4) if case.tokens.size < most]
    assert_matches(RIGHT[name], precision, chosen)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_right_circuits_pass(precision):
    assert_matches(circuits, precision, [find("circuits"), find("ordinary-standard"),
                                         *map(find, ("drawn2-1", "drawn2-6"))])


@pytest.mark.parametrize("precision", ["float64", "float32"])
@settings(max_examples=100, deadline=None)
@given(case=st.one_of(draw_case(min_tokens=2), draw_special_case()),
       leave_out=st.integers(0, 2 ** 32 - 1), name=st.sampled_from(sorted(RIGHT)))
def test_no_false_alarm_over_drawn_cases(precision, case, leave_out, name):
    """In each of the two precisions, of every candidate, any tensors left out."""
    weights = case.weights.astype(precision)
    found = RIGHT[name](weights, case.tokens)
    kept = np.random.default_rng(leave_out).uniform(size=len(found)) < 0.7
    found = {tensor: found[tensor] for tensor, keep in zip(found, kept) if keep}
    report = check((weights, case.tokens), found, precision)
    assert not report.wrong, str(report)


def test_threads_may_check_at_once():
    barrier = threading.Barrier(4)

    def work(seed):
        barrier.wait()
        return bool(check(ORDINARY, model)) and bool(check(random_case(seed), model))
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


# Precision.

@pytest.mark.parametrize("rounded, precision", [(bfloat16, "bfloat16"), (tf32, "tf32")])
def test_low_precision_fails_as_float32_and_passes_as_what_it_is(rounded, precision):
    candidate = in_low_precision(rounded)
    for vector in STORED:
        assert check(vector, candidate, precision), str(check(vector, candidate, precision))
        only = {name: array for name, array in candidate(
            vector.weights.astype(np.float32), vector.tokens).items() if name == "logits"}
        assert check(vector, only, precision), vector.id
    report = check(ORDINARY, candidate, "float32")
    assert not report and f"it would pass as --precision {precision}" in str(report)


def test_float32_fails_as_float64_and_says_so():
    def single(weights, tokens):
        return model(weights.astype(np.float32), tokens)
    report = check(ORDINARY, single)
    assert not report and "it would pass as --precision float32" in str(report)


# What is wrong is named.

@pytest.mark.parametrize("name", sorted(AXES.keys() - {*CIRCUITS, "normalized"}))
def test_one_wrong_number_of_any_tensor_is_found_and_named(name):
    case = find(ORDINARY.id, biases=name.startswith("db"))
    found = mutants.with_biases(mc.fold_biases, model, *arguments(), case.biases)
    found = {tensor: np.array(array) for tensor, array in found.items()}
    layered = AXES[name][:1] == "l"
    index = (-1,) * found[name].ndim
    if name == "scores":
        index = (-1, 0, 0, 2, 0)
    found[name][index] = found[name][index] * (1 + 1e-6) + 1e-9
    report = check(case, found)
    last = {"residual": 2, "dresidual": 2}.get(name, 1)
    assert report.difference.tensor == (f"{name}[{last}]" if layered else name)
    assert report.difference.missing == () and report.difference.wrong >= 1


def arguments():
    return ORDINARY.weights.astype(np.float64), ORDINARY.tokens


def test_nan_is_never_right():
    for name, array in model(*arguments()).items():
        report = check(ORDINARY, {name: np.full_like(array, np.nan)})
        assert report.difference.step == name and report.difference.error != 0


def test_a_tensor_that_is_not_supplied_is_listed_as_not_checked():
    report = check(ORDINARY, {"logits": model(*arguments())["logits"]})
    assert report and report.checked == ("logits",)
    assert {"pattern", "dk", "loss", "dW_E"} <= set(report.not_supplied)
    assert "not supplied, so not checked: residual, q, k" in str(report)
    assert "logits" not in report.not_supplied


def test_the_report_in_full():
    found = model(*arguments())
    found["pattern"] = np.where(np.tri(3, k=-1, dtype=bool), found["pattern"], 0)
    del found["z"]
    text = str(check(ORDINARY, found))
    assert text.startswith("WRONG ordinary-shortformer: pattern[0]\n")
    for part in ("12 of 36 numbers", "worst at  [b=", "yours     0\n", "allowed", "(local)",
                 "the mistake is in this step", "not supplied, so not checked: z",
                 "not judged, as computed from what is wrong: logits, loss, dlogits"):
        assert part in text, (part, text)
    assert max(map(len, text.splitlines())) <= 80


def test_scores_above_the_diagonal_are_the_masks_business():
    found = model(*arguments())
    found["scores"] = np.where(np.tri(3, dtype=bool), found["scores"], -np.inf)
    assert check(ORDINARY, found)


def test_one_wrong_vector_among_right_ones_raises_its_report():
    def wrong(weights, tokens):
        found = outputs(weights, tokens)
        return found | {"logits": found["logits"] * (1 + (weights.positions == "standard"))}
    with pytest.raises(AssertionError, match="WRONG ordinary-standard: logits"):
        assert_matches(wrong, cases=STORED)


def test_an_error_of_the_candidate_keeps_its_kind_and_names_the_case():
    def broken(weights, tokens):
        return {"logits": np.zeros(3)[tokens.shape[1]]}
    with pytest.raises(IndexError) as caught:
        assert_matches(broken)
    assert caught.value.__notes__ == ["on the case exact"]


# No word of it is false.

def test_what_nothing_reads_is_not_compared():
    """dpattern above the diagonal: 0, anything or NaN."""
    for hidden in 0, 7.5, np.nan:
        found = model(*arguments())
        found["dpattern"] = np.where(np.tri(3, dtype=bool), found["dpattern"], hidden)
        assert check(ORDINARY, found), hidden
    found["dpattern"][1, 0, 0, 2, 1] += 1e-6
    assert check(ORDINARY, found).difference.tensor == "dpattern[1]"


def another_way(weights, tokens, scored, written):
    """A forward pass whose scores and writes are not computed from the q, k and z it supplies."""
    T, of, root = tokens.shape[1], weights.dtype.type, weights.dtype.type(weights.d_head) ** 0.25
    p = weights.W_pos.T[:T] if weights.positions == "shortformer" else of(0)
    found = {name: [] for name in ("q", "k", "v", "scores", "pattern", "z")}
    found["residual"] = [mc.forward(weights, tokens).residual[0]]
    for layer in range(weights.n_layers):
        x = found["residual"][-1][:, None]
        W_Q, W_K, W_V, W_O = (W[layer] for _, W in weights.items() if W.ndim == 4)
        q, k, v = (x + p) @ W_Q.mT, (x + p) @ W_K.mT, x @ W_V.mT
        scores = ((x + p) @ (W_Q.mT @ W_K) @ (x + p).mT / of(root * root) if scored == "W_QK"
                  else (q / of(root)) @ (k / of(root)).mT)
        shares = np.where(np.tri(T, dtype=bool), scores, -np.inf)
        shares = np.exp(shares - shares.max(-1, keepdims=True))
        pattern = shares / shares.sum(-1, keepdims=True)
        wrote = pattern @ x @ (W_O @ W_V).mT if written == "W_OV" else pattern @ v @ W_O.mT
        for name, array in zip(found, (q, k, v, scores, pattern, pattern @ v,
                                       x[:, 0] + wrote.sum(1))):
            found[name].append(array)
    found["logits"] = found["residual"][-1] @ weights.W_U.T
    return {name: np.array(arrays) for name, arrays in found.items() if len(arrays)}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("way", [("W_QK", "W_OV"), ("roots", "z")])
def test_a_right_candidate_may_go_another_way(precision, way):
    """Through W_QK and W_OV, with q, k and z supplied; each of q and k with a root of the scale."""
    for vector in (*STORED, *map(find, (f"drawn2-{n}" for n in range(1, 20)))):
        report = check(vector, another_way(vector.weights.astype(precision), vector.tokens, *way),
                       precision)
        assert not report.wrong, str(report)


def test_after_a_wrong_loss_all_that_does_not_read_it_is_judged():
    found = model(*arguments()) | {"loss": 1.0}
    report = check(ORDINARY, found)
    assert report.difference.tensor == "loss" and report.not_judged == () == report.also
    assert {"dlogits", "dW_E", "dk[1]"} <= set(report.checked)
    report = check(ORDINARY, found | {"dW_U": 2 * found["dW_U"], "dk": 2 * found["dk"]})
    assert [other.tensor for other in report.also] == ["dk[1]", "dW_U"]
    assert {"dW_K", "dW_E"} < set(report.not_judged) and "dq[1]" in report.checked
    assert "  wrong too, and not computed from it: dk[1], dW_U" in str(report).splitlines()


@pytest.mark.parametrize("change, says", [
    (lambda x: x / 6, "all are 1/6 of what is expected"),
    (lambda x: -x, "all are -1 times what is expected"),
    (lambda x: x * 3 ** 0.5, "all are sqrt(3) times what is expected"),
    (lambda x: x * 1.2345678, "all are 1.23457 times what is expected"),
    (lambda x: x + 0.5, "all are 0.5 above what is expected"),
    (lambda x: 0 * x, "all are 0"), (lambda x: x * np.nan, "all are nan"),
    (lambda x: x[:, ::-1], "the right numbers, but in other places"),
    (lambda x: np.where(np.arange(3)[:, None] == 2, 2 * x, x), "only i = 2"),
    (lambda x: np.where(np.arange(3)[:, None] > 0, x + x ** 2, x), "only from i = 1 on"),
    (lambda x: np.where(np.arange(8) < 3, x + x ** 2, x), "only up to v = 2"),
])
def test_what_is_common_to_wrong_numbers_is_said(change, says):
    report = check(ORDINARY, {"logits": change(model(*arguments())["logits"])})
    assert says in report.difference.common and f"    {says}" in str(report).splitlines()


def test_of_wrong_numbers_with_nothing_in_common_nothing_is_said():
    logits = model(*arguments())["logits"]
    for other in (logits + np.random.default_rng(0).normal(size=logits.shape),
                  logits * (1 + 1e-12), np.where(np.arange(48).reshape(2, 3, 8) == 7, 9, logits)):
        assert check(ORDINARY, {"logits": other}).difference.common == ()


def test_clipped_numbers_are_not_said_to_be_a_fraction_of_what_is_expected():
    """They are all small beside it, but differ from each other as it does not."""
    case = find("scores-of-every-height")
    found = model(case.weights, case.tokens)
    report = check(case, {"scores": np.clip(found["scores"], -65504, 65504)})
    assert report.difference.wrong > 50 and "what is expected" not in str(report)


@pytest.mark.parametrize("loss, says", [(4, ("it is 4 times what is expected",)), (1.37, ())])
def test_of_one_wrong_number_only_a_whole_ratio_is_said(loss, says):
    loss *= model(*arguments())["loss"]
    assert check(ORDINARY, {"loss": loss}).difference.common == says


def test_the_most_telling_report_is_the_one_in_full():
    """`exact`, the first, saturates: many bugs look alike there."""
    with pytest.raises(AssertionError) as caught:
        assert_matches(mutants.candidate("mask_one_ahead"), cases=SMALL)
    assert "matches `mask_one_ahead`" in str(caught.value)
    assert str(caught.value).count("matches") == 1 and "WRONG exact" not in str(caught.value)


@pytest.mark.parametrize("name", ["scores_without_scale", "values_by_W_K", "dk_untransposed"])
@pytest.mark.parametrize("kept", [model, outputs])
def test_of_a_bug_that_keeps_nothing_nothing_of_the_kind_is_said(name, kept):
    run = mutants.candidate(name)
    for vector in SMALL:
        report = check(vector, run if kept is model else lambda *case: outputs(*case, of=run))
        assert "before" not in report.problem and "again" not in report.problem
        assert "would pass" not in str(report)


def test_wrong_with_other_weights_alone_is_said_to_be_so():
    """A function without memory, right in the case itself."""
    def candidate(weights, tokens):
        return {"logits": mc.forward(weights, tokens).logits + (abs(weights.W_E).max() < 1)}
    report = check(find("circuits"), candidate)
    assert report.note == "" and report.when == ", with all weights halved"
    assert report.line == "WRONG circuits: logits, with all weights halved"


def test_a_lower_precision_is_said_only_if_every_case_would_pass():
    def single(weights, tokens):
        return {"logits": mc.forward(weights.astype(np.float32), tokens).logits}

    def single_and_wrong(weights, tokens):
        return {"logits": single(weights, tokens)["logits"] + (weights.positions == "none")}

    def epsilon(weights, tokens):               # far less than tf32 makes, and yet no rounding
        return {"pattern": mc.forward(weights, tokens).pattern / (1 + 1e-8)}
    with pytest.raises(AssertionError, match="it would pass as --precision float32"):
        assert_matches(single, cases=SMALL)
    for other in single_and_wrong, epsilon:
        with pytest.raises(AssertionError) as caught:
            assert_matches(other, cases=SMALL)
        assert "would pass" not in str(caught.value)


def test_names_are_found_on_nan_and_in_the_candidates_own_precision():
    """In float32 exp ends at 88, so other rows overflow."""
    def no_shift(weights, tokens):
        acts = mc.forward(weights, tokens)
        with np.errstate(all="ignore"):
            shares = np.where(np.tri(tokens.shape[1], dtype=bool), np.exp(acts.scores), 0)
            return {"scores": acts.scores, "pattern": shares / shares.sum(-1, keepdims=True)}
    for vector in find("scores-of-every-height"), find("masked-scores-far-above"):
        for precision in "float64", "float32":
            report = check(vector, no_shift, precision)
            assert report or "softmax_without_shift" in report.looks_like, (vector, precision)
    assert not report

    def epsilon(weights, tokens):
        acts = mc.forward(weights, tokens)
        return {"scores": acts.scores, "pattern": acts.pattern / np.float32(1 + 1e-6)}
    assert check(ORDINARY, epsilon, "float32").looks_like == ("softmax_epsilon",)


# What is no answer.

@pytest.mark.parametrize("answer, says", [
    ({"logit": np.zeros(3)}, "got 'logit', perhaps 'logits'"),
    ({"logits": np.zeros((2, 3))}, r"logits must have axes \(b, i, v\).*got shape \(2, 3\)"),
    ({"logits": np.zeros((2, 3, 8), complex)}, "logits must be an array of real numbers"),
    ({"logits": "text"}, "logits must be an array of real numbers"),
    ({"logits": [[1, 2], [3]]}, "logits must be an array of real numbers"),
    ({"blocks.0.attn.hook_q": np.zeros(3)}, "got 'blocks.0.attn.hook_q', perhaps 'q'"),
    ({"loss": np.zeros(2)}, r"loss must have axes \(\)"),
])
def test_what_is_no_answer_is_refused_in_one_line(answer, says):
    with pytest.raises(InputError, match=says) as caught:
        check(ORDINARY, answer)
    assert "\n" not in str(caught.value)


def test_an_unknown_precision():
    with pytest.raises(InputError, match="precision must be one of float64, .*got 'half'"):
        check(ORDINARY, {}, "half")


def test_an_argument_written_to_is_named_and_a_changing_answer_is_too():
    def writes(weights, tokens):
        found = model(weights, tokens)
        weights.W_K[0, 0, 0, 0] += 1
        return found
    assert check(ORDINARY, writes).note == "it wrote to its argument W_K"

    def changes(weights, tokens, calls=[]):
        calls.append(1)
        return {"logits": model(weights, tokens)["logits"] * len(calls)}
    assert "wrong when called again" in check(ORDINARY, changes).note


def test_arrays_of_half_precision_and_a_loss_of_one_number_are_taken():
    found = model(*arguments())
    half = {"logits": found["logits"].astype(np.float16), "loss": np.array([found["loss"]])}
    report = check(ORDINARY, half, "bfloat16")
    assert report and set(report.checked) == {"logits", "loss"}


def test_what_was_not_checked_is_said(capsys):
    assert_matches(lambda *case: {"logits": mc.forward(*case).logits} if case[0].n_layers else {},
                   cases=[ORDINARY, find("no-layers")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["2 cases, 0 wrong", "nothing was checked in 1 of them: no-layers"]
    assert lines[2].startswith("not supplied, so not checked: residual, q")
    assert "no gradient was checked" in lines


def test_an_error_after_a_mistake_leaves_the_mistake_its_report():
    def broken(weights, tokens):
        return {"logits": mc.forward(weights, tokens).logits * [2, 1 / (weights.n_layers != 2)][
            tokens.shape[1] > 1]}
    with pytest.raises(AssertionError, match="WRONG one-token: logits"):
        assert_matches(broken, cases=[find("one-token"), ORDINARY])
    with pytest.raises(ZeroDivisionError):
        assert_matches(broken, cases=[ORDINARY, find("one-token")])


def test_nothing_supplied_is_not_right():
    with pytest.raises(AssertionError, match="nothing was checked"):
        assert_matches(lambda weights, tokens: {}, drawn=0)
    with pytest.raises(InputError, match="must return a dict|must be a dict"):
        assert_matches(lambda weights, tokens: None, drawn=0)


def test_what_a_case_has_none_of_is_named():
    """A context of one token has no loss."""
    report = check(find("one-token"), lambda weights, tokens: {"loss": np.nan})
    assert report.meaningless == ("loss",) and "this case has none: loss" in str(report)
    assert report.looks_like == ()


@pytest.mark.parametrize("key, other", [
    (lambda weights, tokens: tokens.tobytes(), "all weights halved"),
    (lambda weights, tokens: weights.W_Q.tobytes(), "its tokens in reverse")])
def test_answers_kept_from_another_call_are_seen(key, other):
    kept = {}

    def candidate(weights, tokens):
        if key(weights, tokens) not in kept:
            kept[key(weights, tokens)] = {"logits": mc.forward(weights, tokens).logits}
        return kept[key(weights, tokens)]

    report = check(find("ordinary-standard"), candidate)
    assert not report and f"with {other}: it keeps" in report.note


def test_sizes_that_the_core_set_has_not():
    def candidate(weights, tokens):
        return {"logits": mc.forward(weights, tokens).logits * (1.5 if weights.d_head == 6 else 1)}

    assert_matches(candidate, cases=STORED)
    with pytest.raises(AssertionError, match="drawn2-"):
        assert_matches(candidate)
