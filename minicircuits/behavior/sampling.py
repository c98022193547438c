"""A text continued by a model: one token after the other, drawn from what it predicts.

    p(v) = softmax_v(logits / temperature), over the top_k largest logits, or over all

At temperature 1 these are the model's own probabilities. Lower ones prefer likely tokens; at 0
it is always the likeliest one. The paper does not sample; a reader of a new model does.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from minicircuits.circuits.skip_trigrams import strongest
from minicircuits.door import door
from minicircuits.model.normalized import logits_at
from minicircuits.model.transformer import layers
from minicircuits.notation import InputError, Weights, check_real


@door
def next_token_probabilities(weights: Weights, tokens: Sequence[int], temperature: float = 1.0,
                             top_k: int | None = None) -> np.ndarray:
    """p(v), float64 (v,), of the token after `tokens` (i,), by the equation of this module.

    Of equal logits the first are among the top_k, and the first is the likeliest one.
    Raises InputError unless temperature is finite and at least 0, and top_k at least 1.
    """
    check_real(weights)
    if not 0 <= temperature < np.inf or top_k is not None and top_k < 1:
        raise InputError(f"temperature must be a number from 0 on, top_k from 1 on; got "
                         f"{temperature} and {top_k}")
    if temperature == 0:
        temperature, top_k = 1.0, 1                        # the limit
    logits = logits_at(weights, layers(weights, [tokens]), slice(-1, None))[0, 0].astype(np.float64)
    kept, largest = strongest(logits, top_k or len(logits))
    with np.errstate(over="ignore"):                       # a quotient of −∞: a probability of 0
        shares = np.exp((largest - largest[0]) / temperature)
    p = np.zeros_like(logits)
    p[kept] = shares / shares.sum()
    return p


@door
def sample(weights: Weights, tokens: Sequence[int], rng: np.random.Generator, length: int = 100,
           temperature: float = 1.0, top_k: int | None = None,
           start: int | None = None) -> Iterator[int]:
    """Yields the ids of `length` tokens that continue `tokens` (i,), each as soon as it is drawn.

    start : the token that stands before every context of this model, not among `tokens`; or None.
    Where a text is longer than n_ctx, the context slides: the model sees `start` and as many of
    the last tokens as fit. One forward pass for each token.

    Raises InputError as `next_token_probabilities`, and where there is no token to begin with.

    >>> from minicircuits.circuits.hand_built import START, induction_by_k_composition
    >>> weights = induction_by_k_composition(d_vocab=4, n_ctx=9)
    >>> list(sample(weights, [1, 2, 3, 1], np.random.default_rng(0), 4, temperature=0, start=START))
    [2, 3, 1, 2]
    """
    text, first = list(tokens), [] if start is None else [start]
    if not text and not first:
        raise InputError("tokens must hold at least one id, for a model without a start token")

    def drawn():
        for _ in range(length):
            room = len(text) if weights.n_ctx is None else weights.n_ctx - len(first)
            seen = first + text[max(0, len(text) - room):]
            p = next_token_probabilities(weights, seen, temperature, top_k)
            text.append(int(rng.choice(len(p), p=p)))
            yield text[-1]
    return drawn()
