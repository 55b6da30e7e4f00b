"""The table of operations: one rule each, and what holds without one."""

from __future__ import annotations

import torch

from captum_pse._engine.ops.registry import (
    POINTWISE,
    UNKNOWN,
    on_windows,
    rule_for,
    rule_of,
)
from captum_pse._engine.tape import NodeStep, OpStep, Ref

_aten = torch.ops.aten


def test_operations_without_a_row():
    assert rule_for(_aten.tanh.default) is POINTWISE
    assert rule_for(_aten.add_.Tensor) is POINTWISE
    assert rule_for(_aten.roll.default) is UNKNOWN
    assert rule_for(len) is UNKNOWN


def test_an_unknown_operation_is_not_local_and_may_mix_examples():
    step = OpStep("roll", _aten.roll.default, (Ref(0), [1], [2]), {}, Ref(1))
    values = {0: torch.rand(1, 3, 8, 8), 1: torch.rand(1, 3, 8, 8)}
    rule = rule_of(step)
    assert on_windows(step, values, {0: (2, 3)}) is None
    assert not rule.per_example(step, values)
    assert not rule.per_position(step, values)
    assert rule.work(step, values) == 0
    assert not rule.is_batch_norm
    assert not rule.is_silent


def test_nothing_is_known_of_a_whole_node():
    """Even if the model calls an operation of the table itself."""
    weight = torch.rand(4, 3, 3, 3)
    args = (Ref(0), weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    values = {0: torch.rand(1, 3, 8, 8), 1: torch.rand(1, 4, 6, 6)}
    of_node = NodeStep("conv", _aten.convolution.default, args, {}, Ref(1))
    operation = OpStep("conv", _aten.convolution.default, args, {}, Ref(1))
    assert rule_of(of_node) is UNKNOWN
    assert on_windows(of_node, values, {0: (2, 3)}) is None
    assert on_windows(operation, values, {0: (2, 3)}) is not None
    assert rule_of(operation).work(operation, values) == 6 * 6 * weight.numel()


def test_max_pool_is_local_only_without_its_indices():
    values = {0: torch.rand(1, 3, 8, 8), 1: torch.rand(1, 3, 4, 4), 2: torch.rand(1)}
    for result, is_local in [((Ref(1), None), True), ((Ref(1), Ref(2)), False)]:
        step = OpStep(
            "pool", _aten.max_pool2d_with_indices.default, (Ref(0), [2, 2]), {}, result
        )
        assert (on_windows(step, values, {0: (2, 3)}) is not None) == is_local


def test_a_constant_with_more_dimensions_shifts_the_batch():
    values = {0: torch.rand(1, 3, 8, 8), 1: torch.rand(1, 1, 3, 8, 8)}
    step = OpStep(
        "add", _aten.add.Tensor, (Ref(0), torch.rand(1, 1, 1, 1, 1)), {}, Ref(1)
    )
    assert not rule_of(step).per_example(step, values)
    values[1] = values[0]
    assert rule_of(step).per_example(step, values)
    assert not rule_of(step).per_position(step, values)
