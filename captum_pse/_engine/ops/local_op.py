"""What a local operation is: its output at one place depends on few of its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_pse._engine.tape import Ref, Step
from captum_pse._engine.windows import Kernel

Axes = tuple[int, ...]
#: From a step, every value by number, and the axes of the inputs that come in windows.
#: None: on these inputs the step is not local.
Maker = Callable[[Step, Mapping[int, Any], Mapping[int, Axes]], "LocalOp | None"]


@dataclass(frozen=True)
class LocalOp:
    """How a step works on windows.

    Attributes:
        maps (tuple[int, ...]): The inputs that are read in windows, by number.
        axes (Axes): Which dimensions of the outputs are spatial.
        patch (Callable): The outputs from patches of the maps, which hold the padding.
        whole (Callable): The same from whole maps.
        kernel (Kernel, optional): How it looks at its inputs; None: place by place.
        fill (float): What the padding is.
        scale (Tensor, optional): ``(1, 1, H, W)``, by what patches' outputs are
            multiplied.
        borrows (bool): Whether outputs share memory with inputs.
    """

    maps: tuple[int, ...]
    axes: Axes
    patch: Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
    whole: Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
    kernel: Kernel | None = None
    fill: float = 0.0
    scale: Tensor | None = None
    borrows: bool = False


def place_by_place(
    step: Step, maps: Sequence[int], axes: Axes, *, borrows: bool = False
) -> LocalOp:
    """An operation that is the same on patches as on maps."""

    def run(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        of = dict(zip(maps, patches, strict=True))
        returned = step.run(of.__getitem__)
        return tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)

    return LocalOp(tuple(maps), axes, run, run, borrows=borrows)


def one_map(step: Step, axes: Mapping[int, Axes]) -> tuple[int, Axes] | None:
    """The first argument and its axes, where nothing else of the step is a value."""
    first = step.args[0]
    if isinstance(first, Ref) and step.inputs == (first.number,):
        return first.number, axes[first.number]
    return None
