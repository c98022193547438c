"""Circuits written by hand: bigrams, skip-trigrams, two-back, induction by keys and by pointers.

Nothing is trained. Each circuit does one thing exactly, so its patterns are 0, 1 or 1/m and its
logits can be read as sentences.

    python examples/04_hand_built_circuits.py [--sentence TEXT | --text FILE ...]

Of a text of your own it takes the first 40 words.

Paper: "Virtual Attention Heads", "How Induction Heads Work", "Skip-Trigram "Bugs"".
"""
# %% The words
from preamble import heading, options, say, table, words
import numpy as np

import minicircuits as mc
from minicircuits.circuits import hand_built
from minicircuits.terminal.layout import cut
from minicircuits.training.bigrams import bigram, count_bigrams

chosen = options(__doc__, text="your own words", sentence=True)
text = words(chosen, "the small cat saw the old dog and the small cat saw")
text = [cut(word, 11) for word in text[:40]]
vocabulary = ["<START>", *dict.fromkeys(text)]
tokens = np.array([[hand_built.START, *map(vocabulary.index, text)]])    # (b, i)
n, d_vocab = tokens.shape[1], len(vocabulary)


def said(logits):
    """The words with the largest logit, or – where all are 0."""
    return " ".join(vocabulary[v] for v in np.flatnonzero(logits == logits.max())
                    if logits.any()) or "–"


def looks_at(pattern):
    return " ".join(f"{vocabulary[tokens[0, j]]}({j})" for j in np.flatnonzero(pattern))


def by_place(titles, places, cells):
    """A table with a row per place of the text; cells: function, place -> texts."""
    table(["place", "word", *titles],
          [[i, vocabulary[tokens[0, i]], *cells(i)] for i in places])


# %% No layers
heading("No layers: W_U W_E is a table of bigrams")
say("""The model says the word with the largest logit. Here logits are logarithms of how often the
    text has a word next. So it says the most frequent next word, with that probability. It sees the
    present word alone.""")
p = bigram(count_bigrams(tokens, d_vocab), beta=0.01)                    # (v, u)
bigrams = mc.forward(hand_built.bigram_model(np.log(p)), tokens)
last_place = dict(zip(tokens[0, 1:-1].tolist(), range(1, n - 1)))        # each word once
by_place(["says next", "probability"], list(last_place.values())[:6], lambda i: [
    said(bigrams.logits[0, i]), f"{np.exp(bigrams.logits[0, i].max()):.2f}"])

# %% One layer
heading("One layer: skip-trigrams and their bugs")
say("""A head is built to say keep … in → mind, and keep … at → bay. For the source *keep* its
    effect is a product, f(destination) × g(out). So this head says both words after *in*, and both
    after *at*. Two heads, with a skip-trigram each, say the right one.""")
names = ["<START>", "keep", "in", "at", "mind", "bay"]
_, keep, in_, at, mind, bay = range(6)
trigrams = [(keep, in_, mind), (keep, at, bay)]
machines = {"one head": [trigrams], "two heads": [trigrams[:1], trigrams[1:]]}
contexts = [[hand_built.START, keep, in_], [hand_built.START, keep, at]]
effects = {name: mc.forward(hand_built.skip_trigram_machine(len(names), heads),
                            contexts).logits[:, -1, [mind, bay]]         # (destination, out)
           for name, heads in machines.items()}
table(["", "logit of mind", "of bay"], [
    [f"{name}, keep … {word}", *(f"{logit:.0f}" for logit in row)]
    for name, effect in effects.items() for word, row in zip(("in", "at"), effect)])

# %% Two layers, a virtual head
heading("Two layers: two heads that look one back make a virtual head")
say("""At each place, head 0.0 writes which word came before it, and the values of head 1.0 read
    that. This is V-composition. 1.0 looks one back too. So both together act as one head, a virtual
    head, whose pattern is the product A^1.0 A^0.0: it looks two back. Its circuit is W_OV^1.0
    W_OV^0.0. The path through both is called 0.0→1.0.""")
say("Look at the last column: it is the word two lines above.")
two_back = hand_built.two_back(d_vocab, n)
acts = mc.forward(two_back, tokens)
path = {path.label: path for path in mc.expand_logits(two_back, tokens, acts.pattern)}["0.0→1.0"]
by_place(["0.0 looks at", "0.0→1.0 looks at", "says"], range(max(0, n - 6), n), lambda i: [
    looks_at(acts.pattern[0, 0, 0, i]), looks_at(path.A[0, i]), said(acts.logits[0, i])])

# %% Two layers, induction
heading("Two layers: induction, [a][b] … [a] → [b]")
say("""An induction head finds an earlier copy of the present word, and says what came next then. No
    head of a single layer can: it would have to know a source by the word before it. It can be
    built in two ways.""")
say("""By keys: 0.0 looks one back, and writes into each place which word came before it. The keys
    of 1.0 read that (K-composition), and its query is the present word. So 1.0 looks right after an
    earlier copy.""")
say("""By pointers: 0.0 looks at the earlier copy, and writes the place where it stands. The query
    of 1.0 reads that (Q-composition), and asks for the next place. This needs positions in the
    residual stream.""")
say("""Both say the same. Places are left out where no copy came before: there 1.0 looks at
    <START>.""")
induction = {"by keys": hand_built.induction_by_k_composition(d_vocab, n),
             "by pointers": hand_built.induction_by_pointers(d_vocab, n)}
keys, pointers = (mc.forward(weights, tokens) for weights in induction.values())
by_place(["1.0 looks at", "by keys", "by pointers"],
         [i for i in range(1, n) if tokens[0, i] in tokens[0, 1:i]], lambda i: [
             looks_at(keys.pattern[1, 0, 0, i]), said(keys.logits[0, i]),
             said(pointers.logits[0, i])])

# %% The same in weights
heading("The two inductions in their weights")
say("""A composition score is ‖W_QK W_OV‖ / (‖W_QK‖ ‖W_OV‖), where ‖W‖ is the root of the sum of all
    squares. It is the K-score of W_OV of 0.0 and W_QK of 1.0; for Q and V it is alike. It is 0 if
    1.0 does not read at all what 0.0 writes.""")
say("""The matching score asks more: does 1.0, through what 0.0 writes, look for the present word?
    It is Σλ / Σ|λ| of the table W_Eᵀ W_QK W_OV W_E. It is 1 if each word matches itself. Induction
    by keys has it, and copies what it finds.""")
rows = [(name, *(mc.composition_scores(weights, kind)[1, 0, 0, 0] for kind in "QKV"),
         *mc.induction_eigenvalues(weights, (0, 0), (1, 0))) for name, weights in induction.items()]
table(["induction", "Q", "K", "V", "copying", "matching"],
      [[name, *(f"{score:.2f}" for score in scores)] for name, *scores in rows])

# %% The identities
assert np.allclose(np.exp(bigrams.logits[0]), p[:, tokens[0]].T)
assert np.array_equal(acts.logits[0, 2:], np.eye(d_vocab)[tokens[0, :-2]])
assert np.array_equal(path.logits, acts.logits)
for i in range(n):      # the specification: all followers of earlier copies, in equal shares
    after = [j for j in range(1, i + 1) if j > 1 and tokens[0, j - 1] == tokens[0, i]]
    expected = np.eye(d_vocab)[tokens[0, after]].mean(0) if after else np.zeros(d_vocab)
    assert np.allclose(keys.logits[0, i], expected), i
assert np.array_equal(keys.logits, pointers.logits)
assert [np.linalg.matrix_rank(effect) for effect in effects.values()] == [1, 2]
for weights in induction.values():
    assert np.array_equal(mc.rebuild(weights, tokens).logits, mc.forward(weights, tokens).logits)
print("All identities hold.")
