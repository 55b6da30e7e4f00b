"""Operations that look at a neighbourhood, or at one place, of maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_pse._engine.ops.local_op import Axes, LocalOp, one_map, place_by_place
from captum_pse._engine.tape import Ref, Step
from captum_pse._engine.windows import Kernel


def convolution(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None:
        return None
    (number, spatial) = found
    _, weight, bias, stride, padding, dilation, transposed, _, groups = step.args
    if transposed or spatial != tuple(range(2, values[number].dim())):
        return None

    def patch(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (x,) = patches
        none = [0] * len(stride)
        return (
            torch.convolution(
                x, weight, bias, stride, none, dilation, False, none, groups
            ),
        )

    def whole(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (step.run(lambda _: maps[0]),)

    kernel = Kernel(
        tuple(weight.shape[2:]), tuple(stride), tuple(padding), tuple(dilation)
    )
    return LocalOp((number,), spatial, patch, whole, kernel)


def max_pool(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or found[1] != (2, 3):
        return None
    (number, spatial) = found
    _, size, stride, padding, dilation, _ = filled(step.args, [(), 0, 1, False])
    kernel = Kernel(
        pair_of(size), pair_of(stride or size), pair_of(padding), pair_of(dilation)
    )

    def patch(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (
            F.max_pool2d(patches[0], kernel.size, kernel.stride, 0, kernel.dilation),
        )

    def whole(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(step.run(lambda _: maps[0]))

    return LocalOp((number,), spatial, patch, whole, kernel, fill=-math.inf)


def avg_pool(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or found[1] != (2, 3):
        return None
    (number, spatial) = found
    _, size, stride, padding, *_ = filled(step.args, [(), 0])
    kernel = Kernel(pair_of(size), pair_of(stride or size), pair_of(padding), (1, 1))

    def patch(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (F.avg_pool2d(patches[0], kernel.size, kernel.stride),)

    def whole(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (step.run(lambda _: maps[0]),)

    # At the border it may divide by fewer, in ways that its arguments choose. Ones
    # tell: padded with zeros, they give the share of a window that is inside.
    x, out = values[number], values[step.outputs[0]]
    ones = torch.ones_like(x[:, :1])
    reach = [
        (n - 1) * s + k - p - have
        for n, s, k, p, have in zip(
            out.shape[2:], kernel.stride, kernel.size, kernel.padding, x.shape[2:],
            strict=True,
        )
    ]  # fmt: skip
    (py, px) = kernel.padding
    padded = F.pad(ones, (px, max(reach[1], 0), py, max(reach[0], 0)))
    inside = patch([padded])[0][:, :, : out.shape[2], : out.shape[3]]
    scale = whole([ones])[0] / inside
    same = bool((scale == 1).all())
    return LocalOp(
        (number,), spatial, patch, whole, kernel, scale=None if same else scale
    )


def adaptive_pool(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or found[1] != (2, 3):
        return None
    (number, spatial) = found
    have, want = values[number].shape[2:], step.args[1]
    if any(n % m for n, m in zip(have, want, strict=True)):
        return None
    size = tuple(n // m for n, m in zip(have, want, strict=True))
    kernel = Kernel(size, size, (0, 0), (1, 1))

    def pool(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (F.avg_pool2d(maps[0], size),)

    return LocalOp((number,), spatial, pool, pool, kernel)


def pad(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    fill = (*step.args, 0)[2]
    if found is None or found[1] != (2, 3) or fill != 0:
        return None
    (number, spatial) = found
    (left, _, top, _, *others) = (*step.args[1], 0, 0)[: max(4, len(step.args[1]))]
    if any(others):
        return None
    kernel = Kernel((1, 1), (1, 1), (top, left), (1, 1))

    def patch(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (patches[0],)

    def whole(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (step.run(lambda _: maps[0]),)

    return LocalOp((number,), spatial, patch, whole, kernel, borrows=True)


def pointwise(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    """Element by element, with broadcasting."""
    (out,) = step.outputs
    shape = values[out].shape
    if not isinstance(step.result, Ref):
        return None
    # Broadcasting counts dimensions from the last.
    behind = {tuple(a - values[i].dim() for a in of) for i, of in axes.items()}
    if len(behind) != 1:
        return None
    (places,) = behind
    extent = [shape[a] for a in places]
    maps, still = [], {}
    for number in step.inputs:
        value = values[number]
        if not isinstance(value, Tensor):
            still[number] = value
            continue
        spread = [value.shape[a] if -a <= value.dim() else 1 for a in places]
        if number in axes and value.dim() != len(shape):
            return None
        if number in axes or (spread == extent and value.dim() == len(shape)):
            if spread != extent:
                return None
            maps.append(number)
        elif all(n == 1 for n in spread):
            still[number] = value
        else:
            return None
    for constant in (*step.args, *step.kwargs.values()):
        if isinstance(constant, Tensor) and any(
            -a <= constant.dim() and constant.shape[a] != 1 for a in places
        ):
            return None

    def run(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        of = {**still, **dict(zip(maps, patches, strict=True))}
        return (step.run(of.__getitem__),)

    return LocalOp(tuple(maps), tuple(len(shape) + a for a in places), run, run)


def batch_norm(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or 1 in found[1]:
        return None
    (number, spatial) = found
    weight, bias, mean, var = step.args[1:5]

    def run(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (F.batch_norm(maps[0], mean, var, weight, bias, eps=step.args[-1]),)

    return LocalOp((number,), spatial, run, run)


def layer_norm(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None:
        return None
    (number, spatial) = found
    if values[number].dim() - len(step.args[1]) <= max(spatial):
        return None
    return place_by_place(step, [number], spatial)


def linear(step: Step, values: Any, axes: Mapping[int, Axes]) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or values[found[0]].dim() - 1 in found[1]:
        return None
    return place_by_place(step, [found[0]], found[1])


def pair_of(value: Any) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return (values[0], values[-1])


def filled(args: tuple[Any, ...], defaults: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments, with defaults for what is left out behind the first two."""
    return (*args, *defaults[len(args) - 2 :])
