"""The engines of PromotionSuppression beside two runs of FeatureAblation, by model.

``pytest tests/benchmarks/test_engines.py -s`` takes some models with groups of 16 px;
``--whole`` all models, with groups of 8, 16 and 32 px. Weights are random, but for
SqueezeNet's where the real data are found. Full passes take a time proportional to the
groups, so that Captum's and ours are measured on some groups, and scaled.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import FeatureAblation
from torch import Tensor, nn

from captum_pse import PromotionSuppression, grid_mask
from captum_pse.cli.models import load_model

#: Model, and by how much two FeatureAblations must take longer with groups of 16 px.
BARS = {
    "squeezenet1_0": 7.0,
    "resnet18": 3.3,
    "mobilenet_v2": 2.6,
    "googlenet": 4.0,
    "resnet50": 3.3,
    "vgg16": 12.0,
    "densenet121": 1 / 0.55,
    "convnext_tiny": 1 / 0.55,
    "vit_b_16": 1 / 0.55,
}
DEFAULT = ("squeezenet1_0", "resnet18", "mobilenet_v2")
SAMPLE = 16
ROUNDS = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--whole")
        cells = (8, 16, 32) if whole else (16,)
        names = BARS if whole else DEFAULT
        metafunc.parametrize(("name", "cell"), [(n, c) for n in names for c in cells])


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    data = Path(os.environ.get("CAPTUM_PSE_DATA", "../shared/data")) / "imagenet"
    weights = data / "squeezenet1_0_fp16.pt"
    if name == "squeezenet1_0" and weights.is_file():
        return load_model(name, str(weights)).forward_func.eval()
    options = {"init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options).eval()


def inputs() -> tuple[Tensor, Tensor]:
    x0 = torch.rand(1, 3, 224, 224)
    return (x0 + 0.1 * torch.randn_like(x0)).clamp(0, 1), x0


def some_of(mask: Tensor) -> Tensor:
    """The mask with ``SAMPLE`` groups, and the rest of the image as one more."""
    ids = torch.linspace(0, int(mask.max()), SAMPLE).round().long()
    found = torch.searchsorted(ids, mask).clamp(max=SAMPLE - 1)
    return torch.where(ids[found] == mask, found, SAMPLE)


def two_ablations(model: nn.Module, mask: Tensor, per_eval: int) -> Callable[[], None]:
    x, x0 = inputs()
    ablation = FeatureAblation(model)

    def run() -> None:
        with torch.no_grad():
            for label in (1, 2):
                ablation.attribute(
                    x, x0, label, feature_mask=mask, perturbations_per_eval=per_eval
                )

    return run


def ours(model: nn.Module, mask: Tensor, **options: object) -> Callable[[], object]:
    x, x0 = inputs()
    method = PromotionSuppression(model, **options)
    return lambda: method.decompose(x, x0, 1, 2, feature_mask=mask)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def own_peak() -> str:
    """KiB; getrusage would give those of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return status.split("VmHWM:")[1].split()[0]


def peak(name: str, which: str) -> float:
    """MiB of a process that evaluates groups in batches of 16."""
    done = subprocess.run(
        [sys.executable, __file__, name, which],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout) / 1024


@pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
def test_engines(name, cell):
    model, mask = build(name), grid_mask((224, 224), cell=cell)
    n = int(mask.max()) + 1
    sample = some_of(mask)
    scale = n / (SAMPLE + 1)
    tried = {k: seconds(two_ablations(model, sample, k)) for k in (1, 4, 16)}
    captum = two_ablations(model, sample, min(tried, key=tried.__getitem__))
    dense = ours(model, sample, engine="dense")
    fast = ours(model, mask)
    gradient = ours(model, mask, method="gradient", n_steps=16)
    result = fast()
    windowed = result.engine == "incremental"
    if not windowed:
        fast, result = ours(model, sample), fast()
    rows = []
    for _ in range(ROUNDS):
        rows.append([
            seconds(captum) * scale,
            seconds(dense) * scale,
            seconds(fast) * (1 if windowed else scale),
            seconds(gradient) if cell == 16 else float("nan"),
        ])  # fmt: skip
    times = np.median(rows, axis=0)
    ratio = statistics.median(row[0] / row[2] for row in rows)
    memory = ""
    if cell == 16:
        peaks = [peak(name, which) for which in ("captum", "dense", "incremental")]
        memory = "; MiB " + " / ".join(f"{mib:.0f}" for mib in peaks)
    print(
        f"\n{name}, {n} groups of {cell} px: s 2 x FeatureAblation / dense / auto / "
        f"gradient {' / '.join(f'{t:.2f}' for t in times)}; auto {ratio:.1f}x, "
        f"gradient {times[0] / times[3]:.1f}x; {result.engine}: {result.engine_note}"
        f"{memory}"
    )
    if cell == 16:
        assert ratio >= BARS[name]
        # The processes' base differs by some MiB from run to run.
        assert peaks[2] <= peaks[1] + 20


@pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
def test_scaling_with_the_number_of_groups():
    """Smaller groups have smaller windows: time grows less than their number."""
    name, counts, times = "squeezenet1_0", [], []
    model = build(name)
    for cell in (32, 16, 8, 4):
        mask = grid_mask((224, 224), cell=cell)
        work = ours(model, mask, engine="incremental")
        if cell == 32:
            work()
        counts.append(int(mask.max()) + 1)
        times.append(seconds(work))
    slope = np.polyfit(np.log(counts), np.log(times), 1)[0]
    pairs = ", ".join(f"{n}: {t:.2f} s" for n, t in zip(counts, times, strict=True))
    print(f"\n{name}: {pairs}; time grows as the number to the power of {slope:.2f}")
    assert slope < 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, which = sys.argv[1:]
    model, mask = build(name), some_of(grid_mask((224, 224), cell=16))
    if which == "captum":
        two_ablations(model, mask, 16)()
    else:
        x, x0 = inputs()
        PromotionSuppression(model, engine=which).decompose(
            x, x0, 1, 2, feature_mask=mask, perturbations_per_eval=16
        )
    print(own_peak())
