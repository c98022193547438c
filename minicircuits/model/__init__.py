"""Tokens to a loss, and back: the forward pass and its derivative, each written by hand.

Every `thing` stands directly above its `thing_backward`. One law gives all of them but the
two softmaxes: if `y = einsum("a,b->c", A, B)` then `dA = einsum("c,b->a", dy, B)`.
This room knows nothing of circuits.
"""
