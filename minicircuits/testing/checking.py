"""Is this implementation right, and if not, which step is the first to be wrong?

A candidate supplies any of the tensors in `steps.AXES`. They are walked in the order of
computation, and each is held to the strictest tier that applies: exact, local or end to end (the
README, "Tolerances"). So the first that is wrong had right inputs, if they were supplied.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np

from minicircuits.notation import InputError, check_axes, relative_error
from minicircuits.terminal.layout import plural, wrapped
from minicircuits.testing import exchange, mutants, vectors
from minicircuits.testing.steps import (AXES, BIAS_LETTERS, CIRCUITS, DTYPE, FLOOR, FORWARD, UNIT,
                                        WEIGHT_LETTERS, part)

LOOPS = 100_000          # products of a case that all known bugs, plain loops, are tried on


class Difference(NamedTuple):
    """A tensor found wrong."""
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
    relative: float          # the largest error, as a share of the largest number expected
    common: tuple            # what the wrong numbers have in common, in words


@dataclass(frozen=True)
class Report:
    """What `check` found; true if something was checked and nothing was wrong."""
    case: vectors.Vector
    precision: str
    checked: tuple = ()      # tensors found right
    not_supplied: tuple = ()
    not_judged: tuple = ()   # supplied, but computed from what is wrong
    meaningless: tuple = ()  # supplied, but not defined in this case: no loss of one token
    difference: Difference | None = None
    also: tuple = ()         # wrong too, and not computed from what is wrong
    note: str = ""           # a mistake that is no tensor's
    when: str = ""           # how the case was changed, of a function that was right before
    tensors: dict = field(default_factory=dict, repr=False)

    def __bool__(self):
        return bool(self.checked) and not self.wrong

    @property
    def wrong(self):
        return self.difference is not None or bool(self.note)

    @cached_property
    def looks_like(self):
        """Names of at most three mutants that get the tensor wrong in the same way."""
        return known_bugs(self) if self.difference else ()

    @property
    def problem(self):
        """A few words, or ""."""
        if self.wrong or self.checked:
            return self.note or (self.difference.tensor + self.when if self.difference else "")
        return ("nothing that this case has was supplied, so nothing was checked"
                if self.meaningless else "nothing was supplied, so nothing was checked")

    @property
    def line(self):
        """The report in one line."""
        return (f"{'ok   ' if self else 'WRONG' if self.wrong else 'none '} {self.case.id}: "
                f"{self.problem or plural(len(self.checked), 'tensor') + ' right'}")

    def __str__(self):
        return "\n".join(self.lines([self]))

    def lines(self, run):
        """The report in full, as one of the reports of a run."""
        lines = [wrapped(self.line)]
        if d := self.difference:
            place = ", ".join(f"{axis}={n}" for axis, n in zip(d.axes.split(), d.index))
            lines += [f"  the first that is wrong, in {d.wrong} of {d.of} numbers",
                      *(f"    {words}" for words in d.common),
                      f"    worst at  [{place}]",
                      f"    yours     {d.yours:.10g}", f"    expected  {d.expected:.10g}",
                      f"    error     {d.error:.2g}, allowed {d.allowed:.2g} ({d.tier})"]
            lines += [wrapped(f"  matches `{name}`: {mutants.MUTANTS[name].says}")
                      for name in self.looks_like]
            supply = ", ".join(d.missing)
            lines.append(wrapped(
                f"  it or a step before it is wrong; to tell which, supply {supply}") if supply else
                "  what it is computed from is right: the mistake is in this step")
            if name := () if self.looks_like else lower_precision(run):
                lines.append(f"  it would pass as --precision {name}")
        also = [other.tensor for other in self.also]
        for says, names in (("wrong too, and not computed from it", also),
                            ("not supplied, so not checked", short(self.not_supplied)),
                            ("not judged, as computed from what is wrong", short(self.not_judged)),
                            ("not judged, as this case has none", self.meaningless)):
            lines += [wrapped(f"  {says}: {', '.join(names)}")] if names else []
        return lines

    def as_json(self):
        found = {name: getattr(self, name) for name in (
            "precision", "checked", "not_supplied", "not_judged", "meaningless", "note", "when")}
        found["also"] = [other.tensor for other in self.also]
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
    """Hold a candidate to a case; returns a `Report`, which is true if all it supplied is right.

    Parameters
    ----------
    case : a `Vector` (`vectors.find`), or a pair of Weights and tokens (b, i)
    candidate : {name: array} of any tensors in `steps.AXES`; a folder of them as `.npy`; or
        a function of (weights, tokens) that returns such a dict; of a case with biases, of
        (weights, tokens, biases), the last a dict of arrays. A function gets copies in
        the precision it claims (float32 for the lower ones), several times: what it does to
        them, whether it does the same again, and whether it keeps anything from one call for
        the next, with other weights or other tokens, is checked too.
    precision : "float64", "float32", "tf32" or "bfloat16": what the candidate claims

    Arrays may be of any framework, as long as `numpy.asarray` takes them (a torch tensor's
    gradient is detached), bfloat16 too. Raises InputError on names and shapes that nothing has.
    """
    if precision not in UNIT:
        raise InputError(f"precision must be one of {', '.join(UNIT)}; got {precision!r}")
    if not isinstance(case, vectors.Vector):
        case = vectors.Vector("your case", case[0].astype(DTYPE[precision]), np.asarray(case[1]))
    if callable(candidate):
        return check_function(case, candidate, precision)
    if not isinstance(candidate, Mapping):
        candidate = exchange.read_answer(candidate, case)
    return judge(case, as_tensors(case, candidate), precision)


def check_function(case, function, precision):
    """The `Report` of a function: of its first call, or of the first that shows a mistake."""

    def report_on(case):
        weights, tokens = case.weights.astype(DTYPE[precision]), case.tokens.copy()
        biases = {name: b.astype(DTYPE[precision]) for name, b in (case.biases or {}).items()}
        answer = function(weights, tokens, *[biases] * bool(biases))
        report = judge(case, as_tensors(case, answer), precision)
        given = {**case.given, "tokens": case.tokens}
        for name, array in [*weights.items(), *biases.items(), ("tokens", tokens)]:
            if not np.array_equal(array, given[name].astype(array.dtype)):
                return replace(report, note=f"it wrote to its argument {name}")
        return report

    earlier = [report_on(case)]
    if not earlier[0]:
        return earlier[0]
    for other in (case, *case.others):
        report, what = report_on(other), "the same arguments" if other is case else other.comment
        again = f"wrong when called again with {what}"
        if report.note or other is case and report.wrong:
            return replace(report, note=report.note or again)
        if report.wrong:
            kept = any(same_answer(report, former) for former in earlier)
            if kept or not same_answer(report, report_on(other)):
                return replace(report, note=f"{again}: it keeps something from the call before")
            return replace(report, when=f", with {what}")
        earlier.append(report)
    return earlier[0]


def same_answer(report, other):
    """Whether the tensor that a report finds wrong has the same numbers in the other report."""
    name, near = report.difference.step, 1e3 * UNIT[report.precision]
    theirs = other.tensors.get(name)
    return theirs is not None and np.allclose(
        report.tensors[name], theirs, rtol=near, atol=near * abs(theirs).max(initial=0),
        equal_nan=True)


def assert_matches(function, precision="float64", cases=None, drawn=10, shape=None, tied=False,
                   biases=False, norm=None):
    """`check` a function; AssertionError with the most telling report, unless all is right.

    On the core set and the first `drawn` cases of the larger one, which has more shapes; or on
    these cases. `vectors.cases` says what `shape`, `tied`, `biases` and `norm` are. If all is
    right, it prints what was not checked. An error that the function raises is raised, with the
    case's name in a note, unless a case before was wrong.
    """
    if cases is None:
        cases = vectors.cases(shape, tied, drawn, biases, norm)
    reports = []
    for case in cases:
        try:
            reports.append(check(case, function, precision))
        except Exception as error:
            if any(report.wrong for report in reports):
                break                            # which may be why
            error.add_note(f"on the case {getattr(case, 'id', case)}")
            raise
    wrong = [report for report in reports if report.wrong]
    head = [] if any(report.difference for report in wrong) else [r.line for r in wrong[:1]]
    text = "\n".join(head + summary(reports))
    if wrong or not any(reports):
        raise AssertionError(text)
    print(text)


def summary(reports):
    """What a run found, as lines: the most telling difference in full, what was not checked."""
    wrong = [report for report in reports if report.wrong]
    telling = most_telling([report for report in wrong if report.difference])
    lines = telling.lines(reports) if telling is not None else []
    lines.append(f"{plural(len(reports), 'case')}, {len(wrong)} wrong")
    if none := [report for report in reports if not report.checked and not report.wrong]:
        lines += [wrapped(f"nothing was checked in {len(none)} of them: "
                          f"{', '.join(report.case.id for report in none)}")]
    return lines + (gaps(reports) if any(reports) and not wrong else [])


def gaps(reports):
    """What no case, and what not every case had checked, as lines."""
    supplied = {label.partition("[")[0] for report in reports for label in report.checked}
    lacking = {name: sum(name in report.not_supplied for report in reports) for name in AXES}
    lines = []
    if never := [name for name in AXES if lacking[name] and name not in supplied]:
        lines.append(wrapped(f"not supplied, so not checked: {', '.join(short(never))}"))
    if not any(f"d{name}" in supplied for name in (*FORWARD, *WEIGHT_LETTERS, *BIAS_LETTERS)):
        lines.append("no gradient was checked")
    return lines + [f"{name} not supplied in {plural(lacking[name], 'case')} of {len(reports)}"
                    for name in AXES if name in supplied and lacking[name]]


def most_telling(reports):
    """The one with a known bug's name, with all inputs of its step, with the largest error.

    Only a few are asked for names, as that takes runs of the plain loops. None of no reports.
    """
    def rank(report):
        d = report.difference
        return d.tier != "local", len(d.missing) > 0, -round(np.fmin(d.relative, 1), 1)

    found = sorted(reports, key=rank)
    named = [report for report in sorted(found[:8], key=loops)[:4] if report.looks_like]
    return min(named, key=lambda report: (len(report.looks_like), found.index(report)),
               default=(found or [None])[0])


def lower_precision(reports):
    """The next precision at which every case would pass, if errors are of its size; or ""."""
    wrong = [report for report in reports if report.wrong]
    if not all(report.difference and not report.note for report in wrong):
        return ""
    size = max(report.difference.relative for report in wrong)
    for name in UNIT:
        if (UNIT[name] > UNIT[wrong[0].precision] and UNIT[name] / 64 <= size <= 8 * UNIT[name]
                and not any(judge(report.case, report.tensors, name).wrong for report in reports)):
            return name
    return ""


def as_array(name, value):
    """A framework's array as float64, or InputError."""
    try:
        if hasattr(value, "detach"):             # torch, whose bfloat16 NumPy does not read
            value = value.detach().cpu()
            value = value.double() if value.is_floating_point() else value
        array = np.asarray(value)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":      # as JAX has it
            raise TypeError(f"{array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of real numbers; got "
                         f"{str(error).splitlines()[0][:200]}") from None


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
            theirs = exchange.stems(w.n_layers, "transformer_lens").get(name)
            near = [theirs] if theirs else difflib.get_close_matches(str(name), AXES, 1)
            raise InputError("a tensor must have a name of minicircuits.testing.steps.AXES; got "
                             f"{str(name)[:80]!r}{f', perhaps {near[0]!r}' if near else ''}")
        array = as_array(name, value)
        tensors[name] = array.reshape(()) if name == "loss" and array.size == 1 else array
        check_axes(name, tensors[name], AXES[name].split(), sizes)
    return tensors


def judge(case, tensors, precision):
    """The `Report` on {name: array}: the walk, past what is computed from a wrong tensor."""
    checked, found, spoiled = [], [], set()
    for step in case.reference.steps:
        if not spoiled.isdisjoint(step.inputs):
            spoiled.add(step.key)
        elif step.name in tensors:
            if difference := difference_of(case, step, tensors, precision):
                found.append(difference)
                spoiled.add(step.key)
            else:
                checked.append(step.label)
    judged = {label.partition("[")[0] for label in (*checked, *(d.tensor for d in found))}
    names = dict.fromkeys(step.name for step in case.reference.steps)
    return Report(case, precision, tuple(checked),
                  tuple(name for name in names if name not in tensors),
                  tuple(name for name in names if name in tensors and name not in judged),
                  tuple(name for name in tensors if name not in names),
                  *(found[:1] or [None]), tuple(found[1:]), tensors=tensors)


@np.errstate(all="ignore")
def difference_of(case, step, tensors, precision):
    """The `Difference` of a step's tensor from what is expected, or None."""
    reference, u, yours = case.reference, UNIT[precision], part(tensors, step.key)
    missing = tuple(dict.fromkeys(name for name, _ in step.inputs if name not in tensors))
    expected = reference.expected[step.key]
    if (step.name in case.exact and step.name != "scores"                # where scales may round
            and u <= UNIT["float32"]):
        tier, allowed = "exact", 0.0
    elif missing:
        tier, allowed = "end to end", reference.allowed(precision)[step.key]
    else:
        inputs, tier = [read(tensors, key) for key in step.inputs], "local"
        expected = step.value(reference.W, *inputs)
        allowed = step.bound(u, reference.W, *inputs) + FLOOR[precision]
    error = abs(yours - expected)
    counts = influences(step.name, yours)
    fine = (error <= allowed) | (yours == expected) | ~counts
    reads = {name.removeprefix("d") for name, _ in step.inputs}
    if tier == "local" and reads & {"q", "k", "v", "z"} and not fine.all():
        # Those supplied need not be those used: scores through W_QK, writes through W_OV. There
        # what cancels in q or z does not: what a row's largest number may differ by, all may.
        reach = reference.allowed(precision)[step.key].max(-1, keepdims=True)
        fine |= abs(yours - reference.expected[step.key]) <= reach
    if fine.all():
        return None
    allowed = np.broadcast_to(allowed, error.shape)
    excess = np.nan_to_num(error / np.maximum(allowed, 1e-300), nan=np.inf, posinf=np.inf)
    index = np.unravel_index(np.argmax(np.where(fine, -1, excess)), error.shape)
    axes = AXES[step.name].split()[step.layer is not None:]
    largest = np.where(counts & np.isfinite(expected), abs(expected), 0).max(initial=0)
    return Difference(
        step.label, step.name, tier, " ".join(axes), tuple(map(int, index)), float(yours[index]),
        float(expected[index]), float(error[index]), float(allowed[index]), int((~fine).sum()),
        fine.size, missing, float(np.where(fine, 0, error).max() / max(largest, 1e-300)),
        tuple(in_common(axes, ~fine, yours, expected, u)))


def influences(name, array):
    """Which numbers of a tensor something is computed from: not those that the mask hides."""
    hidden = name in ("scores", "dpattern")
    return np.tri(array.shape[-1], dtype=bool) if hidden else np.array(True)


def read(tensors, key):
    """The tensor of a key, and 0 where nothing reads it."""
    array = part(tensors, key)
    return np.where(influences(key[0], array), array, 0)


def in_common(axes, wrong, yours, expected, u):
    """What the wrong numbers have in common and others have not, in words."""
    others, places, claims = ~wrong & (expected != 0) & (expected != 1), np.indices(wrong.shape), []
    for axis, n in zip(axes, places):
        first, last = n[wrong].min(), n[wrong].max()
        says = (f"{axis} = {first}" if first == last else
                f"from {axis} = {first} on" if last == n.max() else
                f"up to {axis} = {last}" if first == 0 else f"from {axis} = {first} to {last}")
        claims.append((says, (first <= n) & (n <= last)))
    if axes[-2:] == ["i", "j"]:
        i, j = places[-2:]
        claims += ("where j > i", j > i), ("where j = i", j == i), ("where j < i", j < i)
    if wrong.sum() > 1:
        yield from (f"only {says}" for says, where in claims
                    if where[wrong].all() and not where[others].all())
    yield from as_numbers(yours[wrong], expected[wrong], u)
    if wrong.sum() > 2 and (abs(np.sort(yours, None) - np.sort(expected, None))
                            <= 64 * u * abs(expected).max()).all():
        yield "the right numbers, but in other places"


def as_numbers(yours, expected, u):
    """What all of yours are: one number, or so many times or so much more than is expected."""
    they, many = ("all are", True) if len(yours) > 1 else ("it is", False)
    if many and (np.isnan(yours).all() or (yours == yours[0]).all()):
        yield f"{they} {yours[0]:.6g}"
    elif np.isfinite([yours, expected]).all():
        error, largest = abs(yours - expected), np.argmax(abs(expected))
        rounding = np.minimum(error / 10, 8 * u * abs(yours))
        ratio, shift = yours[largest] / expected[largest], yours[largest] - expected[largest]
        near = np.maximum(1e-3 * np.minimum(error, abs(ratio * expected)), rounding)
        if (abs(yours - ratio * expected) <= near).all() and abs(ratio - 1) > 1e-3:
            words = times(ratio)
            if many or re.match(r"-?(1/)?\d+ ", words):         # of one number any ratio is
                yield f"{they} {words} what is expected"
        elif many and (abs(yours - expected - shift) <= np.maximum(1e-3 * error, rounding)).all():
            yield f"{they} {abs(shift):.6g} {'above' if shift > 0 else 'below'} what is expected"


def times(ratio):
    """As in "1/6 of", "2 times", "sqrt(3) times", "1.23457 times"."""
    for number, form in (ratio, "{}"), (ratio * abs(ratio), "sqrt({})"):
        near = Fraction(float(number)).limit_denominator(64)
        if near and abs(near - number) <= 1e-6 * abs(number):
            text = "-" * (near < 0) + form.format(abs(near))
            return f"{text} {'of' if abs(near.numerator) == 1 < near.denominator else 'times'}"
    return f"{ratio:.6g} times"


def loops(report):
    """How many products the plain loops take for a case, about."""
    (b, T), w = report.case.tokens.shape, report.case.weights
    heads = w.n_layers * w.n_heads * w.d_head * (T + 4 * w.d_model)
    return 3 * b * T * (heads + w.d_model * w.d_vocab)


@np.errstate(all="ignore")
def known_bugs(report):
    """Names of the mutants that explain 99% of the report's difference, at most 3.

    Mutants of the step that is wrong. If inputs of it are missing, also of all before it that
    was not supplied, as far as they get right what was found right. Of a large case those alone
    that it is kept for.
    """
    case, expected, u = report.case, report.case.reference.expected, UNIT[report.precision]
    names = dict.fromkeys((*case.hunts, *(mutants.MUTANTS if loops(report) <= LOOPS else ())))
    names = [name for name in names if not case.norm                 # which the loops have not
             and (case.biases or not mutants.MUTANTS[name].of_biases)]
    steps = {step.label: step for step in case.reference.steps}
    step, suspects, right = steps[report.difference.tensor], {report.difference.step}, []
    yours, counts = part(report.tensors, step.key), influences(step.name, expected[step.key])
    if report.difference.missing and step.name not in CIRCUITS:
        before = takewhile(lambda other: other is not step, steps.values())
        suspects |= {other.name for other in before} - report.tensors.keys()
        right = [steps[label].key for label in report.checked]

    def distance(other):
        """Whether the same rows have numbers that are not finite, and how far the others are."""
        spoiled = [~np.isfinite(array) & counts for array in (yours, other)]
        rows = [array.any(-1) if array.ndim else array for array in spoiled]
        off = np.where(spoiled[0] | spoiled[1] | ~counts, 0, abs(yours - other))
        clash = spoiled[0] & spoiled[1] & (yours != other) & ~(np.isnan(yours) & np.isnan(other))
        return (rows[0] == rows[1]).all() and not clash.any(), off.max(initial=0)

    size = np.where(np.isfinite(yours) & counts, abs(yours), 0).max(initial=0)
    alike, far = distance(expected[step.key])
    close = max(far / 100, min(far / 4, 8 * u * size) if alike else 8 * u * size,
                np.finfo(float).tiny)

    def explains(name):
        run = mutants.candidate(name, DTYPE[report.precision])
        theirs = run(case.weights.astype("float64"), case.tokens, case.biases)
        theirs = case.answered(theirs)
        same, off = distance(found := part(theirs, step.key))
        near = 0.02 * np.maximum(abs(yours), abs(found)) + 1e4 * u * size
        near = (abs(yours - found) <= near) | ~np.isfinite(yours - found) | ~counts
        return same and off < close and near.all() and all(
            relative_error(part(theirs, key), expected[key]) <= max(1e-9, 1e3 * u)
            for key in right)

    return tuple(islice((name for name in names if mutants.MUTANTS[name].step in suspects
                         and explains(name)), 3))
