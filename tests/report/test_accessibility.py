"""For everybody: axe-core's rules, contrast, the keyboard, and nothing that jumps."""

import importlib.util
from pathlib import Path

import pytest

import minicircuits.report.notebook as notebook
from minicircuits.report.notebook import attention
from tests.report.reported import reported

pytestmark = pytest.mark.extra
axe = importlib.util.find_spec("axe_playwright_python")

# Of each rule that is broken, some of what breaks it.
AXE = """async () => (await axe.run({resultTypes: ["violations"]})).violations.map(
    ({id, nodes}) => [id, nodes.length, ...nodes.slice(0, 3).map(({html}) => html)])"""


def violations(page):
    page.evaluate((Path(axe.origin).parent / "axe.min.js").read_text())
    found = []
    for width in (400, 1200):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            found += [(width, scheme, *broken) for broken in page.evaluate(AXE)]
    return found


@pytest.mark.parametrize("name", ["0", "1", "2", "living-0", "living-1", "living-2"])
def test_axe_finds_nothing(opened, alive, folder, name):
    assert violations(opened(folder / f"{name}.html")) == []


@pytest.mark.parametrize("live", [1_000_000, 0])
def test_axe_finds_nothing_in_a_notebook(opened, tmp_path, monkeypatch, live):
    monkeypatch.setattr(notebook, "LIVE", live)
    shown = attention(reported(2).model.weights, [[1, 2, 3, 4, 2]])
    (tmp_path / "frame.html").write_bytes(shown.page)
    assert violations(opened(tmp_path / "frame.html")) == []
