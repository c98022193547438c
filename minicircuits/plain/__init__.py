"""In plain loops over numbers: the nine steps, each with its backward, and the circuits."""
