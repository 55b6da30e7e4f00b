"""Facts of an operation that depend on the arguments of a step.

Those named ``per_example`` are whether the step treats every example by itself, with
arguments that are independent of the batch size.
"""

from __future__ import annotations

from torch import Tensor

from captum_pse._engine.ops.local_op import Values
from captum_pse._engine.tape import Step


def always(step: Step, values: Values) -> bool:
    return True


def never(step: Step, values: Values) -> bool:
    return False


def pointwise_per_example(step: Step, values: Values) -> bool:
    """A constant with more dimensions would shift the batch's."""
    most, of_outputs = (
        max(values[number].dim() for number in numbers)
        for numbers in (step.inputs, step.outputs)
    )
    return bool(most >= of_outputs)


def dims_per_example(step: Step, values: Values) -> bool:
    """The second argument is one dimension or more, none of them the batch's."""
    n_dims = values[step.inputs[0]].dim()
    (_, dims, *_) = (*step.args, 0)
    dims = dims if isinstance(dims, (list, tuple)) else [dims]
    return bool(dims) and all(d is not None and d % n_dims != 0 for d in dims)


def layer_norm_per_example(step: Step, values: Values) -> bool:
    """The normalized dimensions do not include the batch's."""
    return len(step.args[1]) < values[step.inputs[0]].dim()


def pad_per_example(step: Step, values: Values) -> bool:
    """The padded dimensions do not include the batch's."""
    return len(step.args[1]) // 2 < values[step.inputs[0]].dim()


def one_input(step: Step, values: Values) -> bool:
    return len(step.inputs) == 1


def one_tensor(step: Step, values: Values) -> bool:
    """Its input is the only tensor among the arguments."""
    constants = (*step.args, *step.kwargs.values())
    return len(step.inputs) == 1 and not any(isinstance(x, Tensor) for x in constants)


def no_work(step: Step, values: Values) -> float:
    return 0.0


def convolution_work(step: Step, values: Values) -> float:
    """Multiply-adds on one example."""
    return _work(step, values, channels=1)


def linear_work(step: Step, values: Values) -> float:
    """Multiply-adds on one example."""
    return _work(step, values, channels=-1)


def _work(step: Step, values: Values, channels: int) -> float:
    out, weight = values[step.outputs[0]], step.args[1]
    if not isinstance(weight, Tensor):
        return 0.0
    return float(out.numel() / out.shape[channels] * weight.numel())
