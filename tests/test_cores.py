"""Work side by side: every result, in order, whatever the cores; and BLAS held meanwhile."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest

from minicircuits import cores


@contextmanager
def of_threads(monkeypatch, count):
    """As on a machine with so many cores."""
    with ThreadPoolExecutor(count) as pool, monkeypatch.context() as patch:
        patch.setattr(cores.shared, "pool", pool)
        yield


@pytest.fixture
def blas(monkeypatch):
    """A BLAS with 8 threads in place of the real ones: its `count`, and all it was set to."""
    fake = SimpleNamespace(count=8, history=[])

    def set_threads(count):
        fake.count = count
        fake.history.append(count)
    monkeypatch.setattr(cores, "loaded_blas",
                        lambda: [(lambda: fake.count, set_threads)])
    return fake


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_order_whichever_is_ready_first(monkeypatch, count):
    released = threading.Event()

    def work(n):
        if count > 1:                        # the first waits for the second
            released.set() if n == 1 else released.wait(10) if n == 0 else None
        return n * n
    with of_threads(monkeypatch, count):
        assert list(cores.side_by_side(work, range(20))) == [n * n for n in range(20)]


def test_once_no_more_is_asked_for_what_has_not_begun_never_does(monkeypatch, blas):
    begun, go_on = [], threading.Event()

    def work(n):
        begun.append(n)
        if n > 0:
            go_on.wait(10)
        return n
    with of_threads(monkeypatch, 2):
        with closing(cores.side_by_side(work, range(100))) as results:
            assert next(results) == 0 and blas.count == 1
        assert blas.count == 8
        go_on.set()
    assert len(begun) <= 4


def test_an_error_is_the_callers(blas):
    with pytest.raises(ZeroDivisionError):
        list(cores.side_by_side(lambda n: 1 // n, range(-3, 9)))
    assert blas.history == [1, 8]


def test_blas_is_held_meanwhile_and_let_go_after(blas):
    assert list(cores.side_by_side(lambda n: blas.count, range(9))) == [1] * 9
    assert blas.history == [1, 8]


def test_the_first_of_several_holds_blas_and_the_last_lets_it_go(blas):
    """In whatever order they leave: the number before was 8, not the 1 that the second saw."""
    first, second = cores.one_blas_thread(), cores.one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas.history == [1]
    second.__exit__(None, None, None)
    assert blas.history == [1, 8] and cores.shared.holders == 0


@pytest.mark.parametrize("with_threadpoolctl", [
    False, pytest.param(True, marks=pytest.mark.extra)])
def test_a_real_blas_is_found_and_held(monkeypatch, with_threadpoolctl):
    """In a process of its own, where it has more threads than one."""
    program = """if True:
        import numpy
        from minicircuits import cores
        if not {}:
            cores.ThreadpoolController = None
        (get, put), *_ = cores.loaded_blas()
        put(2)
        print(get(), *cores.side_by_side(lambda n: get(), range(2)), get())"""
    assert cores.ThreadpoolController is not None or not with_threadpoolctl, "the extra `fast`"
    if not with_threadpoolctl:
        monkeypatch.setattr(cores, "ThreadpoolController", None)
        if not cores.loaded_blas.__wrapped__():
            pytest.skip("this NumPy's BLAS is none that cores knows")
    seen = subprocess.run([sys.executable, "-c", program.format(with_threadpoolctl)],
                          env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True,
                          text=True, check=True).stdout
    assert seen.split() == ["2", "1", "1", "2"]


@pytest.mark.parametrize("threads, parallel", [("1", True), ("2", False), (None, False)])
def test_a_blas_that_is_not_found_works_side_by_side_only_if_held_from_the_start(
        monkeypatch, threads, parallel):
    monkeypatch.setattr(cores, "ThreadpoolController", None)
    monkeypatch.setattr(cores, "shared_libraries", lambda: [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    cores.loaded_blas.cache_clear()
    with warnings.catch_warnings(record=True, action="always") as warned:
        for _ in range(2):
            names = set(cores.side_by_side(lambda _: threading.current_thread().name, range(9)))
    cores.loaded_blas.cache_clear()
    assert all(name.startswith("piece") for name in names) is parallel
    assert ("MainThread" in names) is not parallel
    assert ["OMP_NUM_THREADS=1" in str(warning.message) for warning in warned] == (
        [] if parallel else [True])


def in_a_fork(queue):
    queue.put(list(cores.side_by_side(lambda n: n + cores.shared.holders, range(3))))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")        # of forking beside threads
def test_a_forked_process_has_a_pool_of_its_own(blas):
    """It has none of its parent's threads, nor their locks: it would wait for ever."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    assert list(cores.side_by_side(abs, range(3))) == [0, 1, 2]
    with cores.one_blas_thread(), cores.shared.lock:
        child = context.Process(target=in_a_fork, args=(queue,), daemon=True)
        child.start()
    assert queue.get(timeout=30) == [1, 2, 3]
    child.join()
