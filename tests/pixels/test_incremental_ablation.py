"""IncrementalAblation compared with Captum's FeatureAblation."""

from __future__ import annotations

import pytest
import torch
from captum.attr import FeatureAblation, NoiseTunnel
from conftest import Segmenter, SmallNet, TwoInputs, state_of
from torch import Tensor, nn

from captum_pse import IncrementalAblation, grid_mask

MASK = grid_mask((9, 11), cell=4)
X = torch.rand(3, 3, 9, 11, generator=torch.Generator().manual_seed(1)).double()


def per_example() -> Tensor:
    return torch.cat([MASK.roll(i, dims=3) for i in range(3)])


@pytest.mark.parametrize("engine", ["auto", "dense", "incremental"])
@pytest.mark.parametrize(
    "options",
    [
        {"target": 1, "feature_mask": MASK},
        {"target": [0, 3, 2], "feature_mask": MASK, "baselines": 0.5},
        {"target": torch.tensor([4, 0, 1]), "baselines": X.flip(0)},
        {"target": torch.tensor(2), "feature_mask": MASK - 3, "baselines": X[:1] / 2},
        {"target": 1, "feature_mask": per_example(), "perturbations_per_eval": 3},
        {"target": 0, "feature_mask": torch.arange(3).reshape(1, 3, 1, 1)},
        {"target": 0, "feature_mask": MASK, "additional_forward_args": 2.0},
        {
            "target": 0,
            "feature_mask": MASK,
            "additional_forward_args": torch.tensor([[1.0], [2], [3]]).double(),
        },
    ],
)
def test_equals_feature_ablation(engine, options):
    model = SmallNet().double().eval()
    before = state_of(model)
    found = IncrementalAblation(model, engine=engine).attribute(X, **options)
    assert state_of(model) == before
    captums = {"perturbations_per_eval": 1, **options}
    wanted = FeatureAblation(model).attribute(X, **captums)
    assert found.dtype == X.dtype
    assert float(found.abs().max()) > 1e-3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_tuples_and_groups_across_inputs():
    model = TwoInputs().double().eval()
    inputs = X, torch.rand(3, 4).double()
    masks = MASK, torch.tensor([[0, 1, 20, 21]])
    options = {"target": 1, "feature_mask": masks}
    found = IncrementalAblation(model, engine="incremental").attribute(
        inputs, **options
    )
    wanted = FeatureAblation(model).attribute(inputs, **options)
    assert isinstance(found, tuple)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_dense_scores_and_one_score():
    net = Segmenter().double().eval()
    options = {"target": (1, 4, 4), "feature_mask": MASK}
    found = IncrementalAblation(net, engine="incremental").attribute(X, **options)
    wanted = FeatureAblation(net).attribute(X, **options)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)

    one = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Tanh(), nn.Linear(63, 1))
    one.double()
    found = IncrementalAblation(one, engine="incremental").attribute(
        X, feature_mask=MASK
    )
    wanted = FeatureAblation(one).attribute(X, target=0, feature_mask=MASK)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_inside_a_noise_tunnel():
    model = SmallNet().double().eval()
    options = {"feature_mask": MASK, "target": [0, 1, 2], "nt_samples": 2}
    methods = IncrementalAblation(model, engine="incremental"), FeatureAblation(model)
    found, wanted = (
        (torch.manual_seed(0), NoiseTunnel(m).attribute(X, stdevs=0.1, **options))[1]
        for m in methods
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"target: got None, but forward_func returns shape \(3, 5\)"),
        ({"target": 9}, "target: got 9 for example 0, want 0 to 4"),
        ({"target": [1, 2]}, "target: got 2 label"),
        ({"target": 1, "feature_mask": torch.zeros(2, 2).long()}, "feature_mask: got"),
        ({"target": 1, "perturbations_per_eval": 0}, "perturbations_per_eval: got 0"),
    ],
)
def test_bad_input(options, message):
    model = SmallNet().double().eval()
    with pytest.raises(ValueError, match=message):
        IncrementalAblation(model).attribute(X, **options)
    with pytest.raises(ValueError, match="engine: got 'x'"):
        IncrementalAblation(model, engine="x")


def test_aggregating_models_and_training_mode_raise():
    with pytest.raises(ValueError, match="one row of scores for each of 3"):
        IncrementalAblation(lambda x: x.sum()).attribute(X, feature_mask=MASK)
    with pytest.raises(ValueError, match="training mode"):
        IncrementalAblation(SmallNet().double()).attribute(X, target=1)
