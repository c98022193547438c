"""Two layers: who composes with whom, and how an induction head comes to look where it looks.

[a][b] … [a] → [b]: a head of layer 1 attends to what followed the present token last time. Its
keys read what a head of layer 0 wrote, which looks at the previous token (K-composition).

    python examples/05_two_layer_induction.py [--sentence TEXT | --text FILE ...] [--steps N]
The packaged model, on any text; or, given --steps, two layers trained on the text first.
Paper: "Two-Layer Attention-Only Transformers", "Induction Heads", "How Induction Heads Work".
"""
# %% The model
from preamble import heading, options, own, say, table, two_layers
import numpy as np

import minicircuits as mc
from minicircuits.behavior.patterns import after_earlier_copies
from minicircuits.circuits.composition import composition_baseline
from minicircuits.circuits.induction import nearest_matches

chosen = options(__doc__, text="look at your own text", sentence=True, steps=None)
study = two_layers(chosen)
weights, start, show = study.weights, study.start, study.model.tokenizer.show
contexts, acts = study.held_out                                          # tokens (b, i) of a text
block = 29
tokens = mc.random_blocks(weights.d_vocab, block, 2, 8, start, np.random.default_rng(0))

# %% The heads
heading("The heads")
say("""On random tokens that come twice, only a look at the first time tells the next token.
    `one back` is a head's attention on the token before. `prefix matching` is its attention on what
    followed the earlier copy of the present token: an induction head looks there. It should also
    copy (example 03).""")
one_back = mc.previous_token_scores(weights, tokens)                     # (l, h)
prefix = mc.induction_scores(weights, start, np.random.default_rng(0))
previous, best = (0, int(one_back[0].argmax())), (1, int(prefix[1].argmax()))
previous_name, name = f"0.{previous[1]}", f"1.{best[1]}"
table(["head", "one back", "prefix matching", "copying"], [
    [f"{layer}.{head}", f"{one_back[layer, head]:.2f}", f"{prefix[layer, head]:.2f}",
     f"{mc.copying_score(mc.ov_circuit(weights, layer, head)):.2f}"]
    for layer, head in np.ndindex(prefix.shape)])

# %% Who reads whom
heading("Who reads whom: overlap is not what it does")
say(f"""{name} is the best induction head, and {previous_name} looks one back most. Does {name} read
    it? These are the pairs of heads with the highest K-composition scores; random matrices have
    {composition_baseline(weights.d_model):.3f}. Beside them is the matching score of example 04:
    does the later head look for the present token there? And where does the earlier head look?""")
K = mc.composition_scores(weights, "K")                                  # (l2, h, l1, g)
pairs = [np.unravel_index(flat, K.shape) for flat in np.argsort(-K, axis=None)[:6]]
profile = mc.offset_profiles(weights, tokens)[0, :, :block]
offset = profile.argmax(-1)
table(["pair", "K-composition", "matching", "the earlier looks at", "with attention"], [
    [f"{l1}.{g}→{l2}.{h}", f"{K[l2, h, l1, g]:.3f}",
     f"{mc.induction_eigenvalues(weights, (l1, g), (l2, h)).matching:.2f}", f"{-offset[g]}",
     f"{profile[g].max():.2f}"] for l2, h, l1, g in pairs])
say("""A composition score says how much a head reads of what another wrote, not what it does with
    it. For induction a pair must overlap, match, and have an earlier head that looks at −1.""")
if not own(chosen):
    say("""Here the strongest pair, 0.2→1.3, does it all. The next, 0.1→1.3, overlaps as much, but
        0.1 looks two back, and the pair hardly matches. What is it for? See the four parts.""")

# %% In a text
heading(f"Where head {name} finds what it says, in a text")
say("""Each line is a place in the text. The present token came before, and the head attends to what
    followed it then. The last column is what the head adds to the logit of the true next token.
    Look how often that is what followed.""")
effect = mc.head_effects(weights, contexts)[best[0], :, best[1]]
seen = np.where(after_earlier_copies(contexts), acts.pattern[best[0], :, best[1]], 0)
found = seen[:, :-1].max(-1)                                             # (b, i−1)
ranked = np.argsort(-found, axis=None)[:np.count_nonzero(found)][:400]
places = [np.unravel_index(flat, found.shape) for flat in ranked[::max(1, len(ranked) // 8)][:8]]
if not places:
    say("There is no such place here: no token comes twice and has a next one.")
else:
    table(["earlier", "present", "attention", "true next", "its logit"], [
        [" ".join(show(contexts[b, seen[b, i].argmax() - back]) for back in (1, 0)),
         show(contexts[b, i]), f"{found[b, i]:.2f}", show(contexts[b, i + 1]),
         f"{effect[b, i]:+.1f}"] for b, i in places])

# %% The control
heading("On random tokens, with the control")
say("""A second block of random tokens costs less if it repeats the first. That alone proves
    nothing: a head that adds to the logit of every token seen so far does as much. So the control
    is a second block with the same tokens, shuffled. The gap is its loss, less that of the ordered
    block. Look at what is left of it without either head.""")
models = {"whole model": weights, f"without {name}": mc.without_heads(weights, [best]),
          f"without {previous_name}": mc.without_heads(weights, [previous])}
gaps = [mc.ordered_versus_shuffled(model, start, np.random.default_rng(0)).gap
        for model in models.values()]
table(["", "gap, nats"], [[title, f"{gap:.2f}"] for title, gap in zip(models, gaps)])

# %% Four parts
heading(f"Why {name} looks there: its scores in four parts")
say("""A score is a product of a query and a key. Each is a sum: what tokens and positions bring,
    and what heads of layer 0 wrote. So a score has four parts: such heads are on neither side, on
    the query's (Q), on the key's (K), or on both. The stripe is where an induction head should
    look. Look at the last column: only keys that carry heads know the stripe.""")
frozen, stripe = mc.forward(weights, tokens), after_earlier_copies(tokens)
parts = mc.split_scores(weights, tokens, frozen.pattern, *best)
elsewhere, second = np.tri(tokens.shape[1], dtype=bool) & ~stripe, slice(block + 1, None)
means = {title: [part[:, second].mean(-1, where=sources[:, second]).mean()
                 for sources in (stripe, elsewhere)]
         for title, part in {**parts._asdict(), "total": sum(parts)}.items()}
table(["heads on the side of", "on the stripe", "elsewhere", "difference"], [
    [title, f"{on:.2f}", f"{off:.2f}", f"{on - off:.2f}"] for title, (on, off) in means.items()])
say("""The parts are sums too. In a term, token→0.0 is what 0.0 wrote of a token. The share says how
    much of the scores' variance across sources comes from it. The matching score is 1 if the term
    finds the same token on both sides.""")
shares = mc.variance_shares(mc.expand_scores(weights, tokens, frozen.pattern, *best))
matching = {row.term.label: f"{mc.copying_score(row.term.W):.2f}" for row in shares
            if row.term.query.source == row.term.key.source == "token"}
table(["query · key", "share", "matching"], [
    [row.term.label, f"{row.share:.2f}", matching.get(row.term.label, "")] for row in shares[:5]])
if not own(chosen):
    say("""Here 0.1→1.3 has its use: with 0.2 on the query side it matches. That term compares the
        token before the present one with the token two before the source. On the stripe they are
        the same. So the head looks for two tokens in a row, [a][b][c] … [a][b] → [c].""")

# %% Approximate matches
heading("Approximate matches, in weights alone")
match = next(row.term for row in shares if row.term.key.heads and row.term.label in matching)
matches = nearest_matches(match.W, k=3)                                  # of a table (u, u)
say(f"""The term {match.label} is a table of tokens by tokens. It says which token this head takes
    for which. {(matches.own > matches.values[:, 0]).mean():.0%} match themselves best. Look at what
    else they take: a relative, at times.""")
common = [u for u in np.argsort(-study.contexts.probabilities)
          if sum(map(str.isalpha, show(u))) > 3][:6]
table(["token", "itself", "next best"], [
    [show(u), f"{matches.own[u]:.1f}", "  ".join(map(show, matches.tokens[u]))] for u in common])

# %% The identities
assert mc.relative_error(sum(parts), frozen.scores[best[0], :, best[1]]) < 1e-12
for kind, part in parts._asdict().items():
    terms = [row.term.scores for row in shares if row.term.kind == kind]
    assert mc.relative_error(sum(terms), part) < 1e-9
assert mc.relative_error(mc.rebuild(weights, contexts).pattern, acts.pattern) < 1e-12
if not own(chosen):                              # what this model is known to have learned
    assert pairs[:2] == [(1, 3, 0, 2), (1, 3, 0, 1)] and offset[[2, 1]].tolist() == [1, 2]
    assert mc.induction_eigenvalues(weights, (0, 1), (1, 3)).matching < 0.3
    assert matching["token · token→0.2"] > "0.9" and matching["token→0.2 · token→0.1"] > "0.9"
    assert min(means["K"][0], means["both"][0]) > 1 > abs(means["neither"][0])
    assert max(map(abs, gaps[1:])) < 0.3 < 3 < gaps[0]
print("All identities hold.")
