"""The incremental engine against full passes through the same model."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import TwoInputs, state_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from captum_pse import EngineWarning, PromotionSuppression, grid_mask
from captum_pse._engine.ablation import Ablation
from captum_pse._engine.batches import Batches
from captum_pse._engine.choice import Ablated, ablated_scores
from captum_pse._engine.ops import registry as local_ops
from captum_pse._engine.windows import Boxes, Kernel, Windows
from captum_pse.groups.groups import Groups

MEMORY = 1 << 30


def ablate(
    model: Callable[..., Tensor],
    x: Tensor | tuple[Tensor, ...],
    x0: Tensor | tuple[Tensor, ...],
    mask: Tensor | tuple[Tensor, ...],
    engine: str = "incremental",
    args: tuple[Any, ...] = (),
    per_eval: int | None = None,
) -> Ablated:
    """All scores of every example after each group alone was erased."""
    xs, x0s = (side if isinstance(side, tuple) else (side,) for side in (x, x0))
    with torch.no_grad():
        before = model(*(part.clone() for part in xs), *args).flatten(1)
        ablation = Ablation(
            model, xs, x0s, Groups.of(mask, xs), args,
            lambda scores, examples: scores.flatten(1), before,
        )  # fmt: skip
        return ablated_scores(ablation, engine, per_eval, MEMORY)


def check(model: nn.Module, x: Any, x0: Any, mask: Any, **options: Any) -> Ablated:
    """Asserts that both engines agree to rounding; gives the incremental one."""
    wanted = ablate(model, x, x0, mask, "dense", options.get("args", ()))
    found = ablate(model, x, x0, mask, **options)
    assert found.engine == "incremental", found.note
    if wanted.scores.shape[1] > 1:
        moved = wanted.scores.std(dim=1)
        assert float(moved.max()) > 1e-6, "erasing does nothing: nothing is tested"
    spread = float(wanted.scores.max() - wanted.scores.min())
    eps = torch.finfo(wanted.scores.dtype).eps
    torch.testing.assert_close(
        found.scores, wanted.scores, rtol=0, atol=1e3 * eps * spread
    )
    return found


def share(found: Ablated) -> int:
    """Per cent of the multiply-adds."""
    return int(found.note.split("%")[0])


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    x, x0 = torch.rand(2, *shape, dtype=torch.float64)
    return x, x0


# Window arithmetic


@given(data=st.data())
def test_boxes_are_where_outputs_change(data):
    k, s, d = (data.draw(st.integers(1, 4)) for _ in range(3))
    p = data.draw(st.integers(0, k * d))
    n = data.draw(st.integers(d * (k - 1) + 1, 24))
    lo = data.draw(st.integers(0, n - 1))
    hi = data.draw(st.integers(lo, n - 1))
    x = torch.zeros(1, 1, n)
    x[..., lo : hi + 1] = 1
    out = F.conv1d(x, torch.ones(1, 1, k), stride=s, padding=p, dilation=d)[0, 0]
    changed = out.nonzero().flatten().tolist()
    kernel = Kernel((k,), (s,), (p,), (d,))
    box = Boxes(np.array([[lo]]), np.array([[hi]])).through(kernel, [len(out)])
    first, last = int(box.lo[0, 0]), int(box.hi[0, 0])
    assert 0 <= first <= last < len(out)
    if d == 1 and changed:
        assert (first, last) == (changed[0], changed[-1])
    assert all(first <= o <= last for o in changed)
    # What is read holds every input that these outputs look at.
    windows = box.windows([len(out)], whole_from=2.0)
    region = windows.read_by(kernel)
    padded = F.pad(x, (k * d + p, k * d + p + s * len(out)))
    start = int(region.origin[0, 0]) + k * d + p
    patch = padded[..., start : start + region.size[0]]
    again = F.conv1d(patch, torch.ones(1, 1, k), stride=s, dilation=d)[0, 0]
    assert torch.equal(again, out[first : last + 1])


def test_windows_have_one_size_and_lie_inside():
    boxes = Boxes(
        np.array([[0, 0], [6, 3], [9, 9]]), np.array([[1, 0], [9, 5], [9, 9]])
    )
    windows = boxes.windows([10, 10], whole_from=0.5)
    assert windows.size == (4, 3)
    assert windows.origin.tolist() == [[0, 0], [6, 3], [6, 7]]
    assert boxes.windows([10, 10], whole_from=0.1) == Windows.whole(3, [10, 10])
    rows = Windows(np.array([[-1, 2]]), (2, 2)).rows([3, 3], outside=9)
    assert rows.tolist() == [9, 9, 2, 9]


# Operations


class Net(nn.Module):
    """A layer between convolutions, so that windows come in and are read again."""

    def __init__(self, layer: nn.Module, channels: int = 4, out: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.layer = layer
        self.after = nn.Conv2d(out, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(torch.tanh(self.stem(x)))
        x = torch.tanh(self.after(x))
        return self.head(x.mean((2, 3)))


class Of(nn.Module):
    """A function as a layer, with a convolution to use in it."""

    def __init__(self, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.bias = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self)


def shuffle(x: Tensor, _: nn.Module) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def split(x: Tensor, net: nn.Module) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.cat((F.relu(b), a * 2), dim=1)


def residual(x: Tensor, net: nn.Module) -> Tensor:
    y = net.conv(x)
    y += x
    return y.relu_()


def overwritten(x: Tensor, net: nn.Module) -> Tensor:
    """Reads a value with a kernel, and then writes over it."""
    y = net.conv(x)
    pooled = F.max_pool2d(y, 3, 1, 1)
    y.mul_(-1)
    return torch.relu_(y) + pooled


def excite(x: Tensor, net: nn.Module) -> Tensor:
    return x * torch.sigmoid(net.conv(F.adaptive_avg_pool2d(x, 1)))


def channels_last(x: Tensor, net: nn.Module) -> Tensor:
    x = F.layer_norm(x.permute(0, 2, 3, 1), (4,))
    x = F.gelu(F.linear(x, net.conv.weight[:, :, 0, 0], None))
    return x.softmax(dim=-1).permute(0, 3, 1, 2) * net.bias


def attention(x: Tensor, net: nn.Module) -> Tensor:
    tokens = x.flatten(2)
    mixed = torch.softmax(tokens.transpose(1, 2) @ tokens, dim=-1)
    return (tokens @ mixed).view_as(x)


NORM = nn.BatchNorm2d(4)
PLAIN_NORM = nn.BatchNorm2d(4, affine=False)

#: Layer, and whether it keeps windows; None: what is behind it is too small to tell.
LAYERS: dict[str, tuple[nn.Module, bool | None]] = {
    "stride": (nn.Conv2d(4, 4, 3, stride=2), True),
    "stride beyond kernel": (nn.Conv2d(4, 4, 1, stride=3), True),
    "padding": (nn.Conv2d(4, 4, (5, 3), stride=(2, 1), padding=(3, 0)), True),
    "dilation": (nn.Conv2d(4, 4, 3, padding=4, dilation=(3, 2)), True),
    "groups": (nn.Conv2d(4, 4, 3, padding=1, groups=2), True),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), True),
    "same": (nn.Conv2d(4, 4, (4, 2), padding="same"), True),
    "reflect": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), False),
    "transposed": (nn.ConvTranspose2d(4, 4, 3, stride=2), False),
    "batch norm": (NORM, True),
    "plain batch norm": (nn.Sequential(nn.ReLU(), PLAIN_NORM, nn.ReLU6(True)), True),
    "folded": (nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), NORM, nn.ReLU()), True),
    "folded bias": (nn.Sequential(nn.Conv2d(4, 4, 3), PLAIN_NORM), True),
    "max": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), True),
    "max dilation": (nn.MaxPool2d(2, 1, 1, dilation=2), True),
    "avg": (nn.AvgPool2d(3, 2, 1), True),
    "avg ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), True),
    "avg without pad": (nn.AvgPool2d((3, 2), 2, (1, 0), True, False), True),
    "avg divisor": (nn.AvgPool2d(2, divisor_override=3), True),
    "adaptive same": (nn.AdaptiveAvgPool2d((19, 23)), True),
    "adaptive": (nn.AdaptiveAvgPool2d((5, 7)), None),
    "hardswish": (nn.Sequential(nn.Hardswish(), nn.Hardsigmoid(), nn.SiLU()), True),
    "in place": (nn.Sequential(nn.Hardswish(True), nn.ELU(inplace=True)), True),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Identity()), True),
    "zero pad": (nn.ZeroPad2d((1, 2, 0, 3)), True),
    "shuffle": (Of(shuffle), True),
    "split": (Of(split), True),
    "residual": (Of(residual), True),
    "overwritten": (Of(overwritten), True),
    "norm, linear, softmax": (Of(channels_last), True),
    "float": (Of(lambda x, net: x.float().double()), True),
    "scalar": (Of(lambda x, net: 1 - x / 3 + net.bias), True),
    "keyword": (Of(lambda x, net: torch.add(input=x, other=x, alpha=2)), True),
    "excite": (Of(excite), False),
    "attention": (Of(attention), False),
    "roll": (Of(lambda x, net: x.roll(3, dims=2)), False),
    "resize": (Of(lambda x, net: F.interpolate(x, scale_factor=2)), False),
    "crop": (Of(lambda x, net: x[:, :, 2:, ::2]), None),
    "instance norm": (nn.InstanceNorm2d(4), False),
    "group norm": (nn.GroupNorm(2, 4), False),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer, is_local = LAYERS[name]
    for norm in (NORM, PLAIN_NORM):
        norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    net = Net(layer).double().eval()
    x, x0 = pair(1, 3, 19, 23)
    before = state_of(net)
    found = check(net, x, x0, grid_mask((19, 23), cell=4), per_eval=7)
    assert state_of(net) == before
    if is_local is not None:
        assert (share(found) < 60) == is_local, found.note


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    n=st.integers(1, 2),
    size=st.tuples(st.integers(9, 21), st.integers(9, 21)),
    blocks=st.integers(2, 9),
    shared=st.booleans(),
    per_channel=st.booleans(),
)
def test_any_feature_mask(seed, n, size, blocks, shared, per_channel):
    """Rectangles over one another and noise; ids below 0 are in no group."""
    torch.manual_seed(seed)
    net = Net(nn.Sequential(nn.MaxPool2d(3, 2, 1), Of(residual)), out=4).double().eval()
    x, x0 = pair(n, 3, *size)
    mask = torch.full((1 if shared else n, 3 if per_channel else 1, *size), -1)
    for i in range(blocks):
        top, left = (int(torch.randint(0, side - 1, ())) for side in size)
        height, width = (int(torch.randint(1, 8, ())) for _ in size)
        mask[i % len(mask), :, top : top + height, left : left + width] = i
    mask[torch.rand(mask.shape) < 0.05] = blocks
    mask[..., :2, :2] = 0
    check(net, x, x0, mask)


def small(name: str) -> nn.Module:
    """A torchvision model whose units are of about one size, as after training."""
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if options:
        options["init_weights"] = False
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options)
    size = 299 if name.startswith("inception") else 224
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    for parameter_name, parameter in model.named_parameters():
        if "layer_scale" in parameter_name:
            nn.init.uniform_(parameter, 0.1, 1)
        if "heads" in parameter_name:
            nn.init.normal_(parameter, std=0.1)
    if norms:
        with torch.no_grad():
            model.train()(torch.rand(4, 3, size, size))
    return model.eval()


#: One of each family; ``--all-models`` takes all others of at most 100 million weights.
FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s",
    "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_0", "squeezenet1_1", "swin_t",
    "swin_v2_t", "vgg11_bn", "vit_b_16",
)  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model_name" in metafunc.fixturenames:
        names = list(FAMILIES)
        if metafunc.config.getoption("--all-models"):
            every = torchvision.models.list_models(module=torchvision.models)
            names += [name for name in every if name not in FAMILIES]
        metafunc.parametrize("model_name", names)


def test_torchvision_models(model_name):
    """In single precision at odd sizes; groups at the borders and of all phases."""
    weights = torchvision.models.get_model_weights(model_name).DEFAULT
    if weights.meta["num_params"] > 100e6 and not model_name.startswith("vgg"):
        pytest.skip("more than 100 million weights")
    model = small(model_name)
    fixed = model_name.startswith(("vit", "maxvit"))
    height, width = (224, 224) if fixed else (97, 131)
    x, x0 = torch.rand(2, 1, 3, height, width)
    mask = torch.full((1, 1, height, width), -1)
    for i, (top, left) in enumerate([(0, 0), (0, 7), (41, 50), (66, 37), (-9, -14)]):
        mask[..., top:, left:] = -1
        mask[..., top : (top + 9) or None, left : (left + 14) or None] = i
    wanted = ablate(model, x, x0, mask, "dense")
    spread = float(wanted.scores.max() - wanted.scores.min())
    assert float(wanted.scores.std(dim=1).max()) > 1e-4 * spread
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", EngineWarning)
        found = ablate(model, x, x0, mask)
    error = float((found.scores - wanted.scores).abs().max()) / spread
    print(f"\n{model_name}: {error:.1e} of the spread, {found.note}")
    if error > 1e-4 or caught:
        # Then the model's own rounding has to be as large.
        model.double()
        exact = ablate(model, x.double(), x0.double(), mask, "dense")
        rounding = float((wanted.scores - exact.scores).abs().max()) / spread
        again = ablate(model, x.double(), x0.double(), mask)
        print(f"full passes in single precision: {rounding:.1e}")
        assert max(error, 1e-4) <= rounding
        assert again.engine == "incremental", again.note
        torch.testing.assert_close(
            again.scores, exact.scores, rtol=0, atol=1e-11 * spread
        )
    else:
        assert found.engine == "incremental", found.note


# Statements that write, views, and shapes


class Statements(nn.Module):
    """A function of the input itself, and what follows it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.c, self.l = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)
        self.net, self.last = Net(nn.Identity()), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x, self)
        scores = (batch_in_the_middle, mean_then_places, squeezed)
        return y if self.function in scores else self.net(y)


def clamp_then_roll(x, s):
    x.clamp_(0, 1)
    return x.roll(1, 2)


def clamp_then_linear(x, s):
    x = x.permute(0, 2, 3, 1).contiguous()
    x.clamp_(0, 1)
    return s.l(x).permute(0, 3, 1, 2)


def read_by_two_names(x, s):
    u = x * 1.0
    w = u.clamp_(0, 1)
    a = w + 1
    return s.c(u) + a + s.c(a)


def copy_then_clamp(x, s):
    v = x.clone()
    x.clamp_(0, 1)
    return s.c(v) + s.c(x)


def copy_then_double(x, s):
    u = x * 1.0
    v = u.clone()
    u.mul_(2)
    return v + u


def pad_then_clamp(x, s):
    u = x * 1.0
    v = F.pad(u, (0, 1, 0, 1))
    u.clamp_(0, 1)
    return s.c(v)[:, :, :-1, :-1] + s.c(u)


def slice_then_activate(x, s):
    return F.leaky_relu(torch.cat([x - 1, x], 1)[:, 1:4], 0.1, inplace=True)


def second_part(x, s):
    return s.c(torch.cat([x, torch.clamp(x, 0, 1)], 1).chunk(2, 1)[1])


def into_argument(x, s):
    y = x * 1.0
    z = s.c(y)
    torch.clamp(y, 0, 1, out=y)
    return y + z


def batch_in_the_middle(x, s):
    h = torch.tanh(s.last(s.net(x).unsqueeze(0)))
    return h.reshape(h.shape[0], -1, 5)[-1]


def more_dimensions(x, s):
    return (x + torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))[0]


def places_of_maxima(x, s):
    return x[:, :, ::2, ::2] * F.max_pool2d(x, 2, return_indices=True)[1] / 400


def mean_then_places(x, s):
    return torch.log1p(torch.relu(s.c(x)).mean((-2, -1)).abs() / 2)


def squeezed(x, s):
    return s.l(F.adaptive_avg_pool2d(torch.tanh(s.c(x)), 1).squeeze())


def mean_of_all(x, s):
    return x / torch.mean(x, dim=None, keepdim=True)


def made_of_numbers(x, s):
    return x - torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype).view(1, 3, 1, 1)


STATEMENTS = [
    clamp_then_roll, clamp_then_linear, read_by_two_names, copy_then_clamp,
    copy_then_double, pad_then_clamp, slice_then_activate, second_part, into_argument,
    mean_then_places, made_of_numbers, places_of_maxima, more_dimensions,
    batch_in_the_middle,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::captum_pse.EngineWarning")
@pytest.mark.parametrize("function", STATEMENTS)
def test_statements(function):
    """Most of these show no difference on the first example, which clamping leaves."""
    model = Statements(function).double().eval()
    x, x0 = pair(2, 3, 20, 20)
    x[1] += 0.7
    x0[1] += 0.7
    mask = grid_mask((20, 20), cell=4)
    kept, attributes = x.clone(), set(vars(model))
    wanted = ablate(model, x, x0, mask, "dense")
    found = ablate(model, x, x0, mask)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-12)
    follows = function is not into_argument
    assert found.engine == ("incremental" if follows else "dense"), found.note
    assert torch.equal(x, kept)
    assert set(vars(model)) == attributes


def test_a_model_that_mixes_examples_is_told():
    model = Statements(mean_of_all).double().eval()
    with pytest.warns(EngineWarning, match="does not give the scores"):
        ablate(model, *pair(2, 3, 20, 20), grid_mask((20, 20), cell=4), "auto")


def test_what_fails_on_one_example_takes_full_passes():
    model = Statements(squeezed).double().eval()
    x, x0 = pair(2, 3, 20, 20)
    mask = grid_mask((20, 20), cell=4)
    found = ablate(model, x, x0, mask, "auto")
    wanted = ablate(model, x, x0, mask, "dense")
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-12)


def test_whole_numbers_under_a_maximum():
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(nn.Identity())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(F.max_pool2d(x, 3, 1, 1).double() / 10)

    x, x0 = torch.randint(-20, -1, (2, 1, 3, 20, 20))
    check(Whole().double().eval(), x, x0, grid_mask((20, 20), cell=3))


# Inputs


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


# Where it does not serve


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.function = Net(nn.Identity()), function

    def forward(self, x: Tensor) -> Any:
        return self.net(self.function(x))


def hooked() -> nn.Module:
    net = Net(nn.Identity())
    net.register_forward_hook(lambda module, args, output: output * 2)
    return net


def hooked_inside() -> nn.Module:
    layer = Layer(lambda x: x)
    layer.net.layer = nn.Sequential(nn.ReLU())
    layer.net.layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


class AnyNumber(Layer):
    def __init__(self) -> None:
        super().__init__(lambda x: x)

    def forward(self, *xs: Tensor) -> Tensor:
        return self.net(xs[0])


def write_into_view(x: Tensor) -> Tensor:
    y = x * 2
    y[:, :1].add_(1)
    return y


def only_outside_of_traces(x: Tensor) -> Tensor:
    """As torchvision's transforms, which let pass what is no tensor."""
    return x if isinstance(x, fx.Proxy) else x * 2


@pytest.mark.parametrize(
    ("model", "note"),
    [
        (Layer(lambda x: x if x.sum() > 0 else -x), "cannot trace the model"),
        (Layer(lambda x: x * float(x.max())), "cannot trace the model"),
        (Layer(lambda x: x * fx_max(x)), "depends on the values of a tensor"),
        (Layer(lambda x: x + torch.rand_like(x) * 0), "draws random numbers"),
        (Layer(write_into_view), "writes into a view"),
        (Layer(only_outside_of_traces), "does not give the scores"),
        (hooked(), "the model itself has hooks"),
        (hooked_inside(), "net.layer has hooks"),
        (AnyNumber(), "any number of arguments"),
    ],
)
def test_what_cannot_be_followed_takes_full_passes(model, note):
    model = model.double().eval()
    x, x0 = pair(2, 3, 12, 12)
    mask = grid_mask((12, 12), cell=4)
    before = state_of(model)
    with pytest.warns(EngineWarning, match=note):
        found = ablate(model, x, x0, mask)
    assert found.engine == "dense"
    assert note in found.note
    assert state_of(model) == before
    wanted = ablate(model, x, x0, mask, "dense")
    assert torch.equal(found.scores, wanted.scores)


@fx.wrap
def fx_max(x: Tensor) -> float:
    return float(x.max())


def test_functions_and_vectors_take_full_passes():
    net = Net(nn.Identity()).double().eval()
    x, x0 = pair(1, 3, 12, 12)
    mask = grid_mask((12, 12), cell=4)
    assert "is a function" in ablate(lambda x: net(x), x, x0, mask, "auto").note
    linear = nn.Linear(4, 3).double()
    v, v0 = pair(2, 4)
    assert "no input is an image" in ablate(linear, v, v0, v0.long(), "auto").note


def test_auto_takes_full_passes_where_windows_save_nothing():
    net = Net(nn.Identity()).double().eval()
    x, x0 = pair(1, 3, 12, 12)
    whole = torch.zeros(1, 1, 12, 12, dtype=torch.int64)
    assert ablate(net, x, x0, whole, "auto").engine == "dense"
    big = torch.rand(2, 1, 3, 64, 64).double()
    assert (
        ablate(net, *big, grid_mask((64, 64), cell=8), "auto").engine == "incremental"
    )


def test_checks_itself_and_names_the_step(monkeypatch):
    """A pooling that forgets its padding gives wrong numbers at a border."""
    maker = local_ops._MAKERS[torch.ops.aten.avg_pool2d.default]

    def wrong(*args: Any) -> Any:
        op = maker(*args)
        return dataclasses.replace(
            op, patch=lambda patches: (op.patch(patches)[0] * 1.1,)
        )

    net = Net(nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.ReLU())).double().eval()
    x, x0 = pair(1, 3, 24, 24)
    mask = grid_mask((24, 24), cell=4)
    monkeypatch.setitem(local_ops._MAKERS, torch.ops.aten.avg_pool2d.default, wrong)
    with pytest.warns(EngineWarning, match="first differ at layer_1"):
        found = ablate(net, x, x0, mask)
    assert torch.equal(found.scores, ablate(net, x, x0, mask, "dense").scores)


def test_out_of_memory_halves_the_batch():
    sizes: list[int] = []

    def evaluate(chunk: slice) -> int:
        size = chunk.stop - chunk.start
        sizes.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("too much")
        return size

    done = list(Batches(14).each(10, evaluate))
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert [chunk.start for chunk, _ in done] == [0, 2, 4, 6, 8]

    def never(chunk: slice) -> int:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate"):
        list(Batches(4).each(4, never))

    def broken(chunk: slice) -> int:
        raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        list(Batches(4).each(4, broken))


@pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
@pytest.mark.parametrize("engine", ["auto", "dense", "incremental"])
def test_promotion_suppression_says_which_engine(engine, tmp_path):
    net = Net(nn.MaxPool2d(2)).eval()
    x, x0 = torch.rand(2, 2, 3, 48, 48)
    method = PromotionSuppression(net, engine=engine)
    mask = grid_mask((48, 48), cell=4)
    result = method.decompose(x, x0, 1, 2, feature_mask=mask)
    wanted = PromotionSuppression(lambda x: net(x)).decompose(
        x, x0, 1, 2, feature_mask=mask
    )
    assert result.engine == ("dense" if engine == "dense" else "incremental")
    assert wanted.engine == "dense"
    for name in ("promotion_change", "suppression_change"):
        torch.testing.assert_close(
            getattr(result, name), getattr(wanted, name), rtol=0, atol=1e-6
        )
    result.save(tmp_path / "r.safetensors")
    again = type(result).load(tmp_path / "r.safetensors")
    assert (again.engine, again.engine_note) == (result.engine, result.engine_note)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "fast"},
            "engine: got 'fast', want one of auto, dense, incremental",
        ),
        ({"memory_limit": 0}, "memory_limit: got 0, want a positive int"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PromotionSuppression(nn.Identity(), **options)
