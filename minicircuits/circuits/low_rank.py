"""LowRank: a matrix product that stays factored at its narrowest point.

A head's circuit W_U W_O W_V W_E is a (d_vocab, d_vocab) matrix that passes through
d_head numbers. Everything asked of it (columns, trace, eigenvalues, norm, singular
vectors) can be had from the two thin factors. Paper: "Low-Rank Matrix Math".
"""

from functools import reduce
from numbers import Number

import numpy as np

from minicircuits.door import door
from minicircuits.notation import InputError


class LowRank:
    """The matrix A @ B, kept as its factors A (m, r) and B (r, n).

    (A and B as in TransformerLens's FactoredMatrix; everywhere else A is a pattern.)

    `W_U @ LowRank(W_O, W_V) @ W_E` reads as the equation does. A product with a matrix or
    another LowRank is a LowRank again. A product with a vector, or with a batch (b, i, d) as
    in `pattern @ x @ W.mT`, is an array; so give a single context (i, d) its batch axis.
    `+` adds and `*` scales by a number. `W[v, u]` is one element, or many for index arrays
    that broadcast. `.AB` is the dense matrix, when you can afford it. No other arithmetic.

    Raises InputError if the factors do not fit.

    >>> rng = np.random.default_rng(0)
    >>> W = LowRank(rng.normal(size=(5, 2)), rng.normal(size=(2, 7))) @ rng.normal(size=(7, 3))
    >>> W
    LowRank(5, 3) through 2
    >>> W.AB.shape, W.rank()
    ((5, 3), 2)
    """

    __array_ufunc__ = None      # so that `array @ LowRank` comes to __rmatmul__

    @door
    def __init__(self, A: np.ndarray, B: np.ndarray):
        self.A, self.B = A, B
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[1] != self.B.shape[0]:
            raise InputError("LowRank needs factors (m, r) and (r, n); "
                             f"got shapes {self.A.shape} and {self.B.shape}")

    def __repr__(self):
        return f"LowRank{self.shape} through {self.A.shape[1]}"

    @property
    def shape(self) -> tuple[int, int]:
        return self.A.shape[0], self.B.shape[1]

    @property
    def AB(self) -> np.ndarray:
        """The dense matrix, (m, n)."""
        return self.A @ self.B

    @property
    def mT(self) -> "LowRank":
        """The transpose: Bᵀ Aᵀ."""
        return LowRank(self.B.mT, self.A.mT)

    def __matmul__(self, right):
        if isinstance(right, np.ndarray) and right.ndim != 2:
            return matmul(self.A, matmul(self.B, right))
        return product(self, right)

    def __rmatmul__(self, left):
        if isinstance(left, np.ndarray) and left.ndim != 2:
            return matmul(matmul(left, self.A), self.B)
        return product(left, self)

    def __mul__(self, number):
        if not isinstance(number, Number):
            return NotImplemented
        return LowRank(self.A * number, self.B)

    __rmul__ = __mul__

    def __add__(self, other):
        """[A A'] [B; B']: the rank of a sum is at most the sum of the ranks."""
        if not isinstance(other, LowRank):
            return NotImplemented
        if self.shape != other.shape:
            raise InputError(f"a sum needs equal shapes; got {self.shape} and {other.shape}")
        return LowRank(np.hstack([self.A, other.A]), np.vstack([self.B, other.B]))

    def __radd__(self, start):
        """So that `sum` of circuits is a circuit: it begins with 0."""
        return self if isinstance(start, int) and start == 0 else NotImplemented

    def __getitem__(self, index):
        """Elements [row, column]; index arrays broadcast, as NumPy's do."""
        if not (isinstance(index, tuple) and len(index) == 2
                and all(np.asarray(part).dtype.kind in "iu" for part in index)):
            raise InputError(f"elements need [row, column], integers or arrays of them; "
                             f"got {index}: for whole rows and columns use .rows and .columns")
        row, column = index
        return (self.A[row] * self.B.mT[column]).sum(-1)

    def rows(self, index) -> np.ndarray:
        """The rows that `index` chooses, (..., n)."""
        return self.A[index] @ self.B

    def columns(self, index) -> np.ndarray:
        """The columns that `index` chooses, each as a row of the result: (..., m)."""
        return self.B.mT[index] @ self.A.mT

    def blocks(self, max_bytes=64 << 20):
        """The dense matrix a block of rows at a time: pairs (slice of rows, block)."""
        m, n = self.shape
        step = max(1, max_bytes // max(1, n * self.A.dtype.itemsize))
        for start in range(0, m, step):
            rows = slice(start, min(start + step, m))
            yield rows, self.rows(rows)

    def diagonal(self) -> np.ndarray:
        """The elements [i, i]; (min(m, n),)."""
        n = min(self.shape)
        return (self.A[:n] * self.B.mT[:n]).sum(-1)

    def trace(self):
        """Σ_i W_ii, which is also the sum of the eigenvalues."""
        return self.diagonal().sum()

    def eigenvalues(self) -> np.ndarray:
        """min(r, n) eigenvalues by falling modulus, complex; all others are 0.

        The non-zero eigenvalues of A B are those of B A, (r, r). Raises InputError unless square.
        """
        if self.shape[0] != self.shape[1]:
            raise InputError(f"eigenvalues need a square matrix; got shape {self.shape}")
        small = self.B @ self.A if self.A.shape[1] <= self.shape[0] else self.AB
        values = np.linalg.eigvals(small)     # SciPy's are wrong far from 1: float32 at 1e±13
        values = values.astype(np.result_type(values, np.complex64))
        return values[np.argsort(-np.abs(values), kind="stable")]

    def norm(self) -> float:
        """The Frobenius norm √(Σ W_vu²)."""
        core = self._core()[1]
        scale = power_of_two(core)            # squares of entries may leave the range of floats
        return (np.linalg.norm(core / scale) * scale).item()

    def svd(self):
        """U (m, s), S (s,) descending, Vᴴ (s, n) with U·diag(S)·Vᴴ = A B; s = min(m, r, n).

        Singular vectors have no sign of their own: here the largest entry of each column
        of U is real and positive. Of equal singular values only the span is determined.
        """
        F_A, core, F_B = self._core()
        U, S, Vh = np.linalg.svd(core, full_matrices=False)
        U, Vh = F_A @ U, Vh @ F_B.conj().mT
        largest = np.take_along_axis(U, np.abs(U).argmax(0)[None], 0)[0]
        phase = largest / np.abs(largest)
        return U / phase, S, Vh * phase[:, None]

    def rank(self) -> int:
        """Singular values above max(m, n)·eps·S_0, as `numpy.linalg.matrix_rank` counts."""
        S = self.svd()[1]
        return int((S > S.max(initial=0) * max(self.shape) * np.finfo(S.dtype).eps).sum())

    def _core(self):
        """A B = F_A core F_Bᴴ. The columns of F_A and F_B are orthonormal, so norms are core's."""
        F_A, R_A = np.linalg.qr(self.A)
        F_B, R_B = np.linalg.qr(self.B.conj().mT)
        return F_A, R_A @ R_B.conj().mT, F_B

    def near_one(self):
        """The same matrix over a power of two: the largest entry of A and of B is from 1 to 2.

        For scores that do not depend on the scale: products stay in range, and nothing is rounded.
        """
        return LowRank(self.A / power_of_two(self.A), self.B / power_of_two(self.B))


def power_of_two(W, axis=None):
    """The power of two at or below max|W| over `axis` (kept, of size 1): 4 for 3 and −5."""
    largest = np.abs(W).max(axis, keepdims=True, initial=0)
    return np.ldexp(np.ones_like(largest), np.frexp(largest)[1] - 1)


def matmul(left, right):
    """left @ right for arrays, or InputError if their shapes do not fit."""
    try:
        return left @ right
    except ValueError:
        raise InputError("a product needs shapes that fit; "
                         f"got {left.shape} @ {right.shape}") from None


def product(*matrices):
    """The product of arrays and LowRanks as one LowRank, factored where it is narrowest.

    Of M_1 M_2 … M_n the smallest inner dimension splits the product in two. Each side is
    multiplied out from there. Raises InputError if the shapes do not fit.

    >>> product(np.ones((50, 8)), np.ones((8, 3)), np.ones((3, 9)), np.ones((9, 50)))
    LowRank(50, 50) through 3
    """
    factors = [factor for matrix in matrices
               for factor in ((matrix.A, matrix.B) if isinstance(matrix, LowRank)
                              else (np.asarray(matrix),))]
    if len(factors) < 2 or any(factor.ndim != 2 for factor in factors):
        raise InputError("a product needs two matrices or more; "
                         f"got shapes {[factor.shape for factor in factors]}")
    split = min(range(1, len(factors)), key=lambda n: len(factors[n]))
    A = reduce(lambda A, factor: matmul(factor, A), reversed(factors[:split]))
    return LowRank(A, reduce(matmul, factors[split:]))
