"""A model file from which training goes on: the model, and the trainer's state under `state/…`."""

import json
from dataclasses import asdict, replace

import numpy as np

from minicircuits import files
from minicircuits.notation import InputError
from minicircuits.training.model_file import (check_nothing_left, model_from_arrays,
                                              model_to_arrays)
from minicircuits.training.recipe import Recipe
from minicircuits.training.trainer import first_state

BY_COLUMN = ("W_E", "W_pos")             # a column is contiguous in memory, as in init_weights


def save_checkpoint(path, model, state):
    """Write `model` and the trainer's `State` that it is at, in the place of an earlier one."""
    files.write_arrays(path, {**model_to_arrays(path, model), **state_to_arrays(state)},
                       force=True)


def load_checkpoint(path):
    """The `Model` and the `State` that `save_checkpoint` wrote, bit for bit, or FileError."""
    arrays = files.read_arrays(path)
    model = model_from_arrays(path, arrays)
    state = state_from_arrays(path, arrays, model.weights)
    check_nothing_left(path, list(arrays))
    return model, state


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
        state, step = first_state(recipe, weights), arrays.pop("state/step")
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
