"""Which terms matter: the direct path, single heads, virtual heads; and what this cannot see.

All attention patterns are frozen at the model's own. Then the model is run again and again: each
run adds, in every layer, the head outputs that the previous run saved, and saves its own.

    python examples/08_term_importance.py [--text FILE_OR_FOLDER ...]

On the packaged model; or, given a text, on two layers trained on it first (about 45 s).
Paper: "Term Importance Analysis".
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # NumPy asks when it loads: slices share cores

import numpy as np

import minicircuits as mc
from minicircuits.behavior.ablation import loss_of
from minicircuits.terminal.layout import heading, table
from minicircuits.runs import train_in_memory

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="train on your own text")
parser.add_argument("--steps", type=int, default=400, metavar="N", help="of training, with --text")
options = parser.parse_args()

if options.text:
    text = mc.load_text(options.text)
    weights = train_in_memory(2, text, steps=options.steps)
else:
    weights, tokenizer, _ = mc.load_pretrained()
    text = mc.load_text(None, tokenizer, weights.n_ctx)
weights, contexts = weights.astype(float), text.validation[:8]
L, H = weights.n_layers, weights.n_heads

print(heading("The algorithm: run, save, add what was saved"))
print("""  Run 0 adds no head's output, so the logits are the direct path's. Run 1 adds
  what the heads wrote in run 0, where they read embeddings alone: single heads.
  Run 2 adds what they wrote in run 1, so that a head's output has been through
  another: virtual heads of two. Look at the last loss: it is the whole model's.
""")
pattern = mc.forward(weights, contexts).pattern                          # frozen
W_OV = weights.W_O @ weights.W_V                                         # (l, h, d, d)
saved, losses = [0] * L, []
for run in range(L + 1):
    x, outputs = weights.W_E.T[contexts], []                             # (b, i, d)
    for layer in range(L):
        outputs.append(sum(pattern[layer, :, head] @ x @ W_OV[layer, head].T
                           for head in range(H)))
        x = x + saved[layer]                     # what this layer wrote one run ago
    losses.append(loss_of(x @ weights.W_U.T, contexts))
    saved = outputs
found = mc.term_importance(weights, contexts)
names = ["direct path", "single heads", "virtual heads of two"]
rows = [("(knows nothing: ln d_vocab)", "", np.log(weights.d_vocab), "")]
rows += [(name, count, loss, f"{marginal:.3f}") for name, count, loss, marginal in zip(
    names, found.counts, losses, found.marginal)]
print(*table(rows, [("paths added", lambda row: row[0]), ("terms", lambda row: str(row[1])),
                    ("loss, nats", lambda row: f"{row[2]:.3f}"),
                    ("takes off", lambda row: row[3])]), sep="\n")

print(heading("How much is a layer worth? It depends on what is there already"))
print("""  A layer's single heads are added to the direct path alone, or last, after the
  other layer's. Look at the sums: what both layers know is counted twice on the
  left and not at all on the right. The truth for both together is in between.
""")
rows = [(f"layer {layer}", found.given_direct[layer], found.given_others[layer])
        for layer in range(L)]
rows += [("sum", found.given_direct.sum(), found.given_others.sum()),
         ("both together", found.marginal[1], found.marginal[1])]
print(*table(rows, [("single heads of", lambda row: row[0]),
                    ("given the direct path", lambda row: f"{row[1]:.3f}"),
                    ("given the other layer too", lambda row: f"{row[2]:.3f}")]), sep="\n")

print(heading("What it cannot see: heads that steer"))
print("""  A frozen pattern hides what made it. Each head is taken out, once with all
  patterns frozen (what it says), once with later patterns computed without it
  (what it says and steers). Look for a head of layer 0 that costs more in the
  second column: it works through Q- or K-composition.
""")
whole = float(mc.loss(weights, contexts))
heads = list(np.ndindex(L, H))
without = {head: mc.loss_without_heads(weights, contexts, [head]) for head in heads}
previous = mc.previous_token_scores(weights, contexts)
print(*table(heads, [
    ("without", lambda head: f"{head[0]}.{head[1]}"),
    ("frozen", lambda head: f"{without[head].frozen - whole:.3f}"),
    ("recomputed", lambda head: f"{without[head].recomputed - whole:.3f}"),
    ("difference", lambda head: f"{without[head].recomputed - without[head].frozen + 1e-9:.3f}"),
    ("looks one back", lambda head: f"{previous[head]:.2f}")]), sep="\n")

assert np.allclose(losses, found.losses)                 # the algorithm is the library's
assert abs(losses[-1] - whole) < 1e-9                    # all orders: the whole model
assert abs(np.log(weights.d_vocab) - found.marginal.sum() - whole) < 1e-9
assert found.counts == [1, L * H, H * H] and sum(found.counts) == (1 + H) ** L
by_order = mc.logits_by_order(weights, contexts, pattern)
assert abs(loss_of(by_order[:2].sum(0), contexts) - losses[1]) < 1e-9
# Adding layer 0 first and layer 1 second, or the reverse, takes off the same in all.
one_way = found.given_direct[0] + found.given_others[1]
assert abs(one_way - found.marginal[1]) < 1e-9
assert abs(found.given_direct[1] + found.given_others[0] - one_way) < 1e-9
for head in heads:                                       # the last layer steers nothing
    steers = abs(without[head].recomputed - without[head].frozen) > 1e-9
    assert steers == (head[0] < L - 1), head
if not options.text:
    steering = max(heads, key=lambda head: without[head].recomputed - without[head].frozen)
    assert steering == np.unravel_index(previous.argmax(), previous.shape)
print("\nAll identities hold.")
