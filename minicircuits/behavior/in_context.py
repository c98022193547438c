"""What a model gains from its context: loss by position, and repeated random tokens.

Random tokens that repeat are the clean test of induction: no bigram helps, only what followed
last time. A second block that is cheaper than the first proves nothing: adding to the logits of
all tokens seen so far does that too. The control is a second block in another order.

Paper: "Induction Heads"; Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

from typing import NamedTuple

import numpy as np

from minicircuits.behavior import tokens_and_acts
from minicircuits.behavior.patterns import prefix_matching_scores
from minicircuits.door import door
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.model.normalized import logits_at
from minicircuits.model.transformer import layers
from minicircuits.notation import InputError, Weights

BLOCKS = (13, 29, 47)     # lengths of random blocks: no fixed distance back fits all of them


def block_lengths(weights: Weights, start: int | None) -> tuple[int, ...]:
    """The lengths of random blocks to measure a model on, the shortest first.

    BLOCKS where two of the longest fit a context, and its tokens the vocabulary. Else all
    shrink in proportion, to no fewer than 2 tokens; (), where not even two blocks of 2 fit.
    """
    first = start is not None
    n_ctx = np.inf if weights.n_ctx is None else weights.n_ctx
    longest = int(min(max(BLOCKS), (n_ctx - first) // 2, weights.d_vocab - first))
    return () if longest < 2 else tuple(sorted({max(2, n * longest // max(BLOCKS))
                                                for n in BLOCKS}))


def middle_length(weights: Weights, start: int | None) -> int | None:
    """The one of `block_lengths` for what is measured on one alone: 29; or None, without any."""
    lengths = block_lengths(weights, start)
    return lengths[len(lengths) // 2] if lengths else None


def loss_by_position(weights, tokens, acts=None):
    """mean_b −log p(token_{i+1} | tokens up to i) for every i < T−1: (i−1,), nats; mean: `loss`."""
    tokens, acts = tokens_and_acts(weights, tokens, acts)
    pairs = [slice(i, i + 2) for i in range(tokens.shape[1] - 1)]     # i predicts i + 1
    return np.array([cross_entropy(acts.logits[:, pair], tokens[:, pair]) for pair in pairs],
                    weights.dtype)


def in_context_score(losses, early=10, late=100, around=0):
    """loss at position `late` − loss at `early`: a scalar, nats; negative is better.

    losses : of `loss_by_position`. Olsson et al. 2022 take the 500th and the 50th token. Any
    use of context lowers it, longer n-grams too. One position of few contexts is noisy: each
    loss is a mean over the positions up to `around` away.
    """
    if not 0 <= around <= early < late < len(losses) - around:
        raise InputError(f"positions must be 0 <= early < late < {len(losses)}, the predictions "
                         f"of a context; got early={early}, late={late}, around={around}")
    late, early = (losses[at - around:at + around + 1].mean() for at in (late, early))
    return late - early


@door
def random_blocks(d_vocab: int, block: int, repeats: int, batch: int, start: int | None,
                  rng: np.random.Generator, shuffled: bool = False) -> np.ndarray:
    """START, a block of distinct random tokens, and the block again: (b, 1 + block·repeats).

    start : the token that every context begins with, and no block has; None for models without
    one, whose contexts begin with the block: (b, block·repeats).

    shuffled=True gives the control: every later block has the same tokens in a random order of
    its own. The same `rng` state gives the same first blocks for both. Raises InputError where
    sizes are below 1 or the vocabulary is too small.
    """
    if min(block, repeats, batch) < 1:
        raise InputError("block, repeats and batch must be at least 1; "
                         f"got {block}, {repeats}, {batch}")
    if d_vocab * repeats * batch >= 2**31:
        raise InputError(f"blocks need sizes that fit memory; got {d_vocab}, {repeats}, {batch}")
    if start is not None and not 0 <= start < d_vocab or block > d_vocab - (start is not None):
        raise InputError("a start token and a block of other, distinct tokens must be among "
                         f"d_vocab={d_vocab} tokens; got start={start}, block={block}")
    starts = [] if start is None else [start]
    others = np.delete(np.arange(d_vocab), starts)
    first = rng.permuted(np.tile(others, (batch, 1)), axis=1)[:, :block]
    later = [rng.permuted(first, axis=1) if shuffled else first for _ in range(repeats - 1)]
    return np.concatenate([np.tile(np.array(starts, int), (batch, 1)), first, *later], axis=1)


@door
def induction_scores(weights: Weights, start: int | None, rng: np.random.Generator,
                     blocks: tuple[int, ...] | None = None, batch: int = 16) -> np.ndarray:
    """The least prefix matching over several lengths of repeated random blocks: (l, h).

    min_n of `prefix_matching_scores` on START and two blocks of n tokens. An induction head
    attends n−1 back, whatever n is; a head that looks a fixed distance back, for one n at most.
    Whether it copies what it reads there, `copying_score` says.

    start : as in `random_blocks`; blocks : the lengths n, by default those of `block_lengths`.
    Raises InputError where two of the longest blocks do not fit a context.
    """
    if blocks is None:
        blocks = block_lengths(weights, start) or (2,)
    check_two_blocks_fit(weights, start, max(blocks, default=0))
    drawn = (random_blocks(weights.d_vocab, block, 2, batch, start, rng) for block in blocks)
    return np.min([prefix_matching_scores(weights, tokens, layers(weights, tokens))
                   for tokens in drawn], axis=0)


def least_prefix_matching(block):
    """What a head must reach on blocks of this length to be called an induction head.

    0.1, and on short blocks 3 · ln 2/block: three times what uniform attention gets. Untrained
    models and short trainings stay below. On blocks of 2 no head can reach it: one distance
    back fits them all.
    """
    return max(0.1, 3 * np.log(2) / block)


def formed(measured):
    """Whether the best head's prefix matching, as training logs have it, is an induction head's."""
    prefix_matching = measured["prefix_matching"]
    return (prefix_matching is not None
            and prefix_matching > least_prefix_matching(measured.get("block", 29)))


class OrderedVersusShuffled(NamedTuple):
    """Nats per token of a second block that repeats the first, in order and shuffled."""
    ordered: float
    shuffled: float
    gap: float         # shuffled − ordered: evidence of induction


@door
def ordered_versus_shuffled(weights: Weights, start: int | None, rng: np.random.Generator,
                            block: int | None = None, batch: int = 16) -> OrderedVersusShuffled:
    """Loss on a second block of random tokens in the first one's order, and out of it.

    The second block's first token is left out: nothing before it tells what it is. A head that
    adds alike to all tokens seen has gap 0. An induction head gains in one and is misled in the
    other: the gap is evidence, not the nats that induction saves.

    block : its length, by default the longest of `block_lengths`. Raises as `induction_scores`.
    """
    if block is None:
        block = max(block_lengths(weights, start), default=2)
    check_two_blocks_fit(weights, start, block)
    seed, losses = rng.integers(2 ** 63), []
    for control in False, True:
        tokens = random_blocks(weights.d_vocab, block, 2, batch, start,
                               np.random.default_rng(seed), shuffled=control)
        logits = logits_at(weights, layers(weights, tokens), slice(-block, None))
        losses.append(cross_entropy(logits, tokens[:, -block:]))
    ordered, shuffled = losses
    return OrderedVersusShuffled(ordered, shuffled, shuffled - ordered)


def check_two_blocks_fit(weights, start, block):
    if block < 2:
        raise InputError(f"a block that can be continued has at least 2 tokens; got {block}")
    needed = 2 * block + (start is not None)
    if weights.n_ctx is not None and needed > weights.n_ctx:
        raise InputError(f"{'' if start is None else 'a start token and '}two blocks of {block} "
                         f"need n_ctx >= {needed}; got weights with n_ctx={weights.n_ctx}")
