"""The common interface of all methods: types, layer names, units and positions."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import captum_pse as pse
from captum_pse import demo, dissection, visualization
from captum_pse._model.layers import last_spatial_layer, layer_names
from captum_pse._model.normalized import Normalized, named_layers
from captum_pse._model.positions import Positions
from captum_pse.pairs.scored import ScoredPair
from captum_pse.reports.explain import explain

#: The labels of these tests differ from the models' predictions.
pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


def public_functions() -> list[tuple[str, Any]]:
    found = []
    for module in (pse, demo, dissection, visualization):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                found.append((name, value))
            elif inspect.isclass(value):
                found += [
                    (f"{name}.{key}", inspect.unwrap(getattr(value, key)))
                    for key, item in vars(value).items()
                    if not key.startswith("_")
                    and callable(inspect.unwrap(getattr(value, key)))
                    and not inspect.isclass(item)
                ]
    return found


def test_no_public_function_returns_any() -> None:
    functions = public_functions()
    assert len(functions) > 60
    loose = [
        name
        for name, function in functions
        if inspect.signature(function).return_annotation
        in ("Any", Any, inspect.Signature.empty)
    ]
    assert loose == []


def test_labels_come_in_one_order() -> None:
    """The attack label precedes the true label, in signatures and in pairs."""
    order = ["inputs", "baselines", "target", "true_target"]
    for method in (
        pse.PromotionSuppression,
        pse.AdversarialCAM,
        pse.DissectionSensitivity,
        pse.PairedAttribution,
    ):
        for name in ("attribute", "decompose"):
            parameters = inspect.signature(getattr(method, name)).parameters
            assert list(parameters)[1:5] == order
    x = torch.rand(2, 3)
    pair = pse.AdversarialPair(x + 1, x, 1, 0)
    again = pse.AdversarialPair(*pair)
    for side, other in zip(pair, again, strict=True):
        assert torch.equal(side, other)
    by_name = pse.AdversarialPair(
        true_label=0, attack_label=1, natural=x, adversarial=x + 1
    )
    for side, other in zip(pair, by_name, strict=True):
        assert torch.equal(side, other)


def net() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3, padding=1),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(4, 3),
        )
    ).eval()


def test_layers_keep_the_users_names() -> None:
    model = net()
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    whole = Normalized(model, mean, std)
    x = torch.rand(2, 3, 6, 6)
    by_hand = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.allclose(whole(x), model(by_hand), atol=1e-6)
    assert set(named_layers(whole)) == {"", "conv", "pool", "flat", "head"}
    assert layer_names(whole, [model.conv, model.head]) == ["conv", "head"]
    assert last_spatial_layer(whole, (x,)) == "conv"
    result = pse.AdversarialCAM(whole, "conv").decompose(x, 1 - x, 0, 1)
    assert result.source == "conv"
    masked = pse.masked_copy(whole, {"conv": [0]})
    with pse.mask_units(whole, {"conv": [0]}):
        assert torch.equal(masked(x), whole(x))
    # The names of layers inside a user's own wrapper are those of the wrapper.
    own = nn.Sequential(OrderedDict(model=model))
    assert layer_names(own, [model.conv]) == ["model.conv"]


def test_a_normalised_model_is_evaluated_by_windows() -> None:
    x0 = torch.rand(1, 3, 32, 32)
    model = Normalized(net(), (0.1,) * 3, (0.5,) * 3)
    options = {"feature_mask": pse.grid_mask((32, 32), cell=8)}
    found = {
        engine: pse.PromotionSuppression(model, engine=engine).decompose(
            x0.flip(3), x0, 0, 1, **options
        )
        for engine in ("dense", "incremental")
    }
    assert found["incremental"].engine == "incremental"
    torch.testing.assert_close(
        found["incremental"].promotion_change, found["dense"].promotion_change
    )


TOKENS = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)

READ = {
    "as it is": (Positions.of(1, None, 0), TOKENS),
    "channels last": (Positions.of(-1, None, 0), TOKENS.movedim(-1, 1)),
    "class token": (
        Positions.of(-1, (2, 2), 1),
        TOKENS[:, 1:].movedim(-1, 1).reshape(2, 3, 2, 2),
    ),
    "one dimension": (Positions.of(2, (5,), 0), TOKENS.movedim(-1, 1)),
}


@pytest.mark.parametrize(("positions", "maps"), READ.values(), ids=READ)
def test_positions(positions: Positions, maps: torch.Tensor) -> None:
    assert torch.equal(positions.maps(TOKENS, "layer"), maps)


BAD_POSITIONS = {
    "batch": ((0, None, 0), "channel_dim: got 0"),
    "no such dimension": ((3, None, 0), "channel_dim: got 3, but layer has"),
    "prefix only": ((-1, None, 1), "num_prefix_tokens: got 1 without a grid"),
    "prefix": ((-1, (2, 2), -1), "num_prefix_tokens: got -1"),
    "grid": ((-1, (2, 0), 0), "grid: got 0"),
    "class token": ((-1, (2, 2), 0), r"grid: got \(2, 2\) with 0 prefix"),
}


@pytest.mark.parametrize(
    ("options", "message"), BAD_POSITIONS.values(), ids=BAD_POSITIONS
)
def test_bad_positions(options: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Positions.of(*options).maps(TOKENS, "layer")


def test_a_scored_pair_is_not_scored_again() -> None:
    calls = []

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            scores: torch.Tensor = self.net(x)
            return scores

    model = Counted().eval()
    x0 = torch.rand(2, 3, 6, 6)
    mask = pse.grid_mask((6, 6), cell=3)
    result = pse.PromotionSuppression(model).decompose(
        x0.flip(3), x0, 0, 1, feature_mask=mask
    )
    assert isinstance(result.pair, ScoredPair)
    options: dict[str, Any] = {"scores": result.attribution(), "feature_mask": mask}
    calls.clear()
    again = pse.refine(model, x0.flip(3), x0, 0, 1, **options)
    n_before = len(calls)
    calls.clear()
    found = pse.refine(model, result.pair, **options)
    # One pass checks that the pair is of this model.
    assert len(calls) == n_before - 1
    assert torch.equal(found.reaches, again.reaches)
    torch.testing.assert_close(
        found.smallest_fraction, again.smallest_fraction, equal_nan=True
    )
    with pytest.raises(ValueError, match="want None if inputs is a scored pair"):
        pse.refine(model, result.pair, x0, **options)
    with pytest.raises(TypeError, match="baselines: got None"):
        pse.refine(model, x0, **options)
    other = net()
    with torch.no_grad():
        other.head.bias.add_(1)
    with pytest.raises(ValueError, match="other scores than those of forward_func"):
        pse.refine(other, result.pair, **options)


def scored_by(model: nn.Module) -> tuple[ScoredPair, torch.Tensor]:
    x0 = torch.rand(2, 3, 6, 6)
    result = pse.PromotionSuppression(model).decompose(x0.flip(3), x0, 0, 1)
    return result.pair, (x0.flip(3) - x0).abs()


class Masked(nn.Module):
    """One class can never be predicted: its score is far from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x)
        return torch.cat([scores, torch.full_like(scores[:, :1], -1e4)], dim=1)


def test_other_models_are_told_from_the_one_that_scored() -> None:
    one, other = Masked().eval(), Masked().eval()
    pair, scores = scored_by(one)
    pse.refine(one, pair, scores=scores)
    with pytest.raises(ValueError, match="other scores than those"):
        pse.refine(other, pair, scores=scores)
    # Some pixels are in no group: nothing of the perturbation is kept there.
    some = pse.grid_mask((6, 6), cell=3).where(torch.arange(6) < 3, -1)
    with pytest.raises(ValueError, match="other scores than those"):
        pse.refine(other, pair, scores=scores, feature_mask=some)
    fewer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    pair, scores = scored_by(net())
    with pytest.raises(ValueError, match=r"other scores|want 0 to 1"):
        pse.refine(fewer.eval(), pair, scores=scores)


def test_a_scored_pair_does_not_open_the_door_to_batch_norm_in_training() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
                          nn.Linear(64, 3)).eval()  # fmt: skip
    pair, scores = scored_by(model)
    before = model[1].num_batches_tracked.clone()
    model.train()
    with pytest.raises(ValueError, match=r"want model\.eval"):
        pse.refine(model, pair, scores=scores)
    assert model[1].num_batches_tracked == before


def test_a_model_with_random_scores_is_explained(
    tmp_path: Path, demo_pairs: pse.AdversarialPair
) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = demo.load_model()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.net(x + 0.05 * torch.randn_like(x))
            return scores

    records = explain(Noisy().eval(), demo_pairs.select([0]), tmp_path, cell=32)
    assert len(records) == 1


def test_positions_of_other_types() -> None:
    for options, message in (
        ({"channel_dim": True}, "channel_dim: got True"),
        ({"channel_dim": "x"}, "channel_dim: got 'x'"),
        ({"channel_dim": -1, "grid": 4}, "grid: got 4"),
        ({"channel_dim": -1, "grid": ()}, r"grid: got \(\)"),
    ):
        with pytest.raises(TypeError, match=message):
            Positions.of(**options)
