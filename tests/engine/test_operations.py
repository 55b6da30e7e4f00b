"""Each operation between convolutions, against full passes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import state_of
from engine_helpers import Net, Of, check, pair, residual, share
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_pse import grid_mask
from captum_pse._engine import listening
from captum_pse._engine.ops.registry import RULES, rule_for
from captum_pse._engine.recording import record
from captum_pse._engine.tape import OpStep
from captum_pse._engine.tracing import trace

_aten = torch.ops.aten


def shuffle(x: Tensor, _: nn.Module) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def split(x: Tensor, net: nn.Module) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.cat((F.relu(b), a * 2), dim=1)


def split_sizes(x: Tensor, net: nn.Module) -> Tensor:
    a, b = x.split([1, 3], dim=1)
    return torch.cat((b, a), dim=1)


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
    "split sizes": (Of(split_sizes), True),
    "detach": (Of(lambda x, net: x.detach() * 2), True),
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


#: Rows that no layer reaches: PyTorch calls these on other devices or in other builds,
#: or only under transforms.
UNREACHED = {
    _aten._native_batch_norm_legit.default,
    _aten._native_batch_norm_legit_no_training.default,
    _aten._batch_norm_no_update.default,
    _aten.cudnn_batch_norm.default,
    _aten.miopen_batch_norm.default,
    _aten.alias.default,
    _aten.as_strided_.default,
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_layers_reach_every_row_of_the_table(monkeypatch):
    """Silent operations are looked up, but are not on the tape."""
    looked_up, on_tape = set(), set()

    def look_up(func):
        looked_up.add(func)
        return rule_for(func)

    monkeypatch.setattr(listening, "rule_for", look_up)
    for layer, _ in LAYERS.values():
        net = Net(layer).double().eval()
        with torch.no_grad():
            tape = record(trace(net), (pair(1, 3, 19, 23)[0],))
        on_tape.update(s.func for s in tape.steps if isinstance(s, OpStep))
    silent = {func for func, rule in RULES.items() if rule.is_silent}
    reached = on_tape | (looked_up & silent)
    assert set(RULES) - reached - UNREACHED == set()


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
