"""Attention to click through, in a notebook: one object that shows itself."""

from collections.abc import Callable
import html

import numpy as np

from minicircuits import files
from minicircuits.behavior import excerpt
from minicircuits.findings.figures import MAX_TOKENS
from minicircuits.findings.heads import heads_of
from minicircuits.model.transformer import forward
from minicircuits.notation import Tokens, Weights, check_tokens
from minicircuits.report.packing import visible
from minicircuits.report.page import html_file
from minicircuits.report.texts import MAX_HEADS, given_text, notice

MAX_TEXTS = 4


class Attention:
    """A page with a model's attention on some contexts; as the last line of a cell it shows
    itself, in a frame that runs its own scripts and reaches neither notebook nor network."""

    def __init__(self, page):
        self.page = page          # bytes: a whole HTML file

    def _repr_html_(self):
        return ('<iframe sandbox="allow-scripts" title="attention" width="100%" height="860" '
                f'style="border: 0" srcdoc="{html.escape(self.page.decode())}"></iframe>')

    def save(self, path, force=False):
        """Write it as an HTML file; one that exists is refused unless `force`."""
        files.write_bytes(path, self.page, force)


def attention(weights: Weights, tokens: Tokens,
              show: Callable[[int], str] = "#{}".format) -> Attention:
    """Patterns, value-weighted patterns and logit effects of every head, on contexts (b, i).

    show : what a token id reads as, for example `model.tokenizer.show`; by default `#17`.
    At most 4 contexts of 128 tokens and 64 heads are shown; the page says so if there are more.
    """
    tokens, weights = check_tokens(weights, tokens), weights.astype(np.float64)
    heads, (b, T) = heads_of(weights), tokens.shape
    notices = (notice("Attention is cut", MAX_HEADS, len(heads), "heads")
               + notice("Cut", MAX_TEXTS, b, "contexts") + notice("Cut", MAX_TOKENS, T, "tokens"))
    heads, tokens = heads[:MAX_HEADS], tokens[:MAX_TEXTS, :MAX_TOKENS]
    acts = forward(weights, tokens)
    texts = [{"name": f"context {n}", **given_text(
        weights, *excerpt(tokens, acts, slice(n, n + 1)), heads)} for n in range(len(tokens))]
    ids = sorted({*tokens.ravel().tolist(), *(v for text in texts for row in text["next"]
                                              for v, _ in row)})
    return Attention(html_file("attention", {
        "notices": notices, "texts": texts, "shown_heads": heads,
        "vocabulary": [[id, visible(str(show(id)))] for id in ids]}))
