"""Follows the axis of units through a pass of the model.

A convolution puts its units at dimension 1 of its output, a linear layer at the last
dimension. From there the axis is followed through the operations after it, whatever
modules or functions call them. After an operation that is not known here, the axis is
not known, until the next layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

#: What each axis of a tensor is: :data:`UNITS`, the number of an axis of the model's
#: input, or None if it is not known.
Layout: TypeAlias = tuple[int | None, ...]
UNITS = -1

#: Operations that take and return units at dimension 1; poolings by their names' ends.
FIRST = frozenset(
    ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
     "conv_transpose3d", "batch_norm", "instance_norm", "group_norm",
     "local_response_norm")
)  # fmt: skip
POOLS = ("_pool1d", "_pool2d", "_pool3d")
#: Operations that take and return units at the last dimension. What they return besides
#: the first tensor are states and weights.
LAST = frozenset(
    ("linear", "bilinear", "layer_norm", "rms_norm", "embedding", "lstm", "gru",
     "rnn_tanh", "rnn_relu", "multi_head_attention_forward",
     "_native_multi_head_attention", "_transformer_encoder_layer_fwd")
)  # fmt: skip
#: Operations that reorder axes.
MOVES = frozenset(
    ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T",
     "mT", "H", "mH", "adjoint")
)  # fmt: skip
#: Operations that split and merge axes, and keep the order of the values.
RESHAPES = frozenset(
    ("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "reshape_as",
     "view_as")
)  # fmt: skip
#: Operations that keep all axes where they are, if the number of dimensions stays:
#: those on each value, on slices, and along an axis. After any other one, the axes are
#: not known.
SAME = frozenset(
    ("abs", "addcmul", "alpha_dropout", "amax", "amin", "bfloat16", "cat", "celu",
     "chunk", "clamp", "clamp_max", "clamp_min", "clone", "concat", "concatenate",
     "contiguous", "cos", "cpu", "cuda", "detach", "double", "dropout", "dropout1d",
     "dropout2d", "dropout3d", "elu", "erf", "exp", "expand", "expand_as",
     "feature_alpha_dropout", "flip", "float", "floor", "gelu", "glu", "half",
     "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "interpolate",
     "leaky_relu", "lerp", "log", "log1p", "log_softmax", "logsigmoid",
     "masked_fill", "maximum", "mean", "minimum", "mish", "narrow", "neg",
     "normalize", "ones_like", "pad", "prelu", "rand_like", "randn_like",
     "reciprocal", "relu", "requires_grad", "relu6", "roll", "round", "rrelu", "rsqrt",
     "scaled_dot_product_attention", "selu", "sigmoid", "sign", "silu", "sin",
     "softmax", "softplus", "softshrink", "softsign", "split", "sqrt", "square",
     "sum", "tanh", "tensor_split", "threshold", "to", "type", "upsample",
     "zeros_like", "__getitem__", "__neg__")
) | frozenset(
    form.format(name)
    for name in ("add", "sub", "mul", "div", "truediv", "pow")
    for form in ("{}", "__{}__", "__r{}__", "__i{}__")
)  # fmt: skip
#: Products with a matrix, which has the units in its columns.
PRODUCTS = frozenset(("matmul", "__matmul__", "mm"))
#: The tensors that are put together share the meaning of their axes.
JOINED = frozenset(("cat", "concat", "concatenate"))


class UnitAxes(TorchFunctionMode):
    """Follows the axis of units, in this thread, for as long as it is entered.

    Args:
        inputs (sequence of Tensor, optional): What becomes one input of the model;
            :meth:`of_input` finds the axis of its channels. Default: ()
    """

    def __init__(self, inputs: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self._layouts = WeakTensorKeyDictionary()
        self._channels: set[int] = set()
        for x in (x for x in inputs if isinstance(x, Tensor)):
            self._layouts[x] = tuple(range(x.dim()))

    def of(self, output: Tensor) -> int | None:
        """The axis of the units of a tensor that an operation returned, if known."""
        layout: Layout = self._layouts.get(output, ())
        return layout.index(UNITS) if layout.count(UNITS) == 1 else None

    def of_input(self) -> int | None:
        """The axis of the input's channels, if all layers that take the input agree."""
        return min(self._channels) if len(self._channels) == 1 else None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # Operations in place change shapes and layouts.
        given = [
            _Given(x, tuple(x.shape), self._layouts.get(x))
            for x in _flat((*args, *kwargs.values()))
            if isinstance(x, Tensor)
        ]
        result = func(*args, **kwargs)
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        for i, output in enumerate(outputs):
            if isinstance(output, Tensor):
                layout = self._layout(func, given, args, kwargs, output, i)
                if layout is None:
                    self._layouts.pop(output, None)
                else:
                    self._layouts[output] = layout
        return result

    def _layout(
        self, func: Any, given: list[_Given], args: Any, kwargs: Any, output: Tensor,
        number: int,
    ) -> Layout | None:  # fmt: skip
        """What the axes of an operation's output are; None if not known."""
        name = _name(func)
        if not given or (name in LAST and number > 0):
            return None
        dim = _dimension_of_units(name, given, args, kwargs)
        if dim is not None:
            taken = given[0].layout
            axis = None if taken is None else taken[dim]
            # Linear layers may also mix the columns of images.
            if axis not in (None, UNITS) and (dim == 1 or output.dim() == 3):
                self._channels.add(axis)
            made: list[int | None] = [None] * output.dim()
            made[dim] = UNITS
            return tuple(made)
        if name in MOVES or name in RESHAPES:
            given = given[:1]
        elif not _keeps_axes(name, given, args, output):
            return None
        after = [
            layout
            for x in given
            if x.layout and (layout := _moved(func, name, x, args, kwargs, output))
        ]
        of_units = {layout for layout in after if UNITS in layout}
        found = of_units or set(after)
        return found.pop() if len(found) == 1 else None


class _Given(NamedTuple):
    """A tensor that an operation takes, as it was before."""

    tensor: Tensor
    shape: tuple[int, ...]
    layout: Layout | None


def _name(func: Any) -> str:
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":  # a property, such as Tensor.T
        name = str(getattr(func.__self__, "__name__", ""))
    # In-place operations have a name that ends in "_".
    return name if name.startswith("__") else name.rstrip("_")


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _flat(value)
        else:
            yield value


def _dimension_of_units(
    name: str, given: Sequence[_Given], args: Any, kwargs: Any
) -> int | None:
    """Where an operation has its units by definition; None for other operations."""
    dims = len(given[0].shape)
    if name in LAST:
        shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        of_several_axes = name.endswith("_norm") and len(shape) > 1
        return None if of_several_axes or dims < 2 else -1
    if name in PRODUCTS:
        is_matrix = len(given) == 2 and len(given[1].shape) == 2
        return -1 if is_matrix and given[1].layout is None else None
    if name in FIRST or name.endswith(POOLS):
        # The units of an example without a batch are at 0.
        batched = int(name[-2]) + 2 if name.endswith("d") else dims
        return 1 if dims == batched >= 2 else None
    return None


def _keeps_axes(name: str, given: Sequence[_Given], args: Any, output: Tensor) -> bool:
    """Whether an operation keeps all axes where they are known to be."""
    if name not in SAME and name not in LAST:
        return False
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return all(isinstance(i, slice) or i is Ellipsis for i in index)
    if name in JOINED:
        return True
    # Of a sum, the axes are known if those of all its terms are.
    return all(
        x.layout or isinstance(x.tensor, Parameter) or x.shape != tuple(output.shape)
        for x in given
    )


def _moved(
    func: Any, name: str, x: _Given, args: Any, kwargs: Any, output: Tensor
) -> Layout | None:
    """The layout of an operation's output, from that of one of its arguments."""
    layout = x.layout
    assert layout is not None
    if name in MOVES:
        # Sizes that all differ show where each axis went.
        marked = torch.empty(tuple(range(len(layout))), device="meta")
        rest = {key: value for key, value in kwargs.items() if value is not x.tensor}
        return tuple(layout[axis] for axis in func(marked, *args[1:], **rest).shape)
    if name in RESHAPES:
        before, after = x.shape, tuple(output.shape)
        found: list[int | None] = [None] * len(after)
        for axis, what in enumerate(layout):
            same = [
                i
                for i, size in enumerate(after)
                if size == before[axis] and prod(after[:i]) == prod(before[:axis])
            ]
            if len(same) == 1:
                found[same[0]] = what
        return tuple(found)
    return layout if len(layout) == output.dim() else None
