"""Two layers: who composes with whom, and how an induction head comes to look where it looks.

[a][b] … [a] → [b]: a head of the second layer attends to what followed the present token last
time, because its keys read what a previous-token head of the first layer wrote (K-composition).

    python examples/05_two_layer_induction.py [--text FILE_OR_FOLDER ...]
On the packaged model; or, given a text, on two layers trained on it first (about 45 s).
Paper: "Two-Layer Attention-Only Transformers", "Induction Heads", "How Induction Heads Work".
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")      # NumPy asks when it loads: slices share cores

import numpy as np

import minicircuits as mc
from minicircuits.behavior.ablation import loss_of
from minicircuits.behavior.patterns import after_earlier_copies, attention_on
from minicircuits.circuits.induction import nearest_matches
from minicircuits.model.attention import causal_softmax
from minicircuits.findings.effects import induction_split, removal_gaps
from minicircuits.findings.heads import best_heads, head_table, strongest_pairs
from minicircuits.terminal import sections as terminal
from minicircuits.terminal.layout import heading, table
from minicircuits.runs import prepare, trained

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--text", nargs="+", metavar="FILE_OR_FOLDER", help="train on your own text")
parser.add_argument("--steps", type=int, default=400, metavar="N", help="of training, with --text")
options = parser.parse_args()

if options.text:
    text = prepare(options.text)
    weights = trained(2, text, steps=options.steps)
else:
    weights, tokenizer, _ = mc.load_pretrained()
    text = prepare(None, tokenizer, weights.n_ctx)
weights, start, show = weights.astype(float), text.tokenizer.start, text.tokenizer.show
contexts = text.validation[:16]
acts = mc.forward(weights, contexts)
print(heading("The heads"))
print("""  Look for a head 0.h with `prev` near 1, which looks one back, and a head 1.h
  with a high `induct`, the attention on what followed earlier copies in random
  text. That one should also copy: a copying score near 1.
""")
rows = head_table(weights, text.counts.sum(1) / text.counts.sum(), contexts, acts, start, seed=0)
print(*terminal.head_lines(rows), sep="\n")
best, previous = ((row["layer"], row["head"]) for row in best_heads(rows))
name, previous_name = (f"{layer}.{head}" for layer, head in (best, previous))

print(heading("Who reads whom"))
print(f"  {name} is the induction head, {previous_name} looks one back: the two are among the")
print("  strongest pairs of row K, 1.5 × random.\n")
print(*terminal.pair_lines(strongest_pairs(weights)), sep="\n")

print(heading(f"Where head {name} finds what it says, in held-out text"))
print("""  Each line is a place in the text. The present token came before; what followed
  it then is what the head looks at, and what it adds to the true next token's
  logit is the last column. Look how often it is the true next token.
""")
effect = mc.head_effects(weights, contexts, acts)[best[0], :, best[1]]
seen = np.where(after_earlier_copies(contexts), acts.pattern[best[0], :, best[1]], 0)
found = seen[:, :-1].max(-1)                                                        # (b, i−1)
places = [np.unravel_index(flat, found.shape) for flat in np.argsort(-found, axis=None)[:400:50]]

print(*table([(b, i, seen[b, i].argmax()) for b, i in places], [
    ("earlier", lambda row: " ".join(show(contexts[row[0], row[2] - n]) for n in (1, 0))),
    ("present", lambda row: show(contexts[row[0], row[1]])),
    ("attention", lambda row: f"{found[row[:2]]:.2f}"),
    ("true next", lambda row: show(contexts[row[0], row[1] + 1])),
    ("its logit", lambda row: f"{effect[row[:2]]:+.1f}")]), sep="\n")

print(heading("On random tokens, with the control"))
print("""  A second block of random tokens costs less if it repeats the first. That alone
  proves nothing: raising all tokens seen so far does it too. So the control has
  the same tokens shuffled. Look at what is left of the gap without either head.
""")
rows = list(zip(["whole model", f"without {name}", f"without {previous_name}"],
                removal_gaps(weights, start, best, previous, 0).values()))
print(*table(rows, [("", lambda row: row[0]),
                    ("shuffled − ordered, nats", lambda row: f"{row[1]:.2f}")]), sep="\n")

print(heading(f"Why {name} looks there: its scores in four parts"))
print("""  A score is a sum: queries and keys each read embeddings directly, or what
  heads of layer 0 wrote. Stripe: the source that followed the earlier copy.
  Look at the last column: what tells the stripe from elsewhere has heads on the
  key side.
""")
block = 29
tokens = mc.random_blocks(weights.d_vocab, block, 2, 8, start, np.random.default_rng(0))
frozen = mc.forward(weights, tokens)
split = induction_split(weights, tokens, frozen, *best)
print(*terminal.split_lines(split), sep="\n")
parts = mc.split_scores(weights, tokens, frozen.pattern, *best)
shares = mc.variance_shares(mc.expand_scores(weights, tokens, frozen.pattern, *best))
print("\n  Term by term: the share of the scores' variance across sources (query · key):\n")
print(*table(shares[:5], [("term", lambda found: found.term.label),
                          ("share", lambda found: f"{found.share:.2f}")]), sep="\n")

print(heading("K-composition removed, and restored"))
print("""  By algebra: leave parts out of the scores of this one head, apply softmax*,
  and keep all else frozen. Look at the loss on the second block: without heads
  on the key side there is no induction, with them alone rather more of it. But
  queries carry heads here too: without those, almost nothing is left.
""")
versions = {"all four parts": sum(parts), "no heads on the key side": parts.neither + parts.Q,
            "heads on the key side only": parts.K + parts.both,
            "no heads on the query side": parts.neither + parts.K}
results, places = {}, after_earlier_copies(tokens)
for title, scores in versions.items():
    pattern = frozen.pattern.copy()
    pattern[best[0], :, best[1]] = causal_softmax(scores)
    logits = mc.logits_by_order(weights, tokens, pattern).sum(0)[:, block + 1:]
    results[title] = attention_on(pattern, places)[best], loss_of(logits, tokens[:, block + 1:])
print(*table(list(results.items()), [
    ("scores", lambda item: item[0]), ("on the stripe", lambda item: f"{item[1][0]:.2f}"),
    ("loss, nats", lambda item: f"{item[1][1]:.2f}")]), sep="\n")

print(heading("Approximate matches, in weights alone"))
match = next(found.term for found in shares if found.term.key.heads and (      # (u, u)
    found.term.query.source == found.term.key.source == "token"))
matches = nearest_matches(match.W, k=3)
own = (matches.own > matches.values[:, 0]).mean()
print(f"""  The term {match.label} says which token takes which for itself:
  {own:.0%} match themselves best. Look at what else they take: a relative, at times.
""")
common = [u for u in np.argsort(-text.counts.sum(1)) if sum(map(str.isalpha, show(u))) > 3][:6]
print(*table(common, [("token", show), ("itself", lambda u: f"{matches.own[u]:.1f}"), (
    "next best", lambda u: "  ".join(map(show, matches.tokens[u])))]), sep="\n")

print(heading("Resting on the first token"))
print("""  With nothing to repeat, heads of layer 1 attend to <START>. Look at how much
  less they move from there: A_ij ‖W_O v_j‖ weighs attention by what it carries.
""")
moved = mc.value_weighted_patterns(weights, contexts, acts)[1].sum(0)[:, 1:]        # (h, i, j)
attention = acts.pattern[1].sum(0)[:, 1:]
share = [A[..., 0].sum(-1) / A.sum((-2, -1)) for A in (attention, moved)]           # (h,)
print(*table(list(range(weights.n_heads)), [
    ("head", lambda head: f"1.{head}"), ("of attention", lambda head: f"{share[0][head]:.0%}"),
    ("of what is moved", lambda head: f"{share[1][head]:.0%}")]), sep="\n")

assert mc.relative_error(sum(parts), frozen.scores[best[0], :, best[1]]) < 1e-12
for kind, part in parts._asdict().items():
    terms = [found.term.scores for found in shares if found.term.kind == kind]
    assert mc.relative_error(sum(terms), part) < 1e-9
assert mc.relative_error(mc.rebuild(weights, contexts).pattern, acts.pattern) < 1e-12
second = frozen.logits[:, block + 1:], tokens[:, block + 1:]
assert abs(results["all four parts"][1] - loss_of(*second)) < 1e-9
if not options.text:                             # what this model is known to have learned
    assert split["carrier"] in ("K", "both")
    assert results["no heads on the key side"][0] < 0.1 < 0.3 < results["all four parts"][0]
    assert max(abs(gap) for _, gap in rows[1:]) < 0.3 < 1 < rows[0][1]
    assert (share[1] < share[0]).all()
print("\nAll identities hold.")
