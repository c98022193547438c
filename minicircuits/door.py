"""The door of this package: what comes to a public function is held to its annotations.

Formulas behind it need no checks of their own, but those of sizes that must agree (`notation`).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from inspect import signature
from operator import index
import reprlib
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import DTypeLike

Tokens = np.ndarray | Sequence[Sequence[int]]          # (b, i), see `check_tokens`
F = TypeVar("F", bound=Callable)
WANTED = {np.ndarray: "an array of finite numbers", Tokens: "integers with axes (b, i)",
          int: "a whole number", float: "a finite number", str: "a text", NoneType: "None"}


class InputError(ValueError):
    """What was expected and what came, in one line. Every error of this package is one."""


def door(function: F) -> F:
    """A public function: its arguments are held to its annotations, its answer to finite numbers.

    What is like an array, a whole number or a number becomes one. Anything else is an InputError
    before the work starts, and so is what leaves the range of floats, or the memory, in it.
    `np.seterr` of the caller does not matter.
    """
    name, hints = function.__qualname__, dict.fromkeys(signature(function).parameters, Any)
    hints |= get_type_hints(function)
    hints.pop("return", None)

    @wraps(function)
    def guarded(*args, **named):
        args = [*(held(*hint, value) for hint, value in zip(hints.items(), args)),
                *args[len(hints):]]                    # too many, which Python says
        named = {name: held(name, hints.get(name, Any), value) for name, value in named.items()}
        try:
            with np.errstate(all="ignore"):
                answer = function(*args, **named)
        except (MemoryError, OverflowError) as error:
            raise InputError(f"{name} needs smaller sizes or numbers: {error}") from None
        if not all(np.isfinite(number).all() for number in numbers_in(answer)):
            raise InputError(f"{name} must stay in the range of floats; got NaN or Inf")
        return answer
    return guarded


def held(name, hint, value):
    """`value` as the annotation `hint` says, or InputError."""
    try:
        return fitted(name, hint, value)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} must be {described(hint)}; got {brief(value)}") from None


def described(hint):
    """An annotation in words."""
    if hint in WANTED:
        return WANTED[hint]
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(map(described, parts))
    name = getattr(hint, "__name__", str(hint))
    if kind in (list, tuple, Sequence):
        return f"a {name.lower()}, each {described(parts[0])}"
    return name


def brief(value):
    """What a wrong `value` is, in a part of a line."""
    return " ".join(reprlib.repr(value).split())


def fitted(name, hint, value):
    """`value` as the annotation `hint` says, or TypeError or ValueError."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if hint in (Any, DTypeLike):
        return value if hint is Any else np.dtype(value)
    if kind in (Union, UnionType):
        for part in parts:
            with suppress(TypeError, ValueError):
                return fitted(name, part, value)
        raise TypeError
    if kind is np.ndarray:
        array = as_array(name, value)
        if array.dtype.kind not in "biufc" or not np.isfinite(array).all():
            raise TypeError
        return array
    if kind in (int, float, bool):
        truth = isinstance(value, (bool, np.bool))
        if np.ndim(value) or truth != (kind is bool) or not abs(value) < np.inf:
            raise TypeError
        return index(value) if kind is int else kind(value)
    if kind is tuple:
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(fitted(name, *pair) for pair in zip(parts, value, strict=True))
    if kind in (list, Sequence):
        if isinstance(value, (str, bytes, dict, set)):
            raise TypeError
        return [fitted(name, *parts, item) for item in value] if parts else list(value)
    if not (callable(value) if kind is Callable else isinstance(value, kind)):
        raise TypeError
    return value


def as_array(name, value):
    """`value` as an array of numbers, also a torch tensor, or InputError; bfloat16 as float32."""
    try:
        if hasattr(value, "detach"):            # it may have a gradient, or be on a GPU
            value = value.detach().cpu()
            value = value.float() if "bfloat16" in str(value.dtype) else value
        array = np.asarray(value)
    except Exception as error:                  # of another package, or a ragged list
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{name} must be an array; got {reason}") from None
    return array


def numbers_in(answer):
    """The arrays and floats of an answer, which may be a tuple of some."""
    if isinstance(answer, (np.ndarray, float, complex, np.inexact)):
        yield answer
    elif hasattr(answer, "residual"):        # Activations: any NaN or Inf of them arrives there
        yield from (answer.scores, answer.logits)
    elif isinstance(answer, (tuple, list)):
        for part in answer:
            yield from numbers_in(part)
