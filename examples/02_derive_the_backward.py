"""One pair from paper to check: softmax*, forward and backward, and three ways to be sure.

What a learner derives on paper is the two lines of `causal_softmax_backward`. Here is the
derivation, then each step of it on numbers.

    python examples/02_derive_the_backward.py [--sentence TEXT | --text FILE ...]

Of a text of your own it takes the first 12 bytes.

Paper: "Transformer Overview" (the softmax* of an attention pattern).
"""
# %% A small model, and any gradient of its output
from preamble import heading, options, say, table, words
import numpy as np

import minicircuits as mc
from minicircuits.model.attention import causal_softmax, causal_softmax_backward

chosen = options(__doc__, text="your own letters", sentence=True)
text = " ".join(words(chosen, "Potter can fly")).encode()[:12]
letters = sorted(set(text))
if len(text) < 3 or len(letters) < 2:    # no gradient differs from 0
    raise mc.InputError(f"this takes three bytes at least, not all the same; got {text!r}")
tokens = np.array([[letters.index(letter) for letter in text]])          # bytes as tokens
rng = np.random.default_rng(0)
weights = mc.init_weights(n_layers=1, n_heads=1, d_model=8, d_head=4, d_vocab=len(letters),
                          n_ctx=12, positions="shortformer", rng=rng)
acts = mc.forward(weights, tokens)
scores, A, v, z = acts.scores[0], acts.pattern[0], acts.v[0], acts.z[0]  # (b, h, i, ·)
dz = rng.normal(size=z.shape)            # any gradient of the output z will do, but not all ones

# %% On paper
heading("On paper")
say("""A forward pass computes the loss. A backward pass computes its gradients: by how much it
    grows with each number on the way. Here ds is the gradient of the scores s. The pass goes back
    step by step, so that here dz is given, and ds is asked for. A head makes its output z from its
    scores and from its values v:""")
print("""  forward    A_ij = exp(s_ij) / Σ_k exp(s_ik)        over the sources k ≤ i
             z_i  = Σ_j A_ij v_j

  1  By the quotient rule, one entry of A changes with one score of its row by
         ∂A_ij / ∂s_ik = A_ij ([j = k] − A_ik)          [j = k]: 1 if so, else 0
  2  From the second line, dA_ij = dz_i·v_j. The chain rule sums over j:
         ds_ik = Σ_j dA_ij A_ij ([j = k] − A_ik) = A_ik (dA_ik − Σ_j A_ij dA_ij)
  3  The sum is known already: Σ_j A_ij dA_ij = dz_i · Σ_j A_ij v_j = dz_i·z_i

  backward   ds_ij = A_ij (dA_ij − Σ_k A_ik dA_ik) = A_ij (dA_ij − z_i·dz_i)
""")
say("""In code, step 2 is the safer one: dA and z·dz are rounded apart. Where an A_ij is nearly 1,
    its two terms are nearly equal, and step 3 leaves little but rounding.""")

# %% Steps 1 to 3 on one row
heading("Steps 1 to 3 on one row")
i = tokens.shape[1] - 1
row, dA = A[0, 0, i], (dz @ v.mT)[0, 0, i]
J = np.diag(row) - np.outer(row, row)                                    # step 1
ds = causal_softmax_backward(A, dz @ v.mT)
steps = J @ dA, row * (dA - row @ dA), row * (dA - z[0, 0, i] @ dz[0, 0, i]), ds[0, 0, i]
say("""The destination i is the last byte of a text, and each line is one of its sources. The last
    four columns are its ds, by each step and by the library: they agree. Look at the sum: ds sums
    to 0. For a constant added to all scores of a row changes nothing in A.""")
columns = [row, dA, *steps]
table(["source", "A", "dA", "ds by step 1", "step 2", "step 3", "library"],
      [[name, *(f"{round(number, 4) + 0:.4f}" for number in line)] for name, line in zip(
          [f"{j} {chr(letter)!r}" for j, letter in enumerate(text)] + ["sum"],
          np.c_[columns, np.sum(columns, axis=1)].T)])

# %% Complex step
heading("Is it right? The complex step, and what differences reach")
direction = np.tril(rng.normal(size=scores.shape))                       # all scores at once


def scalar(scores):
    """Σ dz·z as a function of the scores, whose derivative is Σ ds·direction."""
    return (dz * (causal_softmax(scores) @ v)).sum()


claimed, h = (ds * direction).sum(), 1e-100
found = {"complex step, h = 1e-100": scalar(scores + 1j * h * direction).imag / h}
for h in (1e-2, 1e-5, 1e-8, 1e-11):
    difference = scalar(scores + h * direction) - scalar(scores - h * direction)
    found[f"central difference, h = {h:.0e}"] = difference / (2 * h)
off = {name: abs(value / claimed - 1) for name, value in found.items()}
say("""To check ds, move all scores a little in a random direction. How fast does Σ dz·z change? A
    central difference is (f(s + h) − f(s − h)) / 2h. If h is large, it is not local. If h is small,
    it subtracts numbers that are nearly equal, and loses their digits.""")
say("""A complex step has neither fault: f(s + ih) = f(s) + ih f′(s) + O(h²). Its imaginary part is
    the derivative times h, and nothing is subtracted. So h can be as small as one likes.""")
table(["derivative in a random direction", "value", "off by"],
      [[name, f"{value:.12f}", f"{off[name]:.0e}"] for name, value in found.items()])

# %% Identities
heading("Without any reference: identities that right gradients must obey")
say("""Some changes of the weights change nothing in the model, and each gives an identity between
    its gradients. They hold for the whole model, from tokens to loss. Look at the two errors: that
    of our gradients, and that of gradients in which one matrix is off by 0.1 %.""")
W, dW = weights, mc.loss_and_gradients(weights, tokens)[1]
checks = {"dW_Q W_Qᵀ = (dW_K W_Kᵀ)ᵀ": (dW.W_Q @ W.W_Q.mT, (dW.W_K @ W.W_K.mT).mT),
          "dW_V W_Vᵀ = W_Oᵀ dW_O": (dW.W_V @ W.W_V.mT, W.W_O.mT @ dW.W_O)}
errors = {name: (mc.relative_error(left, right), mc.relative_error(1.001 * left, right))
          for name, (left, right) in checks.items()}
table(["identity", "ours", "0.1 % off"], [
    *([name, f"{ours:.0e}", f"{wrong:.0e}"] for name, (ours, wrong) in errors.items()),
    ["Σ_v dW_U[v] = 0", f"{abs(dW.W_U.sum(0)).max():.0e}", ""]])

# %% The assertions
assert max(mc.relative_error(step, steps[-1]) for step in steps) < 1e-12
assert abs(ds.sum(-1)).max() < 1e-13 and not np.triu(ds[0, 0], 1).any()
by_complex_step, *by_differences = off.values()
assert by_complex_step < 1e-13 and min(by_differences) > 10 * by_complex_step
wrong = A * (dz @ v.mT - 1.001 * (z * dz).sum(-1, keepdims=True))        # 0.1 % in one term
assert abs((wrong * direction).sum() / claimed - 1) > 1e-6               # the check can fail
assert all(ours < 1e-12 and wrong > 1e-4 for ours, wrong in errors.values())
assert abs(dW.W_U.sum(0)).max() < 1e-15
print("All identities hold.")
