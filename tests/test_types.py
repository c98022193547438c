"""What an editor knows after `import minicircuits as mc`. Needs the extra `types`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minicircuits

pytestmark = pytest.mark.extra
PROLOGUE = """
import numpy as np
import minicircuits as mc
weights = mc.init_weights(2, 4, 32, 8, 50, 16, "shortformer", np.random.default_rng(0))
tokens = [[0, 1, 2, 1]]
acts = mc.forward(weights, np.array(tokens))
"""
REVEALED = {
    "mc.forward": "(weights: Weights, tokens: ndarray | Sequence[Sequence[int]]) -> Activations",
    "mc.loss_and_gradients(weights, tokens)": "tuple[float, Weights]",
    "acts.pattern": "ndarray",
    "mc.W_OV": "(weights: Weights, layer: int, head: int) -> LowRank",
    "mc.W_QK(weights, 1, 0).AB": "ndarray",
    "mc.expand_logits(weights, tokens, acts.pattern)": "list[Path]",
    "mc.matching_circuit": "(weights: Weights, earlier: tuple[int, int], later: tuple[int, int])"
                           " -> LowRank",
    "mc.bugs(weights, tokens, 0, 0, 3)[0].strength": "float",
    "mc.load_pretrained().weights.n_layers": "int",
    "mc.save": "(path: str | PathLike[str], weights: Weights, force: bool = False) -> None",
    "mc.relative_error(acts.logits, acts.logits)": "float",
    "mc.interop.crosswalk": "(*names: str) -> str",
}


def test_a_type_checker_knows_every_signature(tmp_path):
    (tmp_path / "program.py").write_text(PROLOGUE + "".join(
        f"reveal_type({expression})\n" for expression in REVEALED))
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({
        "typeCheckingMode": "standard",
        "extraPaths": [str(Path(minicircuits.__file__).parents[1])]}))
    checked = subprocess.run([sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath",
                              sys.executable], cwd=tmp_path, capture_output=True, text=True)
    found = json.loads(checked.stdout)["generalDiagnostics"]
    assert [row["message"] for row in found if row["severity"] != "information"] == []
    array = re.compile(r"ndarray\[tuple\[\w+, \.\.\.\], dtype\[\w+\]\]")
    told = [re.search('is "(.*)"$', row["message"])[1] for row in found]
    assert dict(zip(REVEALED, (array.sub("ndarray", type_) for type_ in told))) == REVEALED
