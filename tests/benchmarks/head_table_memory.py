"""One head's whole skip-trigram table at GPT-2's shape: seconds, and the most memory held.

    python tests/benchmarks/head_table_memory.py

Random float32 weights, d_vocab 50,257, d_model 768, d_head 64. Both circuits have 2.5 billion
entries; what is printed includes Python, NumPy and the weights themselves.
"""

import resource
import time

import numpy as np

import minicircuits as mc
from minicircuits.circuits.skip_trigrams import skip_trigrams

D_VOCAB = 50_257

weights = mc.init_weights(1, 1, 768, 64, D_VOCAB, 1, "none", np.random.default_rng(0), np.float32)
weight_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.perf_counter()
table = skip_trigrams(weights, 0, 0, np.full(D_VOCAB, 1 / D_VOCAB))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{len(table)} sources in {time.perf_counter() - begun:.1f} s; at most "
      f"{peak / 2 ** 20:.2f} GiB (making the weights alone: {weight_peak / 2 ** 20:.2f})")
