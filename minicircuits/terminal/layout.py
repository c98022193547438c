"""How text is laid out at 80 columns: headings, tables, wrapped and cut lines."""

import re
import textwrap
import unicodedata

WIDTH = 80


def heading(title):
    return f"\n{title}\n{'─' * min(len(title), WIDTH)}"


def table(titles, rows):
    """Lines of aligned columns, from one row of titles and rows of text, all equally long.

    The first column is set to the left, all others to the right.
    """
    rows = [titles, *rows]
    widths = [max(map(columns, column)) for column in zip(*rows)]
    return ["  " + "  ".join(" " * (width - columns(cell)) + cell if n else set_left(cell, width)
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


def columns(text):
    """How many columns a terminal gives a text: two for wide characters, none for marks on them."""
    return sum(0 if unicodedata.category(character) in ("Mn", "Me") else
               2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def set_left(text, width):
    return text + " " * (width - columns(text))


def cut(text, width):
    """The beginning of a text, and … where it is cut."""
    if columns(text) <= width:
        return text
    return next(part for n in range(width, -1, -1) if columns(part := text[:n] + "…") <= width)


def ending(text, width):
    r"""The end of a text, after … where it is cut. Escapes such as \x9c are not cut in two."""
    if columns(text) <= width:
        return text
    ends = (part.start() for part in re.finditer(r"\\(?:x..|u.{4}|U.{8}|.)|.", text))
    return next(part for n in ends if columns(part := f"… {text[n:]}") <= width)
