"""Each section of what was found in a model, as lines of text.

`show` turns a token id into something readable; no formula lives here.
"""

from minicircuits.terminal.layout import WIDTH, cut, table


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
    return table(["after", "the model says", "the text has"],
                 [[show(row["token"]), pairs(row["model"]), pairs(row["text"])] for row in rows])


def heads(rows):
    """What each head looks at, copies, and rests on, with a legend."""
    numbers = {"previous": "prev", "duplicate": "dupl", "induction": "induct", "first": "first",
               "by_position": "by pos", "copying": "copying"}
    return table(["head", *numbers.values(), "own top", "main offset"], [
        [name(row), *(f"{row[key]:.2f}" for key in numbers), f"{row['top_own']:4.0%}",
         f"{-row['offset']} ({row['at_offset']:.2f})"] for row in rows]) + [
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
    return table(["virtual head", "takes off (nats)", "copying"],
                 [[row["heads"], f"{row['importance']:.4f}", f"{row['copying']:.2f}"]
                  for row in figures["virtual_heads"][:3]])


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
