"""The file itself: whole, closed to the world, of a size, and never in place of another."""

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.cli import main
from minicircuits.report import attention, notebook, page
from minicircuits.training.model_file import save_model
from tests.report.reported import TEXT, living, normalized, reported
from tests.report.test_packing import HOSTILE

FOLDER = Path(page.__file__).parent


class Elements(HTMLParser):
    """Every element's (tag, attributes), and the text of scripts and styles."""

    def __init__(self, source):
        super().__init__()
        self.found, self.inside, self.open = [], {"script": [], "style": []}, None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open in self.inside:
            self.inside[self.open][-1] += data


@pytest.fixture(scope="module", params=["report", "living", "attention"])
def html(request):
    if request.param != "attention":
        one = reported(2) if request.param == "report" else living(reported(2))
        return page.html_file("page", one.data).decode()
    weights = reported(2).model.weights
    return attention(weights, [[1, 2, 3]]).page.decode()


def test_nothing_refers_to_anything_outside(html):
    for tag, attributes in Elements(html).found:
        assert tag not in ("link", "img", "iframe", "base", "object", "embed", "form")
        assert not {"src", "srcset", "style", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
    sources = "".join((FOLDER / name).read_text() for name in page.STYLES)
    assert "url(" not in sources and "@import" not in sources


def test_the_policy_allows_what_is_there_and_nothing_else(html):
    elements = Elements(html)
    policy, = (attributes["content"] for _, attributes in elements.found
               if attributes.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.keys() == {"default-src", "base-uri", "form-action", "style-src", "script-src"}
    assert {rules[name] for name in ("default-src", "base-uri", "form-action")} == {"'none'"}
    *scripts, = zip((attributes for tag, attributes in elements.found if tag == "script"),
                    elements.inside["script"], strict=True)
    data = [source for attributes, source in scripts if attributes]
    assert len(data) == 1
    assert all(attributes or source.startswith('"use strict";') for attributes, source in scripts)
    for kind, sources in (("script-src", [source for attributes, source in scripts
                                          if not attributes]),
                          ("style-src", elements.inside["style"])):
        digests = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
                   for source in sources]
        assert rules[kind].split() == [f"'sha256-{digest}'" for digest in digests]


def test_every_source_file_is_used_and_small():
    used = {*page.STYLES, *page.SCRIPTS["page"], *page.SCRIPTS["attention"], "page.html",
            "words.html", "attention.html"}
    there = {path.name for path in FOLDER.iterdir() if path.suffix in (".js", ".css", ".html")}
    assert used == there
    for name in there:
        source = (FOLDER / name).read_text()
        assert len(source.splitlines()) <= 200
        if name.endswith(".js"):
            assert source.startswith("/* ") and "use strict" not in source
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|"
                                 r"new Function|fetch\(|XMLHttp|import\(|setAttribute\(.style",
                                 source)


@pytest.mark.parametrize("name", page.SCRIPTS)
def test_no_two_scripts_use_one_name(name):
    names = [found for script in page.SCRIPTS[name] for found in re.findall(
        r"^(?:function|const|let|var) (\w+)", (FOLDER / script).read_text(), re.MULTILINE)]
    assert len(names) == len(set(names)) > 40


def test_scripts_and_styles_stay_few():
    lines = [(FOLDER / name).read_text().count("\n")
             for name in (*page.STYLES, *page.SCRIPTS["page"], "attention.js")]
    assert sum(lines) <= 2500


def test_every_place_that_the_scripts_ask_for_is_there():
    html = (FOLDER / "page.html").read_text()
    scripts = "".join((FOLDER / name).read_text() for name in page.SCRIPTS["page"])
    asked = set(re.findall(r'byId\("([\w-]+)"\)', scripts))
    assert asked <= set(re.findall(r'id="([\w-]+)"', html)) and len(asked) > 15
    assert set(re.findall(r'href="#([\w-]+)"', html)) <= set(re.findall(r'id="([\w-]+)"', html))


def test_every_figure_has_a_title_and_a_sentence():
    html = (FOLDER / "page.html").read_text()
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) == 15
    for figure in figures:
        assert '<figcaption class="see"' in figure
        assert re.search(r'<p class="read">[^<]{40,}', figure)


def test_every_python_call_of_the_page_runs():
    """As printed, after the lines that it says come first, on models of no training."""
    text = (FOLDER / "page.html").read_text()
    lines, = re.findall(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
    calls = re.findall(r"<code>(mc\..*?)</code>", text.replace(lines, ""), re.DOTALL)
    calls += [call for name in page.SCRIPTS["page"] for call in re.findall(
        r"""["'`](mc\.[^\n]*?\))["'`]""", (FOLDER / name).read_text())]
    assert len(calls) > 12 and lines.count("mc.load_pretrained()") == 1
    for one in reported(2), normalized(2):
        names = {"untrained": one.model}
        exec(unescape(lines).replace("mc.load_pretrained()", "untrained"), names)
        for call in calls:
            assert eval(unescape(call), names) is not None, call


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.npz"
    save_model(path, *reported(1).model)
    return path


def test_the_command_writes_a_page_with_the_terminals_figures_once(model_file, tmp_path, capsys):
    output = tmp_path / "report.html"
    arguments = ["report", str(model_file), "--text", str(TEXT), "-o", str(output)]
    assert main(arguments) == 0
    assert f"written: {output}" in capsys.readouterr().out
    assert output.read_bytes() == page.html_file("page", living(reported(1)).data)
    output.write_bytes(b"precious")
    assert main(arguments) == 2
    assert "exists" in capsys.readouterr().err and output.read_bytes() == b"precious"
    assert main([*arguments, "--force"]) == 0
    assert output.read_bytes().startswith(b"<!DOCTYPE html>")


# In notebooks.

def test_attention_shows_itself():
    shown = attention(reported(2).model.weights, [[1, 2, 3]])
    frame, = Elements(shown._repr_html_()).found
    assert frame[0] == "iframe" and frame[1]["sandbox"] == "allow-scripts"
    assert frame[1]["srcdoc"].encode() == shown.page
    assert b'"#1"' in shown.page          # ids stand apart
    assert shown.page == attention(reported(2).model.weights, [[1, 2, 3]]).page


def test_attention_is_cut_with_notices():
    weights = mc.init_weights(1, 65, 1, 1, 2, None, "none", np.random.default_rng(0))
    shown = attention(weights, np.zeros((5, 129), int)).page.decode()
    for notice in ("the first 64 of 65 heads", "the first 4 of 5 contexts",
                   "the first 128 of 129 tokens"):
        assert notice in shown


def test_attention_has_the_model_or_what_was_computed(monkeypatch):
    """A model reads text where `show` is of its own tokenizer; a larger one does not run."""
    weights, tokenizer = reported(2).model.weights, reported(2).model.tokenizer

    def data(show):
        source, = (source for source in Elements(attention(
            weights, [[1, 2, 3]], show).page.decode()).inside["script"] if source[0] == "{")
        return json.loads(source)

    own, other = data(tokenizer.show), data(str)
    assert own["merges"] == tokenizer.to_array().tolist() and other["merges"] is None
    assert own["model"]["start"] == tokenizer.start and other["model"]["start"] is None
    assert len(own["vocabulary"]) == weights.d_vocab and "pattern" not in own["texts"][0]
    monkeypatch.setattr(notebook, "LIVE", 0)
    given = data(tokenizer.show)
    assert "model" not in given and "pattern" in given["texts"][0]
    assert len(given["vocabulary"]) < weights.d_vocab
    assert all(given[name] == own[name] for name in ("opening", "start", "head", "shown_heads"))


def test_attention_needs_heads():
    with pytest.raises(mc.InputError, match="n_layers=0"):
        attention(reported(0).model.weights, [[1, 2, 3]])


def test_attention_refuses_what_is_no_context():
    with pytest.raises(mc.InputError, match="tokens must"):
        attention(reported(2).model.weights, [[-1]])


def test_attention_saves_itself_once(tmp_path):
    shown = attention(reported(2).model.weights, [[1, 2, 3]])
    shown.save(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == shown.page
    with pytest.raises(mc.InputError, match="exists"):
        shown.save(tmp_path / "a.html")


def test_hostile_tokens_make_no_element():
    weights, tokens = reported(2).model.weights, [range(len(HOSTILE))]
    plain, hostile = (
        [tag for tag, _ in Elements(attention(weights, tokens, show).page.decode()).found]
        for show in (str, lambda id: HOSTILE[id % len(HOSTILE)]))
    assert plain == hostile
