"""The kinds of jobs of a plan: how one step is computed for a batch of copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from captum_pse._engine.changes import Windowed
from captum_pse._engine.ops.local_op import LocalOp
from captum_pse._engine.reads import Read
from captum_pse._engine.rows import RowIndex
from captum_pse._engine.tape import Step


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all kinds have.

    Attributes:
        step (Step): The step.
        inputs (tuple[int, ...]): The values that it takes.
        spent (tuple[int, ...]): The values that no later job takes.
    """

    step: Step
    inputs: tuple[int, ...]
    spent: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WindowJob(_Job):
    """A local operation on windows.

    Attributes:
        op (LocalOp): The operation.
        reads (tuple[Read, ...]): How each input is read.
        scale (RowIndex, optional): The rows of the outputs in ``op.scale``.
    """

    op: LocalOp
    reads: tuple[Read, ...]
    scale: RowIndex | None


@dataclass(frozen=True, kw_only=True)
class MeanJob(_Job):
    """The mean over a whole map, updated by what changed in the windows.

    Attributes:
        of (Windowed): The change of the map.
    """

    of: Windowed


@dataclass(frozen=True, kw_only=True)
class WholeJob(_Job):
    """A function of whole values.

    Attributes:
        run (Callable): From the inputs to the outputs.
    """

    run: Callable[[Sequence[Any]], tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class SizeJob(_Job):
    """A value that is not a tensor, such as a shape: it depends on the batch size."""


Job: TypeAlias = WindowJob | MeanJob | WholeJob | SizeJob
