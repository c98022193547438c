"""Weights to meaning: exact algebra on weight matrices and frozen attention patterns.

Nothing here runs the model. Given the patterns, everything is linear, and every product is
kept factored at its narrowest point. What this room computes is therefore a second,
independent derivation of what `model` computes.

In reading order: `low_rank` (a product kept as factors), `heads` (the QK and OV circuits),
`copying` and `skip_trigrams` (what to ask of them), `expansion` (logits as paths),
`score_expansion` (scores as pairs of paths), `composition` and `induction` (how heads work
together), `hand_built` (the same circuits written by hand). `biases` and `normalization` bring
models that have these into the same seven arrays.
"""
