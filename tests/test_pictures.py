"""The picture of four parts: every allowed cell once, in colors that say the scores."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import minicircuits as mc

EXAMPLES = Path(__file__).parent.parent / "examples"
spec = importlib.util.spec_from_file_location("four_parts", EXAMPLES / "four_parts.py")
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    weights = mc.init_weights(2, 3, 12, 4, 9, 8, "shortformer", rng)
    return weights, rng.integers(9, size=(4, 8))


def levels(picture):
    """Five arrays (i, j): the number of the color of each cell, −1 where there is none."""
    found = []
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        level = np.full((8, 8), -1)
        for path in group.iter(f"{SVG}path"):
            for j, i in re.findall(r"M(\d+) (\d+)h1v1h-1z", path.get("d")):
                assert level[int(i), int(j)] == -1
                level[int(i), int(j)] = pictures.COLORS.index(path.get("fill"))
        found.append(level)
    return found


def test_the_cells_are_those_a_destination_may_see(case):
    found = levels(pictures.four_parts(*case, layer=1, head=2))
    assert len(found) == 5
    for level in found:
        assert ((level >= 0) == np.tri(8, dtype=bool)).all()


def test_colors_say_the_scores_of_the_forward_pass(case):
    """The last map is the model's own scores, each row less its mean; the ends of the scale
    are ± the largest of any map, which another part may hold."""
    weights, tokens = case
    scores = mc.forward(weights, tokens).scores[1, :, 2].mean(0)
    rows = [row[:i + 1] - row[:i + 1].mean() for i, row in enumerate(scores)]
    *parts, total = levels(pictures.four_parts(weights, tokens, 1, 2))
    middle = (len(pictures.COLORS) - 1) // 2
    shown, true = (np.concatenate(values) for values in (
        [total[i, :i + 1] - middle for i in range(8)], rows))
    largest = np.abs(true).max()
    unit = largest / np.abs(shown).max()            # about the width of a color
    assert np.abs(shown * unit - true).max() < 0.75 * unit
    assert np.corrcoef(shown, true)[0, 1] > 0.95
    assert max(np.abs(level[level >= 0] - middle).max() for level in (*parts, total)) == middle


def test_layer_0_has_only_the_part_that_is_neither(case):
    neither, Q, K, both, total = levels(pictures.four_parts(*case, layer=0, head=1))
    middle = (len(pictures.COLORS) - 1) // 2
    assert (neither == total).all() and np.unique(total).size > 3
    for part in Q, K, both:
        assert (part[np.tri(8, dtype=bool)] == middle).all()


def test_the_readmes_picture_is_what_it_draws():
    """Colors are in steps, so that rounding does not show."""
    drawn = (EXAMPLES / "four_parts.svg").read_text(encoding="utf-8")
    assert drawn == pictures.induction_head(mc.load_pretrained())
