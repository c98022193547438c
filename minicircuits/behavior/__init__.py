"""What heads do on tokens, and what is lost without them.

The first room that uses both `model` and `circuits`.
"""
