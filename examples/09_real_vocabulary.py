"""A head dump at a real vocabulary: 50,257 tokens, GPT-2's shape, in bounded memory.

Weights are random, but for one skip-trigram written into each head: a needle in two
haystacks of 2.5 billion numbers. No matrix of tokens by tokens is ever held.

    python examples/09_real_vocabulary.py [--sentence TEXT | --text FILE ...]
        [--heads N] [--tokens N]

The text gives the tokens their names, by frequency, and their probabilities; without one it is
the source of Python's standard library. For a quick look: --heads 1 --tokens 2000.

Paper: "Interpretation of Skip-Trigrams", and the head dump it refers to.
"""
# %% The vocabulary
from preamble import heading, options, own, say, table, texts_of
import re
import time
import tracemalloc
from collections import Counter

import numpy as np

import minicircuits as mc
from minicircuits.terminal.layout import cut
from minicircuits.terminal.progress import watched
from minicircuits.training.text import standard_library

chosen = options(__doc__, text="your own words", sentence=True, heads=6, tokens=50_257)
d_vocab, d_model, d_head = chosen.tokens, 768, 64
tracemalloc.start()                                      # to say how much memory it took
texts = [data for _, data in texts_of(chosen)] if own(chosen) else standard_library()
counts = Counter(word for text in texts
                 for word in re.findall(r"\w+|[^\w\s]", text.decode(errors="replace")))
common = counts.most_common(d_vocab)
names = [word for word, _ in common] + [f"<{u}>" for u in range(len(common), d_vocab)]
seen = [count for _, count in common] + [1] * (d_vocab - len(common))    # the rest counts as once
probabilities = np.array(seen) / sum(seen)

# %% The model, with a skip-trigram written into each head
rng = np.random.default_rng(0)
weights = mc.init_weights(1, chosen.heads, d_model, d_head, d_vocab, n_ctx=1, positions="none",
                          rng=rng, dtype=np.float32)
needles = rng.choice(1000, (chosen.heads, 3), replace=False)       # source, destination, out


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
    strength = [12 * circuit(weights, 0, head)[v, u].std()
                for circuit in (mc.qk_circuit, mc.ov_circuit)]
    weights.W_Q[0, head, 0] = strength[0] * number_along(weights.W_E.T, destination)
    weights.W_K[0, head, 0] = weights.W_V[0, head, 0] = number_along(weights.W_E.T, source)
    weights.W_O[0, head, :, 0] = strength[1] * number_along(weights.W_U, out)

# %% How large a head is
heading("How large a head is, written out and in factors")
say(f"""The QK circuit says how much a destination attends to a source. The OV circuit says what the
    source then adds to the logits (example 03). Each has {d_vocab:,}² entries, but passes through
    {d_head} numbers. So it is kept as a product of two small matrices, its factors. Look at the
    last two columns.""")
table(["circuit", "shape", "written out", "in factors"], [
    [name, "{:,} × {:,}".format(*circuit.shape),
     f"{4 * circuit.shape[0] * circuit.shape[1] / 1e9:.1f} GB",
     f"{(circuit.A.nbytes + circuit.B.nbytes) / 1e9:.3f} GB"]
    for name, circuit in (("QK [destination, source]", mc.qk_circuit(weights, 0, 0)),
                          ("OV [out, source]", mc.ov_circuit(weights, 0, 0)))])

# %% The head dump
heading("The head dump: what each head attends to, and says then")
say("""The score of a source is max QK · max OV · probability^0.1. It is high if some destination
    attends to the source, if that adds to some logit, and if the source is not rare. These are the
    three best of each head. All weights are random, but into each head one skip-trigram was
    written, marked *. Look at the first line of each head: it stands out. The others are the
    largest chances among billions.""")
begun = time.perf_counter()
dump = [mc.skip_trigrams(weights, 0, head, probabilities, n_sources=3, k=2)
        for head in watched(range(chosen.heads), "heads")]
seconds = time.perf_counter() - begun


def words(tokens):
    return " ".join(cut(names[token], 10) for token in tokens)


table(["head", "", "source …", "destinations", "→ outs", "score"], [
    ["" if rank else f"0.{head}", "*" if row.source == needles[head, 0] else "",
     f"{cut(names[row.source], 10)} …", words(row.destinations), f"→ {words(row.outs)}",
     f"{row.score:.3f}"] for head, found in enumerate(dump) for rank, row in enumerate(found)])

# %% What it took
heading("What it took")
peak = tracemalloc.get_traced_memory()[1] / 1e9
tracemalloc.stop()
products = 2 * 2 * d_vocab ** 2 * d_head * chosen.heads
say(f"""A head took {seconds / len(dump):.1f} s. To multiply all circuits out takes {products:.0e}
    operations; that would be {products / seconds / 1e9:.0f} in a nanosecond. But they were not all
    done. A bound, |a·b| ≤ ‖a‖ ‖b‖, says of most sources that they cannot be among the best, and
    these are given up. All arrays together took at most {peak:.2f} GB, weights included.""")

# %% The identities
# Every head's first is its own skip-trigram, with its destination and its out.
for found, needle in zip(dump, needles):
    assert (found[0].source, found[0].destinations[0], found[0].outs[0]) == tuple(needle)
# A score is what its definition says, from columns written out; and of sources drawn at random,
# with those named, none that is missing from the table scores as much as one that is in it.
for head, found in enumerate(dump):
    named = [row.source for row in found]
    some = np.unique(np.append(named, rng.integers(d_vocab, size=200)))
    QK, OV = mc.qk_circuit(weights, 0, head), mc.ov_circuit(weights, 0, head)
    attended, said = (circuit.columns(some).max(1) for circuit in (QK, OV))
    scores = attended.clip(0) * said.clip(0) * probabilities[some] ** 0.1
    listed, first = np.isin(some, named), found[0]
    assert np.allclose(scores[listed], [row.score for row in sorted(found)], rtol=1e-5)
    assert scores[~listed].max() <= scores[listed].min() * (1 + 1e-5)
    assert np.isclose(QK[first.destinations[0], first.source], first.destination_scores[0], 1e-4)
    assert np.isclose(OV[first.outs[0], first.source], first.out_logits[0], 1e-4)
assert peak < 1
print("All identities hold.")
