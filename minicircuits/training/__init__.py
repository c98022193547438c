"""Text to tokens to weights: a tokenizer, two optimizers, and a trainer that only trains.

`contexts` is for a text that is only looked at, `vocabulary` for the tokens of others.
"""
