"""How text is laid out at 80 columns: headings, tables and curves."""

import textwrap

import numpy as np

WIDTH = 80


def heading(title):
    return f"\n{title}\n{'─' * min(len(title), WIDTH)}"


def table(titles, rows):
    """Lines of aligned columns, from one row of titles and rows of text, all equally long.

    The first column is set to the left, all others to the right.
    """
    rows = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(cell.rjust(width) if n else cell.ljust(width)
                             for n, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in rows]


def wrapped(text):
    """The text over lines of at most 80 columns, all but the first indented by 4."""
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False,
                         break_on_hyphens=False)


def plural(number, noun):
    """As in "1 case", "2 cases"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cut(text, width):
    return text if len(text) <= width else text[:width - 1] + "…"


def chart(title, logs, value, height=8):
    """One measurement of several training runs over tokens seen, as curves.

    logs : pairs of a mark (one character) and a run's log, whose rows have "tokens" and
    `value`; runs of one kind share a mark, and where curves meet the last one drawn is seen.
    Curves are straight between measurements. Both axes are linear.
    """
    low, high = (extreme(row[value] for _, log in logs for row in log) for extreme in (min, max))
    end = max(log[-1]["tokens"] for _, log in logs)
    columns = np.arange(WIDTH - 11)
    lines = [[" "] * len(columns) for _ in range(height)]
    for mark, log in logs:
        tokens = [row["tokens"] for row in log]
        reached = columns <= tokens[-1] / (end or 1) * columns[-1]
        at = np.interp(columns[reached] / columns[-1] * end, tokens, [row[value] for row in log])
        rows = np.rint((high - at) / ((high - low) or 1) * (height - 1)).astype(int)
        for column, row in enumerate(rows):
            lines[row][column] = mark
    labels = {0: f"{high:.2f}", height - 1: f"{low:.2f}"}
    lines = [f"{labels.get(n, ''):>8} │{''.join(line).rstrip()}" for n, line in enumerate(lines)]
    right = f"{end / 1e6:.1f} million tokens"
    return [f"  {title}", *lines, f"{'':>8} └{'─' * len(columns)}",
            f"{'':>9}0{right:>{len(columns)}}"]
