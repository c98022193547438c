"""What heads do in a model with norms: against NumPy in which nothing is folded."""

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.findings import effects
from minicircuits.findings.figures import overview
from minicircuits.findings.heads import (composed, composition_matrices, eigenvalue_pairs, folded,
                                         head_dump, head_table, heads_of, strongest_pairs)
from minicircuits.model.cross_entropy import cross_entropy
from minicircuits.training.model_file import Model
from tests.with_norms import (centered, constant, embedded, head, normed, part, random_model, run,
                              through, unembedded)

CASES = [(kind, positions) for kind in ("LN", "RMS") for positions in ("shortformer", "standard")]
CLOSE = 1e-12


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    model, tokens = random_model(8, *request.param, 2)
    return model, tokens, model.folded(), run(model, tokens)


def close(actual, desired):
    assert mc.relative_error(actual, desired) <= CLOSE


def toward(model, found, tokens, out):
    """The true next token's logit of what is added to the last residual stream; σ frozen."""
    logits = normed(model, out, "ln_final", given=found["norms"][-1]) @ model.weights.W_U.T
    return np.take_along_axis(logits[:, :-1], tokens[:, 1:, None], -1)[..., 0]


def test_losses_by_order_and_of_virtual_heads(case):
    model, tokens, weights, found = case
    importance = mc.term_importance(weights, tokens)
    direct = through(model, tokens, found, ())
    close(importance.losses[0], cross_entropy(direct, tokens))
    close(importance.losses[-1], cross_entropy(found["logits"], tokens))
    singles = [sum(through(model, tokens, found, ((layer, h),)) for h in range(4))
               for layer in range(2)]
    close(importance.losses[1], cross_entropy(direct + sum(singles), tokens))
    close(importance.given_direct,
          [cross_entropy(direct, tokens) - cross_entropy(direct + one, tokens) for one in singles])
    virtuals = mc.virtual_heads(weights, tokens, mc.forward(weights, tokens))
    assert {one.heads for one in virtuals} == {((0, g), (1, h)) for g in range(3) for h in range(3)}
    for virtual in virtuals:
        W = mc.without_biases(weights)
        (g, h), alone = virtual.heads, W.W_E
        for at in g, h:
            alone = W.W_O[at] @ W.W_V[at] @ alone
        values = np.linalg.eigvals(W.W_U @ alone)
        assert abs(virtual.copying - values.sum().real / np.abs(values).sum()) < 1e-6
        without = found["logits"] - through(model, tokens, found, virtual.heads)
        gain = cross_entropy(without, tokens) - cross_entropy(found["logits"], tokens)
        assert abs(virtual.importance - gain) <= CLOSE


def test_loss_without_heads_freezes_norms_or_recomputes_them(case):
    model, tokens, weights, found = case
    losses = mc.loss_without_heads(weights, tokens, [(0, 1)])
    acts = mc.forward(weights, tokens)
    frozen = sum(through(model, tokens, found, path.heads)
                 for path in mc.expand_logits(weights, tokens, acts.pattern, acts.norms)
                 if (0, 1) not in path.heads)
    close(losses.frozen, cross_entropy(frozen, tokens))
    close(losses.recomputed, cross_entropy(run(model, tokens, [(0, 1)])["logits"], tokens))


def test_acts_without_norms_are_refused(case):
    """Nothing else would tell: their shapes are right."""
    _, tokens, weights, _ = case
    acts = vars(mc.forward(weights, tokens)).copy()
    del acts["norms"]
    for function in mc.head_effects, mc.term_importance, mc.previous_token_scores:
        with pytest.raises(mc.InputError, match="^norms must be given for NormalizedWeights"):
            function(weights, tokens, mc.Activations(**acts))


def test_effects_of_heads_and_of_their_sources(case):
    model, tokens, weights, found = case
    direct = mc.head_effects(weights, tokens)
    for (layer, h), out in found["written"].items():
        close(direct[layer, :, h], toward(model, found, tokens, out - constant(model, layer, h)))
        close(mc.source_effects(weights, tokens, layer, h).sum(-1), direct[layer, :, h])
    resting = [part(model.biases, "b_O", layer)
               + sum(constant(model, layer, h) for h in range(3)) for layer in range(2)]
    x = embedded(model, tokens)[0]
    for layer in range(2):
        close(direct[layer, :, 3], toward(model, found, tokens, 0 * x + resting[layer]))


@pytest.mark.parametrize("reads", ["q", "k", "v", "qkv"])
def test_a_path_is_patched_with_norms_recomputed(case, reads):
    model, tokens, weights, found = case
    other = tokens[:, ::-1]
    change = run(model, other)["written"][0, 1] - found["written"][0, 1]
    x = found["residual"][-1]
    close(mc.patch_path(weights, tokens, other, (0, 1)), unembedded(model, x + change))
    at = embedded(model, tokens)[1]
    y, new = (normed(model, read, "ln1", 1)
              for read in (found["residual"][1], found["residual"][1] + change))
    q, k, v = (new if name in reads else y for name in "qkv")
    out = head(model, 1, 2, v, q + at, k + at)[-1]
    patched = unembedded(model, x + out - found["written"][1, 2])
    close(mc.patch_path(weights, tokens, other, (0, 1), (1, 2), reads), patched)


def test_what_a_source_moves(case):
    model, tokens, weights, found = case
    moved = mc.value_weighted_patterns(weights, tokens)
    y = normed(model, found["residual"][1], "ln1", 1, found["norms"][1])
    out = centered(model, y @ model.weights.W_V[1, 0].T @ model.weights.W_O[1, 0].T)
    close(moved[1, :, 0],
          found["pattern"][1][:, 0] * np.linalg.norm(out, axis=-1)[:, None])


def test_scores_of_attention_are_those_of_the_patterns(case):
    model, tokens, weights, found = case
    diagonal = found["pattern"].diagonal(-1, -2, -1)
    close(mc.previous_token_scores(weights, tokens)[:, :3], diagonal.mean((1, -1)))


def test_the_page_tells_the_shape_that_the_model_had(case):
    model, _, weights, _ = case
    shape = overview(Model(weights, None, {}), {"losses": {}, "exactness": {}})
    for name in ("n_heads", "d_model", "d_head", "n_ctx", "positions"):
        assert shape[name] == getattr(model.weights, name), name
    assert shape["parameters"] == sum(W.size for _, W in model.weights.items())


@pytest.mark.parametrize("kind", ["LN", "RMSPre", None])
def test_findings_take_it_and_leave_heads_that_rest_out(kind):
    model, tokens = random_model(9, kind or "LN", "standard", 2, n_heads=2, d_vocab=60, n_ctx=95)
    weights = model.folded() if kind else mc.fold_biases(model.weights, **model.biases)
    real = [(0, 0), (0, 1), (1, 0), (1, 1)]
    acts = mc.forward(weights, tokens)
    assert heads_of(weights) == real
    said = " ".join(folded(weights))
    assert "0.2 is that of layer 0" in said and ("norm σ" in said) == (kind is not None)
    assert folded(model.weights) == []
    errors = effects.exactness(weights, tokens, acts)
    assert max(errors[name] for name in ("logits", "scores", "patterns", "rebuilt_logits")) < CLOSE
    effects.importance_table(weights, tokens, acts)
    one = effects.prediction(weights, tokens, acts, (1, 0))
    close(one["sum"], one["logit"])
    close(sum(share for *_, share in one["entries"]) + one["others"], one["sum"])
    assert all((source is None) == path.startswith(("0.2", "1.2"))
               for path, source, _ in one["entries"])
    blocks = mc.random_blocks(60, 29, 2, 2, 0, np.random.default_rng(0))
    parts = effects.induction_split(weights, blocks, mc.forward(weights, blocks), 29, 1, 0)["parts"]
    close(sum(parts[name]["stripe"] for name in ("neither", "Q", "K", "both")),
          parts["total"]["stripe"])
    effects.removals(weights, tokens, acts, (1, 0), (0, 1), 0, 0)

    def ranked(head):
        return None, mc.skip_trigrams(mc.without_biases(weights), *head, np.full(60, 1 / 60))

    table = head_table(weights, ranked, tokens, acts, 0, 0)
    for rows in table, head_dump(weights, ranked, tokens, acts):
        assert [(row["layer"], row["head"]) for row in rows] == real
    pairs = composed(weights)
    assert composition_matrices(weights, pairs)["later"] == real[2:]
    assert len(eigenvalue_pairs(weights, table, pairs)) == 4
    alone = mc.composition_scores(mc.without_biases(weights), "K")
    assert strongest_pairs(weights, pairs)["K"][0][1] == alone.max()
