"""Small models and pairs that the tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captum_pse import AdversarialPair, demo
from captum_pse._drawing.figure import Figure
from captum_pse.cli.models import load_model

ROOT = Path(__file__).parent.parent

#: Parts of the paths that run in one process.
_ALONE = ("::", "benchmarks", "calibration")

if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes share the cores, and so do those that the tests start.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-pairs", action="store_true", help="compare numbers on all real data"
    )
    parser.addoption(
        "--all-models", action="store_true", help="try every torchvision model"
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """None for a process a core; 0, this process, where that is better: a test alone
    is there before the processes are, and what they print is not seen."""
    paths = [str(arg) for arg in config.args]
    alone = all(any(part in path for part in _ALONE) for path in paths)
    return 0 if alone or config.option.capture == "no" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebooks first: one of them at the end keeps one process busy, and no other."""
    items.sort(key=lambda item: "test_tutorials.py::test_runs" not in item.nodeid)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every PNG of a folder of results one white pixel, for tests that look at
    none: drawing takes more time than all else there."""

    def save(figure: Figure, path: Path) -> None:
        Image.new("RGB", (1, 1), "white").save(path)

    monkeypatch.setattr(Figure, "save", save)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For numbers to the last bit, which depend on how many threads add them up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class SmallNet(nn.Module):
    """A conv net with batch norm and dropout: its mode matters."""

    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, classes)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        hidden = torch.tanh(self.norm(self.conv(x)))
        # Not linear in the pooled units, so that groups interact.
        pooled = hidden.mean((2, 3)) + hidden.amax((2, 3)) ** 2
        return self.head(self.drop(pooled)) * scale


class Segmenter(nn.Module):
    """Dense scores ``(N, 4, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) * 3


class TwoInputs(nn.Module):
    """Takes images and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector = SmallNet(), nn.Linear(4, 5)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        return self.image(image) * torch.sigmoid(self.vector(vector))


def state_of(model: nn.Module) -> list[object]:
    """What no method may change."""
    return [
        *(module.training for module in model.modules()),
        *(len(module._forward_hooks) for module in model.modules()),
        *(p.requires_grad for p in model.parameters()),
        *(p.grad for p in model.parameters()),
        *(tensor.sum().item() for tensor in model.state_dict().values()),
        torch.is_grad_enabled(),
    ]


@dataclass
class Case:
    """A model with a pair of tensors; the labels are not what it predicts."""

    model: nn.Module
    adversarial: Tensor
    natural: Tensor


@pytest.fixture
def make_case() -> Callable[..., Case]:
    def make(n: int = 2, size: int = 6, dtype: torch.dtype = torch.float64) -> Case:
        model = SmallNet().to(dtype).eval()
        natural = torch.rand(n, 3, size, size, dtype=dtype)
        delta = 0.5 * torch.randn(n, 3, size, size, dtype=dtype)
        return Case(model, natural + delta, natural)

    return make


@pytest.fixture(scope="session")
def demo_model() -> demo.DemoNet:
    return demo.load_model()


@pytest.fixture(scope="session")
def demo_pairs() -> AdversarialPair:
    return demo.make_pairs(3)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real models and images, or a skip."""
    folder = Path(os.environ.get("CAPTUM_PSE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "imagenet").is_dir():
        pytest.skip(f"no real data: {folder}/imagenet is absent (CAPTUM_PSE_DATA)")
    return folder


@pytest.fixture(scope="session")
def squeezenet(data: Path) -> nn.Module:
    weights = data / "imagenet" / "squeezenet1_0_fp16.pt"
    return load_model("squeezenet1_0", str(weights)).forward_func


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """Writes an .npz of two small demo-sized pairs, with changes."""

    def write(**changes: np.ndarray | None) -> Path:
        rng = np.random.default_rng(0)
        arrays: dict[str, np.ndarray | None] = {
            "natural": rng.integers(40, 216, (2, 3, 64, 64), dtype=np.uint8),
            "perturbation": rng.normal(0, 0.02, (2, 3, 64, 64)).astype(np.float16),
            "true_label": np.array([0, 1]),
            "attack_label": np.array([1, 0]),
            **changes,
        }
        path = tmp_path / "pairs.npz"
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
        return path

    return write
