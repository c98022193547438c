"""The forward pass over any numbers that add and multiply: fractions, decimals of 50 digits.

A derivation of its own, written from the formulas for one context; numbers are Python's.
"""

import decimal
from fractions import Fraction
from math import isqrt

DIGITS = decimal.Context(prec=50, Emin=-10 ** 9, Emax=10 ** 9, traps=[])


class Fractions:
    """Exact, for cases whose shares are 0 or ties: exp of what is more than 745 below is 0."""
    number = staticmethod(Fraction)

    @staticmethod
    def root(n):
        assert isqrt(n) ** 2 == n
        return Fraction(isqrt(n))

    @staticmethod
    def exp(x):
        assert x == 0 or x < -745, f"a gap of {float(x)} is neither a tie nor saturated"
        return Fraction(x == 0)


class Decimals:
    number = staticmethod(lambda x: decimal.Decimal(float(x)))
    root = staticmethod(lambda n: decimal.Decimal(n).sqrt(DIGITS))
    exp = staticmethod(DIGITS.exp)


def nested(array, number):
    return [nested(part, number) for part in array] if array.ndim else number(array.item())


def matrix_vector(W, x):
    return [sum((w * y for w, y in zip(row, x)), start=x[0] * 0) for row in W]


def add(x, y):
    return [a + b for a, b in zip(x, y)]


def forward(weights, tokens, kind):
    """(patterns [layer][head][i][j ≤ i], logits [i][v]) of one context, tokens (i,)."""
    W = {name: nested(array, kind.number) for name, array in weights.items()}
    columns = [list(column) for column in zip(*W["W_E"])]
    places = [list(column) for column in zip(*W["W_pos"])] if "W_pos" in W else None
    x = [columns[t] for t in tokens]
    if weights.positions == "standard":
        x = [add(row, place) for row, place in zip(x, places)]
    patterns = []
    for W_Q, W_K, W_V, W_O in zip(W["W_Q"], W["W_K"], W["W_V"], W["W_O"]):
        y = [add(a, b) for a, b in zip(x, places)] if weights.positions == "shortformer" else x
        after, of_layer = x, []
        for h in range(len(W_Q)):
            q, k, v = ([matrix_vector(M[h], row) for row in rows]
                       for M, rows in ((W_Q, y), (W_K, y), (W_V, x)))
            A = []
            for i in range(len(x)):
                scores = [sum(a * b for a, b in zip(q[i], k[j])) / kind.root(len(q[i]))
                          for j in range(i + 1)]
                shares = [kind.exp(score - max(scores)) for score in scores]
                A.append([share / sum(shares) for share in shares])
            z = [[sum(A[i][j] * v[j][e] for j in range(i + 1)) for e in range(len(v[0]))]
                 for i in range(len(x))]
            after = [add(a, matrix_vector(W_O[h], row)) for a, row in zip(after, z)]
            of_layer.append(A)
        x = after
        patterns.append(of_layer)
    return patterns, [matrix_vector(W["W_U"], row) for row in x]


def loss(weights, tokens, kind=Decimals):
    """−mean of log softmax of the next token, of one context, in 50 digits."""
    _, logits = forward(weights, tokens, kind)
    losses = []
    for row, target in zip(logits, tokens[1:]):
        shares = [DIGITS.exp(x - max(row)) for x in row]
        losses.append(DIGITS.ln(sum(shares)) - (row[target] - max(row)))
    return sum(losses) / len(losses)
