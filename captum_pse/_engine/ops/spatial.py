"""Operations that read a neighbourhood of each position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_pse._engine.ops.local_op import AxesOf, LocalOp, Values, one_map
from captum_pse._engine.tape import Step
from captum_pse._engine.windows import Kernel


def convolution(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
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

    kernel = Kernel(
        tuple(weight.shape[2:]), tuple(stride), tuple(padding), tuple(dilation)
    )
    return LocalOp((number,), spatial, patch, step.run, kernel)


def max_pool(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
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

    return LocalOp((number,), spatial, patch, step.run, kernel, fill=-math.inf)


def avg_pool(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
    found = one_map(step, axes)
    if found is None or found[1] != (2, 3):
        return None
    (number, spatial) = found
    _, size, stride, padding, *_ = filled(step.args, [(), 0])
    kernel = Kernel(pair_of(size), pair_of(stride or size), pair_of(padding), (1, 1))

    def patch(patches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (F.avg_pool2d(patches[0], kernel.size, kernel.stride),)

    # At the border, the arguments choose by how many inputs the pool divides. The
    # factor is its output on ones over that of ``patch`` on ones with zeros around.
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
    scale = step.run([ones])[0] / inside
    same = bool((scale == 1).all())
    return LocalOp(
        (number,), spatial, patch, step.run, kernel, scale=None if same else scale
    )


def adaptive_pool(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
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


def pad(step: Step, values: Values, axes: AxesOf) -> LocalOp | None:
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

    return LocalOp((number,), spatial, patch, step.run, kernel)


def pair_of(value: Any) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return (values[0], values[-1])


def filled(args: tuple[Any, ...], defaults: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments, with defaults for those left out after the first two."""
    return (*args, *defaults[len(args) - 2 :])
