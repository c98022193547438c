"""One layer: heads that copy, heads that go by position, skip-trigrams and their bugs.

T = Id ⊗ W_U W_E + Σ_h A^h ⊗ (W_U W_OV^h W_E): bigrams and heads. A head has a table of what a
source does to the next token ("OV"), and a table of who reads that source ("QK"). Together they
read as skip-trigrams: [source] … [destination] → [out].

    python examples/03_one_layer_skip_trigrams.py [--text FILE_OR_FOLDER ...] [--steps N]

Paper: "One-Layer Attention-Only Transformers".
"""
# %% Training one layer
from preamble import heading, options, say, table, train
import numpy as np

import minicircuits as mc
from minicircuits.behavior.patterns import position_share
from minicircuits.circuits.copying import copying_companions
from minicircuits.terminal.layout import cut
from minicircuits.training.text import spread

chosen = options(__doc__, steps=300)
heading("Training one layer")
text = mc.load_text(chosen.text)
show, start = text.tokenizer.show, text.tokenizer.start
weights = train(1, text, chosen.steps)
contexts = spread(text.stream, 512, weights.n_ctx, start)               # of the training text
probabilities = text.counts.sum(1) / text.counts.sum()                  # of single tokens, (v,)

# %% The heads
heading("The heads: by position, or by token?")
say("""A layer is some heads that read side by side. Head 0.1 is head 1 of layer 0; both are counted
    from 0. A head goes by position if its pattern is the same in every text. Then `by position` is
    near 1. Its main offset is where it looks on average: −1 is the token before, 0 the token
    itself. Beside it is the share of attention there.""")
by_position = position_share(weights, text.validation[:16])[0]                       # (h,)
profile = mc.offset_profiles(weights, text.validation[:16])[0, :, :weights.n_ctx // 2]
offset = profile.argmax(-1)
table(["head", "by position", "main offset", "attention there"], [
    [f"0.{head}", f"{by_position[head]:.2f}", f"{-offset[head]}", f"{profile[head].max():.2f}"]
    for head in range(weights.n_heads)])

# %% Copying
heading("Copying: does a source add to its own logit?")
say("""The OV circuit W_U W_OV W_E of a head is a table [out, source]. It says what the head adds to
    the logit of out if it attends to the source. The QK circuit W_Eᵀ W_QK W_E is a table
    [destination, source]: the larger its entry, the more the destination attends to the source.""")
say(f"""A head copies if a source adds to its own logit. The copying score measures this for all
    tokens at once, by the eigenvalues λ of OV. A mix of tokens with eigenvalue λ adds λ times
    itself. The score is Σλ / Σ|λ|. It is 1 if all copy and −1 if all forbid themselves. Random
    matrices have 0 ± {1.5 / weights.d_head:.2f}.""")
say("""A sum may hide some things. So beside it is how many tokens add most to their own logit, and
    how many have it among the ten they add most to. Look at the last row: the ranks of the heads
    add up, and the heads may copy together what none copies alone.""")
OV = [mc.ov_circuit(weights, 0, head) for head in range(weights.n_heads)]  # LowRank (v, u)
QK = [mc.qk_circuit(weights, 0, head) for head in range(weights.n_heads)]  # LowRank (u, u)
circuits = {f"0.{head}": circuit for head, circuit in enumerate(OV)} | {"all together": sum(OV)}
ranks = {name: circuit.rank() for name, circuit in circuits.items()}
table(["head", "rank", "copying", "own logit most", "among ten"], [
    [name, ranks[name], f"{mc.copying_score(circuit):.2f}",
     *(f"{share:.0%}" for share in copying_companions(circuit)[1:])]
    for name, circuit in circuits.items()])

# %% Skip-trigrams
head = int(by_position.argmin())                                        # goes by token
heading("Skip-trigrams that stand in the text")
say(f"""A skip-trigram is source … destination → out: the source stands anywhere before the
    destination, and out comes next. Head 0.{head} goes by position least, so its tables say most of
    what it does. They list sources that some destination attends to, and the outs whose logits
    these add to. Those were then looked up in the text.""")
say("""A line shows how often the text has the three, and the place where the head helps most. Then
    come how far back the source is, and the probability of out with and without the head.""")
found = []
for entry in mc.skip_trigrams(weights, 0, head, probabilities, n_sources=60, k=6):
    for d, out in ((int(d), int(o)) for d in entry.destinations for o in entry.outs):
        places = mc.occurrences(weights, contexts, 0, head, entry.source, d, out)
        if places and places[0].destination - places[0].source > 1:
            found.append((entry.source, d, out, len(places), places[0]))
found.sort(key=lambda row: row[-1].without - row[-1].probability)


def trigram(source, destination, out):
    return cut(f"{show(source)} … {show(destination)} → {show(out)}", 34)


table(["source … destination → out", "times", "back", "probability", "without"], [
    [trigram(*tokens), times, place.destination - place.source, f"{place.probability:.2f}",
     f"{place.without:.2f}"] for *tokens, times, place in found[:8]])

# %% Bugs
heading("Bugs: what a head must say as well")
say("""For one source, the effect of a head is QK[destination] × OV[out]. If a head has learned two
    skip-trigrams of a source, it has both destinations and both outs. So it must also say the two
    crossed combinations.""")
say("""Each pair below stands in the text. The line after them does not, and the head adds to its
    logit all the same. Example 04 has two heads that are free of this.""")
wrong = sorted((bug for source in dict.fromkeys(row[0] for row in found)
                for bug in mc.bugs(weights, contexts, 0, head, source)[:1]),
               key=lambda bug: -bug.strength)[:5]
for bug in wrong:
    print(f"  in the text    {trigram(bug.source, *bug.right[0])}",
          f"                 {trigram(bug.source, *bug.right[1])}",
          f"  said as well   {trigram(bug.source, *bug.wrong)}\n", sep="\n")

# %% The identities
tokens = text.validation[:4]
acts = mc.forward(weights, tokens)
by_head = [A @ circuit.columns(tokens) for A, circuit in zip(            # A ⊗ (W_U W_OV W_E)
    acts.pattern[0].swapaxes(0, 1), OV)]
assert mc.relative_error(mc.direct_path(weights).columns(tokens) + sum(by_head),
                         acts.logits) < 1e-12
for circuit in OV:
    values = np.linalg.eigvals(circuit.B @ circuit.A)                    # small: d_head × d_head
    assert abs(values.sum().real / abs(values).sum() - mc.copying_score(circuit)) < 1e-9
assert ranks["all together"] == weights.n_heads * weights.d_head > ranks["0.0"]
for bug in wrong:                                # said by the two factors, not in the text
    effect = np.outer(QK[head].columns(bug.source), OV[head].columns(bug.source))
    assert np.linalg.matrix_rank(effect[np.ix_(*zip(*bug.right))]) == 1
    assert abs(effect[bug.wrong] / bug.strength - 1) < 1e-9 and bug.strength > 0
print("All identities hold.")
