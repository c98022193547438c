"""How text is laid out at 80 columns: headings, tables, wrapped and cut lines."""

import textwrap

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


def paragraph(text):
    """The text over lines of at most 80 columns, all indented by 2."""
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def plural(number, noun):
    """As in "1 case", "2 cases"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(bytes):
    """As in "341 bytes", "5.0 kB", "9.9 MB"."""
    return (f"{bytes / 1e6:.1f} MB" if bytes >= 1e6 else f"{bytes / 1e3:.1f} kB" if bytes >= 1e3
            else plural(bytes, "byte"))


def cut(text, width):
    return text if len(text) <= width else text[:width - 1] + "…"
