"""What is found in a model, as plain numbers, lists and dicts: what JSON has.

Printed by `terminal`, packed for a page by `report`, written by --json; nothing here prints.
`heads` and `effects` take what was computed already: `acts` is `forward(weights, tokens)`.
`study` runs a model once on each of its texts, and finds all there is, section by section.
"""
