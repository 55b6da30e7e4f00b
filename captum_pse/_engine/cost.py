"""What a plan costs: multiply-adds and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from captum_pse._engine.changes import Change, Windowed
from captum_pse._engine.jobs import Job, WindowJob
from captum_pse._engine.ops.registry import rule_of
from captum_pse._engine.tape import Step, Tape


def work(steps: Sequence[Step], tape: Tape) -> float:
    """Multiply-adds of convolutions and linear layers on one example."""
    return sum(rule_of(step).work(step, tape.values) for step in steps)


def work_of_jobs(
    jobs: Sequence[Job], changed: Mapping[int, Change], tape: Tape
) -> float:
    """The same for one copy: a job on windows computes a fraction of its outputs."""
    return sum(
        work([job.step], tape) * _fraction(changed.get(job.step.outputs[0]))
        for job in jobs
    )


def bytes_per_copy(
    jobs: Sequence[Job], changed: Mapping[int, Change], tape: Tape
) -> int:
    """The most memory that the values of one copy take at a time."""

    def size(number: int) -> int:
        value = tape.values[number]
        return value.numel() * value.itemsize if isinstance(value, Tensor) else 0

    def held(number: int) -> int:
        return int(size(number) * _fraction(changed.get(number)))

    def read(number: int, job: Job) -> int:
        of = changed.get(number)
        if isinstance(job, WindowJob) and isinstance(of, Windowed):
            area = math.prod(job.reads[0].size)
            return size(number) * area // math.prod(of.extent)
        return size(number)

    live = {i: held(i) for i in tape.inputs if i in changed}
    most = sum(live.values())
    for job in jobs:
        taken = sum(read(i, job) for i in job.inputs)
        live.update({i: held(i) for i in job.step.outputs})
        most = max(most, sum(live.values()) + taken)
        for number in job.spent:
            live.pop(number, None)
    return most


def _fraction(change: Change | None) -> float:
    """How much of a value is computed."""
    if isinstance(change, Windowed):
        return math.prod(change.windows.size) / math.prod(change.extent)
    return 1.0
