"""Circuits written by hand, exact: what the paper finds in trained models, put there on purpose.

The residual stream is cut into blocks of one-hot vectors that do not overlap, so whatever a
head does not touch is exactly 0. Scores are equal or at least SHARP apart. So the m sources
of the largest score get 1/m of the attention each, and all others get 0.

Each picture shows the blocks of the residual stream, who writes them and who reads them (Q, K
or V of head layer.head). Induction and skip-trigrams take token 0 for <START>, which stands
first in every context and nowhere else. A head that finds nothing rests: it attends to <START>
and moves nothing from there. A logit is the attention that says so, from 0 to 1.

Paper: "Virtual Attention Heads", "Induction Heads", "How Induction Heads Work", "Skip-Trigram
"Bugs"". No trained head is so clean.
"""

from dataclasses import replace
from itertools import accumulate, pairwise, starmap
from math import sqrt

import numpy as np

from minicircuits.notation import Weights

START = 0
SHARP = 1024      # exp(−746) is already 0 in float64


def bigram_model(log_probabilities: np.ndarray) -> Weights:
    """Zero layers: logits = W_U W_E t, where W_U W_E is the given table.

    log_probabilities : (v, u) [next token, present token], nats. Raises InputError unless it
    is square and finite: put a floor under log 0. Paper: "Zero-Layer Transformers".
    """
    table = np.array(log_probabilities, float)
    none = np.zeros((0, 1, 1, len(table)))
    return Weights(W_E=np.eye(len(table)), W_pos=None, W_Q=none, W_K=none, W_V=none,
                   W_O=none.mT, W_U=table, positions="none")


def two_back(d_vocab: int, n_ctx: int) -> Weights:
    """Two previous-token heads whose virtual head says which token stands two places back.

        |  token  | one_back | two_back |     place      |
        |   W_E   |   0.0    |   1.0    |     W_pos      |    written by
        |  0.0 V  |  1.0 V   |   W_U    | 0.0 QK, 1.0 QK |    read by

    A^{1.0} A^{0.0} steps back twice and W_OV^{1.0} W_OV^{0.0} carries token to two_back: the
    path 0.0→1.0 is the whole model, and all other paths are exactly 0. At places 0 and 1 the
    answer is the first token. It goes by where tokens stand and cannot ask what they are:
    V-composition only. Mode "shortformer". Paper: "Virtual Attention Heads".
    """
    token, one_back, two_back, place = blocks(d_vocab, d_vocab, d_vocab, n_ctx)
    weights = idle(2, 1, max(d_vocab, n_ctx), token, two_back, place, "shortformer")
    look_one_back(weights, 0, place, token, one_back)
    look_one_back(weights, 1, place, one_back, two_back)
    return sharpened(weights)


def induction_by_k_composition(d_vocab: int, n_ctx: int) -> Weights:
    """[a][b] … [a] → [b]: attend to what followed earlier copies of the present token.

        |    token    | before |  out  | place  |
        |     W_E     |  0.0   |  1.0  | W_pos  |    written by
        | 0.0 V,      | 1.0 K  |  W_U  | 0.0 QK |    read by
        | 1.0 Q, K, V |

    0.0, a previous-token head, writes into `before` which token came before. 1.0 asks with the
    present token for a key that has it there, and copies from `token` what the key itself is:

        scores_ij = SHARP (2 [token_{j−1} = token_i] + [token_j = START])

    The first term, the match, is K-composition (token_{−1} counts as START). The second, to rest,
    reads embeddings alone. Several followers share the attention, the present token among them
    ([a][a] → [a]). Mode "shortformer". Paper: "How Induction Heads Work".

    >>> import minicircuits as mc
    >>> tokens = np.array([[START, 1, 2, 3, 1]])              # <START> a b c a
    >>> weights = induction_by_k_composition(d_vocab=4, n_ctx=5)
    >>> mc.rebuild(weights, tokens).pattern[1, 0, 0, -1]      # a looks at b
    array([0., 0., 1., 0., 0.])
    >>> mc.forward(weights, tokens).logits[0, -1]
    array([0., 0., 1., 0.])
    """
    token, before, out, place = blocks(d_vocab, d_vocab, d_vocab, n_ctx)
    weights = idle(2, 1, max(d_vocab, n_ctx), token, out, place, "shortformer")
    look_one_back(weights, 0, place, token, before)
    weights.W_Q[1, 0, :d_vocab, token] = np.eye(d_vocab)           # q_i = token_i
    weights.W_K[1, 0, :d_vocab, before] = 2 * np.eye(d_vocab)      # k_j = 2 token_{j−1}
    weights.W_K[1, 0, :d_vocab, START] = 1                         # START answers everyone
    copy(weights, 1, token, out)
    weights.W_V[1, 0, :, START] = 0                                # and moves nothing
    return sharpened(weights)


def induction_by_pointers(d_vocab: int, n_ctx: int) -> Weights:
    """The same by arithmetic on positions: find the earlier copy, look one place further on.

        | token  |    place    | pointer | out |
        |  W_E   |    W_pos    |   0.0   | 1.0 |    written by
        | 0.0 QK | 0.0 Q, K, V |  1.0 Q  | W_U |    read by
        | 1.0 V  | 1.0 K       |

    0.0, a duplicate-token head, writes into `pointer` where earlier copies of the present token
    stand; 1.0 asks for the place after that, by Q-composition. A pointer to START stays there:

        0.0  scores_ij = SHARP (2 [token_j = token_i] − 2 [j = i] + [token_j = START])
        1.0  scores_ij = SHARP n_ctx Σ_k A^{0.0}_ik [j = after(k)],  after(k) = k + 1, after(0) = 0

    (m copies weaken a pointer to 1/m: hence n_ctx.) Its logits, and the pattern of 1.0, are those
    of `induction_by_k_composition`. Mode "standard", since in "shortformer" mode no value carries
    a position. Paper: "How Induction Heads Work".
    """
    token, place, pointer, out = blocks(d_vocab, n_ctx, n_ctx, d_vocab)
    weights = idle(2, 1, place.stop, token, out, place, "standard")
    weights.W_Q[0, 0, token, token] = np.eye(d_vocab)              # q_i = token_i, i
    weights.W_Q[0, 0, place, place] = np.eye(n_ctx)
    weights.W_K[0, 0, token, token] = 2 * np.eye(d_vocab)          # k_j = 2 token_j, −2 j
    weights.W_K[0, 0, place, place] = -2 * np.eye(n_ctx)           # (none is its own copy)
    weights.W_K[0, 0, token, START] += 1                           # START answers everyone
    copy(weights, 0, place, pointer)
    after = np.eye(n_ctx, k=-1)                                    # after k comes k + 1,
    after[:, 0] = np.eye(n_ctx)[0]                                 # but after START, START
    weights.W_Q[1, 0, :n_ctx, pointer] = n_ctx * after             # q_i = after(pointer_i)
    weights.W_K[1, 0, :n_ctx, place] = np.eye(n_ctx)               # k_j = j
    copy(weights, 1, token, out)
    weights.W_V[1, 0, :, START] = 0                                # and moves nothing
    return sharpened(weights)


def skip_trigram_machine(d_vocab: int, heads: list[list[tuple[int, int, int]]]) -> Weights:
    """One layer of heads, each told some skip-trigrams [source] … [destination] → [out].

        |  token  |  out  |
        |   W_E   | heads |    written by
        | Q, K, V |  W_U  |    read by

    heads : for each head a list of (source, destination, out), ids of tokens but START. They go
    into two tables of the head, QK [destination, source] and OV [out, source], as ones:

        scores_ij = SHARP (2 QK[token_i, token_j] + [token_j = START]),   W_U W_OV W_E = OV

    Neither table has all three tokens, hence the "bugs": a head told `keep … in → mind` and
    `keep … at → bay` also does `keep … in → bay` and `keep … at → mind`. Two heads, each told
    one, do not. Sources of one head share its attention. Mode "none". Paper: "Skip-Trigram "Bugs"".

    >>> import minicircuits as mc
    >>> keep, in_, at, mind, bay = 1, 2, 3, 4, 5
    >>> told, tokens = [(keep, in_, mind), (keep, at, bay)], np.array([[START, keep, in_]])
    >>> for heads in [told], [told[:1], told[1:]]:
    ...     print(mc.forward(skip_trigram_machine(6, heads), tokens).logits[0, -1, [mind, bay]])
    [1. 1.]
    [1. 0.]
    """
    token, out = blocks(d_vocab, d_vocab)
    weights = idle(1, len(heads), d_vocab, token, out, None, "none")
    weights.W_Q[0, :, :, token] = np.eye(d_vocab)                  # q_i = token_i
    weights.W_K[0, :, :, START] = 1                                # START answers everyone
    weights.W_V[0, :, :, token] = np.eye(d_vocab)
    for head, trigrams in enumerate(heads):
        for source, destination, result in trigrams:
            weights.W_K[0, head, destination, source] = 2          # 2 QK
            weights.W_O[0, head, out.start + result, source] = 1   # OV
    return sharpened(weights)


def blocks(*sizes):
    """The residual stream in consecutive blocks of these sizes: a slice each."""
    return starmap(slice, pairwise(accumulate(sizes, initial=0)))


def idle(n_layers, n_heads, d_head, token, out, place, positions):
    """Weights whose heads are 0, to be filled in, and whose ends are there.

    W_E writes the block `token`, W_pos `place` (or None), and W_U reads `out`: identities.
    """
    d_model = max(block.stop for block in (token, out, place) if block)
    one_hot, zero = np.eye(d_model), np.zeros((n_layers, n_heads, d_head, d_model))
    return Weights(W_E=one_hot[:, token], W_pos=one_hot[:, place] if place else None,
                   W_Q=zero, W_K=zero.copy(), W_V=zero.copy(), W_O=zero.mT.copy(),
                   W_U=one_hot[out], positions=positions)


def sharpened(weights):
    """The same with SHARP √d_head in W_Q: scores, q·k / √d_head, are multiples of SHARP."""
    return replace(weights, W_Q=weights.W_Q * SHARP * sqrt(weights.d_head))


def look_one_back(weights, layer, place, source, target):
    """Head layer.0: scores_ij = SHARP [j = i − 1], and `copy`. Place 0 attends to itself."""
    n = weights.n_ctx
    weights.W_Q[layer, 0, :n, place] = np.eye(n, k=1)              # q_i = i − 1
    weights.W_K[layer, 0, :n, place] = np.eye(n)                   # k_j = j
    copy(weights, layer, source, target)


def copy(weights, layer, source, target):
    """W_OV of head layer.0: what stands in block `source` there is written to `target` here."""
    size = source.stop - source.start
    weights.W_V[layer, 0, :size, source] = np.eye(size)
    weights.W_O[layer, 0, target, :size] = np.eye(size)
