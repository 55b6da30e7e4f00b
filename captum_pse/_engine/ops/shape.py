"""Operations along or between the dimensions that are not spatial."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_pse._engine.ops.local_op import (
    AxesOf,
    GlobalMean,
    LocalOp,
    Values,
    one_map,
    same_on_patches,
)
from captum_pse._engine.tape import Ref, Step

_aten = torch.ops.aten


def softmax(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or step.args[1] % values[found[0]].dim() in (0, *found[1]):
        return None
    return same_on_patches(step, [found[0]], found[1])


def mean(step: Step, values: Values, axes: AxesOf) -> GlobalMean | None:
    found = one_map(step, axes)
    if found is None or step.kwargs:
        return None
    (number, spatial) = found
    dims = {d % values[number].dim() for d in step.args[1] or ()}
    return GlobalMean() if dims == set(spatial) else None


def cat(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    parts = step.args[0]
    spatial = set(axes.values())
    if len(spatial) != 1 or not all(isinstance(part, Ref) for part in parts):
        return None
    (of_all,) = spatial
    dim = (*step.args, 0)[1] % values[parts[0].number].dim()
    if dim in (0, *of_all):
        return None
    numbers = [part.number for part in parts]
    if any(values[i].dim() <= max(of_all) for i in numbers):
        return None

    def run(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (torch.cat(list(maps), dim=dim),)

    return LocalOp(tuple(numbers), of_all, run, run)


def split(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None:
        return None
    (number, spatial) = found
    dim = (*step.args, 0)[2] % values[number].dim()
    if dim in (0, *spatial):
        return None
    return same_on_patches(step, [number], spatial)


def permute(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None:
        return None
    (number, spatial) = found
    n = values[number].dim()
    if step.func is _aten.permute.default:
        order = [d % n for d in step.args[1]]
    else:
        order = list(range(n))
        a, b = (d % n for d in step.args[1:])
        order[a], order[b] = order[b], order[a]
    after = tuple(order.index(a) for a in spatial)
    if order[0] != 0 or list(after) != sorted(after):
        return None
    return same_on_patches(step, [number], after)


def view(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    """Splits and joins dimensions before the spatial ones, and those after them."""
    found = one_map(step, axes)
    if found is None:
        return None
    (number, spatial) = found
    before, after = values[number].shape, values[step.outputs[0]].shape
    k, first = len(spatial), spatial[0]
    if spatial != tuple(range(first, first + k)) or after[0] != 1:
        return None
    extent = before[first : first + k]
    for at in range(1, len(after) - k + 1):
        if (
            after[at : at + k] == extent
            and after[:at].numel() == before[:first].numel()
        ):
            break
    else:
        return None
    shape = [*after[1:at], *after[at + k :]]

    def run(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (x,) = maps
        size = x.shape[first : first + k]
        spatial_first = x.movedim(spatial, tuple(range(1, 1 + k)))
        joined = spatial_first.reshape(len(x), *size, *shape)
        return (joined.movedim(tuple(range(1, 1 + k)), tuple(range(at, at + k))),)

    return LocalOp((number,), tuple(range(at, at + k)), run, run)


def copy(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None:
        return None

    def run(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (maps[0],)

    return LocalOp((found[0],), found[1], run, run)
