"""Compares the engines; small models around one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._engine.ablation import Ablation
from captum_pse._engine.choice import Ablated, ablated_scores
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


def residual(x: Tensor, net: nn.Module) -> Tensor:
    y = net.conv(x)
    y += x
    return y.relu_()
