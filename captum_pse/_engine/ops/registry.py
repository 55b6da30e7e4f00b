"""The table of operations: one row, an :class:`OpRule`, for each of them.

To add an operation, write its maker and add a row. Element-wise operations, which
PyTorch tags as pointwise, need no row. Any other operation without a row runs on whole
values, as part of the node of the model's graph that calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from captum_pse._engine.ops import facts, per_position, shape, spatial
from captum_pse._engine.ops.local_op import AxesOf, GlobalMean, LocalOp, Maker, Values
from captum_pse._engine.tape import OpStep, Step, is_ref

_aten = torch.ops.aten

Fact: TypeAlias = Callable[[Step, Values], bool]


def not_local(step: Step, values: Values, axes: AxesOf) -> None:
    return None


@dataclass(frozen=True)
class OpRule:
    """All facts of an operation, some of which depend on the step.

    Attributes:
        on_windows (Callable): Makes what a step is on windows; None: it is not local.
        gives_many (bool): Whether all outputs are maps. Otherwise only the first is,
            and a step with another used output (e.g. max-pool indices) is not local.
        per_example (Callable): Whether a step never mixes examples, with arguments that
            are independent of the batch size.
        per_position (Callable): Whether a step computes each position of its output
            from that position of one map. It never needs the unperturbed map.
        work (Callable): The multiply-adds of a step on one example.
        is_batch_norm (bool): Whether it is a batch norm in evaluation mode.
        is_silent (bool): Whether it returns its argument, as far as later steps can
            tell.
    """

    on_windows: Maker = not_local
    gives_many: bool = False
    per_example: Fact = facts.never
    per_position: Fact = facts.never
    work: Callable[[Step, Values], float] = facts.no_work
    is_batch_norm: bool = False
    is_silent: bool = False


#: The rule of an operation without a row.
UNKNOWN = OpRule()
#: The rule of an element-wise operation without a row.
POINTWISE = OpRule(
    per_position.pointwise,
    per_example=facts.pointwise_per_example,
    per_position=facts.one_tensor,
)
_BATCH_NORM = OpRule(
    per_position.batch_norm,
    per_example=facts.always,
    per_position=facts.one_input,
    is_batch_norm=True,
)
_SILENT = OpRule(is_silent=True)

RULES: dict[Any, OpRule] = {
    _aten.convolution.default: OpRule(
        spatial.convolution, per_example=facts.always, work=facts.convolution_work
    ),
    F.linear: OpRule(
        per_position.linear, per_example=facts.always, work=facts.linear_work
    ),
    _aten.max_pool2d_with_indices.default: OpRule(
        spatial.max_pool, per_example=facts.always
    ),
    _aten.avg_pool2d.default: OpRule(spatial.avg_pool, per_example=facts.always),
    _aten._adaptive_avg_pool2d.default: OpRule(
        spatial.adaptive_pool, per_example=facts.always
    ),
    _aten.constant_pad_nd.default: OpRule(
        spatial.pad, per_example=facts.pad_per_example
    ),
    _aten.native_batch_norm.default: _BATCH_NORM,
    _aten._native_batch_norm_legit.default: _BATCH_NORM,
    _aten._native_batch_norm_legit_no_training.default: _BATCH_NORM,
    _aten._batch_norm_no_update.default: _BATCH_NORM,
    _aten.cudnn_batch_norm.default: _BATCH_NORM,
    _aten.miopen_batch_norm.default: _BATCH_NORM,
    _aten.native_layer_norm.default: OpRule(
        per_position.layer_norm, per_example=facts.layer_norm_per_example
    ),
    _aten.hardswish.default: POINTWISE,
    _aten.hardswish_.default: POINTWISE,
    _aten._to_copy.default: POINTWISE,
    _aten.clone.default: replace(POINTWISE, on_windows=shape.copy),
    _aten.mean.dim: OpRule(shape.mean, per_example=facts.dims_per_example),
    _aten._softmax.default: OpRule(shape.softmax, per_example=facts.dims_per_example),
    _aten.cat.default: OpRule(shape.cat, per_example=facts.dims_per_example),
    _aten.split.Tensor: OpRule(shape.split, gives_many=True),
    _aten.split_with_sizes.default: OpRule(shape.split, gives_many=True),
    _aten.permute.default: OpRule(shape.permute),
    _aten.transpose.int: OpRule(shape.permute),
    _aten.view.default: OpRule(shape.view),
    _aten.as_strided_.default: _SILENT,
    _aten.detach.default: _SILENT,
    _aten.alias.default: _SILENT,
}


def rule_for(func: Any) -> OpRule:
    """The rule of an operation."""
    is_pointwise = torch.Tag.pointwise in getattr(func, "tags", ())
    return RULES.get(func, POINTWISE if is_pointwise else UNKNOWN)


def rule_of(step: Step) -> OpRule:
    """The rule of a step; nothing is known of a whole node."""
    return rule_for(step.func) if isinstance(step, OpStep) else UNKNOWN


def on_windows(step: Step, values: Values, axes: AxesOf) -> LocalOp | GlobalMean | None:
    """What a step is on windows; None if it is not local.

    Args:
        step (Step): A step of the tape.
        values (mapping): All values on one example, by number.
        axes (mapping): The spatial dimensions of the inputs that come in windows.
    """
    rule = rule_of(step)
    if not rule.gives_many and any(map(is_ref, step.results[1:])):
        return None
    return rule.on_windows(step, values, axes)
