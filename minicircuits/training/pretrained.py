"""A model that is there already: two layers, trained on the source of Python's standard library.

`pretrained.npz` is what this command writes, unchanged; its metadata hold the seed, the
recipe, the digest of the text, the versions and the log:

    minicircuits train --layers 2 --steps 3000 --seed 0 -o pretrained.npz
"""

from pathlib import Path

from minicircuits.training.model_file import Model, load_model

PRETRAINED = Path(__file__).with_name("pretrained.npz")


def load_pretrained() -> Model:
    """The `Model` that comes with this package: weights, tokenizer, metadata.

    Two layers of 4 heads × 32, d_model 128, 1,024 tokens, contexts of 128, float32: 1.7 MB.
    It knows Python, and some English from comments; no other text. Prefix matching of its
    induction head is 0.42 to 0.46, as random blocks are drawn (`behavior.in_context`), and was
    when it had seen half as much.

    >>> weights, tokenizer, metadata = load_pretrained()
    >>> tokenizer.decode(tokenizer.encode("keep it in mind"))
    b'keep it in mind'
    """
    return load_model(PRETRAINED)
