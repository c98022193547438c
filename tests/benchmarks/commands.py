"""What `heads` and `report` take on the packaged model: to the first line, and in all.

    python tests/benchmarks/commands.py [--against CHECKOUT]

Each run is a process of its own, as a user starts it, in turn with the others; imports are in it.
Medians of rounds, the least and the largest. The first line is what a user waits for; CPU seconds
are of all cores together, and tell more than others where a machine is shared. With --against,
the same commands of another checkout of this project are run in turn, and set in ratio.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from alternate import in_turn, ratios, spread

HERE = Path(__file__).parents[2]
MEASURED = ("first line", "wall", "CPU")


def run(arguments, package):
    """Seconds of one run of `python -m minicircuits arguments`, as MEASURED."""
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "minicircuits", *arguments], text=True,
                          stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(package)},
                          cwd=package) as process:
        next(line for line in process.stdout if line.strip())
        first = time.perf_counter() - begun
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return first, time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", metavar="CHECKOUT", help="another one of this project")
    options = parser.parse_args()
    packages = {"": HERE} | ({" against": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, "page.html")
        commands = {"heads": ["heads"], "report": ["report", "-o", page, "--force"]}
        results = in_turn({command + name: partial(run, arguments, package)
                           for command, arguments in commands.items()
                           for name, package in packages.items()}, options.rounds)
    for command in commands:
        for name in packages:
            theirs, ours = (zip(*results[key]) for key in (command + name, command))
            for what, times, own in zip(MEASURED, theirs, ours):
                print(f"{command + name:<16}{what:<12}{spread(times)} s"
                      + (f"   ratio {spread(ratios(times, own))}" if name else ""))


if __name__ == "__main__":
    main()
