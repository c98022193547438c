"""Weights, step after step: `train` yields them, and whoever called it measures.

A run is a `State`. The next state follows by the gradients of a batch, and a batch depends on
its step alone. So an interrupted run goes on from its checkpoint to the same numbers, on the
same machine. The trainer knows neither texts nor scores.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from minicircuits.cores import side_by_side
from minicircuits.door import door
from minicircuits.model.fast import loss_and_gradients
from minicircuits.notation import InputError, Weights, check_real
from minicircuits.training.optimizers import adamw, muon
from minicircuits.training.recipe import Recipe

ADAMW = ("W_E", "W_pos", "W_U")          # the others: Muon


@dataclass(frozen=True)
class State:
    """A run after `step` changes of its weights; `first_state` makes the first."""

    recipe: Recipe
    weights: Weights
    moments: dict      # name of a weight -> tuple of arrays of its shape: what its rule remembers
    step: int


@door
def first_state(recipe: Recipe, weights: Weights) -> State:
    """The `State` before the first step, with moments of 0."""
    check_real(weights)
    moments = {name: (np.zeros_like(W),) * (2 if name in ADAMW else 1)
               for name, W in weights.items()}
    return State(recipe, weights, moments, step=0)


@door
def train(state: State, batch: Callable[[int], np.ndarray], save: Callable | None = None,
          every: int = 100) -> Iterator[tuple[int, Weights, float]]:
    """Yields (step, weights, loss) from `state` to the last step of its recipe, both included.

        text, recipe = mc.load_text(["my_book.txt"]), mc.Recipe(steps=500)
        weights = mc.first_weights(2, text.tokenizer.d_vocab)
        for step, weights, loss in mc.train(mc.first_state(recipe, weights), text.batches(recipe)):
            print(step, loss)

    `loss` (nats per predicted token) is that of `weights` on `batch(step)`.

    state : from `first_state`, or from a checkpoint
    batch : function, step -> tokens (b, i); it must give the same tokens for the same step
    save : function of a state, which writes a checkpoint: at every multiple of `every` steps,
        at the last step, and when the run is interrupted. That is by Ctrl-C in here, or by closing
        the generator (see `contextlib.closing`). It gets the state last yielded, or the next.

    Raises InputError when numbers stop being finite, and does not call `save` then.
    """
    if every < 1:
        raise InputError(f"every must be at least 1, the steps from checkpoint to checkpoint; got "
                         f"{every}")
    save = save or (lambda state: None)
    try:
        while True:
            with stops_at(state.step):
                loss, gradients = loss_and_gradients(state.weights, batch(state.step))
            yield state.step, state.weights, float(loss)
            if state.step == state.recipe.steps:
                return
            with stops_at(state.step):
                state = next_state(state, gradients)
            if state.step % every == 0 or state.step == state.recipe.steps:
                save(state)
    except (KeyboardInterrupt, GeneratorExit):
        save(state)
        raise


@contextmanager
def stops_at(step):
    """Says at which step an InputError came. `Weights` refuses NaN, so NumPy need not warn."""
    try:
        with np.errstate(all="ignore"):
            yield
    except InputError as error:
        raise InputError(f"training stopped at step {step}: {error}; try smaller rates") from None


def next_state(state, gradients):
    """The state one step later: every weight moved by its rule, side by side on the cores."""
    names = list(state.moments)
    weights, moments = zip(*side_by_side(partial(move, state, gradients), names))
    return replace(state, step=state.step + 1, moments=dict(zip(names, moments)),
                   weights=replace(state.weights, **dict(zip(names, weights))))


def move(state, gradients, name):
    """One weight after a step of its rule, and the moments of that rule.

    Muon treats the heads of a layer as one matrix (l, h·e, d), for W_O too. W_pos has no decay:
    while positions stay long, a previous-token head stays sharp.
    """
    recipe, share = state.recipe, state.recipe.rate(state.step)
    decay = 0 if name == "W_pos" else share * recipe.decay
    W, dW, moments = getattr(state.weights, name), getattr(gradients, name), state.moments[name]
    if name in ADAMW:
        return adamw(W, dW, moments, state.step + 1, share * recipe.adamw_rate, recipe.beta1,
                     recipe.beta2, decay)
    turned = np.matrix_transpose if name == "W_O" else np.asarray              # to (l, h, e, d)
    n_layers, n_heads, d_head, d_model = shape = turned(W).shape
    W, dW, m = (turned(M).reshape(n_layers, n_heads * d_head, d_model) for M in (W, dW, *moments))
    speed = 1
    if name in ("W_Q", "W_K"):
        speed = 0 if recipe.waits(state.step) else recipe.qk_speed
        decay = share * recipe.qk_decay
    W, (m,) = muon(W, dW, (m,), share * recipe.muon_rate, recipe.momentum, decay, speed)
    W, m = (np.ascontiguousarray(turned(M.reshape(shape))) for M in (W, m))
    return W, (m,)
