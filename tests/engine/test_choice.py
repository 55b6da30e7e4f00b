"""Which engine is used, and why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import state_of
from engine_helpers import Net, ablate, pair
from torch import Tensor, fx, nn

from captum_pse import EngineWarning, PromotionSuppression, grid_mask
from captum_pse._engine.batches import Batches


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
        (Layer(lambda x: x + torch.rand_like(x) * 0), "may draw random numbers"),
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


class Masked(nn.Module):
    """Writes into a map, with a constant that differs between positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(k, 8, 3, padding=1) for k in (3, 8))
        self.head = nn.Linear(8, 5)
        self.register_buffer("mask", torch.rand(1, 1, 24, 24))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.second(self.first(x).mul_(self.mask)).tanh()
        return self.head(maps.mean((2, 3)))


def test_sizes_of_groups_that_the_first_example_lacks():
    """Every plan of every example is checked, and a value that is written into keeps
    its old content where windows are pasted into it."""
    model = Masked().double().eval()
    x, x0 = torch.rand(2, 2, 3, 24, 24).double()
    board = (torch.arange(24)[:, None] + torch.arange(24)) % 2
    mask = board.repeat(2, 1, 1, 1)
    mask[1, 0, 5, 5] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ablate(model, x, x0, mask)
    assert found.engine == "incremental"
    wanted = ablate(model, x, x0, mask, "dense")
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-12)
