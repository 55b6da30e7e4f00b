"""What a plan computes once for all its batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_helpers import Net, pair
from torch import Tensor, nn

from captum_pse._engine.changes import Windowed
from captum_pse._engine.jobs import WindowJob
from captum_pse._engine.plan import Plan
from captum_pse._engine.reads import Assembly
from captum_pse._engine.recording import record
from captum_pse._engine.replay import Replay
from captum_pse._engine.rows import OUTSIDE, RowIndex
from captum_pse._engine.tracing import trace
from captum_pse._engine.windows import Boxes, Windows

M = 12
BATCHES = [slice(i, i + 4) for i in range(0, M, 4)]


@pytest.fixture
def replay() -> Replay:
    torch.manual_seed(0)
    layer = nn.Sequential(
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    )
    net = Net(layer).double().eval()
    with torch.no_grad():
        return Replay(record(trace(net), (pair(1, 3, 80, 76)[0],)))


@pytest.fixture
def plan(replay: Replay) -> Plan:
    lo = np.random.default_rng(0).integers(0, 70, (M, 2))
    return replay.plan([Boxes(lo, lo + 2)], M)


def run(replay: Replay, plan: Plan) -> list[Tensor]:
    (number,) = replay.tape.inputs
    of = plan.changed[number]
    assert isinstance(of, Windowed)
    given = torch.rand(M, 3, *of.windows.size).double()
    with torch.no_grad():
        return [
            replay.run(plan, some, {number: given[some].clone()}) for some in BATCHES
        ]


def test_row_numbers_are_computed_once_for_all_batches(replay, plan, monkeypatch):
    computed: list[RowIndex] = []
    compute = RowIndex._compute

    def counted(self: RowIndex, *args: Any) -> list[Tensor]:
        computed.append(self)
        return compute(self, *args)

    monkeypatch.setattr(RowIndex, "_compute", counted)
    run(replay, plan)
    assert len(computed) == len(set(computed)) > 4
    before = len(computed)
    run(replay, plan)
    assert len(computed) == before


def test_no_batch_copies_numpy_arrays(replay, plan, monkeypatch):
    """On a GPU, such a copy waits for all work before it."""
    run(replay, plan)

    def fails(array: np.ndarray) -> Tensor:
        raise AssertionError("a batch makes a tensor from a numpy array")

    monkeypatch.setattr(torch, "from_numpy", fails)
    run(replay, plan)


def test_row_numbers_are_on_the_device_of_the_map():
    device = torch.device("meta")
    index = RowIndex(Windows(np.array([[0, 1], [2, 3]]), (2, 2)), [5, 5])
    assert index.of(slice(0, 2), device).device == device
    _, parts = index._blocks[device]
    assert [part.device for part in parts] == [device, device]
    assert [tuple(part.shape) for part in parts] == [(2, 2, 1), (2, 1, 2)]


def test_windows_stick_out_of_regions_and_regions_out_of_maps(plan):
    """The plan of these tests covers every way to assemble a region."""
    reads = [
        how for job in plan.jobs if isinstance(job, WindowJob) for how in job.reads
    ]
    assembled = [how for how in reads if isinstance(how, Assembly)]
    assert len(assembled) < len(reads)
    pastes = [how.paste for how in assembled]
    assert any(isinstance(p, RowIndex) and not p.is_inside for p in pastes)
    assert any(how.region is not None and not how.region.is_inside for how in assembled)
    assert any(job.scale is not None for job in plan.jobs if isinstance(job, WindowJob))


def test_rows_outside():
    index = RowIndex(Windows(np.array([[-1, 2]]), (2, 2)), [3, 3])
    rows = index.of(slice(0, 1), torch.device("cpu"))
    assert (rows >= OUTSIDE).tolist() == [[True, True, False, True]]


def test_many_copies_keep_the_row_numbers_of_a_block(monkeypatch):
    """Blocks, batches across their ends and steps back give the same numbers."""
    monkeypatch.setattr("captum_pse._engine.rows.BLOCK", 5)
    origin = np.random.default_rng(0).integers(-2, 9, (M, 2))
    windows, extent, cpu = Windows(origin, (3, 2)), (9, 10), torch.device("cpu")
    index, whole = RowIndex(windows, extent), RowIndex(windows, extent)
    monkeypatch.setattr("captum_pse._engine.rows.BLOCK", M)
    expected = whole.of(slice(0, M), cpu)
    monkeypatch.setattr("captum_pse._engine.rows.BLOCK", 5)
    for some in (slice(0, 4), slice(4, 8), slice(8, 12), slice(2, 9), slice(11, 20)):
        assert torch.equal(index.of(some, cpu), expected[some])
    block, parts = index._blocks[cpu]
    assert len(block) == len(parts[0]) < M
