"""What heads do on tokens, and what is lost without them. The first room with both rivers in it.

One convention: a function of (weights, tokens) takes `acts` last, what `forward` gave on them.
Without acts it runs the model itself; with them, one forward pass answers many questions:

    acts = mc.forward(weights, tokens)
    mc.previous_token_scores(weights, tokens, acts)
    mc.head_effects(weights, tokens, acts)

Of `NormalizedWeights`, acts are `NormalizedActivations`: where patterns are frozen, so are the
norms σ. Only the shapes of acts are checked. Functions that draw tokens, or pick contexts, take
none.
"""

from minicircuits.model.transformer import forward
from minicircuits.notation import check_pattern


def tokens_and_acts(weights, tokens, acts=None):
    """tokens (b, i), checked, and the `Activations` on them: `acts`, checked, or a forward pass."""
    if acts is None:
        acts = forward(weights, tokens)
    tokens, _ = check_pattern(weights, tokens, acts.pattern)
    return tokens, acts
