"""The whole model and its circuits in plain loops over numbers: read this room first.

`model` has the nine steps of the transformer, each with its backward. `circuits` has what the
paper finds in the weights. All other rooms say the same in arrays, and are tested against this.
"""
