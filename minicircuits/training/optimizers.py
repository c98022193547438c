"""Two rules that turn a gradient into new weights: AdamW and Muon.

Each is a function of arrays: it returns new ones, writes to none, and keeps nothing. What it
has to remember from step to step, its moments, comes in and goes out. Arrays keep their dtype
and their layout in memory.

AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019) scales every entry by its own history. It is
for W_E, W_pos and W_U, of which a step touches some columns or rows often and others hardly.
Muon (Jordan et al. 2024) scales every singular direction alike. It is for W_Q, W_K, W_V and
W_O, which are only ever met in products: a direction in which the gradient is still faint, such
as the one that will become an induction head, moves as fast as the others.
"""

import numpy as np


def adamw(W, dW, moments, step, rate, beta1, beta2, decay):
    """One step of AdamW; returns the new W and the new moments.

        m ← β₁ m + (1 − β₁) dW           m̂ = m / (1 − β₁^step)
        s ← β₂ s + (1 − β₂) dW²          ŝ = s / (1 − β₂^step)
        W ← W − rate · (m̂ / (√ŝ + 1e-8) + decay · W · [dW ≠ 0])

    [dW ≠ 0] : a token that the batch has not keeps its embedding, however rare it is
    moments : (m, s), both zero before step 1, as `trainer.first_state` has them
    """
    m, s = moments
    m = beta1 * m + (1 - beta1) * dW
    s = beta2 * s + (1 - beta2) * dW ** 2
    direction = m / (1 - beta1 ** step) / (np.sqrt(s / (1 - beta2 ** step)) + 1e-8)
    return W - rate * (direction + decay * W * (dW != 0)), (m, s)


def muon(W, dW, moments, rate, momentum, decay, speed=1):
    """One step of Muon for matrices (..., a, b), each by itself; returns the new W and moments.

        m ← momentum · m + dW
        W ← W − rate · (speed · orthogonalize(momentum · m + dW) + decay · W)

    moments : (m,), zero before step 1, as `trainer.first_state` has it
    speed : the faster a matrix moves against its decay, the larger it becomes
    """
    m, = moments
    m = momentum * m + dW
    return W - rate * (speed * orthogonalize(momentum * m + dW) + decay * W), (m,)


def orthogonalize(M):
    """About U Vᵀ, where M = U S Vᵀ: its directions, with singular values near 1. (..., a, b)

        X = M / ‖M‖;  then five times  X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X     (Newton–Schulz)

    Each step maps every singular value σ to aσ + bσ³ + cσ⁵. With these a, b, c the large ones
    do not settle at 1 but between 0.68 and 1.21, so that small ones can rise fast: from 0.01
    of ‖M‖ in five steps. Zero stays zero, and this is not an exact polar decomposition (for
    that: `scipy.linalg.polar`).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = M if M.shape[-2] <= M.shape[-1] else M.mT           # the smaller X Xᵀ
    # A power of two first, which costs no bit: squares of what is near 1 stay in a float's range.
    _, exponent = np.frexp(np.abs(X).max((-2, -1), keepdims=True))
    X = X / np.ldexp(M.dtype.type(1), exponent - 1)
    X = X / (np.linalg.norm(X, axis=(-2, -1), keepdims=True) + np.finfo(M.dtype).tiny)
    for _ in range(5):
        XXt = X @ X.mT
        X = a * X + (b * XXt + c * XXt @ XXt) @ X
    return X if M.shape[-2] <= M.shape[-1] else X.mT
