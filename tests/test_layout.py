"""The chart of training logs, and progress on standard error where somebody looks."""

import importlib.util
import sys
from contextlib import closing
from pathlib import Path

import pytest

from minicircuits.terminal import progress
from minicircuits.terminal.layout import WIDTH, columns, cut, ending, paragraph, table
from minicircuits.terminal.progress import LOG_HEADING, LOG_LEGEND, log_line, watched

spec = importlib.util.spec_from_file_location(
    "preamble", Path(__file__).parent.parent / "examples" / "preamble.py")
preamble = importlib.util.module_from_spec(spec)
spec.loader.exec_module(preamble)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def counted(clock, seconds, n=4):
    for item in watched(range(n), "heads"):
        clock[0] += seconds
        yield item


def test_says_how_many_are_done_and_the_time_left(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(counted(clock, 2)) == [0, 1, 2, 3]
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "".join(f"\r  {done} of 4 heads  {left} s left \x1b[K"
                          for done, left in ((1, 6), (2, 4), (3, 2))) + "\r\x1b[K"


def test_of_a_run_that_goes_on_it_says_more(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for item in watched(iter("abc"), "steps", 10, 12, lambda item, speed: f"{item} {speed}"):
        clock[0] += 0.5
    assert capsys.readouterr().err == ("\r  11 of 12 steps  b 2.0  0 s left \x1b[K"
                                       "\r  12 of 12 steps  c 2.0  0 s left \x1b[K\r\x1b[K")


@pytest.mark.parametrize("seconds, looking", [(2, False), (0.01, True)])
def test_silent_where_nobody_looks_or_nobody_waits(clock, monkeypatch, capsys, seconds, looking):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: looking)
    assert list(counted(clock, seconds)) == [0, 1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_interrupted_it_leaves_an_empty_line(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with closing(watched(range(4), "heads")) as items:
        next(items)
        clock[0] += 1
        next(items)
    assert capsys.readouterr().err.endswith("left \x1b[K\r\x1b[K")


def log(*values, step=1_000_000):
    return [{"tokens": n * step, "loss": value} for n, value in enumerate(values)]


def places(lines, mark):
    """(line, column) of every `mark`, from the chart's upper left corner."""
    return [(n, column - 10) for n, line in enumerate(lines[1:-2])
            for column, character in enumerate(line) if column >= 10 and character == mark]


def test_values_are_where_the_axes_say():
    lines = preamble.chart("loss (nats)", [("1", log(4, 2, 0)), ("2", log(4, 4, 3))], "loss", 9)
    assert lines[0] == "  loss (nats)"
    assert lines[1].startswith("    4.00 │") and lines[9].startswith("    0.00 │")
    assert lines[-1].startswith("         0 ") and lines[-1].endswith(" 2.0 million tokens")
    one, two = places(lines, "1"), places(lines, "2")
    assert (4, 34) in one and (8, 68) in one                # 2 of 4 halfway, 0 at the end
    assert (0, 0) in two and (0, 34) in two and (2, 68) in two
    assert [column for _, column in sorted(two, key=lambda place: place[1])] == list(range(69))
    rows = [row for row, _ in sorted(one, key=lambda place: place[1])]
    assert rows == sorted(rows)                             # falls, and is straight in between


def test_a_shorter_run_ends_earlier_and_runs_of_a_kind_share_a_mark():
    lines = preamble.chart("", [("2", log(0, 1, 2)), ("1", log(2, 2)), ("1", log(1, 1))], "loss", 3)
    assert max(column for _, column in places(lines, "1")) == 34
    assert {row for row, _ in places(lines, "1")} == {0, 1}


def test_flat_curves_and_single_measurements_are_drawn():
    assert places(preamble.chart("", [("1", log(0.5, 0.5))], "loss"), "1") == [
        (0, column) for column in range(69)]
    assert (0, 0) in places(preamble.chart("", [("1", log(0.5))], "loss"), "1")


@pytest.mark.parametrize("values", [(0, 1), (-123.456, 1234.5)])
def test_no_line_is_wider_than_the_terminal(values):
    lines = preamble.chart("loss", [("1", log(*values))], "loss")
    assert max(map(len, lines)) <= WIDTH and len(lines) == 11


def test_wide_characters_take_two_columns():
    assert [columns(text) for text in ("ab…", "道可", "道a", "e\u0301")] == [3, 4, 3, 1]
    assert cut("道可道非", 8) == "道可道非" and cut("道可道非", 7) == "道可道…" == cut("道可道非常", 8)
    assert table(["a", "b"], [["道可", "x"], ["c", "道"]]) == ["  a      b", "  道可   x", "  c     道"]


def test_the_end_of_a_text_is_cut_between_characters():
    assert ending("abc", 3) == "abc" and ending("abcdefg", 6) == "… defg"
    assert ending(r"ab\xe4\xb9", 8) == r"… \xb9" == ending(r"ab\xe4\xb9", 9)
    assert ending("道可道非", 7) == "… 道非"


def test_the_log_of_a_run_explains_its_columns_and_has_no_minus_zero():
    row = {"step": 1, "seconds": 2, "loss": 3, "validation": 4, "in_context": -0.001,
           "previous_token": None, "prefix_matching": 0.5}
    assert log_line(row, False).split() == ["1", "2", "s", "3.000", "4.000", "0.00", "–", "0.50"]
    for title in ("loss", "held-out", "in context", "previous", "induction", "–"):
        assert title in LOG_LEGEND.lower() and (title in LOG_HEADING or title == "–")
    assert max(map(len, [LOG_HEADING, *paragraph(LOG_LEGEND).split("\n")])) <= WIDTH
