"""A model and its texts, each run once; and all that is found, section by section."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from scipy.special import softmax

from minicircuits.behavior.in_context import block_lengths, middle_length, random_blocks
from minicircuits.circuits.biases import without_biases
from minicircuits.circuits.normalization import as_read, norm_of
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.findings import effects
from minicircuits.findings.heads import (folded, head_table, named_heads, ranked_sources,
                                         strongest_pairs, unwatched)
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.transformer import forward
from minicircuits.training.bigrams import fit_zero_layer, zero_layer_loss


MEASURED = 16          # contexts on which what heads and paths do is measured
MEMORY = 2 ** 27       # bytes of activations at a time; what is made of them takes some of that
LARGE = 10_000_000     # parameters from which weights stay as precise as they are


class Study:
    """A model, its `Contexts` and a seed; and the model's runs on them, pairs (tokens, acts).

    held_out : the rectangle of contexts with most tokens, longer contexts cut, at most MEASURED
        of them and at most MEMORY: on it most is measured
    kept : {place in the contexts: (tokens, acts)} of those measured and of the first others, as
        many as fit twice MEMORY
    losses : of every context, (nats, predicted tokens); loss : nats per predicted token, or None
    repeated : START and a block of random tokens, twice, in eight contexts; run when asked for
    block : how many tokens that block has; None where no two blocks of 2 fit a context
    weights : a small model's in float64, so that the exactness shown is that of the algebra
    """

    def __init__(self, model, contexts, seed):
        self.model, self.contexts, self.seed = model, contexts, seed
        self.weights, self.start = model.weights, model.tokenizer.start
        if sum(W.size for _, W in self.weights.items()) <= LARGE:
            self.weights = self.weights.astype(np.float64)
        self.token_probabilities = contexts.probabilities                         # (v,)
        self.block = middle_length(self.weights, self.start)
        self.losses, self.kept, self.ranked = np.zeros((len(contexts.tokens), 2)), {}, {}
        T, chosen = rectangle([len(context) for context in contexts.tokens],
                              lambda T: min(MEASURED, self.room(T)))
        self.measured = chosen                                     # the rows of held_out
        self.held_out = excerpt(*self._measured(chosen, True), slice(None), T)
        rest = [n for n in range(len(contexts.tokens)) if n not in set(chosen)]
        for first in range(0, len(rest), len(chosen)):
            some = rest[first:first + len(chosen)]
            self._measured(some, len(self.kept) + len(some) <= 2 * self.room(T))
        self.notes = list(contexts.notes)
        if (len(chosen), T) != (len(contexts.tokens), max(map(len, contexts.tokens))):
            self.notes.append(f"What heads do is measured on {len(chosen)} of "
                              f"{len(contexts.tokens)} contexts, {T} tokens of each.")

    def run(self, tokens):
        """Every activation on contexts (b, i)."""
        return forward(self.weights, tokens)

    def room(self, T):
        """How many contexts of T tokens have activations that fit MEMORY, at least 1."""
        weights = self.weights
        numbers = (weights.d_vocab + (weights.n_layers + 1) * weights.d_model
                   + weights.n_layers * weights.n_heads * (2 * T + 4 * weights.d_head))
        return max(1, MEMORY // (T * numbers * weights.dtype.itemsize))

    def _measured(self, chosen, keep):
        """(tokens, acts) of some contexts, filled up to the longest; their losses are noted.

        What fills up stands last, and nothing is read from what comes later.
        """
        contexts = [self.contexts.tokens[n] for n in chosen]
        longest = max(map(len, contexts))
        tokens = np.array([np.pad(context, (0, longest - len(context))) for context in contexts])
        acts = self.run(tokens)
        for row, (n, context) in enumerate(zip(chosen, contexts)):
            one = excerpt(tokens, acts, slice(row, row + 1), len(context))
            if keep:
                self.kept[n] = one
            if (predicted := len(context) - 1):
                self.losses[n] = cross_entropy(one[1].logits, one[0]) * predicted, predicted
        return tokens, acts

    @property
    def loss(self):
        nats, predicted = self.losses.sum(0)
        return float(nats / predicted) if predicted else None

    def sources(self, head):
        """The strongest sources of a head (layer, head), ranked when first asked for."""
        if head not in self.ranked:
            self.ranked[head] = ranked_sources(self.matrices, self.token_probabilities, head)
        return self.ranked[head]

    @cached_property
    def matrices(self):
        return without_biases(self.weights)

    @cached_property
    def repeated(self):
        tokens = random_blocks(self.weights.d_vocab, self.block, 2, 8, self.start,
                               np.random.default_rng(self.seed))
        return tokens, self.run(tokens)


def rectangle(lengths, room):
    """T and the places of the first contexts of at least T tokens, with most tokens in all.

    room : function T -> how many there may be. Of equals, the one with the largest T.
    """
    def chosen(T):
        return [n for n, length in enumerate(lengths) if length >= T][:room(T)]
    T = max(set(lengths), key=lambda T: (T * len(chosen(T)), T))
    return T, chosen(T)


def excerpt(tokens, acts, contexts, n=None):
    """(tokens, acts) of some contexts, a slice, and of their first n tokens.

    Nothing runs: what stands later in a context changes nothing that came before.
    """
    cuts = {"b": contexts, "i": slice(n), "j": slice(n)}
    return tokens[contexts, :n], replace(acts, **{
        name: getattr(acts, name)[tuple(cuts.get(axis, slice(None)) for axis in axes.split())]
        for name, axes in acts.axes.items()})


def sections(study, watch=unwatched):
    """Yields (name, finding), a section at a time, as each is found; findings are dicts.

    Together they are what --json writes. watch : as `unwatched`.
    """
    weights, seed = study.weights, study.seed
    yield "losses", losses(study)
    yield "exactness", {"exactness": effects.exactness(
        weights, *excerpt(*study.held_out, slice(1), effects.few_tokens(weights)), watch)}
    if found := folded(weights):
        yield "folded", {"folded": found}
    if weights.n_layers == 0:
        yield "bigrams", bigrams(study)
        return
    rows = head_table(weights, study.sources, *study.held_out, study.start, seed, watch)
    blocks = block_lengths(weights, study.start)
    yield "heads", {"heads": rows, "blocks": blocks}
    if weights.n_layers == 1:
        yield "skip_trigrams", {"heads": rows}
        return
    named = named_heads(rows, blocks)
    induction, previous = named["induction_head"], named["previous_token_head"]
    yield "named", named
    yield "composition", {"composition": strongest_pairs(weights)}
    yield "importance", {"importance": effects.importance_table(
        weights, *study.held_out, watch)}
    if induction is None:
        return
    yield "split", {"split": effects.induction_split(weights, *study.repeated, study.block,
                                                     *induction)}
    yield "removals", effects.removals(weights, *study.held_out, induction, previous, study.start,
                                       seed)
    yield "prediction", {"prediction": effects.prediction(weights, *study.held_out, induction)}


def losses(study):
    """Of the model and of counts on the contexts; and recorded, those it ended its training with.
    """
    metadata, contexts = study.model.metadata, study.contexts
    name = f"this {study.weights.n_layers}-layer model"
    recorded = {} if contexts.held_out else dict(metadata.get("baselines", {}))
    if recorded and metadata.get("log"):
        kept = metadata.get("kept_step", metadata["log"][-1]["step"])
        recorded["this model"] = next(row["validation"] for row in metadata["log"]
                                      if row["step"] == kept)
    return {"losses": contexts.baselines | ({} if study.loss is None else {name: study.loss}),
            "held_out": contexts.held_out, "recorded": recorded}


def bigrams(study):
    """The three likeliest next tokens of frequent words by a model without layers, and by count.

    Also its loss on the bigram counts of the training text, and the least at its d_model.
    """
    weights, counts, show = study.weights, study.contexts.counts, study.model.tokenizer.show
    words = [token for token in strongest(counts.sum(0), len(counts))[0].tolist()
             if sum(map(str.isalpha, show(token))) >= 3 and token != study.start
             and counts[:, token].any()][:8]
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
