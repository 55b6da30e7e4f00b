"""Masked units against models with built-in masks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from conftest import SmallNet, state_of
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from captum_pse import (
    AdversarialPair,
    MaskingCurves,
    evaluate_masking,
    mask_units,
    unit_range,
)
from captum_pse.visualization import plot_masking


class Tail(nn.Module):
    """SmallNet from the output of its conv on."""

    def __init__(self, net: SmallNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, values: Tensor) -> Tensor:
        hidden = torch.tanh(self.net.norm(values))
        return self.net.head(hidden.mean((2, 3)) + hidden.amax((2, 3)) ** 2)


@pytest.mark.parametrize("mode", ["zero", "mean", "clamp"])
def test_masked_units_by_hand(mode):
    net, x = SmallNet().eval(), torch.rand(4, 3, 6, 6)
    natural, state = torch.rand(9, 3, 6, 6) / 2, state_of(net)
    with torch.no_grad():
        values, before = net.conv(x), net.conv(natural)
        wanted = values.clone()
        for k in (1, 6):
            if mode == "zero":
                wanted[:, k] = 0
            elif mode == "mean":
                wanted[:, k] = before[:, k].mean()
            else:
                low, high = before[:, k].min(), before[:, k].max()
                wanted[:, k] = values[:, k].clamp(low, high)
        expected, plain = Tail(net)(wanted), net(x)
        ranges = {"conv": unit_range(net, "conv", natural, batch_size=2)}
        with mask_units(net, {"conv": [1, 6]}, mode=mode, ranges=ranges):
            got = net(x)
        torch.testing.assert_close(got, expected)
        assert (got - plain).abs().max() > 1e-4
        assert torch.equal(net(x), plain)
    assert state_of(net) == state


def test_several_layers_modules_and_tokens():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5)).eval()
    x = torch.rand(2, 7, 3)
    with torch.no_grad(), mask_units(net, {"0": [2], net[2]: [0, 4]}, channel_dim=-1):
        got = net(x)
        hidden = x @ net[0].weight.T + net[0].bias
        hidden[..., 2] = 0
        wanted = hidden.relu() @ net[2].weight.T + net[2].bias
        wanted[..., [0, 4]] = 0
    torch.testing.assert_close(got, wanted)


def test_the_model_is_restored_after_an_exception():
    net = SmallNet().eval()
    state = state_of(net)
    with pytest.raises(RuntimeError, match="stop"), mask_units(net, {"conv": [0]}):
        raise RuntimeError("stop")
    assert state_of(net) == state


def test_nothing_masked_changes_nothing():
    net, x = SmallNet().eval(), torch.rand(2, 3, 6, 6)
    with torch.no_grad(), mask_units(net, {"conv": []}):
        assert torch.equal(net(x), Tail(net)(net.conv(x)))


def test_units_may_be_a_bool_tensor():
    net, x = SmallNet().eval(), torch.rand(2, 3, 6, 6)
    detectors = torch.arange(8) % 3 == 0
    with torch.no_grad():
        with mask_units(net, {"conv": detectors}):
            got = net(x)
        with mask_units(net, {"conv": [0, 3, 6]}):
            assert torch.equal(net(x), got)


@pytest.mark.parametrize("units", [[0.9, 2.5], [True, False], torch.zeros(2, 2).long()])
def test_units_must_be_numbers(units):
    net = SmallNet().eval()
    with pytest.raises(TypeError, match="units: got"), mask_units(net, {"conv": units}):
        pass


def test_layers_that_do_not_run_warn():
    net = SmallNet().eval()
    with (
        pytest.warns(UserWarning, match="mask_units: 'conv' did not run"),
        mask_units(net, {"conv": [0]}),
    ):
        pass


BAD = {
    "channel_dim": (
        {"conv": [0]},
        {"channel_dim": 0},
        "channel_dim: got 0, the batch",
    ),
    "mode": ({"conv": [0]}, {"mode": "noise"}, "mode: got 'noise', want one of zero"),
    "ranges": (
        {"conv": [0]},
        {"mode": "mean"},
        "ranges: got none for 'conv', want one for",
    ),
    "layer": ({"convs": [0]}, {}, "layer: the model has no 'convs'"),
    "unit": (
        {"conv": [8]},
        {},
        r"units: got \[8\] of 'conv', want numbers from 0 to 7",
    ),
    "below": ({"conv": [-1]}, {}, r"units: got \[-1\] of 'conv'"),
}


@pytest.mark.parametrize(("units", "options", "message"), BAD.values(), ids=BAD)
def test_bad_masks(units, options, message):
    net = SmallNet().eval()
    state = state_of(net)
    with (
        pytest.raises(ValueError, match=message),
        mask_units(net, units, **options),
    ):
        net(torch.rand(1, 3, 6, 6))
    assert state_of(net) == state


class Voting(nn.Module):
    """Predicts class 1 if the weights of the active units sum to 3, else class 0."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.units = nn.Identity()
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        votes = (self.units(x) * self.weights).sum(dim=1)
        return torch.stack([torch.full_like(votes, 2.5), votes], dim=1)


def test_curves_worked_out_by_hand():
    """Six units of weight 1; 0 are active on natural inputs, 3 to 6 under attack."""
    model = Voting(torch.ones(6)).eval()
    natural = torch.zeros(4, 6)
    adversarial = (torch.arange(6) < torch.arange(3, 7).unsqueeze(1)).float()
    pairs = AdversarialPair(
        natural=natural, adversarial=adversarial, true_label=0, attack_label=1
    )
    first = torch.arange(6.0, 0, -1)
    curves = evaluate_masking(
        model,
        pairs,
        "units",
        {"first": first, "last": -first},
        [0, 1, 2, 6],
        seeds=[3, 4],
    )
    rows = {(row["masked"], row["units"]): row for row in curves.table()}
    attacked = {
        "first": [1, 0.75, 0.5, 0],
        # The last unit is active in one attack, the last two units in two.
        "last": [1, 1, 1, 0],
    }
    for name, fractions in attacked.items():
        for count, fraction in zip((0, 1, 2, 6), fractions, strict=True):
            row = rows[name, count]
            assert row["attacked"] == fraction
            assert row["adversarial"] == 1 - fraction
            assert row["clean"] == 1
            assert row["attacked_low"] <= fraction <= row["attacked_high"]
    for count in (0, 1, 2, 6):
        fractions = []
        for seed in (3, 4):
            order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
            masked = adversarial.clone()
            masked[:, order[:count]] = 0
            fractions.append(float((masked.sum(1) >= 3).float().mean()))
        row = rows["random", count]
        mean = np.mean(fractions)
        assert row["attacked"] == pytest.approx(mean)
        ends = row["attacked_low"], row["attacked_high"]
        assert ends == pytest.approx((min(fractions), max(fractions)))
    assert repr(curves) == "MaskingCurves('units', first, last, random)"

    figure = plot_masking(curves)
    figure.canvas.draw()
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[2].lines}
    assert list(drawn["first"]) == attacked["first"]
    curves.plot(title="$x$").canvas.draw()


@pytest.mark.parametrize("mode", ["mean", "clamp"])
def test_other_modes_use_the_natural_range(mode):
    model = Voting(torch.ones(6)).eval()
    natural = torch.tensor([[0.0] * 6, [0.5] * 6])
    pairs = AdversarialPair(
        natural=natural, adversarial=torch.ones(2, 6), true_label=0, attack_label=1
    )
    curves = evaluate_masking(
        model, pairs, "units", {"all": torch.ones(6)}, [0, 6], mode=mode, seeds=[0]
    )
    row = curves.table()[1]
    # The sum of six units is 1.5 at their mean, 3 at their maximum.
    assert row["attacked"] == (1 if mode == "clamp" else 0)
    last = curves.table()[-1]
    assert last["attacked_low"] == last["attacked_high"] == last["attacked"]


def test_joined_saved_and_loaded(tmp_path):
    model = Voting(torch.arange(6.0)).eval()
    pairs = AdversarialPair(
        natural=torch.zeros(3, 6),
        adversarial=torch.rand(3, 6),
        true_label=0,
        attack_label=1,
    )
    rankings = {"up": torch.arange(6.0), "down": -torch.arange(6.0)}
    whole = evaluate_masking(model, pairs, "units", rankings, [0, 2, 5], seeds=[0, 1])
    parts = [
        evaluate_masking(model, pairs, "units", rankings, counts, seeds=[0, 1])
        for counts in ([5, 0], [2])
    ]
    joined = MaskingCurves.join(parts)
    assert vars(joined) == vars(whole)
    whole.save(tmp_path / "m.safetensors")
    assert vars(MaskingCurves.load(tmp_path / "m.safetensors")) == vars(whole)
    with pytest.raises(ValueError, match=r"parts: got layers \['units', 'other'\]"):
        MaskingCurves.join([whole, MaskingCurves("other", [], {})])
    MaskingCurves("units", [], {("up", 1): {}}).save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        manifest = json.loads(file.metadata()["manifest"])
    manifest["outcomes"] = [["up", 1]]
    save_file({}, tmp_path / "m.safetensors", {"manifest": json.dumps(manifest)})
    with pytest.raises(ValueError, match=r"path: .*m\.safetensors is damaged"):
        MaskingCurves.load(tmp_path / "m.safetensors")


def test_training_mode_is_refused():
    net = SmallNet()
    pairs = AdversarialPair(
        natural=torch.rand(2, 3, 6, 6),
        adversarial=torch.rand(2, 3, 6, 6),
        true_label=0,
        attack_label=1,
    )
    before = state_of(net)
    with pytest.raises(ValueError, match="norm is in training mode"):
        evaluate_masking(net, pairs, "conv", {"a": torch.ones(8)}, [1])
    assert state_of(net) == before


BAD_CURVES = {
    "length": (
        {"rankings": {"b": torch.ones(5)}},
        r"rankings: got 'b' of shape \(5,\), want a number for each of the 6 units",
    ),
    "table": ({"rankings": {"b": torch.ones(6, 6)}}, "rankings: got 'b' of shape"),
    "NaN": ({"rankings": {"b": torch.full((6,), torch.nan)}}, "rankings: got 'b'"),
    "none": ({"rankings": {}}, r"rankings: got \[\], want at least one"),
    "random": ({"rankings": {"random": torch.ones(6)}}, "rankings: got"),
    "counts": ({"counts": [7]}, r"counts: got \[7\], want numbers from 0 to 6"),
    "no counts": ({"counts": []}, r"counts: got \[\]"),
    "seeds": ({"seeds": []}, "seeds: got none"),
    "layer": ({"layer": "unit"}, "layer: the model has no 'unit'"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_CURVES.values(), ids=BAD_CURVES)
def test_bad_curves(changes, message):
    model = Voting(torch.ones(6)).eval()
    arguments = {
        "layer": "units",
        "rankings": {"all": torch.ones(6)},
        "counts": [1],
        **changes,
    }
    pairs = AdversarialPair(
        natural=torch.zeros(2, 6),
        adversarial=torch.ones(2, 6),
        true_label=0,
        attack_label=1,
    )
    with pytest.raises(ValueError, match=message):
        evaluate_masking(model, pairs, **arguments)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda model, pairs: None, "attack: returned NoneType"),
        (lambda model, pairs: pairs.natural.byte(), "attack: returned torch.uint8"),
        (lambda model, pairs: pairs.natural[:1], r"attack: returned \(1, 3, 64, 64\)"),
        (lambda model, pairs: pairs.natural * math.nan, "attack: returned NaN"),
    ],
)
def test_an_adaptive_attack_must_return_inputs(demo_model, demo_pairs, attack, message):
    with pytest.raises(ValueError, match=message):
        evaluate_masking(
            demo_model, demo_pairs, "features.conv5", {"a": torch.arange(96.0)}, [1],
            attack=attack,
        )  # fmt: skip


def test_an_adaptive_attack_runs_on_the_masked_model_and_leaves_no_trace(
    demo_model, demo_pairs
):
    """One step of the gradient's sign, computed by backward()."""
    units = [3, 5]
    ranking = torch.zeros(96)
    ranking[units] = 1.0

    def attack(model, pairs):
        x = pairs.natural.clone().requires_grad_()
        nn.functional.cross_entropy(model(x), pairs.true_label).backward()
        return (pairs.natural + 0.05 * x.grad.sign()).clamp(0, 1)

    curves = evaluate_masking(
        demo_model, demo_pairs, "features.conv5", {"a": ranking}, [2],
        attack=attack, seeds=[0],
    )  # fmt: skip
    assert all(p.grad is None for p in demo_model.parameters())
    with mask_units(demo_model, {"features.conv5": units}):
        attacked = attack(demo_model, demo_pairs)
        with torch.no_grad():
            correct = demo_model(attacked).argmax(dim=1) == demo_pairs.true_label
    demo_model.zero_grad(set_to_none=True)
    (row,) = [row for row in curves.table() if row["masked"] == "a"]
    assert row["adaptive"] == float(correct.double().mean())
    assert curves.outcomes["a", 2]["adaptive"] == correct.double().tolist()
    assert 0 < row["adaptive"] < 1
