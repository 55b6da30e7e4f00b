"""How an operation works on windows: the types that rules make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from captum_pse._engine.tape import Ref, Step
from captum_pse._engine.windows import Kernel

Axes: TypeAlias = tuple[int, ...]
#: Every value of the tape by number.
Values: TypeAlias = Mapping[int, Any]
#: The spatial dimensions of the inputs that come in windows, by number.
AxesOf: TypeAlias = Mapping[int, Axes]
#: From one tensor for each map to the outputs.
Function: TypeAlias = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class LocalOp:
    """An operation whose output at one position depends on few positions of its input.

    Attributes:
        maps (tuple[int, ...]): The inputs that are read in windows, by number.
        axes (Axes): The spatial dimensions of the outputs.
        patch (Callable): The outputs from patches of the maps; these hold the padding.
        whole (Callable): The outputs from whole maps, without padding.
        kernel (Kernel, optional): Which inputs an output reads; None: only those at its
            own position.
        fill (float): The value of the padding.
        scale (Tensor, optional): ``(1, 1, H, W)``, multiplies the outputs of patches.
    """

    maps: tuple[int, ...]
    axes: Axes
    patch: Function
    whole: Function
    kernel: Kernel | None = None
    fill: float = 0.0
    scale: Tensor | None = None


@dataclass(frozen=True)
class GlobalMean:
    """The mean over all positions of a map, of which windows change a part."""


#: Makes what a step is on windows; None if it is not local on these inputs.
Maker: TypeAlias = Callable[[Step, Values, AxesOf], LocalOp | GlobalMean | None]


def same_on_patches(step: Step, maps: Sequence[int], axes: Axes) -> LocalOp:
    """An operation that is the same on patches as on maps."""
    return LocalOp(tuple(maps), axes, step.run, step.run)


def one_map(step: Step, axes: AxesOf) -> tuple[int, Axes] | None:
    """The first argument and its axes, if it is the step's only input."""
    first = step.args[0]
    if isinstance(first, Ref) and step.inputs == (first.number,):
        return first.number, axes[first.number]
    return None
