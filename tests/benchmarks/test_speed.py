"""PromotionSuppression beside two runs of FeatureAblation: time and peak memory.

Run with ``pytest tests/benchmarks -s``. One forward pass more than FeatureAblation's
(that of the natural input) is in our time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from captum.attr import FeatureAblation
from torch import Tensor
from torchvision.models import squeezenet1_0

from captum_pse import PromotionSuppression, grid_mask

#: N, perturbations_per_eval.
BATCHES = [(1, 1), (1, 16), (4, 4)]
ROUNDS = 3


def runs(n: int, per_eval: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Ours and Captum's, on SqueezeNet with 196 groups."""
    torch.manual_seed(0)
    model = squeezenet1_0().eval()
    x0 = torch.rand(n, 3, 224, 224)
    x = (x0 + 0.1 * torch.randn_like(x0)).clamp(0, 1)
    options = {
        "feature_mask": grid_mask((224, 224), cell=16),
        "perturbations_per_eval": per_eval,
    }

    def ours() -> Tensor:
        return PromotionSuppression(model).attribute(x, x0, 1, 2, **options)

    def captums() -> Tensor:
        ablation = FeatureAblation(model)
        t, t0 = (ablation.attribute(x, x0, target=k, **options) for k in (1, 2))
        return t.clamp(min=0) + (-t0).clamp(min=0)

    return ours, captums


def peak(which: int, n: int, per_eval: int) -> float:
    """MiB at most, of a process that does only this."""
    done = subprocess.run(
        [sys.executable, __file__, str(which), str(n), str(per_eval)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout) / 1024


@pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
@pytest.mark.parametrize(("n", "per_eval"), BATCHES)
def test_promotion_suppression_against_feature_ablation(benchmark, n, per_eval):
    ours, captums = runs(n, per_eval)
    torch.testing.assert_close(ours(), captums(), rtol=0, atol=1e-4)
    theirs: list[float] = []

    def alternate() -> tuple[tuple[()], dict[str, object]]:
        start = time.perf_counter()
        captums()
        theirs.append(time.perf_counter() - start)
        return (), {}

    benchmark.pedantic(ours, setup=alternate, rounds=ROUNDS)
    mine = statistics.median(benchmark.stats.stats.data)
    ratio = statistics.median(
        a / b for a, b in zip(benchmark.stats.stats.data, theirs, strict=True)
    )
    memory = [peak(which, n, per_eval) for which in (0, 1)]
    print(
        f"\nN={n} perturbations_per_eval={per_eval}: ours {mine:.2f} s, "
        f"2 x FeatureAblation {statistics.median(theirs):.2f} s, ratio {ratio:.3f}; "
        f"peak memory {memory[0]:.0f} and {memory[1]:.0f} MiB"
    )
    assert ratio <= 0.55
    # The two processes' base differs by some MiB from run to run.
    assert memory[0] <= memory[1] + 10


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    which, n, per_eval = map(int, sys.argv[1:])
    runs(n, per_eval)[which]()
    # getrusage would give the peak of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(status.split("VmHWM:")[1].split()[0])
