"""Text to tokens to weights: a tokenizer, two optimizers, and a trainer that only trains."""
