"""No layers: all a model without attention can learn is which token follows which.

T = W_U W_E, a table with a logit for every pair of tokens, through d_model dimensions. A little
training on text brings it near the text's own bigram statistics.

    python examples/01_zero_layer_bigrams.py [--text FILE_OR_FOLDER ...] [--steps N]

Paper: "Zero-Layer Transformers".
"""
# %% The text
from preamble import heading, options, say, table, train
import numpy as np
from scipy.special import softmax

import minicircuits as mc
from minicircuits.circuits.hand_built import bigram_model
from minicircuits.terminal.layout import cut, size
from minicircuits.training.bigrams import (bigram, count_bigrams, counted_loss, fit_zero_layer,
                                           unigram, zero_layer_loss)

chosen = options(__doc__, steps=250)
text = mc.load_text(chosen.text)
show, start, d_vocab = text.tokenizer.show, text.tokenizer.start, text.tokenizer.d_vocab

# %% Training
heading("Training W_U W_E")
say(f"""The text has {size(text.size)}. It is cut into tokens: {d_vocab} pieces of words that
    often occur. The model gives each token a probability of coming next. Its loss is −ln of the
    probability of the token that did come, on average; the unit is called a nat.""")
say(f"""Look at the first loss. A model that knows nothing gives all tokens the same probability,
    and pays ln {d_vocab} = {np.log(d_vocab):.3f} nats per token.""")
weights = train(0, text, chosen.steps)
T = mc.direct_path(weights)                                              # LowRank (v, u)

# %% What comes next
heading("What comes next, by the model and by counting")
say("""A pair of tokens in a row is called a bigram. A column of W_U W_E, through a softmax, is the
    model's guess of what follows a token. Beside it is how often the text has what next. In a
    token, ␣ is a space and \\n the end of a line. Look how near the two likeliest are.""")
counted = text.counts.sum(0)                     # how often each token had a next one
common = [u for u in np.argsort(-counted, kind="stable")
          if u != start and sum(map(str.isalpha, show(u))) >= 2][:8]
p_model, p_text = softmax(T.AB, axis=0), text.counts / np.maximum(counted, 1)


def likeliest(p):
    return " ".join(f"{cut(show(v), 8)} {p[v]:.2f}" for v in np.argsort(-p, kind="stable")[:2])


table(["after", "the model says", "the text has"],
      [[cut(show(u), 12), likeliest(p_model[:, u]), likeliest(p_text[:, u])] for u in common])

# %% How well
heading("How well, on text that was held out")
say("""Held-out text is text that the model was not trained on. There counts of bigrams are mixed
    with counts of single tokens, since some bigrams of the text were never counted. Look at the
    model's loss: on a long text it approaches that of the bigrams. It cannot be much less, because
    a model without layers sees the present token alone.""")
ahead = count_bigrams(text.validation, d_vocab)
exact = bigram_model(np.log(bigram(text.counts)))
losses = {"a model that knows nothing": np.log(d_vocab),
          "counts of single tokens": counted_loss(unigram(text.counts), ahead),
          "this model": float(mc.loss(weights, text.validation)),
          "counts of bigrams, mixed": counted_loss(bigram(text.counts), ahead),
          f"the same written as W_U W_E, d_model = {d_vocab}":
              float(mc.loss(exact, text.validation))}
table(["", "loss, nats"], [[name, f"{loss:.3f}"] for name, loss in losses.items()])

# %% The rank
heading("Why it cannot be exact: the rank")
say(f"""W_U W_E has {d_vocab}² entries, but passes through d_model = {weights.d_model} dimensions.
    That is its rank: how many dimensions a matrix keeps apart. Now the losses are those on the
    training text. No model of this rank was found that reaches the counts.""")
reached = zero_layer_loss(weights.W_U, weights.W_E, text.counts)[0]
best = fit_zero_layer(text.counts, weights.d_model, np.random.default_rng(0), iterations=60)
limit = counted_loss(p_text, text.counts)
table(["", "rank", "loss, nats"], [
    ["this model", T.rank(), f"{reached:.3f}"],
    ["the best that another optimizer found", weights.d_model, f"{best:.3f}"],
    ["the counts themselves", "any", f"{limit:.3f}"]])

# %% The identities
logits = mc.forward(weights, text.validation).logits
assert mc.relative_error(T.columns(text.validation), logits) < 1e-12     # T t is the model
swapped = text.validation[:, ::-1]                                       # it sees no order
assert mc.relative_error(logits[:, ::-1], mc.forward(weights, swapped).logits) < 1e-12
assert T.rank() == weights.d_model < d_vocab
*_, by_counts, by_table = losses.values()
assert abs(by_table / by_counts - 1) < 1e-9
assert limit < min(reached, best)                                        # the optimum: the counts
print("All identities hold.")
