"""What one sees while one waits: a line that counts, and the log of a training run."""

import sys
import time

LOG_HEADING = (f"  {'step':>5} {'time':>8} {'loss':>8} {'held-out':>10} {'in context':>10} "
               f"{'previous':>10} {'induction':>10}")
LOG_LEGEND = (
    "Losses are in nats per token: loss in training, held-out on text set aside. In context: the "
    "held-out loss at position 100 less that at 10. On random tokens that come twice, the most "
    "attention of a head: previous, to the token before; induction, to what followed earlier "
    "copies. –: contexts are too short for it.")


def watched(items, name, first=0, total=None, note=None):
    """Yields `items`, and counts them on standard error with the time left.

    It shows nothing where standard error is no terminal, nor in the first fifth of a second.

    name : what the items are, in the plural
    first, total : the number of the first item, and of all; by default 0 and len(items)
    note : function (item, items per second) -> text to show beside the count, or None
    """
    total = len(items) if total is None else total
    begun = shown = time.perf_counter()
    try:
        for done, item in enumerate(items):
            now = time.perf_counter()
            if done and now - shown >= 0.2 and sys.stderr.isatty():
                shown, speed = now, done / (now - begun)
                said = f"{note(item, speed)}  " if note else ""
                print(f"\r  {first + done} of {total} {name}  {said}"
                      f"{(total - first - done) / speed:.0f} s left \x1b[K", end="",
                      file=sys.stderr, flush=True)
            yield item
    finally:
        if shown > begun:
            clear_line()


def clear_line():
    """Empty the line that `watched` shows, before something else is printed."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def log_line(row, newly_formed):
    """A measurement of a training run, as a line below LOG_HEADING; "–": contexts too short."""
    mark = " ← induction" if newly_formed else ""
    scores = (f"{'–' if row[name] is None else f'{row[name]:z.2f}':>10}"
              for name in ("in_context", "previous_token", "prefix_matching"))
    return (f"  {row['step']:>5} {row['seconds']:>6.0f} s {row['loss']:>8.3f} "
            f"{row['validation']:>10.3f} {' '.join(scores)}{mark}")
