"""The whole model and its circuits in plain loops over numbers: read this room first.

`model` has the nine steps, each with its backward; `circuits` what the paper finds in the weights.
"""
