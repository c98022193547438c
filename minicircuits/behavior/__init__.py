"""What heads do on tokens, and what is lost without them. The first room with both rivers in it.

One convention for all of it: a function of (weights, tokens) takes `acts` last, what
`forward(weights, tokens)` gave. Without it the function runs the model itself:

    acts = mc.forward(weights, tokens)
    mc.previous_token_scores(weights, tokens, acts)      # the same as without acts,
    mc.head_effects(weights, tokens, acts)               # with one forward pass for both

Only the shapes of acts are checked. Functions that draw their own tokens, or pick contexts out
of a text, take none.
"""

from minicircuits.model.transformer import forward
from minicircuits.notation import check_pattern, check_tokens


def tokens_and_acts(weights, tokens, acts=None):
    """tokens (b, i) as a checked array, and the `Activations` on them: `acts`, or a forward pass.

    Raises InputError for tokens that the weights cannot take, and for acts of other shapes.
    """
    tokens = check_tokens(weights, tokens)
    if acts is None:
        return tokens, forward(weights, tokens)
    check_pattern(weights, tokens, acts.pattern)
    return tokens, acts
