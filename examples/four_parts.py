"""One picture as SVG text: the scores of a head in four parts, as heat maps that add up.

    python examples/four_parts.py > examples/four_parts.svg

draws the README's.
"""

import sys

import numpy as np

from minicircuits.behavior.in_context import induction_scores, random_blocks
from minicircuits.circuits.score_expansion import split_scores
from minicircuits.model.transformer import forward
from minicircuits.training.model_file import load_pretrained

COLORS = ("#2166ac", "#5191c3", "#8cb8d9", "#bdd7ea", "#e1ecf4", "#f4f4f2", "#fbe6d3", "#f6c8a0",
          "#eba068", "#d3712f", "#a8420a")
WIDTH, MARGIN, CELL = 930, 22, 5.6
TITLES = ("neither", "+ Q", "+ K", "+ both", "= total")


def induction_head(model, block=13, contexts=32):
    """The picture of the best induction head of a model, on blocks of random tokens, twice."""
    weights, start = model.weights.astype(np.float64), model.tokenizer.start
    scores = induction_scores(weights, start, np.random.default_rng(0))
    tokens = random_blocks(weights.d_vocab, block, 2, contexts, start, np.random.default_rng(0))
    return four_parts(weights, tokens, *np.unravel_index(scores.argmax(), scores.shape))


def four_parts(weights, tokens, layer, head):
    """The scores of a head as neither, Q, K, both and their sum, on tokens (b, i), as SVG.

    Each map is the mean over the contexts. From each destination's scores their mean over the
    sources it may see is taken off, in every part: a constant changes no pattern. The five
    share one scale of colors, whose ends are ± the largest score of all.
    """
    tokens = np.asarray(tokens)
    split = split_scores(weights, tokens, forward(weights, tokens).pattern, layer, head)
    allowed = np.tri(tokens.shape[1], dtype=bool)
    parts = [np.where(allowed, part.mean(0), 0) for part in (*split, sum(split))]
    parts = [part - part.sum(-1, keepdims=True) / allowed.sum(-1, keepdims=True)
             for part in parts]
    limit = max(np.abs(part[allowed]).max() for part in parts)
    side = tokens.shape[1] * CELL
    step = (WIDTH - 2 * MARGIN - side) / (len(parts) - 1)
    height = side + 92
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
             'font-family="system-ui, sans-serif" font-size="13" fill="#333">',
             f'<title>Scores of head {layer}.{head} in four parts</title>',
             f'<rect width="{WIDTH}" height="{height:.0f}" rx="6" fill="#fff"/>']
    for n, (title, part) in enumerate(zip(TITLES, parts)):
        left = MARGIN + n * step
        lines += [f'<text x="{left + side / 2:.1f}" y="26" text-anchor="middle" '
                  f'font-weight="600">{title}</text>',
                  f'<g transform="translate({left:.1f} 40) scale({CELL})">']
        level = np.rint((part / limit + 1) / 2 * (len(COLORS) - 1)).astype(int)
        for color in np.unique(level[allowed]):
            places = np.argwhere(allowed & (level == color))
            squares = "".join(f"M{j} {i}h1v1h-1z" for i, j in places)
            lines.append(f'<path fill="{COLORS[color]}" d="{squares}"/>')
        lines.append('</g>')
    return "\n".join([*lines, *legend(side + 62, limit), '</svg>']) + "\n"


def legend(top, limit):
    """The colors with their ends, and how to read a map."""
    left, right = MARGIN + 34, MARGIN + 34 + len(COLORS) * 12
    for n, color in enumerate(COLORS):
        yield f'<rect x="{left + n * 12}" y="{top}" width="12" height="11" fill="{color}"/>'
    yield (f'<text x="{left - 4}" y="{top + 10}" text-anchor="end">−{limit:.0f}</text>'
           f'<text x="{right + 4}" y="{top + 10}">+{limit:.0f}</text>'
           f'<text x="{WIDTH - MARGIN}" y="{top + 10}" text-anchor="end">a row a destination, '
           'a column a source, in context order; scores, each row less its mean</text>')


if __name__ == "__main__":
    sys.stdout.write(induction_head(load_pretrained()))
