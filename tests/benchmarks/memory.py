"""Peak memory of the sums over paths, of 4 layers × 8 heads: they hold sums, not the terms.

    python tests/benchmarks/memory.py

d_model 256, d_head 32, 1,024 tokens, 4 contexts of 128, float32. A peak is what is allocated above
what stood before, as tracemalloc counts; beside it what all terms would take at once. Of a head
of layer 2 all terms are summed. One of layer 3 has 81 times as many.
"""

import tracemalloc

import numpy as np

import minicircuits as mc

MIB = 2 ** 20


def peak(step):
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def main():
    rng = np.random.default_rng(0)
    W = mc.init_weights(4, 8, 256, 32, 1024, 128, "shortformer", rng, np.float32)
    tokens = rng.integers(1024, size=(4, 128))
    acts = mc.forward(W, tokens)
    logits, scores = acts.logits.nbytes / MIB, acts.scores[0, :, 0].nbytes / MIB
    paths, terms = sum(mc.count_paths(W)), len(mc.expand_scores(W, tokens, acts.pattern, 2, 0))

    def sum_of_paths():
        return sum(path.logits for path in mc.expand_logits(W, tokens, acts.pattern, longest=2))

    def shares(layer):
        return mc.variance_shares(mc.expand_scores(W, tokens, acts.pattern, layer, 0))

    rows = [("forward pass", lambda: mc.forward(W, tokens), None),
            ("rebuild", lambda: mc.rebuild(W, tokens), paths * logits),
            ("term_importance", lambda: mc.term_importance(W, tokens, acts), paths * logits),
            ("expand_logits, to order 2, summed", sum_of_paths,
             sum(mc.count_paths(W)[:3]) * logits),
            (f"expand_scores, {terms:,} terms: shares", lambda: shares(2), terms * scores),
            ("expand_scores of layer 3: the list", lambda: mc.expand_scores(
                W, tokens, acts.pattern, 3, 0), None)]
    for name, step, dense in rows:
        print(f"{name:<42}{peak(step):8.1f} MiB"
              + (f"   all at once: {dense:,.0f} MiB" if dense else ""))


if __name__ == "__main__":
    main()
