"""Steps: what they read, what they give, and which of them a batch runs."""

from __future__ import annotations

import pytest
import torch

from captum_pse._engine.tape import NodeStep, OpStep, Ref, Tape, without_unused

_aten = torch.ops.aten


def test_a_step_runs_on_other_values():
    step = OpStep("add", _aten.add.Tensor, (Ref(3), Ref(1)), {"alpha": 2}, Ref(4))
    assert (step.inputs, step.outputs) == ((3, 1), (4,))
    (found,) = step.run([torch.ones(2), torch.tensor([1.0, 2.0])])
    assert found.tolist() == [3, 5]


def test_a_value_that_is_a_structure_is_one_output():
    step = NodeStep("shape", lambda x: [x.shape[0], 7], (Ref(0),), {}, Ref(1))
    assert step.run([torch.ones(2, 3)]) == ([2, 7],)


def test_the_number_of_outputs_is_that_of_the_example():
    step = NodeStep("unbind", torch.unbind, (Ref(0),), {}, [Ref(1)])
    assert len(step.run([torch.ones(1, 3)])) == 1
    with pytest.raises(ValueError, match="depends on the batch size"):
        step.run([torch.ones(2, 3)])


def test_an_operation_that_fixes_the_batch_size_runs_as_its_node():
    node = NodeStep("view", torch.Tensor.view, (Ref(0), Ref(1), 6), {}, Ref(2))
    step = OpStep("view", _aten.view.default, (Ref(0), [1, 6]), {}, Ref(2), node)
    assert step.per_batch is node
    assert step.inputs == (0,)
    assert step.reads == {0, 1}
    (found,) = step.per_batch.run([torch.ones(4, 3, 2).transpose(1, 2), 4])
    assert found.shape == (4, 6)
    relu = OpStep("relu", _aten.relu_.default, (Ref(2),), {}, Ref(3))
    assert relu.per_batch is relu
    assert (relu.overwritten, step.overwritten, node.overwritten) == (2, None, None)


def test_dead_steps_and_results_are_removed():
    pool = OpStep(
        "pool", _aten.max_pool2d_with_indices.default, (Ref(0), [2, 2]), {},
        (Ref(1), Ref(2)),
    )  # fmt: skip
    dead = OpStep("relu", _aten.relu.default, (Ref(2),), {}, Ref(3))
    values = {i: torch.ones(1) for i in range(4)}
    found = without_unused(Tape([0], [pool, dead], Ref(1), values))
    assert [step.result for step in found.steps] == [(Ref(1), None)]
    assert set(found.values) == {0, 1}
