"""The letters, the names and the shapes that every other file uses.

Matrices act on the left, as in the paper: W x, with axes (out, in). Products of matrices,
`W_U @ W_OV @ W_E`, read as the equation does. Arrays of vectors stack them as rows, with
axes (…, i, d), so that W x_i for every i is `x @ W.mT`, and (A ⊗ W) x is `A @ x @ W.mT`.

Letters, as axes and as indices:

    b  batch                      l  layer                 d  residual dimension (d_model)
    i  destination, query, row    h  head                  e  head dimension (d_head)
    j  source, key, column        g  earlier head          v  out token (a row of W_U)
    k  middle of a two-hop path   p  position in context   u  in token (a column of W_E)
    T  tokens in a context        L  number of layers      H  heads in a layer

As arrays, q, k, v are queries, keys and values; in a signature, k is "how many". A raised ᵀ
transposes; a raised l,h or h names a head and is never a power. Head 1.2 is head 2 of layer 1,
both counted from 0; the paper's labels do so too, its prose does not.

Names, whose axes never change:

    t         one-hot tokens       (b, i, u)    never built: W_E t is a choice of columns
    x         residual stream      (b, i, d)    at any one place in the model
    y         what W_Q, W_K read   (b, i, d)    x plus W_pos in "shortformer" mode, else x
    A         pattern of one head  (b, i, j)    A[i, j]: how much destination i reads source j
    W_QK      W_Q.mT @ W_K         (d, d)       which source a destination attends to
    W_OV      W_O @ W_V            (d, d)       what attending there writes
    A ⊗ W     x ↦ A x Wᵀ                        A moves between positions, W between subspaces;
                                                not np.outer: on flattened x it is np.kron
    dname     gradient of a scalar with respect to `name`; it has the shape of `name`

Paper: "Notation" and "Transformer Overview". No formula of the model is here.
"""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minicircuits.door import InputError, Tokens, as_array, brief, held     # noqa: F401

WEIGHT_AXES = {
    "W_E": ("d_model", "d_vocab"),
    "W_pos": ("d_model", "n_ctx"),
    "W_Q": ("n_layers", "n_heads", "d_head", "d_model"),
    "W_K": ("n_layers", "n_heads", "d_head", "d_model"),
    "W_V": ("n_layers", "n_heads", "d_head", "d_model"),
    "W_O": ("n_layers", "n_heads", "d_model", "d_head"),
    "W_U": ("d_vocab", "d_model"),
}
ACTIVATION_AXES = {              # in the order in which the model computes them
    "residual": "l+1 b i d",     # residual[0] = W_E t (+ W_pos); residual[l+1] leaves layer l
    "q": "l b h i e",
    "k": "l b h j e",
    "v": "l b h j e",
    "scores": "l b h i j",       # q·k / √d_head: finite, not masked
    "pattern": "l b h i j",      # softmax over the sources j ≤ i; 0 for j > i
    "z": "l b h i e",            # Σ_j pattern v
    "logits": "b i v",
}
POSITIONS = ("shortformer", "standard", "none")
DTYPES = ("float32", "float64", "complex128")
# complex128 is for derivatives by complex step, f(W + 1e-100j).imag / 1e-100. So `model` takes
# maxima of .real, and no abs.


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """The whole model: seven stacked arrays. Gradients are another `Weights`.

    Parameters
    ----------
    W_E : (d_model, d_vocab)                    embed: a column per token
    W_pos : (d_model, n_ctx), or None           a column per position
    W_Q, W_K, W_V : (n_layers, n_heads, d_head, d_model)    read from the residual stream
    W_O : (n_layers, n_heads, d_model, d_head)  write to the residual stream
    W_U : (d_vocab, d_model)                    unembed: a row per token
    positions : where W_pos is added
        "shortformer": to what W_Q and W_K read, in every layer (the paper's models);
        "standard": once, to the residual stream; "none": nowhere (W_pos is None).

    Raises InputError unless the shapes agree, all arrays have one dtype (float32, float64
    or complex128) and every number is finite: weights that exist are sound. Two are equal (==)
    only if they are one object: compare their arrays.

    Paper: "Transformer Overview". Biases are folded in by `fold_biases`, norms stand in
    `NormalizedWeights`, and there is no MLP.
    """

    W_E: np.ndarray
    W_pos: np.ndarray | None
    W_Q: np.ndarray
    W_K: np.ndarray
    W_V: np.ndarray
    W_O: np.ndarray
    W_U: np.ndarray
    positions: str

    def __post_init__(self):
        if held("positions", str, self.positions) not in POSITIONS:
            raise InputError(f"positions must be one of {', '.join(POSITIONS)}; "
                             f"got {self.positions!r}")
        if (self.W_pos is None) != (self.positions == "none"):
            given = "None" if self.W_pos is None else "given"
            raise InputError('W_pos must be None exactly when positions is "none"; got '
                             f"positions={self.positions!r}, W_pos {given}")
        sizes, arrays = {}, vars(self)              # what is frozen can be set there
        for name, axes in WEIGHT_AXES.items():
            if name == "W_pos" and self.W_pos is None:
                continue
            arrays[name] = W = as_array(name, arrays[name])
            check_axes(name, W, axes, sizes)
            if W.dtype.type is not self.W_E.dtype.type or W.dtype.name not in DTYPES:
                raise InputError(f"weights must share one dtype of {', '.join(DTYPES)}; "
                                 f"got W_E {self.W_E.dtype.name}, {name} {W.dtype.name}")
            if not np.isfinite(W).all():
                raise InputError(f"{name} must be finite; got "
                                 f"{np.count_nonzero(~np.isfinite(W))} NaN or Inf of {W.size}")

    @property
    def n_layers(self) -> int:
        return self.W_Q.shape[0]

    @property
    def n_heads(self) -> int:
        return self.W_Q.shape[1]

    @property
    def d_head(self) -> int:
        return self.W_Q.shape[2]

    @property
    def d_model(self) -> int:
        return self.W_E.shape[0]

    @property
    def d_vocab(self) -> int:
        return self.W_E.shape[1]

    @property
    def n_ctx(self) -> int | None:
        """The longest context, in tokens; None where there are no positions to run out of."""
        return None if self.W_pos is None else self.W_pos.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.W_E.dtype

    def __repr__(self):
        sizes = ("n_layers", "n_heads", "d_model", "d_head", "d_vocab", "n_ctx")
        sizes = ", ".join(f"{size}={getattr(self, size)}" for size in sizes)
        return f"{type(self).__name__}({sizes}, positions={self.positions!r}, dtype={self.dtype})"

    def items(self) -> list[tuple[str, np.ndarray]]:
        """Pairs (name, array) of the arrays that are there, in the order of the fields."""
        return [(name, getattr(self, name)) for name in WEIGHT_AXES
                if getattr(self, name) is not None]

    def astype(self, dtype: "DTypeLike") -> "Weights":
        """The same weights in another dtype: float32, float64 or complex128; InputError otherwise.

        Complex weights have no other.
        """
        if held("dtype", DTypeLike, dtype).kind != "c":
            check_real(self.W_E)
        return replace(self, **{name: W.astype(dtype) for name, W in self.items()})


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedWeights(Weights):
    """A model with LayerNorm or RMSNorm, in the form that `fold_normalization` gives it.

    Whatever reads the residual stream x reads y instead. Its first n_normalized dimensions are
    those of x, divided by σ = √(mean of their squares + eps); all others are as they are in x.
    Undivided are the constant 1, which carries biases, and positions that are added after the
    norm. A head reads its values from dimensions of one kind. It writes to the first n_normalized.

    For use, not for training. Raises InputError as `Weights`, and unless all of this is so.
    """

    n_normalized: int
    eps: float

    def __post_init__(self):
        super().__post_init__()
        n, W_V = held("n_normalized", int, self.n_normalized), self.W_V
        if not (1 <= n <= self.d_model and held("eps", float, self.eps) >= 0):
            raise InputError(f"n_normalized must be from 1 to d_model={self.d_model}, eps at least "
                             f"0; got {n} and {self.eps}")
        if self.positions == "shortformer" or self.W_O[:, :, n:].any() or (
                W_V[..., :n].any((2, 3)) & W_V[..., n:].any((2, 3))).any():
            raise InputError("normalized weights must have positions in the residual stream, and "
                             "heads that write to what is normalized and take values from it, or "
                             "only from the rest; see fold_normalization")

    def __repr__(self):
        return f"{super().__repr__()[:-1]}, n_normalized={self.n_normalized}, eps={self.eps})"


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """Every intermediate of a forward pass, or (as `dacts`) the gradient of each.

    Arrays with the axes of `ACTIVATION_AXES`. W_U reads residual[-1].

    As gradients: `residual[l]` counts every later use of x; `pattern` is the gradient
    with respect to each entry, also those the mask sets to 0; that of `scores` is 0 there.
    """

    residual: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    scores: np.ndarray
    pattern: np.ndarray
    z: np.ndarray
    logits: np.ndarray
    axes = ACTIVATION_AXES       # no field
    norms = None                 # nor this: only `NormalizedActivations` have them

    def __repr__(self):
        n_layers, b, n_heads, i, _ = self.pattern.shape
        return (f"{type(self).__name__}({n_layers=}, {b=}, {n_heads=}, {i=}, "
                f"d_model={self.residual.shape[-1]}, d_vocab={self.logits.shape[-1]}, "
                f"dtype={self.logits.dtype})")


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedActivations(Activations):
    """The `Activations` of `NormalizedWeights`; residual is x, before any division.

    norms : σ (l+1, b, i), by which each layer, and at last W_U, divided what it read.
    """

    norms: np.ndarray
    axes = ACTIVATION_AXES | {"norms": "l+1 b i"}


def empty_activations(weights, tokens):
    """`Activations` whose arrays have their shapes, and any numbers."""
    sizes = sizes_of(weights, tokens)
    return Activations(**{name: np.empty([sizes[axis] for axis in axes.split()], weights.dtype)
                          for name, axes in ACTIVATION_AXES.items()})


def check_sizes(**sizes):
    """Raises InputError unless these are sizes of a model, by name."""
    for name, size in sizes.items():
        least = 0 if name == "n_layers" else 1
        if size < least:
            raise InputError(f"{name} must be at least {least}; got {size}")
    if prod(max(1, size) for size in sizes.values()) > 2**60:
        raise InputError(f"sizes must be those of a model that fits a computer; got {sizes}")


def sizes_of(weights, tokens):
    """The size of each axis of `ACTIVATION_AXES`."""
    (b, i), (L, h, e, d), v = tokens.shape, weights.W_Q.shape, weights.d_vocab
    return {"l": L, "l+1": L + 1, "b": b, "h": h, "i": i, "j": i, "d": d, "e": e, "v": v}


def check_axes(name, array, axes, sizes):
    """Hold `array` to named axes; learn sizes not yet in `sizes`, compare the others.

    Every size is at least 1, except n_layers, which may be 0. Raises InputError.
    """
    agree = array.ndim == len(axes) and all(
        size == sizes.get(axis, size if axis in ("n_layers", "l") else max(size, 1))
        for axis, size in zip(axes, array.shape))
    if not agree:
        known = ", ".join(f"{axis}={sizes[axis]}" for axis in dict.fromkeys(axes) if axis in sizes)
        raise InputError(f"{name} must have axes ({', '.join(axes)}){known and ' with ' + known}; "
                         f"got shape {array.shape}")
    sizes.update(zip(axes, array.shape))


def check_tokens(weights, tokens):
    """`tokens` as an array (b, i) of token ids that `weights` can take, or InputError."""
    try:
        tokens = np.asarray(tokens)
    except ValueError:
        raise InputError("tokens must have axes (b, i); got rows of several lengths") from None
    check_axes("tokens", tokens, ("b", "i"), {})
    if not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(f"tokens must be integers; got {tokens.dtype}")
    strange = tokens[(tokens < 0) | (tokens >= weights.d_vocab)]
    if strange.size:
        raise InputError(f"tokens must be from 0 to {weights.d_vocab - 1}; got {strange[0]}")
    if weights.n_ctx is not None and tokens.shape[1] > weights.n_ctx:
        raise InputError(f"a context has at most n_ctx={weights.n_ctx} tokens; "
                         f"got {tokens.shape[1]}")
    return tokens


def check_pattern(weights, tokens, pattern):
    """`tokens` (b, i) and their `pattern` (l, b, h, i, j) as checked arrays, or InputError."""
    tokens, pattern = check_tokens(weights, tokens), as_array("pattern", pattern)
    check_array(weights, tokens, "pattern", pattern, ACTIVATION_AXES["pattern"])
    return tokens, pattern


def check_acts(weights, tokens, acts):
    """Raises InputError unless `acts` can be the `Activations` of `weights` on checked tokens."""
    for name, axes in acts.axes.items():
        if weights.n_layers or axes[:2] != "l ":            # other sizes are of nothing
            check_array(weights, tokens, f"acts.{name}", getattr(acts, name), axes)


def check_array(weights, tokens, name, array, axes):
    """Raises InputError unless `array` has such axes, and is of floats, complex as `weights`."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in ("f", weights.dtype.kind):
        raise InputError(f"{name} must be an array of floats; got {brief(array)}")
    check_axes(name, array, axes.split(), sizes_of(weights, tokens))


def check_real(*arrays):
    """Raises InputError for complex numbers, which have no order: see `DTYPES`."""
    for array in arrays:
        if array.dtype.kind == "c":
            raise InputError(f"numbers to compare must be real; got {array.dtype}")


def check_head(weights, layer, head):
    """Raises InputError unless `weights` has the head `layer.head`, both counted from 0."""
    if not (0 <= layer < weights.n_layers and 0 <= head < weights.n_heads):
        raise InputError(f"a head is layer.head with layer < {weights.n_layers}, head < "
                         f"{weights.n_heads}, counted from 0; got {layer}.{head}")


@np.errstate(all="ignore")
def relative_error(actual: "ArrayLike", desired: "ArrayLike", scale: float | None = None) -> float:
    """max|actual − desired| / max|desired|, the one relative error of this package.

    `scale` replaces max|desired| where a result is a sum of terms that may cancel (the
    largest Σ|term|). Where the scale is 0: 0 if all is equal, else infinite. NaN gives NaN.
    """
    actual, desired = as_array("actual", actual), as_array("desired", desired)
    if actual.shape != desired.shape:
        raise InputError(f"arrays must have one shape; got {actual.shape} and {desired.shape}")
    if not {actual.dtype.kind, desired.dtype.kind} <= {*"biufc"}:
        raise InputError(f"arrays must hold numbers; got {actual.dtype} and {desired.dtype}")
    scale = held("scale", float | None, scale)
    actual, desired = 1.0 * actual, 1.0 * desired      # differences of integers would wrap
    error = np.abs(actual - desired).max(initial=0)
    scale = np.abs(desired).max(initial=0) if scale is None else scale
    return float(error / scale) if scale else float(np.inf if error > 0 else error)
