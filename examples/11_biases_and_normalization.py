"""Biases and LayerNorm: a model that has them is a model without, and a few numbers to freeze.

Biases become one more dimension that is always 1, and a head that rests. Of LayerNorm, all but a
division goes into the matrices. Frozen as patterns are, it leaves every sum over paths exact.

    python examples/11_biases_and_normalization.py [--sentence TEXT | --text FILE ...]

Of a text of your own it takes the first 12 words. Nothing is trained: what is shown here holds for
any numbers, so these are random.
Paper: "Transformer Overview", "Model Simplifications".
"""
# %% A model with biases and LayerNorm
from preamble import heading, options, say, table, words
import numpy as np
from scipy.special import softmax

import minicircuits as mc
from minicircuits.circuits.expansion import label
from minicircuits.terminal.layout import cut

chosen = options(__doc__, text="your own words", sentence=True)
text = words(chosen, "Potter can fly on a Nimbus 2000 to Hogwarts and Potter can")
text = [cut(word, 9) for word in (5 * text)[:max(5, min(12, len(text)))]]   # 5 words at least
vocabulary = list(dict.fromkeys(text))
tokens = np.array([[vocabulary.index(word) for word in text]])           # (b, i)
n, d_vocab, rng = tokens.shape[1], len(vocabulary), np.random.default_rng(0)
L, H, d, e = 2, 2, 16, 4
weights = mc.init_weights(L, H, d, e, d_vocab, n, "standard", rng)
b_Q, b_K, b_V = (rng.normal(size=(L, H, e)) for _ in range(3))
b_O, b_U = rng.normal(size=(L, d)), rng.normal(size=d_vocab)
w, b = rng.normal(1, 0.3, (L + 1, d)), rng.normal(0, 0.3, (L + 1, d))    # of each norm; the last
eps = 1e-5                                                               # one is before W_U


def layer_norm(x, w, b):
    centered = x - x.mean(-1, keepdims=True)
    sigma = np.sqrt((centered ** 2).mean(-1, keepdims=True) + eps)
    return w * centered / sigma + b


def logits_of(norm):
    """Another model than this package's: with biases, and with `norm` wherever x is read."""
    x = weights.W_E.T[tokens] + weights.W_pos.T[:n]
    for layer in range(L):
        y = norm(x, w[layer], b[layer])
        for head in range(H):
            q, k, v = (y @ W[layer, head].T + bias[layer, head] for W, bias in (
                (weights.W_Q, b_Q), (weights.W_K, b_K), (weights.W_V, b_V)))
            scores = np.where(np.tri(n, dtype=bool), q @ k.mT / np.sqrt(e), -np.inf)
            x = x + softmax(scores, axis=-1) @ v @ weights.W_O[layer, head].T
        x = x + b_O[layer]
    return norm(x, w[-1], b[-1]) @ weights.W_U.T + b_U


# %% Biases
heading("Biases: a dimension that is always 1, and a head that rests")
say("""Let every residual vector have one more number, a 1. Then W_Q y + b_Q is one product: W_Q
    with b_Q as one more column, times (y, 1). So it is with b_K, b_V and b_U. What a layer adds,
    b_O, becomes a head. It has W_Q = W_K = 0, so it looks at all words alike: it rests. It reads
    the 1 and writes b_O. Each row of its pattern sums to 1, so it adds b_O everywhere.""")
biased = mc.fold_biases(weights, b_Q, b_K, b_V, b_O, b_U)
acts = mc.forward(biased, tokens)
with_biases = logits_of(lambda x, w, b: x)
table(["", "d_model", "heads a layer", "logit of the first word"], [
    ["with biases", d, H, f"{with_biases[0, -1, 0]:.12f}"],
    ["folded", biased.d_model, biased.n_heads, f"{acts.logits[0, -1, 0]:.12f}"]])
resting = mc.resting_heads(biased)                                     # one in each layer
say(f"""Look at head {label(resting[:1])} at the fourth word: it looks at all it can see, alike. A
    head that rests has nothing to tell, so tables of heads leave it out.""")
table(["head", *text[:4]], [
    [label(((0, head),)), *(f"{share:.3f}" for share in acts.pattern[0, 0, head, 3, :4])]
    for head in range(H + 1)])

# %% What looks different
heading("What looks different with the larger matrices")
say("""Logits, patterns and paths are the same model's. But what is read off a single matrix reads
    its new column too: here, K-composition scores of pairs of heads. `without_biases` gives the
    matrices alone.""")
pairs = [((0, g), (1, h)) for g in range(H) for h in range(H)]
larger, alone = (mc.composition_scores(W, "K") for W in (biased, mc.without_biases(biased)))
table(["pair", "with b_Q, b_K and b_V", "matrices alone"], [
    [label(pair), *(f"{scores[pair[1] + pair[0]]:.3f}" for scores in (larger, alone))]
    for pair in pairs])

# %% LayerNorm
heading("LayerNorm: all but a division goes into the matrices")
say("""LayerNorm takes the mean from x, divides by σ, multiplies by a gain w and adds b. So a query
    is W_Q (w ⊙ x / σ + b). The gain goes into W_Q, a factor for each column, and W_Q b into b_Q. If
    all that is written has mean 0, so has x: the mean is taken from what writes. What is left is x
    / σ, with one σ for each word and each reading: the root of the mean square of x, plus a little
    (eps). What values have of biases goes into b_O, since rows of patterns sum to 1.""")
normalized = mc.fold_normalization(
    weights, "LN", eps, {"b_Q": b_Q, "b_K": b_K, "b_V": b_V, "b_O": b_O, "b_U": b_U},
    {"ln1_w": w[:-1], "ln1_b": b[:-1], "ln_final_w": w[-1], "ln_final_b": b[-1]})
acts = mc.forward(normalized, tokens)
table(["σ at", *text[-6:]], [
    [name, *(f"{sigma:.2f}" for sigma in row[0, -6:])]
    for name, row in zip(["layer 0", "layer 1", "W_U"], acts.norms)])
with_norms = logits_of(layer_norm)

# %% Frozen
heading("Frozen: patterns A_ij / σ_j, and logits divided by σ_i")
say("""A pattern depends on x, and so does σ. Freeze both: take them as they are on this text. Then
    the logits are linear in what enters layer 0, and multiply out into paths. A head reads x_j /
    σ_j, so its pattern is A_ij / σ_j. At last W_U divides by σ_i. The 1 of the biases is never
    divided.""")
paths = mc.expand_logits(normalized, tokens, acts.pattern, acts.norms)
target = int(tokens[0, 1])
entries = mc.ledger(normalized, tokens, acts.pattern, n - 1, target, acts.norms)
shares = entries.contributions.sum(1)                                    # of each path
order = np.argsort(-np.abs(shares))
say(f"""Here is the logit of *{text[1]}* after the last word, path by path. A path that starts at
    {label(resting[:1])} or {label(resting[1:])} starts with a bias b_O, and with no word. The
    direct path, through no head, has b_U too.""")
starts = ["b_O" if heads and heads[0] in resting else "words" for heads in entries.paths]
table(["path", "starts with", "adds"], [
    *([label(entries.paths[row]), starts[row], f"{shares[row]:+.3f}"] for row in order[:8]),
    ["all others", "", f"{shares[order[8:]].sum():+.3f}"],
    ["the logit", "", f"{shares.sum():+.3f}"]])

# %% Scores
heading("Scores: the same, with a σ on either side")
say("""Queries read x_i / σ_i and keys x_j / σ_j. With both frozen, the scores of a head are a sum
    of four parts as before (example 05). What stands under `neither` has the biases, too.""")
split = mc.split_scores(normalized, tokens, acts.pattern, 1, 0, acts.norms)
scores = acts.scores[1, :, 0]
table(["1.0, last word to", *split._fields, "score"], [
    [f"{text[j]} ({j})", *(f"{part[0, -1, j]:+.2f}" for part in (*split, scores))]
    for j in range(n - 4, n)])

# %% What is not frozen
heading("What this does not tell")
say("""Frozen norms say how the logits came about, not what would happen. Without a head, x is
    another, and each later σ with it. As with patterns, both can be had: `frozen` keeps every
    pattern and σ, `recomputed` lets them follow.""")
losses = {label((head,)): mc.loss_without_heads(normalized, tokens, [head], acts)
          for head in np.ndindex(L, H)}
table(["loss without", "frozen", "recomputed"],
      [[f"head {name}", f"{loss.frozen:.3f}", f"{loss.recomputed:.3f}"]
       for name, loss in losses.items()])

# %% The identities
assert mc.relative_error(mc.forward(biased, tokens).logits, with_biases) < 1e-12
assert mc.relative_error(acts.logits, with_norms) < 1e-12
assert np.allclose(acts.residual[..., :d].mean(-1), 0)                   # all that is written
assert np.allclose(acts.residual[..., d], 1)                             # never divided
assert len(paths) == (1 + H + 1) ** L
assert mc.relative_error(sum(path.logits for path in paths), acts.logits) < 1e-12
assert np.isclose(shares.sum(), acts.logits[0, -1, target])
assert mc.relative_error(sum(split), scores) < 1e-12
assert mc.relative_error(mc.rebuild(normalized, tokens).logits, acts.logits) < 1e-12
alone = mc.without_biases(biased)
assert all(np.array_equal(W, getattr(alone, name)) for name, W in weights.items())
print("All identities hold.")
