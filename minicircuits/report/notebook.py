"""Attention to click through, in a notebook: one object that shows itself."""

from collections.abc import Callable
import html

import numpy as np

from minicircuits import files
from minicircuits.behavior import excerpt
from minicircuits.findings.figures import MAX_TOKENS, strongest_move
from minicircuits.findings.heads import heads_of
from minicircuits.model.transformer import forward
from minicircuits.notation import InputError, Tokens, Weights, check_tokens
from minicircuits.report.data import MAX_HEADS, given_text, notice, running_model
from minicircuits.report.page import html_file
from minicircuits.training.tokenizer import Tokenizer, visible_name

MAX_TEXTS = 4
LIVE = 1_000_000          # parameters of a model that runs in a notebook: 5.3 MB


class Attention:
    """A page with a model's attention on some contexts; as the last line of a cell it shows
    itself, in a frame that runs its own scripts and reaches neither notebook nor network."""

    def __init__(self, page, height):
        self.page = page          # bytes: a whole HTML file
        self.height = height      # of the frame, in pixels

    def _repr_html_(self):
        return (f'<iframe sandbox="allow-scripts" title="attention" width="100%" style="border: 0" '
                f'height="{self.height}" srcdoc="{html.escape(self.page.decode())}"></iframe>')

    def save(self, path, force=False):
        """Write it as an HTML file; one that exists is refused unless `force`."""
        files.write_bytes(path, self.page, force)


def attention(weights: Weights, tokens: Tokens,
              show: Callable[[int], str] = "#{}".format) -> Attention:
    """A report's explorer, on contexts (b, i): patterns, value-weighted patterns, logit effects.

    It opens where one head, from one earlier token, adds most to a logit: to that of the token that
    came next, where the model gave it half the probability or more. At most 4 contexts of 128
    tokens and 64 heads are shown; the page says so if there are more.

    show : what a token id reads as, for example `model.tokenizer.show`; by default `#17`.

    Up to 1,000,000 parameters the model runs in the frame: heads can be switched off, texts
    written (as words, where `show` is of the model's `Tokenizer`). A notebook keeps that at 5.3
    bytes a parameter, 2.3 MB for the packaged model. What is computed before takes less, 0.1 MB
    for 15 tokens and 0.5 MB for 128, and is what a larger model shows.
    Raises InputError for a model without layers.
    """
    tokens, weights = check_tokens(weights, tokens), weights.astype(np.float64)
    heads, (b, T) = heads_of(weights), tokens.shape
    if not heads:
        raise InputError("attention must have heads to show; got n_layers=0")
    notices = (notice("Attention is cut", MAX_HEADS, len(heads), "heads")
               + notice("Cut", MAX_TEXTS, b, "contexts") + notice("Cut", MAX_TOKENS, T, "tokens"))
    heads, tokens = heads[:MAX_HEADS], tokens[:MAX_TEXTS, :MAX_TOKENS]
    acts = forward(weights, tokens)
    text, place, head = strongest_move(weights, tokens, acts, heads)
    texts = [{"name": f"context {n}", "tokens": row.tolist()} for n, row in enumerate(tokens)]
    model, ids = {}, range(weights.d_vocab)
    if sum(W.size for _, W in weights.items()) <= LIVE:
        owner = getattr(show, "__self__", None)               # whose method `show` is
        reads = isinstance(owner, Tokenizer) and owner.d_vocab == weights.d_vocab
        model = running_model(weights, owner if reads else None)
    else:
        texts = [text | given_text(weights, *excerpt(tokens, acts, slice(n, n + 1)), heads)
                 for n, text in enumerate(texts)]
        ids = sorted({*tokens.ravel().tolist(), *(v for text in texts for row in text["next"]
                                                  for v, _ in row)})
    return Attention(html_file("attention", {
        **model, "notices": notices, "texts": texts, "opening": text, "start": place, "head": head,
        "shown_heads": heads, "vocabulary": [[id, visible_name(str(show(id)))] for id in ids]}),
        height=1080 if model else 880)
