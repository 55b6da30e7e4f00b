"""Prepares a tape's weights for many passes: fewer steps, and a faster memory order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_pse._engine.tape import BATCH_NORMS, Ref, Step, Tape, refs, without_unused

_aten = torch.ops.aten


def fold(tape: Tape) -> Tape:
    r"""The tape with each batch norm inside the convolution in front of it.

    A batch norm in evaluation mode is ``a y + b`` for each channel, with
    :math:`a = \gamma / \sqrt{\sigma^2 + \epsilon}`, so that of a convolution is one
    with the weights ``a W``: the same sums, with the factor inside. Weights are laid
    out channels last, as windows are. Where they are larger than the map that they
    give, that would save little time and take much memory: they stay as they are.
    """
    uses = Counter(i for step in tape.steps for i in _read(step))
    uses.update(refs(tape.output))
    steps: list[Step] = []
    convolutions: dict[int, int] = {}
    for step in tape.steps:
        first = step.args[0] if step.args else None
        if step.func is _aten.convolution.default:
            convolutions[step.outputs[0]] = len(steps)
        elif (
            step.func in BATCH_NORMS
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


def _read(step: Step) -> set[int]:
    opaque = step.opaque.inputs if step.opaque is not None else ()
    return {*step.inputs, *opaque}


def _folded(convolution: Step, norm: Step, most: int) -> Step | None:
    """One step in the place of the two, if it has at most so many weights."""
    x, weight, bias, *others = convolution.args
    gamma, beta, mean, var = norm.args[1:5]
    tensors = [weight, mean, var, *(t for t in (bias, gamma, beta) if t is not None)]
    if convolution.args[6] or not all(isinstance(t, Tensor) for t in tensors):
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
    if step.func is not _aten.convolution.default:
        return step
    weight: Any = step.args[1]
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        return step
    if weight.numel() > tape.values[step.outputs[0]].numel():
        return step
    laid_out = weight.contiguous(memory_format=torch.channels_last)
    return replace(step, args=(step.args[0], laid_out, *step.args[2:]))
