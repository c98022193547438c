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


def test_a_group_has_one_tab_stop_and_keeps_the_focus(opened, alive):
    page = opened(alive("2"))
    stops = "group => group.querySelectorAll('button:not([tabindex=\"-1\"])').length"
    group = page.locator("#ledger .candidates").first
    assert group.evaluate(stops) == 1
    button = group.locator("[aria-pressed=false]").first
    words = button.text_content()
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == words
    assert page.locator(":focus").get_attribute("aria-pressed") == "true"
    assert group.evaluate(stops) == 1


def test_the_focus_goes_on_from_the_heads(opened, alive):
    """A head that is looked at by focus writes the title anew, whose link is the next stop."""
    page = opened(alive("2"))
    page.locator(".thumbnail[tabindex='0']").focus()
    page.keyboard.press("Tab")
    page.wait_for_timeout(100)
    assert page.evaluate("document.activeElement.closest('.head-title') !== null")


@pytest.mark.parametrize("width", [320, 1000])
def test_nothing_jumps_when_heads_and_tokens_are_pointed_at(opened, alive, width):
    page = opened(alive("2"), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    moved = page.evaluate("""() => {
        const top = () => document.getElementById("ledger").getBoundingClientRect().top;
        const before = top();
        return [...document.querySelectorAll("#explorer :is(.thumbnail, .token)")].map(part => {
            part.dispatchEvent(new PointerEvent("pointerenter"));
            part.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
            return top() - before;
        });
    }""")
    assert set(moved) == {0}
