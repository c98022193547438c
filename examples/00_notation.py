"""The paper's notation on one sentence, with numbers small enough to check by hand.

One layer, one head. Every word is one of three kinds, and the residual stream has a dimension
for each: it holds nothing but "a name", "a number" or "another word".

    python examples/00_notation.py [--text FILE_OR_FOLDER ...]      (its first nine words)

Paper: "Notation", "Transformer Overview", "Attention Heads are Independent and Additive".
"""

import argparse

import numpy as np
from scipy.special import softmax

import minicircuits as mc
from minicircuits.terminal.layout import cut, heading, table
from minicircuits.training.corpus import read_texts

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own words")
options = parser.parse_args()

SENTENCE = "Potter can fly on a Nimbus 2000 to Hogwarts"
text = read_texts(options.text)[0].decode(errors="replace") if options.text else SENTENCE
words = [cut(word, 8) for word in text.split()[:9]]
vocabulary = list(dict.fromkeys(words))
tokens = np.array([[vocabulary.index(word) for word in words]])         # (b, i), one context
n = len(words)


def kind(word):
    """0: a name (a capital first), 1: a number (a digit in it), 2: another word."""
    return 0 if word[0].isupper() else 1 if any(map(str.isdigit, word)) else 2


kinds = np.array([kind(word) for word in vocabulary])
weights = mc.Weights(
    W_E=np.eye(3)[:, kinds],                     # (d, u): a column per token, its kind
    W_U=np.array([[0, 0, 2],                     # (v, d): a row per token. Names come after
                  [0, 1, 0],                     # other words, numbers after numbers,
                  [2, 0, 0.]])[kinds],           # other words after names.
    W_Q=np.zeros((1, 1, 4, 3)), W_K=np.zeros((1, 1, 4, 3)),      # (l, h, e, d)
    W_V=np.zeros((1, 1, 4, 3)), W_O=np.zeros((1, 1, 3, 4)),      # (l, h, d, e)
    W_pos=None, positions="none")
NAME, NUMBER, OTHER = range(3)
weights.W_Q[0, 0, 0, [NUMBER, OTHER]] = 4, 2     # how much a destination asks; names do not
weights.W_K[0, 0, 0, NAME] = np.log(3)           # what a source answers: only names do
weights.W_V[0, 0, 0, NAME] = 1                   # what is read there: that it is a name
weights.W_O[0, 0, NUMBER, 0] = 3                 # what is written here: 3 × "a number"
acts = mc.forward(weights, tokens)
x, A, scores = acts.residual[0, 0], acts.pattern[0, 0, 0], acts.scores[0, 0, 0]


def shown(rows, titles):
    """A table with a row per word."""
    print(*table(list(zip(words, rows)), [("", lambda row: row[0])] + [
        (title, lambda row, column=column: f"{row[1][column]:.4g}")
        for column, title in enumerate(titles)]), sep="\n")


print(heading("x = W_E t: what a word brings into the residual stream"))
print("  Its column of W_E is the row of x here: a 1 for its kind, and nothing else.\n")
shown(x, ["name", "number", "other"])

print(heading("A = softmax*(scores): who reads whom"))
print("""  A row is a destination (query), a column a source (key). Look at the zeros
  first: nobody reads what comes later. In the paper's sentence *can* may read
  *Potter*, never the reverse. The numbers are exp(score): a source counts 1,
  but a name counts 3 where an ordinary word asks and 9 where a number asks.
  Divided by the sum of their row they are A: *can* gives 3/4 of its attention
  to *Potter*.
""")
unnormalised = np.where(np.tri(n, dtype=bool), np.exp(scores), 0)
shown(np.c_[unnormalised, unnormalised.sum(1)], [word[:4] for word in words] + ["sum"])

print(heading("A ⊗ W: A moves between positions, W between subspaces"))
W = mc.W_OV(weights, 0, 0).AB                                       # (d, d)
moved = A @ x @ W.T
print("""  W = W_O W_V turns "a name" into 3 × "a number". So each word gets, in
  `number′`, 3 × its attention on names, and 0 elsewhere: A x Wᵀ is the head's
  output. Whether A or W goes first does not matter, since they act on different
  axes.
""")
shown(np.c_[(A @ x)[:, NAME], moved], ["A x, name", "name′", "number′", "other′"])

print(heading("logits = direct path + head"))
direct, by_head = mc.expand_logits(weights, tokens, acts.pattern)
there = sorted(set(kinds.tolist()))
one_of = [kinds.tolist().index(k) for k in there]                   # a token of each kind
names = [("name", "number", "other")[k] for k in there]
print("""  What comes next? The direct path W_U W_E sees the present word alone: a name
  comes after an ordinary word. The head adds that it has seen a name, so a
  number may come. The larger one wins: a number after *can*; a name after *a*,
  which spreads its attention over more words.
""")
likeliest = acts.logits[0][:, one_of].argmax(1)
print(*table(list(zip(words, direct.logits[0], by_head.logits[0], likeliest)), [
    ("", lambda row: row[0]),
    *((f"direct: {name}", lambda row, v=v: f"{row[1][v]:.3g}") for name, v in zip(names, one_of)),
    *((f"head: {name}", lambda row, v=v: f"{row[2][v]:.3g}") for name, v in zip(names, one_of)
      if name == "number"),
    ("together", lambda row: names[row[3]])]), sep="\n")

print(heading("What is softmax(W_Q W_K)?"))
print("""  Not a pattern: there are no tokens in it, so it has not even a row per word. A
  pattern needs x on both sides of W_QK = W_Qᵀ W_K, the scale 1/√d_head (here
  1/2), and the mask (the * in softmax*). Off by: the largest distance from A.
""")
W_Q, W_K, W_QK = weights.W_Q[0, 0], weights.W_K[0, 0], mc.W_QK(weights, 0, 0).AB
seen = np.tri(n, dtype=bool)
formulas = {
    "softmax(W_Q W_Kᵀ)": softmax(W_Q @ W_K.T, axis=-1),
    "softmax(W_Qᵀ W_K)": softmax(W_QK, axis=-1),
    "softmax(xᵀ W_QK x / √d_head), no mask": softmax(x @ W_QK @ x.T / 2, axis=-1),
    "softmax*(xᵀ W_QK x), no scale": softmax(np.where(seen, x @ W_QK @ x.T, -np.inf), axis=-1),
    "softmax*(xᵀ W_QK x / √d_head)": softmax(np.where(seen, x @ W_QK @ x.T / 2, -np.inf), axis=-1)}
errors = {name: abs(P - A).max() if P.shape == A.shape else None for name, P in formulas.items()}
print(*table(list(formulas), [
    ("formula", str), ("shape", lambda name: f"{formulas[name].shape}"),
    ("off by", lambda name: "no pattern" if errors[name] is None else f"{errors[name]:.2f}")]),
    sep="\n")

# By hand: exp(score) is 1, but for names, which count 3 for others and 9 for numbers.
asks = {0: 1, 1: 9, 2: 3}
by_hand = np.array([[asks[kind(i)] if kind(j) == NAME else 1 for j in words] for i in words])
by_hand = np.tril(by_hand) / np.tril(by_hand).sum(1, keepdims=True)
assert np.allclose(A, by_hand) and not np.triu(A, 1).any()
assert np.allclose((A @ x) @ W.T, A @ (x @ W.T))                    # either first
assert np.allclose(np.kron(A, W) @ x.ravel(), moved.ravel())        # A ⊗ W, and x flattened:
assert np.outer(A, W).shape != np.kron(A, W).shape                  # np.outer is another thing
assert np.allclose(moved[:, NUMBER], 3 * A[:, [kind(word) == NAME for word in words]].sum(1))
assert np.allclose(direct.logits + by_head.logits, acts.logits)
assert errors["softmax*(xᵀ W_QK x / √d_head)"] < 1e-12
if not options.text:
    assert np.allclose(A[words.index("can"), :2], [3 / 4, 1 / 4])
    assert min(error for name, error in errors.items()
               if error is not None and "*(xᵀ W_QK x /" not in name) > 0.05
    assert [names[likeliest[words.index(word)]] for word in ("can", "a")] == ["number", "name"]
print("\nAll identities hold.")
