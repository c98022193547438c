"""Induction on toy data: one layer fails, two layers learn it, and so does one with smeared keys.

The data are random blocks that repeat: [a][b] … [a] → [b] is all there is to learn. A score of
one layer depends on two tokens and two places, never on a source's neighbor. Smeared keys mix
each key with the one before it, k_j ← (1 − g) k_j + g k_{j−1}, with a learned g for each head.

    python examples/06_toy_induction.py [--sentence TEXT | --text FILE ...]

A text of your own gives the words of the last table.

Paper: "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads".
"""
# %% The data
from preamble import heading, options, say, table, words
import numpy as np
from scipy.special import expit

import minicircuits as mc
from minicircuits.terminal.layout import cut
from minicircuits.training.optimizers import adamw
from minicircuits.training.trainer import next_state

chosen = options(__doc__, text="words to try it on", sentence=True)
text = words(chosen, "Potter can fly on a Nimbus 2000 to Hogwarts")
text = list(dict.fromkeys(cut(word, 12) for word in text))[:16]
START, STEPS, SHARP = 0, 300, 1e5
RECIPE = mc.Recipe(STEPS, muon_rate=0.1, qk_speed=1.0, wait=0)        # for 32 tokens, at their best
h, d, e, n = 2, 32, 16, 33                       # heads, d_model, d_head, context and vocabulary
shape = {"n_heads": h, "d_model": d, "d_head": e, "n_ctx": n, "positions": "shortformer"}
BLOCKS = (7, 11, 16)                             # to measure with


def batch(step):
    """16 contexts: a block of 5 to 16 random tokens, again and again, (b, i)."""
    rng = np.random.default_rng([1, step])
    block = int(rng.integers(5, 17))
    return mc.random_blocks(n, block, -(-(n - 1) // block), 16, START, rng)[:, :n]


# %% Smeared keys
def smeared(weights, g):
    """One layer with smeared keys, as the two layers that it amounts to.

        | x (d) | before (d) | place (2) |       layer 0, not trained: both heads look one
                                                 back and fetch a half of x_{j−1} to `before`;
    layer 1, the one that is: W_K reads (1 − g) x_j + g x_{j−1}. (Positions are not smeared.)
    """
    turn, halves, read = 2 * np.pi / n, np.eye(d).reshape(h, e, d), np.zeros((2, h, e, 2 * d + 2))
    place, back = turn * np.arange(n), [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    W_Q, W_K, W_V, W_O = read, read.copy(), read.copy(), read.mT.copy()
    W_Q[0, :, :2, 2 * d:] = SHARP * np.array(back)       # the place before this one
    W_K[0, :, :2, 2 * d:] = np.eye(2)
    W_V[0, ..., :d], W_O[0, :, d:2 * d] = halves, halves.mT
    W_Q[1, ..., :d], W_V[1, ..., :d], W_O[1, :, :d] = weights.W_Q[0], weights.W_V[0], weights.W_O[0]
    W_K[1, ..., :d], W_K[1, ..., d:2 * d] = (1 - g) * weights.W_K[0], g * weights.W_K[0]
    return mc.Weights(
        W_E=np.pad(weights.W_E, ((0, d + 2), (0, 0))), W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=W_O,
        W_pos=np.vstack([weights.W_pos, np.zeros((d, n)), np.cos(place), np.sin(place)]),
        W_U=np.pad(weights.W_U, ((0, 0), (0, d + 2))), positions=weights.positions)


def smeared_backward(two_layers, weights, g):
    """The gradients of the one layer and of g, from those of the two."""
    G, (to_k, to_before) = two_layers, np.split(two_layers.W_K[1, ..., :2 * d], 2, axis=-1)
    return mc.Weights(
        W_E=G.W_E[:d], W_pos=G.W_pos[:d], W_Q=G.W_Q[1:, ..., :d], W_V=G.W_V[1:, ..., :d],
        W_O=G.W_O[1:, :, :d], W_K=((1 - g) * to_k + g * to_before)[None], W_U=G.W_U[:, :d],
        positions=weights.positions), ((to_before - to_k) * weights.W_K[0]).sum((1, 2))


# %% Training
def trained(n_layers, smear=False):
    """Weights after STEPS, without what smears, and the g of each head."""
    state = mc.first_state(RECIPE, mc.first_weights(
        n_layers, n, shape=shape).astype(float))
    gate, moments = np.zeros(h), (np.zeros(h), np.zeros(h))              # g = sigmoid(gate)
    while state.step < STEPS:
        g, weights = expit(gate)[:, None, None], state.weights
        model = smeared(weights, g) if smear else weights
        _, gradients = mc.loss_and_gradients(model, batch(state.step), slices=1)
        if smear:
            gradients, dg = smeared_backward(gradients, weights, g)
            gate, moments = adamw(gate, dg * expit(gate) * expit(-gate), moments, state.step + 1,
                                  0.02, 0.9, 0.98, 0)
        state = next_state(state, gradients)
    return state.weights, expit(gate)


one_layer, g = trained(1, smear=True)
models = {"one layer": trained(1)[0], "two layers": trained(2)[0],
          "one, smeared": smeared(one_layer, g[:, None, None])}

# %% What they learned
heading(f"After {STEPS} steps: blocks that repeat, in order and shuffled")
say("""Three models were trained: one layer, two layers, and one layer with smeared keys. Its keys
    are mixed with the keys one place before, so that a key also tells which token came before.""")
say("""Prefix matching, as in example 05, is the attention of the best head on what followed the
    earlier copy. Look at it first: for one layer it is about 0. Then look at the loss on a second
    block. A model that knows nothing pays ln 32 = 3.47 nats per token. One that knows which tokens
    are in the block still pays about 2. If the second block comes shuffled, induction is misled,
    and pays dearly.""")
rows = []
for name, weights in models.items():
    prefix = mc.induction_scores(weights, START, np.random.default_rng(2), blocks=BLOCKS)
    losses = np.mean([mc.ordered_versus_shuffled(weights, START, np.random.default_rng(3), block)
                      for block in BLOCKS], axis=0)
    rows.append([name, prefix[-1].max(), *losses])
table(["model", "prefix matching", "ordered", "shuffled", "gap"],
      [[name, *(f"{number:.2f}" for number in numbers)] for name, *numbers in rows])
say(f"The smeared keys learned g = {g[0]:.2f} and {g[1]:.2f}: the share of the key before.")

# %% On words
heading("On words: what comes next, the second time")
say("""Any words will do, since the models were trained on any tokens. The sentence is read twice,
    and each model is asked, the second time, for the next word. A dot means that it is right.""")
tokens = np.array([[START, *range(1, len(text) + 1), *range(1, len(text) + 1)]])
guesses = {name: mc.forward(weights, tokens).logits[0].argmax(-1)
           for name, weights in models.items()}
if len(text) == 1:
    say("A single word has no next one: give two.")
names = dict(enumerate(text, start=1))                                   # of tokens
table(["after", *models], [[names[tokens[0, i]], *(
    "·" if said[i] == tokens[0, i + 1] else names.get(said[i], "?") for said in guesses.values())]
    for i in range(len(text) + 1, 2 * len(text))])

# %% The identities
# Smeared keys are what those two layers say: q·((1 − g) k_j + g k_{j−1}), k without places.
tokens = batch(STEPS)
acts = mc.forward(models["one, smeared"], tokens)
x, p = one_layer.W_E.T[tokens], one_layer.W_pos.T[:n]
before, g = np.concatenate([x[:, :1], x[:, :-1]], axis=1), g[:, None, None]
q, k = (x + p)[:, None] @ one_layer.W_Q[0].mT, (x + p)[:, None] @ one_layer.W_K[0].mT
keys = (1 - g) * k + g * (before[:, None] @ one_layer.W_K[0].mT)
assert mc.relative_error(q @ keys.mT / np.sqrt(e), acts.scores[1]) < 1e-12
step = 1e-5                              # and dg is the derivative, by central differences
_, gradients = mc.loss_and_gradients(models["one, smeared"], tokens)
dg = smeared_backward(gradients, one_layer, g)[1]
numeric = [(mc.loss(smeared(one_layer, g + step * one), tokens)
            - mc.loss(smeared(one_layer, g - step * one), tokens)) / (2 * step)
           for one in np.eye(h)[:, :, None, None]]
assert np.allclose(dg, numeric, rtol=1e-4, atol=1e-8)
for name, prefix, ordered, _, gap in rows:
    failed, learned = prefix < 0.2 and ordered > 2, prefix > 0.4 and ordered < 0.5 < 3 < gap
    assert failed if name == "one layer" else learned
print("All identities hold.")
