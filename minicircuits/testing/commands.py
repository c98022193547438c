"""The commands `vectors`, `check` and `mutants`."""

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from itertools import count

import numpy as np

from minicircuits import files
from minicircuits.notation import InputError, check_tokens
from minicircuits.terminal.layout import plural, wrapped
from minicircuits.testing import checking, exchange
from minicircuits.testing.mutants import MUTANTS, candidate
from minicircuits.testing.steps import CIRCUITS, DTYPE
from minicircuits.testing.vectors import Vector, by_loops, core, find, recorded

WINDOWS = os.name == "nt"
DRAWN = 10               # cases of the larger set that a program gets unless it is said


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
    vector, name = find(options.id, *variant(options)), options.tensor
    arrays = {**vector.given, "tokens": vector.tokens, **vector.reference.arrays()}
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


def variant(options):
    return options.shape, options.tied, options.biases, options.norm


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
    chosen = [find(id, *variant(options)) for id in dict.fromkeys(ids)]
    return [own_case(options), *chosen] if own else chosen


def own_case(options):
    """The vector "own": of a weights file and tokens."""
    weights = files.load(options.weights)
    if weights.dtype.kind != "f":
        raise InputError(f"weights of a case must be real; got {weights.dtype}")
    tokens = check_tokens(weights, files.read_npy(options.tokens, exchange.MAX_TENSOR))
    return Vector("own", weights.astype("float64"), tokens, "your own").variant(
        *variant(options))


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
        options.drawn = 0 if named or options.program is None else DRAWN
    if options.drawn > 10_000:
        raise InputError(f"--drawn must be at most 10000; got {options.drawn}")
    reports, run_or_read = [], folder_reports if options.program is None else program_reports
    for report in run_or_read(options):
        if not options.json:
            print(wrapped(report.line), flush=True)
        reports.append(report)
    answered = {report.case.id for report in reports}
    unanswered = [] if named else [id for id in core() if id not in answered]
    passed = any(reports) and not any(report.wrong for report in reports) and not unanswered
    if options.json:
        write_json(options.json, {"passed": passed, "unanswered": unanswered,
                                  "cases": [report.as_json() for report in reports]})
        return int(not passed)
    print("\n".join(checking.summary(reports)))
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
        answers = folder if direct else os.path.join(folder, vector.id)
        if "manifest.json" in exchange.names_in(answers):
            raise InputError(f"{answers!r} holds the expected numbers, not an answer")
        yield checking.check(vector, exchange.read_answer(answers, vector, options.convention),
                             options.precision)


def program_reports(options):
    """Reports of a program, whose command has to name both its folders."""
    words = words_of(options.program)
    for place in "{case}", "{out}":
        if not any(place in word for word in words):
            raise InputError(f"--program needs {place} where its folder goes; got "
                             f"{options.program!r}")
    for vector in asked(options, options.case, options.drawn):
        yield run(words, vector, options)


def words_of(command):
    """The words of a command, as a POSIX shell has them; on Windows a backslash is a letter."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    lexer.escape = "" if WINDOWS else lexer.escape
    try:
        return list(lexer)
    except ValueError as error:
        raise InputError(f"cannot split {command!r} into words: {str(error).lower()}") from None


def run(words, vector, options):
    """The report of a program on a case: it gets two folders, and a time to answer in."""
    work = tempfile.mkdtemp()
    case, out = os.path.join(work, "case"), os.path.join(work, "out")
    try:
        exchange.write_case(case, vector, options.convention, DTYPE[options.precision],
                            expected=False)
        os.mkdir(out)
        words = [word.replace("{case}", case).replace("{out}", out) for word in words]
        note = ended(words, options.timeout)
        try:
            if not note:                         # no file is no mistake: the case is declined
                answer = exchange.read_answer(out, vector, options.convention)
                return checking.check(vector, answer, options.precision)
        except InputError as error:              # the other cases are still to be run
            note = str(error).replace(out, "{out}")
        return checking.Report(vector, options.precision, note=note)
    finally:
        remove(work)


def ended(words, timeout):
    """Run a program: how it failed, with the last line it wrote to standard error, or ""."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True,
                                       stdout=subprocess.DEVNULL, stderr=errors)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot run {words[0]!r}: {reason.lower()}") from None
        try:
            status = process.wait(min(timeout, 10 ** 6))
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout:g} s"
        finally:
            stop(process)
        if not status:
            return ""
        errors.seek(0)
        lines = errors.read(10 ** 6).decode("utf-8", "replace").strip().splitlines() or [""]
    said = "".join(c if c.isprintable() else "?" for c in lines[-1][:200])
    return f"the program ended with status {status}{said and ': '}{said}"


def stop(process):
    """End a process, with all that it started."""
    if WINDOWS:
        with suppress(OSError):
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)],
                           stdin=subprocess.DEVNULL, capture_output=True)
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove(folder, seconds=20):
    """Remove a folder, however deep; leave it if something goes on writing there.

    What is in a folder in it is moved up first, so no path grows long and nothing recurs.
    """
    numbers, end = count(), time.monotonic() + seconds
    while os.path.isdir(folder) and time.monotonic() < end:
        for entry in list(os.scandir(folder)):
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                for name in os.listdir(entry.path):
                    os.rename(os.path.join(entry.path, name),
                              os.path.join(folder, f"{next(numbers)}.moved"))
                os.rmdir(entry.path)
        with suppress(OSError):
            os.rmdir(folder)


def asked_of(name):
    """The vectors that a known bug is tried on: of the larger ones those alone that hunt it."""
    asked = [vector for vector in core().values() if name in vector.hunts or (
        vector.stored and (vector.with_circuits or MUTANTS[name].step not in CIRCUITS))]
    return [vector.variant(biases=MUTANTS[name].of_biases) for vector in asked]


def mutants(options):
    """`minicircuits mutants`: which vectors catch which known bug."""
    matrix = {}
    for n, id in enumerate(() if options.json else core()):
        print(f"  {'|' * n}+ {id}")
    for name in MUTANTS:
        asked = asked_of(name)
        matrix[name] = [v.id for v in asked if checking.check(v, candidate(name)).wrong]
        asked = [v.id for v in asked]
        if not options.json:
            marks = "".join("x" if id in matrix[name] else "." if id in asked else " "
                            for id in core())
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
