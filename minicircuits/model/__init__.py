"""Tokens to a loss, and back: the forward pass and its derivative, each written by hand.

Steps have the numbers and the names that they have in loops, in `minicircuits/plain/model.py`.
Every `thing` stands right above its `thing_backward`. One law gives all of these but those of the
two softmaxes: if Z = einsum("r,s->t", X, Y) then dX = einsum("t,s->r", dZ, Y). Here r, s and t
stand for strings of indices, as in "bhij,bhje->bhie", which is the product A @ v. `fast` computes
the same numbers sooner, for training. `normalized` is the forward pass of a model with norms. This
room knows nothing of circuits.
"""
