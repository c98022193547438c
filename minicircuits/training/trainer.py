"""Weights, step after step: `train` yields them, and whoever called it measures.

A run is a `State`. From one state the next follows by the gradients of one batch, and a batch
depends on its step alone; so a run that was interrupted goes on from its checkpoint as if
nothing had been: the same numbers, on the same machine. The trainer knows neither texts nor
scores.
"""

import json
import warnings
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from math import inf

import numpy as np

from minicircuits import files
from minicircuits.cores import side_by_side
from minicircuits.model.fast import loss_and_gradients
from minicircuits.notation import InputError, Weights
from minicircuits.training.optimizers import adamw, muon

ADAMW = ("W_E", "W_pos", "W_U")          # the others: Muon
BY_COLUMN = ("W_E", "W_pos")             # a column is contiguous in memory, as in init_weights


@dataclass(frozen=True)
class Recipe:
    """The numbers that a run depends on, besides its first weights and its text.

    steps, warm_up : changes of the weights; over how many of them the rates rise
    batch, n_ctx, seed : contexts a step, tokens in each, and what they are drawn with (for
        whoever makes the batches; `train` does not look)
    adamw_rate, beta1, beta2 : of AdamW, for W_E, W_pos, W_U
    muon_rate, momentum : of Muon, for W_Q, W_K, W_V, W_O
    decay : of both

    Raises InputError on a number of another type, negative, infinite or NaN.
    """

    steps: int
    warm_up: int = 50
    batch: int = 24
    n_ctx: int = 128
    seed: int = 0
    adamw_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    muon_rate: float = 0.1
    momentum: float = 0.9
    decay: float = 0.1

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not (type(value) in (int, field.type) and 0 <= value < inf):
                raise InputError(f"{field.name} must be {field.type.__name__}, finite and not "
                                 f"negative; got {value!r}")

    def rate(self, step):
        """The share of the rates at which weights change from `step` to `step` + 1.

        It rises from 0 over the warm-up, and falls linearly to 0 at the last step.
        """
        return min(1, (step + 1) / (self.warm_up + 1)) * (1 - step / self.steps)


@dataclass(frozen=True)
class State:
    """A run after `step` changes of its weights; `begin` makes the first.

    moments : dict, name of a weight -> tuple of arrays of its shape: what its rule remembers
    """

    recipe: Recipe
    weights: Weights
    moments: dict
    step: int


def begin(recipe, weights):
    """The state before the first step."""
    moments = {name: (np.zeros_like(W),) * (2 if name in ADAMW else 1)
               for name, W in weights.items()}
    return State(recipe, weights, moments, step=0)


def train(state, batch, keep=None, every=100):
    """Yields (step, weights, loss) from `state` to the last step of its recipe, both included.

    `loss` (float, nats per predicted token) is that of `weights` on `batch(step)`.

    state : from `begin`, or from a checkpoint
    batch : function, step -> tokens (b, i); for one step always the same ones
    keep : function, state -> None, or None: writes a checkpoint. Called when a multiple of
        `every` steps is reached and after the last one; and when the run is interrupted, by
        Ctrl-C in here or because the generator is closed (`contextlib.closing` does so for
        sure), with the state last yielded or, if it has got so far, the next.

    Raises InputError when numbers stop being finite, without calling `keep`.
    """
    keep = keep or (lambda state: None)
    try:
        while True:
            try:
                with without_warnings():
                    loss, gradients = loss_and_gradients(state.weights, batch(state.step))
                yield state.step, state.weights, float(loss)
                if state.step == state.recipe.steps:
                    return
                with without_warnings():
                    state = after(state, gradients)
            except InputError as error:
                raise InputError(f"training stopped at step {state.step}: {error}") from None
            if state.step % every == 0 or state.step == state.recipe.steps:
                keep(state)
    except (KeyboardInterrupt, GeneratorExit):
        keep(state)
        raise


def without_warnings():
    """Numbers that are not finite are refused by `Weights`: NumPy need not warn of them too."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def after(state, gradients):
    """The state one step later: every weight moved by its rule, side by side on the cores."""
    names = [name for name, _ in state.weights.items()]
    moved = dict(zip(names, side_by_side(partial(after_one, state, gradients), names)))
    return replace(state, step=state.step + 1,
                   weights=replace(state.weights, **{name: W for name, (W, _) in moved.items()}),
                   moments={name: moments for name, (_, moments) in moved.items()})


def after_one(state, gradients, name):
    """One weight moved by its rule, and what the rule remembers of it."""
    recipe, rate = state.recipe, state.recipe.rate(state.step)
    W, dW, remembered = getattr(state.weights, name), getattr(gradients, name), state.moments[name]
    if name in ADAMW:
        return adamw(W, dW, remembered, state.step + 1, rate * recipe.adamw_rate, recipe.beta1,
                     recipe.beta2, recipe.decay)
    shape = W.shape
    W, dW, m = (as_one(name, M) for M in (W, dW, *remembered))
    W, (m,) = muon(W, dW, (m,), rate * recipe.muon_rate, recipe.momentum, recipe.decay)
    return apart(name, W, shape), (apart(name, m, shape),)


def as_one(name, M):
    """The heads of a layer as one matrix, (l, h·e, d), for W_O too: what Muon turns as one."""
    M = M.mT if name == "W_O" else M
    n_layers, n_heads, d_head, d_model = M.shape
    return M.reshape(n_layers, n_heads * d_head, d_model)


def apart(name, M, shape):
    """The same matrix as heads again, of the shape it had."""
    if name == "W_O":
        return np.ascontiguousarray(M.reshape(shape[:2] + shape[:1:-1]).mT)
    return M.reshape(shape)


def state_to_arrays(state):
    """What stands for `state` in a file beside its weights, as a dict of arrays."""
    recipe = json.dumps(asdict(state.recipe)).encode()
    return {"state/step": np.array(state.step), "state/recipe": np.frombuffer(recipe, np.uint8),
            **{f"state/{name}/{n}": moment for name, moments in state.moments.items()
               for n, moment in enumerate(moments)}}


def state_from_arrays(path, arrays, weights):
    """The `State` among `arrays`, taken out of that dict, bit for bit; FileError names `path`."""
    weights = replace(weights, **{name: np.asfortranarray(W) for name, W in weights.items()
                                  if name in BY_COLUMN})
    try:
        recipe = Recipe(**files.parse_json(arrays.pop("state/recipe").tobytes(), path))
        state, step = begin(recipe, weights), arrays.pop("state/step")
        if step.shape or step.dtype.kind != "i" or not 0 <= step <= recipe.steps:
            raise InputError(f"a step must be a whole number from 0 to {recipe.steps}; got {step}")
        moments = {name: tuple(moment_like(zero, arrays.pop(f"state/{name}/{n}"))
                               for n, zero in enumerate(zeros))
                   for name, zeros in state.moments.items()}
    except KeyError as error:
        raise files.FileError(f"{str(path)!r} must be a checkpoint; got no {error}") from None
    except (TypeError, InputError) as error:
        raise files.FileError(f"{str(path)!r} must be a checkpoint: {error}") from None
    return replace(state, moments=moments, step=int(step))


def moment_like(zero, moment):
    """`moment`, laid out in memory as `zero` is, if it is finite and of its shape and dtype."""
    if (moment.shape, moment.dtype) != (zero.shape, zero.dtype) or not np.isfinite(moment).all():
        raise InputError(f"moments must be finite, {zero.dtype} of shape {zero.shape}; got "
                         f"{moment.dtype} {moment.shape}")
    return np.asfortranarray(moment) if zero.flags.f_contiguous else moment
