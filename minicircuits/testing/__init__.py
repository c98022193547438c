"""What others test against: the model in plain loops."""
