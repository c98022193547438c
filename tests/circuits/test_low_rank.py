"""LowRank: everything it does against the dense matrix, whatever the three sizes are."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minicircuits.circuits import low_rank
from minicircuits.circuits.low_rank import LowRank, power_of_two, product
from minicircuits.notation import InputError
from tests.draws import SEEDS, assert_close

DTYPES = (np.float64, np.complex128, np.float32)


def tolerance(array):
    return 1e-12 if np.dtype(array.dtype) != np.float32 else 1e-5


def normal(rng, shape, dtype=np.float64):
    array = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        array = array + 1j * rng.normal(size=shape)
    return array.astype(dtype)


@st.composite
def draw_low_rank(draw, square=False, dtypes=DTYPES, min_r=0):
    """A and B, mostly of three different sizes; r may be 0, or more than m or n."""
    rng = np.random.default_rng(draw(SEEDS))
    m, r, n = rng.permutation(7)[:3] + 1 if draw(st.booleans()) else rng.integers(1, 5, size=3)
    r = draw(st.sampled_from((r, r, r, max(min_r, 0))))
    n = m if square else n
    dtype = draw(st.sampled_from(dtypes))
    W = LowRank(normal(rng, (m, r), dtype), normal(rng, (r, n), dtype))
    return W, rng


def dense(W):
    """Σ_e A_ie B_ej by einsum; its dtype is that of the factors."""
    return np.einsum("ie,ej->ij", W.A, W.B)


def size(W):
    """The scale of rounding: the largest Σ_e |A_ie| |B_ej|."""
    return np.einsum("ie,ej->ij", abs(W.A), abs(W.B)).max(initial=0)


def same(W, expected, scale=None):
    assert isinstance(W, LowRank)
    assert W.shape == expected.shape
    assert_close(W.AB, expected, tolerance(expected), scale)


# What it is.

@settings(max_examples=100, deadline=None)
@given(draw_low_rank())
def test_shape_transpose_and_dense_form(drawn):
    W, _ = drawn
    assert W.shape == (len(W.A), W.B.shape[1])
    same(W, dense(W), size(W))
    same(W.mT, dense(W).T, size(W))
    assert (W.mT.mT.A == W.A).all() and (W.mT.mT.B == W.B).all()
    assert repr(W) == f"LowRank{W.shape} through {W.A.shape[1]}"


# Products.

@settings(max_examples=100, deadline=None)
@given(draw_low_rank(min_r=1), st.integers(1, 8), st.integers(1, 8))
def test_products_with_arrays_and_each_other(drawn, k, p):
    W, rng = drawn
    (m, n), r, dtype = W.shape, W.A.shape[1], W.A.dtype
    left, right = normal(rng, (k, m), dtype), normal(rng, (n, p), dtype)
    scale = np.abs(left).sum(1).max() * size(W) * np.abs(right).sum(0).max()
    same(left @ W, left @ dense(W), scale)
    same(W @ right, dense(W) @ right, scale)
    same(left @ W @ right, left @ dense(W) @ right, scale)
    other = LowRank(right, normal(rng, (p, k), dtype))
    both = W @ other
    same(both, dense(W) @ dense(other), scale * size(other))
    assert (left @ W @ right).A.shape[1] == min(m, r, n)
    assert both.A.shape[1] == min(r, n, p)
    assert (left @ W @ other @ left).A.shape[1] == min(m, r, n, p, k)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(2, 6), st.sampled_from(DTYPES))
def test_a_chain_is_factored_at_its_narrowest_point(seed, length, dtype):
    rng = np.random.default_rng(seed)
    sizes = rng.permutation(9)[:length + 1] + 1
    matrices = [normal(rng, shape, dtype) for shape in zip(sizes, sizes[1:])]
    W, expected, scale = product(*matrices), matrices[0], np.abs(matrices[0])
    for matrix in matrices[1:]:
        expected, scale = expected @ matrix, scale @ np.abs(matrix)
    same(W, expected, scale.max())
    assert W.A.shape[1] == min(sizes[1:-1])
    mixed = matrices[0] @ LowRank(*matrices[1:3]) if length > 2 else W
    for matrix in matrices[3:] if length > 2 else []:
        mixed = mixed @ matrix
    same(mixed, expected, scale.max())
    assert mixed.A.shape[1] == min(sizes[1:-1])


def test_a_chain_never_forms_what_is_wider_than_it_has_to_be():
    """1,000 × 3 × 1,000 × 2 × 1,000: nothing with a million entries (8 MB) on the way."""
    chain = [np.ones(shape) for shape in ((1000, 3), (3, 1000), (1000, 2), (2, 1000))]
    tracemalloc.start()
    try:
        W = product(*chain)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert W.A.shape[1] == 2 and W[5, 7] == 6000 and peak < 1e5


@settings(max_examples=100, deadline=None)
@given(draw_low_rank(), st.integers(1, 4), st.integers(1, 5))
def test_vectors_and_batches(drawn, b, i):
    """A vector, or the rows of a batch as in A @ x @ W.mT, come out as arrays."""
    W, rng = drawn
    (m, n), dtype, close = W.shape, W.A.dtype, tolerance(W.A)
    v, w, x = normal(rng, n, dtype), normal(rng, m, dtype), normal(rng, (b, i, n), dtype)
    scale = max(size(W), 1e-300) * m * n * 5
    assert_close(W @ v, dense(W) @ v, close, scale)
    assert_close(w @ W, w @ dense(W), close, scale)
    assert_close(x @ W.mT, np.einsum("bin,mn->bim", x, dense(W)), close, scale)
    assert_close(W @ x.mT, np.einsum("mn,bin->bmi", dense(W), x), close, scale)


# Sums and multiples.

@settings(max_examples=100, deadline=None)
@given(draw_low_rank(), st.integers(0, 8))
def test_sums(drawn, other_r):
    W, rng = drawn
    (m, n), dtype = W.shape, W.A.dtype
    V = LowRank(normal(rng, (m, other_r), dtype), normal(rng, (other_r, n), dtype))
    same(W + V, dense(W) + dense(V), size(W) + size(V))
    assert (W + V).A.shape[1] == W.A.shape[1] + other_r
    assert not (W + W * -1).AB.any() or np.abs((W + W * -1).AB).max() <= 1e-4 * size(W)


@pytest.mark.parametrize("number", [3, -0.5, 0, np.float64(2.5), np.float32(2.5), np.int64(2),
                                    1 - 2j], ids=repr)
def test_multiples(number):
    rng = np.random.default_rng(0)
    W = LowRank(rng.normal(size=(5, 2)), rng.normal(size=(2, 7)))
    for scaled in W * number, number * W:
        same(scaled, dense(W) * number)


def test_float32_stays_float32():
    W = LowRank(np.ones((3, 2), np.float32), np.ones((2, 3), np.float32))
    for array in ((W * 0.5).AB, (0.5 * W).AB, (W + W).AB, W.mT.AB, W.diagonal(), W.rows([0]),
                  W.columns([0]), W[[0], [1]], W.svd()[0], W.svd()[1], W.svd()[2],
                  W @ np.ones(3, np.float32), (W @ W).AB):
        assert array.dtype == np.float32
    assert W.eigenvalues().dtype == np.complex64


# Parts of the matrix.

@settings(max_examples=100, deadline=None)
@given(draw_low_rank())
def test_rows_columns_and_elements(drawn):
    W, rng = drawn
    D, (m, n), close, scale = dense(W), W.shape, tolerance(W.A), max(size(W), 1e-300)
    rows, columns = rng.integers(-m, m, size=(2, 3)), rng.integers(-n, n, size=(2, 3))
    assert_close(W.rows(rows), D[rows], close, scale)
    assert_close(W.columns(columns), np.moveaxis(D[:, columns], 0, -1), close, scale)
    assert_close(W.rows(0), D[0], close, scale)
    assert_close(W.columns(-1), D[:, -1], close, scale)
    assert_close(W.rows(slice(1, 3)), D[1:3], close, scale)
    assert_close(W.columns(slice(1, 3)), D[:, 1:3].T, close, scale)
    assert_close(W[rows, columns], D[rows, columns], close, scale)
    assert_close(W[rows[:, :, None], columns[0]], D[rows[:, :, None], columns[0]], close, scale)
    assert_close(W[0, columns], D[0, columns], close, scale)
    assert_close(np.asarray(W[m - 1, 0]), D[m - 1, 0], close, scale)
    assert_close(W[np.arange(m)[:, None], np.arange(n)], D, close, scale)


@pytest.mark.parametrize("index", [(slice(3), slice(3)), (slice(None), slice(None)),
                                   (slice(2), 1), (1, slice(1, 3)), (slice(3), [0, 1, 2]),
                                   (..., 0), 0, slice(2)], ids=repr)
def test_slices_of_elements_are_as_numpys_or_refused(index):
    """Never the diagonal of what was asked for."""
    rng = np.random.default_rng(0)
    W = LowRank(rng.normal(size=(5, 2)), rng.normal(size=(2, 5)))
    try:
        chosen = W[index]
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert_close(chosen, dense(W)[index], 1e-12)


@settings(max_examples=100, deadline=None)
@given(draw_low_rank())
def test_diagonal_and_trace(drawn):
    W, _ = drawn
    assert_close(W.diagonal(), np.diagonal(dense(W)), tolerance(W.A), max(size(W), 1e-300))
    assert W.diagonal().shape == (min(W.shape),)
    assert_close(np.asarray(W.trace()), np.asarray(np.trace(dense(W))), tolerance(W.A),
                 7 * max(size(W), 1e-300))


@settings(max_examples=100, deadline=None)
@given(draw_low_rank(), st.integers(1, 300))
def test_blocks_tile_the_matrix_within_their_bytes(drawn, bytes):
    W, _ = drawn
    row_bytes, whole, stop = W.shape[1] * W.A.dtype.itemsize, np.full(W.shape, np.nan, W.A.dtype), 0
    for rows, block in W.blocks(bytes):
        assert rows.start == stop and block.nbytes <= max(bytes, row_bytes)
        assert len(block) == rows.stop - rows.start > 0
        whole[rows], stop = block, rows.stop
    assert stop == W.shape[0]
    assert_close(whole, dense(W), tolerance(W.A), max(size(W), 1e-300))


def test_blocks_are_as_large_as_they_may_be():
    W = LowRank(np.ones((10, 2)), np.ones((2, 3)))
    assert [len(block) for _, block in W.blocks(4 * 24)] == [4, 4, 2]
    assert [len(block) for _, block in W.blocks()] == [10]


# Norm, singular values, rank.

@settings(max_examples=100, deadline=None)
@given(draw_low_rank())
def test_norm(drawn):
    W, _ = drawn
    norm = W.norm()
    assert isinstance(norm, float)
    squares = sum(abs(complex(number)) ** 2 for number in dense(W).ravel())
    assert abs(norm - squares ** 0.5) <= tolerance(W.A) * 5 * max(size(W), 1e-300)


@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_norm_where_squares_leave_the_range_of_floats(factor):
    W = LowRank(factor * np.ones((5, 2)), np.ones((2, 4)))
    assert abs(W.norm() / factor - 80 ** 0.5) <= 1e-12 * 80 ** 0.5


def check_svd(W):
    U, S, Vh = W.svd()
    (m, n), D, close = W.shape, dense(W), tolerance(W.A)
    scale, r = max(size(W), 1e-300), len(S)
    assert (U.shape, S.shape, Vh.shape) == ((m, r), (r,), (r, n))
    assert r == min(m, n, W.A.shape[1])
    assert_close((U * S) @ Vh, D, 10 * close, scale)
    assert_close(U.conj().T @ U, np.eye(r, dtype=D.dtype), 10 * close)
    assert_close(Vh @ Vh.conj().T, np.eye(r, dtype=D.dtype), 10 * close)
    assert (np.diff(S) <= 0).all() and (S >= 0).all() and S.dtype == D.real.dtype
    assert_close(S, np.linalg.svd(D, compute_uv=False)[:r], 10 * close, 7 * scale)
    for column in U.T:
        largest = column[np.abs(column).argmax()]
        assert largest.real > 0 and abs(largest.imag) <= 10 * close
    return U, S, Vh


@settings(max_examples=100, deadline=None)
@given(draw_low_rank())
def test_svd(drawn):
    check_svd(drawn[0])


@settings(max_examples=60, deadline=None)
@given(draw_low_rank(dtypes=(np.float64, np.complex128), min_r=1))
def test_singular_vectors_do_not_depend_on_the_factors(drawn):
    """LowRank(A M, M⁻¹ B) is the same matrix: same vectors, signs and phases included."""
    W, rng = drawn
    M = normal(rng, (W.A.shape[1],) * 2, W.A.dtype) + 5 * np.eye(W.A.shape[1])
    U, S, Vh = check_svd(W)
    for other in LowRank(W.A @ M, np.linalg.solve(M, W.B)), LowRank(-W.A, -W.B):
        U_other, S_other, Vh_other = check_svd(other)
        n = min(len(S), len(S_other))
        assert_close(S_other[:n], S[:n], 1e-11, S[0])
        for k in range(n):
            others = np.delete(np.append(S[:n], 0), k)
            gap, largest = np.abs(S[k] - others).min() / S[0], np.sort(np.abs(U[:, k]))[-2:]
            if gap > 0.01 and np.ptp(largest) > 1e-6 or W.shape[0] == 1:
                assert_close(U_other[:, k], U[:, k], 1e-9)
                assert_close(Vh_other[k], Vh[k], 1e-9)


@settings(max_examples=60, deadline=None)
@given(draw_low_rank(dtypes=(np.float64, np.complex128)), st.booleans())
def test_rank(drawn, repeat):
    W, _ = drawn
    W = W + W if repeat else W
    assert W.rank() == np.linalg.matrix_rank(dense(W)) == min(*W.shape, drawn[0].A.shape[1])


@pytest.mark.parametrize("smallest, rank", [(1e-3, 3), (1e-12, 3), (1e-17, 2)])
def test_rank_counts_down_to_rounding_and_no_further(smallest, rank):
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (5, 7))
    W = LowRank(U * [1, 0.1, smallest], V.T)
    assert W.rank() == np.linalg.matrix_rank(dense(W)) == rank


# Eigenvalues: compared by power sums, tr Wᵏ = Σ λᵏ, which need no eigenvalue routine.

def check_eigenvalues(W, close=1e-12):
    values, D, n = W.eigenvalues(), dense(W).astype(complex), W.shape[0]
    assert values.shape == (min(W.A.shape[1], n),) and values.dtype.kind == "c"
    assert (np.diff(np.abs(values)) <= 1e-6 * max(size(W), 1e-300)).all()
    power, scale = np.eye(n), np.linalg.norm(W.A) * np.linalg.norm(W.B) or 1
    for k in range(1, n + 1):
        power = power @ (D / scale)
        total = ((values.astype(complex) / scale) ** k).sum()
        assert abs(total - np.trace(power)) <= 10 * k * close, f"tr W^{k}"


@settings(max_examples=100, deadline=None)
@given(draw_low_rank(square=True))
def test_eigenvalues(drawn):
    check_eigenvalues(drawn[0], tolerance(drawn[0].A))


@pytest.mark.parametrize("dtype, factor", [(np.float32, 1e-15), (np.float32, 1e13),
                                           (np.float64, 1e-150), (np.float64, 1e150)])
def test_eigenvalues_scale_with_the_matrix(dtype, factor):
    rng = np.random.default_rng(2)
    W = LowRank(normal(rng, (6, 4), dtype), normal(rng, (4, 6), dtype))
    scaled = LowRank(W.A * dtype(factor), W.B).eigenvalues() / dtype(factor)
    assert_close(scaled, W.eigenvalues(), 100 * np.finfo(dtype).eps)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(-1073, 1023), st.sampled_from(DTYPES))
def test_near_one_divides_by_a_power_of_two(seed, exponent, dtype):
    """The same digits; the largest entry from 1 to 2, for the smallest and largest floats too."""
    rng = np.random.default_rng(seed)
    A, B = normal(rng, (3, 2), dtype), normal(rng, (2, 4), dtype)
    limits = np.finfo(dtype)
    exponent = max(limits.minexp + 60 if limits.bits == 64 else limits.minexp + 30,
                   min(exponent, limits.maxexp - 4))
    scaled = LowRank(A * np.ldexp(A.real.dtype.type(1), exponent), B).near_one()
    for W, other in (A, scaled.A), (B, scaled.B):
        assert 1 <= np.abs(other).max() < 2 and other.dtype == dtype
        ratio = power_of_two(W).item()
        assert np.frexp(ratio)[0] == 0.5 and (other * ratio == W).all()


def test_power_of_two_at_the_edges():
    for number in 5e-324, 1.0, 1.9, 2.0, np.finfo(float).max:
        power = power_of_two(np.array([[number, -number / 4]])).item()
        assert power <= number < 2 * power or number > 1e308 and 1 <= number / power < 2
    assert power_of_two(np.zeros((2, 3))).item() > 0                    # to divide by
    assert power_of_two(np.array([[[3.0]], [[9]]]), (-2, -1)).tolist() == [[[2]], [[8]]]


def test_known_eigenvalues():
    """A complex pair, a double eigenvalue, a negative one and zeros, in a skewed basis."""
    known = np.array([3, 1 + 2j, 1 - 2j, -2, -2, 0.5])
    blocks = np.zeros((9, 9))
    blocks[0, 0], blocks[1:3, 1:3] = 3, [[1, 2], [-2, 1]]
    blocks[3, 3] = blocks[4, 4] = -2
    blocks[5, 5] = 0.5
    S = np.random.default_rng(0).normal(size=(9, 9)) + 3 * np.eye(9)
    W = LowRank((S @ blocks)[:, :6], np.linalg.inv(S)[:6])
    values = W.eigenvalues()
    for value in known:
        nearest = np.abs(values - value).argmin()
        assert abs(values[nearest] - value) < 1e-7
        values = np.delete(values, nearest)
    assert not values.size
    check_eigenvalues(W)


@pytest.mark.parametrize("r", range(1, 8))
def test_defective_matrices(r):
    """A Jordan block: one eigenvector, one eigenvalue r times (0 for the shift alone)."""
    for eigenvalue in 0, 2:
        jordan = eigenvalue * np.eye(r) + np.eye(r, k=1)
        W = LowRank(np.eye(9, r), jordan @ np.eye(r, 9))
        values = W.eigenvalues()
        assert np.abs(values - eigenvalue).max() < 3 * np.finfo(float).eps ** (1 / r)
        check_eigenvalues(W)
        S = np.random.default_rng(r).normal(size=(9, 9)) + 3 * np.eye(9)
        check_eigenvalues(S @ W @ np.linalg.inv(S))


# Nothing at all.

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m, r, n", [(5, 0, 7), (4, 0, 4), (1, 0, 1), (5, 2, 7), (4, 2, 4),
                                     (3, 6, 3), (1, 1, 1)])
def test_zero_matrices(m, r, n, dtype):
    W = LowRank(np.zeros((m, r), dtype), np.ones((r, n), dtype))
    assert W.rank() == 0 and W.norm() == 0 and W.trace() == 0
    assert not W.AB.any() and W.AB.shape == (m, n)
    assert not W.diagonal().any() and not W[0, 0] and not W.rows([0]).any()
    assert not (W @ np.ones(n, dtype)).any() and not (W + W).AB.any()
    assert [block.any() for _, block in W.blocks()] == [False]
    check_svd(W)
    assert not W.svd()[1].any()
    if m == n:
        assert not W.eigenvalues().any() and len(W.eigenvalues()) == min(r, n)


# What does not fit.

def W_5_7():
    return LowRank(np.ones((5, 2)), np.ones((2, 7)))


BAD = {
    "factors that do not meet": lambda W: LowRank(np.ones((5, 2)), np.ones((3, 7))),
    "a vector as factor": lambda W: LowRank(np.ones(5), np.ones((5, 7))),
    "a batch as factor": lambda W: LowRank(np.ones((2, 5, 3)), np.ones((3, 7))),
    "numbers as factors": lambda W: LowRank(1, 2),
    "matrix on the right": lambda W: W @ np.ones((5, 3)),
    "matrix on the left": lambda W: np.ones((3, 7)) @ W,
    "vector on the right": lambda W: W @ np.ones(5),
    "vector on the left": lambda W: np.ones(7) @ W,
    "batch on the right": lambda W: W @ np.ones((2, 5, 3)),
    "batch on the left": lambda W: np.ones((2, 3, 7)) @ W,
    "number on the right": lambda W: W @ np.array(2.0),
    "number on the left": lambda W: np.array(2.0) @ W,
    "list": lambda W: W @ [1, 2, 3],
    "LowRank": lambda W: W @ W,
    "sum of two shapes": lambda W: W + W.mT,
    "eigenvalues": lambda W: W.eigenvalues(),
    "product of nothing": lambda W: product(),
    "product of one array": lambda W: product(np.ones((3, 4))),
    "product with a vector": lambda W: product(W, np.ones(7)),
}


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
def test_what_does_not_fit_gets_one_clear_line(call):
    with pytest.raises(InputError) as caught:
        call(W_5_7())
    assert str(caught.value) and "\n" not in str(caught.value)


NOT_ARITHMETIC = {
    "+ 0": lambda W: W + 0,
    "+ array": lambda W: W + np.ones((5, 7)),
    "array +": lambda W: np.ones((5, 7)) + W,
    "* array": lambda W: W * np.ones(2),
    "* column": lambda W: W * np.ones((5, 1)),
    "array *": lambda W: np.ones(2) * W,
    "* LowRank": lambda W: W * W,
}


@pytest.mark.parametrize("call", NOT_ARITHMETIC.values(), ids=NOT_ARITHMETIC)
def test_arithmetic_it_does_not_have_is_refused(call):
    """Scaling A by an array would not scale the product."""
    with pytest.raises((InputError, TypeError)) as caught:
        call(W_5_7())
    assert "\n" not in str(caught.value)


def test_a_sum_of_circuits_is_a_circuit():
    Ws = [W_5_7(), W_5_7() * 2, W_5_7() * -3]
    assert np.abs(sum(Ws).AB).max() <= 1e-12 * np.abs(Ws[0].AB).max()
    assert_close(sum(Ws[:2]).AB, 3 * Ws[0].AB, 1e-12)


def test_factors_are_not_written_to():
    A, B = np.random.default_rng(0).normal(size=(2, 4, 4))
    for array in A, B:
        array.setflags(write=False)
    W = LowRank(A, B)
    W.svd(), W.eigenvalues(), W.norm(), W.rank(), W.diagonal(), (W * 2 + W).AB
    list(W.blocks(8))


# The checks themselves fail on mistakes.

def test_the_checks_see_a_mistake(monkeypatch):
    rng = np.random.default_rng(0)
    W = LowRank(rng.normal(size=(5, 3)), rng.normal(size=(3, 5)))
    check_svd(W)
    check_eigenvalues(W)

    def mistaken(name, result):
        return monkeypatch.setattr(LowRank, name, lambda self: result)
    (U, S, Vh), values = W.svd(), W.eigenvalues()
    for wrong in ((-U, S, -Vh), (U, S, Vh.T[:3]), (U, S * (1 + 1e-9), Vh),
                  (U[:, ::-1], S[::-1], Vh[::-1]), (2 * U, S, Vh / 2), (U, -S, -Vh)):
        mistaken("svd", wrong)
        with pytest.raises(AssertionError):
            check_svd(W)
    for wrong in (values[::-1], values[:2], values.real, values + 1e-9, values.conj() * 1j):
        mistaken("eigenvalues", wrong)
        with pytest.raises(AssertionError):
            check_eigenvalues(W)


def test_the_widest_point_would_be_seen(monkeypatch):
    monkeypatch.setattr(low_rank, "min", max, raising=False)
    with pytest.raises(AssertionError):
        test_a_chain_is_factored_at_its_narrowest_point.hypothesis.inner_test(0, 4, np.float64)
