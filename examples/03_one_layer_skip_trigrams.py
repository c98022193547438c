"""One layer: heads that copy, heads that go by position, skip-trigrams and their bugs.

T = Id ⊗ W_U W_E + Σ_h A^h ⊗ (W_U W_OV^h W_E): bigrams, and for each head a table of what a
source does to the next token ("OV") beside a table of who wants it ("QK"). Together they read as
skip-trigrams: [source] … [destination] → [out].

    python examples/03_one_layer_skip_trigrams.py [--text FILE_OR_FOLDER ...]    (about 40 s)

Paper: "One-Layer Attention-Only Transformers".
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # NumPy asks when it loads: slices share cores

import numpy as np

import minicircuits as mc
from minicircuits.circuits.copying import copying_companions
from minicircuits.circuits.hand_built import skip_trigram_machine
from minicircuits.findings.heads import head_table
from minicircuits.terminal import sections as terminal
from minicircuits.terminal.layout import cut, heading, table
from minicircuits.runs import prepare, trained
from minicircuits.training.corpus import spread

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own text")
parser.add_argument("--steps", type=int, default=300, metavar="N", help="of training")
options = parser.parse_args()

print(heading("Training one layer"))
text = prepare(options.text)
show, start = text.tokenizer.show, text.tokenizer.start
weights = trained(1, text, steps=options.steps).astype(float)
H = weights.n_heads
contexts = spread(text.stream, 512, weights.n_ctx, start)               # of the training text
probabilities = text.counts.sum(1) / text.counts.sum()                  # unigram, (v,)
OV = [mc.ov_circuit(weights, 0, head) for head in range(H)]             # LowRank (v, u)
QK = [mc.qk_circuit(weights, 0, head) for head in range(H)]             # LowRank (u, u)

print(heading("The heads: by position, or by token?"))
print("""  A head goes by position if its pattern is the same in every text (`by pos`
  near 1); `main offset` is where it looks then: −1 is the token before.
""")
tokens = text.validation[:16]
rows = head_table(weights, probabilities, tokens, mc.forward(weights, tokens), start, seed=0)
print(*terminal.head_lines(rows), sep="\n")

print(heading("Copying: does a source raise itself?"))
print(f"""  The score Σλ / Σ|λ| of the OV circuit: 1 copies, −1 forbids, a random one has
  0 ± {1.5 / weights.d_head:.2f}. Beside it what it may hide: how many tokens are their own
  strongest output, or in their own first ten. Last row: ranks add, copying may.
""")
circuits = {f"0.{head}": circuit for head, circuit in enumerate(OV)} | {"all together": sum(OV)}
copies = {name: (circuit.rank(), mc.copying_score(circuit), *copying_companions(circuit)[1:])
          for name, circuit in circuits.items()}
print(*table(list(copies), [
    ("head", str), ("rank", lambda name: str(copies[name][0])),
    ("copying", lambda name: f"{copies[name][1]:.2f}"),
    ("own strongest", lambda name: f"{copies[name][2]:.0%}"),
    ("in own ten", lambda name: f"{copies[name][3]:.0%}")]), sep="\n")

print(heading("Skip-trigrams that stand in the text"))
head = min(rows, key=lambda row: row["by_position"])["head"]             # goes by token
print(f"  Of head 0.{head}, which goes by position least. Read off the weights: sources that")
print("  someone wants and that raise something. Then looked up: how often the text has")
print("  the three, and the place where the head helps most: how far back the source")
print("  is, and the probability of the third with and without the head.\n")
found = []
for entry in mc.skip_trigrams(weights, 0, head, probabilities, n_sources=60, k=6):
    for d, out in ((int(d), int(o)) for d in entry.destinations for o in entry.outs):
        places = mc.occurrences(weights, contexts, 0, head, entry.source, d, out)
        if places and places[0].destination - places[0].source > 1:
            found.append((entry.source, d, out, len(places), places[0]))
found.sort(key=lambda row: row[-1].without - row[-1].probability)
print(*table(found[:8], [
    ("source … destination → out", lambda row: cut(
        f"{show(row[0])} … {show(row[1])} → {show(row[2])}", 36)),
    ("times", lambda row: str(row[3])),
    ("back", lambda row: str(row[4].destination - row[4].source)),
    ("p", lambda row: f"{row[4].probability:.2f}"),
    ("without", lambda row: f"{row[4].without:.2f}")]), sep="\n")

print(heading("Bugs: what a head must say as well"))
print("""  For one source a head's effect is QK[destination] × OV[out]. If it has learned
  two skip-trigrams of a source it also does the two crossed ones. Look at the
  right column: combinations that the text never has, and the head raises all
  the same.
""")
wrong = sorted((bug for source in dict.fromkeys(row[0] for row in found)
                for bug in mc.bugs(weights, contexts, 0, head, source)[:1]),
               key=lambda bug: -bug.strength)[:5]


def pair(source, destination, out):
    return cut(f"{show(source)} … {show(destination)} → {show(out)}", 34)


for bug in wrong:
    print(f"  {pair(bug.source, *bug.right[0]):<36}also: {pair(bug.source, *bug.wrong)}")
    print(f"  {pair(bug.source, *bug.right[1])}\n")

print(heading("A second head avoids them"))
print("""  keep … in mind, keep … at bay. Told both, one head has rank 1 in (destination,
  out) and says all four; two heads have rank 2. Look at the zeros.
""")
keep, in_, at, mind, bay = range(1, 6)
told = [(keep, in_, mind), (keep, at, bay)]
machines = {"one head": [told], "two heads": [told[:1], told[1:]]}
effects = {name: mc.forward(skip_trigram_machine(6, heads), [[0, keep, in_], [0, keep, at]])
           .logits[:, -1, [mind, bay]] for name, heads in machines.items()}
print(*table([(f"{name}, keep … {word}", *row) for name, effect in effects.items()
              for word, row in zip(("in", "at"), effect)], [
    ("", lambda row: row[0]), ("mind", lambda row: f"{row[1]:.0f}"),
    ("bay", lambda row: f"{row[2]:.0f}")]), sep="\n")

tokens = text.validation[:4]
acts = mc.forward(weights, tokens)
one_by_one = [A @ circuit.columns(tokens) for A, circuit in zip(
    acts.pattern[0].swapaxes(0, 1), OV)]                                 # A ⊗ (W_U W_OV W_E)
assert mc.relative_error(mc.direct_path(weights).columns(tokens) + sum(one_by_one),
                         acts.logits) < 1e-12
for circuit in OV:
    values = np.linalg.eigvals(circuit.B @ circuit.A)                    # small: d_head × d_head
    assert abs(values.sum().real / abs(values).sum() - mc.copying_score(circuit)) < 1e-9
assert copies["all together"][0] == H * weights.d_head > copies["0.0"][0]
for bug in wrong:                                # raised by the two factors, not in the text
    by_head = np.outer(QK[head].columns(bug.source), OV[head].columns(bug.source))
    assert np.linalg.matrix_rank(by_head[np.ix_(*zip(*bug.right))]) == 1
    assert abs(by_head[bug.wrong] / bug.strength - 1) < 1e-9 and bug.strength > 0
assert [np.linalg.matrix_rank(effect) for effect in effects.values()] == [1, 2]
print("\nAll identities hold.")
