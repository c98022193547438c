"""The commands `vectors`, `check` and `mutants`."""

import json
import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress

import numpy as np

from minicircuits import files
from minicircuits.notation import InputError, check_tokens
from minicircuits.terminal.layout import plural, wrapped
from minicircuits.testing import checking, exchange
from minicircuits.testing.mutants import MUTANTS, candidate
from minicircuits.testing.steps import AXES, CIRCUITS, DTYPE, FORWARD, WEIGHT_LETTERS
from minicircuits.testing.vectors import Vector, by_loops, core, find, recorded


def vectors(options):
    """`minicircuits vectors list|show|export|verify`."""
    actions = {"list": print_list, "show": show, "export": export, "verify": verify}
    return actions[options.action](options)


def print_list(options):
    if options.json:
        return write_json(options.json, [
            {"id": v.id, "comment": v.comment, "hunts": v.hunts, "exact": v.exact,
             "positions": v.weights.positions} for v in core().values()])
    for vector in core().values():
        print(vector.id)
        print(wrapped(f"    {vector.comment}"))
        print(wrapped(f"    hunts {', '.join(vector.hunts) or 'nothing: a control'}"))
    print("drawn2-1, drawn2-2, …\n    the larger set, each made from its number")


def show(options):
    vector, name = find(options.id, options.shape, options.tied), options.tensor
    arrays = {**dict(vector.weights.items()), "tokens": vector.tokens,
              **vector.reference.arrays()}
    if name is not None:
        if name not in arrays:
            raise InputError(f"a tensor of {vector.id} must be one of {', '.join(arrays)}; got "
                             f"{name[:80]!r}")
        with np.printoptions(linewidth=80, precision=8, threshold=10 ** 6):
            return print(arrays[name])
    print(wrapped(f"{vector.id}: {vector.comment}; positions {vector.weights.positions}"))
    for name, array in arrays.items():
        axes = exchange.GIVEN_AND_EXPECTED[name].split()
        print(f"  {name:<16} ({', '.join(axes)}) {array.shape}"
              if axes else f"  {name:<16} one number")


def export(options):
    chosen = asked(options, options.id, options.drawn)
    paths = [os.path.join(options.folder, vector.id) for vector in chosen]
    for path in paths:                       # ask before the first is written
        if not options.force and os.path.exists(path):
            raise files.FileError(f"cannot write {path!r}: it exists already")
    files.make_folder(options.folder)
    for vector, path in zip(chosen, paths):
        exchange.write_case(path, vector, options.convention, DTYPE[options.precision],
                            force=options.force)
    print(f"{plural(len(chosen), 'case')} in {options.folder}")


def asked(options, ids, drawn):
    """The vectors of these ids or, if there are none, the core set; or one's own; some drawn."""
    own = options.weights is not None
    if own != (options.tokens is not None):
        raise InputError("a case of your own needs both --weights FILE and --tokens FILE.npy; got "
                         f"{'the first' if own else 'the second'} alone")
    ids = [*(ids or (() if own else core())), *(f"drawn2-{n + 1}" for n in range(drawn))]
    chosen = [find(id, options.shape, options.tied) for id in dict.fromkeys(ids)]
    return [own_case(options), *chosen] if own else chosen


def own_case(options):
    """The vector "own": of a weights file and tokens."""
    weights = files.load(options.weights)
    if weights.dtype.kind != "f":
        raise InputError(f"weights of a case must be real; got {weights.dtype}")
    tokens = check_tokens(weights, files.read_npy(options.tokens, exchange.MAX_TENSOR))
    return Vector("own", weights.astype("float64"), tokens, "your own").variant(
        options.shape, options.tied)


def verify(options):
    wrong = {}
    for folder in options.folder:
        here = os.path.exists(os.path.join(folder, "manifest.json"))
        for case in [folder] if here else subfolders(folder):
            wrong[case] = ", ".join(exchange.verify_case(case))
    for vector in core().values() if not options.folder else ():
        problem = checking.check(vector, by_loops(vector)).problem if vector.stored else ""
        wrong[vector.id] = problem if recorded(vector) else "not the numbers on record"
    for name, what in wrong.items():
        print(f"WRONG {name}: {what}" if what else f"ok    {name}")
    return int(any(wrong.values()))


def check(options):
    """`minicircuits check FOLDER` and `minicircuits check --program COMMAND`."""
    if (options.folder is None) == (options.program is None):
        raise InputError("check needs a FOLDER of answers or --program COMMAND; got "
                         f"{'neither' if options.folder is None else 'both'}")
    named = options.case or options.weights
    if options.drawn is None:
        options.drawn = 0 if named or options.program is None else 10
    if options.drawn > 10_000:
        raise InputError(f"--drawn must be at most 10000; got {options.drawn}")
    reports, run_or_read = [], folder_reports if options.program is None else program_reports
    for report in run_or_read(options):
        if not options.json:                 # each as it comes, the first difference in full
            print(report.line if report or not all(reports) else report, flush=True)
        reports.append(report)
    answered = {report.case.id for report in reports}
    unanswered = [] if named else [id for id in core() if id not in answered]
    declined = sum(report.nothing for report in reports)
    passed = all(reports) and not unanswered and declined < len(reports)
    if options.json:
        write_json(options.json, {"passed": passed, "unanswered": unanswered,
                                  "cases": [report.as_json() for report in reports]})
        return int(not passed)
    print(f"{plural(len(reports), 'case')}, {sum(not report for report in reports)} wrong"
          + (f", {declined} declined, so not checked" if declined else ""))
    if all(reports):
        print_gaps(reports)
    if unanswered:
        print(wrapped(f"no answer to: {', '.join(unanswered)}"))
    return int(not passed)


def folder_reports(options):
    """Reports of the answers in FOLDER/ID, or of those in FOLDER itself for one --case."""
    folder, ids = options.folder, options.case
    direct = any(name.endswith(".npy") for name in exchange.names_in(folder))
    if not (direct or ids or options.weights):
        ids = [os.path.basename(case) for case in subfolders(folder)]
        if not ids:
            raise InputError(f"{folder!r} must hold a folder of .npy files for each vector, named "
                             "by its id; got none")
    chosen = asked(options, ids, options.drawn)
    if direct and len(chosen) != 1:
        raise InputError(f"{folder!r} holds one answer: say to which vector with --case ID; got "
                         f"{plural(len(chosen), 'vector')}")
    for vector in chosen:
        id, answers = vector.id, folder if direct else os.path.join(folder, vector.id)
        if "manifest.json" in exchange.names_in(answers):
            raise InputError(f"{answers!r} holds the expected numbers, not an answer")
        answer = exchange.read_answer(answers, vector, options.convention)
        if not answer:
            raise InputError(f"{folder!r} must hold .npy files for {id}; got none")
        yield checking.check(vector, answer, options.precision)


def program_reports(options):
    """Reports of a program, whose command has to name both its folders."""
    command = options.program
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"cannot split {command!r} into words: {str(error).lower()}") from None
    for place in "{case}", "{out}":
        if not any(place in word for word in words):
            raise InputError(f"--program needs {place} where its folder goes; got {command!r}")
    for vector in asked(options, options.case, options.drawn):
        yield run(words, vector, options)


def run(words, vector, options):
    """The report of a program on a case: it gets two folders, and a time to answer in."""
    with tempfile.TemporaryDirectory() as work:
        case, out = os.path.join(work, "case"), os.path.join(work, "out")
        exchange.write_case(case, vector, options.convention, DTYPE[options.precision],
                            expected=False)
        os.mkdir(out)
        words = [word.replace("{case}", case).replace("{out}", out) for word in words]
        note = ended(words, options.timeout)
        try:
            answer = {} if note else exchange.read_answer(out, vector, options.convention)
            if not note:                         # nothing written: the case is declined
                return checking.check(vector, answer, options.precision)
        except InputError as error:              # the other cases are still to be run
            note = str(error).replace(out, "{out}")
        return checking.Report(vector, options.precision, note=note)


def ended(words, timeout):
    """Run a program: how it failed, with the last line it wrote to standard error, or ""."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True,
                                       stdout=subprocess.DEVNULL, stderr=errors)
        except OSError as error:
            raise InputError(f"cannot run {words[0]!r}: {error.strerror.lower()}") from None
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout:g} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)       # with all that it started
            process.wait()
        if not status:
            return ""
        errors.seek(0)
        lines = errors.read(10 ** 6).decode("utf-8", "replace").strip().splitlines() or [""]
    said = "".join(c if c.isprintable() else "?" for c in lines[-1][:200])
    return f"the program ended with status {status}{said and ': '}{said}"


def print_gaps(reports):
    """What no case, and what not every case had checked."""
    supplied = {label.partition("[")[0] for report in reports for label in report.checked}
    gaps = {name: sum(name in report.not_supplied for report in reports) for name in AXES}
    if never := [name for name in AXES if gaps[name] and name not in supplied]:
        print(wrapped(f"not supplied, so not checked: {', '.join(checking.short(never))}"))
    if not any(f"d{name}" in supplied for name in (*FORWARD, *WEIGHT_LETTERS)):
        print("no gradient was checked")
    for name in AXES:
        if name in supplied and gaps[name]:
            print(f"{name} not supplied in {plural(gaps[name], 'case')} of {len(reports)}")


def mutants(options):
    """`minicircuits mutants`: which vectors catch which known bug."""
    matrix = {}
    for n, id in enumerate(() if options.json else core()):
        print(f"  {'|' * n}+ {id}")
    for name in MUTANTS:
        asked = [vector for vector in core().values() if name in vector.hunts or (
            vector.stored and (vector.with_circuits or MUTANTS[name].step not in CIRCUITS))]
        matrix[name] = [v.id for v in asked if not checking.check(v, candidate(name))]
        if not options.json:
            marks = "".join("x" if v.id in matrix[name] else "." if v in asked else " "
                            for v in core().values())
            print(f"  {marks}  {name}", flush=True)
    missed = [name for name in matrix if not matrix[name]]
    if options.json:
        write_json(options.json, matrix)
    else:
        print(f"{len(matrix)} known bugs, {len(missed)} not caught"
              f"{': ' if missed else ''}{', '.join(missed)}")
    return int(bool(missed))


def write_json(path, value):
    """To standard output for "-"."""
    if path == "-":
        print(json.dumps(value, indent=1))
    else:
        files.write_json(path, value)


def subfolders(folder):
    found = [os.path.join(folder, name) for name in exchange.names_in(folder)]
    return [path for path in found if os.path.isdir(path)]
