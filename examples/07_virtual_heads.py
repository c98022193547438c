"""Virtual heads: two heads one after the other, with a pattern and a circuit of their own.

A virtual head is a term (A^h A^g) ⊗ (W_U W_OV^h W_OV^g W_E): V-composition. There are many, each
small. Induction heads are not among them: those are single heads that look by K-composition.

    python examples/07_virtual_heads.py [--sentence TEXT | --text FILE ...] [--steps N]

The packaged model, on any text; or, given --steps, two layers trained on the text first.
Paper: "Virtual Attention Heads", "Term Importance Analysis".
"""
# %% The model
from preamble import heading, options, own, say, table, two_layers
import numpy as np

import minicircuits as mc
from minicircuits.behavior.patterns import (after_earlier_copies, attention_on, earlier_copies,
                                            previous_token)
from minicircuits.circuits.expansion import label
from minicircuits.model.attention import causal_softmax
from minicircuits.model.cross_entropy import cross_entropy

chosen = options(__doc__, text="look at your own text", sentence=True, steps=None)
study = two_layers(chosen)
weights, start, (contexts, _) = study.weights, study.start, study.held_out
block, rng = 29, np.random.default_rng(0)
blocks = mc.random_blocks(weights.d_vocab, block, 2, 16, start, rng)
acts = mc.forward(weights, blocks)

# %% One virtual head
heading("One virtual head: patterns multiply, and so do circuits")
previous = (0, int(mc.previous_token_scores(weights, blocks)[0].argmax()))
induction = (1, int(mc.prefix_matching_scores(weights, blocks)[1].argmax()))
g, h = label((previous,)), label((induction,))
say(f"""On random tokens that come twice, {h} looks at what followed the earlier copy of the present
    token, and {g} looks one back. The virtual head {g}→{h} goes both ways. Look at its row: two
    hops end on the earlier copy itself, where neither head looks alone.""")
path, = (path for path in mc.expand_logits(weights, blocks, acts.pattern)
         if path.heads == (previous, induction))
A_g, A_h = (acts.pattern[layer, :, head] for layer, head in (previous, induction))
followers = after_earlier_copies(blocks)
masks = {"one back": previous_token(blocks), "earlier copy": earlier_copies(blocks),
         "what followed it": followers}
looks = {name: [float(attention_on(A[None, :, None], mask)[0, 0]) for mask in masks.values()]
         for name, A in ((g, A_g), (h, A_h), (path.label, path.A))}
table(["attention of", *masks],
      [[name, *(f"{share:.2f}" for share in shares)] for name, shares in looks.items()])

# %% All of them
heading("All of them")
say("""Each line is a virtual head. `takes off` is the loss on text without this one path, less the
    loss with it. Meanwhile all patterns are frozen: they stay as they were. V is the V-composition
    score of its two heads, less that of random matrices. `copying` is the copying score of its
    circuit. The last column is the attention of its first head on itself.""")
say("""Look how few matter. If the first head looks at itself, a virtual head looks just where its
    second head does: it only reads more.""")
virtual = mc.virtual_heads(weights, contexts)
V = mc.composition_excess(weights, "V")
on_itself = mc.offset_profiles(weights, contexts)[..., 0]                # (l, h): mean A_ii
table(["virtual head", "takes off", "V", "copying", "first head on itself"], [
    [label(row.heads), f"{row.importance:.4f}", f"{V[row.heads[1] + row.heads[0]]:+.3f}",
     f"{row.copying:.2f}", f"{on_itself[row.heads[0]]:.2f}"] for row in virtual[:8]])
say(f"All {len(virtual) - 8} others together: {sum(row.importance for row in virtual[8:]):.4f}.")

# %% Not the induction heads
heading("Virtual heads are not the induction heads")
say(f"""Without virtual heads, {h} still looks at what followed the earlier copy, since they act
    after patterns are settled. Its scores decide where that is. They are a sum of four parts
    (example 05). Here parts are left out, and softmax* is applied; all else is frozen.""")
say("""Without heads on the key side there is no induction, and with them alone there is: that is
    K-composition. The last line says whether queries need heads too. The loss is that on the second
    block, in nats.""")


def with_scores(scores):
    """Logits and patterns of the model in which the induction head has these scores."""
    pattern = acts.pattern.copy()
    pattern[induction[0], :, induction[1]] = causal_softmax(scores)
    return mc.logits_by_order(weights, blocks, pattern).sum(0), pattern


parts = mc.split_scores(weights, blocks, acts.pattern, *induction)
by_order = mc.logits_by_order(weights, blocks, acts.pattern)
versions = {"whole model": with_scores(sum(parts)),
            "without virtual heads": (by_order[:2].sum(0), acts.pattern),
            "no heads on the key side": with_scores(parts.neither + parts.Q),
            "heads on the key side only": with_scores(parts.K + parts.both),
            "no heads on the query side": with_scores(parts.neither + parts.K)}
results = {name: (attention_on(pattern, followers)[induction],
                  cross_entropy(logits[:, block + 1:], blocks[:, block + 1:]))
           for name, (logits, pattern) in versions.items()}
table(["", "attention there", "loss"],
      [[name, *(f"{number:.2f}" for number in numbers)] for name, numbers in results.items()])

# %% The identities
assert np.allclose(path.A, A_h @ A_g)                                    # later @ earlier
assert mc.relative_error(A_g @ A_h, path.A) > 0.1                        # not the other way round
W = mc.W_OV(weights, *induction).AB @ mc.W_OV(weights, *previous).AB     # likewise
assert mc.relative_error(path.W.AB, weights.W_U @ W @ weights.W_E) < 1e-9
assert path.W.rank() <= weights.d_head                                   # no wider than a head
assert np.allclose(np.tril(path.A).sum(-1), 1)                           # and is a pattern
assert mc.relative_error(versions["whole model"][0], acts.logits) < 1e-9
(whole, loss), (same, _), (without_K, loss_without_K), *_ = results.values()
assert abs(whole - same) < 1e-12
if not own(chosen):                              # what this model is known to have learned
    assert without_K < 0.1 < 0.3 < whole and loss_without_K > loss + 1
    assert looks[path.label][1] > 0.3 > looks[h][1]
print("All identities hold.")
