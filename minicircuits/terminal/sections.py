"""Each section of what was found in a model, as lines of text; no formula lives here.

`SECTIONS` lists them: each a title, and a function of what was found and of `show`, which
turns a token id into something readable. Not all sections have tokens in them.
"""

from minicircuits.terminal.layout import WIDTH, cut, heading, table


def section(name, found, show):
    """The heading and lines of a section of `findings.study.sections`, from all found so far."""
    title, lines = SECTIONS[name]
    title = title.format(*found.get("induction_head", ()))
    return [heading(title), *lines(found.get(name, found), show)]


def exactness_lines(errors, show=None):
    """Relative differences between sums over paths and the forward pass."""
    rows = [(f"all paths ({errors['paths']}) sum to the logits", errors["logits"])]
    if errors["terms"]:
        rows += [(f"all terms ({errors['terms']}) sum to the scores", errors["scores"]),
                 ("patterns rebuilt from weights and tokens alone", errors["patterns"]),
                 ("logits through the rebuilt patterns", errors["rebuilt_logits"])]
    return [f"  {title:<48}{'to':>3} {error:.1e}" for title, error in rows]


def loss_lines(losses, show=None):
    """Held-out losses of the model and of counts, the largest first."""
    return [f"  {title:<44}{loss:6.3f} nats per token"
            for title, loss in sorted(losses.items(), key=lambda item: -item[1])]


def folded_lines(found, show=None):
    """What stands for biases and norms, and what that means for the sections below."""
    heads, lines = found.get("resting", []), []
    if heads:
        each = ", ".join(heads[:6]) + ", …" * (len(heads) > 6)
        lines += [f"  Each layer's bias b_O is a head that rests: {each}.",
                  "  A path that starts there starts with a bias, whatever token it reads; tables",
                  "  of heads leave it out."]
    if "eps" in found:
        lines += ["  What reads the residual stream divides it by a norm σ. Where patterns are",
                  "  frozen, so are all σ; where they are recomputed, σ are recomputed too."]
    return lines + ["  Copying, skip-trigrams and composition are read off the matrices alone."]


def bigram_lines(found, show):
    """For each word what the model says comes next, above what the text has."""
    rows = [[cut(show(row["token"]), 14) if side == "model" else "", f"the {side}",
             *(f"{cut(show(token), 9)} {share:.2f}" for token, share in row[side])]
            for row in found["next_tokens"] for side in ("model", "text")]
    reached, best = found["training_loss"], found["fitted_loss"]
    return table(["after", "by", "likeliest", "second", "third"], rows) + [
        f"\n  on the training text {reached:.3f} nats; the same model fitted to the bigram "
        f"counts\n  by L-BFGS {best:.3f}: the trainer is {reached - best:.3f} above it"]


def head_lines(rows, show=None):
    """What each head looks at and copies, with a legend."""
    columns = {"previous": "prev", "duplicate": "dupl", "induction": "induct", "first": "first",
               "by_position": "by pos", "copying": "copying"}
    return table(["head", *columns.values(), "own top", "main offset"], [
        [f"{row['layer']}.{row['head']}", *(f"{row[key]:.2f}" for key in columns),
         f"{row['top_own']:4.0%}", f"{-row['offset']} ({row['at_offset']:.2f})"]
        for row in rows]) + [
        "  On repeated random tokens, attention: prev to the previous one, dupl to",
        "  earlier copies, induct to what followed those. On the text: first to the",
        "  first token, by pos how much of a pattern position explains, main offset",
        "  where most goes. In weights: the copying score; own top, tokens that are",
        "  their own top output."]


def skip_trigram_lines(found, show):
    """Per head its strongest sources, each with its strongest destinations and outs."""
    def names(tokens):
        return " ".join(cut(show(token), 11) for token in tokens)
    lines = []
    for row in found["heads"]:
        for n, entry in enumerate(row["skip_trigrams"]):
            head = "" if n else f"{row['layer']}.{row['head']}"
            left = f"{cut(show(entry['source']), 14)} … {names(entry['destinations'])}"
            lines.append(cut(f"  {head:<4} {left:<39} → {names(entry['outs'])}", WIDTH))
    return lines


def importance_lines(found, show=None):
    """Term importance: the loss as paths of each order are added, and virtual heads."""
    names = ["direct path", "single heads", "virtual heads of two",
             *(f"virtual heads of {order}" for order in range(3, len(found["losses"])))]
    orders = zip(names, found["counts"], found["losses"], found["marginal"])
    layers = enumerate(zip(found["given_direct"], found["given_others"]))
    return [*table(["paths added", "terms", "loss", "takes off"],
                   [[name, str(terms), f"{loss:.3f}", f"{marginal:.3f}"]
                    for name, terms, loss, marginal in orders]),
            *(f"  layer {layer}: {direct:.3f} given the direct path, {others:.3f} given the other "
              "layers' heads" for layer, (direct, others) in layers),
            *table(["virtual head", "takes off (nats)", "copying"],
                   [[row["heads"], f"{row['importance']:.4f}", f"{row['copying']:.2f}"]
                    for row in found["virtual_heads"][:3]])]


def pair_lines(found, show=None):
    """The strongest pairs of heads by kind of composition."""
    return [f"  random matrices of these shapes: {found['baseline']:.3f}"] + [
        f"  {kind}-composition, strongest:  "
        + "   ".join(f"{pair} {score:.3f}" for pair, score in found[kind]) for kind in "KQV"]


def split_lines(found, show=None):
    """The four parts of one head's scores, on the induction stripe and off it."""
    return table(["part of the score", "on the stripe", "elsewhere", "difference", ""], [
        [f"{name}-composition" if name in ("Q", "K") else name, f"{part['stripe']:.2f}",
         f"{part['elsewhere']:.2f}", f"{part['stripe'] - part['elsewhere']:.2f}",
         "← carries" if name == found["carrier"] else ""]
        for name, part in found["parts"].items()])


def removal_lines(found, show=None):
    """What is left without the induction head, and without the previous-token head."""
    whole = dict.fromkeys(("frozen", "recomputed"), found["importance"]["losses"][-1])
    heads = ["whole model", *(f"without {head}" for head in found["removed"])]
    losses = [whole, *found["removed"].values()]
    return table(["", "shuffled − ordered block", "loss, patterns frozen", "recomputed"], [
        [head, f"{gap:.2f} nats", f"{loss['frozen']:.3f}", f"{loss['recomputed']:.3f}"]
        for head, gap, loss in zip(heads, found["gaps"].values(), losses)])


def ledger_lines(found, show):
    """One logit as a sum: the strongest (path, source) entries, and all others."""
    context = found["context"]
    text = "".join(show(token) for token in context).replace("␣", " ")
    lines = [f"  … {text[-68:]}",
             f"  next: {show(found['target'])}  (probability {found['probability']:.2f})", "",
             f"  {'path':<12}{'reads':<22}{'at':>4}{'logit':>10}"]
    for path, source, value in found["entries"]:
        lines.append(f"  {path:<12}{cut(show(context[source]), 20):<22}{source:>4}{value:>+10.3f}")
    others = f"{found['count']} other entries"
    return lines + [f"  {others:<38}{found['others']:>+10.3f}",
                    f"  {'sum':<38}{found['sum']:>+10.3f}",
                    f"  {'the model’s logit':<38}{found['logit']:>+10.3f}"]


SECTIONS = {
    "losses": ("Held-out loss", loss_lines),
    "exactness": ("Is the algebra exact on it?", exactness_lines),
    "folded": ("Its biases and norms, folded in", folded_lines),
    "bigrams": ("Its bigram table W_U W_E, and the text's", bigram_lines),
    "heads": ("What each head looks at, and copies", head_lines),
    "skip_trigrams": ("Skip-trigrams: source … destinations → outs it adds to",
                      skip_trigram_lines),
    "composition": ("Who reads whom: composition scores", pair_lines),
    "importance": ("How much each order of terms matters (patterns frozen)", importance_lines),
    "split": ("Scores of head {}.{} on repeated random tokens, in four parts", split_lines),
    "removals": ("What removing heads does", removal_lines),
    "prediction": ("One prediction that head {}.{} helped, as a ledger of paths",
                   ledger_lines)}
