"""One pair from paper to check: softmax*, forward and backward, and three ways to be sure.

What a learner derives on paper is the two lines of `causal_softmax_backward`. Here is the
derivation, then each step of it on numbers.

    python examples/02_derive_the_backward.py [--text FILE_OR_FOLDER ...]

Paper: "Transformer Overview" (the softmax* of an attention pattern).
"""

import argparse

import numpy as np

import minicircuits as mc
from minicircuits.model.attention import causal_softmax, causal_softmax_backward
from minicircuits.notation import relative_error
from minicircuits.terminal.layout import heading, table
from minicircuits.training.corpus import read_texts

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="its first 12 bytes")
options = parser.parse_args()

text = read_texts(options.text)[0] if options.text else b"Potter can f"
letters = sorted(set(text[:12]))
tokens = np.array([[letters.index(letter) for letter in text[:12]]])     # bytes as tokens
rng = np.random.default_rng(0)
weights = mc.init_weights(n_layers=1, n_heads=1, d_model=8, d_head=4, d_vocab=len(letters),
                          n_ctx=12, positions="shortformer", rng=rng)
acts = mc.forward(weights, tokens)
scores, A, v, z = acts.scores[0], acts.pattern[0], acts.v[0], acts.z[0]  # (b, h, i, ·)
dz = rng.normal(size=z.shape)            # any gradient of the output z will do, but not all ones

print(heading("On paper"))
print("""
  forward    A_ij = exp(s_ij) / Σ_j' exp(s_ij')      over the sources j' ≤ i
             z_i  = Σ_j A_ij v_j

  1  One entry of A answers to one score of its row, by the quotient rule, as
         ∂A_ij / ∂s_ik = A_ij ([j = k] − A_ik)
  2  The chain rule, with dA_ij = dz_i·v_j, sums over j:
         ds_ik = Σ_j dA_ij A_ij ([j = k] − A_ik) = A_ik (dA_ik − Σ_j A_ij dA_ij)
  3  That is the code. (The sum is also Σ_j A_ij dz_i·v_j = dz_i·z_i, but dA and
     z·dz are rounded apart: where A_ik is 1, what is left of ds_ik is noise.)

  backward   ds_ij = A_ij (dA_ij − Σ_j' A_ij' dA_ij')""")

print(heading("Steps 1 to 3 on one row"))
i = len(tokens[0]) - 1
row, dA = A[0, 0, i], (dz @ v.mT)
J = np.diag(row) - np.outer(row, row)                                    # step 1
step_2 = row * (dA[0, 0, i] - row @ dA[0, 0, i])
step_3 = causal_softmax_backward(A, dA)[0, 0, i]
print("""  Row i of the pattern is the destination, the last byte. Columns: J ᵀdA, step
  by step. Look at the sum: a constant added to all scores of a row changes no
  A, so the gradients of a row sum to 0.
""")
print(*table([(f"{j} {chr(text[j])!r}", row[j], dA[0, 0, i, j], J[j] @ dA[0, 0, i], step_2[j],
               step_3[j]) for j in range(i + 1)]
             + [("sum", row.sum(), dA[0, 0, i].sum(), (J @ dA[0, 0, i]).sum(), step_2.sum(),
                 step_3.sum())],
             [("source", lambda line: line[0])] + [
                 (title, lambda line, column=column: f"{round(line[column], 4) + 0:.4f}")
                 for column, title in enumerate(["A", "dA", "step 1", "step 2", "step 3"], 1)]),
      sep="\n")

print(heading("Is it right? Complex step, and what central differences reach"))
direction = np.tril(rng.normal(size=scores.shape))                       # all scores at once


def scalar(scores):
    """Σ dz·z as a function of the scores, whose derivative is Σ ds·direction."""
    return (dz * (causal_softmax(scores) @ v)).sum()


ds = causal_softmax_backward(A, dA)
claimed = (ds * direction).sum()
h = 1e-100
rows = [("complex step, h = 1e-100", scalar(scores + 1j * h * direction).imag / h)]
rows += [(f"central differences, h = {h:.0e}",
          (scalar(scores + h * direction) - scalar(scores - h * direction)) / (2 * h))
         for h in (1e-2, 1e-5, 1e-8, 1e-11)]
wrong = A * (dA - 1.001 * (A * dA).sum(-1, keepdims=True))                # 0.1 % in one term
print("""  f(s + i h) = f(s) + i h f′(s) + O(h²): the imaginary part is the derivative,
  and no two near numbers are subtracted, so h can be as small as one likes.
  Differences lose digits to truncation (large h) or to cancellation (small h).
""")
print(*table(rows, [("derivative along a random direction", lambda line: line[0]),
                    ("value", lambda line: f"{line[1]:.12f}"),
                    ("off by", lambda line: f"{abs(line[1] / claimed - 1):.0e}")]), sep="\n")

print(heading("Without any reference: identities that right gradients must obey"))
print("""  In the whole model, from tokens to loss. Look at the two errors: that of our
  gradients, and that of gradients in which one matrix is off by 0.1 %.
""")
loss, gradients = mc.loss_and_gradients(weights, tokens)
W, dW = weights, gradients
checks = {"dW_Q W_Qᵀ = (dW_K W_Kᵀ)ᵀ": (dW.W_Q @ W.W_Q.mT, (dW.W_K @ W.W_K.mT).mT),
          "dW_V W_Vᵀ = W_Oᵀ dW_O": (dW.W_V @ W.W_V.mT, W.W_O.mT @ dW.W_O)}
print(*table(list(checks), [
    ("identity", str), ("ours", lambda name: f"{relative_error(*checks[name]):.0e}"),
    ("0.1 % off", lambda name: f"{relative_error(1.001 * checks[name][0], checks[name][1]):.0e}")]),
    sep="\n")
print(f"  {'Σ_v dW_U[v] = 0':<26}{abs(dW.W_U.sum(0)).max():.0e}")

assert relative_error(J @ dA[0, 0, i], step_3) < 1e-12 and relative_error(step_2, step_3) < 1e-12
assert abs(ds.sum(-1)).max() < 1e-13 and not np.triu(ds[0, 0], 1).any()
off = {name: abs(value / claimed - 1) for name, value in rows}
assert off["complex step, h = 1e-100"] < 1e-13
assert min(list(off.values())[1:]) > 10 * off["complex step, h = 1e-100"]
assert abs((wrong * direction).sum() / claimed - 1) > 1e-6               # the check can fail
assert all(relative_error(*pair) < 1e-12 for pair in checks.values())
assert not any(relative_error(1.001 * left, right) < 1e-4 for left, right in checks.values())
assert abs(dW.W_U.sum(0)).max() < 1e-15
print("\nAll identities hold.")
