"""Evaluates many copies of one input, each changed in a box, by recomputing windows.

:class:`Replay` holds what a model computes on the input itself. A plan states which
windows of which maps differ from that in each copy; :meth:`Replay.run` computes these
for a batch of copies. If a step is not local, or its windows cover most of the map, it
runs on whole maps: the unperturbed map with the window of each copy pasted into it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pse._engine.batches import is_out_of_memory
from captum_pse._engine.changes import Anywhere, Windowed
from captum_pse._engine.fold import fold
from captum_pse._engine.jobs import Job, MeanJob, SizeJob, WholeJob, WindowJob
from captum_pse._engine.ops.local_op import Axes
from captum_pse._engine.plan import Plan, make_plan
from captum_pse._engine.reads import Crop, Read
from captum_pse._engine.rows import Rows
from captum_pse._engine.tape import (
    NotTraceableError,
    Ref,
    Tape,
    map_refs,
    refs,
)
from captum_pse._engine.windows import Boxes


class Replay:
    """A model on one example, ready to evaluate changed copies of it."""

    def __init__(self, tape: Tape) -> None:
        self.tape = fold(tape)
        self._rows: dict[tuple[int, Axes], Rows] = {}

    def plan(self, inputs: Sequence[Boxes | Anywhere | None], m: int) -> Plan:
        """How copies with these changes are evaluated; see :func:`make_plan`."""
        return make_plan(self.tape, inputs, m)

    def run(self, plan: Plan, chunk: slice, given: Mapping[int, Tensor]) -> Any:
        """The model's result for some of the copies.

        Args:
            plan (Plan): Made by :meth:`plan`.
            chunk (slice): Which copies.
            given (mapping): Each changed input by number: its windows, or all of it if
                it changes anywhere.

        Raises:
            NotTraceableError: A step does not take a batch.
        """
        batch = _Batch(self, plan, chunk, given)
        for job in plan.jobs:
            batch.do(job)
            batch.forget(job.spent)
        return map_refs(batch.whole, self.tape.output)

    def follow(
        self, plan: Plan, chunk: slice, given: Mapping[int, Tensor]
    ) -> Iterator[tuple[str, int, Tensor]]:
        """The same, step by step: the name of each step, and the number and whole value
        of each output."""
        batch = _Batch(self, plan, chunk, given)
        for job in plan.jobs:
            batch.do(job)
            for number in job.step.outputs:
                value = batch.whole(number)
                if isinstance(value, Tensor):
                    yield job.step.name, number, value.clone()
            batch.forget(job.spent)

    def rows(self, number: int, axes: Axes) -> Rows:
        """A map of the example as rows."""
        if (number, axes) not in self._rows:
            self._rows[number, axes] = Rows(self.tape.values[number], axes)
        return self._rows[number, axes]

    def keep_for(self, plans: Sequence[Plan]) -> None:
        """Frees the maps of the example that none of the plans reads."""
        needed = {number for plan in plans for number in plan.unperturbed()}
        needed.update(refs(self.tape.output))
        for number, value in self.tape.values.items():
            changes = [plan.changed.get(number) for plan in plans]
            windowed = [of for of in changes if isinstance(of, Windowed)]
            if isinstance(value, Tensor) and len(windowed) == len(plans):
                if number in needed:
                    self.rows(number, windowed[0].axes)
                self.tape.values[number] = torch.empty_like(value, device="meta")


class _Batch:
    """The values of one batch of copies: windows of maps, and whole values."""

    def __init__(
        self, replay: Replay, plan: Plan, chunk: slice, given: Mapping[int, Tensor]
    ) -> None:
        start, stop, _ = chunk.indices(plan.m)
        self.chunk, self.n = slice(start, stop), stop - start
        self.replay, self.plan = replay, plan
        self.base = replay.tape.values
        self.values: dict[int, Any] = dict(given)
        #: Values that share memory with another that is still needed.
        self.shared: set[int] = set()

    def do(self, job: Job) -> None:
        """Runs one step."""
        try:
            returned = self.compute(job)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise NotTraceableError(
                f"{job.step.name} fails on a batch: {type(error).__name__}: {error}"
            ) from error
        # A local operation may give the first outputs only; then only these are used.
        for name, value in zip(job.step.results, returned, strict=False):
            if isinstance(name, Ref):
                self.values[name.number] = value
        self.find_shared(job)

    def compute(self, job: Job) -> tuple[Any, ...]:
        """What a step gives."""
        match job:
            case WindowJob():
                return self.windows(job)
            case MeanJob():
                return (self.mean(job),)
            case SizeJob():
                return job.step.run([self.shaped(i) for i in job.inputs])
            case WholeJob():
                return job.run(self.writable(job, [self.whole(i) for i in job.inputs]))

    def forget(self, spent: Sequence[int]) -> None:
        for number in spent:
            self.values.pop(number, None)

    def windows(self, job: WindowJob) -> tuple[Tensor, ...]:
        """The windows of what a local operation gives."""
        inputs = zip(job.inputs, job.reads, strict=True)
        patches = [self.read(number, how) for number, how in inputs]
        returned = job.op.patch(self.writable(job, patches))
        if job.op.scale is None or job.scale is None:
            return returned
        scale = job.op.scale.flatten()
        scale = scale.index_select(0, job.scale.of(self.chunk, scale.device).flatten())
        scale = scale.reshape(self.n, 1, *job.scale.size)
        return tuple(x * scale for x in returned)

    def mean(self, job: MeanJob) -> Tensor:
        """The mean over a whole map, from what changed in the windows."""
        (number,), of = job.inputs, job.of
        rows = self.replay.rows(number, of.axes)
        before = rows.table.index_select(0, rows.numbers(of.index, self.chunk))
        before = before.unflatten(0, (self.n, -1))
        spatial = tuple(range(1, 1 + len(of.axes)))
        now = self.values[number].movedim(of.axes, spatial).reshape(before.shape)
        means = rows.mean + (now - before).sum(dim=1) / len(rows.map)
        return means.reshape(self.n, *self.base[job.step.outputs[0]].shape[1:])

    def read(self, number: int, how: Read) -> Tensor:
        """A region of a map."""
        if isinstance(how, Crop):
            return how.of(self.values[number])
        rows = self.replay.rows(number, how.axes)
        return how.of(self.values.get(number), rows, self.chunk)

    def whole(self, number: int) -> Any:
        """A value for each copy, with whole maps."""
        base, of = self.base[number], self.plan.changed.get(number)
        if isinstance(of, Windowed):
            return self.read(number, of.whole)
        if of is not None:
            return self.values[number]
        if not isinstance(base, Tensor):
            return base
        if base.dim() == 0 or len(base) != 1:
            raise ValueError("a value does not have one row for each example")
        return base.expand(self.n, *base.shape[1:])

    def shaped(self, number: int) -> Any:
        """A value of which only the shape and dtype are used, for this batch."""
        base = self.base[number]
        if not isinstance(base, Tensor):
            return self.values.get(number, base)
        if isinstance(self.plan.changed.get(number), Anywhere):
            return torch.empty_like(self.values[number], device="meta")
        return torch.empty(self.n, *base.shape[1:], dtype=base.dtype, device="meta")

    def writable(self, job: Job, tensors: list[Any]) -> list[Any]:
        """The tensors, with a copy of one that the step writes into while its value is
        still needed."""
        number = job.step.overwritten
        if number is not None:
            first = job.inputs.index(number)
            is_value = tensors[first] is self.values.get(number)
            if number not in job.spent or number in self.shared or not is_value:
                tensors[first] = tensors[first].clone()
        return tensors

    def find_shared(self, job: Job) -> None:
        """Finds outputs in the memory of another value, as those of a view are."""
        by_memory: dict[int, list[int]] = defaultdict(list)
        for number in {*job.inputs, *job.step.outputs}:
            value = self.values.get(number, self.base[number])
            is_freed = number in job.spent and number in self.values
            if (
                isinstance(value, Tensor)
                and not value.is_meta
                and (number in self.shared or not is_freed)
            ):
                by_memory[value.untyped_storage().data_ptr()].append(number)
        for numbers in by_memory.values():
            if len(numbers) > 1:
                self.shared.update(numbers)
