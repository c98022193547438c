"""Each section of what was found in a model, as lines of text; no formula lives here.

`SECTIONS` lists them: each a title, and a function of what was found and of `show`, which
turns a token id into something readable. Not all sections have tokens in them.
"""

from minicircuits.terminal.layout import (WIDTH, cut, ending, heading, paragraph, set_left, table,
                                          wrapped)


def section(name, found, show):
    """The heading and lines of a section of `findings.study.sections`, from all found so far."""
    title, lines = SECTIONS[name]
    title = title.format(*found.get("induction_head") or ())
    whole = name in ("losses", "heads")
    return [heading(title), *lines(found if whole else found.get(name, found), show)]


def exactness_lines(errors, show=None):
    """Relative differences between sums over paths and the forward pass."""
    rows = [(f"all paths ({count(errors['paths'])}) sum to the logits", errors["logits"])]
    if errors["terms"]:
        rows += [(f"all terms ({count(errors['terms'])}) sum to the scores", errors["scores"]),
                 ("patterns rebuilt from weights and tokens alone", errors["patterns"]),
                 ("logits through the rebuilt patterns", errors["rebuilt_logits"])]
    large = ["  A model this large stays in float32, where one rounding is 6e-08."]
    return ([f"  {title:<48}{'to':>3} {error:.1e}" for title, error in rows]
            + large * (errors["precision"] == "float32") + limit_lines(errors))


def count(number):
    """A number of paths: all its digits, or its power of ten where it has very many."""
    return f"{number:,}" if number < 1e9 else f"{number:.0e}".replace("e+", "e")


def limit_lines(found):
    """What is not looked at one by one, since there is too much of it; mostly nothing."""
    return [wrapped(f"  {found['limit']}")] if found.get("limit") else []


def loss_lines(found, show=None):
    """Losses of the model and of counts, and those recorded in training, the largest first."""
    groups = {"on text that was held out from training" if found["held_out"] else
              "on this text": found["losses"],
              "when it was trained, on text held out then": found["recorded"]}
    if not found["losses"]:
        return ["  There is no next token to predict: a loss takes two tokens."]
    return [line for title, losses in groups.items() if losses for line in (
        f"  {title}:", *(f"    {name:<42}{loss:6.3f}" for name, loss in sorted(
            losses.items(), key=lambda item: -item[1])))]


def folded_lines(sentences, show=None):
    """What stands for biases and norms, and what that means for the sections below."""
    return [wrapped(f"  {sentence}") for sentence in sentences]


def bigram_lines(found, show):
    """For each word what the model says comes next, above what the text has."""
    rows = [[cut(show(row["token"]), 14) if side == "model" else "", f"the {side}",
             *(f"{cut(show(token), 9)} {share:.2f}" for token, share in row[side]),
             *[""] * (3 - len(row[side]))]
            for row in found["next_tokens"] for side in ("model", "text") if side in row]
    lines = table(["after", "by", "likeliest", "second", "third"], rows)
    if "training_loss" in found:
        reached, best = found["training_loss"], found["fitted_loss"]
        lines.append(f"\n  on the training text {reached:.3f} nats; the same model fitted to the "
                     f"bigram counts\n  by L-BFGS {best:.3f}: the trainer is {reached - best:.3f} "
                     "above it")
    return lines


def head_lines(found, show=None):
    """What each head looks at and copies, with a legend."""
    rows, blocks = found["heads"], ", ".join(map(str, found["blocks"]))
    columns = {"previous": "prev", "duplicate": "dupl", "induction": "induct", "first": "first",
               "by_position": "by pos", "copying": "copying"}
    columns = {key: title for key, title in columns.items() if key in rows[0]}
    offsets = "offset" in rows[0]
    legend = [
        f"On random tokens that come twice (blocks of {blocks}), attention: prev to the token "
        "before, dupl to earlier copies of the token, induct to what followed these."
        if blocks else "Contexts are too short for random tokens that come twice.",
        "On the text: first, attention to the first token." if "first" in columns else
        "One token has no choice where to look.",
        "By pos: how much of a pattern follows from positions alone."
        if "by_position" in columns else
        "How much of a pattern follows from positions takes two contexts; it is left out."
        if "first" in columns else "",
        "Main offset: the distance with most attention, and how much."
        if offsets else "A main offset takes four tokens; it is left out."
        if "first" in columns else "",
        "In weights: the copying score, 1 if tokens that are attended to make themselves likelier; "
        "own top, how many make themselves likeliest."]
    return table(["head", *columns.values(), "own top", *(["main offset"] if offsets else [])], [
        [f"{row['layer']}.{row['head']}", *(f"{row[key]:z.2f}" for key in columns),
         f"{row['top_own']:4.0%}",
         *([f"{-row['offset']} ({row['at_offset']:.2f})"] if offsets else [])]
        for row in rows]) + [paragraph(" ".join(filter(None, legend)))]


def short_lines(found, show=None):
    """Why there is less than in other texts."""
    return [paragraph("The text has one token, and none that comes next. What takes a loss is left "
                      "out: how much terms matter, what removing heads does, a prediction.")]


def named_lines(found, show=None):
    """Which heads have earned a name of the paper's; where none has, how near the best came."""
    kinds = {"induction_head": ("an induction head", "attention to what followed earlier copies"),
             "previous_token_head": ("a previous-token head", "attention to the token before")}
    lines = [] if found["nearest"] else ["  Contexts are too short to tell."]
    for name, nearest in found["nearest"].items():
        (kind, what), head = kinds[name], "{}.{}".format(*nearest["head"])
        score, least = f"{nearest['score']:.2f}", f"{nearest['least']:.2f}"
        lines.append(f"  {head} is {kind}: its {what} is {score}, more than {least}."
                     if found[name] else f"  No head is {kind}: {what} is {score} at best "
                     f"({head}), and it takes more than {least}." if nearest["least"] < 1 else
                     f"  No head can show that it is {kind} in contexts so short.")
    if not found["induction_head"]:
        lines.append("  Left out is what only an induction head has: scores in four parts on its "
                     "stripe, what its removal does, a prediction that it helped.")
    return [wrapped(line) for line in lines]


def skip_trigram_lines(found, show):
    """Per head its strongest sources, each with its strongest destinations and outs."""
    def names(tokens):
        return " ".join(cut(show(token), 11) for token in tokens)
    lines = []
    for row in found["heads"]:
        for n, entry in enumerate(row["skip_trigrams"]):
            head = "" if n else f"{row['layer']}.{row['head']}"
            left = f"{cut(show(entry['source']), 14)} … {names(entry['destinations'])}"
            lines.append(cut(f"  {head:<4} {set_left(left, 39)} → {names(entry['outs'])}", WIDTH))
    return lines


def importance_lines(found, show=None):
    """Term importance: the loss as paths of each order are added, and virtual heads."""
    names = ["direct path", "single heads", "virtual heads of two",
             *(f"virtual heads of {order}" for order in range(3, len(found["losses"])))]
    orders = zip(names, found["counts"], found["losses"], found["marginal"])
    layers = enumerate(zip(found["given_direct"], found["given_others"]))
    return [*table(["paths added", "number", "loss", "takes off"],
                   [[name, str(terms), f"{loss:.3f}", f"{marginal:z.3f}"]
                    for name, terms, loss, marginal in orders]),
            paragraph("Each line adds the paths through so many heads: the loss after that, and "
                      "what it takes off, in nats; the first, of the loss where every token is as "
                      "likely. The single heads of a layer take off:"),
            *(f"  layer {layer}: {direct:z.3f} given the direct path, {others:z.3f} given the "
              "other layers' heads" for layer, (direct, others) in layers), "",
            *table(["virtual head", "takes off (nats)", "copying"],
                   [[row["heads"], f"{row['importance']:z.4f}", f"{row['copying']:z.2f}"]
                    for row in found["virtual_heads"][:3]]),
            paragraph("In a virtual head, each head moves on what the one before it has moved. "
                      "Copying: the copying score of all together."), *limit_lines(found)]


def pair_lines(found, show=None):
    """The strongest pairs of heads by kind of composition, as far as they are above their level."""
    lines = [f"  random matrices of these shapes: {found['baseline']:.3f}"]
    for kind in "KQV":
        above = [f"{pair} {score:.3f}" for pair, score, level in found[kind] if score > level]
        pair, score, level = found[kind][0]
        lines.append(f"  {kind}-composition, strongest:  " + "   ".join(above) if above else
                     f"  {kind}-composition:  none; at best {pair} {score:.3f}, of {level:.3f}")
    return lines + [
        paragraph("From 0 to 1: how much the keys (K), queries (Q) or values (V) of the later head "
                  "read of what the earlier one writes. Pairs are listed above a level of their "
                  "own. Were heads turned at random, one model of a million had such a pair.")]


def split_lines(found, show=None):
    """The four parts of one head's scores, on the induction stripe and off it."""
    return table(["part of the score", "on the stripe", "elsewhere", "difference", ""], [
        [f"{name}-composition" if name in ("Q", "K") else name, f"{part['stripe']:z.2f}",
         f"{part['elsewhere']:z.2f}", f"{part['stripe'] - part['elsewhere']:z.2f}",
         "← carries" if name == found["carrier"] else ""]
        for name, part in found["parts"].items()]) + [
        *([] if found["carrier"] else
          [f"  No part carries a stripe: attention on it is {found['attention']:.2f}."]),
        paragraph("The stripe is what followed the earlier copy of a token: where an induction "
                  "head looks. Q: heads of earlier layers are in the query; K: in the key.")]


def removal_lines(found, show=None):
    """What is left without the induction head, and without the previous-token head."""
    whole = dict.fromkeys(("frozen", "recomputed"), found["importance"]["losses"][-1])
    heads = ["whole model", *(f"without {head}" for head in found["removed"])]
    losses = [whole, *found["removed"].values()]
    return table(["", "shuffled − ordered block", "loss, patterns frozen", "recomputed"], [
        [head, f"{gap:z.2f} nats", f"{loss['frozen']:.3f}", f"{loss['recomputed']:.3f}"]
        for head, gap, loss in zip(heads, found["gaps"].values(), losses)]) + [
        paragraph("First, random tokens that come twice: the loss the second time if they are in "
                  "another order, less that in the same order. Then the loss on the text, with "
                  "the patterns of all other heads as they were, and computed anew.")]


def ledger_lines(found, show):
    """One logit as a sum: the strongest (path, source) entries, and all others."""
    context = found["context"]
    lines = [f"  {ending(found['text'], WIDTH - 2)}",
             f"  next: {cut(show(found['target']), 24)}  (probability {found['probability']:.2f})",
             f"  to its logit head {found['head']} adds {found['effect']:+z.3f}", ""]
    if "entries" not in found:
        return lines + limit_lines(found)
    lines.append(f"  {'path':<12}{'reads':<22}{'at':>4}{'logit':>10}")
    for path, source, value in found["entries"]:
        reads, at = (cut(show(context[source]), 20), source) if source is not None else ("b_O", "")
        lines.append(f"  {path:<12}{set_left(reads, 22)}{at:>4}{value:>+z10.3f}")
    others = f"{found['count']:,} other entries"
    return lines + [f"  {others:<38}{found['others']:>+z10.3f}",
                    f"  {'sum':<38}{found['sum']:>+z10.3f}",
                    f"  {'the model’s logit':<38}{found['logit']:>+z10.3f}",
                    paragraph("Each line is a path, the token that it reads, the place of that, "
                              "and what it adds to the logit of the next token.")]


SECTIONS = {
    "losses": ("Loss, nats per predicted token", loss_lines),
    "exactness": ("Is the algebra exact on it?", exactness_lines),
    "folded": ("Its biases and norms, folded in", folded_lines),
    "bigrams": ("Its bigram table W_U W_E, and the text's", bigram_lines),
    "heads": ("What each head looks at, and copies", head_lines),
    "skip_trigrams": ("Skip-trigrams: source … destinations → outs it adds to",
                      skip_trigram_lines),
    "short": ("How much terms matter", short_lines),
    "named": ("Which heads have earned a name", named_lines),
    "composition": ("Who reads whom: composition scores", pair_lines),
    "importance": ("How much each order of terms matters (patterns frozen)", importance_lines),
    "split": ("Scores of head {}.{} on repeated random tokens, in four parts", split_lines),
    "removals": ("What removing heads does", removal_lines),
    "prediction": ("One prediction, as a ledger of paths", ledger_lines)}
