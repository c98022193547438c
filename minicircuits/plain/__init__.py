"""The whole model and its circuits in plain loops over numbers: read this room first.

`model` has the steps of the transformer, numbered, each with its backward; `circuits` has what
the paper finds in the weights. The other rooms say the same with arrays, and are tested
against this one.
"""
