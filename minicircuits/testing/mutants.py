"""Known bugs, each one edit of a function of the plain loops: what the vectors have to catch.

A mutant is the source of `plain.model` (or `plain.circuits`) in which `old` is `new` in one
function. Spaces, line breaks and kinds of quotes do not count where `old` is looked for. `step`
is the first tensor that the mutant gets wrong, "call" for what only shows in how it behaves.
"""

import inspect
import math
import re
from functools import cache
from typing import NamedTuple

import numpy as np

from minicircuits.plain import circuits, model
from minicircuits.testing.steps import CIRCUITS


class Mutant(NamedTuple):
    step: str
    function: str
    old: str
    new: str
    says: str

    @property
    def module(self):
        return circuits if self.step in CIRCUITS else model


SOFTMAX = "sources = range(i + 1)"
SHIFT = "max(scores[b, h, i, j].real for j in sources)"
SUM = "total(shares.values())"
LOSS = "losses.append(log(sum_exp) - (logits[b, i, tokens[b, i + 1]] - largest))"
MEAN = "return total(losses) / (B * (T - 1))"
TIMES_QK, TIMES_OV = (f'times(W["{a}"][layer, head]{T}, W["{b}"][layer, head])'
                      for a, T, b in (("W_Q", ".T", "W_K"), ("W_O", "", "W_V")))

MUTANTS = {name: Mutant(*rest) for name, *rest in [
    # Scores.
    ("scores_without_scale", "scores", "score", "/ math.sqrt(E)", "",
     "scores are not divided by √d_head"),
    ("scale_by_d_head", "scores", "score", "/ math.sqrt(E)", "/ E",
     "scores are divided by d_head, not √d_head"),
    ("scale_by_d_model", "scores", "forward", "score(q, k)",
     "score(q, k) * math.sqrt(E) / math.sqrt(D)", "scores are divided by √d_model, not √d_head"),
    ("q_and_k_swapped", "scores", "forward", "score(q, k)", "score(k, q)",
     "scores are k_i · q_j: destination and source exchanged"),
    ("values_by_W_K", "v", "forward", '(W["W_V"][layer], x)', '(W["W_K"][layer], x)',
     "values are read with W_K"),
    # Mask and softmax.
    ("mask_off_by_one", "pattern", "softmax", SOFTMAX, "sources = range(max(i, 1))",
     "a destination does not see itself"),
    ("mask_one_ahead", "pattern", "softmax", SOFTMAX, "sources = range(min(i + 2, T))",
     "a destination sees the next token"),
    ("no_mask", "pattern", "softmax", SOFTMAX, "sources = range(T)", "there is no mask"),
    ("mask_transposed", "pattern", "softmax", SOFTMAX, "sources = range(i, T)",
     "a destination sees itself and what follows"),
    ("mask_with_0", "pattern", "softmax", SOFTMAX,
     "scores[b, h, i, i + 1:], sources = 0.0, range(T)", "masked scores are 0, not −∞"),
    ("mask_after_softmax", "pattern", "softmax", SUM,
     f"{SUM} + total(exp(scores[b, h, i, j] - largest) for j in range(i + 1, T))",
     "masked after the softmax, without normalising again"),
    ("mask_minus_1e4", "pattern", "softmax", SOFTMAX,
     "scores[b, h, i, i + 1:], sources = scores[b, h, i, i + 1:] - 1e4, range(T)",
     "masked by subtracting 1e4, not by −∞"),
    ("softmax_over_destinations", "pattern", "softmax", "return pattern", """\
    for b, h, j in loops(B, H, T):
        shares = {i: exp(scores[b, h, i, j] - scores[b, h, j, j]) for i in range(j, T)}
        sum_exp = total(shares.values())
        for i in shares:
            pattern[b, h, i, j] = shares[i] / sum_exp
    return pattern""".lstrip(), "the softmax runs over destinations, not sources"),
    ("softmax_without_shift", "pattern", "softmax", SHIFT, "0.0",
     "exp without subtracting the largest score first"),
    ("softmax_one_shift", "pattern", "softmax", SHIFT,
     "max(scores[b, h, i, j].real for i in range(T) for j in range(i + 1))",
     "one shift for all rows: some become 0/0"),
    ("softmax_epsilon", "pattern", "softmax", SUM, f"{SUM} + 1e-6",
     "something is added to the denominator"),
    ("softmax_of_one_tile", "pattern", "softmax", SOFTMAX, "sources = range(i - i % 32, i + 1)",
     "a destination sees the sources of its own tile of 32 alone"),
    ("softmax_tiles_not_rescaled", "pattern", "softmax", "[b, h, i, j] - largest", """\
[b, h, i, j] - max(scores[b, h, i, n].real for n in sources if n // 32 == j // 32)""",
     "each tile of 32 sources is shifted by its own largest score"),
    ("softmax_sum_not_rescaled", "pattern", "softmax", SUM, """total(
            exp(scores[b, h, i, j] - max(scores[b, h, i, n].real for n in sources
                                         if n // 64 <= j // 64)) for j in sources)""",
     "the sum of tiles of 64 sources is not rescaled when a later one has a larger score"),
    ("softmax_shift_of_first_tile", "pattern", "softmax", SHIFT,
     "max(scores[b, h, i, j].real for j in sources[:64])",
     "all tiles of 64 sources are shifted by the first one's largest score: some overflow"),
    # What heads write.
    ("heads_merged_untransposed", "residual", "forward", "x, z))",
     "x, z.reshape(B, T, H, E).transpose(0, 2, 1, 3)))",
     "z (b, h, i, e) is reshaped to (b, i, h·e) without moving the axis of heads first"),
    ("heads_reversed", "residual", "forward", "x, z))", "x, z[:, ::-1]))",
     "heads meet the W_O of another head"),
    ("W_O_transposed", "residual", "forward", '(W["W_O"][layer],',
     '(W["W_O"][layer].transpose(0, 2, 1) if D == E else W["W_O"][layer],',
     "W_O is transposed (which only d_head = d_model allows)"),
    ("no_residual", "residual", "write", "x[b, i, d], *", "*",
     "the layer's output replaces the residual stream"),
    ("layer_reads_embeddings", "q", "forward",
     'x = put("residual", layer + 1, write(W["W_O"][layer], x, z))',
     'out = put("residual", layer + 1, write(W["W_O"][layer], acts["residual"][layer], z))\n'
     "        x = out if layer == L - 1 else x",
     "later layers read the embeddings, not the residual stream"),
    # Positions.
    ("positions_off_by_one", "q", "add_positions", "W_pos[d, i] if",
     "W_pos[d, (i + 1) % W_pos.shape[1]] if", "W_pos is read one position late"),
    ("positions_missing", "q", "add_positions", '"shortformer"', "None",
     "W_pos is not added to what W_Q and W_K read"),
    ("standard_positions_missing", "residual", "embed", '"standard"', "None",
     "W_pos is not added to the embeddings"),
    ("positions_in_the_residual", "residual", "embed", '"standard"', '"shortformer"',
     "W_pos is added to the residual stream in shortformer mode"),
    ("positions_in_values", "v", "forward", '(W["W_V"][layer], x)', '(W["W_V"][layer], y)',
     "W_pos is added to what W_V reads"),
    ("positions_in_queries_only", "k", "forward", '["W_K"][layer], y)', '["W_K"][layer], x)',
     "W_pos is not added to what W_K reads"),
    ("positions_in_layer_0_only", "q", "forward", "positions(x, W_pos, positions)",
     "positions(x, W_pos, positions if layer == 0 else None)",
     "W_pos is added in the first layer only"),
    ("token_0_is_padding", "residual", "embed", "= W_E[d, tokens[b, i]]",
     "= W_E[d, tokens[b, i]] if tokens[b, i] else 0.0", "token 0 has no embedding"),
    # Loss.
    ("loss_sum", "loss", "cross_entropy", MEAN, "return total(losses)",
     "the loss is summed, not averaged"),
    ("loss_mean_over_positions", "loss", "cross_entropy", MEAN, "return total(losses) / (T - 1)",
     "the loss is averaged over positions, summed over contexts"),
    ("targets_unshifted", "loss", "cross_entropy", "tokens[b, i + 1]", "tokens[b, i]",
     "a position predicts its own token, not the next"),
    ("target_wraps_around", "loss", "cross_entropy", "losses = []",
     "losses, tokens, T = [], np.concatenate([tokens, tokens], 1), T + 1",
     "the last position predicts the first token"),
    ("loss_at_last_position", "loss", "cross_entropy", MEAN,
     "return total(losses[T - 2::T - 1]) / B", "only the last prediction counts"),
    ("loss_in_bits", "loss", "cross_entropy", MEAN, f"{MEAN} / math.log(2)",
     "the loss is in bits, not nats"),
    ("loss_without_shift", "loss", "cross_entropy", "max(logits[b, i, v].real for v in range(V))",
     "0.0", "exp without subtracting the largest logit first"),
    ("loss_of_probability", "loss", "cross_entropy", LOSS,
     "p = exp(logits[b, i, tokens[b, i + 1]] - largest) / sum_exp\n"
     "        losses.append(-log(p) if p else math.inf)",
     "the logarithm of a probability that underflows"),
    ("token_0_never_predicted", "loss", "cross_entropy", f"{LOSS}\n    {MEAN}",
     f"if tokens[b, i + 1]:\n            {LOSS}\n    return total(losses) / len(losses)",
     "predictions of token 0 do not count"),
    # Backward.
    ("dlogits_without_1_N", "dlogits", "cross_entropy_backward", "/ (B * (T - 1))", "",
     "dlogits is not divided by the number of predictions"),
    ("dlogits_without_target", "dlogits", "cross_entropy_backward", "1.0 if", "0.0 if",
     "dlogits is the probability alone, without subtracting the target"),
    ("softmax_jacobian_dropped", "dscores", "softmax_backward", "- mean", "",
     "dscores = pattern · dpattern: Σ_j pattern dpattern is missing"),
    ("softmax_jacobian_wrong_axis", "dscores", "softmax_backward", "- mean",
     "- total(pattern[b, h, n, j] * dpattern[b, h, n, j] for n in range(T))",
     "Σ pattern dpattern runs over destinations"),
    ("dq_without_scale", "dq", "score_backward", "for j in range(T)) / math.sqrt(E)",
     "for j in range(T))", "dq lacks 1/√d_head"),
    ("dk_without_scale", "dk", "score_backward", "for i in range(T)) / math.sqrt(E)",
     "for i in range(T))", "dk lacks 1/√d_head"),
    ("dk_untransposed", "dk", "score_backward", "dscores[b, h, i, j] * q",
     "dscores[b, h, j, i] * q", "dk = dscores q, not dscoresᵀ q"),
    ("dv_untransposed", "dv", "mix_backward", "pattern[b, h, i, j] *", "pattern[b, h, j, i] *",
     "dv = pattern dz, not patternᵀ dz"),
    ("dW_O_of_one_context", "dW_O", "write_backward", "loops(B, T))", "loops(1, T))",
     "dW_O is of the first context alone"),
    ("pattern_stopped", "dpattern", "mix_backward", "return dpattern", "return 0 * dpattern",
     "no gradient goes through the pattern"),
    ("keys_stopped", "dk", "score_backward", "return dq, dk", "return dq, 0 * dk",
     "no gradient goes through the keys"),
    ("residual_gradient_dropped", "dresidual", "backward", "dx = dx + dx_v", "dx = dx_v",
     "the gradient that passes a layer by is missing"),
    ("scatter_overwritten", "dW_E", "embed_backward", "tokens[b, i]] +=", "tokens[b, i]] =",
     "of a token that occurs twice only one gradient is kept (fancy-index +=)"),
    ("dW_pos_of_one_context", "dW_pos", "add_positions_backward", "loops(*dy.shape)",
     "loops(1, *dy.shape[1:])", "dW_pos is of the first context alone"),
    ("dW_pos_of_queries", "dW_pos", "backward", "(dy_q + dy_k", "(dy_q",
     "dW_pos has the queries' share alone"),
    # Behavior.
    ("writes_to_arguments", "call", "tensors", "return found",
     "weights.W_E[0, 0] += 1\n    return found", "an argument is written to"),
    ("gradients_accumulate", "call", "backward", "dW = {name: zeros(*W[name].shape) for name in W}",
     'dW = globals().setdefault("kept", {name: zeros(*W[name].shape) for name in W})',
     "gradients of the last call are still there"),
    ("downcast", "scores", "forward", "acts[name][at] = value +",
     "value = value.astype(np.float32).astype(object)\n        acts[name][at] = value +",
     "something is stored in float32"),
    # Circuits.
    ("W_QK_transposed", "W_QK", "W_QK", TIMES_QK, f"{TIMES_QK}.T", "W_QK is [source, destination]"),
    ("W_OV_transposed", "W_OV", "W_OV", TIMES_OV, f"{TIMES_OV}.T", "W_OV is [source, out]"),
    ("qk_circuit_scaled", "qk_circuit", "qk_circuit", 'W["W_E"]))',
     'W["W_E"])) / math.sqrt(W["W_Q"].shape[2])', "1/√d_head is folded into the circuit"),
    ("virtual_heads_reversed", "composition_V", "composition", "times(M, OV)",
     'times(*((OV, M) if kind == "V" else (M, OV)))',
     "V-composition is earlier · later, not later · earlier"),
    ("q_and_k_composition_swapped", "composition_Q", "composition", '"Q": QK.T, "K": QK',
     '"K": QK.T, "Q": QK', "Q- and K-composition are exchanged"),
    ("spectral_norm", "composition_Q", "norm",
     "math.sqrt(total(number * number for number in M.ravel()))",
     "float(np.linalg.norm(M.astype(float), 2))", "spectral norms, not Frobenius norms"),
    ("factors_permuted", "composition_K", "composition", "times(M, OV)",
     'times(times(W["W_K"][later], OV), W["W_Q"][later].T) if kind == "K" else times(M, OV)',
     "factors permuted cyclically, which keeps a trace but no Frobenius norm (the erratum)"),
    ("zero_norm_divides", "composition_Q", "composition", "if both else 0.0",
     "if both else math.nan", "0/0 where a head is zero"),
    ("direct_path_missing", "logits_by_order", "logits_by_order", "return logits",
     "logits[0] = 0.0\n    return logits", "the direct path is missing"),
    ("direct_path_twice", "logits_by_order", "logits_by_order", "return logits",
     "logits[0] = 2 * logits[0]\n    return logits", "the direct path counts twice"),
    ("path_positions_dropped", "logits_by_order", "logits_by_order",
     'W.get("W_pos"), tokens, positions', 'None, tokens, "none"',
     "paths carry tokens alone, not positions"),
    ("copying_without_sign", "copying_score", "copying_score",
     "total(value.real for value in values)", "abs(total(value.real for value in values))",
     "|Σλ| / Σ|λ|: the sign is lost"),
    ("imaginary_part_dropped", "copying_score", "copying_score", "total(abs(value)",
     "total(abs(value.real)", "Σ|Re λ| below the line, not Σ|λ|"),
]}


@cache
def _code(name):
    """The mutant's module, compiled."""
    mutant = MUTANTS[name]
    source = inspect.getsource(mutant.module)
    before = inspect.getsource(getattr(mutant.module, mutant.function))
    words = [re.escape(word) for word in re.findall(r"\w+|[^\w\s]", mutant.old)]
    pattern = r"\s*".join(words).replace('"', "[\"']")
    after, found = re.subn(pattern, lambda match: mutant.new, before)
    if found != 1:
        raise AssertionError(
            f"the known bug {name!r} is an edit of {mutant.module.__name__}.{mutant.function}, "
            f"where {mutant.old!r} must stand once; it stands there {found} times. After a change "
            "of the plain loops, change the edit in testing/mutants.py with it")
    return compile(source.replace(before, after), name, "exec")


def candidate(name):
    """The mutant as a candidate: a fresh function of (weights, tokens).

    Where Python's floats stop (exp(1000), 0/0) it goes on with Inf and NaN, as arrays do.
    """
    mutant, module = MUTANTS[name], {"__name__": name}
    exec(_code(name), module)
    if mutant.module is circuits:
        return lambda weights, tokens: module["tensors"](
            weights, tokens, model.forward(weights, tokens).pattern)
    module |= {"exp": lambda x: np.exp(np.float64(x)), "log": lambda x: np.log(np.float64(x)),
               "total": _total, "Weights": _gradients}

    def tensors(weights, tokens):
        with np.errstate(all="ignore"):
            return module["tensors"](weights, tokens)
    return tensors


def _gradients(positions, **arrays):
    """`Weights` that need not be finite."""
    return {name: array for name, array in arrays.items() if array is not None}


def _total(terms):
    terms = list(terms)
    try:
        return math.fsum(terms)
    except (ValueError, OverflowError):
        return np.sum(terms)
