"""Is this implementation right, and if not, which step is the first to be wrong?

A candidate supplies any of the tensors in `steps.AXES`. They are walked in the order of
computation, and each is held to the strictest tier that applies: exact, local or end to end (the
README, "Tolerances"). So the first that is wrong had right inputs, if they were supplied.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np

from minicircuits.notation import InputError, check_axes, relative_error
from minicircuits.terminal.layout import plural, wrapped
from minicircuits.testing import exchange, mutants, vectors
from minicircuits.testing.steps import AXES, CIRCUITS, DTYPE, FLOOR, UNIT, part


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
    case: vectors.Vector
    precision: str
    checked: tuple = ()      # tensors found right
    not_supplied: tuple = ()
    not_judged: tuple = ()   # supplied, but after the first difference
    meaningless: tuple = ()  # supplied, but not defined in this case: no loss of one token
    difference: Difference | None = None
    note: str = ""           # a mistake that is no tensor's
    tensors: dict = field(default=None, repr=False)

    def __bool__(self):
        return self.difference is None and not self.note

    @property
    def id(self):
        return self.case.id

    @cached_property
    def looks_like(self):
        """Names of at most three mutants that get the tensor wrong in the same way."""
        return known_bugs(self) if self.difference else ()

    @property
    def problem(self):
        """A few words, or ""."""
        return self.note or (self.difference.tensor if self.difference else "")

    @property
    def nothing(self):
        """Whether nothing was supplied that this case has."""
        return bool(self) and not self.checked

    @property
    def line(self):
        """The report in one line."""
        if self.nothing:
            return f"none  {self.case.id}: nothing supplied, so nothing checked"
        return (f"{'ok   ' if self else 'WRONG'} {self.case.id}: "
                f"{self.problem or plural(len(self.checked), 'tensor') + ' right'}")

    def __str__(self):
        lines = [self.line]
        if d := self.difference:
            place = ", ".join(f"{axis}={n}" for axis, n in zip(d.axes.split(), d.index))
            lines += [f"  the first that is wrong, in {d.wrong} of {d.of} numbers",
                      f"    worst at  [{place}]",
                      f"    yours     {d.yours:.10g}", f"    expected  {d.expected:.10g}",
                      f"    error     {d.error:.2g}, allowed {d.allowed:.2g} ({d.tier})"]
            lines += [wrapped(f"  matches `{name}`: {mutants.MUTANTS[name].says}")
                      for name in self.looks_like]
            supply = ", ".join(d.missing)
            lines.append(wrapped(
                f"  it or a step before it is wrong; to tell which, supply {supply}") if supply else
                "  what it is computed from is right: the mistake is in this step")
            lines += [f"  it would pass as --precision {name}" for name in UNIT
                      if UNIT[name] > UNIT[self.precision]
                      and judge(self.case, self.tensors, name)][:1]
        for says, names in (("not supplied, so not checked", short(self.not_supplied)),
                            ("not judged, as they come after it", short(self.not_judged)),
                            ("not judged, as this case has none", self.meaningless)):
            lines += [wrapped(f"  {says}: {', '.join(names)}")] if names else []
        return "\n".join(lines)

    def as_json(self):
        found = {name: getattr(self, name) for name in (
            "precision", "checked", "not_supplied", "not_judged", "meaningless", "note")}
        if d := self.difference:
            numbers = {name: repr(value) for name, value in d._asdict().items()
                       if isinstance(value, float) and not np.isfinite(value)}
            d = {**d._asdict(), **numbers, "looks_like": self.looks_like}
        return {"case": self.case.id, "passed": bool(self), **found, "difference": d}


def short(names):
    """The names, with one word for the circuits where all are there."""
    rest = [name for name in names if name not in CIRCUITS]
    return [*rest, "all circuits"] if len(names) - len(rest) == len(CIRCUITS) else names


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
    if not isinstance(case, vectors.Vector):
        case = vectors.Vector("your case", case[0].astype(DTYPE[precision]), np.asarray(case[1]))
    if not callable(candidate):
        if not isinstance(candidate, Mapping):
            candidate = exchange.read_answer(candidate, case)
        return judge(case, as_tensors(case, candidate), precision)
    again, reports = "wrong when called again with", []
    kept = "does it keep something from the call before?"
    for other, note in ((case, ""), (case, f"{again} the same arguments"),
                        *zip(case.others, (f"{again} other weights: {kept}",
                                           f"{again} other tokens: {kept}"))):
        weights, tokens = other.weights.astype(DTYPE[precision]), other.tokens.copy()
        report = judge(other, as_tensors(other, candidate(weights, tokens)), precision)
        for name, array in [*weights.items(), ("tokens", tokens)]:
            given = other if array is tokens else other.weights.astype(DTYPE[precision])
            if not np.array_equal(array, getattr(given, name)):
                return replace(report, note=f"it wrote to its argument {name}")
        if not report:
            return replace(report, note=note)
        reports.append(report)
    return reports[0]


def assert_matches(function, precision="float64", cases=None, drawn=10, shape=None, tied=False):
    """`check` a function; AssertionError with the report.

    On the core set and the first `drawn` cases of the larger one, which has more shapes, or on
    these cases. `vectors.cases` says what `shape` and `tied` are. An error that the function
    raises is raised, with the case's name in a note.
    """
    if cases is None:
        cases = vectors.cases(shape, tied, drawn)
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
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of real numbers; got {error}") from None


def as_tensors(case, answer):
    """{name: float64 array} of an answer, or InputError on a name or a shape that nothing has."""
    if not isinstance(answer, Mapping):
        raise InputError("an answer must be a dict of arrays, by name; got "
                         f"{type(answer).__name__}")
    (b, i), w, tensors = case.tokens.shape, case.weights, {}
    sizes = {"l": w.n_layers, "l+1": w.n_layers + 1, "b": b, "i": i, "j": i, "h": w.n_heads,
             "d": w.d_model, "e": w.d_head, "u": w.d_vocab, "v": w.d_vocab, "p": w.n_ctx}
    for name, value in answer.items():
        if name not in AXES:
            near = difflib.get_close_matches(str(name), AXES, 1)
            raise InputError(f"a tensor must be one of {', '.join(AXES)}; got {name!r}"
                             f"{f', perhaps {near[0]!r}' if near else ''}")
        tensors[name] = as_array(name, value)
        check_axes(name, tensors[name], AXES[name].split(), sizes)
    return tensors


def judge(case, tensors, precision):
    """The `Report` on {name: array}: the walk, up to the first difference."""
    steps = [step for step in case.reference.steps if step.name in tensors]
    checked, difference = [], None
    for step in steps:
        if difference := difference_of(case, step, tensors, precision):
            break
        checked.append(step.label)
    reached = {step.name for step in steps[:len(checked) + 1]}
    names = dict.fromkeys(step.name for step in case.reference.steps)
    return Report(case, precision, tuple(checked),
                  tuple(name for name in names if name not in tensors),
                  tuple(name for name in names if name in tensors and name not in reached),
                  tuple(name for name in tensors if name not in names), difference,
                  tensors=tensors)


@np.errstate(all="ignore")
def difference_of(case, step, tensors, precision):
    """The `Difference` of a step's tensor from what is expected, or None."""
    reference, u, yours = case.reference, UNIT[precision], part(tensors, step.key)
    missing = tuple(dict.fromkeys(name for name, _ in step.inputs if name not in tensors))
    if step.name in case.exact and u <= UNIT["float32"]:
        tier, expected, allowed = "exact", reference.expected[step.key], 0.0
    elif missing:
        tier, expected = "end to end", reference.expected[step.key]
        allowed = reference.allowed(precision)[step.key]
    else:
        inputs = [part(tensors, key) for key in step.inputs]
        tier, expected = "local", step.value(reference.W, *inputs)
        allowed = step.bound(u, reference.W, *inputs) + FLOOR[precision]
    error = abs(yours - expected)
    fine = (error <= allowed) | (yours == expected) | ~compared(step, yours)
    if fine.all():
        return None
    allowed = np.broadcast_to(allowed, error.shape)
    excess = np.nan_to_num(error / np.maximum(allowed, 1e-300), nan=np.inf, posinf=np.inf)
    index = np.unravel_index(np.argmax(np.where(fine, -1, excess)), error.shape)
    axes = AXES[step.name].split()[step.layer is not None:]
    return Difference(
        step.label, step.name, tier, " ".join(axes), tuple(map(int, index)), float(yours[index]),
        float(expected[index]), float(error[index]), float(allowed[index]), int((~fine).sum()),
        fine.size, missing)


def compared(step, array):
    """Which numbers of a tensor count: of scores, those that the mask leaves."""
    return np.tri(array.shape[-1], dtype=bool) if step.name == "scores" else np.array(True)


@np.errstate(all="ignore")
def known_bugs(report):
    """Names of the mutants that explain 99% of the report's difference, at most 3.

    Mutants of the step that is wrong. If inputs of it are missing, also of all before it that
    was not supplied, as far as they get right what was found right.
    """
    case, expected = report.case, report.case.reference.expected
    steps = {step.label: step for step in case.reference.steps}
    step, suspects, right = steps[report.difference.tensor], {report.difference.step}, []
    yours, counts = part(report.tensors, step.key), compared(step, expected[step.key])
    if report.difference.missing and step.name not in CIRCUITS:
        before = takewhile(lambda other: other is not step, steps.values())
        suspects |= {other.name for other in before} - report.tensors.keys()
        right = [steps[label].key for label in report.checked]

    def distance(other):
        """Of the numbers that are compared; infinite where one is NaN and the other is not."""
        same = np.isnan(yours) & np.isnan(other) | (yours == other) | ~counts
        return np.nan_to_num(np.where(same, 0, abs(yours - other)), nan=np.inf).max()

    close = max(distance(expected[step.key]) / 100, np.finfo(float).tiny)

    def explains(name):
        theirs = mutants.candidate(name)(case.weights.astype("float64"), case.tokens)
        return distance(part(theirs, step.key)) < close and all(
            relative_error(part(theirs, key), expected[key]) <= 1e-9 for key in right)

    return tuple(islice((name for name, mutant in mutants.MUTANTS.items()
                         if mutant.step in suspects and explains(name)), 3))
