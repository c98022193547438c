"""One HTML file: the template, the style sheets, the scripts and the data, in that order.

No request leaves it: its content-security policy allows the styles and scripts it was made
with, by hash, and nothing else.
"""

import base64
import hashlib
import re
from pathlib import Path

from minicircuits import files
from minicircuits.report.packing import json_in_html

FOLDER = Path(__file__).parent
STYLES = ("page.css", "figures.css", "captions.css")
COMMON = ("numbers.js", "data.js", "state.js", "texts.js", "dom.js", "links.js", "figure.js",
          "colors.js", "hues.js", "heat_map.js", "token_strip.js", "explorer.js", "model.js",
          "circuits.js", "tokenizer.js", "living.js", "sentence.js")
SCRIPTS = {
    "page": (*COMMON, "steps.js", "charts.js", "sums.js", "ledger.js", "heads.js",
             "composition.js", "eigenvalues.js", "split.js", "score_ledger.js", "importance.js",
             "overview.js", "bigrams.js", "take_away.js", "address.js", "main.js"),
    "attention": (*COMMON, "attention.js")}


def html_file(name, data):
    """The "page" of a `page_data`, or the "attention" explorer alone: bytes of an HTML file."""
    styles = [source(style) for style in STYLES]
    scripts = [f'"use strict";\n{source(script)}' for script in SCRIPTS[name]]
    policy = ("default-src 'none'; base-uri 'none'; form-action 'none'; "
              f"style-src {hashes(styles)}; script-src {hashes(scripts)}")
    parts = {"policy": policy, "data": json_in_html(data), "words": source("words.html"),
             "styles": "".join(f"<style>{style}</style>\n" for style in styles),
             "scripts": "".join(f"<script>{script}</script>\n" for script in scripts)}
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], source(f"{name}.html")).encode()


def source(name):
    """A file beside this one, as text."""
    return files.read_bytes(FOLDER / name).decode()


def hashes(texts):
    """Their sources in a content-security policy: 'sha256-…' each."""
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
                    for text in texts)
