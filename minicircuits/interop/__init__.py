"""TransformerLens's names and orientation (those of its 3.x): ours as its, and the reverse.

Its matrices act on the right, on rows; ours act on the left, as in the paper. So each of its
matrices is ours transposed, and its OV = W_V @ W_O too. Its QK = W_Q @ W_K.T is ours as it is:
both have the destination first. The tables `WEIGHTS`, `ACTIVATIONS` and `CIRCUITS` give the
axes of either side. Functions, and tests against TransformerLens itself, follow these tables.

>>> print(crosswalk("W_Q", "q", "W_OV", "W_QK"))
ours  axes                TransformerLens         axes                transposed
W_Q   h e d               blocks.{l}.attn.W_Q     h d e               yes
q     b h i e             blocks.{l}.attn.hook_q  b i h e             yes
W_OV  out in              OV[l, h]                in out              yes
W_QK  destination source  QK[l, h]                destination source  no

A TransformerBridge has other names and keeps the heads of a layer in one matrix (`BRIDGE`). What
a state dict does not tell stands in the model's `cfg`, which `config` reads. There
positional_embedding_type is what is called `positions` here. torch is not imported.
"""

from minicircuits.interop.names import (ACTIVATIONS, BIASES, BRIDGE, CIRCUITS,       # noqa: F401
                                        WEIGHTS, crosswalk, each_array, reordered)
from minicircuits.interop.transformer_lens import (                                   # noqa: F401
    activations_from_transformer_lens, activations_to_transformer_lens, from_transformer_lens,
    to_transformer_lens)
