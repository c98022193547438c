"""A training run that measures itself along the way, and leaves a model file with its log.

The trainer knows no scores and the scores know no trainer; here they meet. What a run leaves are
the weights that did best on held-out text. Where a short text is learned by heart, they are not
the last.
"""

import os
import platform
import time
from contextlib import closing, suppress
from dataclasses import asdict, replace
from math import ceil, inf

import numpy as np
import scipy

import minicircuits
from minicircuits.behavior.in_context import (formed, in_context_score, loss_by_position,
                                              middle_length, ordered_versus_shuffled,
                                              random_blocks)
from minicircuits.behavior.patterns import prefix_matching_scores, previous_token_scores
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError
from minicircuits.terminal.progress import clear_line, log_line, watched
from minicircuits.training.model_file import (Model, laid_out, load_checkpoint, log_of,
                                              save_checkpoint, save_model)
from minicircuits.training.recipe import SHAPE, Recipe, first_weights
from minicircuits.training.trainer import first_state, train

EVERY = 50             # steps between measurements
PASSES = 12            # through a text: with more, held-out loss rises. Measured on code in Python
LARGEST = 2 ** 28      # bytes of patterns that are held at a time


def train_to_file(n_layers, text, output, recipe=Recipe(), shape=SHAPE, force=False, every=EVERY,
                  report=print):
    """Train a model of `n_layers` on `text`, write it as `output`, and return it.

    text : a `Text`; its contexts decide n_ctx, its tokenizer d_vocab
    recipe, shape : numbers of the run and sizes of the model, but for n_ctx
    every : steps between measurements; report : function that gets a line for each

    The weights are those of the measured step with the least held-out loss, `kept_step` in the
    metadata. A checkpoint stands beside `output` meanwhile; it is a model file too. A file that
    exists is overwritten only by `force`.
    """
    return go_on(first(n_layers, text, recipe, shape), None, {"log": []}, text,
                 Checkpoint(output, force), every, report)


def train_further(model, text, output, recipe=Recipe(), force=False, every=EVERY, report=print):
    """Train a finished `Model` on `text`, in a new run: as `train_to_file` otherwise.

    Its tokenizer and sizes stay. `text` has to be loaded with them: `load_text(paths,
    model.tokenizer, model.weights.n_ctx)`. The log starts anew, with the model as it came; its
    metadata stand under "from" in the new ones. No matrix waits: all layers have learned.
    """
    if text.tokenizer != model.tokenizer:
        raise InputError("a text must be in the tokens of the model that goes on: give load_text "
                         "its tokenizer")
    recipe = replace(adapted(recipe, text, model.weights), wait=0)
    state = first_state(recipe, laid_out(model.weights))
    return go_on(state, None, {"from": model.metadata, "log": []}, text,
                 Checkpoint(output, force), every, report)


def resume(text, output, force=False, every=EVERY, report=print):
    """Go on from the checkpoint of an interrupted run, as if it had not been.

    Raises FileError without a checkpoint of `output`, InputError if it is of another text.
    """
    checkpoint, path = Checkpoint(output, force), f"{output}.checkpoint"
    checkpoint.claim()
    model, state, best = load_checkpoint(path)
    if model.metadata.get("text_sha256") != text.digest:
        raise InputError(f"{path!r} is a run on another text: give the same --text")
    if (n_ctx := text.validation.shape[1]) != state.recipe.n_ctx:
        raise InputError(f"{path!r} is a run in contexts of {state.recipe.n_ctx}; got a text in "
                         f"contexts of {n_ctx}: give --context")
    metadata = {**model.metadata, "log": log_of(model.metadata)}
    return go_on(state, best, metadata, text, checkpoint, every, report)


def train_in_memory(n_layers, text, recipe=Recipe(), shape=SHAPE, every=EVERY, report=print):
    """The last weights of `train_to_file`, without files and without measurements: a `Weights`.

    report : gets a line with the training loss at every multiple of `every` steps.
    """
    state = first(n_layers, text, recipe, shape)
    for step, weights, loss in train(state, text.batches(state.recipe)):
        if step % every == 0:
            report(f"  step {step:>4}   loss {loss:.3f} nats per token")
    return weights


def first(n_layers, text, recipe, shape):
    """The state in which a run begins."""
    sizes = {**shape, "n_ctx": text.validation.shape[1]}
    weights = first_weights(n_layers, text.tokenizer.d_vocab, recipe.seed, sizes)
    return first_state(adapted(recipe, text, weights), weights)


def adapted(recipe, text, weights):
    """The recipe for these: contexts as in the text; no decay for a bigram table, which has large
    entries. Raises InputError if the patterns of a context are too large."""
    n_ctx = text.validation.shape[1]
    if 4 * weights.n_layers * weights.n_heads * n_ctx ** 2 > LARGEST:
        raise InputError(f"patterns of a context must fit in {LARGEST >> 20} MiB, 4 bytes for each "
                         f"head, destination and source; got {weights.n_layers} layers of "
                         f"{weights.n_heads} heads, in contexts of {n_ctx}")
    return replace(recipe, n_ctx=n_ctx, decay=recipe.decay if weights.n_layers else 0.0)


class Checkpoint:
    """The file beside an output that a run writes, over its own or by `force`, and removes.

    Two runs may have one output. Neither takes away what the other has written.
    """

    def __init__(self, output, force):
        self.output, self.path, self.force = output, f"{output}.checkpoint", force
        self.mine = None                   # the file that this run wrote last, or goes on from

    def claim(self):
        self.mine = self.there()

    def there(self):
        """What tells a file from a later one of its name; None where there is none."""
        with suppress(FileNotFoundError):
            status = os.stat(self.path)
            return status.st_ino, status.st_mtime_ns

    def is_mine(self):
        return self.mine is not None and self.there() == self.mine

    def save(self, model, state, best):
        replaces, free = self.force or self.is_mine(), self.there() is None
        try:
            save_checkpoint(self.path, model, state, best, replaces)
            self.claim()
        except KeyboardInterrupt:              # it may stand there already: this run's
            if replaces or free:
                self.claim()
            raise

    def remove(self):
        if self.is_mine():
            os.unlink(self.path)


def go_on(state, best, metadata, text, checkpoint, every, report):
    """Train from `state` to the last step, add to the log, and write and return the model.

    best : the weights of the least held-out loss in the log; metadata : "log", maybe "from"
    """
    recipe, log = state.recipe, metadata["log"]
    metadata |= {"minicircuits": minicircuits.__version__, "python": platform.python_version(),
                 "numpy": np.__version__, "scipy": scipy.__version__, "seed": recipe.seed,
                 "text_sha256": text.digest, "baselines": text.baselines,
                 "recipe": asdict(recipe)}
    least = min((row["validation"] for row in log), default=inf) if best else inf
    begun = time.perf_counter() - (log[-1]["seconds"] if log else 0)
    tokens_per_step = recipe.batch * recipe.n_ctx

    def save(state):
        checkpoint.save(Model(state.weights, text.tokenizer, metadata), state, best)

    def note(taken, steps_per_second):
        return f"loss {taken[2]:.3f}  {steps_per_second * tokens_per_step:,.0f} tokens/s"

    try:
        with closing(train(state, text.batches(recipe), save)) as taken:
            for step, weights, loss in watched(taken, "steps", state.step, recipe.steps, note):
                due = step % every == 0 or step == recipe.steps
                if due and step not in (row["step"] for row in log):
                    row = {"step": step, "tokens": step * tokens_per_step,
                           "seconds": time.perf_counter() - begun, "loss": loss,
                           **measure(weights, text.validation, text.tokenizer.start, recipe.seed)}
                    newly_formed = formed(row) and not any(map(formed, log))
                    log.append(row)          # before it is shown: a display may fail
                    if row["validation"] < least:
                        best, least = weights, row["validation"]
                    clear_line()
                    report(log_line(row, newly_formed))
    except KeyboardInterrupt:
        clear_line()
        raise
    kept = next((row for row in log if row["validation"] == least), log[-1])
    if kept is not log[-1]:
        report(f"  kept: step {kept['step']}, whose held-out loss is the least ({least:.3f}); "
               f"the last has {log[-1]['validation']:.3f}")
    counted = text.baselines["unigram counts"]
    if least > counted:
        report(f"  worse than counting single tokens, whose held-out loss is {counted:.3f}: train\n"
               "  longer, or on more text")
    model = Model(best or weights, text.tokenizer, {**metadata, "kept_step": kept["step"]})
    save_model(checkpoint.output, *model, checkpoint.force)
    checkpoint.remove()
    return model


def too_short(text, recipe):
    """That a run reads so short a text too often, in one line; or None."""
    passes = recipe.steps * recipe.batch * text.validation.shape[1] / len(text.stream)
    if passes <= PASSES:
        return None
    enough, fewer = ceil(text.size * passes / PASSES / 1000), int(recipe.steps * PASSES / passes)
    return (f"  The text is short for {recipe.steps} steps, which read it {passes:.0f} times: it "
            f"will be learned by heart. It takes {enough:,} kB, or fewer steps (about "
            f"{max(1, fewer)}).")


def measure(weights, validation, start, seed):
    """What a run records of itself: losses on held-out text, and scores on random blocks.

    in_context : over 11 positions each, because the contexts are few
    block : the length of the random blocks; gap : of `ordered_versus_shuffled`
    prefix_matching, previous_token : of the best heads
    None is what contexts are too short for.
    """
    b, n_ctx = validation.shape
    parts = min(b, ceil(4 * weights.n_layers * weights.n_heads * b * n_ctx ** 2 / LARGEST) or 1)
    losses = sum(len(part) / b * loss_by_position(weights, part)
                 for part in np.array_split(validation, parts))
    block = middle_length(weights, start)
    row = {"validation": float(losses.mean()), "in_context": None, "block": block, "gap": None,
           "prefix_matching": None, "previous_token": None}
    if len(losses) > 105:
        row["in_context"] = float(in_context_score(losses, around=5))
    if block is None:
        return row
    gap = ordered_versus_shuffled(weights, start, np.random.default_rng(seed), block).gap
    blocks = random_blocks(weights.d_vocab, block, 2, 16, start, np.random.default_rng(seed))
    acts = forward(weights, blocks)
    return row | {
        "gap": float(gap),
        "prefix_matching": float(prefix_matching_scores(weights, blocks, acts).max(initial=0)),
        "previous_token": float(previous_token_scores(weights, blocks, acts).max(initial=0))}
