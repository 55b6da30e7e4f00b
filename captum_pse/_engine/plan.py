"""Plans how changed copies of one example go through a model's steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_pse._engine.ops.local_op import Axes, LocalOp
from captum_pse._engine.ops.registry import is_global_mean, local_op
from captum_pse._engine.tape import Step, Tape, refs
from captum_pse._engine.windows import Boxes, Windows

#: Windows that would hold this share of a map are the whole map.
WHOLE_FROM = 0.75


class Anywhere:
    """Stands for a change of an input that is not kept to a box."""


@dataclass(frozen=True)
class Changed:
    """A value that differs from copy to copy.

    Attributes:
        axes (Axes): The spatial dimensions of a map; empty for any other value.
        boxes (Boxes, optional): Where a map changed.
        windows (Windows, optional): Which windows of it are computed.
    """

    axes: Axes = ()
    boxes: Boxes | None = None
    windows: Windows | None = None


@dataclass(frozen=True)
class Job:
    """A step of a plan.

    Attributes:
        step (Step): What is computed.
        op (LocalOp, optional): How, on windows; None: on whole values.
        is_mean (bool): It is the mean over maps, of which windows change a part.
        spent (tuple[int, ...]): The values that no later job needs.
    """

    step: Step
    op: LocalOp | None = None
    is_mean: bool = False
    spent: tuple[int, ...] = ()

    @property
    def inputs(self) -> tuple[int, ...]:
        if self.op is not None:
            return self.op.maps
        if self.is_mean or self.step.opaque is None:
            return self.step.inputs
        return self.step.opaque.inputs


@dataclass(frozen=True)
class Plan:
    """How M copies are evaluated.

    Attributes:
        m (int): How many.
        jobs (list[Job]): In order.
        changed (dict): What differs from the example, by number.
        work (float): Multiply-adds of convolutions and linear layers for one copy.
        dense_work (float): Those of a full pass.
        bytes_per_copy (int): Memory that one copy takes, at most.
    """

    m: int
    jobs: list[Job]
    changed: dict[int, Changed]
    work: float
    dense_work: float
    bytes_per_copy: int


def make_plan(tape: Tape, inputs: Sequence[Boxes | Anywhere | None], m: int) -> Plan:
    """Follows the changes of M copies through the steps of a tape.

    Args:
        tape (Tape): The model on the example.
        inputs (sequence): For each input of the tape where it changes: the boxes
            ``(M, 2)`` of an image ``(1, C, H, W)``, :class:`Anywhere`, or None for
            nowhere.
        m (int): How many copies.
    """
    changed: dict[int, Changed] = {}
    for number, change in zip(tape.inputs, inputs, strict=True):
        if isinstance(change, Anywhere):
            changed[number] = Changed()
        elif change is not None:
            windows = change.windows(tape.values[number].shape[2:], WHOLE_FROM)
            changed[number] = Changed((2, 3), change, windows)
    jobs = []
    for step in tape.steps:
        job = _job(step, tape.values, changed)
        if job is not None:
            jobs.append(job)
    jobs = _needed(jobs, tape)
    return Plan(
        m,
        jobs,
        changed,
        sum(_work(job.step, tape.values) * _share(job, changed, tape) for job in jobs),
        sum(_work(step, tape.values) for step in tape.steps),
        _memory(jobs, changed, tape),
    )


def _job(
    step: Step, values: Mapping[int, Any], changed: dict[int, Changed]
) -> Job | None:
    """How a step runs, if its inputs changed; notes what it changes itself."""
    first = step.outputs[0]
    if not isinstance(values[first], Tensor):
        # Such as a shape: it holds the size of the batch.
        changed[first] = Changed()
        return Job(step)
    here = {i: changed[i] for i in step.inputs if i in changed}
    if not here:
        return None
    axes = {i: of.axes for i, of in here.items() if of.axes}
    op = local_op(step, values, axes) if len(axes) == len(here) else None
    if op is None:
        changed.update(dict.fromkeys(step.outputs, Changed()))
        is_mean = len(axes) == len(here) == 1 and all(
            is_global_mean(step, of, values[i].dim()) for i, of in axes.items()
        )
        return Job(step, is_mean=is_mean)
    extent = [values[first].shape[a] for a in op.axes]
    first_boxes, *others = (of.boxes for of in here.values() if of.boxes is not None)
    boxes = first_boxes
    for other in others:
        boxes = boxes.union(other)
    if op.kernel is not None:
        boxes = boxes.through(op.kernel, extent)
    of_outputs = Changed(op.axes, boxes, boxes.windows(extent, WHOLE_FROM))
    changed.update(dict.fromkeys(step.outputs, of_outputs))
    return Job(step, op)


def _needed(jobs: Sequence[Job], tape: Tape) -> list[Job]:
    """The jobs that the output depends on, with what is spent after each."""
    wanted = set(refs(tape.output))
    kept: list[Job] = []
    for job in reversed(jobs):
        if wanted.isdisjoint(job.step.outputs):
            continue
        spent = tuple(i for i in dict.fromkeys(job.inputs) if i not in wanted)
        wanted.update(job.inputs)
        kept.append(replace(job, spent=spent))
    return kept[::-1]


def _extent(value: Tensor, axes: Axes) -> int:
    return math.prod(value.shape[a] for a in axes)


def _share(job: Job, changed: Mapping[int, Changed], tape: Tape) -> float:
    """Which part of its output a job computes."""
    windows = changed[job.step.outputs[0]].windows
    if job.op is None or windows is None:
        return 1.0
    value = tape.values[job.step.outputs[0]]
    return math.prod(windows.size) / _extent(value, job.op.axes)


def _work(step: Step, values: Mapping[int, Any]) -> float:
    """Multiply-adds of a convolution or a linear layer on one example."""
    convolution = torch.ops.aten.convolution.default
    if step.func not in (convolution, F.linear) or not step.outputs:
        return 0.0
    out, weight = values[step.outputs[0]], step.args[1]
    if not isinstance(weight, Tensor):
        return 0.0
    channels = out.shape[1 if step.func is convolution else -1]
    return out.numel() / channels * weight.numel()


def _memory(jobs: Sequence[Job], changed: Mapping[int, Changed], tape: Tape) -> int:
    """Bytes of all that one copy holds at a time, at most."""

    def size(number: int, windows: Windows | None) -> int:
        value = tape.values[number]
        if not isinstance(value, Tensor):
            return 0
        size = value.numel() * value.itemsize
        axes = changed[number].axes if number in changed else ()
        if windows is None or not axes:
            return size
        return size * math.prod(windows.size) // _extent(value, axes)

    live = {i: size(i, changed[i].windows) for i in tape.inputs if i in changed}
    most = sum(live.values())
    for job in jobs:
        out = changed[job.step.outputs[0]].windows
        region = out
        if out is not None and job.op is not None and job.op.kernel is not None:
            region = out.read_by(job.op.kernel)
        read = sum(size(i, region) for i in job.inputs)
        live.update({i: size(i, out) for i in job.step.outputs})
        most = max(most, sum(live.values()) + read)
        for number in job.spent:
            live.pop(number, None)
    return most
