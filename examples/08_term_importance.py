"""Which terms matter: the direct path, single heads, virtual heads; and what this cannot see.

All attention patterns are frozen at the model's own. Then the model is run again and again: each
run adds, in every layer, the head outputs that the previous run saved, and saves its own.

    python examples/08_term_importance.py [--sentence TEXT | --text FILE ...] [--steps N]

The packaged model, on any text; or, given --steps, two layers trained on the text first.
Paper: "Term Importance Analysis".
"""
# %% The model
from preamble import heading, options, own, say, table, two_layers
import numpy as np

import minicircuits as mc
from minicircuits.model.cross_entropy import cross_entropy

chosen = options(__doc__, text="look at your own text", sentence=True, steps=None)
study = two_layers(chosen)
weights, contexts = study.weights, study.held_out[0][:8]
L, H = weights.n_layers, weights.n_heads

# %% The algorithm
heading("The algorithm: run, save, add what was saved")
say("""All patterns are frozen: they stay as the whole model has them. Run 0 adds no head's output,
    so its logits are those of the direct path. Each run also saves what its heads would write.""")
say("""Run 1 adds what was saved in run 0. There the heads read embeddings alone, so that these are
    single heads. Run 2 adds what was saved in run 1, which has been through another head before:
    these are virtual heads of two. Look at the last loss: it is the whole model's.""")
pattern = mc.forward(weights, contexts).pattern                          # frozen
W_OV = weights.W_O @ weights.W_V                                         # (l, h, d, d)
saved, losses = [0] * L, []
for run in range(L + 1):
    x, outputs = weights.W_E.T[contexts], []                             # (b, i, d)
    for layer in range(L):
        outputs.append(sum(pattern[layer, :, head] @ x @ W_OV[layer, head].T
                           for head in range(H)))
        x = x + saved[layer]                     # what this layer wrote one run ago
    losses.append(cross_entropy(x @ weights.W_U.T, contexts))
    saved = outputs
found = mc.term_importance(weights, contexts)
names = ["direct path", "single heads", "virtual heads of two"]
table(["paths added", "terms", "loss, nats", "takes off"], [
    ["none: it knows nothing", "", f"{np.log(weights.d_vocab):.3f}", ""],
    *([name, count, f"{loss:.3f}", f"{marginal:.3f}"] for name, count, loss, marginal in zip(
        names, found.counts, losses, found.marginal))])

# %% A layer
heading("How much is a layer worth? It depends on what is there already")
say("""The single heads of a layer take off some loss. Usually they take off more if they are added
    to the direct path alone than if those of the other layer are there before them. For both layers
    know some things alike. The left sum counts these twice, and the right sum not at all. The truth
    for both together is in between.""")
table(["single heads of", "after the direct path", "after the other layer too"], [
    [title, f"{direct:.3f}", f"{others:.3f}"] for title, direct, others in [
        *((f"layer {layer}", found.given_direct[layer], found.given_others[layer])
          for layer in range(L)),
        ("sum", found.given_direct.sum(), found.given_others.sum()),
        ("both together", found.marginal[1], found.marginal[1])]])

# %% What it cannot see
heading("What it cannot see: heads that steer")
say("""A frozen pattern hides what made it. So each head is taken out twice. Once all patterns are
    frozen, and once those of later heads are computed anew without it. The first loses what the
    head says, the second also what it makes others look at.""")
say("""Numbers are losses in nats, less that of the whole model. Look for a head of layer 0 that
    costs much more in the second column: it works through Q- or K-composition.""")
whole = float(mc.loss(weights, contexts))
heads = list(np.ndindex(L, H))
without = {head: mc.loss_without_heads(weights, contexts, [head]) for head in heads}
steers = {head: both.recomputed - both.frozen for head, both in without.items()}
previous = mc.previous_token_scores(weights, contexts)
table(["without", "frozen", "computed anew", "difference", "looks one back"], [
    [f"{layer}.{head}", f"{without[layer, head].frozen - whole:.3f}",
     f"{without[layer, head].recomputed - whole:.3f}", f"{steers[layer, head] + 1e-9:.3f}",
     f"{previous[layer, head]:.2f}"] for layer, head in heads])

# %% Resting
heading("Resting on the first token")
say("""Where nothing repeats, heads of layer 1 attend to <START>, the first token, and rest.
    Attention A_ij can be weighed by what it carries, ‖W_O v_j‖. Look how little is moved.""")
moved = mc.value_weighted_patterns(weights, contexts)[1].sum(0)[:, 1:]   # (h, i, j)
rest = [A[..., 0].sum(-1) / A.sum((-2, -1)) for A in (pattern[1].sum(0)[:, 1:], moved)]
table(["head", "of attention", "of what is moved"], [
    [f"1.{head}", *(f"{share[head]:.0%}" for share in rest)] for head in range(weights.n_heads)])

# %% The identities
assert np.allclose(losses, found.losses)                 # the algorithm is the library's
assert abs(losses[-1] - whole) < 1e-9                    # all orders: the whole model
assert abs(np.log(weights.d_vocab) - found.marginal.sum() - whole) < 1e-9
assert found.counts == [1, L * H, H * H] and sum(found.counts) == (1 + H) ** L
assert abs(found.given_direct[0] + found.given_others[1] - found.marginal[1]) < 1e-9
for head in heads:                                       # the last layer steers nothing
    assert (abs(steers[head]) > 1e-9) == (head[0] < L - 1 and contexts.shape[1] > 2), head
if not own(chosen):
    assert max(steers, key=steers.get) == np.unravel_index(previous.argmax(), previous.shape)
    assert (rest[1] < rest[0]).all()
print("All identities hold.")
