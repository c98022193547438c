"""What the benchmarks share: each side in a process of its own, the processes in turn.

Thread pools of different libraries disturb each other, and a shared machine is faster at one
minute than at the next; so a side is measured in a fresh process, then the next side, and
round again.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module

SIZE = 3072                      # of the matrices whose product is this machine's best rate


def timed(step, seconds=2.0, least=5):
    """Median seconds of a call step(number), after a warm-up."""
    for number in range(min(3, least)):
        step(number)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < least:
        begun = time.perf_counter()
        step(len(times))
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def in_own_process(script, *arguments, held=False, python=sys.executable, package=None):
    """What `python script arguments` prints as JSON.

    held : BLAS as our command line holds it; package : the checkout whose minicircuits is run.
    """
    threads = import_module("minicircuits.cli").THREADS
    env = {name: value for name, value in os.environ.items() if name not in threads}
    env |= dict.fromkeys(threads, "1") if held else {}
    env |= {"PYTHONPATH": str(package)} if package else {}
    done = subprocess.run([python, script, *map(str, arguments)], stdout=subprocess.PIPE, env=env,
                          text=True, check=True)
    return json.loads(done.stdout)


def in_turn(sides, rounds):
    """The results of calling each of `sides`, {name: function}, `rounds` times: lists by name."""
    results = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def product_step():
    """One product of large float32 matrices; its rate is what this machine can do."""
    np = import_module("numpy")
    A = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    return lambda number: A @ A


def product_rate(rounds):
    """The best rate of several processes, in floating-point operations per second."""
    return 2 * SIZE ** 3 / min(in_own_process(__file__) for _ in range(rounds))


def spread(values, form="{:.2f}"):
    """median (least to largest)"""
    return (f"{form} ({form} to {form})").format(statistics.median(values), min(values),
                                                 max(values))


def ratios(others, ours):
    """Of each round: how many times ours goes into the other's."""
    return [other / own for other, own in zip(others, ours)]


if __name__ == "__main__":
    print(timed(product_step()))
