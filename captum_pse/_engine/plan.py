"""Plans how copies of one example with changed inputs go through a model's steps."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_pse._engine.changes import Anywhere, Change, Windowed
from captum_pse._engine.cost import bytes_per_copy, work, work_of_jobs
from captum_pse._engine.jobs import Job, MeanJob, SizeJob, WholeJob, WindowJob
from captum_pse._engine.ops.local_op import Axes, GlobalMean, LocalOp
from captum_pse._engine.ops.registry import on_windows
from captum_pse._engine.reads import Assembly, read
from captum_pse._engine.rows import RowIndex
from captum_pse._engine.tape import Step, Tape, refs
from captum_pse._engine.windows import Boxes

#: A window covering at least this fraction of a map becomes the whole map.
WHOLE_FROM = 0.75


@dataclass(frozen=True)
class Plan:
    """How M copies are evaluated.

    Attributes:
        m (int): How many.
        jobs (list[Job]): In order.
        changed (dict): What differs from the example, by number.
        work (float): Multiply-adds of convolutions and linear layers for one copy.
        dense_work (float): Those of a full pass.
        bytes_per_copy (int): The most memory that one copy takes.
    """

    m: int
    jobs: list[Job]
    changed: dict[int, Change]
    work: float
    dense_work: float
    bytes_per_copy: int

    def unperturbed(self) -> set[int]:
        """The maps of the example that are read where a copy does not change them."""
        found: set[int] = set()
        for job in self.jobs:
            if isinstance(job, MeanJob):
                found.update(job.inputs)
            elif isinstance(job, WindowJob):
                reads = zip(job.inputs, job.reads, strict=True)
                found.update(i for i, how in reads if isinstance(how, Assembly))
            elif isinstance(job, WholeJob):
                for number in job.inputs:
                    of = self.changed.get(number)
                    if isinstance(of, Windowed) and isinstance(of.whole, Assembly):
                        found.add(number)
        return found


def make_plan(tape: Tape, inputs: Sequence[Boxes | Anywhere | None], m: int) -> Plan:
    """Follows the changes of M copies through the steps of a tape.

    Args:
        tape (Tape): The model on the example.
        inputs (sequence): What the copies change of each input of the tape: the boxes
            ``(M, 2)`` of an image ``(1, C, H, W)``, :class:`Anywhere`, or None for
            nothing.
        m (int): How many copies.
    """
    changed: dict[int, Change] = {}
    for number, change in zip(tape.inputs, inputs, strict=True):
        if isinstance(change, Boxes):
            changed[number] = _windowed(change, tape.values[number], (2, 3))
        elif change is not None:
            changed[number] = change
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
        work_of_jobs(jobs, changed, tape),
        work(tape.steps, tape),
        bytes_per_copy(jobs, changed, tape),
    )


def _windowed(boxes: Boxes, value: Tensor, axes: Axes) -> Windowed:
    extent = tuple(value.shape[a] for a in axes)
    return Windowed(axes, extent, boxes, boxes.windows(extent, WHOLE_FROM))


def _job(
    step: Step, values: Mapping[int, Any], changed: dict[int, Change]
) -> Job | None:
    """How a step runs; None if nothing changes it. Adds what it changes itself."""
    first = values[step.outputs[0]]
    if isinstance(first, (torch.device, torch.dtype)):
        return None
    if not isinstance(first, Tensor):
        changed[step.outputs[0]] = Anywhere()
        return SizeJob(step=step, inputs=step.inputs)
    here = {i: changed[i] for i in step.inputs if i in changed}
    if not here:
        return None
    maps = {i: of for i, of in here.items() if isinstance(of, Windowed)}
    op = None
    if len(maps) == len(here):
        op = on_windows(step, values, {i: of.axes for i, of in maps.items()})
    if isinstance(op, LocalOp):
        boxes = functools.reduce(Boxes.union, (of.boxes for of in maps.values()))
        if op.kernel is not None:
            extent = [first.shape[a] for a in op.axes]
            boxes = boxes.through(op.kernel, extent)
        out = _windowed(boxes, first, op.axes)
        changed.update(dict.fromkeys(step.outputs, out))
        if out.is_whole:
            return WholeJob(step=step, inputs=op.maps, run=op.whole)
        return _window_job(step, op, maps, out)
    changed.update(dict.fromkeys(step.outputs, Anywhere()))
    if isinstance(op, GlobalMean):
        (of,) = maps.values()
        if not of.is_whole:
            return MeanJob(step=step, inputs=step.inputs, of=of)
    whole = step.per_batch
    return WholeJob(step=step, inputs=whole.inputs, run=whole.run)


def _window_job(
    step: Step, op: LocalOp, maps: Mapping[int, Windowed], out: Windowed
) -> WindowJob:
    """A local operation on windows; ``out`` is the change of its outputs."""
    ((axes, extent),) = {(of.axes, of.extent) for of in maps.values()}
    region, index = out.windows, out.index
    if op.kernel is not None:
        region = region.read_by(op.kernel)
        index = RowIndex(region, extent)
    reads = tuple(
        read(axes, maps[i].windows if i in maps else None, region, index, op.fill)
        for i in op.maps
    )
    scale = None if op.scale is None else out.index
    return WindowJob(step=step, inputs=op.maps, op=op, reads=reads, scale=scale)


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
