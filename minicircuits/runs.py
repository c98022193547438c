"""A training run that measures itself along the way, and leaves a model file with its log.

The trainer knows no scores and the scores know no trainer; here they meet.
"""

import os
import platform
import time
from contextlib import closing
from dataclasses import asdict

import numpy as np
import scipy

import minicircuits
from minicircuits.behavior.in_context import (in_context_score, loss_by_position,
                                              ordered_versus_shuffled, random_blocks)
from minicircuits.behavior.patterns import formed, prefix_matching_scores, previous_token_scores
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError
from minicircuits.terminal.progress import clear_line, log_line, watched
from minicircuits.training.model_file import Model, load_checkpoint, save_checkpoint, save_model
from minicircuits.training.recipe import Recipe, first_weights
from minicircuits.training.trainer import first_state, train

EVERY = 50                                 # steps between measurements


def train_to_file(n_layers, text, seed, output, steps=None, force=False, every=EVERY,
                  report=print):
    """Train a model of `n_layers` on `text`, write it as `output`, and return it.

    text : a `Text`; seed : of the weights, the batches and the measurements
    steps : of training; by default those of `Recipe`
    every : steps between measurements; report : function that gets a line for each

    A checkpoint stands beside `output` meanwhile; it is a model file too. A file that exists
    is overwritten only by `force`.
    """
    return go_on(start(n_layers, text, seed, steps), [], text, output, force, every, report)


def resume(text, output, force=False, every=EVERY, report=print):
    """Go on from the checkpoint of an interrupted `train_to_file`, as if it had not been.

    Raises FileError without a checkpoint of `output`, InputError if it is of another text.
    """
    checkpoint = f"{output}.checkpoint"
    model, state = load_checkpoint(checkpoint)
    if model.metadata.get("text_sha256") != text.digest:
        raise InputError(f"{checkpoint!r} is a run on another text: give the same --text")
    return go_on(state, model.metadata.get("log", []), text, output, force, every, report)


def train_in_memory(n_layers, text, seed=0, steps=None, every=EVERY, report=print):
    """The weights of `train_to_file`, without files and without measurements: a `Weights`.

    report : gets a line with the training loss at every multiple of `every` steps.
    """
    state = start(n_layers, text, seed, steps)
    for step, weights, loss in train(state, text.batches(state.recipe)):
        if step % every == 0:
            report(f"  step {step:>4}   loss {loss:.3f} nats per token")
    return weights


def start(n_layers, text, seed, steps):
    """The state in which a run begins."""
    decay = Recipe.decay if n_layers else 0.0        # a bigram table has large entries
    return first_state(Recipe(steps or Recipe.steps, seed=seed, decay=decay),
                       first_weights(n_layers, text.tokenizer.d_vocab, seed))


def go_on(state, log, text, output, force, every, report):
    """Train from `state` to the last step, add to `log`, and write and return the model."""
    checkpoint, recipe = f"{output}.checkpoint", state.recipe
    metadata = {"minicircuits": minicircuits.__version__, "python": platform.python_version(),
                "numpy": np.__version__, "scipy": scipy.__version__, "seed": recipe.seed,
                "text_sha256": text.digest, "baselines": text.baselines,
                "recipe": asdict(recipe), "log": log}
    begun = time.perf_counter() - (log[-1]["seconds"] if log else 0)
    tokens_per_step = recipe.batch * recipe.n_ctx

    def save(state):
        save_checkpoint(checkpoint, Model(state.weights, text.tokenizer, metadata), state)

    def note(taken, steps_per_second):
        *_, loss = taken
        return f"loss {loss:.3f}  {steps_per_second * tokens_per_step:,.0f} tokens/s"

    def tell(line):
        clear_line()
        report(line)

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
                    tell(log_line(row, newly_formed))
    except KeyboardInterrupt:
        tell(f"  interrupted; to go on: minicircuits train -o {output} --resume "
             "(with the same --text)")
        raise
    model = Model(weights, text.tokenizer, metadata)
    save_model(output, *model, force)
    os.unlink(checkpoint)
    return model


def measure(weights, validation, start, seed):
    """What a run records of itself: losses on held-out text, and scores on random blocks.

    in_context : over 11 positions each, because the contexts are few
    gap : of `ordered_versus_shuffled`; prefix_matching, previous_token : of the best heads
    """
    losses = loss_by_position(weights, validation)
    gap = ordered_versus_shuffled(weights, start, np.random.default_rng(seed), block=29).gap
    blocks = random_blocks(weights.d_vocab, 29, 2, 16, start, np.random.default_rng(seed))
    acts = forward(weights, blocks)
    return {"validation": float(losses.mean()),
            "in_context": float(in_context_score(losses, around=5)), "gap": float(gap),
            "prefix_matching": float(prefix_matching_scores(weights, blocks, acts).max(initial=0)),
            "previous_token": float(previous_token_scores(weights, blocks, acts).max(initial=0))}
