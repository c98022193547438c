"""A logit and a score, as sums over paths in the page: what a reader sees, opens and clicks."""

import numpy as np
import pytest
from scipy.special import softmax

import minicircuits as mc
from minicircuits.report.page import html_file
from tests.report.reported import living, normalized, reported, studied
from tests.report.test_browser import number, numbers, shown_text, to_digits

pytestmark = pytest.mark.extra
SENTENCE = [3, 41, 77, 5, 41, 77, 9, 41]
OWN = "#tokens=" + ".".join(map(str, SENTENCE))


def in_python(at, weights):
    """What the Python that a figure prints makes of the weights of its page: `shares`, by name."""
    names = {"weights": weights}
    exec(at.locator("details.source code").text_content(), names)
    return {"→".join(f"{layer}.{head}" for layer, head in name) or "direct"
            if isinstance(name, tuple) else name: float(share)
            for name, share in names["shares"].items()}


def parts_of(at):
    """Names and numbers of the parts that are shown, without the rest and what they come to."""
    rows = at.locator(".entry:has(button[aria-pressed])")
    return dict(zip(rows.locator(".name").all_inner_texts(), numbers(rows.locator("> .number"))))


def totals_of(at):
    return numbers(at.locator(".entry.sum > .number"))


@pytest.mark.parametrize("name, one", [("2", reported), ("normalized", normalized)])
def test_why_this_token(opened, alive, name, one):
    """A logit against the mean, another token, or nothing; and in Python."""
    page, weights = opened(alive(name), f"{OWN}&place=4&off=0.1"), one(2).model.weights
    at = page.locator("#ledger")
    logits = mc.forward(mc.without_heads(weights, [(0, 1)]), [SENTENCE]).logits[0, 4]
    target, runner_up = 77, next(v for v in np.argsort(-logits) if v != 77)
    less = {"less the mean of all tokens": logits.mean(), "as it is": 0,
            "less that of another token": logits[runner_up]}
    for label, level in less.items():
        at.get_by_label(label).check()
        if at.get_by_text("other path").count():
            at.get_by_text("other path").click()
        assert totals_of(at) == to_digits([logits[target] - level] * 2)
        shares, found = in_python(at, weights), parts_of(at)
        assert {share: shares.pop(share) for share in found} == {
            share: to_digits(value) for share, value in found.items()}
        assert not any("0.1" not in share for share in shares)       # of the head that is off
    ratio = float(np.exp(abs(logits[target] - logits[runner_up])))
    said = at.locator(".head-title").inner_text().split()
    assert number(said[-4]) == pytest.approx(ratio, rel=0.01)
    other = at.get_by_label("token to compare with").locator("[aria-pressed=false]").first
    other.click()
    chance = softmax(logits)
    assert at.get_by_label("token to compare with").locator("[aria-pressed=true]").count() == 1
    assert totals_of(at)[0] != to_digits(logits[target] - logits[runner_up])
    assert f"(probability {chance[target]:.3f})" in at.locator(".head-title").inner_text()


def test_a_path_opens_and_the_rest_too(opened, alive):
    page, weights = opened(alive("2"), f"{OWN}&place=7&target=5"), reported(2).model.weights
    at = page.locator("#ledger")
    rows = at.locator(".entry button[aria-pressed]")
    assert rows.count() == 12
    at.get_by_text("4 other paths").click()
    assert rows.count() == 16 and not at.get_by_text("other path").count()
    assert page.evaluate("document.activeElement.textContent") == "the strongest alone"
    row = at.locator(".entry:has(button[aria-pressed])").nth(13)
    name = row.locator(".name").inner_text()
    row.locator("button").focus()
    page.keyboard.press("Enter")
    assert row.locator("button").get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.textContent") == name
    assert page.evaluate("state.path") == name
    shares = [number(text.split()[-1]) for text in row.locator(".sources span").all_inner_texts()]
    rest = number(row.locator(".sources").inner_text().split()[-1])
    assert sum(shares) + rest == pytest.approx(numbers(row.locator("> .number"))[0], abs=0.005)
    at.get_by_text("the strongest alone").click()
    assert rows.count() == 13                                    # and the one that is chosen
    row = at.locator(".entry.open button")
    row.click()
    page.evaluate("select({path: 'direct'})")                    # another figure chooses
    assert at.locator(".entry.open .name").inner_text() == "direct"
    assert at.locator(".entry.open .sources sub").all_inner_texts() == ["7"]
    assert weights.n_layers == 2


@pytest.mark.parametrize("name, one, n_layers, head", [
    ("2", reported, 2, (1, 1)), ("2", reported, 2, (0, 2)), ("1", reported, 1, (0, 1)),
    ("normalized", normalized, 2, (1, 2))])
def test_why_a_head_looks_there(opened, alive, name, one, n_layers, head):
    """Terms of a score, as it is and less its row's mean; and in Python."""
    fragment = f"{OWN}&place=6&source=2&head={head[0]}.{head[1]}"
    page, weights = opened(alive(name), fragment), one(n_layers).model.weights
    at = page.locator("#score-ledger")
    acts = mc.forward(weights, [SENTENCE])
    row = acts.scores[head[0], 0, head[1], 6, :7]
    for label, level in (("less its row’s mean", row.mean()), ("as it is", 0)):
        at.get_by_label(label).check()
        if at.get_by_text("other term").count():
            at.get_by_text("other term").click()
        assert totals_of(at) == to_digits([row[2] - level] * 2)
        shares = in_python(at, weights)
        assert parts_of(at) == {part: to_digits(share) for part, share in shares.items()}
    attention = acts.pattern[head[0], 0, head[1]]
    assert f"{attention[6, 2]:.3f}" in at.locator(".head-title").inner_text()
    assert at.locator(".candidates [aria-pressed=true] sub").inner_text() == "2"
    at.locator(".candidates [aria-pressed=false]").first.click()
    assert at.locator(".candidates [aria-pressed=true] sub").inner_text() == str(
        page.evaluate("state.source"))
    at.locator(".token").nth(3).click()              # there, the source where it looks most
    most = attention[3].argmax()
    assert at.locator(".candidates [aria-pressed=true] sub").inner_text() == str(most)


def test_terms_say_what_their_sides_read(opened, alive):
    page = opened(alive("normalized"), f"{OWN}&place=6&source=2&head=1.1")
    at = page.locator("#score-ledger")
    at.get_by_text("other term").click()
    bias = at.locator(".entry:has(button:text-is('token→0.3 · token'))")       # 0.3 rests
    assert bias.locator(".sources").inner_text() == "Q-composition; query reads the bias b_O"
    term = at.locator(".entry:has(button:text-is('token · token→0.2'))")
    term.locator("button").click()
    kind, query, key = term.locator(".sources").inner_text().split(";")
    assert kind == "K-composition" and query.startswith(" query reads")
    assert [place for place in term.locator(".sources sub").all_inner_texts()][0] == "6"
    assert key.startswith(" key reads") and len(key.split("all others")) == 2


def test_too_many_terms_are_added_up_by_kind(opened, alive):
    page = opened(alive("2"), f"{OWN}&place=6&source=2&head=1.0")
    weights = reported(2).model.weights
    page.evaluate("texts[state.text].countTerms = () => 234567; select({place: 5}); "
                  "select({source: 2})")
    at = page.locator("#score-ledger")
    assert "234,567 terms" in at.inner_text()
    acts = mc.forward(weights, [SENTENCE])
    split = mc.split_scores(weights, [SENTENCE], acts.pattern, 1, 0)
    assert sorted(parts_of(at).values()) == to_digits(sorted(
        part[0, 5, 2] - part[0, 5, :6].mean() for part in split))
    assert sorted(in_python(at, weights).values()) == to_digits(sorted(parts_of(at).values()))
    assert shown_text(page, "#score-ledger") == shown_text(page)


def test_scores_come_apart_without_an_induction_head(opened, tmp_path):
    weak = living(studied(reported(2).model.weights, {}, least=0.99))
    assert weak.data["induction"] is None and not weak.data["absent"]
    (tmp_path / "weak.html").write_bytes(html_file("page", weak.data))
    page = opened(tmp_path / "weak.html", f"{OWN}&place=6&source=2&head=1.0")
    acts = mc.forward(weak.model.weights, [SENTENCE])
    split = mc.split_scores(weak.model.weights, [SENTENCE], acts.pattern, 1, 0)
    page.locator("#split").get_by_label("as they are").check()
    assert numbers(page.locator("#split .part .number")) == to_digits(
        [part[0, 6, 2] for part in (*split, sum(split))])
    assert not page.locator("#split-table table").count()


def test_a_page_without_the_model_has_the_four_kinds(opened):
    page, weights = opened(fragment="#head=1.2"), reported(2).model.weights
    at = page.locator("#score-ledger")
    assert "does not run in this page" in at.inner_text()
    shares = in_python(at, weights)
    assert sorted(parts_of(at).values()) == to_digits(sorted(shares.values()))
    page.evaluate("select({head: 0})")
    assert at.get_by_text("The scores of head 0.0 were not taken apart.").is_visible()
    assert not at.locator(".entry").first.is_visible() and not at.locator(".buttons").is_visible()
    page.locator("#ledger").get_by_label("less the mean of all tokens").check()
    found = in_python(page.locator("#ledger"), weights)
    assert parts_of(page.locator("#ledger")) == {
        name: to_digits(found[name]) for name in parts_of(page.locator("#ledger"))}
