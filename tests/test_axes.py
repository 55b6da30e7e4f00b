"""Which dimension of a layer's output holds its units, as it is found in a pass."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

import captum_pse as pse
from captum_pse._model.axes import UnitAxes
from captum_pse._model.positions import Positions
from captum_pse._model.proportions import by_proportions
from captum_pse.dissection import Concept, ConceptSample

#: The labels of these tests differ from the models' predictions.
pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


@cache
def swin() -> nn.Module:
    """``features.1`` and ``features.2`` return (N, 8, 8, 8) and (N, 4, 4, 16) of
    32 px."""
    torch.manual_seed(0)
    return models.SwinTransformer(
        [4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3
    ).eval()  # fmt: skip


def convnext() -> nn.Module:
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    return models.ConvNeXt(blocks, num_classes=3)


def densenet() -> nn.Module:
    return models.DenseNet(4, (2, 2), 8, num_classes=3)


def mobilenet() -> nn.Module:
    return models.MobileNetV2(3, width_mult=0.25)


def outputs(model: nn.Module, x: Tensor) -> tuple[UnitAxes, dict[str, Tensor]]:
    found: dict[str, Tensor] = {}
    axes = UnitAxes([x])
    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=name: found.__setitem__(name, output)
        )
        for name, module in model.named_modules()
    ]
    with torch.no_grad(), axes:
        model(x)
    for handle in handles:
        handle.remove()
    return axes, {name: x for name, x in found.items() if isinstance(x, Tensor)}


@pytest.mark.parametrize(
    "build", [swin, convnext, densenet, mobilenet], ids=lambda build: build.__name__
)
def test_units_are_at_the_axis_that_does_not_grow_with_the_image(build):
    """The oracle: a larger image gives longer spatial axes and as many units."""
    model = build().eval()
    axes, small = outputs(model, torch.rand(1, 3, 32, 32))
    _, large = outputs(model, torch.rand(1, 3, 96, 64))
    assert axes.of_input() == 1
    n_maps = 0
    for name, x in small.items():
        if x.dim() == 4 and x.shape[1:] != large[name].shape[1:]:
            same = [i for i in (1, 2, 3) if x.shape[i] == large[name].shape[i]]
            assert [axes.of(x)] == same, name
            n_maps += 1
    assert n_maps > 20


def test_tokens_of_a_vision_transformer():
    model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).eval()
    axes, found = outputs(model, torch.rand(1, 3, 32, 32))
    tokens = {name: x for name, x in found.items() if x.dim() == 3}
    assert len(tokens) > 15
    assert {axes.of(x) for x in tokens.values()} == {2}


CONV = nn.Conv2d(3, 5, 1)


def canvas(y: Tensor) -> Tensor:
    drawn = y.new_zeros(2, 4, 6, 5)
    drawn[:] = y
    return drawn


#: Functions of the output of a convolution, (2, 5, 4, 6); where its units are then.
FOLLOWED: dict[str, tuple[Callable[[Tensor], Any], int | None]] = {
    "itself": (lambda y: y, 1),
    "element-wise": (lambda y: F.gelu(y * 2) + y.abs().clamp(max=3), 1),
    "in place": (lambda y: y.mul_(2).relu_(), 1),
    "permute": (lambda y: y.permute(0, 2, 3, 1), 3),
    "permute, a tuple": (lambda y: torch.permute(input=y, dims=(0, 2, 3, 1)), 3),
    "transpose": (lambda y: y.transpose(1, -1), 3),
    "swapaxes": (lambda y: torch.swapaxes(y, 1, 2), 2),
    "movedim": (lambda y: y.movedim(1, -1), 3),
    "mT": (lambda y: y.mT, 1),
    "there and back": (lambda y: y.permute(0, 2, 3, 1).permute(0, 3, 1, 2), 1),
    "tokens": (lambda y: y.flatten(2).transpose(1, 2), 2),
    "tokens as maps": (lambda y: y.flatten(2).mT.unflatten(1, (4, 6)), 3),
    "view": (lambda y: y.view(2, 5, 2, 12), 1),
    "one more axis": (lambda y: y.unsqueeze(2), 1),
    "groups of units": (lambda y: y.reshape(2, 1, 5, 4, 6).flatten(1, 2), 1),
    "units as positions": (lambda y: y.reshape(2, 10, 2, 6), None),
    "slices": (lambda y: y[:, :, 1:, ::2], 1),
    "cat": (lambda y: torch.cat([y, y], dim=1), 1),
    "chunk": (lambda y: y.chunk(2, dim=3)[1], 1),
    "pool": (lambda y: F.max_pool2d(y, 2), 1),
    "resize": (lambda y: F.interpolate(y, scale_factor=2), 1),
    "gate": (lambda y: y * y.mean((2, 3), keepdim=True).sigmoid(), 1),
    "padding": (lambda y: F.pad(y, (1, 1, 1, 1)), 1),
    "linear": (lambda y: F.linear(y.permute(0, 2, 3, 1), torch.ones(7, 5)), 3),
    "norm last": (lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (5,)), 3),
    "norm of all": (lambda y: F.layer_norm(y, (5, 4, 6)), 1),
    "norm first": (lambda y: F.group_norm(y, 5), 1),
    "conv again": (lambda y: F.conv2d(y, torch.ones(4, 5, 1, 1)), 1),
    "matrix product": (lambda y: y.movedim(1, 3) @ torch.ones(5, 7), 3),
    "attention": (
        lambda y: F.scaled_dot_product_attention(*[y.flatten(2).mT] * 3), 2
    ),
    "mixed axes": (lambda y: (y.mean(3) + y.mean(2).repeat(1, 1, 1)[..., :4]), None),
    "two axes": (lambda y: y[..., :4, :4].mT + y[..., :4, :4], 1),
    "disagree": (lambda y: y[:, :4, :, :4] + y[:, :4, :, :4].transpose(1, 2), None),
    "einsum": (lambda y: torch.einsum("nchw->nhwc", y), None),
    "stack": (lambda y: torch.stack([y, y], dim=1), None),
    "squeeze in place": (lambda y: y[:, :, :, :1].squeeze_(3), 1),
    "transpose in place": (lambda y: y.transpose_(1, 3), 3),
    "a class token": (
        lambda y: torch.cat([torch.zeros(2, 1, 5), y.flatten(2).mT], dim=1), 2
    ),
    "a canvas": (lambda y: canvas(y.permute(0, 2, 3, 1)), None),
    "a new axis": (lambda y: y[:, None, ..., 0], None),
    "one unit": (lambda y: y[:, 0, :, None], None),
    "some units": (lambda y: y[:, torch.tensor([0, 1])], None),
    "rot90": (lambda y: torch.rot90(y, 1, (1, 3)), None),
    "warped": (
        lambda y: F.grid_sample(torch.ones(2, 3, 4, 6), y.permute(0, 2, 3, 1)[..., :2],
                                align_corners=False), None
    ),
    "a sum with the unknown": (lambda y: y + torch.stack([*y]), None),
    "a sum with a parameter": (lambda y: y + nn.Parameter(torch.ones(2, 5, 4, 6)), 1),
    "queries and keys": (
        lambda y: y.flatten(2).mT @ torch.stack([*y.flatten(2)]), None
    ),
}  # fmt: skip


@pytest.mark.parametrize(("function", "axis"), FOLLOWED.values(), ids=FOLLOWED)
def test_the_axis_is_followed(function, axis):
    with torch.no_grad(), UnitAxes() as axes:
        y = CONV(torch.rand(2, 3, 4, 6))
        assert axes.of(y) == 1
        found = function(y)
    assert axes.of(found) == axis


#: Maps of an image; the dimension of the units.
PROPORTIONS = {
    "first": ((64, 64), (2, 5, 8, 8), 1),
    "last": ((64, 64), (2, 8, 8, 5), 3),
    "both": ((64, 64), (2, 8, 8, 8), None),
    "neither": ((64, 64), (2, 8, 7, 8), None),
    "one position": ((64, 64), (2, 5, 1, 1), 1),
    "one unit": ((64, 64), (2, 1, 8, 8), 1),
    "a long image, first": ((64, 32), (2, 5, 16, 8), 1),
    "a long image, last": ((64, 32), (2, 16, 8, 5), 3),
    "rounded up": ((65, 33), (2, 5, 33, 17), 1),
    "larger than the image": ((4, 8), (2, 5, 8, 16), 1),
    "by chance": ((64, 32), (2, 32, 16, 8), None),
    "tokens": ((64, 64), (2, 64, 5), None),
}


@pytest.mark.parametrize(
    ("size", "shape", "axis"), PROPORTIONS.values(), ids=PROPORTIONS
)
def test_proportions(size, shape, axis):
    output, image = torch.zeros(shape), torch.zeros(2, 3, *size)
    assert by_proportions(output, [image, torch.zeros(2, 7)]) == axis
    assert by_proportions(output, [torch.zeros(2, 7)]) is None


X0 = torch.linspace(0, 1, 4 * 3 * 32 * 32).reshape(4, 3, 32, 32)
X = 1 - X0
LAYERS = ["features.0.1", "features.1", "features.1.0.mlp.1", "features.2"]


class Colours(list[ConceptSample]):
    concepts = (Concept("color", 1, "bright"),)


def dissected(**options: Any) -> Any:
    samples = Colours([ConceptSample(x, {"color": (x[0] > 0.5).long()}) for x in X0])
    method = pse.NetworkDissection(swin(), LAYERS, quantile=0.1, **options)
    result = method.dissect(samples)
    masks = method.unit_masks(X, result, "features.2", [0, 5])
    return [layer.thresholds for layer in result.layers.values()], masks


def attack(model: nn.Module, pairs: pse.AdversarialPair) -> Tensor:
    return X[: len(pairs)]


def masked(**options: Any) -> Any:
    with pse.mask_units(swin(), {"features.1": [0], "features.2": [3]}, **options) as m:
        return m(X), m.features(X)


def hardened(**options: Any) -> Any:
    """Without its units, the model predicts the true label 2, with them another one."""
    model = copy.deepcopy(swin())
    with torch.no_grad():
        model.head.bias += torch.tensor([0, 0, 1e-3])
    pairs, judge = (
        pse.AdversarialPair(X[rows], X0[rows], 0, 2)
        for rows in (slice(0, 2), slice(2, 4))
    )
    found = pse.harden(
        model, "features.2", pairs, judge, attack=attack, counts=[16], **options
    )
    assert found.units == tuple(range(16))
    return found.model(X)


def evaluated(**options: Any) -> Any:
    return pse.evaluate_masking(
        swin(), pse.AdversarialPair(X, X0, 0, 1), "features.2",
        {"by number": -torch.arange(16.0)}, [4], seeds=[0], mode="clamp", **options
    ).table()  # fmt: skip


def sensitivities(**options: Any) -> Any:
    method = pse.DissectionSensitivity(swin(), LAYERS, **options)
    over = method.over(pse.AdversarialPair(X, X0, 0, 1), batch_size=3)
    results = method.decompose(X, X0, 0, 1)
    assert [r.channel_dim % 4 for r in results] == [3] * len(LAYERS)
    return [s.mean for s in over], [r.sensitivity() for r in results]


METHODS: dict[str, Callable[..., Any]] = {
    "AdversarialCAM": lambda **o: [
        pse.AdversarialCAM(swin(), LAYERS, method, interpolate=size, **o).attribute(
            X, X0, 0, 1
        )
        for method in ("gradcam", "gradcam++")
        for size in (True, False)
    ],
    "DissectionSensitivity": sensitivities,
    "NetworkDissection": dissected,
    "unit_range": lambda **o: list(
        vars(pse.unit_range(swin(), "features.1", X, **o)).values()
    ),
    "mask_units": masked,
    "evaluate_masking": evaluated,
    "harden": hardened,
}


def compare(got: Any, wanted: Any) -> None:
    if isinstance(got, (list, tuple)):
        for a, b in zip(got, wanted, strict=True):
            compare(a, b)
    elif isinstance(got, Tensor):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    elif isinstance(got, dict):
        assert got == pytest.approx(wanted, nan_ok=True)
    else:
        assert got == wanted


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_channels_last_are_recognised(method):
    """Also where the sizes say nothing: features.1 returns (N, 8, 8, 8)."""
    assert len(torch.overrides._get_current_function_mode_stack()) == 0
    compare(method(), method(channel_dim=-1))
    assert not any(m._forward_hooks for m in swin().modules())
    assert not any(m._forward_pre_hooks for m in swin().modules())


def test_maps_have_the_size_of_the_positions():
    method = pse.AdversarialCAM(swin(), "features.2", interpolate=False)
    assert method.attribute(X, X0, 0, 1).shape == (4, 1, 4, 4)
    # A given dimension is taken as it is.
    given = pse.AdversarialCAM(swin(), "features.2", interpolate=False, channel_dim=1)
    assert given.attribute(X, X0, 0, 1).shape == (4, 1, 4, 16)


class Unclear(nn.Module):
    """Its layer returns (N, 6, 6, 6), of an operation that cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.layer = nn.Identity()
        self.head = nn.Linear(216, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(torch.einsum("nchw->nhwc", self.conv(x)))
        scores: Tensor = self.head(maps.flatten(1))
        return scores


def test_what_cannot_be_told_is_asked_for():
    model, x0 = Unclear().eval(), torch.rand(2, 3, 6, 6)
    x, pairs = 1 - x0, pse.AdversarialPair(1 - x0, x0, 0, 1)
    ranking = {"by number": torch.arange(6.0)}
    samples = Colours([ConceptSample(y, {"color": (y[0] > 0.5).long()}) for y in x])

    def masks(**options: Any) -> None:
        with pse.mask_units(model, {"layer": [0]}, **options):
            model(x)

    sensitivity = partial(pse.DissectionSensitivity, model, "layer")
    dissection = partial(pse.NetworkDissection, model, ["layer"], quantile=0.1)
    judge = pse.AdversarialPair(x / 2, x0 / 2, 0, 1)
    harden = partial(pse.harden, model, "layer", pairs, judge, counts=[0])
    calls: list[Callable[..., Any]] = [
        lambda **o: pse.AdversarialCAM(model, "layer", **o).attribute(x, x0, 0, 1),
        lambda **o: sensitivity(**o).over(pairs),
        lambda **o: sensitivity(**o).decompose(x, x0, 0, 1),
        lambda **o: dissection(**o).dissect(samples),
        partial(pse.unit_range, model, "layer", x),
        masks,
        partial(pse.evaluate_masking, model, pairs, "layer", ranking, [0]),
        partial(harden, attack=lambda masked, pairs: pairs.adversarial),
    ]
    asked = (
        r"channel_dim: got None, and '?layer'? returns shape \(\d, 6, 6, 6\), in which "
        r".* want 1 for \(N, K, \.\.\.\) or -1 for \(N, \.\.\., K\)"
    )
    for call in calls:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "mask_units: 'layer' did not run")
            with pytest.raises(ValueError, match=asked):
                call()
        call(channel_dim=-1)
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_a_pass_that_fails_is_followed_no_longer():
    model = swin()
    for bad in (torch.rand(1, 2, 8, 8), "no image"):
        with (
            pytest.raises((RuntimeError, TypeError)),
            pse.mask_units(model, {"features.1": [0]}),
        ):
            model(bad)
        assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_masked_copies():
    model = swin()
    units = {"features.1": [0], "features.2": [3]}
    with pse.mask_units(model, units):
        wanted = model(X)
    assert torch.equal(pse.masked_copy(model, units, channel_dim=-1)(X), wanted)
    unsure = pse.masked_copy(model, units)
    with pytest.raises(ValueError, match=r"channel_dim: got None for a layer that ret"):
        unsure(X)
    # Without a pass, only layers after a convolution are certain.
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3))
    x = torch.rand(2, 3, 6, 6)
    for layer in ("0", "1", "2", "3"):
        with pse.mask_units(net, {layer: [1]}):
            wanted = net(x)
        assert torch.equal(pse.masked_copy(net, {layer: [1]})(x), wanted)


def test_dimensions_of_other_layers():
    """A layer with two dimensions needs no evidence; tokens without any are unclear."""
    positions = Positions.of(None)
    assert positions.dimension("head", torch.zeros(2, 5), None, ()) == 1
    with pytest.raises(ValueError, match=r"channel_dim: got None, and tokens returns"):
        positions.dimension("tokens", torch.zeros(2, 5, 7), None, ())
    given = Positions.of(-1)
    assert given.dimension("tokens", torch.zeros(2, 5, 7), None, ()) == -1


class Shared(nn.Module):
    """Runs one module on maps and on tokens."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv1d(3, 6, 1), nn.Linear(6, 6)
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.act(self.conv(x))
        return self.act(self.linear(y.mT)).mean(1)


def test_a_layer_with_its_units_in_two_dimensions_is_asked_about():
    message = "channel_dim: got None, and 'act' runs several times"
    with (
        pse.mask_units(Shared(), {"act": [0]}) as model,
        pytest.raises(ValueError, match=message),
    ):
        model(torch.rand(2, 3, 6))


class Stops(nn.Module):
    def forward(self, x):
        raise KeyboardInterrupt


def test_a_pass_that_is_interrupted_is_not_followed_any_more():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Stops(), nn.ReLU())
    with pse.mask_units(model, {"0": [0], "2": [0]}):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                model(X0)
        del model[1]
        wanted = model[0](X0).relu()
        assert torch.equal(model(X0)[:, 1:], wanted[:, 1:])
    assert not torch.overrides._get_current_function_mode_stack()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_images_with_their_channels_last_are_asked_about():
    """If what the model does with them first is not followed."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            y = self.conv(torch.einsum("nhwc->nchw", x))
            return self.head(y.relu().mean((2, 3)))

    sides = X.movedim(1, 3), X0.movedim(1, 3)
    with pytest.raises(ValueError, match="input_channel_dim: got None for inputs of"):
        pse.AdversarialCAM(Last(), "conv").attribute(*sides, 0, 1)
    found = pse.AdversarialCAM(Last(), "conv", input_channel_dim=-1)
    assert found.attribute(*sides, 0, 1).shape == (4, 32, 32, 1)
