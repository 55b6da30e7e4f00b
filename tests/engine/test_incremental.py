"""Inputs of the incremental engine, and its checks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from conftest import TwoInputs
from engine_helpers import MEMORY, Net, ablate, check, pair, share
from torch import Tensor, nn

from captum_pse import EngineWarning, grid_mask
from captum_pse._engine.ablation import Ablation
from captum_pse._engine.choice import ablated_scores
from captum_pse._engine.ops.registry import RULES
from captum_pse.groups.groups import Groups


def test_tuples_of_inputs_and_arguments():
    model = TwoInputs().double().eval()
    image, image0 = pair(2, 3, 12, 12)
    vector, vector0 = pair(2, 4)
    masks = (grid_mask((12, 12), cell=3), torch.arange(4)[None] + 14)
    check(model, (image, vector), (image0, vector0), masks, per_eval=5)

    net = Net(nn.Conv2d(4, 4, 3)).double().eval()

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, scale: Tensor, power: float = 1.0) -> Tensor:
            return (self.net(x) * scale) ** power

    mask = grid_mask((12, 12), cell=3)
    check(Scaled(), image, image0, mask, args=(torch.rand(2, 1).double(), 3))
    check(Scaled(), image, image0, mask, args=(torch.rand(2, 5).double(),))


def test_only_what_a_group_changes_counts():
    """A group that is one box of the image, of which delta touches a corner."""
    net = Net(nn.Identity()).double().eval()
    x0 = torch.rand(1, 3, 24, 24).double()
    x = x0.clone()
    x[..., :2, :2] += 1
    x[..., 20:, 20:] += 1
    mask = torch.zeros(1, 1, 24, 24, dtype=torch.int64)
    mask[..., 12:, :] = 1
    assert share(check(net, x, x0, mask)) < 30


def test_a_model_that_writes_into_its_input():
    net = Net(nn.ReLU()).double().eval()

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            x.sub_(0.5).div_(0.25)
            return self.net(x) + scale.mul_(2)

    x, x0 = pair(2, 3, 12, 12)
    scale = torch.rand(2, 5).double()
    given = x, x0, scale
    kept = [tensor.clone() for tensor in given]
    mask = grid_mask((12, 12), cell=3)
    before = Writes()(x.clone(), scale.clone())
    ablation = Ablation(
        Writes().eval(), (x,), (x0,), Groups.of(mask, (x,)), (scale,),
        lambda scores, examples: scores, before.detach(),
    )  # fmt: skip
    with torch.no_grad():
        dense, found = (
            ablated_scores(ablation, engine, None, MEMORY)
            for engine in ("dense", "incremental")
        )
    assert found.engine == "incremental", found.note
    torch.testing.assert_close(found.scores, dense.scores, rtol=0, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


def test_checks_itself_and_names_the_step(monkeypatch):
    """A pooling that forgets its padding gives wrong numbers at a border."""
    rule = RULES[torch.ops.aten.avg_pool2d.default]

    def wrong(*args: Any) -> Any:
        op = rule.on_windows(*args)
        return dataclasses.replace(
            op, patch=lambda patches: (op.patch(patches)[0] * 1.1,)
        )

    net = Net(nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.ReLU())).double().eval()
    x, x0 = pair(1, 3, 24, 24)
    mask = grid_mask((24, 24), cell=4)
    broken = dataclasses.replace(rule, on_windows=wrong)
    monkeypatch.setitem(RULES, torch.ops.aten.avg_pool2d.default, broken)
    with pytest.warns(EngineWarning, match="first differ at layer_1"):
        found = ablate(net, x, x0, mask)
    assert torch.equal(found.scores, ablate(net, x, x0, mask, "dense").scores)
