"""The numbers of a recipe, and the four changes that make its first weights."""

import numpy as np
import pytest

from minicircuits.model.transformer import init_weights
from minicircuits.notation import InputError
from minicircuits.training.recipe import SHAPE, Recipe, first_weights


def test_the_rate_rises_then_falls_to_nothing():
    recipe = Recipe(steps=12, warm_up=3)
    rates = [recipe.rate(step) for step in range(13)]
    assert rates == pytest.approx([1 / 4, 2 / 4 * 11 / 12, 3 / 4 * 10 / 12]
                                  + [1 - step / 12 for step in range(3, 13)])
    assert all(type(rate) is float for rate in rates)          # float32 stays float32


@pytest.mark.parametrize("numbers", [{"steps": -1}, {"steps": 2.5}, {"batch": True},
                                     {"muon_rate": np.nan}, {"adamw_rate": np.inf},
                                     {"beta1": "0.9"}, {"seed": None}])
def test_a_recipe_has_only_numbers_that_make_sense(numbers):
    name, = numbers
    with pytest.raises(InputError, match=f"^{name} must be (int|float), finite and not negative"):
        Recipe(**numbers)


def test_first_weights_are_those_of_init_weights_with_four_changes():
    plain = init_weights(2, d_vocab=9, rng=np.random.default_rng(5), dtype=np.float32, **SHAPE)
    first = first_weights(2, 9, seed=5)
    for name, W in first.items():
        assert W.dtype == np.float32
        if name != "W_pos":
            expected = getattr(plain, name).copy()
            if name == "W_E":
                expected *= 4
            if name == "W_Q":
                expected[1:] = 0
            if name == "W_K":
                expected[1:, ..., :32] = 0                         # where positions are
            assert (W == expected).all()
    assert (first.W_pos[32:] == 0).all()
    p = first.W_pos[:32].T
    assert p[:, :16] ** 2 + p[:, 16:] ** 2 == pytest.approx(9)     # sinusoids of amplitude 3
    likeness = p @ p.T / (9 * 16)                                   # of two places: cosines
    assert likeness[~np.eye(128, dtype=bool)].max() < 0.7           # neighbors are far apart
