"""Two layers: who composes with whom, and how an induction head comes to look where it looks.

[a][b] … [a] → [b]: a head of the second layer attends to what followed the present token last
time, because its keys read what a previous-token head of the first layer wrote (K-composition).

    python examples/05_two_layer_induction.py [--text FILE_OR_FOLDER ...] [--steps N]
On the packaged model; or, given a text, on two layers trained on it first.
Paper: "Two-Layer Attention-Only Transformers", "Induction Heads", "How Induction Heads Work".
"""
# %% The model
from preamble import heading, options, say, table, two_layers

import numpy as np

import minicircuits as mc
from minicircuits.behavior.ablation import loss_of
from minicircuits.behavior.patterns import after_earlier_copies, attention_on
from minicircuits.circuits.composition import composition_baseline
from minicircuits.circuits.induction import nearest_matches
from minicircuits.model.attention import causal_softmax

chosen = options(__doc__, steps=400)
weights, text = two_layers(chosen)
start, show, contexts = text.tokenizer.start, text.tokenizer.show, text.validation[:16]
block = 29
tokens = mc.random_blocks(weights.d_vocab, block, 2, 8, start, np.random.default_rng(0))

# %% The heads
heading("The heads")
say("""Random tokens that come twice are a clean test. No token follows from the one before it;
    only who looks up the first time can tell. Each score is a share of attention there. `one
    back` is the attention on the token before. `prefix matching` is that on what followed the
    earlier copy of the present token: where an induction head looks. It should also copy (example
    03).""")
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
say(f"""{name} is the best induction head, and {previous_name} looks one back most. Does {name}
    read it? These are the pairs whose K-composition scores are highest. Random matrices have
    {composition_baseline(weights.d_model):.3f}. Beside them is what example 04 asked too: does
    the pair match a token with itself? And where does its earlier head look?""")
K, profile = mc.composition_scores(weights, "K"), mc.offset_profiles(weights, contexts)[0]
pairs = [np.unravel_index(flat, K.shape) for flat in np.argsort(-K, axis=None)[:6]]
offset = profile.argmax(-1)
table(["pair", "K-composition", "matching", "the earlier looks at", "with attention"], [
    [f"{g_layer}.{g}→{layer}.{h}", f"{K[layer, h, g_layer, g]:.3f}",
     f"{mc.induction_eigenvalues(weights, (g_layer, g), (layer, h)).matching:.2f}",
     f"{-offset[g]}", f"{profile[g, offset[g]]:.2f}"] for layer, h, g_layer, g in pairs])
say("""A composition score says how much a head reads of what another wrote, not what it does with
    it. For induction a pair must overlap, match, and have an earlier head that looks at −1.""")
if not chosen.text:
    say("""Here the strongest pair is 0.3→1.1, and it is not the one: 0.3 looks two back, and the
        pair hardly matches. The second, 0.0→1.1, does it all. And 0.2→1.3 does match, but 0.2
        looks at the present token, so nothing tells which token came before.""")

# %% In a text
heading(f"Where head {name} finds what it says, in held-out text")
say("""Each line is a place in the text. The present token came before, and the head attends to
    what followed it then. The last column is what the head adds to the logit of the true next
    token. Look how often that is what followed.""")
acts = mc.forward(weights, contexts)
effect = mc.head_effects(weights, contexts)[best[0], :, best[1]]
seen = np.where(after_earlier_copies(contexts), acts.pattern[best[0], :, best[1]], 0)
found = seen[:, :-1].max(-1)                                                        # (b, i−1)
places = [np.unravel_index(flat, found.shape) for flat in np.argsort(-found, axis=None)[:400:50]]
table(["earlier", "present", "attention", "true next", "its logit"], [
    [" ".join(show(contexts[b, seen[b, i].argmax() - back]) for back in (1, 0)),
     show(contexts[b, i]), f"{found[b, i]:.2f}", show(contexts[b, i + 1]), f"{effect[b, i]:+.1f}"]
    for b, i in places])

# %% The control
heading("On random tokens, with the control")
say("""A second block of random tokens costs less than the first if it repeats it. That alone
    proves nothing: a head that adds to the logit of every token seen so far would do as much. The
    control is a second block with the same tokens, shuffled. The gap is its loss less the loss of
    the ordered block. Look at what is left of it without either head.""")
models = {"whole model": weights, f"without {name}": mc.without_heads(weights, [best]),
          f"without {previous_name}": mc.without_heads(weights, [previous])}
gaps = {title: mc.ordered_versus_shuffled(model, start, np.random.default_rng(0)).gap
        for title, model in models.items()}
table(["", "gap, nats"], [[title, f"{gap:.2f}"] for title, gap in gaps.items()])

# %% Four parts
heading(f"Why {name} looks there: its scores in four parts")
say("""A score is a product of query and key. Each is a sum: what tokens and positions bring, and
    what heads of layer 0 wrote. So a score has four parts: such heads are on neither side, on the
    query's (Q), on the key's (K), or on both. The stripe is the places where an induction head
    should look. Look at the last column: only keys that carry heads tell the stripe.""")
frozen = mc.forward(weights, tokens)
parts, stripe = mc.split_scores(weights, tokens, frozen.pattern, *best), after_earlier_copies(tokens)
elsewhere, second = np.tri(tokens.shape[1], dtype=bool) & ~stripe, slice(block + 1, None)
means = {title: [part[:, second].mean(-1, where=sources[:, second]).mean()
                 for sources in (stripe, elsewhere)]
         for title, part in {**parts._asdict(), "total": sum(parts)}.items()}
table(["heads on the side of", "on the stripe", "elsewhere", "difference"], [
    [title, f"{on:.2f}", f"{off:.2f}", f"{on - off:.2f}"] for title, (on, off) in means.items()])
say("""The parts are sums too. A term has a query and a key; token→0.0 is what 0.0 wrote of a
    token. Its share says how much of the differences between sources it makes.""")
shares = mc.variance_shares(mc.expand_scores(weights, tokens, frozen.pattern, *best))
table(["query · key", "share"], [[row.term.label, f"{row.share:.2f}"] for row in shares[:5]])

# %% K-composition removed
heading("K-composition removed, and restored")
say("""Leave parts out of the scores of this one head, apply softmax*, and keep all else frozen:
    all other patterns stay as they are. Without heads on the key side there is no induction. With
    them alone there is. Whether queries need heads too, the last line says.""")
versions = {"all four parts": sum(parts), "no heads on the key side": parts.neither + parts.Q,
            "heads on the key side only": parts.K + parts.both,
            "no heads on the query side": parts.neither + parts.K}
results = {}
for title, scores in versions.items():
    pattern = frozen.pattern.copy()
    pattern[best[0], :, best[1]] = causal_softmax(scores)
    logits = mc.logits_by_order(weights, tokens, pattern).sum(0)[:, second]
    results[title] = attention_on(pattern, stripe)[best], loss_of(logits, tokens[:, second])
table(["scores", "attention on the stripe", "loss, nats"], [
    [title, f"{attention:.2f}", f"{loss:.2f}"] for title, (attention, loss) in results.items()])

# %% Approximate matches
heading("Approximate matches, in weights alone")
match = next(row.term for row in shares if row.term.key.heads and (                 # (u, u)
    row.term.query.source == row.term.key.source == "token"))
matches = nearest_matches(match.W, k=3)
say(f"""The term {match.label} is a table of tokens by tokens. It says which token this head takes
    for which. {(matches.own > matches.values[:, 0]).mean():.0%} match themselves best. Look at
    what else they take: a relative, at times.""")
common = [u for u in np.argsort(-text.counts.sum(1)) if sum(map(str.isalpha, show(u))) > 3][:6]
table(["token", "itself", "next best"], [
    [show(u), f"{matches.own[u]:.1f}", "  ".join(map(show, matches.tokens[u]))] for u in common])

# %% Resting
heading("Resting on the first token")
say("""Where nothing repeats, heads of layer 1 attend to <START>, the first token, and rest.
    Attention A_ij can be weighed by what it carries, ‖W_O v_j‖. Look how much less comes from
    <START>.""")
moved = mc.value_weighted_patterns(weights, contexts)[1].sum(0)[:, 1:]              # (h, i, j)
rest = [A[..., 0].sum(-1) / A.sum((-2, -1)) for A in (acts.pattern[1].sum(0)[:, 1:], moved)]
table(["head", "of attention", "of what is moved"], [
    [f"1.{head}", *(f"{share[head]:.0%}" for share in rest)] for head in range(weights.n_heads)])

# %% The identities
assert mc.relative_error(sum(parts), frozen.scores[best[0], :, best[1]]) < 1e-12
for kind, part in parts._asdict().items():
    terms = [row.term.scores for row in shares if row.term.kind == kind]
    assert mc.relative_error(sum(terms), part) < 1e-9
assert mc.relative_error(mc.rebuild(weights, contexts).pattern, acts.pattern) < 1e-12
whole = loss_of(frozen.logits[:, second], tokens[:, second])
assert abs(results["all four parts"][1] - whole) < 1e-9
if not chosen.text:                              # what this model is known to have learned
    assert pairs[:2] == [(1, 1, 0, 3), (1, 1, 0, 0)] and offset.tolist() == [1, 1, 0, 2]
    assert max(means, key=lambda title: means[title][0] - means[title][1]) == "total"
    assert min(means[kind][0] for kind in ("K", "both")) > 1 > max(
        abs(mean) for kind in ("neither", "Q") for mean in means[kind])
    assert results["no heads on the key side"][0] < 0.1 < 0.3 < results["all four parts"][0]
    full, *removed = gaps.values()
    assert max(map(abs, removed)) < 0.3 < 1 < full
    assert (rest[1] < rest[0]).all()
print("All identities hold.")
