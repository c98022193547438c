"""The figures as text, at 80 columns: each function turns one figure into lines.

`show` turns a token id into something readable; no formula lives here.
"""

import sys
import time

import numpy as np

WIDTH = 80


def heading(title):
    return f"\n{title}\n{'─' * min(len(title), WIDTH)}"


def table(rows, columns):
    """Lines of aligned columns; columns: pairs of a title and a function row -> text.

    The first column is set to the left, all others to the right.
    """
    cells = [[title for title, _ in columns]]
    cells += [[text(row) for _, text in columns] for row in rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    return ["  " + "  ".join(cell.ljust(width) if n == 0 else cell.rjust(width)
                             for n, (cell, width) in enumerate(zip(row, widths))).rstrip()
            for row in cells]


def cut(text, width):
    return text if len(text) <= width else text[:width - 1] + "…"


def watched(items, name):
    """Yields `items`, and counts them on standard error with the time left, if somebody looks."""
    visible, begun = sys.stderr.isatty(), time.perf_counter()
    shown = begun
    try:
        for done, item in enumerate(items):
            now = time.perf_counter()
            if visible and done and now - shown >= 0.2:
                left, shown = (now - begun) / done * (len(items) - done), now
                print(f"\r  {done} of {len(items)} {name}  {left:.0f} s left \x1b[K", end="",
                      file=sys.stderr, flush=True)
            yield item
    finally:
        if shown > begun:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def exactness(errors):
    """Relative differences between sums over paths and the forward pass."""
    rows = [(f"all paths ({errors['paths']}) sum to the logits", errors["logits"])]
    if errors["terms"]:
        rows += [(f"all terms ({errors['terms']}) sum to the scores", errors["scores"]),
                 ("patterns rebuilt from weights and tokens alone", errors["patterns"]),
                 ("logits through the rebuilt patterns", errors["rebuilt_logits"])]
    return [f"  {name:<48}{'to':>3} {error:.1e}" for name, error in rows]


def losses(figures):
    """Validation losses, the model's among the counts'."""
    rows = sorted(figures.items(), key=lambda item: -item[1])
    return [f"  {name:<44}{loss:6.3f} nats per token" for name, loss in rows]


def next_tokens(rows, show):
    def pairs(found):
        return " ".join(f"{cut(show(token), 9)} {share:.2f}" for token, share in found)
    return table(rows, [("after", lambda row: show(row["token"])),
                        ("the model says", lambda row: pairs(row["model"])),
                        ("the text has", lambda row: pairs(row["text"]))])


def heads(rows):
    """What each head looks at, copies, and rests on, with a legend."""
    number = [("previous", "prev"), ("duplicate", "dupl"), ("induction", "induct"),
              ("first", "first"), ("by_position", "by pos"), ("copying", "copying")]
    columns = [("head", name)]
    columns += [(title, lambda row, key=key: f"{row[key]:.2f}") for key, title in number]
    columns += [("own top", lambda row: f"{row['top_own']:4.0%}"),
                ("main offset", lambda row: f"{-row['offset']} ({row['at_offset']:.2f})")]
    return table(rows, columns) + [
        "  On repeated random tokens, attention: prev to the previous one, dupl to",
        "  earlier copies, induct to what followed those. On the text: first to the",
        "  first token, by pos how much of a pattern position explains, main offset",
        "  where most goes. In weights: the copying score; own top, tokens that are",
        "  their own top output."]


def name(head):
    """layer.head"""
    return f"{head['layer']}.{head['head']}"


def skip_trigrams(rows, show):
    """Per head, its strongest sources: who wants them, what they raise."""
    def names(tokens):
        return " ".join(cut(show(token), 11) for token in tokens)
    lines = []
    for row in rows:
        for n, entry in enumerate(row["skip_trigrams"]):
            head = name(row) if n == 0 else ""
            left = f"{cut(show(entry['source']), 14)} … {names(entry['destinations'])}"
            lines.append(cut(f"  {head:<4} {left:<39} → {names(entry['outs'])}", WIDTH))
    return lines


def importance(figures):
    """Term importance: the loss as paths of each order are added."""
    names = ["direct path", "single heads", "virtual heads of two"]
    lines = [f"  {'paths added':<24}{'terms':>6}{'loss':>9}{'takes off':>11}"]
    for order, (loss, marginal, terms) in enumerate(zip(
            figures["losses"], figures["marginal"], figures["counts"])):
        name = names[order] if order < len(names) else f"virtual heads of {order}"
        lines.append(f"  {name:<24}{terms:>6}{loss:>9.3f}{marginal:>11.3f}")
    lines += [f"  layer {layer}: {direct:.3f} given the direct path, {others:.3f} given the other "
              "layers' heads" for layer, (direct, others) in enumerate(zip(
                  figures["given_direct"], figures["given_others"]))]
    return lines


def virtual_heads(figures):
    return table(figures["virtual_heads"][:3], [
        ("virtual head", lambda row: row["heads"]),
        ("takes off (nats)", lambda row: f"{row['importance']:.4f}"),
        ("copying", lambda row: f"{row['copying']:.2f}")])


def composition(figures):
    lines = [f"  random matrices of these shapes: {figures['baseline']:.3f}"]
    for kind in "KQV":
        pairs = "   ".join(f"{pair} {score:.3f}" for pair, score in figures[kind])
        lines.append(f"  {kind}-composition, strongest:  {pairs}")
    return lines


def split(figures):
    """The four parts of one head's scores, on the induction stripe and off it."""
    lines = [f"  {'part of the score':<26}{'on the stripe':>14}{'elsewhere':>12}{'difference':>13}"]
    names = {"neither": "neither", "Q": "Q-composition", "K": "K-composition", "both": "both",
             "total": "total"}
    for name, title in names.items():
        part = figures["parts"][name]
        mark = " ← carries" if name == figures["carrier"] else ""
        lines.append(f"  {title:<26}{part['stripe']:>14.2f}{part['elsewhere']:>12.2f}"
                     f"{part['stripe'] - part['elsewhere']:>13.2f}{mark}")
    return lines


def removals(figures, induction, previous):
    """What is left without the induction head, and without the previous-token head."""
    gaps, losses = figures["gaps"], figures["removed"]
    whole = dict.fromkeys(("frozen", "recomputed"), figures["importance"]["losses"][-1])
    rows = [("whole model", gaps["whole"], whole),
            (f"without {induction}", gaps["without_induction"], losses[induction]),
            (f"without {previous}", gaps["without_previous"], losses[previous])]
    lines = [f"  {'':<16}{'ordered block cheaper by':>26}{'loss on text, patterns':>26}",
             f"  {'':<16}{'than a shuffled one':>26}{'frozen':>15}{'recomputed':>12}"]
    for title, gap, loss in rows:
        lines.append(f"  {title:<16}{gap:>20.2f} nats{loss['frozen']:>16.3f}"
                     f"{loss['recomputed']:>12.3f}")
    return lines


def ledger(figures, show):
    """One logit as a sum: the strongest (path, source) entries, and all others."""
    context = figures["context"]
    text = "".join(show(token) for token in context).replace("␣", " ")
    lines = [f"  … {text[-68:]}",
             f"  next: {show(figures['target'])}  (probability {figures['probability']:.2f})", "",
             f"  {'path':<12}{'reads':<22}{'at':>4}{'logit':>10}"]
    for path, source, value in figures["entries"]:
        lines.append(f"  {path:<12}{cut(show(context[source]), 20):<22}{source:>4}{value:>+10.3f}")
    return lines + [f"  {figures['count']} other entries{'':<{24 - len(str(figures['count']))}}"
                    f"{figures['others']:>+10.3f}",
                    f"  {'sum':<38}{figures['sum']:>+10.3f}",
                    f"  {'the model’s logit':<38}{figures['logit']:>+10.3f}"]


def chart(title, logs, value, height=8):
    """One measurement of several training runs over tokens seen, as curves.

    logs : pairs of a mark (one character) and a run's log, whose rows have "tokens" and
    `value`; runs of one kind share a mark, and where curves meet the last one drawn is seen.
    Curves are straight between measurements. Both axes are linear.
    """
    low, high = (extreme(row[value] for _, log in logs for row in log) for extreme in (min, max))
    end = max(log[-1]["tokens"] for _, log in logs)
    columns = np.arange(WIDTH - 11)
    lines = [[" "] * len(columns) for _ in range(height)]
    for mark, log in logs:
        tokens = [row["tokens"] for row in log]
        reached = columns <= tokens[-1] / (end or 1) * columns[-1]
        at = np.interp(columns[reached] / columns[-1] * end, tokens, [row[value] for row in log])
        rows = np.rint((high - at) / ((high - low) or 1) * (height - 1)).astype(int)
        for column, row in enumerate(rows):
            lines[row][column] = mark
    labels = {0: f"{high:.2f}", height - 1: f"{low:.2f}"}
    lines = [f"{labels.get(n, ''):>8} │{''.join(line).rstrip()}" for n, line in enumerate(lines)]
    right = f"{end / 1e6:.1f} million tokens"
    return [f"  {title}", *lines, f"{'':>8} └{'─' * len(columns)}",
            f"{'':>9}0{right:>{len(columns)}}"]
