"""One state for all figures of a page, and its address: in a real browser."""

import re

import pytest

import minicircuits as mc
from minicircuits.findings import figures
from minicircuits.report import data
from minicircuits.report.page import html_file
from tests.report.reported import living, reported
from tests.report.test_browser import numbers, shown_text, to_digits, write

pytestmark = pytest.mark.extra


def shown(page):
    """What figures say that they show: text, place, head off, target."""
    return (shown_text(page), page.locator("#explorer .head-title").inner_text(),
            page.locator("#explorer .readout").inner_text(), page.locator(".said").inner_text(),
            page.locator("#ledger .head-title").inner_text(),
            page.locator("[aria-pressed=true]").all_text_contents())


def settle(page):
    """Waits until what was changed is a step back of its own."""
    page.wait_for_timeout(600)


def test_back_goes_back_and_a_link_restores(opened, alive):
    page = opened(alive("2"))
    states = [(page.url, shown(page))]
    for act in (lambda: write(page, "def forward(weights): return forward"),
                lambda: page.locator("#explorer .token").nth(3).click(),
                lambda: page.locator(".thumbnail").nth(1).click(),
                lambda: page.locator(".power").click(),
                lambda: page.locator("#ledger .candidates [aria-pressed=false]").first.click(),
                lambda: page.locator("#sections a").last.click()):
        settle(page)
        act()
        assert (page.url, shown(page)) != states[-1]
        states.append((page.url, shown(page)))
    for url, looks in reversed(states[:-1]):
        page.go_back(wait_until="commit")
        page.wait_for_function("url => location.href === url", arg=url)
        assert shown(page) == looks
    for url, looks in states[1:]:
        again = opened(alive("2"), fragment="#" + url.split("#")[1])
        assert shown(again) == looks and again.url == url


@pytest.mark.parametrize("fragment", [
    "#%", "#tokens=9999999", "#tokens=", "#tokens=1..2", "#text=77&place=-1&head=9.9&off=7.7+",
    "#source=x&target=99999&against=zz&path=%3Cimg%3E&at=nowhere&__proto__=1&constructor=2"])
def test_a_link_that_means_nothing_opens_the_page_as_it_is(opened, alive, fragment):
    as_it_is = opened(alive("2"))
    assert shown(opened(alive("2"), fragment=fragment)) == shown(as_it_is)


def test_a_plain_link_leads_to_a_section(opened, alive):
    page = opened(alive("2"), fragment="#importance", height=400)
    page.wait_for_function(
        "() => Math.abs(document.getElementById('importance').getBoundingClientRect().top) < 120")
    assert page.evaluate("document.activeElement.textContent") == "Term importance"


def test_every_figure_shows_the_place_that_is_chosen_in_one(opened, alive):
    page = opened(alive("2"))
    page.locator("#explorer .token").nth(40).click()
    assert page.locator("#ledger .token.here").get_attribute("id").endswith("-40")
    page.locator("#ledger .token").nth(7).click()
    assert page.locator("#explorer .token.here").get_attribute("id").endswith("-7")
    page.locator("#heads a").first.click()
    assert page.locator("#explorer .head-title").inner_text().split()[1] == "0.0"


def test_a_token_of_the_list_is_kept_as_the_source(opened, alive):
    page = opened(alive("2"))
    page.locator("#explorer .token").nth(40).click()
    line = page.locator(".strongest button").nth(1)
    source, share = line.inner_text().split()[0], numbers(line.locator(".number"))
    line.click()
    assert page.locator(".token.there").first.get_attribute("id").endswith(f"-{source}")
    assert numbers(page.locator("#explorer .readout .number")) == share
    assert f"source={source}" in page.url
    page.locator("#explorer .tokens").focus()
    page.keyboard.press("Escape")
    assert page.locator("#explorer .token.there").count() == 0


def test_all_heads_in_hues(opened, alive):
    """A token is colored by the heads that look at it, and heads fade by a token pointed at."""
    page, weights = opened(alive("2")), reported(2).model.weights
    tokens = [living(reported(2)).data["texts"][0]["tokens"]]
    page.locator("#explorer").get_by_label("text", exact=True).select_option(index=0)
    page.locator("#explorer").get_by_label("all heads in hues").check()
    page.locator("#explorer .token").nth(60).click()
    page.locator("#explorer .token").nth(50).hover()
    shares = mc.forward(weights, tokens).pattern[:, 0, :, 60, 50].ravel()
    faded = page.locator(".thumbnail canvas").evaluate_all(
        "heads => heads.map(head => Number(getComputedStyle(head).opacity))")
    assert faded == to_digits(0.25 + 0.75 * shares ** 0.5)
    color = page.locator("#explorer .token").nth(50).evaluate(
        "token => getComputedStyle(token).backgroundColor")
    assert [int(part) for part in re.findall(r"\d+", color)] == page.evaluate(
        "shares => mixture(shares)", shares.tolist())


def test_the_first_steps(opened, alive, tmp_path):
    page = opened(alive("2"))
    steps = page.locator(".steps")
    steps.get_by_role("button", name="Try an example").click()
    assert page.locator("#sentence textarea").input_value().startswith("The Durs")
    data = living(reported(2)).data
    for name in ("previous", "induction"):
        head = "{}.{}".format(*data[name])
        steps.get_by_role("button", name=f"Head {head}").click()
        assert page.locator("#explorer .head-title").inner_text().split()[1] == head
    switch = steps.get_by_role("button", name="Switch off {}.{}".format(*data["previous"]))
    switch.click()
    assert "with all heads" in page.locator(".said").inner_text()
    assert switch.get_attribute("aria-pressed") == "true"
    switch.click()
    assert "with all heads" not in page.locator(".said").inner_text()


def test_a_link_to_a_token_that_the_ledger_has_no_room_for(opened, tmp_path, monkeypatch):
    """Of a page whose model does not run: it opens with the token that came next."""
    two = reported(2)
    for name, most in (("LIVE", 0), ("MAX_TOKENS", 40), ("LEDGER", 110_000)):
        monkeypatch.setattr(data, name, most)
    monkeypatch.setattr(figures, "MAX_TOKENS", 40)
    cut = data.page_data(two.study, two.found)
    missing = ({id for id, _ in cut["vocabulary"]} - {*cut["ledger"]["tokens"]}).pop()
    (tmp_path / "cut.html").write_bytes(html_file("page", cut))
    as_it_is, asked = (opened(tmp_path / "cut.html", fragment=fragment)
                       for fragment in ("", f"#target={missing}&against={missing}"))
    assert (as_it_is.locator("#ledger .head-title").inner_text()
            == asked.locator("#ledger .head-title").inner_text())
