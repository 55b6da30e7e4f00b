"""Dissection of three layers against a plain pass over the same images."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from captum_pse.cli.models import load_model
from captum_pse.dissection import BrodenConcepts, ConceptSample, NetworkDissection

BATCH = 16


def layers_of(model: nn.Module) -> list[str]:
    endings = ("features.5", "features.8", "features.12")
    return [name for name, _ in model.named_modules() if name.endswith(endings)]


def plain_pass(model: nn.Module, dataset: BrodenConcepts) -> None:
    loader: DataLoader[list[ConceptSample]] = DataLoader(
        dataset, BATCH, collate_fn=list
    )
    with torch.no_grad():
        for samples in loader:
            model(torch.stack([sample.image for sample in samples]))


def test_dissection_against_a_plain_pass(squeezenet, data):
    dataset = BrodenConcepts(data / "camvid_broden")
    method = NetworkDissection(squeezenet, layers_of(squeezenet))
    plain_pass(squeezenet, dataset)
    ratios = []
    for _ in range(5):
        times = []
        for work in (
            lambda: plain_pass(squeezenet, dataset),
            lambda: method.dissect(dataset, batch_size=BATCH),
        ):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        ratios.append(times[1] / times[0])
        print(f"\nplain {times[0]:.2f} s, dissection {times[1]:.2f} s", end="")
    print(f"\nthree layers: {statistics.median(ratios):.2f} plain passes")
    assert statistics.median(ratios) <= 2.8


class Repeated(ConcatDataset[ConceptSample]):
    """A concept set, several times over."""

    def __init__(self, dataset: BrodenConcepts, times: int) -> None:
        super().__init__([dataset] * times)
        self.concepts: Sequence[object] = dataset.concepts


def peak_memory(data: Path, times: int) -> float:
    """Of this process, in MiB."""
    weights = data / "imagenet" / "squeezenet1_0_fp16.pt"
    model = load_model("squeezenet1_0", str(weights)).forward_func
    dataset = Repeated(BrodenConcepts(data / "camvid_broden"), times)
    NetworkDissection(model, layers_of(model)).dissect(dataset, batch_size=BATCH)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("times", [3])
def test_memory_does_not_grow(data, times):
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        once, more = pool.starmap(peak_memory, [(data, 1), (data, times)], chunksize=1)
    print(f"\npeak memory: {once:.0f} MiB once, {more:.0f} MiB {times} times over")
    assert once <= 1536
    assert more <= once * 1.1
