"""What others test against: golden vectors, a checker that names the wrong step, known bugs.

Its README is for those who check a program of their own. `steps` has the names of the tensors,
`vectors` the cases, and `strategies` (needs Hypothesis) draws more of them.
"""

from minicircuits.testing.checking import assert_matches, check    # noqa: F401
from minicircuits.testing.invariants import broken_invariants     # noqa: F401
