"""The paper's notation on one sentence, with numbers small enough to check by hand.

One layer, one head. Every word is one of three kinds, and the residual stream has a dimension
for each: it holds nothing but "a name", "a number" or "another word".

    python examples/00_notation.py [--sentence TEXT | --text FILE ...]     (its first nine words)

Paper: "Notation", "Transformer Overview", "Attention Heads are Independent and Additive".
"""
# %% The words
from preamble import heading, options, own, say, table, words
import numpy as np
from scipy.special import softmax

import minicircuits as mc
from minicircuits.terminal.layout import cut

chosen = options(__doc__, text="your own words", sentence=True)
sentence = words(chosen, "Potter can fly on a Nimbus 2000 to Hogwarts")
sentence = [cut(word, 8) for word in sentence[:9]]
vocabulary = list(dict.fromkeys(sentence))
tokens = np.array([[vocabulary.index(word) for word in sentence]])      # (b, i), one context
n = len(sentence)


def kind(word):
    """0: a name (a capital first), 1: a number (a digit in it), 2: another word."""
    return 0 if word[0].isupper() else 1 if any(map(str.isdigit, word)) else 2


def by_word(titles, rows):
    """A table of numbers with a row for each word."""
    table(["", *titles], [[word, *(f"{number:.4g}" for number in row)]
                          for word, row in zip(sentence, rows)])


# %% The model, written by hand
kinds = np.array([kind(word) for word in vocabulary])
weights = mc.Weights(
    W_E=np.eye(3)[:, kinds],                     # (d, u): a column per token, its kind
    W_U=np.array([[0, 0, 2],                     # (v, d): a row per token. Names come after
                  [0, 1, 0],                     # other words, numbers after numbers,
                  [2, 0, 0.]])[kinds],           # other words after names.
    W_Q=np.zeros((1, 1, 4, 3)), W_K=np.zeros((1, 1, 4, 3)),      # (l, h, e, d)
    W_V=np.zeros((1, 1, 4, 3)), W_O=np.zeros((1, 1, 3, 4)),      # W_O: (l, h, d, e)
    W_pos=None, positions="none")
NAME, NUMBER, OTHER = range(3)
weights.W_Q[0, 0, 0, [NUMBER, OTHER]] = 4, 2     # how much a destination asks; names do not
weights.W_K[0, 0, 0, NAME] = np.log(3)           # what a source answers: only names do
weights.W_V[0, 0, 0, NAME] = 1                   # what is read there: that it is a name
weights.W_O[0, 0, NUMBER, 0] = 3                 # what is written here: 3 × "a number"
acts = mc.forward(weights, tokens)
x, A, scores = acts.residual[0, 0], acts.pattern[0, 0, 0], acts.scores[0, 0, 0]

# %% x = W_E t
heading("x = W_E t: what a word brings into the residual stream")
say("""The residual stream x has a row for each position of the text, here for each word. It is what
    the parts of a model read, and what they add to. A row of t has a single 1, which says which
    word stands there. W_E, the embedding, turns it into the row of x: here a 1 for the word's kind,
    and 0 elsewhere.""")
by_word(["name", "number", "other"], x)

# %% A = softmax*(scores)
heading("A = softmax*(scores): who reads whom")
say("""A head moves information between positions. Its pattern A has a row for each destination, the
    position that reads, and a column for each source, the position that is read.""")
say("""A score is the product of a query, made from the destination, and a key, made from the
    source, times a scale. The pattern is exp(score), divided by the sum of its row. That is
    softmax; the star says that a source after its destination gets 0.""")
say("""Here is exp(score). Look at the zeros first: nobody reads what comes later. In the paper's
    sentence, *can* may read *Potter*, and never the reverse. A source counts 1; but a name counts 3
    where an ordinary word asks, and 9 where a number asks. So *can* gives *Potter* 3/4.""")
unnormalized = np.where(np.tri(n, dtype=bool), np.exp(scores), 0)
by_word([word[:4] for word in sentence] + ["sum"], np.c_[unnormalized, unnormalized.sum(1)])

# %% A ⊗ W
heading("A ⊗ W: A moves between positions, W between dimensions")
W = mc.W_OV(weights, 0, 0).AB                                       # (d, d)
moved = A @ x @ W.T
say("""What a head reads from a source is turned by W_V, and what it writes at the destination by
    W_O. Together they are W = W_O W_V, which turns "a name" into 3 × "a number". So each word gets,
    in the column number′, 3 × its attention on names. The head's output is A x Wᵀ, which is written
    A ⊗ W. A acts on rows and W on columns, so either may go first.""")
by_word(["A x, name", "name′", "number′", "other′"], np.c_[(A @ x)[:, NAME], moved])

# %% logits = direct path + head
heading("logits = direct path + head")
say("""A logit is how strongly the model expects a word next; the largest wins. The unembedding W_U
    makes logits from the residual stream. The direct path W_U W_E goes past the head, and sees the
    present word alone: after an ordinary word it expects a name.""")
say("""The head adds to the logit of a number, the more the more of its attention is on names. So
    after *can* the model expects a number. After *a* it expects a name, because the attention of
    *a* is spread over more words.""")
direct, by_head = mc.expand_logits(weights, tokens, acts.pattern)
there = sorted(set(kinds.tolist()))
names = [("name", "number", "other")[k] for k in there]
one_of = [kinds.tolist().index(k) for k in there]                   # a token of each kind
numbers = [v for v, k in zip(one_of, there) if k == NUMBER]         # the head says nothing else
expected = [names[column] for column in acts.logits[0][:, one_of].argmax(1)]
table(["", *(f"direct: {name}" for name in names), *("head: number" for _ in numbers), "together"],
      [[word, *(f"{logit:.3g}" for logit in (*by_direct[one_of], *head[numbers])), expects]
       for word, by_direct, head, expects in zip(sentence, direct.logits[0], by_head.logits[0],
                                                 expected)])

# %% What is softmax(W_Q W_K)?
heading("What is softmax(W_Q W_K)?")
say("""It is often written for a pattern, and it is none. There are no words in it, so it has not
    even a row for each word. A pattern needs x on both sides of W_QK = W_Qᵀ W_K. It needs the scale
    1/√d_head, here 1/2. And it needs the star. The last column is the largest distance from A.""")
W_Q, W_K, W_QK = weights.W_Q[0, 0], weights.W_K[0, 0], mc.W_QK(weights, 0, 0).AB
seen = np.tri(n, dtype=bool)
formulas = {
    "softmax(W_Q W_Kᵀ)": softmax(W_Q @ W_K.T, axis=-1),
    "softmax(W_Qᵀ W_K)": softmax(W_QK, axis=-1),
    "softmax(x W_QK xᵀ / √d_head), no star": softmax(x @ W_QK @ x.T / 2, axis=-1),
    "softmax*(x W_QK xᵀ), no scale": softmax(np.where(seen, x @ W_QK @ x.T, -np.inf), axis=-1),
    "softmax*(x W_QK xᵀ / √d_head)": softmax(np.where(seen, x @ W_QK @ x.T / 2, -np.inf), axis=-1)}
errors = {name: abs(P - A).max() for name, P in formulas.items() if P.shape == A.shape}
table(["formula", "shape", "off by"], [
    [name, P.shape, f"{errors[name]:.2f}" if name in errors else "no pattern"]
    for name, P in formulas.items()])

# %% The identities
# By hand: exp(score) is 1, but for names, which count 3 for others and 9 for numbers.
asks = {NAME: 1, NUMBER: 9, OTHER: 3}
by_hand = np.array([[asks[kind(i)] if kind(j) == NAME else 1 for j in sentence] for i in sentence])
by_hand = np.tril(by_hand) / np.tril(by_hand).sum(1, keepdims=True)
assert np.allclose(A, by_hand) and not np.triu(A, 1).any()
assert np.allclose((A @ x) @ W.T, A @ (x @ W.T))                    # either first
assert np.allclose(np.kron(A, W) @ x.ravel(), moved.ravel())        # A ⊗ W, and x flattened:
assert not np.array_equal(np.outer(A, W), np.kron(A, W))            # np.outer is another thing
assert np.allclose(moved[:, NUMBER], 3 * A[:, [kind(word) == NAME for word in sentence]].sum(1))
assert np.allclose(direct.logits + by_head.logits, acts.logits)
assert errors.pop("softmax*(x W_QK xᵀ / √d_head)") < 1e-12
if not own(chosen):
    assert np.allclose(A[sentence.index("can"), :2], [3 / 4, 1 / 4])
    assert min(errors.values()) > 0.05
    assert [expected[sentence.index(word)] for word in ("can", "a")] == ["number", "name"]
print("All identities hold.")
