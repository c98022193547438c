"""A model and its texts, each run once; and all that is found, section by section."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.special import softmax

from minicircuits.behavior.in_context import random_blocks
from minicircuits.circuits.normalization import as_read, norm_of
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.findings import effects
from minicircuits.findings.heads import best_heads, folded, head_table, strongest_pairs
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.transformer import forward
from minicircuits.training.bigrams import fit_zero_layer, unigram, zero_layer_loss


class Study:
    """A model, a text and a seed; and the model's runs on its texts, pairs (tokens, acts).

    whole : all held-out contexts; held_out : the first 16 of them, on which most is measured
    repeated : START and a block of random tokens, twice, in eight contexts; run when asked for
    weights : the model's in float64, so that the exactness shown is that of the algebra
    """

    def __init__(self, model, text, seed):
        self.model, self.text, self.seed = model, text, seed
        self.weights, self.start = model.weights.astype(np.float64), model.tokenizer.start
        self.token_probabilities = unigram(text.counts)[:, 0]                     # (v,)
        self.whole = text.validation, forward(self.weights, text.validation)
        self.held_out = excerpt(*self.whole, slice(16))

    @cached_property
    def repeated(self):
        tokens = random_blocks(self.weights.d_vocab, effects.BLOCK, 2, 8, self.start,
                               np.random.default_rng(self.seed))
        return tokens, forward(self.weights, tokens)


def excerpt(tokens, acts, contexts, n=None):
    """(tokens, acts) of some contexts, a slice, and of their first n tokens.

    Nothing runs: what stands later in a context changes nothing that came before.
    """
    cuts = {"b": contexts, "i": slice(n), "j": slice(n)}
    return tokens[contexts, :n], replace(acts, **{
        name: getattr(acts, name)[tuple(cuts.get(axis, slice(None)) for axis in axes.split())]
        for name, axes in acts.axes.items()})


def sections(study, watch=iter):
    """Yields (name, finding), a section at a time, as each is found; findings are dicts.

    Together they are what --json writes. watch : as in `head_table`.
    """
    weights, text, seed = study.weights, study.text, study.seed
    tokens, acts = study.whole
    yield "losses", {"losses": {**text.baselines, f"this {weights.n_layers}-layer model":
                                float(cross_entropy(acts.logits, tokens))}}
    yield "exactness", {"exactness": effects.exactness(weights, *excerpt(tokens, acts, slice(1)))}
    if found := folded(weights):
        yield "folded", {"folded": found}
    if weights.n_layers == 0:
        yield "bigrams", bigrams(study)
        return
    rows = head_table(weights, study.token_probabilities, *study.held_out, study.start, seed, watch)
    yield "heads", {"heads": rows}
    if weights.n_layers == 1:
        yield "skip_trigrams", {"heads": rows}
        return
    induction, previous = ((row["layer"], row["head"]) for row in best_heads(rows))
    yield "composition", {"induction_head": induction, "previous_token_head": previous,
                          "composition": strongest_pairs(weights)}
    yield "importance", {"importance": effects.importance_table(weights, *study.held_out)}
    yield "split", {"split": effects.induction_split(weights, *study.repeated, *induction)}
    yield "removals", effects.removals(weights, *study.held_out, induction, previous, study.start,
                                       seed)
    yield "prediction", {"prediction": effects.prediction(weights, *study.held_out, induction)}


def bigrams(study):
    """The three likeliest next tokens of frequent words by a model without layers, and by count.

    Also its loss on the bigram counts of the training text, and the least at its d_model.
    """
    weights, counts, show = study.weights, study.text.counts, study.model.tokenizer.show
    words = [token for token in strongest(counts.sum(0), len(counts))[0].tolist()
             if sum(map(str.isalpha, show(token))) >= 3 and token != study.start][:8]
    entering = weights.W_E.mT                                                        # (u, d)
    read = as_read(weights, entering, norm_of(weights, entering))
    shares = {"model": softmax(read[words] @ weights.W_U.mT, axis=-1),               # (u, v)
              "text": (counts[:, words] / counts[:, words].sum(0)).T}
    return {"next_tokens": [
        {"token": word, **{
            side: [[int(v), float(share)] for v, share in zip(*strongest(by_word[n], 3))]
            for side, by_word in shares.items()}} for n, word in enumerate(words)],
        "training_loss": float(zero_layer_loss(weights.W_U, read.mT, counts)[0]),
        "fitted_loss": fit_zero_layer(counts, weights.d_model, np.random.default_rng(study.seed))}
