"""Operations that read one position, or one element, at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from captum_pse._engine.ops.local_op import (
    AxesOf,
    LocalOp,
    Values,
    one_map,
    same_on_patches,
)
from captum_pse._engine.tape import Ref, Step


def pointwise(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    """Element by element, with broadcasting."""
    if not isinstance(step.result, Ref):
        return None
    shape = values[step.result.number].shape
    # Broadcasting counts dimensions from the last.
    from_last = {tuple(a - values[i].dim() for a in of) for i, of in axes.items()}
    if len(from_last) != 1:
        return None
    (spatial,) = from_last
    extent = [shape[a] for a in spatial]
    maps, others = [], {}
    for number in step.inputs:
        value = values[number]
        if not isinstance(value, Tensor):
            others[number] = value
            continue
        has_all_dims = value.dim() == len(shape)
        sizes = [value.shape[a] if -a <= value.dim() else 1 for a in spatial]
        if has_all_dims and sizes == extent:
            maps.append(number)
        elif number not in axes and all(n == 1 for n in sizes):
            others[number] = value
        else:
            return None
    for constant in (*step.args, *step.kwargs.values()):
        if isinstance(constant, Tensor) and any(
            -a <= constant.dim() and constant.shape[a] != 1 for a in spatial
        ):
            return None

    def run(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        of = {**others, **dict(zip(maps, patches, strict=True))}
        return step.run([of[number] for number in step.inputs])

    return LocalOp(tuple(maps), tuple(len(shape) + a for a in spatial), run, run)


def batch_norm(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or 1 in found[1]:
        return None
    (number, spatial) = found
    weight, bias, mean, var = step.args[1:5]

    def run(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (F.batch_norm(maps[0], mean, var, weight, bias, eps=step.args[-1]),)

    return LocalOp((number,), spatial, run, run)


def layer_norm(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None:
        return None
    (number, spatial) = found
    if values[number].dim() - len(step.args[1]) <= max(spatial):
        return None
    return same_on_patches(step, [number], spatial)


def linear(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or values[found[0]].dim() - 1 in found[1]:
        return None
    return same_on_patches(step, [found[0]], found[1])
