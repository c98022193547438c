"""Progress on standard error: only where somebody looks, and gone when it is over."""

import sys
from contextlib import closing

import pytest

from minicircuits.report import terminal
from minicircuits.report.terminal import watched


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told to."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: now[0])
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
