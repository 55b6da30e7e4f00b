"""AdversarialCAM beside four calls of LayerGradCam: time and memory kept for gradients.

Run with ``pytest tests/benchmarks -s``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor
from torchvision.models import resnet18

from captum_pse import AdversarialCAM

ROUNDS = 5


def saved_bytes(run: Callable[[], object]) -> int:
    """What autograd keeps, each storage counted once, parameters included."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(kept.values())


@pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
@pytest.mark.parametrize("layer", ["layer4", "layer2"])
def test_adversarial_cam_against_four_gradcams(benchmark, layer):
    torch.manual_seed(0)
    model = resnet18().eval()
    x0 = torch.rand(8, 3, 224, 224)
    x = (x0 + 0.1 * torch.randn_like(x0)).clamp(0, 1)
    method = AdversarialCAM(model, layer, interpolate=False)
    captums = LayerGradCam(model, model.get_submodule(layer))

    def ours() -> Tensor:
        return method.attribute(x, x0, 1, 2)

    def four() -> Tensor:
        maps = [
            captums.attribute(side, label, relu_attributions=True)
            for side in (x, x0)
            for label in (1, 2)
        ]
        return maps[0] - maps[2]

    torch.testing.assert_close(ours(), four().detach(), rtol=1e-4, atol=1e-6)
    theirs: list[float] = []

    def alternate() -> tuple[tuple[()], dict[str, object]]:
        start = time.perf_counter()
        four()
        theirs.append(time.perf_counter() - start)
        return (), {}

    benchmark.pedantic(ours, setup=alternate, rounds=ROUNDS, warmup_rounds=1)
    mine = benchmark.stats.stats.data
    speedup = statistics.median(
        b / a for a, b in zip(mine, theirs[-len(mine) :], strict=True)
    )
    memory = [saved_bytes(run) / 2**20 for run in (ours, four)]
    print(
        f"\n{layer}: ours {statistics.median(mine):.2f} s, four LayerGradCam "
        f"{statistics.median(theirs):.2f} s, {speedup:.2f}x faster; kept for gradients "
        f"{memory[0]:.1f} and {memory[1]:.1f} MiB"
    )
    assert speedup >= 1.7
    if layer == "layer4":
        assert memory[0] <= memory[1] / 10
