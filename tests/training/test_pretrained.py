"""The model that comes with the package is what it is said to be, on random tokens and on text."""

from dataclasses import fields
from inspect import getdoc

import numpy as np
import pytest

import minicircuits as mc
from minicircuits import runs
from minicircuits.behavior.in_context import BLOCKS, block_lengths, ordered_versus_shuffled
from minicircuits.circuits.copying import copying_score
from minicircuits.circuits.heads import ov_circuit
from minicircuits.findings.heads import head_table, named_heads, scores_on_blocks
from minicircuits.findings.study import Study
from minicircuits.training.model_file import PRETRAINED
from minicircuits.training.recipe import Recipe
from minicircuits.training.text import SAMPLE, contexts_for, sample


@pytest.fixture(scope="module")
def pretrained():
    return mc.load_pretrained()


@pytest.fixture(scope="module")
def study(pretrained):
    return Study(pretrained, contexts_for(pretrained, sample()), 0)


@pytest.fixture(scope="module")
def heads(study):
    """Its induction head and its previous-token head, as head_table rows."""
    rows = head_table(study.weights, study.sources, *study.held_out, study.start,
                      seed=0)
    named = named_heads(rows, BLOCKS)
    return [next(row for row in rows if (row["layer"], row["head"]) == named[name])
            for name in ("induction_head", "previous_token_head")]


@pytest.mark.parametrize("n_ctx", [128, 32, 7, 5])
def test_no_untrained_model_has_a_head_with_a_name(n_ctx):
    """Of ten as training begins and ten whose heads attend at random, with all their layers."""
    for seed in range(10):
        sizes = dict(n_heads=4, d_model=64, d_head=16, n_ctx=n_ctx, positions="shortformer")
        for weights in (mc.first_weights(2, 100, seed, sizes), mc.init_weights(
                2, d_vocab=100, rng=np.random.default_rng(seed), dtype=np.float32, **sizes)):
            scores = scores_on_blocks(weights, 99, np.random.default_rng(seed))
            rows = [{"layer": layer, "head": head,
                     **{name: score[layer, head] for name, score in scores.items()}}
                    for layer, head in np.ndindex(2, 4)]
            named = named_heads(rows, block_lengths(weights, 99))
            assert named["induction_head"] is named["previous_token_head"] is None


def test_it_is_small():
    assert PRETRAINED.stat().st_size <= 2_000_000


def test_the_command_that_made_it_is_the_one_on_record(pretrained):
    recipe = Recipe(**pretrained.metadata["recipe"])
    made = (f"minicircuits train --layers {pretrained.weights.n_layers} --steps {recipe.steps} "
            f"--seed {pretrained.metadata['seed']} -o pretrained.npz")
    assert f"\n    {made}\n" in getdoc(mc.load_pretrained)
    assert recipe == Recipe(steps=recipe.steps, seed=recipe.seed), "nothing but the defaults"


def test_its_heads_on_random_tokens(pretrained, heads):
    """The least prefix matching of three lengths is from 0.52 to 0.57, as blocks are drawn."""
    induction, previous = heads
    assert BLOCKS == (13, 29, 47)
    assert induction["induction"] >= 0.52
    assert previous["previous"] >= 0.99
    circuit = ov_circuit(pretrained.weights.astype(np.float64), induction["layer"],
                         induction["head"])
    assert copying_score(circuit) >= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_it_repeats_random_tokens_in_order_and_not_shuffled(pretrained, seed):
    found = ordered_versus_shuffled(pretrained.weights, pretrained.tokenizer.start,
                                    np.random.default_rng(seed))
    assert found.gap >= 3


def test_its_loss_on_a_text_it_has_not_seen(pretrained, study):
    """Far below guessing (6.93 nats), and below its own counts of single tokens."""
    assert study.loss <= 3.9
    assert study.loss > pretrained.metadata["log"][-1][
        "validation"], "the sample is further from its text than what was held out"


def test_the_sample_has_the_sentences_that_examples_look_for():
    sample = SAMPLE.read_bytes()
    for words, at_least in (b"keep", 10), (b"in mind", 4), (b"at bay", 6), (b"back and forth", 6):
        assert b" ".join(sample.split()).count(words) >= at_least
    assert 6_000 <= len(sample) <= 10_000 and sample.isascii()


def test_its_log_is_that_of_a_whole_run(pretrained):
    metadata, log = pretrained.metadata, pretrained.metadata["log"]
    recipe = Recipe(**metadata["recipe"])
    assert {field.name for field in fields(Recipe)} == metadata["recipe"].keys()
    assert (log[0]["step"], log[-1]["step"]) == (0, recipe.steps)
    assert all(row["tokens"] == row["step"] * recipe.batch * recipe.n_ctx for row in log)
    assert log[0]["validation"] == pytest.approx(np.log(pretrained.weights.d_vocab), abs=0.1)
    assert metadata["baselines"].keys() == {"unigram counts", "bigram counts, interpolated"}
    assert log[-1]["validation"] < min(metadata["baselines"].values())


def test_the_last_row_of_its_log_is_measured_again(pretrained, study):
    """What needs no held-out text: the same random blocks, on the weights in the file."""
    last = pretrained.metadata["log"][-1]
    again = runs.measure(pretrained.weights, study.held_out[0],
                         pretrained.tokenizer.start, pretrained.metadata["seed"])
    for name in "prefix_matching", "previous_token", "gap":
        assert again[name] == pytest.approx(last[name], rel=1e-3)
