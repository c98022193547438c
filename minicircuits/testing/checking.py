"""Is this implementation right, and if not, which step is the first to be wrong?

A candidate supplies any of the tensors in `steps.AXES`. They are walked in the order of
computation: forward, loss, back through the activations' gradients, the weights', the circuits.
Each is held to the strictest of three tolerances that applies:

    exact       no difference: forward tensors of vectors whose arithmetic has no rounding
    local       the step computed from the candidate's *own* inputs; a derived rounding bound
    end to end  where an input was not supplied: the expected tensor; `Reference.allowed`

So the first tensor found wrong had right inputs, if they were supplied: it names the step. A
NaN is never within a tolerance. Scores are compared for j ≤ i: what the mask hides is its own.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Callable, NamedTuple

import numpy as np

from minicircuits.notation import InputError, check_axes
from minicircuits.testing import mutants, vectors
from minicircuits.testing.exchange import read_answer
from minicircuits.testing.steps import AXES, CIRCUITS, FLOOR, FORWARD, UNIT


class Difference(NamedTuple):
    """The first tensor found wrong."""
    tensor: str              # with its layer: "pattern[0]"
    step: str                # without
    tier: str                # "exact", "local", "end to end"
    axes: str
    index: tuple             # the worst, by error / allowed
    yours: float
    expected: float
    error: float
    allowed: float
    wrong: int
    of: int
    missing: tuple           # inputs of the step that were not supplied


@dataclass(frozen=True)
class Report:
    """What `check` found; true if nothing was wrong."""
    id: str
    precision: str
    checked: tuple = ()      # tensors found right
    not_supplied: tuple = ()
    not_judged: tuple = ()   # supplied, but after the first difference
    meaningless: tuple = ()  # supplied, but not defined in this case: no loss of one token
    difference: Difference | None = None
    note: str = ""           # a mistake that is no tensor's
    alike: Callable = field(default=tuple, repr=False)         # -> looks_like
    precisions: Callable = field(default=tuple, repr=False)    # -> those it would pass as

    @cached_property
    def looks_like(self):
        """Names of at most three mutants that get the tensor wrong in the same way."""
        return self.alike() if self.difference else ()

    def __bool__(self):
        return self.difference is None and not self.note

    def as_json(self):
        d = self.difference
        return {"case": self.id, "precision": self.precision, "passed": bool(self),
                "checked": list(self.checked), "not_supplied": list(self.not_supplied),
                "not_judged": list(self.not_judged), "meaningless": list(self.meaningless),
                "note": self.note, "difference": None if d is None else {
                    **d._asdict(), "index": list(d.index), "missing": list(d.missing),
                    "looks_like": list(self.looks_like),
                    **{name: repr(getattr(d, name)) if not np.isfinite(getattr(d, name))
                       else getattr(d, name) for name in ("yours", "expected", "error",
                                                          "allowed")}}}

    @property
    def problem(self):
        """A few words, or ""."""
        return self.note or (self.difference.tensor if self.difference else "")

    @property
    def line(self):
        """The report in one line."""
        return (f"{'ok   ' if self else 'WRONG'} {self.id}: "
                f"{self.problem or counted(len(self.checked), 'tensor') + ' right'}")

    def __str__(self):
        lines = [self.line]
        if d := self.difference:
            place = ", ".join(f"{axis}={n}" for axis, n in zip(d.axes.split(), d.index))
            lines += [f"  the first that is wrong, in {d.wrong} of {d.of} numbers",
                      f"    worst at  [{place}]",
                      f"    yours     {d.yours:.10g}", f"    expected  {d.expected:.10g}",
                      f"    error     {d.error:.2g}, allowed {d.allowed:.2g} ({d.tier})"]
            for name in self.looks_like:
                lines += wrapped(f"  matches `{name}`: ", mutants.MUTANTS[name].says.split(), " ")
            if d.missing:
                lines += wrapped("  it or a step before it is wrong; to tell which, supply ",
                                 d.missing)
            else:
                lines.append("  what it is computed from is right: the mistake is in this step")
            lines += [f"  it would pass as --precision {name}" for name in self.precisions()[:1]]
        lines += wrapped("  not supplied, so not checked: ", short(self.not_supplied))
        lines += wrapped("  not judged, as they come after it: ", short(self.not_judged))
        lines += wrapped("  not judged, as this case has none: ", self.meaningless)
        return "\n".join(lines)


def counted(number, thing):
    return f"{number} {thing}{'' if number == 1 else 's'}"


def short(names):
    """The names, with one word for the circuits where all are there."""
    rest = [name for name in names if name not in CIRCUITS]
    return [*rest, "all circuits"] if len(names) - len(rest) == len(CIRCUITS) else names


def wrapped(start, names, join=", ", width=80):
    """`start` and the names, over lines of at most `width` columns; nothing for no names."""
    lines, line = [], start
    for n, name in enumerate(names):
        part = name + (join if n + 1 < len(names) else "")
        if len(line) + len(part.rstrip()) > width:
            lines.append(line.rstrip())
            line = "    "
        line += part
    return [*lines, line.rstrip()] if names else []


def check(case, candidate, precision="float64"):
    """Hold a candidate to a case; returns a `Report`, which is true if nothing was wrong.

    Parameters
    ----------
    case : a `Vector` (`vectors.find`), or a pair of Weights and tokens (b, i)
    candidate : {name: array} of any tensors in `steps.AXES`; a folder of them as `.npy`; or
        a function of (weights, tokens) that returns such a dict. A function gets copies in
        the precision it claims (float32 for the lower ones), several times: what it does to
        them, whether it does the same again, and whether it keeps anything from one call for
        the next, with other weights or other tokens, is checked too.
    precision : "float64", "float32", "tf32" or "bfloat16": what the candidate claims

    Arrays may be of any framework, as long as `numpy.asarray` takes them (a torch tensor's
    gradient is detached). Raises InputError on names and shapes that nothing has.
    """
    if precision not in UNIT:
        raise InputError(f"precision must be one of {', '.join(UNIT)}; got {precision!r}")
    dtype = "float64" if precision == "float64" else "float32"
    if not isinstance(case, vectors.Vector):
        case = vectors.Vector("your case", case[0].astype(dtype), np.asarray(case[1]))
    if not callable(candidate):
        if not isinstance(candidate, dict):
            candidate = read_answer(candidate, case)
        return _judge(case, _tensors(case, candidate), precision)
    for call in range(2):
        arguments = case.weights.astype(dtype), case.tokens.copy()
        report = _judge(case, _tensors(case, candidate(*arguments)), precision)
        written = [name for name, W in arguments[0].items()
                   if not np.array_equal(W, getattr(case.weights, name))]
        if not np.array_equal(arguments[1], case.tokens):
            written.append("tokens")
        note = (f"it wrote to its argument {written[0]}" if written else
                "wrong when called again with the same arguments")
        if written or (call and not report):
            return replace(report, note=note)
        if not report:
            return report
    for what, weights, tokens in (("weights", _halved(case.weights), case.tokens),
                                  ("tokens", case.weights, case.tokens[:, ::-1])):
        other = vectors.Vector(case.id, weights, tokens)
        answer = candidate(weights.astype(dtype), tokens.copy())
        if not _judge(other, _tensors(other, answer), precision):
            return replace(report, note=f"wrong when called again with other {what}: "
                           "does it keep something from the call before?")
    return report


def _halved(weights):
    return replace(weights, **{name: W / 2 for name, W in weights.items()})


def assert_matches(function, precision="float64", cases=None, drawn=10):
    """`check` a function; AssertionError with the report.

    On the core set and the first `drawn` cases of the larger one, which has more shapes; or on
    these cases. An error that the function raises is raised, with the case's name in a note.
    """
    if cases is None:
        cases = [*vectors.core().values(),
                 *(vectors.find(f"drawn-{n + 1}") for n in range(drawn))]
    checked = False
    for case in cases:
        try:
            report = check(case, function, precision)
        except Exception as error:
            error.add_note(f"on the case {getattr(case, 'id', case)}")
            raise
        if not report:
            raise AssertionError(str(report))
        checked |= bool(report.checked)
    if not checked:
        raise AssertionError("the function supplied no tensor in any case: nothing was checked")


def as_array(name, value):
    """A framework's array as float64, or InputError."""
    try:
        value = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of real numbers; got {error}") from None


def _tensors(case, candidate):
    """{name: float64 array}, with names and shapes checked."""
    if not isinstance(candidate, Mapping):
        raise InputError("an answer must be a dict of arrays, by name; got "
                         f"{type(candidate).__name__}")
    (b, i), w = case.tokens.shape, case.weights
    sizes = {"l": w.n_layers, "l+1": w.n_layers + 1, "b": b, "i": i, "j": i, "h": w.n_heads,
             "d": w.d_model, "e": w.d_head, "u": w.d_vocab, "v": w.d_vocab, "p": w.n_ctx}
    tensors = {}
    for name, value in candidate.items():
        if name not in AXES:
            near = difflib.get_close_matches(str(name), AXES, 1)
            raise InputError(f"a tensor must be one of {', '.join(AXES)}; got {name!r}"
                             f"{f', perhaps {near[0]!r}' if near else ''}")
        array = as_array(name, value)
        if array.shape != tuple(sizes[axis] for axis in AXES[name].split()):
            check_axes(name, array, AXES[name].split(), dict(sizes))
            raise InputError(f"{name} must have axes ({AXES[name]}); got {array.shape}")
        tensors[name] = array
    return tensors


def _judge(case, tensors, precision):
    """The walk."""
    reference = case.reference
    W, u = reference.W, UNIT[precision]
    checked, difference = [], None

    def mine(key):
        return tensors[key[0]] if key[1] is None else tensors[key[0]][key[1]]

    with np.errstate(all="ignore"):
        for step in reference.steps:
            if step.name not in tensors:
                continue
            key = step[:2]

            missing = tuple(dict.fromkeys(name for name, _ in step.inputs if name not in tensors))
            exact = case.exact and step.name in FORWARD and u <= UNIT["float32"]
            if exact:
                tier, desired, allowed = "exact", reference.expected[key], 0.0
            elif missing:
                tier, desired = "end to end", reference.expected[key]
                allowed = reference.allowed(precision)[key]
            else:
                inputs = [mine(key) for key in step.inputs]
                tier, desired = "local", step.value(W, *inputs)
                allowed = step.bound(u, W, *inputs) + FLOOR[precision]
            difference = _difference(step, tier, mine(key), desired, allowed, missing)
            if difference:
                break
            checked.append(step.label)
    names = dict.fromkeys(step.name for step in reference.steps)
    touched = {label.partition("[")[0] for label in checked} | {difference and step.name}
    return Report(case.id, precision, tuple(checked),
                  tuple(name for name in names if name not in tensors),
                  tuple(name for name in names if name in tensors and name not in touched),
                  tuple(name for name in tensors if name not in names), difference,
                  alike=lambda: looks_like(case, step, mine(step[:2]), missing, checked),
                  precisions=lambda: [name for name in UNIT if UNIT[name] > u
                                      and _judge(case, tensors, name)])


def _difference(step, tier, actual, desired, allowed, missing):
    """The `Difference`, or None."""
    error = abs(actual - desired)
    fine = (error <= allowed) | (actual == desired)
    if step.name == "scores":
        fine |= ~np.tri(fine.shape[-1], dtype=bool)
    if fine.all():
        return None
    allowed = np.broadcast_to(allowed, error.shape)
    excess = np.where(fine, -1, np.nan_to_num(error / np.maximum(allowed, 1e-300), nan=np.inf,
                                              posinf=np.inf))
    index = np.unravel_index(np.argmax(excess), error.shape)
    axes = AXES[step.name].split()
    return Difference(
        step.label, step.name, tier, " ".join(axes[step.layer is not None:]),
        tuple(map(int, index)), float(actual[index]), float(desired[index]), float(error[index]),
        float(allowed[index]), int((~fine).sum()), fine.size, missing)


def looks_like(case, step, actual, missing, checked=()):
    """Names of the mutants that explain 99% of the difference from what is expected, at most 3.

    Mutants of this step; if inputs of it are missing, of every step (circuits apart) that get
    right what was checked before.
    """
    seen = np.tri(*actual.shape[-2:], dtype=bool) if step.name == "scores" else True
    found = []

    def distance(other):
        """Of the numbers that are compared; infinite where one is NaN and the other is not."""
        with np.errstate(all="ignore"):
            apart = np.where(np.isnan(actual) & np.isnan(other) | (actual == other), 0,
                             abs(actual - other))
        return np.nan_to_num(np.where(seen, apart, 0), nan=np.inf).max()

    def right_before(theirs):
        for label in checked:
            name, _, layer = label.partition("[")
            number = int(layer[:-1]) if layer else None
            ours = case.reference.expected[name, number]
            other = np.asarray(theirs[name], np.float64)
            other = other if number is None else other[number]
            if not np.allclose(other, ours, 1e-9, 1e-9 * np.abs(ours).max(initial=0)):
                return False
        return True

    others = missing and step.name not in CIRCUITS
    for name, mutant in mutants.MUTANTS.items():
        if mutant.step == step.name or others and mutant.step not in ("call", *CIRCUITS):
            theirs = mutants.candidate(name)(case.weights.astype("float64"), case.tokens)
            if others and not right_before(theirs):
                continue
            theirs = np.asarray(theirs[step.name], np.float64)
            theirs = theirs if step.layer is None else theirs[step.layer]
            expected = distance(case.reference.expected[step[:2]])
            if distance(theirs) < max(expected / 100, np.finfo(float).tiny):
                found.append(name)
    return tuple(found[:3])


def kills(vector, name):
    """Whether a vector catches a mutant."""
    if mutants.MUTANTS[name].step in CIRCUITS and not vector.with_circuits:
        return False
    return not check(vector, mutants.candidate(name))
