"""Masked copies of models, and the selection of the number of masked units."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from captum_pse import (
    DissectionSensitivity,
    evaluate_masking,
    harden,
    mask_units,
    masked_copy,
)
from captum_pse.demo import load_model, make_pairs
from captum_pse.units.hardening import _best
from captum_pse.units.masking_curves import MaskingCurves

LAYER = "features.conv5"


@pytest.fixture(scope="module")
def pairs():
    return make_pairs(12)


def test_masked_copy_equals_mask_units(pairs):
    model = load_model()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    units = {"features.conv3": [1, 5, 7], LAYER: [0, 2]}
    masked = masked_copy(model, units)
    with mask_units(model, units), torch.no_grad():
        wanted = model(pairs.natural)
    with torch.no_grad():
        assert torch.equal(masked(pairs.natural), wanted)
        assert not torch.equal(model(pairs.natural), wanted)
    assert not any(module.training for module in masked.modules())
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name])


def test_masked_copy_of_layers_within_layers_and_of_a_bool_tensor(pairs):
    model = load_model()
    mask = torch.arange(96) % 7 == 3
    units = {"features": [1, 4], LAYER: mask, "features.conv3": [0]}
    with mask_units(model, units), torch.no_grad():
        wanted = model(pairs.natural)
    for order in (list(units), list(reversed(units))):
        masked = masked_copy(model, {name: units[name] for name in order})
        with torch.no_grad():
            assert torch.equal(masked(pairs.natural), wanted)


def test_masked_copy_can_be_exported_and_saved(pairs):
    masked = masked_copy(load_model(), {LAYER: [3, 4]})
    exported = torch.export.export(masked, (pairs.natural,))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    again = torch.export.load(file).module()
    with torch.no_grad():
        got, wanted = again(pairs.natural), masked(pairs.natural)
    torch.testing.assert_close(got, wanted)


def test_masked_copy_masks_a_shared_layer_everywhere():
    torch.manual_seed(0)
    shared = nn.Conv2d(2, 2, 1)
    model = nn.Sequential(shared, nn.ReLU(), shared).eval()
    masked = masked_copy(model, {"0": [1]})
    x = torch.rand(1, 2, 3, 3)
    with mask_units(model, {"0": [1]}), torch.no_grad():
        wanted = model(x)
    with torch.no_grad():
        assert torch.equal(masked(x), wanted)


def test_harden(pairs):
    model = load_model()
    choose, judge = pairs.select(range(8)), pairs.select(range(8, 12))

    (sensitivity,) = DissectionSensitivity(model, [LAYER]).over(choose)
    first = int(sensitivity.mean.argmax())

    def attack(model, pairs):
        """Succeeds unless the most sensitive unit is masked."""
        seen = []
        layer = model.get_submodule(LAYER)
        handle = layer.register_forward_hook(lambda m, a, out: seen.append(out))
        with torch.no_grad():
            model(pairs.natural)
        handle.remove()
        works = bool(seen[-1][:, first].any())
        return pairs.adversarial if works else pairs.natural

    found = harden(
        model, LAYER, choose, judge, attack=attack, counts=[5, 20], max_loss=1
    )
    assert len(found.units) == 5
    order = sensitivity.mean.argsort(descending=True, stable=True)
    assert set(found.units) == set(order[: len(found.units)].tolist())
    wanted = evaluate_masking(
        model, judge, LAYER, {"sensitive": sensitivity.mean},
        sorted({0, len(found.units)}), attack=attack, seeds=range(3),
    )  # fmt: skip
    rows = wanted.table()
    assert found.table() == rows
    with torch.no_grad():
        correct = found.model(judge.natural).argmax(dim=1) == judge.true_label
    here = next(
        row
        for row in rows
        if row["masked"] == "sensitive" and row["units"] == len(found.units)
    )
    assert float(correct.double().mean()) == here["clean"]


@pytest.mark.parametrize(
    ("table", "max_loss", "units"),
    [
        # units: clean, adaptive
        ({0: (1.0, 0.2), 5: (0.98, 0.5), 9: (0.9, 0.9)}, 0.02, 5),
        ({0: (1.0, 0.2), 5: (0.98, 0.5), 9: (0.9, 0.9)}, 0.1, 9),
        ({0: (1.0, 0.2), 5: (1.0, 0.2), 9: (1.0, 0.1)}, 0.02, 0),
        ({0: (1.0, 0.2), 5: (1.0, 0.4), 9: (1.0, 0.4)}, 0.02, 5),
        ({0: (0.9, 0.2), 5: (0.95, 0.4)}, 0.0, 5),
    ],
)
def test_choice(table, max_loss, units):
    rows = [
        {"masked": "sensitive", "units": n, "clean": clean, "adaptive": adaptive}
        for n, (clean, adaptive) in table.items()
    ]
    rows.append({"masked": "random", "units": 3, "clean": 1.0, "adaptive": 1.0})
    assert _best(MaskingCurves("layer", rows, {}), max_loss) == units


def test_bad_input(pairs):
    model = load_model()
    first, rest = pairs.select(range(4)), pairs.select(range(3, 8))
    with pytest.raises(ValueError, match="judge: got 1 natural input"):
        harden(model, LAYER, first, rest)
    with pytest.raises(ValueError, match="max_loss: got 2"):
        harden(model, LAYER, first, rest, max_loss=2)
    with pytest.raises(ValueError, match="has no 'nowhere'"):
        harden(model, "nowhere", first, pairs.select(range(4, 8)))
    for units, message in (
        ({"nowhere": [0]}, "has no 'nowhere'"),
        ({"": [0]}, "got the layer name ''"),
        ({LAYER: [-1]}, "want ints of 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            masked_copy(model, units)
    with pytest.raises(ValueError, match="got 500, want at most 95"):
        masked_copy(model, {LAYER: [500]})(first.natural)
