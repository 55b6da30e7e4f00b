"""Where maps lie on inputs: signals, embeddings, images with channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_pse import (
    AdversarialCAM,
    PairedAttribution,
    RegionDecomposition,
    interpretability_score,
)

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")

STEP = 3


class Steps(nn.Module):
    """Embeddings ``(N, T, F)``, units of each time step, their mean, scores."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.units = nn.Sequential(nn.Linear(n_features, 6), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.units(x).mean(dim=1))
        return scores


class Signals(nn.Module):
    """The same of signals ``(N, C, T)``."""

    def __init__(self, steps: Steps, pool: int = 1) -> None:
        super().__init__()
        linear = steps.units[0]
        convolution = nn.Conv1d(linear.in_features, 6, 1)
        convolution.weight.data = linear.weight.data.unsqueeze(2)
        convolution.bias = linear.bias
        self.units = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool1d(pool))
        self.head = steps.head

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.units(x).mean(dim=2))
        return scores


def embeddings(n_steps: int, n_features: int) -> tuple[Steps, Tensor, Tensor]:
    """The attack changes one time step only."""
    torch.manual_seed(n_steps)
    model = Steps(n_features).double().eval()
    x0 = torch.rand(2, n_steps, n_features).double()
    x = x0.clone()
    x[:, STEP] += 2
    return model, x, x0


#: Time steps and features; also as many of the one as of the other.
SIZES = [(7, 4), (4, 7), (5, 5)]


@pytest.mark.parametrize(("n_steps", "n_features"), SIZES)
def test_maps_of_time_steps(n_steps, n_features):
    model, x, x0 = embeddings(n_steps, n_features)
    result = AdversarialCAM(model, "units", relu=False).decompose(x, x0, 0, 1)
    # The gradient of a score with respect to the units of a step is the head's row.
    for name, values, label in (
        ("natural_true", x0, 1),
        ("adversarial_true", x, 1),
        ("natural_attack", x0, 0),
        ("adversarial_attack", x, 0),
    ):
        row = model.head.weight.detach()[label]
        wanted = [
            [float(row @ model.units(step).detach()) / n_steps for step in y]
            for y in values
        ]
        got = getattr(result, name)
        assert got.shape == (2, n_steps, 1)
        rows = torch.tensor(wanted, dtype=torch.float64)
        torch.testing.assert_close(got[..., 0], rows)
    for change in (result.promotion, result.suppression):
        assert change[:, STEP].abs().min() > 0
        others = change[:, [t for t in range(n_steps) if t != STEP]]
        assert torch.equal(others, torch.zeros_like(others))
        # Constant over features: it broadcasts to the inputs.
        assert (change * x).shape == x.shape


@pytest.mark.parametrize(("n_steps", "n_features"), SIZES)
def test_signals_and_embeddings_give_the_same_maps_and_scores(n_steps, n_features):
    model, x, x0 = embeddings(n_steps, n_features)
    signals = Signals(model).double().eval()
    steps = AdversarialCAM(model, "units").decompose(x, x0, 0, 1)
    others = AdversarialCAM(signals, "units").decompose(x.mT, x0.mT, 0, 1)
    assert (steps.input_channel_dim, others.input_channel_dim) == (2, 1)
    for name in ("promotion", "suppression", "natural_true"):
        torch.testing.assert_close(
            steps.on_inputs(name), others.on_inputs(name).mT, msg=name
        )
    score, other = (r.interpretability("adversarial_attack") for r in (steps, others))
    torch.testing.assert_close(score.lift, other.lift)
    assert torch.equal(score.mask, other.mask.mT)
    rows, others_rows = steps.summary(), others.summary()
    assert [*rows[0]] == [*others_rows[0]]
    assert "promotion_is_lift" in rows[0]
    # All of the perturbation lies in one step.
    inside = score.mask[:, STEP, 0].double()
    torch.testing.assert_close(score.score, inside)


def test_a_pooled_signal_is_not_laid_on_its_channels():
    """Four positions, and an input of four channels and eight time steps."""
    model, _, _ = embeddings(8, 4)
    x0 = torch.rand(2, 4, 8).double()
    x = x0.clone()
    x[:, :, 6:] += 2
    method = AdversarialCAM(Signals(model, pool=2).double().eval(), "units", relu=False)
    change = method.attribute(x, x0, 0, 1)
    assert change.shape == (2, 1, 8)
    # Interpolated between the centres of the last two of four positions.
    assert torch.equal(change[..., :5], torch.zeros_like(change[..., :5]))
    assert change[..., 6:].abs().min() > 0


class Mixed(nn.Module):
    """The first layer takes all values at once, so it says nothing of the axes."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(20, 24)
        self.units = nn.Conv1d(6, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.units(self.mix(x.flatten(1)).unflatten(1, (6, 4)))
        scores: Tensor = self.head(maps.mean(dim=2))
        return scores


def test_what_cannot_be_told_is_asked_for():
    model, x0 = Mixed().eval(), torch.rand(2, 5, 4)
    pair = (1 - x0, x0, 0, 1)
    asked = r"input_channel_dim: got None for inputs of shape \(2, 5, 4\), want 1 for"
    with pytest.raises(ValueError, match=asked):
        AdversarialCAM(model, "units").attribute(*pair)
    layer = AdversarialCAM(model, "units", interpolate=False).decompose(*pair)
    assert layer.promotion.shape == (2, 1, 4)
    with pytest.raises(ValueError, match=asked):
        layer.on_inputs("promotion")
    with pytest.raises(ValueError, match=asked):
        layer.interpretability()
    assert not any("_is" in name for name in layer.summary()[0])
    shapes = {1: (2, 1, 4), 2: (2, 5, 1), -1: (2, 5, 1), -2: (2, 1, 4)}
    for dim, shape in shapes.items():
        method = AdversarialCAM(model, "units", input_channel_dim=dim)
        assert method.attribute(*pair).shape == shape
    for dim, message in (
        (0, "input_channel_dim: got 0, the batch"),
        (3, r"input_channel_dim: got 3, but the input has shape \(2, 5, 4\)"),
        (-3, "input_channel_dim: got -3, but"),
    ):
        with pytest.raises(ValueError, match=message):
            AdversarialCAM(model, "units", input_channel_dim=dim).attribute(*pair)


class ChannelsLast(nn.Module):
    """Takes images ``(N, H, W, C)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.model((images.movedim(-1, 1) - 0.5) / 0.25)
        return scores


def test_images_with_channels_last():
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 3),
    ).eval()  # fmt: skip
    x0 = torch.rand(2, 8, 12, 3)
    x = x0.clone()
    x[:, 5:, 7:] = 1 - x[:, 5:, 7:]
    other = ChannelsLast(model)
    result = AdversarialCAM(other, "model.1").decompose(x, x0, 0, 1)
    inputs = [(y.movedim(-1, 1) - 0.5) / 0.25 for y in (x, x0)]
    wanted = AdversarialCAM(model, "1").decompose(*inputs, 0, 1)
    assert result.promotion.shape == (2, 8, 12, 1)
    torch.testing.assert_close(result.promotion.movedim(-1, 1), wanted.promotion)
    got, score = (r.interpretability("natural_true") for r in (result, wanted))
    torch.testing.assert_close(got.score, score.score)


def test_attributions_are_summed_over_features():
    model, x, x0 = embeddings(7, 4)
    method = PairedAttribution(Saliency(model))
    result = method.decompose(x, x0, 0, 1)
    assert isinstance(result, RegionDecomposition)
    wanted = result.natural_true.sum(dim=2, keepdim=True)
    assert torch.equal(result.on_inputs("natural_true"), wanted)
    assert wanted.shape == (2, 7, 1)
    mixed, y0 = Mixed().eval(), torch.rand(2, 5, 4)
    for given, wanted_dim in ((None, None), (-1, 2), (1, 1)):
        method = PairedAttribution(Saliency(mixed), input_channel_dim=given)
        found = method.decompose(1 - y0, y0, 0, 1)
        assert isinstance(found, RegionDecomposition)
        assert found.input_channel_dim == wanted_dim


def test_saved_and_loaded(tmp_path):
    model, x, x0 = embeddings(7, 4)
    result = AdversarialCAM(model, "units").decompose(x, x0, 0, 1)
    result.save(tmp_path / "r.safetensors")
    loaded = RegionDecomposition.load(tmp_path / "r.safetensors")
    assert loaded.input_channel_dim == 2
    assert loaded.summary() == result.summary()
    # Files of older versions do not state it: positions were at the end.
    tensors, settings = result._contents()
    del settings["input_channel_dim"]
    assert RegionDecomposition._of_contents(tensors, settings).input_channel_dim == 1


SCORES: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {
    "images": ((2, 1, 4, 6), (2, 3, 4, 6)),
    "channels last": ((2, 4, 6, 1), (2, 4, 6, 3)),
    "embeddings": ((2, 7, 1), (2, 7, 4)),
    "own shape": ((2, 7, 4), (2, 7, 4)),
    "features": ((2, 5), (2, 5)),
}


@pytest.mark.parametrize(("shape", "of"), SCORES.values(), ids=SCORES)
def test_scores_by_a_literal_mask(shape, of):
    maps, delta = torch.rand(shape), torch.randn(of)
    found = interpretability_score(maps, delta, percentile=50)
    for i in range(2):
        median = maps[i].quantile(0.5)
        kept = delta[i] * (maps[i] >= median)
        torch.testing.assert_close(found.score[i], kept.norm() / delta[i].norm())
    for wrong in ((2, *of[1:-1], of[-1] + 1), (3, *of[1:]), (*of, 1)):
        with pytest.raises(ValueError, match="maps: got shape"):
            interpretability_score(torch.rand(wrong), delta)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int | None]] = {
    "linear": (lambda: nn.Linear(4, 4), (2, 7, 4), 2),
    "norm": (lambda: nn.LayerNorm(4), (2, 7, 4), 2),
    "attention": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 7, 4), 2
    ),
    "recurrent": (lambda: First(nn.LSTM(4, 4, batch_first=True)), (2, 7, 4), 2),
    "convolution": (lambda: nn.Conv1d(7, 4, 1), (2, 7, 4), 1),
    "batch norm": (lambda: nn.BatchNorm1d(7), (2, 7, 4), 1),
    "none": (nn.ReLU, (2, 7, 4), None),
    "image": (nn.ReLU, (2, 3, 4, 4), 1),
    "columns of images": (lambda: nn.Linear(4, 4), (2, 3, 4, 4), 1),
}  # fmt: skip


class First(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)[0]


@pytest.mark.parametrize(("build", "shape", "dim"), MODELS.values(), ids=MODELS)
def test_what_the_first_layer_tells(build, shape, dim):
    model = nn.Sequential(build(), nn.Flatten(), nn.LazyLinear(3)).eval()
    x0 = torch.rand(shape)
    model(x0)
    options: dict[str, Any] = {"interpolate": False, "channel_dim": 1}
    result = AdversarialCAM(model, "0", **options).decompose(1 - x0, x0, 0, 1)
    assert result.input_channel_dim == dim
