"""Evaluates many copies of one input, each changed in a box, from what did not change.

:class:`Incremental` holds what a model computes on the input itself. A plan says which
windows of which maps differ from that in each copy; :meth:`Incremental.run` computes
those of one batch of copies. Where a step is not local, or its windows are most of the
map, it runs on whole maps: the map of the input with each copy's window pasted in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_pse._engine.batches import is_out_of_memory
from captum_pse._engine.fold import fold
from captum_pse._engine.ops.local_op import Axes, LocalOp
from captum_pse._engine.plan import Anywhere, Job, Plan, make_plan
from captum_pse._engine.tape import (
    NotTraceableError,
    Ref,
    Step,
    Tape,
    assign,
    leaves,
    refs,
    resolve,
)
from captum_pse._engine.windows import Boxes, Windows, contains


class Incremental:
    """A model on one example, ready to evaluate changed copies of it."""

    def __init__(self, tape: Tape) -> None:
        self.tape = fold(tape)
        self._rows: dict[int, Tensor] = {}

    def plan(self, inputs: Sequence[Boxes | Anywhere | None], m: int) -> Plan:
        """How copies that change there are evaluated; see :func:`make_plan`."""
        return make_plan(self.tape, inputs, m)

    def run(self, plan: Plan, chunk: slice, given: Mapping[int, Tensor]) -> Any:
        """The model's result for some of the copies.

        Args:
            plan (Plan): Of :meth:`plan`.
            chunk (slice): Which copies.
            given (mapping): Each input that changes, by number: its windows, or all of
                it where it changes anywhere.

        Raises:
            NotTraceableError: A step does not take a batch.
        """
        batch = _Batch(self, plan, chunk, given)
        for job in plan.jobs:
            batch.do(job)
            batch.forget(job.spent)
        return resolve(self.tape.output, batch.whole)

    def follow(
        self, plan: Plan, chunk: slice, given: Mapping[int, Tensor]
    ) -> Iterator[tuple[str, int, Tensor]]:
        """The same, step by step: names, and the numbers and whole values of what they
        give."""
        batch = _Batch(self, plan, chunk, given)
        for job in plan.jobs:
            batch.do(job)
            for number in job.step.outputs:
                value = batch.whole(number)
                if isinstance(value, Tensor):
                    yield job.step.name, number, value.clone()
            batch.forget(job.spent)

    def rows(self, number: int, axes: Axes) -> Tensor:
        """A map of the example as rows, one a place, and behind them one of zeros and
        one of minus infinity, which are padding."""
        if number not in self._rows:
            value = self.tape.values[number][0]
            rows = value.movedim([a - 1 for a in axes], list(range(len(axes))))
            rows = rows.reshape(math.prod(rows.shape[: len(axes)]), -1)
            padding = rows.new_zeros(2, rows.shape[1])
            if rows.is_floating_point():
                padding[1] = -torch.inf
            elif rows.dtype != torch.bool:
                padding[1] = torch.iinfo(rows.dtype).min
            self._rows[number] = torch.cat([rows, padding])
        return self._rows[number]

    def keep_for(self, plans: Sequence[Plan]) -> None:
        """Drops the maps of the example that none of the plans reads."""
        read = {number for plan in plans for number in self._read(plan)}
        for number, value in self.tape.values.items():
            changes = [plan.changed.get(number) for plan in plans]
            windowed = [of for of in changes if of is not None and of.axes]
            if isinstance(value, Tensor) and len(windowed) == len(plans):
                if number in read:
                    self.rows(number, windowed[0].axes)
                self.tape.values[number] = torch.empty_like(value, device="meta")

    def _read(self, plan: Plan) -> Iterator[int]:
        """The maps that are pasted under windows, or needed whole."""
        yield from refs(self.tape.output)
        for job in plan.jobs:
            out = plan.changed[job.step.outputs[0]].windows
            for number in job.inputs:
                of = plan.changed.get(number)
                place_by_place = job.op is not None and job.op.kernel is None
                if not (place_by_place and of is not None and of.windows == out):
                    yield number


class _Batch:
    """The values of one batch of copies: windows of maps, and whole values."""

    def __init__(
        self,
        model: Incremental,
        plan: Plan,
        chunk: slice,
        given: Mapping[int, Tensor],
    ) -> None:
        self.model, self.plan, self.chunk = model, plan, chunk
        self.base = model.tape.values
        self.values: dict[int, Any] = dict(given)
        self.borrowed: set[int] = set()
        self.n = len(range(*chunk.indices(plan.m)))

    def do(self, job: Job) -> None:
        """Runs one step."""
        try:
            if job.op is not None:
                names = leaves(job.step.result)
                for name, value in zip(names, self.local(job, job.op), strict=False):
                    if isinstance(name, Ref):
                        self.values[name.number] = value
            elif job.is_mean:
                self.values[job.step.outputs[0]] = self.mean(job.step)
            elif isinstance(self.base[job.step.outputs[0]], Tensor):
                assign(job.step.result, self.dense(job), self.values)
            else:
                assign(job.step.result, self.plain(job.step), self.values)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise NotTraceableError(
                f"{job.step.name} fails on a batch: {type(error).__name__}: {error}"
            ) from error

    def forget(self, spent: Sequence[int]) -> None:
        for number in spent:
            self.values.pop(number, None)

    def windows(self, number: int) -> Windows | None:
        of = self.plan.changed.get(number)
        return None if of is None or of.windows is None else of.windows[self.chunk]

    def extent(self, number: int, axes: Axes) -> tuple[int, ...]:
        shape = self.base[number].shape
        return tuple(shape[a] for a in axes)

    def local(self, job: Job, op: LocalOp) -> tuple[Tensor, ...]:
        """The windows of what a local operation gives."""
        first = job.step.outputs[0]
        out, extent = self.windows(first), self.extent(first, op.axes)
        assert out is not None
        if op.borrows:
            # Whichever is written into, the other shows it.
            self.borrowed.update(job.step.outputs, op.maps)
        if out.size == extent:
            # Padding is the operation's own.
            return op.whole(self.writable(job, [self.whole(i) for i in op.maps]))
        region = out if op.kernel is None else out.read_by(op.kernel)
        (axes,) = {self.plan.changed[i].axes for i in op.maps if i in self.plan.changed}
        patches = [self.read(i, region, axes, op.fill) for i in op.maps]
        returned = op.patch(self.writable(job, patches))
        if op.scale is None:
            return returned
        scale = op.scale.flatten()[out.rows(extent).to(op.scale.device)]
        return tuple(x * scale.reshape(-1, 1, *out.size) for x in returned)

    def writable(self, job: Job, tensors: list[Tensor]) -> list[Tensor]:
        """With a copy of what the step writes into, where others need it too."""
        schema = getattr(job.step.func, "_schema", None)
        if schema is None or not schema.is_mutable:
            return tensors
        number = job.step.args[0].number
        first = job.inputs.index(number)
        is_value = tensors[first] is self.values.get(number)
        if number not in job.spent or number in self.borrowed or not is_value:
            tensors[first] = tensors[first].clone()
        return tensors

    def read(self, number: int, region: Windows, axes: Axes, fill: float) -> Tensor:
        """Regions of a map: what changed, pasted over the rest."""
        window = self.windows(number)
        if window is not None:
            value: Tensor = self.values[number]
            offset = region.offset_in(window)
            if offset is not None and contains(window.size, offset, region.size):
                if region.size == window.size:
                    return value
                return value[_box(value.dim(), axes, offset, region.size)]
        rows = self.model.rows(number, axes)
        outside = len(rows) - (2 if fill == 0 else 1)
        index = region.rows(self.extent(number, axes), outside).to(rows.device)
        spatial = tuple(range(1, 1 + len(axes)))
        rest = [n for a, n in enumerate(self.base[number].shape) if a not in axes][1:]
        patch = rows.index_select(0, index).reshape(self.n, *region.size, *rest)
        if window is not None:
            self.paste(patch, value.movedim(axes, spatial), window, region)
        return patch.movedim(spatial, axes)

    def paste(
        self, patch: Tensor, value: Tensor, window: Windows, region: Windows
    ) -> None:
        """Puts windows into regions, both ``(B, *size, ...)``."""
        offset = window.offset_in(region)
        spatial = tuple(range(1, 1 + len(region.size)))
        if offset is not None and contains(region.size, offset, window.size):
            patch[_box(patch.dim(), spatial, offset, window.size)] = value
            return
        area = math.prod(region.size)
        inner = Windows(window.origin - region.origin, window.size)
        place = inner.rows(region.size, outside=-1).reshape(self.n, -1)
        inside = (place >= 0).flatten().to(patch.device)
        place = place + area * torch.arange(self.n)[:, None]
        rows = value.reshape(place.numel(), -1)
        flat = patch.view(self.n * area, -1)
        at = place.flatten().to(patch.device)
        if inside.all():
            flat.index_copy_(0, at, rows)
        else:
            flat.index_copy_(0, at[inside], rows[inside])

    def whole(self, number: int) -> Any:
        """A value for each copy, with whole maps."""
        base, of = self.base[number], self.plan.changed.get(number)
        if of is not None and of.windows is None:
            return self.values[number]
        if of is not None:
            region = Windows.whole(self.n, self.extent(number, of.axes))
            return self.read(number, region, of.axes, 0.0)
        if not isinstance(base, Tensor):
            return base
        if base.dim() == 0 or len(base) != 1:
            raise ValueError("a value has not one row for each example")
        return base.expand(self.n, *base.shape[1:])

    def mean(self, step: Step) -> Tensor:
        """The mean over whole maps, from what the windows change of it."""
        (number,) = step.inputs
        axes, window = self.plan.changed[number].axes, self.windows(number)
        assert window is not None
        extent, value = self.extent(number, axes), self.values[number]
        if window.size == extent:
            of_whole: Tensor = step.run(lambda _: value)
            return of_whole
        rows = self.model.rows(number, axes)
        before = rows.index_select(0, window.rows(extent).to(rows.device))
        before = before.reshape(self.n, -1, rows.shape[1])
        now = value.movedim(axes, tuple(range(1, 1 + len(axes)))).reshape(before.shape)
        # The last two rows are padding.
        means = rows[:-2].mean(dim=0) + (now - before).sum(dim=1) / math.prod(extent)
        return means.reshape(self.n, *self.base[step.outputs[0]].shape[1:])

    def plain(self, step: Step) -> Any:
        """A value that is no tensor, such as a shape, for a batch of this size."""

        def shaped(number: int) -> Any:
            base = self.base[number]
            if not isinstance(base, Tensor):
                return self.values.get(number, base)
            of = self.plan.changed.get(number)
            if of is not None and of.windows is None:
                return torch.empty_like(self.values[number], device="meta")
            return torch.empty(self.n, *base.shape[1:], dtype=base.dtype, device="meta")

        before = self.base[step.outputs[0]]
        is_kind = isinstance(before, (torch.device, torch.dtype))
        return before if is_kind else step.run(shaped)

    def dense(self, job: Job) -> Any:
        """A step on whole values."""
        if job.step.is_call and job.step.opaque is None:
            whole = self.writable(job, [self.whole(i) for i in job.inputs])
            return job.step.run(dict(zip(job.inputs, whole, strict=True)).__getitem__)

        def plainly(number: int) -> Any:
            # A view of the model's may need the usual order of the memory.
            value = self.whole(number)
            return value.contiguous() if isinstance(value, Tensor) else value

        return (job.step.opaque or job.step).run(plainly)


def _box(
    n_dims: int, axes: Axes, offset: Sequence[int], size: Sequence[int]
) -> tuple[slice, ...]:
    box = [slice(None)] * n_dims
    for a, o, n in zip(axes, offset, size, strict=True):
        box[a] = slice(o, o + n)
    return tuple(box)
