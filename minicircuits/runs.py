"""A training run from text to model file: what `tour` and `train` have in common.

The trainer knows no scores and the scores know no trainer; here they meet. A run trains,
measures itself along the way, and leaves a model file whose metadata hold the log.
"""

import os
import platform
import sys
import time
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy

import minicircuits
from minicircuits.behavior.in_context import (in_context_score, loss_by_position,
                                              ordered_versus_shuffled, random_blocks)
from minicircuits.behavior.patterns import (after_earlier_copies, attention_on, formed,
                                            previous_token)
from minicircuits.model.transformer import forward, init_weights, sinusoids
from minicircuits.notation import InputError
from minicircuits.training import corpus
from minicircuits.training.bigrams import (bigram, count_bigrams, count_in_contexts,
                                           counted_loss, unigram)
from minicircuits.training.model_file import (Model, load_checkpoint, save_checkpoint,
                                              save_model)
from minicircuits.training.pretrained import sample_text
from minicircuits.training.tokenizer import Tokenizer, train_tokenizer
from minicircuits.training.trainer import Recipe, begin, train

SHAPE = {"n_heads": 4, "d_model": 128, "d_head": 32, "n_ctx": 128, "positions": "shortformer"}
STEPS = 650
EVERY = 50                                 # steps between measurements


class Text(NamedTuple):
    """A text as training needs it, and what counting alone says of it."""
    tokenizer: Tokenizer
    stream: np.ndarray           # training ids (token,)
    validation: np.ndarray       # held-out contexts (b, i)
    counts: np.ndarray           # bigrams of the training text in contexts (v, u)
    baselines: dict              # held-out losses of counts, nats per token
    digest: str
    size: int                    # bytes


def prepare(paths, tokenizer=None, n_ctx=SHAPE["n_ctx"]):
    """Read, split, tokenize and count a text.

    paths : files and folders, or None for the standard library's source; tokenizer : of a
    trained model, or None to learn one of 1,024 tokens from the text.
    """
    texts = corpus.read_texts(paths) if paths else corpus.standard_library()
    training, held_out = corpus.split(texts)
    tokenizer = tokenizer or train_tokenizer(training)
    stream, held_out = tokenizer.encode(training), tokenizer.encode(held_out)
    validation = corpus.spread(held_out, 32, n_ctx, tokenizer.start)
    corpus.spread(stream, 1, n_ctx, tokenizer.start)        # is long enough, or says so
    counts = count_in_contexts(stream, tokenizer.start, n_ctx, tokenizer.d_vocab)
    ahead = count_bigrams(validation, tokenizer.d_vocab)
    return Text(tokenizer, stream, validation, counts,
                {"unigram counts": counted_loss(unigram(counts), ahead),
                 "bigram counts, interpolated": counted_loss(bigram(counts), ahead)},
                corpus.digest(texts), sum(map(len, texts)))


def prepare_sample(model):
    """The packaged sample as a `Text` for `model`: all of it held out, and counted by itself.

    Its baselines are those of the text that the model was trained on, and the model's there.
    """
    data, tokenizer = sample_text(), model.tokenizer
    stream, n_ctx = tokenizer.encode(data), model.weights.n_ctx
    recorded = {**model.metadata["baselines"],
                "this model": model.metadata["log"][-1]["validation"]}
    return Text(tokenizer, stream, corpus.spread(stream, 16, n_ctx, tokenizer.start),
                count_in_contexts(stream, tokenizer.start, n_ctx, tokenizer.d_vocab),
                {f"{name} (training text)": loss for name, loss in recorded.items()},
                corpus.digest([data]), len(data))


def measure(weights, validation, start, seed):
    """What a run records of itself: losses on held-out text, and scores on random blocks.

    in_context : over 11 positions each, because the contexts are few
    gap : of `ordered_versus_shuffled`; prefix_matching, previous_token : of the best heads
    """
    losses = loss_by_position(weights, validation)
    gap = ordered_versus_shuffled(weights, start, np.random.default_rng(seed), block=29).gap
    blocks = random_blocks(weights.d_vocab, 29, 2, 16, start, np.random.default_rng(seed))
    pattern = forward(weights, blocks).pattern
    return {"validation": float(losses.mean()),
            "in_context": float(in_context_score(losses, around=5)), "gap": float(gap),
            **{name: float(attention_on(pattern, places(blocks)).max(initial=0))
               for name, places in (("prefix_matching", after_earlier_copies),
                                    ("previous_token", previous_token))}}


def first_weights(n_layers, d_vocab, seed, shape=None):
    """`init_weights`, with two changes after which induction heads form soon, on most seeds.

    Positions fill a quarter of the dimensions only, with fast sinusoids: neighbours are far
    apart there, which a previous-token head needs, and tokens have the other dimensions to
    themselves, which an induction head needs. And heads of later layers begin with W_Q = 0,
    attending to everything alike: there is nothing worth looking for yet.

    shape : sizes and positions as in SHAPE, which is the default. In float32.
    """
    weights = init_weights(n_layers, d_vocab=d_vocab, rng=np.random.default_rng(seed),
                           dtype=np.float32, **(shape or SHAPE))
    d = weights.d_model // 4
    W_pos, W_Q = np.zeros_like(weights.W_pos), weights.W_Q.copy()
    W_pos[:d] = 3 * sinusoids(weights.n_ctx, d, fastest=2.5, slowest=0.025).T
    W_Q[1:] = 0
    return replace(weights, W_pos=W_pos, W_Q=W_Q)


def first_state(n_layers, text, seed, steps):
    """Where a run begins: recipe and weights."""
    recipe = Recipe(steps=steps or STEPS, seed=seed)
    if n_layers == 0:                        # a bigram table has large entries, and no heads
        recipe = replace(recipe, decay=0.0)
    return begin(recipe, first_weights(n_layers, text.tokenizer.d_vocab, seed))


def batches(text, recipe):
    """The function step -> contexts that `train` takes, for a `Text`."""
    return partial(corpus.batch, text.stream, recipe.batch, recipe.n_ctx, text.tokenizer.start,
                   recipe.seed)


def trained(n_layers, text, seed=0, steps=None, report=print):
    """The weights that `run` comes to, without files and without measurements: a `Weights`.

    report : gets a line with the training loss every EVERY steps.
    """
    state = first_state(n_layers, text, seed, steps)
    for step, weights, loss in train(state, batches(text, state.recipe)):
        if step % EVERY == 0:
            report(f"  step {step:>4}   loss {loss:.3f} nats per token")
    return weights


def run(n_layers, text, seed, output, steps=None, resume=False, force=False,
        report=print):
    """Train a model of `n_layers` on `text`, write it as `output`, and return it.

    seed : of the weights, the batches and the measurements. resume : go on from the
    checkpoint that an interrupted run left beside `output`; layers, steps and seed are its.
    report : gets a line for each measurement. A checkpoint is a model file too; it goes when
    the model is there. A file that exists is overwritten only by `force`.
    """
    checkpoint = f"{output}.checkpoint"
    if resume:
        model, state = load_checkpoint(checkpoint)
        if model.metadata.get("text_sha256") != text.digest:
            raise InputError(f"{checkpoint!r} is a run on another text: give the same --text")
        log = model.metadata.get("log", [])
    else:
        state, log = first_state(n_layers, text, seed, steps), []
    seed = state.recipe.seed
    metadata = {"minicircuits": minicircuits.__version__, "python": platform.python_version(),
                "numpy": np.__version__, "scipy": scipy.__version__, "seed": seed,
                "text_sha256": text.digest, "baselines": text.baselines,
                "recipe": asdict(state.recipe), "log": log}
    progress = Progress(state.step, state.recipe.steps, state.recipe.batch * state.recipe.n_ctx)
    begun = time.perf_counter() - (log[-1]["seconds"] if log else 0)

    def keep(state):
        save_checkpoint(checkpoint, Model(state.weights, text.tokenizer, metadata), state)

    try:
        with closing(train(state, batches(text, state.recipe), keep)) as taken:
            for step, weights, training_loss in taken:
                progress.show(step, training_loss)
                due = step % EVERY == 0 or step == state.recipe.steps
                if due and step not in (row["step"] for row in log):
                    row = {"step": step, "tokens": step * progress.tokens_per_step,
                           "seconds": time.perf_counter() - begun, "loss": training_loss,
                           **measure(weights, text.validation, text.tokenizer.start, seed)}
                    progress.clear()
                    report(log_line(row, log))
                    log.append(row)
    except KeyboardInterrupt:
        progress.clear()
        report(f"  interrupted; to go on: minicircuits train -o {output} --resume "
               "(with the same --text)")
        raise
    model = Model(weights, text.tokenizer, metadata)
    save_model(output, *model, force)
    os.unlink(checkpoint)
    return model


def log_line(row, before):
    """A measurement as a line, marked where prefix matching (on blocks of 29) passes 0.1."""
    mark = " ← over 0.1" if formed(row) and not any(map(formed, before)) else ""
    return (f"  {row['step']:>5} {row['seconds']:>6.0f} s {row['loss']:>8.3f} "
            f"{row['validation']:>10.3f} {row['in_context']:>10.2f} "
            f"{row['previous_token']:>10.2f} {row['prefix_matching']:>10.2f}{mark}")


LOG_HEADING = (f"  {'step':>5} {'time':>8} {'loss':>8} {'held-out':>10} {'in context':>10} "
               f"{'previous':>10} {'prefix':>10}")


class Progress:
    """Step, loss, speed and time left on standard error, if somebody is looking at it."""

    def __init__(self, first, last, tokens_per_step):
        self.first, self.last, self.tokens_per_step = first, last, tokens_per_step
        self.begun = self.shown = time.perf_counter()
        self.visible = sys.stderr.isatty()

    def show(self, step, loss):
        now = time.perf_counter()
        if not self.visible or now - self.shown < 0.2 or step == self.first:
            return
        self.shown, done = now, step - self.first
        left = (now - self.begun) / done * (self.last - step)
        speed = done * self.tokens_per_step / (now - self.begun)
        print(f"\r  step {step}/{self.last}  loss {loss:.3f}  {speed:,.0f} tokens/s  "
              f"{left:.0f} s left \x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self):
        if self.visible:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
