"""Every symbol in `notation`, `model` and `circuits` is in notation's table before it is used.

Looked at are docstrings and comments, in the order of the source: matrices (W_E, dW_Q), axes in
brackets, such as (b, i, d) or (h·e, d), and what carries an index (A_ij, x_i). A letter that a
file means otherwise it must say before, in the words quoted in LOCAL.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from minicircuits import notation

PACKAGE = Path(notation.__file__).parent
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
         for room in ("notation.py", "model/*.py", "circuits/*.py")
         for path in sorted(PACKAGE.glob(room))}

LETTERS_BLOCK, NAMES_BLOCK = re.search(
    r"Letters, as axes.*?\n\n(.*?)\n\n.*?Names, whose axes.*?\n\n(.*?)\n\n",
    notation.__doc__, re.DOTALL).groups()
LETTERS = set(re.findall(r"(?<!\S)([A-Za-z])  (?=[a-z])", LETTERS_BLOCK))
NAMES = (set(re.findall(r"^    (\w+) ", NAMES_BLOCK, re.MULTILINE)) | {"W"}
         | set(notation.WEIGHT_AXES) | set(notation.ACTIVATION_AXES)) - {"dname"}
SIZES = {size for axes in notation.WEIGHT_AXES.values() for size in axes}

WORDS = "scores?|pattern|logits|tokens?|term"       # that carry indices, besides letters

LOCAL = {
    "circuits.expansion": {"n": "through a sequence of heads h_1 … h_n",
                           "a": "row a = one-hot(destination)"},
    "circuits.low_rank": {**dict.fromkeys("mrn", "factors A (m, r) and B (r, n)"),
                          "s": "U (m, s), S (s,) descending", "M": "Of M_1 M_2 … M_n"},
    "model.fast": {"m": "Stacks of m matrices"},
    "circuits.skip_trigrams": {"B": "‖A_v‖ ‖B_u‖ ≥ |W_vu| of W = A B"},
}


def prose(source):
    """Docstrings and comments, in order, as one text."""
    strings = {(node.body[0].value.lineno, node.body[0].value.col_offset)
               for node in ast.walk(ast.parse(source))
               if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
               and ast.get_docstring(node) is not None}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n\n".join(token.string for token in tokens if token.type == tokenize.COMMENT
                       or token.type == tokenize.STRING and token.start in strings)


def symbols(text):
    """Every symbol with the place of its first use: {symbol: index}."""
    found = {}

    def use(symbol, place):
        found[symbol] = min(place, found.get(symbol, place))

    for match in re.finditer(r"\bd?(W_(?:[A-Z]+|pos))\b", text):
        use(match[1], match.start())
    for match in re.finditer(r"(?<![\w\])])\(([^()\s]+(?:, ?[^()\s]+)*),?\)", text):
        parts = match[1].split(", ")
        axes = [re.split(r"[·+−-]", part.replace("'", "").replace("′", "")) for part in parts]
        if all(re.fullmatch(r"[A-Za-z]|[0-9]*|[a-z]\w*", axis) for part in axes for axis in part):
            for axis in (axis for part in axes for axis in part if len(axis) == 1):
                if not axis.isdigit():
                    use(axis, match.start())
    for match in re.finditer(rf"(?<![\w.])d?([A-Za-z]|{WORDS})_([a-z]{{1,2}})\b", text):
        for symbol in [match[1]] * (len(match[1]) == 1) + list(match[2]):
            use(symbol, match.start())
    for match in re.finditer(r"(?:\^|[ΣΠ]_|\b(?:mean|max|min|std|var)_)\{?"
                             r"((?:[a-z],? ?)?[a-z])(?![a-z])", text):
        for symbol in re.findall("[a-z]", match[1]):
            use(symbol, match.start())
    return found


def strangers(module, text):
    """What is used and neither in the table nor said before, as lines of text."""
    known, local = LETTERS | NAMES | SIZES, LOCAL.get(module, {})
    text, wrong = re.sub(r"^ *>>> .*(?:\n *\S.*)*", "", text, flags=re.MULTILINE), []   # doctests
    for symbol, place in symbols(text).items():
        if symbol in local:
            if not 0 <= text.find(local[symbol]) <= place:
                wrong.append(f"{symbol} is used before {local[symbol]!r}")
        elif symbol not in known:
            wrong.append(f"{symbol} in …{text[max(0, place - 30):place + 30]!r}…")
    return wrong + [f"{symbol} is local and not used" for symbol in local
                    if symbol not in symbols(text)]


@pytest.mark.parametrize("module", FILES)
def test_every_symbol_is_in_the_table(module):
    assert strangers(module, prose(FILES[module].read_text(encoding="utf-8"))) == []


TABLE = "Notation's table has what this says: scores_ij = x_iᵀ W_QK x_j, (b, i, d), Σ_h A^{l,h}."


@pytest.mark.parametrize("said, symbol", [
    ("scores_im = 1", "m"), ("f_i = x_i", "f"), ("the matrix W_XY", "W_XY"), ("as dW_QX", "W_QX"),
    ("q : (b, w, d)", "w"), ("q : (h·w, d)", "w"), ("Σ_{b, m} x", "m"), ("W_OV^w", "w")])
def test_a_stranger_is_seen(said, symbol):
    assert strangers("notation", TABLE) == []
    wrong, = strangers("notation", f"{TABLE}\n{said}")
    assert wrong.startswith(f"{symbol} in ")


def test_what_is_local_is_said_before(monkeypatch):
    monkeypatch.setitem(LOCAL, "here", {"w": "weight w of a place"})
    assert strangers("here", "A weight w of a place, w_i.") == []
    assert strangers("here", "w_i, for a weight w of a place") == [
        "w is used before 'weight w of a place'"]
    assert strangers("here", "w_i") == ["w is used before 'weight w of a place'"]
    assert strangers("here", "x_i") == ["w is local and not used"]


def test_the_table_is_found():
    assert {"b", "i", "j", "k", "l", "h", "g", "d", "e", "u", "v", "p", "T", "L", "H"} == LETTERS
    assert {"t", "x", "y", "A", "W_QK", "W_OV", "W_E", "W_pos", "q", "z", "scores"} <= NAMES
