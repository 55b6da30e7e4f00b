"""Prepares a tape for many passes: fewer steps, and a faster memory format."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_pse._engine.ops.registry import rule_of
from captum_pse._engine.tape import OpStep, Ref, Step, Tape, refs, without_unused

_aten = torch.ops.aten


def fold(tape: Tape) -> Tape:
    r"""Moves each batch norm into the convolution before it.

    A batch norm in evaluation mode is ``a y + b`` for each channel, with
    :math:`a = \gamma / \sqrt{\sigma^2 + \epsilon}`. It makes one convolution with the
    weights ``a W`` of that with the weights ``W`` before it: the same sums, with the
    factor inside. Weights are converted to channels last, as windows are. Weights
    larger than their output map are not copied: little time saved, much memory used.
    """
    uses = Counter(i for step in tape.steps for i in step.reads)
    uses.update(refs(tape.output))
    steps: list[Step] = []
    convolutions: dict[int, int] = {}
    for step in tape.steps:
        first = step.args[0] if step.args else None
        if _is_convolution(step):
            convolutions[step.outputs[0]] = len(steps)
        elif (
            rule_of(step).is_batch_norm
            and isinstance(first, Ref)
            and first.number in convolutions
            and uses[first.number] == 1
        ):
            at = convolutions.pop(first.number)
            folded = _folded(steps[at], step, tape.values[first.number].numel())
            if folded is not None:
                steps[at] = folded
                continue
        steps.append(step)
    steps = [_channels_last(step, tape) for step in steps]
    return without_unused(replace(tape, steps=steps))


def _is_convolution(step: Step) -> bool:
    return isinstance(step, OpStep) and step.func is _aten.convolution.default


def _folded(convolution: Step, norm: Step, most: int) -> Step | None:
    """One step instead of the two, if it has at most ``most`` weights."""
    x, weight, bias, *others = convolution.args
    gamma, beta, mean, var = norm.args[1:5]
    tensors = [weight, mean, var, *(t for t in (bias, gamma, beta) if t is not None)]
    is_transposed = convolution.args[6]
    if is_transposed or not all(isinstance(t, Tensor) for t in tensors):
        return None
    if weight.numel() > most:
        return None
    exact = torch.promote_types(weight.dtype, torch.float32)
    scale = (var.to(exact) + norm.args[-1]).rsqrt()
    if gamma is not None:
        scale = scale * gamma.to(exact)
    shift = -mean.to(exact) * scale
    if bias is not None:
        shift = shift + bias.to(exact) * scale
    if beta is not None:
        shift = shift + beta.to(exact)
    by_channel = scale.reshape(-1, *(1,) * (weight.dim() - 1))
    folded = (weight.to(exact) * by_channel).to(weight.dtype)
    args = (x, folded, shift.to(weight.dtype), *others)
    return replace(convolution, name=norm.name, args=args, result=norm.result[0])


def _channels_last(step: Step, tape: Tape) -> Step:
    if not _is_convolution(step):
        return step
    weight: Any = step.args[1]
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        return step
    if weight.numel() > tape.values[step.outputs[0]].numel():
        return step
    laid_out = weight.contiguous(memory_format=torch.channels_last)
    return replace(step, args=(step.args[0], laid_out, *step.args[2:]))
