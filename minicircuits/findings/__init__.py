"""What there is to find in a model, as plain numbers, lists and dicts: nothing here prints."""
