"""A model and its texts, each run once; and all that is found, section by section."""

from functools import cached_property

import numpy as np
from scipy.special import softmax

from minicircuits.behavior import excerpt
from minicircuits.behavior.in_context import block_lengths, middle_length, random_blocks
from minicircuits.circuits.biases import without_biases
from minicircuits.circuits.normalization import as_read, norm_of
from minicircuits.circuits.skip_trigrams import skip_trigrams, strongest
from minicircuits.findings import effects
from minicircuits.findings.heads import (RANKS, composed, feeders, folded, head_table,
                                         named_heads, strongest_pairs, unwatched)
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.transformer import forward
from minicircuits.training.bigrams import fit_zero_layer, zero_layer_loss
from minicircuits.training.tokenizer import visible


MEASURED = 16          # contexts on which what heads and paths do is measured
MEMORY = 2 ** 27       # bytes of activations at a time; what is made of them takes some of that
LARGE = 10_000_000     # parameters from which weights stay as precise as they are
SOURCES = 4096         # of skip-trigrams after layer 0, where W_E says less of what is read


class Study:
    """A model, its `Contexts` and a seed; and the model's runs on them, pairs (tokens, acts).

    held_out : the rectangle of contexts with most tokens, longer contexts cut, at most MEASURED
        of them and at most MEMORY: on it most is measured; `measured` are their places
    kept : {place in the contexts: (tokens, acts)} of those measured and of the first others, as
        many as fit twice MEMORY
    loss : nats per predicted token of all contexts, or None where there is none
    block : how many random tokens come twice in `repeated`; None where no 2 fit a context
    weights : a small model's in float64, so that the exactness shown is that of the algebra
    """

    def __init__(self, model, contexts, seed):
        self.model, self.contexts, self.seed = model, contexts, seed
        self.weights, self.start = model.weights, model.tokenizer.start
        if sum(W.size for _, W in self.weights.items()) <= LARGE:
            self.weights = self.weights.astype(np.float64)
        self.block = middle_length(self.weights, self.start)
        self.losses, self.kept, self.ranked = [], {}, {}
        lengths = [len(context) for context in contexts.tokens]
        room = self.room(max(lengths))                 # each is run as a whole, then cut
        T, self.measured = rectangle(lengths, min(MEASURED, room))
        self.held_out = excerpt(*self.run(self.measured, True), slice(None), T)
        rest = [n for n in range(len(lengths)) if n not in self.measured]
        for first in range(0, len(rest), len(self.measured)):
            some = rest[first:first + len(self.measured)]
            self.run(some, len(self.kept) + len(some) <= 2 * room)
        predicted = sum(lengths) - len(lengths)
        self.loss = sum(self.losses) / predicted if predicted else None
        self.notes = list(contexts.notes)
        if (len(self.measured), T) != (len(lengths), max(lengths)):
            self.notes.append(f"What heads do is measured on {len(self.measured)} of "
                              f"{len(lengths)} contexts, {T} tokens of each.")
        if self.weights.n_layers > 1 and self.weights.d_vocab > SOURCES:
            self.notes.append(f"Skip-trigrams after layer 0 are ranked among the {SOURCES:,} most "
                              f"frequent of {self.weights.d_vocab:,} sources.")

    def room(self, T):
        """How many contexts of T tokens have activations that fit MEMORY, at least 1."""
        weights = self.weights
        numbers = (weights.d_vocab + (weights.n_layers + 1) * weights.d_model
                   + weights.n_layers * weights.n_heads * (2 * T + 4 * weights.d_head))
        return max(1, MEMORY // (T * numbers * weights.dtype.itemsize))

    def run(self, places, keep):
        """(tokens, acts) of some contexts, filled up to the longest; their losses are noted.

        What fills up stands last, and nothing is read from what comes later.
        """
        contexts = [self.contexts.tokens[n] for n in places]
        longest = max(map(len, contexts))
        tokens = np.array([np.pad(context, (0, longest - len(context))) for context in contexts])
        acts = forward(self.weights, tokens)
        for row, (n, context) in enumerate(zip(places, contexts)):
            one = excerpt(tokens, acts, slice(row, row + 1), len(context))
            if keep:
                self.kept[n] = one
            if (predicted := len(context) - 1):
                self.losses.append(float(cross_entropy(one[1].logits, one[0])) * predicted)
        return tokens, acts

    def sources(self, head):
        """The head that a head (layer, head) reads through, or None; and its strongest sources.

        They are ranked when first asked for.
        """
        if head not in self.ranked:
            through = self.feeders.get(head)
            shares = self.contexts.probabilities
            if head[0]:
                most = strongest(shares, SOURCES)[0]
                shares = np.where(np.isin(np.arange(len(shares)), most), shares, 0)
            self.ranked[head] = through, skip_trigrams(self.matrices, *head, shares, max(RANKS),
                                                       through=through)
        return self.ranked[head]

    @cached_property
    def composed(self):
        """`findings.heads.composed`, of all pairs of heads."""
        return composed(self.weights)

    @cached_property
    def feeders(self):
        """`findings.heads.feeders`: which earlier head feeds the keys of each most."""
        return feeders(self.weights, self.composed)

    @cached_property
    def matrices(self):
        """The weights `without_biases`."""
        return without_biases(self.weights)

    @cached_property
    def repeated(self):
        """START and a block of random tokens, twice, in eight contexts; and what is run on them."""
        tokens = random_blocks(self.weights.d_vocab, self.block, 2, 8, self.start,
                               np.random.default_rng(self.seed))
        return tokens, forward(self.weights, tokens)


def rectangle(lengths, room):
    """T and the places of the first contexts of at least T tokens, with most tokens in all.

    room : how many there may be. Of equals, the one with the largest T. One token
    predicts nothing: T is 1 only where all contexts are of one token.
    """
    def chosen(T):
        return [n for n, length in enumerate(lengths) if length >= T][:room]
    T = max(set(lengths), key=lambda T: (T > 1, T * len(chosen(T)), T))
    return T, chosen(T)


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
    yield "composition", {"composition": strongest_pairs(weights, study.composed)}
    if study.loss is None:
        yield "short", {}
    else:
        yield "importance", {"importance": effects.importance_table(
            weights, *study.held_out, watch)}
    if induction is None:
        return
    yield "split", {"split": effects.induction_split(weights, *study.repeated, study.block,
                                                     *induction)}
    if study.loss is None:
        return
    yield "removals", effects.removals(weights, *study.held_out, induction, previous, study.start,
                                       seed)
    found = effects.prediction(weights, *study.held_out, induction)
    yield "prediction", {"prediction": found | {
        "text": as_text(study.model.tokenizer, found["context"])}}


def as_text(tokenizer, context):
    """What a context (i,) reads as, in one line of visible characters; spaces stay."""
    start = tokenizer.show(context[0]) if context[0] == tokenizer.start else ""
    return start + visible(tokenizer.decode(context)).replace("␣", " ")


def losses(study):
    """Of the model and of counts on the contexts; and recorded, those its training ended with."""
    contexts, name = study.contexts, f"this {study.weights.n_layers}-layer model"
    return {"losses": contexts.baselines | ({} if study.loss is None else {name: study.loss}),
            "held_out": contexts.held_out,
            "recorded": {} if contexts.held_out else recorded_losses(study.model.metadata)}


def recorded_losses(metadata):
    """What a training run says of itself, by name; {} if metadata, a stranger's, say nothing."""
    try:
        log, baselines = metadata["log"], metadata["baselines"]
        kept = metadata.get("kept_step", log[-1]["step"])
        own = next(row["validation"] for row in log if row["step"] == kept)
        return {name: float(loss) for name, loss in {**baselines, "this model": own}.items()}
    except (LookupError, TypeError, ValueError, StopIteration):
        return {}


def bigrams(study):
    """The three likeliest next tokens of frequent words by a model without layers, and by count.

    And of the training text, where it is known: the model's loss on its bigram counts, and the
    least at its d_model. What has no counts is left out.
    """
    weights, counts, show = study.weights, study.contexts.counts, study.model.tokenizer.show
    text = sorted(set(np.concatenate(study.contexts.tokens).tolist()) - {study.start},
                  key=lambda token: -study.contexts.probabilities[token])
    words = ([token for token in text if sum(map(str.isalpha, show(token))) >= 3] or text)[:8]
    entering = weights.W_E.mT                                                        # (u, d)
    read = as_read(weights, entering, norm_of(weights, entering))
    found = {"next_tokens": [
        {"token": word, "model": likeliest(softmax(read[word] @ weights.W_U.mT), 3)}
        for word in words]}
    for row in found["next_tokens"] if counts is not None else ():
        if (total := counts[:, row["token"]].sum()):
            row["text"] = likeliest(counts[:, row["token"]] / total, 3)
    if counts is not None and study.contexts.held_out:
        found["training_loss"] = float(zero_layer_loss(weights.W_U, read.mT, counts)[0])
        found["fitted_loss"] = fit_zero_layer(counts, weights.d_model,
                                              np.random.default_rng(study.seed))
    return found


def likeliest(shares, most):
    """The largest of shares (v,), as pairs [token, share]; none that is 0."""
    return [[int(v), float(share)] for v, share in zip(*strongest(shares, most)) if share]
