"""A head dump at a real vocabulary: 50,257 tokens, GPT-2's shape, in bounded memory.

Weights are random, but for one skip-trigram written into each head: a needle in two
haystacks of 2.5 billion numbers. No matrix of tokens by tokens is ever held.

    python examples/09_real_vocabulary.py [--text FILE_OR_FOLDER ...]       (about 40 s,
    and on busy cores minutes; --heads 1 --tokens 2000 for a quick look)

The text gives the tokens their names, by frequency, and their probabilities; without --text
it is the source of Python's standard library.

Paper: "Interpretation of Skip-Trigrams", and the head dump it refers to.
"""

import argparse
import os
import re
import sys
import time
import tracemalloc
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")      # NumPy asks when it loads: tiles share cores

import numpy as np

import minicircuits as mc
from minicircuits.terminal.layout import cut, heading, table
from minicircuits.terminal.progress import watched
from minicircuits.training.corpus import read_texts, standard_library

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own words")
parser.add_argument("--heads", type=int, default=6, metavar="N", help="of GPT-2's 12 (default 6)")
parser.add_argument("--tokens", type=int, default=50_257, metavar="N", help="for a quicker look")
options = parser.parse_args()

d_vocab, d_model, d_head = options.tokens, 768, 64
tracemalloc.start()
counts = Counter(word for text in (read_texts(options.text) if options.text
                                   else standard_library())
                 for word in re.findall(r"\w+|[^\w\s]", text.decode(errors="replace")))
common = counts.most_common(d_vocab)
names = [word for word, _ in common] + [f"<{u}>" for u in range(len(common), d_vocab)]
probabilities = np.ones(d_vocab)                        # what the text lacks counts as seen once
probabilities[:len(common)] = [count for _, count in common]
probabilities /= probabilities.sum()

rng = np.random.default_rng(0)
weights = mc.init_weights(1, options.heads, d_model, d_head, d_vocab, n_ctx=1, positions="none",
                          rng=rng, dtype=np.float32)
needles = rng.choice(1000, (options.heads, 3), replace=False)      # source, destination, out


def number_along(vectors, token):
    """A vector whose product with the token's is 1, and with others' about 0."""
    return vectors[token] / (vectors[token] @ vectors[token])


# One of the 64 numbers a head passes on is set aside for its skip-trigram, and 12 standard
# deviations of the other entries are written there: chance alone reaches 6 somewhere.
for head, (source, destination, out) in enumerate(needles):
    for W in weights.W_Q, weights.W_K, weights.W_V:
        W[0, head, 0] = 0
    weights.W_O[0, head, :, 0] = 0
    v, u = rng.integers(d_vocab, size=(2, 20_000))
    strength = [12 * circuit[v, u].std() for circuit in (mc.qk_circuit(weights, 0, head),
                                                         mc.ov_circuit(weights, 0, head))]
    weights.W_Q[0, head, 0] = strength[0] * number_along(weights.W_E.T, destination)
    weights.W_K[0, head, 0] = weights.W_V[0, head, 0] = number_along(weights.W_E.T, source)
    weights.W_O[0, head, :, 0] = strength[1] * number_along(weights.W_U, out)

print(heading("How large a head is, written out and in factors"))
QK, OV = mc.qk_circuit(weights, 0, 0), mc.ov_circuit(weights, 0, 0)
print(f"""  QK says how much a destination wants a source, OV what the source then does
  to the next token. Look at the two last columns: a circuit has {d_vocab:,}²
  entries, but passes through {d_head} numbers.
""")
print(*table([("QK [destination, source]", QK), ("OV [out, source]", OV)], [
    ("circuit", lambda row: row[0]), ("shape", lambda row: "{:,} × {:,}".format(*row[1].shape)),
    ("written out", lambda row: f"{4 * row[1].shape[0] * row[1].shape[1] / 1e9:.1f} GB"),
    ("in factors", lambda row: f"{(row[1].A.nbytes + row[1].B.nbytes) / 1e9:.3f} GB")]), sep="\n")

print(heading("The head dump: what each head wants most, and does with it"))
print("""  A source scores max QK · max OV · probability^0.1. Per head the three best.
  Look at the first of each: the skip-trigram written into the head, marked *,
  stands out; the others are the largest chances among billions.
""")
dump, begun = [], time.perf_counter()
try:
    for head in watched(range(options.heads), "heads"):
        dump.append(mc.skip_trigrams(weights, 0, head, probabilities, n_sources=3, k=2))
except KeyboardInterrupt:
    sys.exit("interrupted")
seconds = time.perf_counter() - begun
rows = [(head, rank, row) for head, found in enumerate(dump) for rank, row in enumerate(found)]


def words(tokens):
    return " ".join(cut(names[token], 10) for token in tokens)


print(*table(rows, [
    ("head", lambda row: f"0.{row[0]}" if row[1] == 0 else ""),
    ("", lambda row: "*" if row[2].source == needles[row[0], 0] else " "),
    ("source …", lambda row: f"{cut(names[row[2].source], 10)} …"),
    ("destinations", lambda row: words(row[2].destinations)),
    ("outs", lambda row: f"→ {words(row[2].outs)}"),
    ("score", lambda row: f"{row[2].score:.3f}")]), sep="\n")

print(heading("What it took"))
peak = tracemalloc.get_traced_memory()[1] / 1e9
products = 2 * 2 * d_vocab ** 2 * d_head * options.heads
print(f"""  {seconds / len(dump):.1f} s a head. To multiply the circuits out takes {products:.0e}
  operations: {products / seconds / 1e9:.0f} a nanosecond, had it done them all. But a source
  is given up as soon as a bound, |a·b| ≤ ‖a‖ ‖b‖, says that it cannot be among
  the best. All arrays together, weights included: at most {peak:.2f} GB.""")

# Every head's first is its own skip-trigram, with its destination and its out.
for found, (source, destination, out) in zip(dump, needles):
    assert (found[0].source, found[0].destinations[0], found[0].outs[0]) == (
        source, destination, out)
# A score is what its definition says, from columns written out; and of sources drawn at random,
# with those named, none that is missing from the table scores as much as one that is in it.
for head, found in enumerate(dump):
    named = [row.source for row in found]
    some = np.unique(np.append(named, rng.integers(d_vocab, size=200)))
    wanted, raised = (circuit(weights, 0, head).columns(some).max(1)
                      for circuit in (mc.qk_circuit, mc.ov_circuit))
    scores = np.where((wanted > 0) & (raised > 0), wanted * raised * probabilities[some] ** 0.1, 0)
    listed = np.isin(some, named)
    assert np.allclose(scores[listed], [row.score for row in sorted(found)], rtol=1e-5)
    assert scores[~listed].max() <= scores[listed].min() * (1 + 1e-5)
    first = found[0]                # its destinations and outs, element by element
    QK, OV = mc.qk_circuit(weights, 0, head), mc.ov_circuit(weights, 0, head)
    assert np.allclose(QK[first.destinations, first.source], first.destination_scores, rtol=1e-4)
    assert np.allclose(OV[first.outs, first.source], first.out_logits, rtol=1e-4)
assert peak < 1
print("\nAll identities hold.")
