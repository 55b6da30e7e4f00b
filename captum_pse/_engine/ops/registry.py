"""Which operations are local, and how each of them works on windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from captum_pse._engine.ops import shape as shape_ops
from captum_pse._engine.ops import spatial as spatial_ops
from captum_pse._engine.ops.local_op import Axes, LocalOp, Maker
from captum_pse._engine.tape import BATCH_NORMS, Step, leaves, refs

_aten = torch.ops.aten


def local_op(
    step: Step, values: Mapping[int, Any], axes: Mapping[int, Axes]
) -> LocalOp | None:
    """How a step works on windows, if it does.

    Args:
        step (Step): Of the tape.
        values (mapping): Every value on one example, by number.
        axes (mapping): The spatial dimensions of those inputs that come in windows.
    """
    if not step.is_call:
        return None
    maker = _MAKERS.get(step.func)
    if maker is None:
        is_pointwise = torch.Tag.pointwise in getattr(step.func, "tags", ())
        maker = spatial_ops.pointwise if is_pointwise else _unknown
    # Others give one map; such as the places of maxima are not computed.
    first = leaves(step.result)[0]
    if maker is not shape_ops.split and step.outputs != tuple(refs(first)):
        return None
    return maker(step, values, axes)


def is_global_mean(step: Step, axes: Axes, n_dims: int) -> bool:
    """Whether a step takes the mean over whole maps of ``n_dims`` dimensions."""
    if step.func is not _aten.mean.dim or step.kwargs:
        return False
    return {d % n_dims for d in step.args[1] or ()} == set(axes)


def _unknown(step: Step, values: Any, axes: Any) -> None:
    return None


_MAKERS: dict[Any, Maker] = {
    _aten.convolution.default: spatial_ops.convolution,
    _aten.max_pool2d_with_indices.default: spatial_ops.max_pool,
    _aten.avg_pool2d.default: spatial_ops.avg_pool,
    _aten._adaptive_avg_pool2d.default: spatial_ops.adaptive_pool,
    **dict.fromkeys(BATCH_NORMS, spatial_ops.batch_norm),
    _aten.native_layer_norm.default: spatial_ops.layer_norm,
    _aten._softmax.default: shape_ops.along,
    _aten.cat.default: shape_ops.cat,
    _aten.split.Tensor: shape_ops.split,
    _aten.split_with_sizes.default: shape_ops.split,
    _aten.permute.default: shape_ops.permute,
    _aten.transpose.int: shape_ops.permute,
    _aten.view.default: shape_ops.view,
    _aten._unsafe_view.default: shape_ops.view,
    _aten.clone.default: shape_ops.copy,
    _aten.constant_pad_nd.default: spatial_ops.pad,
    _aten._to_copy.default: spatial_ops.pointwise,
    _aten.hardswish.default: spatial_ops.pointwise,
    _aten.hardswish_.default: spatial_ops.pointwise,
    F.linear: spatial_ops.linear,
}
