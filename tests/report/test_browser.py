"""The page in a real browser: what a reader sees, points at, clicks and types.

Needs the extra `browser` and Debian's Chromium; the second stage of `.ci/run` has both.
"""

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import softmax

import minicircuits as mc
from minicircuits.findings.figures import strongest_move
from minicircuits.findings.heads import heads_of
from minicircuits.findings.study import Study, sections
from minicircuits.report import attention, notebook
from minicircuits.report.data import page_data
from minicircuits.report.packing import pack, pack_floats
from minicircuits.report.page import html_file
from minicircuits.training.contexts import contexts_of
from minicircuits.training.model_file import Model
from minicircuits.training.tokenizer import train_tokenizer, visible_name
from tests.report.reported import living, normalized, reported, studied, unpack
from tests.report.test_packing import HOSTILE

pytestmark = pytest.mark.extra


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


def numbers(locator):
    return [number(text) for text in locator.all_inner_texts() if text]


def to_digits(values, digits=3):
    """Rounding to the digits shown, and the error of 16 bits."""
    return pytest.approx(np.asarray(values), abs=0.51 * 10.0 ** -digits + 1e-4)


# What it says, beside what the library says.

@pytest.mark.parametrize("n_layers", [0, 1, 2])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_it_opens_and_fits(opened, folder, n_layers, scheme, width):
    page = opened(folder / f"{n_layers}.html", width=width, scheme=scheme)
    assert page.title().startswith(f"What a {n_layers}-layer model does")
    assert all(text.strip() for text in page.locator(".see").all_inner_texts())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    missing = reported(n_layers).data["absent"]
    for section in ("overview", "split", "attention", "ledger", "composition", "importance",
                    "heads"):
        at, link = page.locator(f"#{section}"), page.locator(f"#sections [href='#{section}']")
        assert at.is_visible() == link.is_visible()
        if at.is_visible():
            assert at.locator("figure").count()
            assert at.locator(".notice").all_inner_texts() == (
                [missing[section]] if section in missing else [])
        else:
            assert f". {missing[section]}" in page.inner_text("#absent")


def test_overview(opened):
    page, results = opened(), reported(2).found
    shown = dict(zip(page.locator("#losses .name").all_inner_texts(),
                     numbers(page.locator("#losses .number"))))
    uniform = shown.pop("every token alike")
    assert uniform == to_digits(np.log(reported(2).model.weights.d_vocab))
    assert shown == {name: to_digits(loss) for name, loss in results["losses"].items()}
    errors = results["exactness"]
    assert page.locator("#exactness tbody td").all_inner_texts() == [
        f"{errors[name]:.1e}".replace("e-", "e−") for name in (
            "logits", "scores", "patterns", "rebuilt_logits")]
    assert "after step 100, by step 150" in page.locator("#training-see").inner_text()
    assert page.locator("#curves .chart").count() == 3


def test_heads(opened):
    page = opened()
    for row in reported(2).found["heads"]:
        shown = numbers(page.locator(f"#head-{row['layer']}-{row['head']} .scores b"))
        assert shown == to_digits([row[name] for name in (
            "previous", "duplicate", "induction", "first", "by_position", "copying", "top_own")], 2)


def test_head_dump(opened):
    page, model = opened(), reported(2).model
    head = reported(2).data["dump"][5]
    shown = page.locator("#head-1-2 .trigrams tbody tr")
    assert shown.count() == 12 + 4                      # four times ranks are left out
    assert page.locator("#head-1-2 .gap").all_inner_texts() == ["⋮"] * 4
    first = [head["rows"][0]["source"], *(id for side in ("destinations", "outs")
                                          for id, _ in head["rows"][0][side])]
    assert shown.first.locator("code").all_text_contents() == [
        model.tokenizer.show(id) for id in first]
    colors = shown.first.locator("td").last.locator("code").evaluate_all(
        "codes => codes.map(code => Number(getComputedStyle(code).backgroundColor"
        ".match(/\\d+/g)[2]))")
    assert colors == sorted(colors) and colors[0] < colors[-1] < 250     # weaker is paler


def test_composition_and_importance(opened):
    page, weights, results = opened(), reported(2).model.weights, reported(2).found
    for n, kind in enumerate("KQV"):
        excess = mc.composition_scores(weights, kind)[1, :, 0] - weights.d_model ** -0.5
        shown = numbers(page.locator(".matrix").nth(n).locator("td.number"))
        assert shown == to_digits(excess.ravel())
    found = results["importance"]
    assert numbers(page.locator("#importance-figure .bars .number")) == to_digits(
        [np.log(weights.d_vocab), *-np.array(found["marginal"]), found["losses"][-1]])
    rows = page.locator("#virtual-figure tbody tr")
    assert rows.locator("th").all_inner_texts() == [row["heads"] for row in found["virtual_heads"]]
    assert numbers(rows.locator("td:nth-child(2)")) == to_digits(
        [row["importance"] for row in found["virtual_heads"]], 4)
    assert numbers(page.locator("#behavior-figure td")) == to_digits(
        [row[name] for row in results["heads"] for name in ("previous", "induction")], 2)
    dots = page.locator(".dot:not(.size)").evaluate_all("dots => dots.map(dot => dot.ariaLabel)")
    pair = reported(2).data["eigenvalues"][4]
    assert any(f"matching {pair['matching']:.2f}".replace("-", "−") in dot for dot in dots)


def test_split_table(opened):
    page, split = opened(), reported(2).found["split"]
    assert numbers(page.locator("#split-table td")) == to_digits(
        [value for part in split["parts"].values() for value in (
            part["stripe"], part["elsewhere"], part["stripe"] - part["elsewhere"])], 2)


# The split, pointed at.

def test_split_adds_up_wherever_one_points(opened):
    page, model = opened(), reported(2).model
    section = page.locator("#split")
    section.get_by_label("text", exact=True).select_option("repeated random tokens")
    section.get_by_label("as they are").check()
    section.get_by_label("1.2", exact=True).check()
    tokens = np.array([reported(2).data["texts"][-1]["tokens"]])
    pattern = mc.forward(model.weights, tokens).pattern
    split = mc.split_scores(model.weights, tokens, pattern, 1, 2)
    parts = [part[0] for part in (*split, sum(split))]
    i, j = 40, 12
    canvas = section.locator("canvas").nth(2)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + (j + 0.5) * box["width"] / 59,
                    box["y"] + (i + 0.5) * box["height"] / 59)
    shown = numbers(section.locator(".part .number"))
    assert shown == to_digits([part[i, j] for part in parts])
    assert sum(shown[:4]) == pytest.approx(shown[4], abs=0.003)
    assert "destination 40" in section.locator(".readout").inner_text()
    page.mouse.down()
    page.mouse.up()                                             # a click chooses the pair
    section.get_by_label("less their mean").check()
    assert numbers(section.locator(".part .number")) == to_digits(
        [part[i, j] - part[i, :i + 1].mean() for part in parts])
    section.get_by_label("text", exact=True).select_option(index=1)
    assert section.locator(".part").first.is_hidden()            # and it says which texts have it
    section.locator(".buttons button").first.click()
    assert section.locator("canvas").first.evaluate("canvas => canvas.width") == 128


# The explorer.

OPENING = "opening"


def text_of(n, of=reported):
    """The tokens (1, i) of a text of the page of two layers, by its place among them."""
    data = of(2).data
    return np.array([data["texts"][data["opening"] if n is OPENING else n]["tokens"]])


def explored(page, n_text=OPENING):
    """The explorer's parts, and the library's numbers for the text it shows."""
    weights, tokens = reported(2).model.weights, text_of(n_text)
    acts = mc.forward(weights, tokens)
    at = page.locator("#explorer")
    return SimpleNamespace(
        at=at, tokens=at.locator(".token"), thumbnails=at.locator(".thumbnail"),
        title=at.locator(".head-title"), readout=at.locator(".readout"),
        ids=tokens[0], acts=acts, weights=weights,
        strongest=lambda: {int(line.split()[0]): number(line.split()[-1])
                           for line in at.locator(".strongest li").all_inner_texts()})


def assert_strongest(shown, values):
    """What is listed is the six largest of `values`, and what they are."""
    order = np.argsort(-np.abs(values), kind="stable")[:6]
    assert list(shown.values()) == to_digits(values[list(shown)])
    assert np.abs(list(shown.values())) == to_digits(np.abs(values[order][:len(shown)]))
    assert len(shown) == min(6, (np.abs(values) >= 5e-4).sum())


def test_heads_are_previewed_and_kept(opened):
    x = explored(opened())
    kept = x.title.inner_text().split()[1]
    assert kept == "{}.{}".format(*reported(2).data["induction"])
    x.thumbnails.nth(1).hover()
    assert x.title.inner_text().split()[1] == "0.1"
    x.title.hover()
    assert x.title.inner_text().split()[1] == kept
    x.thumbnails.nth(2).click()
    x.title.hover()
    assert x.title.inner_text().split()[1] == "0.2"
    assert x.thumbnails.nth(2).get_attribute("aria-pressed") == "true"
    assert x.at.locator("[aria-pressed=true]").count() == 1


def test_tokens_looked_at_and_next(opened):
    x = explored(opened())
    x.thumbnails.nth(4).click()                             # head 1.1
    x.tokens.nth(77).click()
    assert_strongest(x.strongest(), x.acts.pattern[1, 0, 1, 77])
    likely = softmax(x.acts.logits[0, 77])
    assert numbers(x.at.locator(".next .number")) == to_digits(np.sort(likely)[:-9:-1])
    show = reported(2).model.tokenizer.show
    assert x.at.locator(".next code").all_text_contents() == [
        show(v) for v in np.argsort(-likely, kind="stable")[:8]]
    x.tokens.nth(30).hover()                                # kept: now a pair
    assert number(x.readout.locator(".number").inner_text()) == to_digits(
        x.acts.pattern[1, 0, 1, 77, 30])
    x.tokens.nth(100).hover()
    assert x.readout.locator(".number").inner_text() == "not allowed"
    x.tokens.nth(77).click()                                # let go: now the place follows
    x.tokens.nth(50).hover()
    assert_strongest(x.strongest(), x.acts.pattern[1, 0, 1, 50])
    assert x.at.locator(".token.locked").count() == 0


def test_direction_switched(opened):
    x = explored(opened())
    x.thumbnails.nth(3).click()
    x.tokens.nth(20).click()
    x.at.get_by_label("is looked at by").check()
    assert_strongest(x.strongest(), x.acts.pattern[1, 0, 0, :, 20])
    x.tokens.nth(90).hover()
    assert number(x.readout.locator(".number").inner_text()) == to_digits(
        x.acts.pattern[1, 0, 0, 90, 20])


def test_views(opened):
    page = opened()
    x = explored(page)
    x.thumbnails.nth(5).click()
    x.tokens.nth(60).click()
    x.at.get_by_label("value-weighted").check()
    moved = mc.value_weighted_patterns(x.weights, x.ids[None])[1, 0, 2]
    assert_strongest(x.strongest(), moved[60])
    x.at.get_by_label("logit effect").check()
    effects = mc.source_effects(x.weights, x.ids[None], 1, 2)[0]
    assert_strongest(x.strongest(), effects[60])
    x.tokens.nth(127).click()
    assert "no token came next" in x.at.locator(".strongest").inner_text()
    x.at.get_by_label("text", exact=True).select_option("repeated random tokens")
    x = explored(page, -1)
    assert x.tokens.count() == 59
    x.at.get_by_label("pattern", exact=True).check()
    x.tokens.nth(33).click()
    assert_strongest(x.strongest(), x.acts.pattern[1, 0, 2, 33])


def test_contexts_are_paged_through(opened):
    """In order and by name; the buttons end where the texts do."""
    page = opened()
    at, names = page.locator("#explorer"), [text["name"] for text in reported(2).data["texts"]]
    chooser, back, on = (at.get_by_label(name, exact=True)
                         for name in ("text", "previous text", "next text"))
    layer, head = reported(2).data["shown_heads"][-1]
    at.locator(".thumbnail").last.click()
    assert chooser.locator("option").all_text_contents() == names
    chooser.select_option(names[1])
    back.click()
    assert back.is_disabled() and chooser.input_value() == "0"
    for n in range(1, 4):
        on.click()
        x = explored(page, n)
        x.tokens.nth(50).click()
        assert_strongest(x.strongest(), x.acts.pattern[layer, 0, head, 50])
    chooser.select_option(names[-1])
    assert on.is_disabled() and x.tokens.count() == 59


def test_heat_map_of_the_explorer(opened):
    page = opened()
    x = explored(page)
    x.thumbnails.nth(5).click()
    canvas = x.at.locator(".heat canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 10.5 * box["width"] / 128, box["y"] + 99.5 * box["height"] / 128)
    assert number(x.readout.locator(".number").inner_text()) == to_digits(
        x.acts.pattern[1, 0, 2, 99, 10])
    pixels = canvas.evaluate("""canvas => {
        const {data} = canvas.getContext("2d").getImageData(0, 0, 128, 128);
        return [[0, 0], [5, 90], [90, 5]].map(([i, j]) =>
            [...data.subarray(4 * (128 * i + j), 4 * (128 * i + j) + 4)]); }""")
    assert pixels[0] == page.evaluate("[...shade(1), 255]")     # <START> sees only itself
    assert pixels[1] == [0, 0, 0, 0]                            # nobody sees ahead
    assert pixels[2][3] == 255


def test_keyboard(opened):
    page = opened()
    x = explored(page)
    x.at.locator(".tokens").focus()
    page.keyboard.press("Home")
    assert x.readout.inner_text().startswith("0 ")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert x.readout.inner_text().startswith("4 ")
    assert x.at.locator(".token.locked").get_attribute("id").endswith("-4")
    page.keyboard.press("Escape")
    assert x.at.locator(".token.locked").count() == 0
    x.at.locator(".heat").focus()
    page.keyboard.press("ArrowDown")
    assert "←" in x.readout.inner_text()
    x.thumbnails.first.focus()
    page.keyboard.press("ArrowRight")
    assert x.title.inner_text().split()[1] == "0.1"
    page.keyboard.press("Enter")
    assert x.thumbnails.nth(1).get_attribute("aria-pressed") == "true"
    x.at.get_by_label("pattern", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert "length" in x.title.inner_text()
    assert "first layer" in page.locator("#split-figure > .small").inner_text()    # as 0.1 is
    page.locator("#split").get_by_label("1.2", exact=True).check()
    page.locator("#split .heat").first.focus()
    page.keyboard.press("ArrowUp")
    first = page.locator("#split .readout").inner_text()
    page.keyboard.press("ArrowUp")
    assert page.locator("#split .readout").inner_text() != first


def test_everything_can_be_reached_by_tab(opened, composing):
    page = opened(composing[1])
    reached = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("""(() => { const at = document.activeElement;
            return (at.closest("section") ?? document.body).id + " " + at.tagName +
                   "." + (at.classList[0] ?? ""); })()"""))
    assert {"split DIV.heat", "attention BUTTON.thumbnail", "attention DIV.tokens",
            "attention DIV.heat", "ledger DIV.tokens", "ledger INPUT.", "composition g.node",
            "composition circle.dot", "heads A."} <= reached


# The ledger.

def assert_ledger(at, text, place, target, of=reported, others=4):
    weights, tokens = of(2).model.weights, text_of(text, of)
    acts = mc.forward(weights, tokens)
    at.get_by_label("as it is").check()
    entries = mc.ledger(weights, tokens, acts.pattern, place, target, acts.norms)
    totals = dict(zip(["→".join(f"{layer}.{head}" for layer, head in path) or "direct"
                       for path in entries.paths], entries.contributions))
    shown = dict(zip(at.locator(".entry .name").all_inner_texts(),
                     numbers(at.locator(".entry > .number"))))
    logit = acts.logits[0, place, target]
    assert shown.pop("the model’s logit") == to_digits(logit)
    assert shown.pop("sum") == to_digits(logit)
    others = shown.pop(f"{others} other paths")
    assert len(shown) == 12
    for name, value in shown.items():
        assert value == to_digits(totals[name].sum())
    assert others + sum(shown.values()) == pytest.approx(logit, abs=0.008)
    path = at.locator(".entry:has(.sources sub)").first
    first = path.locator(".sources span").first
    place_read, value = first.locator("sub").inner_text(), first.inner_text().split()[-1]
    assert number(value) == to_digits(
        totals[path.locator(".name").inner_text()][int(place_read)])
    probability = softmax(acts.logits[0, place])[target]
    assert f"probability {probability:.3f}" in at.locator(".head-title").inner_text()


def test_ledger_opens_at_the_prediction(opened):
    at, place, tokens = opened().locator("#ledger"), reported(2).data["start"], text_of(OPENING)[0]
    assert_ledger(at, OPENING, place, tokens[place + 1])


def test_ledger_of_a_model_with_biases_and_norms(opened, folder):
    (folder / "normalized.html").write_bytes(html_file("page", normalized(2).data))
    at = opened(folder / "normalized.html").locator("#ledger")
    place, tokens = normalized(2).data["start"], text_of(OPENING, normalized)[0]
    assert_ledger(at, OPENING, place, tokens[place + 1], normalized, 25 - 12)
    starts = at.locator(".entry:has-text('0.3'), .entry:has-text('1.3')")
    of_bias = [row for row in starts.all_inner_texts()
               if row.removeprefix("+").lstrip()[:3] in ("0.3", "1.3")]
    assert of_bias and all(row.endswith("the bias b_O") for row in of_bias)
    at.get_by_label("text", exact=True).select_option("repeated random tokens")
    at.locator(".token").nth(17).click()
    assert_ledger(at, -1, 17, text_of(-1, normalized)[0, 18], normalized, 25 - 12)


def test_ledger_of_any_place_and_token(opened):
    at, tokenizer = opened().locator("#ledger"), reported(2).model.tokenizer
    at.locator(".token").nth(17).click()
    assert_ledger(at, OPENING, 17, text_of(OPENING)[0, 18])
    target, = tokenizer.encode("def")
    at.get_by_role("searchbox").fill("def")
    at.locator(".candidates").nth(1).get_by_role("button").first.click()
    assert_ledger(at, OPENING, 17, target)
    at.get_by_label("text", exact=True).select_option("repeated random tokens")
    assert_ledger(at, -1, 17, text_of(-1)[0, 18])
    at.locator(".candidates").first.get_by_role("button").nth(3).click()
    assert_ledger(at, -1, 17, reported(2).data["texts"][-1]["next"][17][3][0])


def test_bars_of_the_ledger_follow_one_another(opened):
    entries = opened().locator("#ledger .entry:has(.bar)")
    edges = entries.evaluate_all("""entries => entries.map(entry => {
        const box = entry.querySelector(".bar").getBoundingClientRect();
        const less = entry.querySelector(".bar").classList.contains("less");
        return less ? [box.right, box.left] : [box.left, box.right]; })""")
    for (_, end), (start, _) in zip(edges[:-3], edges[1:-2]):
        assert start == pytest.approx(end, abs=1.2)              # pixels; no bar is below one
    assert edges[-3][1] == pytest.approx(edges[-2][1], abs=1.2)
    assert edges[-2] == pytest.approx(edges[-1], abs=0.5)


# Composition, links, light and dark.

@pytest.fixture(scope="module")
def composing(folder):
    """A page on which half of the pairs of heads compose: its data and its file."""
    found = reported(2).data["composition"]
    levels = {kind: [[0.0] * 3] * 3 for kind in "QKV"}
    data = reported(2).data | {"composition": found | {"levels": levels}}
    (folder / "composing.html").write_bytes(html_file("page", data))
    return data["composition"], folder / "composing.html"


def test_a_head_lights_up_the_heads_it_reads(opened, composing):
    found, page = composing[0], opened(composing[1])
    nodes = page.locator(".node")
    for row, (layer, head) in enumerate(found["later"]):
        nodes.nth(3 * layer + head).hover()
        read = {f"{l1}.{g}" for kind in "QKV" for (l1, g), value in zip(
            found["earlier"], found[kind][row]) if value > 0}
        assert set(page.locator(".node.read").all_text_contents()) == read
        assert page.locator(".node.lit").all_text_contents() == [f"{layer}.{head}"]
    page.locator(".matrix tbody tr").nth(2).hover()
    assert page.locator(".node.lit").all_text_contents() == ["1.2"]
    assert page.locator(".matrix tr.lit").count() == 3


def test_what_random_heads_reach_is_gray(opened, composing):
    found, page = composing[0], opened(composing[1])
    for n, kind in enumerate("KQV"):
        quiet = page.locator(".matrix").nth(n).locator("td.number").evaluate_all(
            "cells => cells.map(cell => cell.classList.contains('quiet'))")
        assert quiet == (np.ravel(found[kind]) <= 0).tolist()
    page = opened()                                        # and here all is
    assert page.locator(".matrix td.quiet").count() == 27 and not page.is_visible(".diagram")
    assert page.inner_text("#composition-see").startswith("No head reads another")


def test_what_is_clicked_is_chosen_everywhere(opened, composing):
    """A dot, a node, a cell, a virtual head and a head of the dump; and back."""
    page = opened(composing[1])
    chosen = {"nodes": ".node", "rows": ".matrix tr", "dump": ".head", "behavior":
              "#behavior-figure tr", "circles": ".spectrum", "dots": ".dot", "paths":
              "#virtual-figure tr"}

    def now():
        return {name: page.locator(f"{kind}.chosen").count() for name, kind in chosen.items()}

    def path():
        return page.evaluate("[headName(page.shown_heads[state.head]), state.path]")

    page.locator(".node").nth(1).click()
    assert path() == ["0.1", None] and page.locator(".node.chosen").text_content() == "0.1"
    assert now() == {"nodes": 1, "rows": 0, "dump": 1, "behavior": 1, "circles": 1, "dots": 0,
                     "paths": 0}
    page.locator(".matrix").nth(1).locator("td.number").nth(5).click()
    assert path() == ["1.1", "0.2→1.1"]
    assert now() == {"nodes": 1, "rows": 3, "dump": 1, "behavior": 1, "circles": 1, "dots": 3,
                     "paths": 1}
    page.locator(".dot:not(.size)").nth(6).press("Enter")
    assert path() == ["1.2", "0.0→1.2"]
    page.get_by_role("button", name="0.1→1.0").last.click()
    assert path() == ["1.0", "0.1→1.0"]
    page.locator("#head-search").get_by_label("all heads").check()
    page.locator("#head-0-2").get_by_role("button").click()
    assert path()[0] == "0.2"
    page.wait_for_timeout(600)
    page.locator(".node").nth(4).press("Enter")
    page.go_back()
    page.wait_for_function("headName(page.shown_heads[state.head]) === '0.2'")


def test_eigenvalues_of_each_head(opened):
    page, data = opened(), reported(2).data
    circles = page.locator(".spectrum")
    assert circles.count() == 6
    assert circles.locator("p").all_inner_texts() == [
        f"{row['layer']}.{row['head']} copying {row['copying']:.2f}".replace("-", "−")
        for row in data["heads"]]
    at = np.array(circles.nth(4).locator(".eigenvalue").evaluate_all(
        "dots => dots.map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value])"))
    assert (at - 50) / 50 * 1.15 == pytest.approx(
        np.array(data["spectra"][4]["copying"]) * [1, -1], abs=1e-5)


def test_titles_name_no_induction_head_where_there_is_none(opened, tmp_path):
    """A model of small random weights, as training begins with: no title claims a finding."""
    weights = mc.init_weights(2, 3, 24, 8, reported(2).model.weights.d_vocab, 128, "shortformer",
                              np.random.default_rng(0))
    one = studied(weights, {}, least=0.99)
    (tmp_path / "untrained.html").write_bytes(html_file("page", one.data))
    page = opened(tmp_path / "untrained.html")
    assert {name: page.inner_text(f"#{name}-see") for name in (
        "losses", "eigen", "behavior", "importance", "virtual")} == {
        "losses": "This model is no better than every token alike",
        "eigen": "No pair stands in the corner of induction",
        "behavior": "No head looks often enough at what followed last time",
        "importance": "All paths together take nothing off the loss",
        "virtual": "No virtual head matters by itself"}


def test_tokens_are_searched_in_all_heads(opened):
    page, show = opened(), reported(2).model.tokenizer.show
    tables = [head["rows"] for head in reported(2).data["dump"]]
    wanted = show(tables[3][0]["outs"][0][0])
    rows = [row for table in tables for row in table
            if any(wanted in visible_name(show(id)) for id in (
                row["source"], *(id for id, _ in row["destinations"] + row["outs"])))]
    page.locator("#head-search").get_by_role("searchbox").fill(wanted.replace("␣", " "))
    assert page.inner_text("#head-search [role=status]") == (
        f"{len(rows)} of {sum(map(len, tables))} rows have it")
    shown = page.locator(".trigrams tbody tr").filter(visible=True)
    assert shown.count() == len(rows) > 0
    page.locator("#head-search").get_by_role("searchbox").fill("")
    assert page.locator(".head.chosen .gap").first.is_visible()


def test_keys_through_an_earlier_head_are_said(opened, tmp_path):
    dump = [head | {"through": (0, 1) if head["layer"] else None}
            for head in reported(2).data["dump"]]
    for previous, words in ((0, 1), "the token before"), (None, "a token"):
        (tmp_path / "through.html").write_bytes(html_file(
            "page", reported(2).data | {"dump": dump, "previous": previous}))
        page = opened(tmp_path / "through.html")
        assert f"source: {words}, read through 0.1" in page.inner_text("#head-1-2 thead")
        assert "through" not in page.inner_text("#head-0-2 thead")


def test_the_bigram_table_of_a_model_without_layers(opened, alive):
    page, one = opened(alive("0")), reported(0)
    show, W = one.model.tokenizer.show, one.model.weights
    rows = page.locator("#bigram-figure tbody tr")
    assert rows.locator("th").all_inner_texts() == [
        visible_name(show(row["token"])) for row in one.found["next_tokens"]]
    page.locator("#bigram-figure input").fill("def")
    token, = one.model.tokenizer.encode("def")
    likely = np.sort(softmax(W.W_U @ W.W_E[:, token]))[:-9:-1]
    assert numbers(rows.last.locator(".number")) == to_digits(likely, 2)
    assert not opened(alive("1")).is_visible("#bigrams")


def taken_away(page, at, kind):
    with page.expect_download() as download:
        page.locator(f"figure:has({at}) .take").get_by_text(kind, exact=True).click()
    assert download.value.suggested_filename.endswith(f".{kind.lower()}")
    return download.value.path().read_bytes()


def test_figures_are_taken_away(opened, composing):
    found, page = composing[0], opened(composing[1])
    drawing = ElementTree.fromstring(taken_away(page, "#composition-figure", "SVG"))
    links = [line for line in drawing.iter("{http://www.w3.org/2000/svg}line")
             if "stroke: rgb" in line.get("style", "")]
    texts = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert links and {"0.0", "1.2", "keys"} <= set(texts)
    lines = taken_away(page, "#composition-figure", "TSV").decode().splitlines()
    assert lines[:2] == ["K: keys of …", "reads\t0.0\t0.1\t0.2"]
    assert [float(cell) for cell in lines[2].split("\t")[1:]] == to_digits(found["K"][0])
    picture = ElementTree.fromstring(taken_away(page, "#explorer", "SVG"))
    maps = [image.get("href") for image in picture.iter("{http://www.w3.org/2000/svg}image")]
    assert len(maps) == 6 + 2 and all(map.startswith("data:image/png;base64,") for map in maps)
    tokens, (layer, head) = text_of(OPENING), reported(2).data["induction"]
    lines = taken_away(page, "#explorer", "TSV").decode().splitlines()
    pattern = mc.forward(reported(2).model.weights, tokens).pattern[layer, 0, head]
    assert [float(cell) for cell in lines[61].split("\t")[1:]] == pytest.approx(
        pattern[60, :61], abs=2e-5)


def test_names_at_the_edges_of_heat_maps(opened):
    """All of few tokens; of many those of the row and the column that are pointed at."""
    page = opened()
    for n, shown in (20, 20), (30, 1):
        page.evaluate("""n => {
            window.map?.element.remove();
            window.map = heatMap("m", {point: () => {}, says: "share"});
            document.querySelector("#overview").prepend(map.element);
            map.draw(Array.from({length: n}, (_, i) => `t${i}`),
                     new Float32Array(n * (n + 1) / 2).fill(0.5), 1, 0.5);
            map.mark(7, 3); }""", n)
        for side, at in ("down", "t7"), ("across", "t3"):
            names = page.locator(f"#overview .edges .{side}")
            assert names.evaluate_all("all => all.filter(span => getComputedStyle(span)"
                                      ".visibility === 'visible').length") == shown
            assert page.inner_text(f"#overview .edges .{side}.at") == at
    assert page.locator("#overview .map .scale span").all_inner_texts() == ["0.00", "1.00", "share"]


def test_links_to_heads(opened):
    page = opened(fragment="#head-1-2", height=500)
    page.wait_for_function(
        "() => Math.abs(document.getElementById('head-1-2').getBoundingClientRect().top) < 120")
    page.locator("#head-links a").nth(1).click()
    assert page.url.endswith("#at=head-0-1&head=0.1")
    page.locator("#behavior-figure a").last.click()
    assert page.url.endswith("#at=head-1-2&head=1.2")
    links = page.locator("a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    there = page.evaluate("[...document.querySelectorAll('[id]')].map(element => '#' + element.id)")
    assert set(links) <= set(there) and len(there) == len(set(there))


def test_light_and_dark_are_followed(opened):
    page = opened()
    looks = """[getComputedStyle(document.body).backgroundColor,
                document.querySelector(".heat canvas").toDataURL()]"""
    light = page.evaluate(looks)
    assert light[0] == "rgb(253, 252, 249)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => {looks}.every((look, n) => look !== before[n])", arg=light)
    assert page.evaluate(looks)[0] == "rgb(25, 24, 22)"


def test_on_paper_every_head_stands_and_every_row_has_its_name(opened):
    page = opened()
    page.emulate_media(media="print")
    found = reported(2).found
    assert page.locator(".head").evaluate_all(
        "heads => heads.filter(head => head.offsetHeight).length") == len(found["heads"])
    assert page.locator("#virtual-figure tbody th").all_inner_texts() == [
        row["heads"] for row in found["importance"]["virtual_heads"]]
    assert not page.locator(".controls, .take, nav").filter(visible=True).count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_can_be_told_apart_and_read(opened, scheme):
    """Text on the strongest color of tokens, quiet text, and more against less without hue."""
    page = opened(scheme=scheme)
    ink, soft, link, paper, third = (page.evaluate(
        f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')"
        ".match(/\\w\\w/g).map(part => parseInt(part, 16))")
        for name in ("ink", "soft", "link", "paper", "third"))

    def luminance(color):
        share = np.array(color) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(one, other):
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    for text in (ink, soft, link):
        assert contrast(text, paper) >= 4.5
    for value in (-0.7, 0.7):                    # the most that a token is colored
        assert contrast(ink, page.evaluate(f"shade({value})")) >= 3
    assert contrast(third, paper) >= 3
    more, less = page.evaluate("[shade(1), shade(-1)]")
    for loss in (1.0, 0.0):                      # without red, and without green receptors
        seen = [np.array([color[0] * loss + color[1] * (1 - loss), color[2]], float)
                for color in (more, less)]
        assert np.abs(seen[0] - seen[1]).max() > 100


# The model in the page: what it says of any text, beside what the library says.

def write(page, text):
    """Writes a text of one's own, and waits until it is shown."""
    page.locator("#sentence textarea").fill(text)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def shown_text(page, at="#explorer"):
    """The names of the tokens shown."""
    return [title.split(" ", 1)[1] for title in page.locator(f"{at} .token").evaluate_all(
        "tokens => tokens.map(token => token.title)")]


def assert_next(page, weights, ids, place=-1):
    likely = softmax(mc.forward(weights, [ids]).logits[0, place])
    assert numbers(page.locator("#explorer .next .number")) == to_digits(np.sort(likely)[:-9:-1])


@pytest.mark.parametrize("name", ["0", "1", "2", "normalized"])
@pytest.mark.parametrize("width", [320, 1600])
def test_a_living_page_opens_and_fits(opened, alive, name, width):
    page = opened(alive(name), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#sentence textarea").count() == 1


@pytest.mark.parametrize("name, one", [("2", reported), ("normalized", normalized)])
def test_a_sentence_of_ones_own(opened, alive, name, one):
    """Explorer, losses, ledger and parts follow what is written, letter by letter."""
    page, model = opened(alive(name)), one(2).model
    weights, tokenizer = model.weights, model.tokenizer
    for written in ("def forward(weights, tokens):", "中文 caf\u00e9 \x0b<b>\U0001f3b2"):
        write(page, written)
        ids = [tokenizer.start, *tokenizer.encode(written).tolist()]
        names = [visible_name(tokenizer.show(id)) for id in ids]
        assert shown_text(page) == shown_text(page, "#ledger") == names
        assert_next(page, weights, ids)
        tokens = np.array([ids])
        assert f"{len(ids)} tokens. Loss: {mc.loss(weights, tokens):.3f} nats" in page.locator(
            ".said").inner_text()
        acts = mc.forward(weights, tokens)
        at = page.locator("#ledger")
        totals = numbers(at.locator(".entry > .number"))
        above = acts.logits[0] - acts.logits[0].mean(-1, keepdims=True)
        assert totals[-1] == to_digits(above[-1].max())                 # the likeliest is chosen
        assert totals[-2] == to_digits(totals[-1])
        at.locator(".token").nth(2).click()
        assert numbers(at.locator(".entry > .number"))[-1] == to_digits(above[2, ids[3]])
        head = page.locator("#split input:checked").first.get_attribute("value")
        parts = mc.split_scores(weights, tokens, acts.pattern, *map(int, head.split(".")),
                                acts.norms)
        page.locator("#split").get_by_label("as they are").check()
        i, j = (int(text.split()[1]) for text in page.locator(
            "#split .readout").inner_text().split("←"))
        assert numbers(page.locator("#split .part .number"))[:4] == to_digits(
            [part[0, i, j] for part in parts])


def test_a_sentence_without_heads(opened, alive):
    page, model = opened(alive("0")), reported(0).model
    write(page, "the head")
    ids = [model.tokenizer.start, *model.tokenizer.encode("the head").tolist()]
    assert shown_text(page, "#ledger") == [visible_name(model.tokenizer.show(id)) for id in ids]
    logits = mc.forward(model.weights, [ids]).logits[0]
    assert numbers(page.locator("#ledger .entry > .number")) == to_digits(
        [logits[-1].max() - logits[-1].mean()] * 3)
    page.get_by_role("button", name="one token").click()
    likeliest = model.tokenizer.show(logits[-1].argmax())
    assert shown_text(page, "#ledger")[-1] == visible_name(likeliest)


def test_losses_of_tokens(opened, alive):
    page, weights = opened(alive("2")), reported(2).model.weights
    ids = text_of(OPENING)[0]
    page.locator("#explorer").get_by_label("costs (nats)").check()
    logits = mc.forward(weights, [ids]).logits[0]
    nats = np.array([0, *-np.log(softmax(logits, -1)[np.arange(len(ids) - 1), ids[1:]])])
    shown = explored(page).strongest()
    assert list(shown.values()) == to_digits(np.sort(nats)[:-7:-1])
    assert list(shown.values()) == to_digits(nats[list(shown)])


def test_heads_switched_off_and_on(opened, alive):
    page, weights = opened(alive("2")), reported(2).model.weights
    tokens = np.array([living(reported(2)).data["texts"][0]["tokens"]])
    at, said = page.locator("#explorer"), page.locator(".said")
    at.get_by_label("text", exact=True).select_option(index=0)
    at.locator(".token").last.click()
    for n in (1, 4):
        at.locator(".thumbnail").nth(n).click()
        at.locator(".power").click()
    off = [(0, 1), (1, 1)]
    losses = mc.loss_without_heads(weights, tokens, off)
    assert page.locator(".switches").inner_text().startswith("off: 0.1, 1.1")
    assert f"{losses.recomputed:.3f} nats" in said.inner_text()
    assert f"({mc.loss(weights, tokens):.3f} with all heads)" in said.inner_text()
    without = softmax(mc.forward(mc.without_heads(weights, off), tokens).logits[0, -1])
    shares = numbers(at.locator(".next .number"))
    assert shares == to_digits(sorted(shares)[::-1]) and shares[0] == to_digits(without.max())
    assert page.locator("#ledger .entry .name").all_inner_texts().count("1.1") == 0
    page.locator(".switches").get_by_label("frozen").check()
    assert f"{losses.frozen:.3f} nats" in said.inner_text()
    notice = page.locator("#ledger .small:has-text('Off: 0.1, 1.1; patterns are frozen.')")
    assert notice.is_visible() and "frozen=yes" in page.url
    page.get_by_role("button", name="all on again").click()
    assert f"{mc.loss(weights, tokens):.3f} nats" in said.inner_text()
    assert "frozen" not in page.url and not notice.count()
    assert not page.locator(".switches").is_visible() and not at.locator(".thumbnail.off").count()
    assert_next(page, weights, tokens[0])
    at.locator(".power").click()
    page.locator(".switches").get_by_label("frozen").check()
    assert "frozen=yes" in page.url
    at.locator(".power").click()                             # the last one is on again
    assert "frozen" not in page.url


def test_random_tokens_come_twice(opened, alive):
    page, tokenizer = opened(alive("2")), reported(2).model.tokenizer
    page.get_by_label("length of the block").fill("7")
    page.get_by_label("seed", exact=True).fill("3")
    page.get_by_role("button", name="random tokens, twice").click()
    names = shown_text(page)
    assert names[0] == visible_name(tokenizer.show(tokenizer.start)) and names[1:8] == names[8:]
    assert len(set(names[1:8])) == 7 and shown_text(page, "#ledger") == names
    page.get_by_label("seed", exact=True).fill("4")
    page.get_by_label("seed", exact=True).press("Enter")
    assert shown_text(page) != names


def test_the_model_writes_on(opened, alive):
    """The likeliest token after the chosen one, and again, as in `sample`; until it is full."""
    page, model = opened(alive("2")), reported(2).model
    written = model.tokenizer.encode("for head in heads").tolist()
    write(page, "for head in heads")
    one = page.get_by_role("button", name="one token")
    for _ in range(3):
        one.click()
    ids = [*written, *mc.sample(model.weights, written, np.random.default_rng(0), 3,
                                temperature=0, start=model.tokenizer.start)]
    names = [visible_name(model.tokenizer.show(id)) for id in [model.tokenizer.start, *ids]]
    assert shown_text(page) == names
    assert page.locator("#explorer .token.written").count() == 3
    assert model.tokenizer.decode(ids).decode(errors="replace") == page.locator(
        "#sentence textarea").input_value()
    page.locator("#explorer .token").nth(1).click()
    one.click()
    assert shown_text(page)[:2] == names[:2] and len(shown_text(page)) == 3
    page.get_by_label("by chance").check()
    page.get_by_role("button", name="write on").click()
    page.locator("#explorer .token").nth(6).wait_for()
    page.get_by_role("button", name="stop").click()
    page.get_by_role("button", name="write on").wait_for()
    page.locator("#explorer").get_by_label("text", exact=True).select_option(index=0)
    page.locator("#explorer .token").last.click()
    one.click()
    assert page.locator(".said").inner_text().startswith("128 tokens, as many as a context has.")


def test_a_long_text_is_paged_through(opened, alive):
    page, tokenizer = opened(alive("2")), reported(2).model.tokenizer
    long = "def f(x): return x + 12\n" * 40
    ids = tokenizer.encode(long).tolist()
    write(page, long)
    names = [visible_name(tokenizer.show(id)) for id in ids]
    assert shown_text(page)[1:] == names[:127]
    page.locator("#explorer").get_by_label("next text").click()
    assert shown_text(page)[1:] == names[127:254] == shown_text(page, "#ledger")[1:]
    page.locator("#ledger").get_by_label("text", exact=True).select_option(index=0)
    assert shown_text(page) == shown_text(page, "#ledger")
    assert page.locator("#explorer").get_by_label("text", exact=True).input_value() == "0"


def test_a_page_without_a_tokenizer_takes_names_and_numbers(opened, tmp_path):
    one = reported(2)
    data = living(one).data | {"merges": None}
    (tmp_path / "foreign.html").write_bytes(html_file("page", data))
    page = opened(tmp_path / "foreign.html")
    show = one.model.tokenizer.show
    write(page, f"#17  {show(300)}\n#3")
    assert shown_text(page)[1:] == [visible_name(show(id)) for id in (17, 300, 3)]
    write(page, "#17 #9999")
    assert page.locator(".said").inner_text() == "no token is called #9999; there are 640."
    assert len(shown_text(page)) == 4


# The world outside, and the people who write tokens.

def test_the_policy_holds(browser, folder):
    page = browser.new_page()
    page.goto(f"file://{folder / '2.html'}")
    broken = page.evaluate("""async () => {
        const broken = [];
        document.addEventListener("securitypolicyviolation",
                                  event => broken.push(event.effectiveDirective));
        await fetch("https://example.invalid/").catch(() => {});
        new Image().src = "https://example.invalid/image.png";
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script);
        await new Promise(done => setTimeout(done, 100));
        return [broken.sort(), window.injected]; }""")
    page.close()
    assert broken == [["connect-src", "img-src", "script-src-elem"], None]


def elements(page):
    return page.evaluate("""Object.entries([...document.querySelectorAll("*")].reduce(
        (counts, element) => ({...counts, [element.tagName]: (counts[element.tagName] ?? 0) + 1}),
        {})).sort()""")


def test_hostile_tokens_are_only_text(opened, tmp_path):
    weights = reported(2).model.weights
    pages = []
    for name, show in (("plain", str), ("hostile", lambda id: HOSTILE[id % len(HOSTILE)])):
        shown = attention(weights, [range(len(HOSTILE))], show)
        shown.save(tmp_path / f"{name}.html")
        pages.append(opened(tmp_path / f"{name}.html"))
    assert elements(pages[0]) == elements(pages[1])
    texts = pages[1].locator(".token").all_text_contents()
    for text, hostile in zip(texts, HOSTILE, strict=True):
        expected = visible_name(hostile).replace("␣", " ")
        assert text == (expected.replace("\\n", "↵\n") if hostile in ("\r\n", "\\n")
                        else expected)
    pages[1].locator(".token").nth(14).click()
    assert "5,000 characters" in pages[1].locator(".readout").inner_text()
    assert pages[1].evaluate("document.documentElement.scrollWidth") == 1200


def test_a_model_of_hostile_text(opened, tmp_path):
    """All of the page, not only the explorer: a tokenizer whose tokens are markup."""
    evil = '</script><img src=x onerror=alert(1)>"\'\0\u202e\x1b<!--' * 40
    two = reported(2)
    tokenizer = train_tokenizer(evil, 290)
    weights = mc.init_weights(2, 3, 24, 8, tokenizer.d_vocab, 128, "shortformer",
                              np.random.default_rng(0))
    ids = tokenizer.encode(evil)[:127]
    contexts = np.array([[tokenizer.start, *ids]])
    counts = np.ones((tokenizer.d_vocab, tokenizer.d_vocab))
    text = two.text._replace(tokenizer=tokenizer, validation=contexts, counts=counts)
    found = {**two.found, "prediction": {"row": 0, "context": contexts[0, :40].tolist(),
                                         "target": int(contexts[0, 40])}}
    study = Study(Model(weights, tokenizer, {}), text.contexts(), 0)
    path = tmp_path / "evil.html"
    path.write_bytes(html_file("page", page_data(study, found)))
    page = opened(path)
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == opened().locator("script").count()
    spelled = "".join(page.locator("#explorer .token").all_text_contents())
    assert "onerror" in spelled and "\\x00" in spelled and "\u202e" not in spelled


# In notebooks, and the scripts' own functions.

def in_notebook(opened, path, shown):
    """The frame that an `Attention` makes of itself."""
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><title>x</title>{shown._repr_html_()}")
    return opened(path).frame_locator("iframe")


@pytest.mark.parametrize("live", [1_000_000, 0])
def test_in_a_notebook(opened, tmp_path, monkeypatch, live):
    """The same, whether the model runs in the frame or was run before."""
    monkeypatch.setattr(notebook, "LIVE", live)
    weights, tokens = reported(2).model.weights, [[1, 2, 3, 4, 2], [4, 3, 2, 1, 3]]
    frame = in_notebook(opened, tmp_path / "notebook.html", attention(weights, tokens))
    acts = mc.forward(weights, tokens)
    text, place, head = strongest_move(weights, np.array(tokens), acts, heads_of(weights))
    assert frame.locator(".head-title b").inner_text() == "{}.{}".format(*heads_of(weights)[head])
    assert frame.locator(".readout").inner_text().startswith(f"{place} ")
    assert frame.locator(".pager select").input_value() == str(text)
    frame.locator(".thumbnail").first.click()
    frame.locator(".token").nth(2).click()
    pattern = acts.pattern[0, text, 0, 2]
    lines = frame.locator(".strongest li").all_inner_texts()
    assert {int(line.split()[0]): number(line.split()[-1]) for line in lines} == {
        j: to_digits(pattern[j]) for j in np.flatnonzero(pattern >= 5e-4)}
    assert frame.locator(".power").is_visible() == frame.locator("textarea").is_visible() == (
        live > 0)


def test_in_a_notebook_the_model_reads_text(opened, tmp_path):
    """Where `show` is of its tokenizer; a head is switched off, and what that costs is told."""
    model = reported(2).model
    shown = attention(model.weights, [[model.tokenizer.start, 5]], model.tokenizer.show)
    frame = in_notebook(opened, tmp_path / "notebook.html", shown)
    frame.locator("textarea").fill("the gulls")
    ids = [model.tokenizer.start, *model.tokenizer.encode("the gulls").tolist()]
    frame.locator(".token").nth(len(ids) - 1).wait_for()
    assert frame.locator(".token").count() == len(ids)
    frame.locator(".power").click()
    frame.locator(".said", has_text="with all heads").wait_for()


def test_arrays_are_unpacked_as_they_were_packed(opened):
    page, array = opened(), np.random.default_rng(0).normal(size=(3, 5, 7))
    for packed in (pack(array), pack_floats(array)):
        rows = page.evaluate("packed => unpack(packed).map(row => [...row])", packed)
        assert np.array(rows).reshape(array.shape) == pytest.approx(unpack(packed), rel=1e-6)


@pytest.mark.parametrize("call, result", [
    ("fixed(0.12349)", "0.123"), ("fixed(-1.5, 1)", "−1.5"), ("fixed(-0.0001)", "0.000"),
    ("signed(0.5)", "+0.500"), ("signed(-2)", "−2.000"), ("signed(-1e-9)", "+0.000"),
    ("triangle(3, 1)", 7), ("ticks([0, 650], 5)", [0, 200, 400, 600]),
    ("ticks([-1, 1], 4)", [-1, -0.5, 0, 0.5, 1]), ("scale([0, 10], [100, 0])(2.5)", 75),
    ("scale([1, 1], [3, 9])(1)", 3), ("pathName([[0, 3], [1, 2]])", "0.3→1.2"),
    ("pathName([])", "direct"), ("largest([1, -3, 2])", 3), ("drawn([0.2, 0.3, 0.5], 0.4)", 1),
    ("drawn([0.2, 0.3, 0.5], 1)", 2), ("randomBlocks(3, 1, 9, 7).slice(1).sort()", [0, 0, 2, 2]),
    ("[...levelled(Float32Array.of(5, 1, 3, 1, 2, 6), 3)]", [0, -1, 1, -2, -1, 3]),
    ("againstCounts([['every token alike', 7], ['unigram counts', 6], ['bigram counts', 5], "
     "['this model', 4.5]])", "This model is 0.50 nats better than bigram counts"),
    ("againstCounts([['every token alike', 7], ['unigram counts', 6], ['this model', 5.5], "
     "['bigram counts', 5]])", "This model is 0.50 nats better than unigram counts, and 0.50 worse "
     "than bigram counts"),
    ("againstCounts([['this model', 7.001], ['every token alike', 7]])",
     "This model is no better than every token alike"),
    ("againstCounts([['every token alike', 7]])", "One token has no loss: nothing comes next"),
    ("shade(0)", [253, 252, 249]), ("shade(9)", [224, 114, 20])])
def test_functions_of_the_scripts(opened, call, result):
    assert opened().evaluate(call) == result


def test_a_page_says_nothing_of_what_it_has_not(opened, tmp_path):
    """A model of no layers on a letter: no counts, one path, and a chart as wide as others are."""
    weights = mc.init_weights(0, 1, 8, 4, 257, 9, "shortformer", np.random.default_rng(0))
    log = [{"step": step, "tokens": 9 * step, "seconds": 1, "loss": 5.5, "validation": 5.5,
            "gap": None, "in_context": None, "prefix_matching": None, "previous_token": None}
           for step in (0, 10)]
    model = Model(weights, train_tokenizer(b"", 257), {"log": log})
    study = Study(model, contexts_of([("a letter", b"a")], model.tokenizer, 9), 0)
    found = {key: value for _, finding in sections(study) for key, value in finding.items()}
    (tmp_path / "page.html").write_bytes(html_file("page", page_data(study, found)))
    page = opened(tmp_path / "page.html")
    assert "Counts are known only" in page.inner_text("#counts")
    assert "counts are those of the training text" in opened().inner_text("#counts")
    assert page.inner_text("#losses-see") == "This model is no better than every token alike"
    assert "the only path = the logits" in page.inner_text("#exactness")
    assert page.locator("#curves .chart > svg").bounding_box()["width"] < 600
