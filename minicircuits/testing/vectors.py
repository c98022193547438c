"""Golden vectors: small cases with every tensor that a right implementation computes on them.

Inputs are recipes: raw 64-bit draws, cut to 7 bits or to the 53 of a float64 and scaled by powers
of two, so they are the same numbers everywhere. What is expected was computed by the plain loops,
is stored in `core.npz`, and is authoritative; only of larger vectors, and of other shapes, it is
computed by `steps`. Ids are never reused: a vector that changes gets a new one.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from minicircuits import files
from minicircuits.notation import POSITIONS, InputError, Weights
from minicircuits.plain import circuits, model
from minicircuits.testing.steps import (BIAS_LETTERS, CIRCUITS, FORWARD, NORMS, WEIGHT_LETTERS,
                                        Reference)

SHAPES = None, "gpt2"
MAX_STORED = 5000          # numbers of a vector: what it may add to the file
MAX_OTHERS = 2 ** 20       # L · H · (b T)²
STORE, CHECKSUMS = (Path(__file__).with_name(name) for name in ("core.npz", "core.json"))


@dataclass(frozen=True, eq=False)
class Vector:
    """A case: its inputs, what it is for, and (once asked) its `Reference`."""
    id: str
    weights: Weights = field(repr=False)
    tokens: np.ndarray = field(repr=False)       # (b, i)
    comment: str = ""
    hunts: tuple = ()          # the mutants it is kept for; none: a control
    exact: tuple = ()          # tensors without any rounding: nothing but equality will do
    with_circuits: bool = False
    stored: dict = field(default=None, repr=False)      # name -> what is expected
    shape: str | None = None   # "gpt2": as `gpt2_shaped` makes it
    tied: bool = False         # W_U is W_Eᵀ, and dW_E the gradient of both
    biases: dict = field(default=None, repr=False)      # b_Q, b_K, b_V, b_O, b_U; or None
    norm: str | None = None    # "LNPre" or "RMSPre": what W_Q, W_K, W_V and W_U read, normalized

    @cached_property
    def reference(self):
        return Reference(self.weights, self.tokens, self.stored, self.tied, self.biases,
                         self.norm)

    @property
    def given(self):
        """{name: array} of what a candidate is given, but for the tokens."""
        return dict(self.weights.items()) | (self.biases or {})

    def variant(self, shape=None, tied=False, biases=False, norm=None):
        """The same model as a GPT-2 has it; one with W_E for W_Uᵀ, with biases, with a norm."""
        if shape not in SHAPES:
            raise InputError(f"shape must be None or 'gpt2'; got {shape!r}")
        if norm not in (None, *NORMS):
            raise InputError(f"norm must be None, {' or '.join(map(repr, NORMS))}; got {norm!r}")
        weights = gpt2_shaped(self.weights, self.tokens.shape[1]) if shape else self.weights
        if tied:
            weights = replace(weights, W_U=weights.W_E.T.copy())
        if shape or tied or biases or norm:
            return replace(self, weights=weights, stored=None, shape=shape, tied=tied,
                           biases=drawn_biases(weights) if biases else None, norm=norm,
                           exact=() if tied or biases or norm else self.exact)
        return self

    def answered(self, tensors):
        """{name: array} of a model whose W_U is not tied, as the case wants them."""
        if not self.tied or "dW_U" not in tensors:
            return tensors
        both = {"dW_E": tensors["dW_E"] + tensors["dW_U"].T}
        return {name: array for name, array in tensors.items() if name != "dW_U"} | both

    @cached_property
    def others(self):
        """With other weights; with other tokens. For functions that keep something of a call.

        None of a large case, which would take seconds.
        """
        if self.weights.n_layers * self.weights.n_heads * self.tokens.size ** 2 > MAX_OTHERS:
            return ()
        halved = replace(self.weights, **{name: W / 2 for name, W in self.weights.items()})
        kind = dict(tied=self.tied, biases=self.biases, norm=self.norm)
        back = self.tokens[:, ::-1]
        return (Vector(self.id, halved, self.tokens, "all weights halved", **kind),
                Vector(self.id, self.weights, back, "its tokens in reverse", **kind))


def integers(seed, shape, bits=7):
    """Integers of so many bits and a sign, from raw draws: PCG64's stream does not change."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (raw >> np.uint64(64 - bits)).astype(np.int64).reshape(shape) - 2 ** (bits - 1)


def dyadic(seed, L=1, b=2, i=3, h=2, e=3, d=4, v=8, p=5, positions="shortformer", scale=None,
           bits=7):
    """Weights and tokens of a recipe; `scale` multiplies weights by powers of two.

    Tokens are never 0, and differ as long as there are enough. Sizes differ by default.
    With 54 bits, weights have every bit of a float64.
    """
    sizes = dict(l=L, h=h, e=e, d=d, u=v, v=v, p=p)
    spread = {"W_E": 1, "W_pos": 1, "W_Q": (2 / d) ** 0.5, "W_K": (2 / d) ** 0.5,
              "W_V": d ** -0.5, "W_O": 0.7 * (h * e) ** -0.5, "W_U": 1.5 * d ** -0.5}
    arrays = {}
    for n, (name, letters) in enumerate(WEIGHT_LETTERS.items()):
        unit = 2.0 ** (np.round(np.log2(spread[name] / 37)) + 7 - bits)
        unit *= (scale or {}).get(name, 1)
        arrays[name] = integers(1000 * seed + n, [sizes[c] for c in letters.split()], bits) * unit
    if positions == "none":
        arrays["W_pos"] = None
    ids = 1 + np.argsort(integers(1000 * seed + 99, v - 1), kind="stable")
    return Weights(**arrays, positions=positions), np.resize(ids, (b, i))


def drawn_biases(weights):
    """{name: array} of biases between −1/2 and 1/2, with every bit of a float64."""
    w = weights
    sizes = dict(l=w.n_layers, h=w.n_heads, e=w.d_head, d=w.d_model, v=w.d_vocab)
    return {name: integers(8 * 10 ** 6 + n, [sizes[c] for c in letters.split()], 54) * 2.0 ** -54
            for n, (name, letters) in enumerate(BIAS_LETTERS.items())}


def drawn(number):
    """One of the larger set: full mantissas; sizes from 1 up, most of them different.

    One in four has more than 256 tokens in its vocabulary, one a context of 60 and more. Scores
    are tiny in one of eight and nearly saturated in two.
    """
    raw = integers(7 * 10 ** 6 + number, 12) + 64
    b, h, e, d = (1 + raw[:4] % (4, 6, 9, 9)).tolist()
    i, v, L = 2 + raw[4] % 6, 2 + raw[5] % 8, raw[6] % 4
    if raw[7] % 4 == 0:
        v += 300
    elif raw[7] % 4 == 1:
        b, h, i = 1, 1 + h % 3, 60 + raw[4] % 80
    weights, tokens = dyadic(
        10 ** 4 + number, int(L), b, int(i), h, e, d, int(v), int(i + raw[8] % 3),
        POSITIONS[raw[9] % 3], {"W_Q": 2.0 ** (0, 0, 0, 0, 0, 4, 7, -40)[raw[10] % 8]}, bits=54)
    tokens = integers(10 ** 7 + number, tokens.shape, 16) % weights.d_vocab
    return Vector(f"drawn2-{number}", weights, tokens, "one of the larger set, from its number")


def recipes():
    """The core set, the known-good one first."""
    yield Vector("exact", *exact_case(), "whole numbers and patterns of 0, 1/2 and 1: if this "
                 "fails, suspect how the weights are read", exact=FORWARD)
    yield Vector("no-layers", *dyadic(1, L=0), "W_U W_E alone")
    yield Vector("one-token", *dyadic(2, i=1), "a context of one: forward only",
                 ("one_token_sees_nothing",))
    yield Vector("two-tokens", *dyadic(14, i=2, p=2), "one prediction in each context, which is as "
                 "long as n_ctx", ("one_prediction_of_one_context",))
    yield Vector("ordinary-shortformer", *dyadic(3, L=2), "two layers, every size different, no "
                 "token twice", ("positions_in_layer_0_only",))
    yield Vector("ordinary-standard", *dyadic(4, positions="standard"),
                 "positions in the residual stream",
                 ("path_positions_dropped", "standard_positions_missing",
                  "standard_positions_from_1"), with_circuits=True)
    yield Vector("square-heads", *dyadic(5, b=1, e=4, v=6, i=4, positions="none"),
                 "d_head = d_model: a transposed matrix fits", ("W_O_transposed",))
    yield Vector("repeated-tokens", dyadic(6, i=4, v=5)[0], np.array([[2, 2, 3, 2], [3, 2, 2, 3]]),
                 "the same token in many places", ("scatter_overwritten",))
    yield Vector("first-and-last-token", dyadic(7, v=6)[0], np.array([[3, 0, 5], [1, 2, 4]]),
                 "token ids 0 and d_vocab − 1", ("token_0_is_padding", "token_0_never_predicted"))
    far = with_two_dimensions(11, [[1, 1, 1, 0], [0, 0, 0, 139]], [128, 144], [32, 1], i=4, p=4)
    yield Vector("masked-scores-far-above", *far,      # j = 3: 2.8e5 above in head 0, 10008 in 1
                 "what the mask hides is 1e4 and 3e5 above what it leaves",
                 ("mask_minus_1e4", "exp_underflows_as_float32"))
    yield Vector("scores-of-every-height", *scores_of_every_height(), "all that a row may see is "
                 "about −1e30, or about 1e30, or ±4096; patterns of 0 and 1",
                 ("softmax_without_shift", "softmax_one_shift", "softmax_max_from_0",
                  "softmax_max_from_minus_1e30", "mask_with_minus_1e9", "mask_with_minus_1e30",
                  "scores_clipped"), exact=FORWARD)
    yield Vector("tiny-scores", *tiny_scores(), "scores of 1e-12, and of 1e-50: 0 in float32",
                 ("tiny_scores_are_0", "scores_underflow_as_float32"))
    yield Vector("huge-logits", *dyadic(8, positions="none", scale={"W_U": 2.0 ** 12}),
                 "targets whose probability underflows",
                 ("loss_without_shift", "loss_of_probability"))
    yield Vector("logits-of-every-height", *logits_of_every_height(), "all logits of a row are "
                 "about −1e30, or about 1e30; probabilities of 0 and 1", (
                     "loss_one_shift", "loss_max_from_0", "loss_max_from_minus_1e30",
                     "dlogits_max_from_0"),
                 exact=(*FORWARD, "dlogits", "dresidual", "dW_U", "dW_pos", "dW_E"))
    yield Vector("whole-tile", *dyadic(15, b=1, i=64, h=1, e=1, d=3, v=5, p=64, bits=54),
                 "64 tokens: tiles of 16, 32 and 64 without a rest", ("empty_rest_of_tile",))
    yield Vector("one-past-a-tile", *dyadic(16, b=1, i=65, h=1, e=1, d=3, v=5, p=66, bits=54),
                 "65 tokens: a rest of one", ("rest_of_one_dropped",))
    yield Vector("long-context", *long_context(), "67 tokens: more than a tile of 64, and no "
                 "multiple of any; larger scores in later tiles",
                 ("softmax_of_one_tile", "softmax_tiles_not_rescaled", "softmax_sum_not_rescaled",
                  "softmax_shift_of_first_tile"))
    yield Vector("past-128", *dyadic(17, i=131, h=2, e=1, d=3, v=5, p=132, bits=54),
                 "131 tokens in two contexts and two heads: windows and tiles that begin late",
                 ("window_of_67", "positions_mod_128"))
    yield Vector("many-of-each", *dyadic(18, L=3, b=3, i=6, h=5, e=8, d=7, v=301, p=8, bits=54),
                 "3 layers, 5 heads, 3 contexts, a head dimension of 8, tokens up to 300, every "
                 "bit of a float64",
                 ("two_layers_only", "heads_beyond_2_not_written", "contexts_beyond_2_zeroed",
                  "W_V_of_layer_1", "token_ids_in_int8", "weights_in_bfloat16",
                  "weights_in_float32"))
    yield Vector("large", *dyadic(19, L=3, b=3, i=129, h=5, e=8, d=40, v=301, p=130,
                                  positions="standard", bits=54),
                 "the shape of a small GPT-2, and all sizes large at once")
    weights, tokens = dyadic(9, L=2, b=1, v=5, positions="none")
    weights.W_O[0, 0] = 0
    yield Vector("circuits", weights, tokens,
                 "composition, complex eigenvalues, and a head that writes nothing",
                 ("virtual_heads_reversed", "q_and_k_composition_swapped", "spectral_norm",
                  "factors_permuted", "zero_norm_divides"), with_circuits=True)


def exact_case():
    """Layer 0 reads the token before (others score 1024 less), layer 1 positions 0 and 1 alike."""
    W_E, W_pos = np.eye(8, 4), np.eye(8, 4, k=-4)
    W_Q, W_K, W_V = (np.zeros((2, 1, 4, 8)) for _ in range(3))
    W_O = np.zeros((2, 1, 8, 4))
    before = np.eye(4, k=1)
    before[0, 0] = 1                                     # the first has only itself
    W_Q[0, 0, :, 4:] = 2048 * (before - 1)               # position i matches none but …
    W_K[0, 0, :, 4:] = np.eye(4)                         # … position i − 1
    W_V[:, 0, :, :4] = [[1, 2, 0, 0], [0, 1, 0, 3], [0, 0, 1, 0], [1, 0, 0, 1]]
    W_O[:, 0, :4] = np.diag([1, 2, 3, 4])
    W_Q[1, 0, 0, :4], W_K[1, 0, 0, 6:] = -2048, 1        # all want positions 2 and 3 less
    W_U = np.arange(-16, 16).reshape(4, 8) / 8
    return (Weights(W_E=W_E, W_pos=W_pos, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O, W_U=W_U,
                    positions="shortformer"), np.array([[0, 3, 1, 2], [2, 2, 0, 3]]))


def scores_of_every_height():
    """Scores about ±2¹⁰¹. Head 0: rows 1 to 3 are very low, row 4 very high; head 1 the other way
    round. No ties, so log-sum-exp is exact too. What is masked is lower by far. No token twice.
    """
    W_E, W_pos = np.zeros((8, 11)), np.zeros((8, 5))
    W_E[:4] = integers(24, (4, 11)) % 4
    W_pos[4:] = [[2.0 ** -90, 1, 2, 1, 0], [0, 0, 0, 0, 1], [2, 1, 4, 8, 16], [2, 4, 1, .5, .25]]
    W_Q, W_K, W_V = (np.zeros((1, 2, 4, 8)) for _ in range(3))
    W_Q[0, 0, [0, 1], [4, 5]] = W_Q[0, 1, [0, 1], [5, 4]] = [-2.0 ** 51, 2.0 ** 51]
    W_K[0, :, [0, 1], [6, 7]] = 2.0 ** 51
    W_V[0, ..., :4] = integers(20, (2, 4, 4)) % 4
    W_O = np.zeros((1, 2, 8, 4))
    W_O[..., :4, :] = integers(21, (2, 4, 4)) % 4
    W_U = integers(22, (11, 8)) / 1024
    return (Weights(W_E=W_E, W_pos=W_pos, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O, W_U=W_U,
                    positions="shortformer"), np.arange(1, 11).reshape(2, 5))


def logits_of_every_height():
    """Tokens come in pairs, 1 and 2, 3 and 4, and each says the other. Positions give heights."""
    no_heads = {name: np.zeros((0, 1, 5, 5)) for name in ("W_Q", "W_K", "W_V", "W_O")}
    W_pos, W_U = np.eye(5)[:, 4:] * [1, -1, -2, 1, -1], np.full((5, 5), -2.0 ** 95)
    W_U[:, 4] = 2.0 ** 101
    W_U[[2, 1, 4, 3], [0, 1, 2, 3]] = 0
    return (Weights(W_E=np.eye(5, k=1), W_pos=W_pos, W_U=W_U, **no_heads, positions="standard"),
            np.array([[1, 2, 1, 2, 1], [3, 4, 3, 4, 3]]))


def tiny_scores():
    weights, tokens = dyadic(23, i=4, v=10)
    weights.W_Q[0] *= np.reshape([2.0 ** -40, 2.0 ** -83], (2, 1, 1))
    weights.W_K[0, 1] *= 2.0 ** -83
    return weights, tokens


def long_context():
    """From one source to the next, scores of row i rise by −1/4, 0, 1/4, 1/2 (i mod 4, in turn);
    by 2, 1024 and 8 in the last rows, where one to three sources are past a tile of 64.
    """
    rise = np.resize([-0.25, 0, 0.25, 0.5], 70)
    rise[64:67] = 2, 1024, 8
    weights, tokens = with_two_dimensions(13, [rise, np.arange(70) - 65], 2, 1,    # 2 = √d_head
                                          h=1, i=67, v=69, p=70)
    weights.W_Q[0, 0, 0, :3] = weights.W_K[0, 0, 0, :3] = 0
    return weights, tokens


def with_two_dimensions(seed, positions, query, key, **sizes):
    """Ordinary heads, and two dimensions more that only positions write to.

    Query and key number 0 of each head are read from the first and the second of them, times
    `query` and `key`.
    """
    weights, tokens = dyadic(seed, b=1, d=5, e=4, **sizes)
    weights.W_E[3:] = weights.W_Q[..., 3:] = weights.W_K[..., 3:] = 0
    weights.W_pos[3:] = positions
    weights.W_Q[0, :, 0, 3], weights.W_K[0, :, 0, 4] = query, key
    return weights, tokens


def gpt2_shaped(weights, n_ctx):
    """The same model with standard positions and d_model = n_heads · d_head.

    Positions of a shortformer get residual dimensions of their own, which W_Q and W_K read. The
    rest is padded with zeros: d_head to 4, 16, … times its size, as W_Q then makes up for the
    other 1/√d_head without rounding. Where there were no positions they are 0.
    """
    h, e, d = weights.W_Q.shape[1:]
    short, wide = weights.positions == "shortformer", e
    while h * wide < d * (1 + short):
        wide *= 4
    wider = {"d": h * wide - d, "e": wide - e}
    W = {"W_pos": np.zeros((d, n_ctx)), **dict(weights.items())}
    W = {name: np.pad(W[name], [(0, wider.get(axis, 0)) for axis in axes.split()])
         for name, axes in WEIGHT_LETTERS.items()}
    if short:
        W["W_pos"] = np.roll(W["W_pos"], d, axis=0)
        for name in "W_Q", "W_K":
            W[name][..., d:2 * d] = W[name][..., :d]
    W["W_Q"] *= (wide / e) ** 0.5
    return Weights(**W, positions="standard")


@cache
def core():
    """{id: Vector} of the core set, with what is stored for each."""
    found = {vector.id: vector for vector in recipes()}
    for id, numbers in files.read_arrays(STORE).items():
        arrays = named(found[id].reference.arrays(), found[id])
        parts = np.split(numbers, np.cumsum([array.size for array in arrays.values()])[:-1])
        found[id] = replace(found[id], stored={
            name: part.reshape(arrays[name].shape) for name, part in zip(arrays, parts)})
    return found


def named(arrays, vector):
    """{name: float64 array} of those that a vector answers for: circuits for some alone."""
    return {name: np.asarray(arrays[name], np.float64) for name in vector.reference.arrays()
            if vector.with_circuits or name not in CIRCUITS}


def by_loops(vector):
    """{name: array} of a vector's tensors, computed anew by the plain loops."""
    found = model.tensors(vector.weights, vector.tokens)
    if vector.with_circuits:
        found |= circuits.tensors(vector.weights, vector.tokens, found["pattern"])
    return named(found, vector)


def write_core(store=STORE, checksums=CHECKSUMS):
    """Compute the core set and write it, with its checksums."""
    def numbers(vector):
        return sum(array.size for array in named(vector.reference.arrays(), vector).values())

    flat = {vector.id: np.concatenate([array.ravel() for array in by_loops(vector).values()])
            for vector in recipes() if numbers(vector) <= MAX_STORED}
    files.write_arrays(store, flat, force=True)
    files.write_json(checksums, {vector.id: sums(vector, flat) for vector in recipes()},
                     force=True)


def recorded(vector):
    """Whether a core vector's inputs and stored numbers have the checksums on record."""
    return files.read_json(CHECKSUMS)[vector.id] == sums(vector, files.read_arrays(STORE))


def sums(vector, flat):
    """sha256 of a vector's inputs and, if stored, its numbers: little-endian, in C order."""
    inputs = *(W for _, W in vector.weights.items()), vector.tokens.astype(np.int64)
    stored = [[flat[vector.id]]] if vector.id in flat else []
    return [hashlib.sha256(b"".join(
        np.asarray(array, array.dtype.newbyteorder("<"), order="C").tobytes()
        for array in arrays)).hexdigest() for arrays in [inputs, *stored]]


def find(id, shape=None, tied=False, biases=False, norm=None):
    """A vector of the core set, or of the larger one ("drawn2-17"), or InputError."""
    match = re.fullmatch(r"drawn2-(\d{1,9})", id)
    if not match and id not in core():
        raise InputError(f"a vector must be one of {', '.join(core())}, or drawn2-1, drawn2-2, …; "
                         f"got {id[:80]!r}")
    vector = drawn(int(match[1])) if match else core()[id]
    return vector.variant(shape, tied, biases, norm)


def cases(shape=None, tied=False, drawn=10, biases=False, norm=None):
    """The core set and the first so many of the larger one: what `assert_matches` takes.

    shape : None, or "gpt2": the same models with d_model = n_heads · d_head and standard
        positions (see `gpt2_shaped`)
    tied : whether W_U is W_Eᵀ. The gradient of the one array is then dW_E + dW_Uᵀ, as dW_E.
    biases : whether there are b_Q, b_K, b_V (l, h, e), b_O (l, d) and b_U (v,). Such a case has
        no circuits.
    norm : None, "LNPre" or "RMSPre": what W_Q, W_K, W_V and W_U read is divided by σ (positions
        of a shortformer are added after that). Such a case has no circuits and no backward.
    """
    ids = *core(), *(f"drawn2-{n + 1}" for n in range(drawn))
    return [find(id, shape, tied, biases, norm) for id in ids]
