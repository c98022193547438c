"""Tokens to a loss, and back: the forward pass and its derivative, each written by hand.

Steps have the numbers and the names that they have in loops, in `minicircuits/plain/model.py`.
Every `thing` stands right above its `thing_backward`. One law gives them all but two softmaxes:
if C = einsum("a,b->c", A, B) then dA = einsum("c,b->a", dC, B), where a, b and c stand for
strings of indices, as in "bhij,bhje->bhie", which is the product A @ v. `fast` computes the same
numbers sooner, for training. This room knows nothing of circuits.
"""
