"""Golden vectors: small cases with every tensor that a right implementation computes on them.

Inputs are recipes: raw 64-bit draws, cut to integers of 7 bits and scaled by powers of two, so
they are the same numbers everywhere. What is expected was computed by the plain loops, is stored
in `core.npz`, and is authoritative; only what a long context needs, and the larger set, is
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
from minicircuits.testing.steps import CIRCUITS, WEIGHT_LETTERS, Reference

STORE, CHECKSUMS = (Path(__file__).with_name(name) for name in ("core.npz", "core.json"))


@dataclass(frozen=True, eq=False)
class Vector:
    """A case: its inputs, what it is for, and (once asked) its `Reference`."""
    id: str
    weights: Weights = field(repr=False)
    tokens: np.ndarray = field(repr=False)       # (b, i)
    comment: str = ""
    hunts: tuple = ()          # the mutants it is kept for; none: a control
    exact: bool = False        # its forward pass has no rounding: nothing but equality will do
    with_circuits: bool = False
    stored: dict = field(default=None, repr=False)      # name -> what is expected

    @cached_property
    def reference(self):
        return Reference(self.weights, self.tokens, self.stored)

    @cached_property
    def others(self):
        """With other weights; with other tokens. For functions that keep something of a call."""
        halved = replace(self.weights, **{name: W / 2 for name, W in self.weights.items()})
        return (Vector(self.id, halved, self.tokens),
                Vector(self.id, self.weights, self.tokens[:, ::-1]))


def integers(seed, shape):
    """Integers from −64 to 63, from raw draws: PCG64's stream does not change."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (raw >> np.uint64(57)).astype(np.int64).reshape(shape) - 64


def dyadic(seed, L=1, b=2, i=3, h=2, e=3, d=4, v=8, p=5, positions="shortformer", scale=None):
    """Weights and tokens of a recipe; `scale` multiplies weights by powers of two.

    Tokens are never 0, and differ as long as there are enough. Sizes differ by default.
    """
    sizes = dict(l=L, h=h, e=e, d=d, u=v, v=v, p=p)
    spread = {"W_E": 1, "W_pos": 1, "W_Q": (2 / d) ** 0.5, "W_K": (2 / d) ** 0.5,
              "W_V": d ** -0.5, "W_O": 0.7 * (h * e) ** -0.5, "W_U": 1.5 * d ** -0.5}
    arrays = {}
    for n, (name, letters) in enumerate(WEIGHT_LETTERS.items()):
        unit = 2.0 ** np.round(np.log2(spread[name] / 37)) * (scale or {}).get(name, 1)
        arrays[name] = integers(1000 * seed + n, [sizes[c] for c in letters.split()]) * unit
    if positions == "none":
        arrays["W_pos"] = None
    ids = 1 + np.argsort(integers(1000 * seed + 99, v - 1), kind="stable")
    return Weights(**arrays, positions=positions), np.resize(ids, (b, i))


def drawn(number):
    """One of the larger set: ordinary weights, sizes from 1 up, most of them different."""
    raw = integers(10 ** 6 + number, 12) + 64
    sizes = dict(zip(("b", "i", "h", "e", "d", "v"), (1 + raw[:6] % 6).tolist()))
    sizes |= dict(L=int(raw[6] % 4), i=1 + sizes["i"], v=1 + sizes["v"], p=sizes["i"] + 2)
    weights, tokens = dyadic(10 ** 4 + number, **sizes, positions=POSITIONS[raw[7] % 3])
    tokens = integers(10 ** 7 + number, tokens.shape) % weights.d_vocab
    return Vector(f"drawn-{number}", weights, tokens, "one of the larger set, from its number")


def recipes():
    """The core set, the known-good one first."""
    yield Vector("exact", *exact_case(), "whole numbers and patterns of 0, 1/2 and 1: if this "
                 "fails, suspect how the weights are read", exact=True)
    yield Vector("no-layers", *dyadic(1, L=0), "W_U W_E alone")
    yield Vector("one-token", *dyadic(2, i=1), "a context of one: forward only")
    yield Vector("ordinary-shortformer", *dyadic(3, L=2), "two layers, every size different, no "
                 "token twice", ("positions_in_layer_0_only",))
    yield Vector("ordinary-standard", *dyadic(4, positions="standard"),
                 "positions in the residual stream",
                 ("path_positions_dropped", "standard_positions_missing"), with_circuits=True)
    yield Vector("square-heads", *dyadic(5, b=1, e=4, v=6, i=4, positions="none"),
                 "d_head = d_model: a transposed matrix fits", ("W_O_transposed",))
    yield Vector("repeated-tokens", dyadic(6, i=4, v=5)[0], np.array([[2, 2, 3, 2], [3, 2, 2, 3]]),
                 "the same token in many places", ("scatter_overwritten",))
    yield Vector("first-and-last-token", dyadic(7, v=6)[0], np.array([[3, 0, 5], [1, 2, 4]]),
                 "token ids 0 and d_vocab − 1", ("token_0_is_padding", "token_0_never_predicted"))
    far = with_two_dimensions(11, [[1, 1, 1, 0], [0, 0, 0, 139]], [128, 144], [32, 1], i=4, p=4)
    yield Vector("masked-scores-far-above", *far,      # j = 3: 2.8e5 above in head 0, 10008 in 1
                 "what the mask hides is 1e4 and 3e5 above what it leaves", ("mask_minus_1e4",))
    apart = with_two_dimensions(12, [[-2, -1, 1, 2], [1, 1, 1, 1]], 2048, 1, h=1, i=4, p=4)
    yield Vector("rows-far-apart", *apart, "largest scores of rows 1000 and more apart",
                 ("softmax_without_shift", "softmax_one_shift"))
    yield Vector("huge-logits", *dyadic(8, positions="none", scale={"W_U": 2.0 ** 12}),
                 "targets whose probability underflows",
                 ("loss_without_shift", "loss_of_probability"))
    yield Vector("long-context", *long_context(), "67 tokens: more than a tile of 64, and no "
                 "multiple of any; larger scores in later tiles",
                 ("softmax_of_one_tile", "softmax_tiles_not_rescaled", "softmax_sum_not_rescaled",
                  "softmax_shift_of_first_tile"))
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
    flat = {vector.id: np.concatenate([array.ravel() for array in by_loops(vector).values()])
            for vector in recipes() if vector.tokens.shape[1] <= 16}      # or they fill the file
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


def find(id):
    """A vector of the core set, or of the larger one ("drawn-17"), or InputError."""
    if match := re.fullmatch(r"drawn-(\d{1,9})", id):
        return drawn(int(match[1]))
    if id not in core():
        raise InputError(f"a vector must be one of {', '.join(core())}, or drawn-1, drawn-2, …; "
                         f"got {id[:80]!r}")
    return core()[id]
