"""What a run starts from: the numbers of its recipe, its sizes, and its first weights."""

from dataclasses import dataclass, fields, replace
from math import inf

import numpy as np

from minicircuits.door import brief, door, held
from minicircuits.files.disk import MAX_BYTES
from minicircuits.model.transformer import init_weights, sinusoids
from minicircuits.notation import InputError, Weights

SHAPE = {"n_heads": 4, "d_model": 128, "d_head": 32, "n_ctx": 128, "positions": "shortformer"}
MAX_PARAMETERS = MAX_BYTES // (4 * 4)     # a checkpoint has four float32 of each, at most


@dataclass(frozen=True)
class Recipe:
    """The numbers that a run depends on, besides its first weights and its text.

    steps : changes of the weights
    warm_up : over how many of them the rates rise
    wait : how many of them W_Q and W_K sit out, at most a quarter of them all
    batch, n_ctx : contexts a step, and tokens in each; `Text.batches` reads them, not `train`
    seed : what the contexts are drawn with
    adamw_rate, beta1, beta2 : of AdamW, for W_E, W_pos, W_U
    muon_rate, momentum : of Muon, for W_Q, W_K, W_V, W_O
    qk_speed : how fast Muon moves W_Q and W_K, beside the others
    decay, qk_decay : of W_E, W_U, W_V and W_O, and of W_Q and W_K; both times `rate`. Weights may
        grow at the end, and scores get sharper

    Raises InputError on a number of another type, negative, infinite or NaN.
    """

    steps: int = 500
    warm_up: int = 20
    wait: int = 40
    batch: int = 24
    n_ctx: int = SHAPE["n_ctx"]
    seed: int = 0
    adamw_rate: float = 0.012
    beta1: float = 0.9
    beta2: float = 0.98
    muon_rate: float = 0.07
    momentum: float = 0.9
    qk_speed: float = 1.5
    decay: float = 0.1
    qk_decay: float = 0.03

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not (type(value) in (int, field.type) and 0 <= value < inf):
                raise InputError(f"{field.name} must be {field.type.__name__}, finite and not "
                                 f"negative; got {brief(value)}")

    def rate(self, step):
        """The share of the rates, and of the decay, that weights change with after `step`.

        min(1, (step + 1) / (warm_up + 1)) · (1 − step / steps): up, then down to 0 at the last.
        """
        return min(1, (step + 1) / (self.warm_up + 1)) * (1 - step / self.steps)

    def waits(self, step):
        """Whether W_Q and W_K stay as they are after `step`, but for their decay.

        What the last token alone says of the next, W_E and W_U learn first. Heads that moved before
        would learn it too, and attend to their own place ever after.
        """
        return step < min(self.wait, self.steps // 4)


@door
def first_weights(n_layers: int, d_vocab: int, seed: int = 0, shape: dict = SHAPE) -> Weights:
    """`init_weights` in float32, with four changes. Induction heads then form early, and get sharp.

    Embeddings are four times as long. Tokens that the text hardly has stay apart, so that what
    matches tokens matches them too.

    Positions are fast sinusoids, and fill a quarter of the dimensions only. Neighbors then lie
    far apart, which a previous-token head needs. Tokens have the other dimensions to
    themselves, which an induction head needs.

    Heads of later layers begin with W_Q = 0, so they attend to every source alike. Before an
    earlier layer has learned anything, there is nothing worth looking for. Their W_K begins at 0
    where positions are, so that they first look for tokens, and not for places.

    shape : n_heads, d_model, d_head, n_ctx and positions, as in SHAPE. Without positions ("none")
    W_pos and W_K stay as they are. Raises InputError also where a checkpoint of so many
    parameters would be too large for a file.
    """
    if seed < 0 or shape.keys() != SHAPE.keys():
        raise InputError(f"seed must be at least 0, and shape have {', '.join(SHAPE)}; got {seed} "
                         f"and {brief(shape)}")
    shape = {name: held(name, type(SHAPE[name]), size) for name, size in shape.items()}
    n_parameters = (2 * d_vocab + shape["n_ctx"] + 4 * n_layers * shape["n_heads"]
                    * shape["d_head"]) * shape["d_model"]
    if n_parameters > MAX_PARAMETERS:
        raise InputError(f"a model to train must have at most {MAX_PARAMETERS:,} parameters; these "
                         f"sizes make {n_parameters:,}")
    weights = init_weights(n_layers, d_vocab=d_vocab, rng=np.random.default_rng(seed),
                           dtype=np.float32, **shape)
    W_pos, W_Q, W_K = weights.W_pos, weights.W_Q.copy(), weights.W_K.copy()
    W_Q[1:] = 0
    if W_pos is not None:
        d, W_pos = weights.d_model // 4, np.zeros_like(W_pos)
        W_pos[:d] = 3 * sinusoids(weights.n_ctx, d, fastest=2.5, slowest=0.025).T
        W_K[1:, ..., :d] = 0
    return replace(weights, W_E=4 * weights.W_E, W_pos=W_pos, W_Q=W_Q, W_K=W_K)
