"""Circuits written by hand: bigrams, two-back, induction by keys and by pointers, skip-trigrams.

Nothing is trained. Each circuit does one thing exactly, so its patterns are 0, 1 or 1/m and its
logits can be read as sentences.

    python examples/04_hand_built_circuits.py [--text FILE_OR_FOLDER ...]   (its first words)

Paper: "Virtual Attention Heads", "How Induction Heads Work", "Skip-Trigram "Bugs"".
"""

import argparse

import numpy as np

import minicircuits as mc
from minicircuits.circuits import hand_built
from minicircuits.terminal.layout import cut, heading, table
from minicircuits.training.bigrams import bigram, count_bigrams
from minicircuits.training.corpus import read_texts

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own words")
options = parser.parse_args()

SENTENCE = "the small cat saw the old dog and the small cat saw"
text = read_texts(options.text)[0].decode(errors="replace") if options.text else SENTENCE
text = [cut(word, 11) for word in text.split()[:16]]
words = ["<START>", *dict.fromkeys(text)]
tokens = np.array([[hand_built.START, *map(words.index, text)]])         # (b, i)
n, d_vocab = tokens.shape[1], len(words)
acts = {}                                        # of each circuit, by name


def said(logits):
    """The words that a row of logits raises most, or – for none."""
    return " ".join(words[v] for v in np.flatnonzero(logits == logits.max()) if logits.any()) or "–"


def looks_at(pattern):
    return " ".join(f"{words[tokens[0, j]]}({j})" for j in np.flatnonzero(pattern))


def shown(places, columns):
    """A table with a row per place of the text."""
    print(*table(list(places), [("place", str), ("word", lambda i: words[tokens[0, i]]), *columns]),
          sep="\n")


print(heading("No layers: W_U W_E is a table of bigrams"))
print("""  Its logits are the logarithms of the text's own next-word probabilities, so
  the likeliest next word is the one that came most often. It sees the present
  word alone.
""")
p = bigram(count_bigrams(tokens, d_vocab), beta=0.01)                    # (v, u)
weights = hand_built.bigram_model(np.log(p))
acts["bigrams"] = mc.forward(weights, tokens)
seen = dict(zip(tokens[0, 1:-1].tolist(), range(1, n - 1)))              # each word once
shown(list(seen.values())[:6], [
    ("says next", lambda i: said(acts["bigrams"].logits[0, i])),
    ("p", lambda i: f"{np.exp(acts['bigrams'].logits[0, i].max()):.2f}")])

print(heading("Two previous-token heads make a virtual head: two back"))
print("""  0.0 and 1.0 each look one place back. Their product A^1.0 A^0.0 looks two
  places back, and W_OV^1.0 W_OV^0.0 carries the word from there. Look at the
  last column: it is the word two lines above. The path 0.0→1.0 is all there is
  (V-composition).
""")
two_back = hand_built.two_back(d_vocab, n)
acts["two_back"] = mc.forward(two_back, tokens)
paths = {path.label: path for path in mc.expand_logits(two_back, tokens, acts["two_back"].pattern)}
shown(range(n - 6, n), [
    ("0.0 looks at", lambda i: looks_at(acts["two_back"].pattern[0, 0, 0, i])),
    ("A^1.0 A^0.0 at", lambda i: looks_at(paths["0.0→1.0"].A[0, i])),
    ("says", lambda i: said(acts["two_back"].logits[0, i]))])

print(heading("Induction, by K-composition and by pointers: [a][b] … [a] → [b]"))
print("""  By keys: 0.0 writes into each word which one came before it; 1.0 looks for
  words that came after the present one. By pointers: 0.0 finds the earlier
  copy, and 1.0 looks one place further on (Q-composition; needs positions in
  the residual stream). Two mechanisms, one behavior: both columns are the same.
  – is resting on <START>.
""")
induction = {"keys": hand_built.induction_by_k_composition(d_vocab, n),
             "pointers": hand_built.induction_by_pointers(d_vocab, n)}
for name, weights in induction.items():
    acts[name] = mc.forward(weights, tokens)
active = [i for i in range(1, n) if tokens[0, i] in tokens[0, 1:i]]      # an earlier copy
shown(active, [
    ("1.0 looks at", lambda i: looks_at(acts["keys"].pattern[1, 0, 0, i])),
    *((f"by {name}", lambda i, name=name: said(acts[name].logits[0, i])) for name in induction)])

print("""
  In weights they differ. Composition scores 0.0→1.0 (0: does not read it at
  all), and the eigenvalue score of what 1.0 copies and of what 0.0→1.0 matches:
""")
rows = [(name, *(mc.composition_scores(weights, kind)[1, 0, 0, 0] for kind in "QKV"),
         *mc.induction_eigenvalues(weights, (0, 0), (1, 0)))
        for name, weights in induction.items()]
print(*table(rows, [("induction by", lambda row: row[0])] + [
    (title, lambda row, column=column: f"{row[column]:.2f}")
    for column, title in enumerate(["Q", "K", "V", "copying", "matching"], start=1)]), sep="\n")

print(heading("Skip-trigrams and their bugs: keep … in mind, keep … at bay"))
print("""  One head that is told both must also do keep … in bay and keep … at mind: for
  one source its effect is a product f(destination) g(out). Look at the diagonal
  and off it: the first head says both words after both, two heads say the right
  one each.
""")
names = ["<START>", "keep", "in", "at", "mind", "bay"]
_, keep, in_, at, mind, bay = range(6)
told = [(keep, in_, mind), (keep, at, bay)]
effects = {}                                                             # (destination, out)
for title, heads in ("one head, told both", [told]), ("two heads, one each", [told[:1], told[1:]]):
    weights = hand_built.skip_trigram_machine(len(names), heads)
    contexts = [[0, keep, destination] for destination in (in_, at)]
    effects[title] = mc.forward(weights, contexts).logits[:, -1, [mind, bay]]
print(*table([(title, names[d], *row) for title, rows in effects.items()
              for d, row in zip((in_, at), rows)], [
    ("", lambda row: row[0]), ("keep …", lambda row: row[1]),
    ("mind", lambda row: f"{row[2]:.0f}"), ("bay", lambda row: f"{row[3]:.0f}")]), sep="\n")

assert np.allclose(np.exp(acts["bigrams"].logits[0]), p[:, tokens[0]].T)
assert np.array_equal(acts["two_back"].logits[0, 2:], np.eye(d_vocab)[tokens[0, :-2]])
assert np.array_equal(paths["0.0→1.0"].logits, acts["two_back"].logits)
for i in range(n):      # the specification: all followers of earlier copies, in equal shares
    after = [j for j in range(1, i + 1) if j > 1 and tokens[0, j - 1] == tokens[0, i]]
    expected = np.eye(d_vocab)[tokens[0, after]].mean(0) if after else np.zeros(d_vocab)
    assert np.allclose(acts["keys"].logits[0, i], expected), i
assert np.array_equal(acts["keys"].logits, acts["pointers"].logits)
assert not np.array_equal(acts["keys"].pattern[0], acts["pointers"].pattern[0])
assert [np.linalg.matrix_rank(effect) for effect in effects.values()] == [1, 2]
for weights in induction.values():
    assert np.array_equal(mc.rebuild(weights, tokens).logits, mc.forward(weights, tokens).logits)
print("\nAll identities hold.")
