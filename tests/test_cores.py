"""Work side by side: every result, in order, whatever the cores; and stopped when told to."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from minicircuits import cores


@pytest.fixture(autouse=True)
def fresh():
    cores.side_by_side.cache_clear()
    yield
    cores.side_by_side.cache_clear()


@contextmanager
def of_threads(monkeypatch, count):
    """As on a machine with so many cores, and BLAS that can be held from the start."""
    with ThreadPoolExecutor(count) as pool, monkeypatch.context() as patch:
        patch.setattr(cores, "pool", lambda: pool)
        patch.setattr(cores, "ThreadpoolController", None)
        patch.setitem(os.environ, "OMP_NUM_THREADS", "1")
        cores.side_by_side.cache_clear()
        yield


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order_whichever_is_ready_first(monkeypatch, count):
    released = threading.Event()

    def work(n):
        if count > 1:                        # the first waits for the second
            released.set() if n == 1 else released.wait(10) if n == 0 else None
        return n * n
    with of_threads(monkeypatch, count):
        assert list(cores.each(work, range(20))) == [n * n for n in range(20)]


def test_whoever_stops_listening_stops_the_work(monkeypatch):
    begun, go_on = [], threading.Event()

    def work(n):
        begun.append(n)
        if n > 0:
            go_on.wait(10)
        return n
    with of_threads(monkeypatch, 2):
        with closing(cores.each(work, range(100))) as results:
            assert next(results) == 0
        go_on.set()
    assert len(begun) <= 4


def test_an_error_is_the_callers(monkeypatch):
    with of_threads(monkeypatch, 2), pytest.raises(ZeroDivisionError):
        list(cores.each(lambda n: 1 // n, range(-3, 9)))


@pytest.mark.parametrize("threads, parallel", [("1", True), ("2", False), (None, False)])
def test_without_threadpoolctl_only_a_blas_held_from_the_start_works_side_by_side(
        monkeypatch, threads, parallel):
    monkeypatch.setattr(cores, "ThreadpoolController", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    names = set(cores.each(lambda _: threading.current_thread().name, range(9)))
    assert all(name.startswith("piece") for name in names) is parallel
    assert ("MainThread" in names) is not parallel


def test_with_threadpoolctl_blas_is_held_meanwhile_and_let_go_after(monkeypatch):
    held = []

    class Controller:
        @contextmanager
        def limit(self, limits, user_api):
            assert (limits, user_api) == (1, "blas")
            held.append(True)
            yield
            held.append(False)

    monkeypatch.setattr(cores, "ThreadpoolController", Controller)
    assert list(cores.each(lambda n: held == [True], range(9))) == [True] * 9
    assert held == [True, False]
