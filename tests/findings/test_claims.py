"""What is said of a model is so: weak models have no findings, and the one we ship has its own."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.findings.effects import induction_split
from minicircuits.findings.study import Study, sections
from minicircuits.report.data import page_data
from minicircuits.terminal.sections import section
from minicircuits.training.contexts import contexts_of
from minicircuits.training.model_file import Model
from minicircuits.training.text import contexts_for, sample
from minicircuits.training.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(b"", 257)
TEXT = (Path(mc.__file__).parent / "circuits/induction.py").read_bytes()


def found_in(study):
    found = {}
    for _, finding in sections(study):
        found |= finding
    return found


def claims(study, found):
    """All that is said of a model, on the page or in the terminal, beyond numbers in tables."""
    page = page_data(study, found)
    kinds = page["composition"]
    said = [*filter(None, page["roles"]), *(f"{name} {found[name]}" for name in (
        "induction_head", "previous_token_head") if found[name])]
    for kind in "QKV":
        said += [f"{kind} {earlier}→{later}" for later, row, levels in zip(
            kinds["later"], kinds[kind], kinds["levels"][kind]) for earlier, score, level in zip(
            kinds["earlier"], row, levels) if score is not None and score > level]
        said += [f"{kind} {pair}" for pair, score, level in found["composition"][kind]
                 if score > level]
        said += [line for line in section("composition", found, None)
                 if line.startswith(f"  {kind}-composition, strongest")]
    said += [f"corner {pair['earlier']}→{pair['later']}" for pair in page["eigenvalues"]
             if pair["corner"]]
    said += [f"{row['layer']}.{row['head']} through {row['through']}"
             for row in [*page["dump"], *found["heads"]] if row["through"]]
    said += [f"carrier {found['split']['carrier']}"] if found.get("split") else []
    return said + [f"virtual {found['importance']['matters']}"] * bool(
        found["importance"]["matters"])


def studied(weights):
    text = TEXT[:3 * (weights.n_ctx or 30)]
    return Study(Model(weights, TOKENIZER, {}), contexts_of(
        [("", text)], TOKENIZER, weights.n_ctx), seed=0)


@pytest.mark.parametrize("seed", range(10))
def test_untrained_models_have_no_findings(seed):
    """Ten shapes, as training begins and with heads that attend at random.

    Heads of one dimension have eigenvalue scores of 1 or −1: a quarter of their pairs has both 1.
    """
    rng = np.random.default_rng(seed)
    n_heads, d_head, d_model, n_ctx = map(int, rng.integers([2, 2, 8, 12], [5, 13, 33, 40]))
    sizes = dict(n_heads=n_heads, d_head=d_head if seed else 1, d_model=d_model, n_ctx=n_ctx,
                 positions=("shortformer", "standard", "none")[seed % 3])
    n_layers = 2 + (seed == 4)
    for weights in (mc.first_weights(n_layers, 257, seed, sizes),
                    mc.init_weights(n_layers, d_vocab=257, rng=rng, **sizes)):
        study = studied(weights)
        assert claims(study, found_in(study)) == []


@cache
def after_100_steps():
    stream = np.array(TOKENIZER.encode(TEXT))
    sizes = dict(n_heads=2, d_model=24, d_head=8, n_ctx=48, positions="standard")
    recipe = mc.Recipe(steps=100, batch=4, n_ctx=48)

    def batch(step):
        at = np.random.default_rng(step).integers(len(stream) - 48, size=(4, 1))
        return stream[at + np.arange(48)]

    *_, (_, weights, loss) = mc.train(mc.first_state(recipe, mc.first_weights(2, 257, 0, sizes)),
                                      batch)
    assert loss < 3.5
    return studied(weights)


def test_100_steps_make_no_findings_but_a_virtual_head():
    """What that takes off the loss is measured, and so; nothing that the weights show is."""
    study = after_100_steps()
    found = found_in(study)
    assert claims(study, found) == [f"virtual {found['importance']['virtual_heads'][0]['heads']}"]
    lines = "\n".join(section("composition", found, None))
    assert "K-composition:  none; at best" in lines and "strongest" not in lines


def test_a_head_without_a_stripe_has_no_carrier():
    """The part that differs most, of a head that attends elsewhere, carries nothing."""
    study = after_100_steps()
    for head in range(2):
        split = induction_split(study.weights, *study.repeated, study.block, 1, head)
        assert split["carrier"] is None and split["attention"] < 0.1
    lines = section("split", {"split": split, "induction_head": (1, 1)}, None)
    assert sum("No part carries a stripe" in line for line in lines) == 1
    assert not any("← carries" in line for line in lines)


def test_the_packaged_model_keeps_its_findings():
    """A previous-token head feeds the keys of an induction head; three figures say so."""
    model = mc.load_pretrained()
    study = Study(model, contexts_for(model, sample()), 0)
    found = found_in(study)
    (l, h), (l0, g) = found["induction_head"], found["previous_token_head"]
    said = claims(study, found)
    assert {f"K {(l0, g)}→{(l, h)}", f"corner {(l0, g)}→{(l, h)}", "carrier K",
            f"{l}.{h} through {(l0, g)}"} <= set(said)
    assert any(claim.startswith("virtual") for claim in said)
    assert sum(claim.startswith("corner") for claim in said) == 1
    rows, = (row["rows"] for row in page_data(study, found)["dump"]
             if (row["layer"], row["head"]) == (l, h))
    assert sum(row["destinations"][0][0] == row["source"] for row in rows) >= len(rows) - 2
    assert sum(row["outs"][0][0] == row["source"] for row in rows) >= len(rows) - 1  # try: except
