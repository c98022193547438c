"""No layers: all a model without attention can learn is which token follows which.

T = W_U W_E, a table with a logit for every pair of tokens, through d_model dimensions. A little
training on text brings it near the text's own bigram statistics.

    python examples/01_zero_layer_bigrams.py [--text FILE_OR_FOLDER ...]    (about 30 s)

Paper: "Zero-Layer Transformers".
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # NumPy asks when it loads: slices share cores

import numpy as np
from scipy.special import log_softmax, softmax

import minicircuits as mc
from minicircuits.circuits.hand_built import bigram_model
from minicircuits.terminal.layout import cut, heading, table
from minicircuits.runs import train_in_memory
from minicircuits.training.bigrams import (bigram, count_bigrams, counted_loss, fit_zero_layer,
                                           unigram, zero_layer_loss)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="your own text")
parser.add_argument("--steps", type=int, default=250, metavar="N", help="of training")
options = parser.parse_args()

text = mc.load_text(options.text)
show, start, d_vocab = text.tokenizer.show, text.tokenizer.start, text.tokenizer.d_vocab

print(heading("Training W_U W_E"))
print(f"  {text.size / 1e6:.1f} MB of text, {d_vocab} tokens. Look at the first loss: who knows")
print(f"  nothing pays ln {d_vocab} = {np.log(d_vocab):.3f} nats a token.\n")
weights = train_in_memory(0, text, steps=options.steps).astype(float)
T = mc.direct_path(weights)                                              # LowRank (v, u)

print(heading("What comes next, by the model and by counting"))
print("""  A column of W_U W_E, through a softmax, is the model's guess after a token.
  Look at how near its three likeliest next tokens are to the text's.
""")
counted = text.counts.sum(0)                     # how often each token had a next one
common = [u for u in np.argsort(-counted, kind="stable")
          if u != start and sum(map(str.isalpha, show(u))) >= 2][:8]
p_model, p_text = softmax(T.AB, axis=0), text.counts / np.maximum(counted, 1)


def likeliest(p):
    return " ".join(f"{cut(show(v), 8)} {p[v]:.2f}" for v in np.argsort(-p, kind="stable")[:3])


print(*table(common, [("after", lambda u: cut(show(u), 12)),
                      ("the model says", lambda u: likeliest(p_model[:, u])),
                      ("the text has", lambda u: likeliest(p_text[:, u]))]), sep="\n")

print(heading("How well, in nats per token of held-out text"))
ahead = count_bigrams(text.validation, d_vocab)
exact = bigram_model(np.log(bigram(text.counts)))
losses = {"knows nothing: ln d_vocab": np.log(d_vocab),
          "unigram counts: the token's own frequency": counted_loss(unigram(text.counts), ahead),
          "this model": float(mc.loss(weights, text.validation)),
          "bigram counts, interpolated": counted_loss(bigram(text.counts), ahead),
          "the same as W_U W_E, d_model = d_vocab": float(mc.loss(exact, text.validation))}
print(f"""  A model without layers approaches the bigram counts and cannot do better: it
  sees the present token alone. The counts as a model of their own need d_model
  = {d_vocab} dimensions.
""")
print(*table(list(losses.items()), [("", lambda row: row[0]),
                                    ("loss", lambda row: f"{row[1]:.3f}")]), sep="\n")

print(heading("Why it cannot be exact: the rank"))
log_p = log_softmax(T.AB, axis=0)                # T up to a constant per column
reached = zero_layer_loss(weights.W_U, weights.W_E, text.counts)[0]
best = fit_zero_layer(text.counts, weights.d_model, np.random.default_rng(0), iterations=60)
print(f"  W_U W_E has {d_vocab}² entries and passes through {weights.d_model} dimensions.")
print("  Look at the losses on its training text: what counts reach is out of reach.\n")
print(*table([("rank of W_U W_E", T.rank()), ("loss of this model", f"{reached:.3f}"),
              ("the best that another optimizer found at this rank", f"{best:.3f}"),
              ("no limit on the rank: the counts themselves",
               f"{counted_loss(p_text, text.counts):.3f}")],
             [("", lambda row: row[0]), ("", lambda row: str(row[1]))])[1:], sep="\n")

logits = mc.forward(weights, text.validation).logits
assert mc.relative_error(T.columns(text.validation), logits) < 1e-12     # T t is the model
present, swapped = text.validation[:, 64], text.validation[:, ::-1]
assert mc.relative_error(logits[:, ::-1], mc.forward(weights, swapped).logits) < 1e-12  # no order
assert T.rank() == weights.d_model < d_vocab
assert np.allclose(softmax(log_p, axis=0), p_model) and not np.allclose(log_p, T.AB)
assert abs(losses["the same as W_U W_E, d_model = d_vocab"]
           / losses["bigram counts, interpolated"] - 1) < 1e-9
assert counted_loss(p_text, text.counts) < min(reached, best)            # the optimum: the counts
assert losses["this model"] < losses["knows nothing: ln d_vocab"]
print("\nAll identities hold.")
