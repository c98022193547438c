"""Weights to meaning: exact algebra on weight matrices and frozen attention patterns.

Nothing here runs the model. Given the patterns, everything is linear, and every product is
kept factored at its narrowest point. What this room computes is therefore a second,
independent derivation of what `model` computes.
"""
