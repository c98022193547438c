"""Virtual heads: two heads one after the other, with a pattern and a circuit of their own.

A virtual head is a term (A^h A^g) ⊗ (W_U W_OV^h W_OV^g W_E): V-composition. There are many, each
small. Induction heads are not among them: those are single heads that look by K-composition.

    python examples/07_virtual_heads.py [--text FILE_OR_FOLDER ...]

On the packaged model; or, given a text, on two layers trained on it first (about 45 s).
Paper: "Virtual Attention Heads", "Term Importance Analysis".
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # NumPy asks when it loads: slices share cores

import numpy as np

import minicircuits as mc
from minicircuits.behavior.ablation import loss_of
from minicircuits.behavior.patterns import (after_earlier_copies, attention_on, earlier_copies,
                                            previous_token)
from minicircuits.circuits.composition import composition_excess
from minicircuits.circuits.expansion import label
from minicircuits.model.attention import causal_softmax
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
weights, start, contexts = weights.astype(float), text.tokenizer.start, text.validation[:16]
block = 29
blocks = mc.random_blocks(weights.d_vocab, block, 2, 16, start, np.random.default_rng(0))
acts = mc.forward(weights, blocks)

print(heading("One virtual head: patterns multiply, and so do circuits"))
previous = (0, int(mc.previous_token_scores(weights, blocks)[0].argmax()))
induction = (1, int(mc.prefix_matching_scores(weights, blocks)[1].argmax()))
path, = (path for path in mc.expand_logits(weights, blocks, acts.pattern)
         if path.heads == (previous, induction))
g, h = label((previous,)), label((induction,))
patterns = {g: acts.pattern[previous[0], :, previous[1]],
            h: acts.pattern[induction[0], :, induction[1]], path.label: path.A}
places = {"one back": previous_token(blocks), "earlier copy": earlier_copies(blocks),
          "what followed it": after_earlier_copies(blocks)}
looks = {(name, place): float(attention_on(A[None, :, None], mask)[0, 0])
         for name, A in patterns.items() for place, mask in places.items()}
print(f"""  On repeated random tokens: {h} looks at what followed the earlier copy of the
  present token, and {g} looked one back there. Look at the last row: two hops
  end on the earlier copy itself, which neither of them looks at alone.
""")
print(*table(list(patterns), [("attention of", str)] + [
    (place, lambda name, place=place: f"{looks[name, place]:.2f}") for place in places]), sep="\n")

print(heading("All of them"))
print("""  Takes off: nats per token of text that are lost without this one path,
  patterns frozen. V: how much of what the first head writes the second's values
  read, less what random matrices would. Copying: the eigenvalue score of the
  path's circuit. Look at how few matter, and whether their first head looks
  elsewhere at all.
""")
virtual = mc.virtual_heads(weights, contexts)
V = composition_excess(weights, "V")
own = np.trace(mc.forward(weights, contexts).pattern.mean(1), axis1=-2, axis2=-1)
own = own / contexts.shape[1]                                            # (l, h): mean A_ii
print(*table(virtual[:8], [
    ("virtual head", lambda found: label(found.heads)),
    ("takes off", lambda found: f"{found.importance:.4f}"),
    ("V", lambda found: f"{V[found.heads[1] + found.heads[0]]:+.3f}"),
    ("copying", lambda found: f"{found.copying:.2f}"),
    ("first head looks at itself", lambda found: f"{own[found.heads[0]]:.2f}")]), sep="\n")
print(f"  and {len(virtual) - 8} more, together {sum(v.importance for v in virtual[8:]):.4f}")

print(heading("Virtual heads are not the induction heads"))
print("""  Once without any virtual head, once without heads on the key side of the
  scores (no heads on the key side). Look at the attention: virtual heads are
  added after it is settled, so without them induction heads still look where
  they looked.
""")


def versions(tokens):
    """Logits and patterns of the whole model and of two that lack something."""
    pattern = mc.forward(weights, tokens).pattern
    without_K = pattern.copy()
    for head in range(weights.n_heads):
        parts = mc.split_scores(weights, tokens, pattern, 1, head)
        without_K[1, :, head] = causal_softmax(parts.neither + parts.Q)
    by_order = mc.logits_by_order(weights, tokens, pattern)
    return {"whole model": (by_order.sum(0), pattern),
            "without virtual heads": (by_order[:2].sum(0), pattern),
            "no heads on key side": (
                mc.logits_by_order(weights, tokens, without_K).sum(0), without_K)}


on_text, on_blocks = versions(contexts), versions(blocks)
results = {name: (loss_of(on_text[name][0], contexts),
                  loss_of(on_blocks[name][0][:, block + 1:], blocks[:, block + 1:]),
                  attention_on(on_blocks[name][1], places["what followed it"])[induction])
           for name in on_text}
print(*table(list(results.items()), [("", lambda item: item[0])] + [
    (title, lambda item, column=column: f"{item[1][column]:.3f}") for column, title in enumerate(
        ["loss on text", "on a second random block", "attention there"])]), sep="\n")

A_g, A_h = patterns[g], patterns[h]
assert np.allclose(path.A, A_h @ A_g)                                    # later @ earlier
assert mc.relative_error(A_g @ A_h, path.A) > 0.1                        # not the other way round
W = mc.W_OV(weights, *induction).AB @ mc.W_OV(weights, *previous).AB     # likewise
assert mc.relative_error(path.W.AB, weights.W_U @ W @ weights.W_E) < 1e-9
assert path.W.rank() <= weights.d_head                                   # no wider than a head
assert len(virtual) == weights.n_heads ** 2
assert np.allclose(np.tril(path.A).sum(-1), 1)                           # and is a pattern
assert mc.relative_error(on_blocks["whole model"][0], acts.logits) < 1e-9
by_order = mc.logits_by_order(weights, blocks, acts.pattern)
total = sum(path.logits for path in mc.expand_logits(weights, blocks, acts.pattern)
            if path.order == 2)
assert mc.relative_error(total, by_order[2]) < 1e-9
whole, without_virtual, without_K = results.values()
assert whole[2] == without_virtual[2]
if not options.text:                             # what this model is known to have learned
    assert without_K[2] < 0.1 < 0.3 < whole[2] and without_K[1] > whole[1]
    assert looks[path.label, "earlier copy"] > 0.3 > looks[h, "earlier copy"]
print("\nAll identities hold.")
