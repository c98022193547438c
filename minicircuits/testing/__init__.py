"""What others test against: golden vectors, a checker that names the wrong step, known bugs.

>>> import minicircuits as mc
>>> from minicircuits.testing.checking import assert_matches
>>> def candidate(weights, tokens):
...     acts = mc.forward(weights, tokens)
...     return {"pattern": acts.pattern, "logits": acts.logits}
>>> assert_matches(candidate)
"""
