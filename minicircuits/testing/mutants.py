"""Known bugs, each one edit of a function of the plain loops: what the vectors have to catch.

A mutant is the source of `plain.model` or `plain.circuits` with an edit of `known_bugs.txt`. The
loops have no biases, but run on the larger weights of `circuits.biases`, which has bugs too.
"""

import inspect
import math
import re
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minicircuits import files
from minicircuits.circuits import biases as folding
from minicircuits.plain import circuits, model
from minicircuits.testing.steps import AXES, CIRCUITS


class Mutant(NamedTuple):
    step: str            # the first tensor that it gets wrong; "call": none, but how it behaves
    function: str
    old: str
    new: str
    says: str

    @property
    def of_biases(self):
        return self.function == "fold_biases"


def read_mutants():
    """{name: Mutant} of `known_bugs.txt`, whose head says what stands in it."""
    path, found = Path(__file__).with_name("known_bugs.txt"), {}
    text = files.read_bytes(path).decode().replace("\r\n", "\n")
    for block in text.split("\n\n"):
        if not block.startswith("#"):
            head, says, *lines = block.splitlines()
            name, step, function = re.fullmatch(r"(\w+): (\w+) in (\w+)", head).groups()
            old, new = ("\n".join(line[2:] for line in lines if line[0] == sign) for sign in "-+")
            found[name] = Mutant(step, function, old, new, says.strip())
    return found


MUTANTS = read_mutants()


@cache
def _code(name):
    """The mutant's module, compiled."""
    mutant = MUTANTS[name]
    loops = folding if mutant.of_biases else circuits if mutant.step in CIRCUITS else model
    source, before = inspect.getsource(loops), inspect.getsource(getattr(loops, mutant.function))
    words = [re.escape(word) for word in re.findall(r"\w+|[^\w\s]", mutant.old)]
    pattern = r"\s*".join(words).replace('"', "[\"']")
    after, found = re.subn(pattern, lambda match: mutant.new, before)
    if found != 1:
        raise AssertionError(
            f"the known bug {name!r} is an edit of {loops.__name__}.{mutant.function}, "
            f"where {mutant.old!r} must stand once; it stands there {found} times. After a change "
            "of the plain loops, change the edit in testing/known_bugs.txt with it")
    return compile(source.replace(before, after), name, "exec")


def candidate(name, dtype="float64"):
    """The mutant as a candidate: a fresh function of (weights, tokens, biases=None).

    Where Python's floats stop (exp(1000), 0/0) it goes on with Inf and NaN, as arrays do; its
    exp where those of `dtype` do.
    """
    module = {"__name__": name}
    exec(_code(name), module)
    if MUTANTS[name].step in CIRCUITS:
        return lambda weights, tokens, biases=None: module["tensors"](
            weights, tokens, model.forward(weights, tokens).pattern)
    module |= {"exp": lambda x: np.float64(np.exp(np.dtype(dtype).type(x))),
               "log": lambda x: np.log(np.float64(x)),
               "total": _total,
               "Weights": lambda positions, **arrays: {            # which need not be finite
                   name: array for name, array in arrays.items() if array is not None}}
    tensors = np.errstate(all="ignore")(module.get("tensors", model.tensors))
    return partial(with_biases, module.get("fold_biases", folding.fold_biases), tensors)


def with_biases(fold, tensors, weights, tokens, biases=None):
    """{name: array} of a model with biases (name -> array): of its folded weights, cut back."""
    if biases is None:
        return tensors(weights, tokens)
    found, (_, H, _, d) = tensors(fold(weights, **biases), tokens), weights.W_Q.shape
    kept = {"h": slice(H), "d": slice(d)}
    cut = {name: np.asarray(array)[*(kept.get(axis, slice(None)) for axis in AXES[name].split())]
           for name, array in found.items()}
    if "loss" in found:
        cut |= {f"db_{letter}": found[f"dW_{letter}"][..., d] for letter in "QKVU"}
        cut |= {f"db_{letter}": cut[f"db_{letter}"][:, :H] for letter in "QKV"}
        cut["db_O"] = found["dW_O"][:, H:, :d, 0].reshape(-1, d)
    return cut


def _total(terms):
    terms = list(terms)
    try:
        return math.fsum(terms)
    except (ValueError, OverflowError):
        return np.sum(terms)
