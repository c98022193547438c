"""What heads do on tokens, and what is lost without them. The first room with both rivers in it.

One convention: a function of (weights, tokens) takes `acts` last, what `forward` gave on them.
Without acts it runs the model itself; with them, one forward pass answers many questions:

    acts = mc.forward(weights, tokens)
    mc.previous_token_scores(weights, tokens, acts)
    mc.head_effects(weights, tokens, acts)

Of `NormalizedWeights`, acts are `NormalizedActivations`: where patterns are frozen, so are the
norms σ. Of acts only the shapes are checked, and that there are norms. Functions that draw
tokens, or pick contexts, take none.
"""

from dataclasses import replace

from minicircuits.circuits.normalization import check_given
from minicircuits.model.transformer import forward
from minicircuits.notation import check_acts, check_tokens


def tokens_and_acts(weights, tokens, acts=None):
    """tokens (b, i), checked, and the `Activations` on them: `acts`, checked, or a forward pass."""
    tokens = check_tokens(weights, tokens)
    if acts is None:
        acts = forward(weights, tokens)
    check_given(weights, acts.norms)
    check_acts(weights, tokens, acts)
    return tokens, acts


def excerpt(tokens, acts, contexts, n=None):
    """(tokens, acts) of some contexts, a slice, and of their first n tokens.

    Nothing runs: what stands later in a context changes nothing that came before.
    """
    cuts = {"b": contexts, "i": slice(n), "j": slice(n)}
    return tokens[contexts, :n], replace(acts, **{
        name: getattr(acts, name)[tuple(cuts.get(axis, slice(None)) for axis in axes.split())]
        for name, axes in acts.axes.items()})
