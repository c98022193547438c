"""What heads do on tokens, and what is lost without them: where both rivers meet."""
