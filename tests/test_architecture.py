"""Who may import whom: the arrows of the house, read from the source with `ast`.

Two rivers, `model` and `circuits`, never meet before `behavior`. If they shared a formula,
"the expansion equals the forward pass" would compare it with itself.
"""

import ast
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

import minicircuits

PACKAGE = Path(minicircuits.__file__).parent
MODULES = {str(path.relative_to(PACKAGE).with_suffix("")).replace("/", "."): path
           for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = {name.split(".")[0] for name in MODULES}

# Besides itself, and (but for the first five) the first four rooms. Nothing is transitive.
MAY_IMPORT = {
    "__init__": "",
    "door": "",
    "notation": "door",
    "files": "door notation",
    "cores": "",
    "model": "",
    "circuits": "",
    "behavior": "model circuits",
    "training": "model",
    "interop": "model circuits training",
    "plain": "",
    "findings": "model circuits behavior training",
    "terminal": "",
    "report": "model circuits behavior training findings",
    "testing": "plain interop circuits terminal",
    "runs": "model behavior terminal training",
    "commands": "model circuits behavior training interop runs findings terminal report",
    "cli": "testing commands",
    "__main__": "cli",
}
EVERYWHERE = {"numpy", "scipy", *sys.stdlib_module_names}
EXTRAS = {"threadpoolctl": "cores", "safetensors": "interop files",
          "tokenizers": "training", "hypothesis": "testing"}
FIRST_FOUR = ("door", "notation", "files", "cores")
IMPORTS_BY_NAME = ("__init__", "cli")      # so that NumPy is loaded when it is needed


def allowed_in(room):
    """The rooms that a room may import, besides itself."""
    everywhere = set() if room in ("__init__", *FIRST_FOUR) else set(FIRST_FOUR)
    return {*MAY_IMPORT[room].split(), *everywhere}


def complaints(module, source):
    """What is wrong with the imports of a module, e.g. "circuits.heads", as lines of text."""
    room, tree = module.split(".")[0], ast.parse(source)
    if room not in MAY_IMPORT:
        return [f"{room} is not drawn"]
    allowed = {room, *allowed_in(room)}
    at_top = set(tree.body)
    in_try = {node for block in tree.body if isinstance(block, ast.Try) for node in block.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in at_top | in_try:
            found.append(f"line {node.lineno}: an import inside something else")
        for target in targets(node, module, tree):
            outer, inner = target.partition(".")[::2]
            if outer == "minicircuits":
                if inner.split(".")[0] not in allowed:
                    found.append(f"line {node.lineno}: {room} → {inner} is not drawn")
            elif outer in EXTRAS:
                if room not in EXTRAS[outer].split() or node not in in_try:
                    found.append(f"line {node.lineno}: {outer} is an extra, for "
                                 f"{EXTRAS[outer]} to try at the top")
            elif outer not in EVERYWHERE:
                found.append(f"line {node.lineno}: {outer} is no dependency")
            elif outer == "importlib" and room not in IMPORTS_BY_NAME:
                found.append(f"line {node.lineno}: an import by name cannot be followed")
    return found


def targets(node, module, tree):
    """The modules that a node imports, each in full: "minicircuits.model.attention", "numpy"."""
    if isinstance(node, ast.Import):
        for name in node.names:
            if name.name != "minicircuits":
                yield name.name
            else:                          # the contents page: what is used of it counts
                used = name.asname or name.name
                yield from (from_contents_page(attribute.attr) for attribute in ast.walk(tree)
                            if isinstance(attribute, ast.Attribute)
                            and isinstance(attribute.value, ast.Name)
                            and attribute.value.id == used)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            above = ["minicircuits", *module.split(".")][:-node.level]
            source = ".".join([*above, source]).rstrip(".")
        if source == "minicircuits":
            yield from (from_contents_page(name.name) for name in node.names)
        else:
            yield source
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module", "__import__"):
        name = node.args[0]
        if isinstance(name, ast.Constant):
            yield name.value
        elif module not in IMPORTS_BY_NAME:
            yield "a name that is computed"


def from_contents_page(name):
    """Where `minicircuits.name` really is: a room, the home of a public name, or the page."""
    if name in ROOMS:
        return f"minicircuits.{name}"
    homes = minicircuits._ROOMS | minicircuits._HOME
    if name in homes:
        return f"minicircuits.{homes[name]}"
    return "sys" if name.startswith("__") else f"minicircuits.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_only_arrows_that_are_drawn(module):
    assert complaints(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_the_readme_draws_this_house():
    picture = (PACKAGE / "README.md").read_text(encoding="utf-8").split("```text\n")[1]
    picture = picture.split("```")[0].replace("first four", "door, notation, files, cores")
    drawn, room = {}, ""
    for line in picture.splitlines()[1:]:
        room = line[2:16].strip(" /").removesuffix(".py") or room      # a second line of imports
        drawn.setdefault(room, set()).update(filter(None, re.split("[, ]+", line[59:])))
    assert drawn == {room: allowed_in(room) for room in MAY_IMPORT if not room.startswith("__")}


def test_rooms_are_one_folder_deep_and_none_is_called_utils():
    assert all(module.count(".") <= 1 for module in MODULES)
    assert not any("util" in module for module in MODULES)


def test_the_textbook_is_short_and_knows_no_speed():
    """`model` without `fast` and `normalized`: its reading is lost to flags and length."""
    texts = [path.read_text(encoding="utf-8") for name, path in MODULES.items()
             if name.startswith("model.") and name not in ("model.fast", "model.normalized")]
    assert sum(text.count("\n") for text in texts) <= 320
    functions = [node for text in texts for node in ast.walk(ast.parse(text))
                 if isinstance(node, ast.FunctionDef)]
    assert max(node.end_lineno - node.lineno + 1 for node in functions) <= 25
    assert not {"lean", "in_place", "slices", "out"} & {
        argument.arg for node in functions for argument in node.args.args + node.args.kwonlyargs}


FORBIDDEN = {
    "the rivers meet": ("circuits.heads", "from minicircuits.model.attention import attention"),
    "the other way": ("model.attention", "import minicircuits.circuits.low_rank"),
    "as a module": ("circuits.heads", "import minicircuits.model.attention as a"),
    "through the contents page": ("circuits.heads", "from minicircuits import forward"),
    "as its attribute": ("circuits.heads", "import minicircuits as mc\nf = mc.forward"),
    "a module of a room": ("model.attention", "from minicircuits import hand_built"),
    "a whole room": ("model.attention", "from minicircuits import circuits"),
    "relative": ("circuits.heads", "from ..model.attention import attention"),
    "relative room": ("circuits.heads", "from .. import model"),
    "relative page": ("circuits.heads", "from .. import forward"),
    "from a room's own page": ("circuits.__init__", "from ..model import attention"),
    "behind": ("training.trainer", "from minicircuits.circuits.heads import ov_circuit"),
    "scores for the trainer": ("training.trainer", "from minicircuits.behavior import patterns"),
    "files know no model": ("files.weights", "from minicircuits.model.transformer import forward"),
    "notation knows nothing": ("notation", "from minicircuits.files import save"),
    "the page imports nothing": ("__init__", "from minicircuits.notation import Weights"),
    "what comes in is not judged": ("interop.names",
                                    "from minicircuits.behavior import patterns"),
    "no library runs the tour": ("plain.model", "from minicircuits.commands.tour import tour"),
    "a finding is not printed": ("findings.heads", "from minicircuits.terminal import layout"),
    "nor put on a page": ("findings.study", "from minicircuits.report import packing"),
    "text finds nothing": ("terminal.sections", "from minicircuits.findings import heads"),
    "nor the command line": ("report.page", "from minicircuits.cli import main"),
    "the tour is no test": ("commands.tour", "from minicircuits.plain import model"),
    "not even the oracle": ("model.attention", "from minicircuits.plain import model"),
    "a room nobody drew": ("helpers.arrays", "import numpy"),
    "nor a name": ("behavior.patterns", "from minicircuits import helpers"),
    "inside a function": ("behavior.patterns", "def f():\n    import json"),
    "inside a class": ("behavior.patterns", "class C:\n    import json"),
    "inside an if": ("behavior.patterns", "if True:\n    import json"),
    "inside a with": ("behavior.patterns", "with a:\n    import json"),
    "inside a try of a function": ("model.fast", "def f():\n  try:\n    import threadpoolctl\n"
                                   "  except ImportError:\n    pass"),
    "by name": ("behavior.patterns", "import importlib\nimportlib.import_module('json')"),
    "by the oldest name": ("circuits.heads", "m = __import__('minicircuits.model')"),
    "by a computed name": ("commands.tour", "from importlib import import_module\n"
                           "import_module('a' + b)"),
    "a stranger": ("model.attention", "import pandas"),
    "a stranger's part": ("model.attention", "from pandas.core import frame"),
    "a stranger, tried": ("model.attention", "try:\n    import pandas\nexcept ImportError: pass"),
    "an extra not tried": ("cores", "import threadpoolctl"),
    "an extra elsewhere": ("circuits.heads", "try:\n    import threadpoolctl\n"
                           "except ImportError: pass"),
    "torch": ("interop", "try:\n    import torch\nexcept ImportError: pass"),
    "one of several": ("model.attention", "import os, pandas, sys"),
}
DRAWN = {
    "itself": ("circuits.heads", "from minicircuits.circuits.low_rank import LowRank"),
    "itself, relative": ("circuits.heads", "from .low_rank import LowRank\nfrom . import copying"),
    "both rivers": ("behavior.patterns", "from minicircuits.model.transformer import forward\n"
                    "from minicircuits.circuits.heads import ov_circuit"),
    "notation and files": ("circuits.heads", "from minicircuits import files, notation\n"
                           "from minicircuits import Weights, load"),
    "the page's version": ("files", "import minicircuits\nprint(minicircuits.__version__)"),
    "NumPy, SciPy and Python": ("model.attention", "import os, numpy as np\n"
                                "from scipy.linalg import qr\nfrom collections.abc import Mapping"),
    "an extra": ("cores", "try:\n    import threadpoolctl\nexcept ImportError: pass"),
    "by name": ("cli", "from importlib import import_module\n"
                "def main():\n    import_module('minicircuits.commands.tour')"),
    "in a docstring": ("circuits.heads", '"""\n>>> from minicircuits.model import x\n"""'),
}


@pytest.mark.parametrize("module, source", FORBIDDEN.values(), ids=FORBIDDEN)
def test_an_arrow_that_is_not_drawn_is_seen(module, source):
    assert complaints(module, source)


@pytest.mark.parametrize("module, source", DRAWN.values(), ids=DRAWN)
def test_an_arrow_that_is_drawn_is_let_through(module, source):
    assert complaints(module, source) == []


# The contents page.

@pytest.mark.parametrize("statement", ["import minicircuits", "import minicircuits.cli",
                                       "import minicircuits; dir(minicircuits)",
                                       "from minicircuits import __version__"])
def test_numpy_is_not_loaded_before_it_is_used(statement):
    """So the command line can settle how many threads BLAS takes."""
    loaded = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=True).stdout.split()
    assert "minicircuits" in loaded and not {"numpy", "scipy"} & set(loaded)


@pytest.mark.parametrize("name", minicircuits._HOME)
def test_every_name_on_the_contents_page_is_where_it_says(name):
    home = import_module(f"minicircuits.{minicircuits._HOME[name]}")
    assert getattr(minicircuits, name) is getattr(home, name)
    assert getattr(home, name).__module__ == home.__name__, "its home is another module"
    assert name in dir(minicircuits)


def test_rooms_are_reachable_once_the_page_is_imported():
    """In a new process: here the tests have imported them all."""
    names = sorted(minicircuits._ROOMS)
    subprocess.run([sys.executable, "-c", "import minicircuits as mc\n" + "\n".join(
        f"assert mc.{name}.__name__ == 'minicircuits.{minicircuits._ROOMS[name]}'\n"
        f"assert '{name}' in dir(mc)" for name in names)], cwd=PACKAGE.parent, check=True)
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= set(names)


def test_editors_read_the_same_page():
    """`__init__.pyi` and `_MODULES` name the same things at the same places."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    told = []
    for node in stub.body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            assert node.level == 1 and alias.asname == alias.name    # only so is it public there
            place = [node.module] if node.module else []
            if alias.name not in minicircuits._HOME:
                place.append(alias.name)
            told.append((alias.name, ".".join(place)))
    assert sorted(told) == sorted((minicircuits._HOME | minicircuits._ROOMS).items())


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        minicircuits.nonsense


def test_every_file_is_packaged():
    """What is no Python travels only if `setup.cfg` says so."""
    config = ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    told = {package: patterns.split(", ")
            for package, patterns in config["options.package_data"].items()}
    for path in PACKAGE.rglob("*.*"):
        if path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
            assert any(map(path.match, told[package])), path
