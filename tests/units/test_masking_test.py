"""Masked units among random sets, compared with every set and by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from captum_pse import AdversarialPair, masking_test
from captum_pse.units.masked_accuracy import adaptive_pgd


class Votes(nn.Module):
    """Class 1 wins where the weighted sum of the units is above 1.5."""

    def __init__(self, weights):
        super().__init__()
        self.units = nn.Identity()
        self.weights = torch.tensor(weights)

    def forward(self, x):
        total = (self.units(x) * self.weights).sum(dim=1)
        return torch.stack([torch.full_like(total, 1.5), total], dim=1)


#: Only the first two of 20 units matter.
WEIGHTS = [1.0, 1.0] + [0.0] * 18


def case(n=8):
    model = Votes(WEIGHTS).eval()
    pairs = AdversarialPair(
        adversarial=torch.ones(n, 20), natural=torch.zeros(n, 20),
        attack_label=1, true_label=0,
    )  # fmt: skip
    return model, pairs


def test_units_that_matter_among_random_sets():
    """Of the 190 sets of two units, 37 hold one of the first two."""
    model, pairs = case()
    found = masking_test(model, pairs, "units", torch.tensor([0, 1]))
    sets = list(itertools.combinations(range(20), 2))
    helps = sum(0 in s or 1 in s for s in sets) / len(sets)
    assert found.value == 1
    assert found.units == 2
    assert found.random == pytest.approx(helps, abs=0.15)
    assert found.difference == found.value - found.random
    # Ties count one half: half of 37 of 190 sets are "as good".
    assert found.p == pytest.approx(helps, abs=0.15)


def test_units_that_do_not_matter():
    model, pairs = case()
    found = masking_test(model, pairs, "units", torch.tensor([7, 9]))
    assert found.value == 0
    assert found.p > 0.05


def test_the_only_good_set_of_many():
    """Class 1 loses if nine of the ten units that matter are masked, of 20 units."""
    model = Votes([1.0] * 10 + [0.0] * 10).eval()
    pairs = AdversarialPair(
        adversarial=torch.ones(1, 20), natural=torch.zeros(1, 20),
        attack_label=1, true_label=0,
    )  # fmt: skip
    chosen = torch.arange(9)
    found = masking_test(model, pairs, "units", chosen, sets=99)
    # Nine random units hold all but one of the ten that matter in 1 of 16796 sets.
    assert (found.value, found.random, found.sets) == (1, 0, 99)
    assert found.as_well == 0
    assert found.p == pytest.approx(2 / 100)


def test_the_same_seed_gives_the_same_sets():
    model, pairs = case()
    units = torch.tensor([0, 5, 6])
    first, again = (masking_test(model, pairs, "units", units, seed=1) for _ in "12")
    assert first == again
    assert first != masking_test(model, pairs, "units", units, seed=2)


def test_the_adaptive_attack_runs_on_each_masked_model(demo_model, demo_pairs):
    """Its outcome is that of the attack on the model with these units masked."""
    masked = []

    def attack(model, pairs):
        masked.append(model)
        return adaptive_pgd(model, pairs, steps=1)

    found = masking_test(
        demo_model, demo_pairs, "features.conv5", torch.arange(10), "adaptive",
        sets=2, attack=attack,
    )  # fmt: skip
    assert len(masked) == 3
    assert found.outcome == "adaptive"
    assert 0 <= found.value <= 1


BAD = {
    "outcome": ({"outcome": "all"}, "outcome: got 'all', want one of clean"),
    "no attack": ({"outcome": "adaptive"}, "attack: got None, want one for"),
    "sets": ({"sets": 0}, "sets: got 0"),
    "seed": ({"seed": -1}, "seed: got -1"),
    "layer": ({"layer": "nowhere"}, "has no 'nowhere'"),
    "a list": ({"units": [0]}, "units: want a tensor"),
    "twice": (
        {"units": torch.tensor([0, 0])},
        "units: want a tensor .k,. of different",
    ),
    "units": ({"units": torch.tensor([99])}, "units: got .99. of 'units'"),
}


@pytest.mark.parametrize(("changed", "message"), BAD.values(), ids=BAD)
def test_bad_input(changed, message):
    model, pairs = case()
    options = {"layer": "units", "units": torch.tensor([0]), **changed}
    with pytest.raises(ValueError, match=message):
        masking_test(model, pairs, **options)
