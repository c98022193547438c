"""Skip-trigrams in a text: where they occur, what a head does there, and what it confuses.

Paper: "Skip-Trigrams", "Skip-Trigram "Bugs"".
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from minicircuits.behavior.ablation import without_heads
from minicircuits.circuits.heads import ov_circuit, qk_circuit
from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.door import door
from minicircuits.model.transformer import forward
from minicircuits.notation import Tokens, Weights, check_head, check_real, check_tokens


class Occurrence(NamedTuple):
    """One place where [source] … [destination] [out] stands in the text."""
    context: int          # b
    source: int           # position j of the nearest source before the destination
    destination: int      # position i
    probability: float    # of out, by the model
    without: float        # the same, the head removed and later patterns recomputed


@door
def occurrences(weights: Weights, tokens: Tokens, layer: int, head: int, source: int,
                destination: int, out: int) -> list[Occurrence]:
    """Every place of a skip-trigram in tokens (b, i), the one the head helps most first."""
    check_real(weights)
    check_head(weights, layer, head)
    tokens = check_tokens(weights, tokens)
    found = []
    for b, i in np.argwhere((tokens[:, :-1] == destination) & (tokens[:, 1:] == out)).tolist():
        earlier = np.flatnonzero(tokens[b, :i] == source)
        if earlier.size:
            found.append((b, int(earlier[-1]), i))
    contexts = sorted({b for b, *_ in found})
    if not contexts:
        return []
    whole, without = (dict(zip(contexts, softmax(forward(model, tokens[contexts]).logits, axis=-1)))
                      for model in (weights, without_heads(weights, [(layer, head)])))
    listed = [Occurrence(b, j, i, float(whole[b][i, out]), float(without[b][i, out]))
              for b, j, i in found]
    return sorted(listed, key=lambda place: place.without - place.probability)


class Bug(NamedTuple):
    """Two skip-trigrams of a source that the text has, and the third they force."""
    source: int
    right: tuple          # ((destination, out), (destination′, out′)): both in the text
    wrong: tuple          # (destination, out′): forced by them, and never in the text
    strength: float       # QK[destination, source] · OV[out′, source], unscaled


@door
def bugs(weights: Weights, tokens: Tokens, layer: int, head: int, source: int,
         k: int = 20) -> list[Bug]:
    """Wrong skip-trigrams that the factored form forces on a head, the strongest first.

    Taken are the k largest destinations of QK[:, source] and outs of OV[:, source], if positive.
    Two pairs of them that tokens (b, i) have after the source, (destination, out) and
    (destination′, out′), force a third: QK[destination]·OV[out′] > 0 follows. It is a bug if the
    tokens never have it after the source. Each wrong pair is listed once. One row added to every
    row of W_U changes OV, and so the bugs.
    """
    check_real(weights)
    tokens = check_tokens(weights, tokens)
    check_tokens(weights, [[source]])
    QK = qk_circuit(weights, layer, head).columns(source)                  # by destination token
    OV = ov_circuit(weights, layer, head).columns(source)                  # by out token
    destinations, outs = ([int(token) for token, value in zip(*strongest(column, k)) if value > 0]
                          for column in (QK, OV))
    after = np.logical_or.accumulate(tokens == source, axis=1)[:, :-2]     # seen before i ≥ 1
    pairs = zip(tokens[:, 1:-1][after].tolist(), tokens[:, 2:][after].tolist())
    real = set(pairs).intersection(product(destinations, outs))
    found = []
    for wrong in product(destinations, outs):
        destination, out = wrong
        own = [pair for pair in real if pair[0] == destination]
        other = [pair for pair in real if pair[1] == out]
        if wrong not in real and own and other:
            strength = float(QK[destination] * OV[out])
            found.append(Bug(source, (min(own), min(other)), wrong, strength))
    return sorted(found, key=lambda bug: -bug.strength)
