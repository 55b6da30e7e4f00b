"""Threads that share one model: each gets the numbers that it gets alone.

In the suite for two seconds; for longer, with the number of calls printed::

    CAPTUM_PSE_SECONDS=60 pytest -n 0 -s tests/faults/test_threads.py
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import state_of
from torch import Tensor, nn

from captum_pse import (
    AdversarialCAM,
    AdversarialPair,
    DissectionSensitivity,
    PromotionSuppression,
    evaluate_masking,
    grid_mask,
    mask_units,
)
from captum_pse.units.masked_copy import masked_copy

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
SECONDS = float(os.environ.get("CAPTUM_PSE_SECONDS", "2"))


class Blocks(nn.Module):
    """Hooks on a block are called while torch.fx traces it, those on a layer not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(6, 4)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)).amax((2, 3)) * self.scale)


def gradients(model: nn.Module, pairs: AdversarialPair) -> Tensor:
    """An adaptive attack of one step, by backward()."""
    x = pairs.natural.clone().requires_grad_()
    scores = model(x)
    scores.gather(1, pairs.attack_label[:, None]).sum().backward()
    return (pairs.natural + x.grad.sign() / 50).detach()


Task = Callable[[], list[Tensor]]


def tasks(model: nn.Module, pairs: AdversarialPair) -> dict[str, dict[str, Task]]:
    """What each thread does in turn."""
    x, natural = pairs.adversarial, pairs.natural
    mask = grid_mask(x.shape[2:], cell=4)

    def masked(layer: str, units: list[int]) -> list[Tensor]:
        with mask_units(model, {layer: units}):
            return [model(x), *score(pixels("dense"))]

    def pixels(engine: str) -> Any:
        method = PromotionSuppression(model, engine=engine)
        result = method.decompose(*pairs, feature_mask=mask)
        assert result.engine == engine, result.engine_note
        return result

    def score(result: Any) -> list[Tensor]:
        return [result.promotion_change, result.suppression_change]

    def curves(layer: str) -> list[Tensor]:
        ranking = {"a": torch.arange(6.0)}
        found = evaluate_masking(
            model, pairs, layer, ranking, [0, 2, 4], seeds=[0], attack=gradients
        )
        return [torch.tensor(of["adaptive"]) for of in found.outcomes.values()] + [
            torch.tensor(of["clean"]) for of in found.outcomes.values()
        ]

    return {
        "masks the block": {
            "mask_units": lambda: masked("block", [0, 3]),
            "evaluate_masking": lambda: curves("block"),
        },
        "masks a layer": {
            "mask_units": lambda: masked("stem", [1]),
            "evaluate_masking": lambda: curves("stem"),
            "masked_copy": lambda: [masked_copy(model, {"block": [5]})(x)],
        },
        "scores": {
            "plain": lambda: [model(x), model(natural)],
            "dense": lambda: score(pixels("dense")),
            "incremental": lambda: score(pixels("incremental")),
            "units": lambda: [DissectionSensitivity(model, "stem").attribute(*pairs)],
            "regions": lambda: [AdversarialCAM(model, "block").attribute(*pairs)],
        },
        "decomposes": {"incremental": lambda: score(pixels("incremental"))},
    }


def differs(found: list[Tensor], wanted: list[Tensor]) -> str:
    """What differs by more than rounding."""
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if a.requires_grad != b.requires_grad:
            return f"tensor {i}: requires_grad is {a.requires_grad}"
        if not torch.allclose(a, b, rtol=0, atol=1e-12):
            return f"tensor {i}: off by {float((a - b).abs().max()):.3g}"
    return ""


@pytest.fixture
def switches_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switches_often")
def test_threads_on_one_model_get_the_numbers_of_one_thread():
    model = Blocks().double().eval()
    natural, delta = torch.rand(2, 4, 3, 12, 12).double()
    adversarial = natural + 0.2 * (delta - 0.5)
    labels = model(natural).argmax(dim=1)
    pairs = AdversarialPair(adversarial, natural, (labels + 1) % 4, labels)
    before = state_of(model), [p.requires_grad for p in model.parameters()]
    work = tasks(model, pairs)
    with torch.no_grad():
        wanted = {
            who: {name: task() for name, task in of.items()} for who, of in work.items()
        }
    calls: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    barrier, end = threading.Barrier(len(work)), time.monotonic() + SECONDS

    def run(who: str) -> None:
        barrier.wait()
        while time.monotonic() < end:
            for name, task in work[who].items():
                try:
                    with torch.no_grad():
                        reason = differs(task(), wanted[who][name])
                except Exception as error:
                    reason = f"{type(error).__name__}: {str(error)[:120]}"
                calls[f"{who}: {name}"] += 1
                if reason:
                    wrong[f"{who}: {name}: {reason.split(' by ')[0]}"] += 1

    threads = [threading.Thread(target=run, args=(who,)) for who in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"\n{sum(calls.values())} calls {dict(calls)}, {sum(wrong.values())} wrong")
    assert set(calls) == {f"{who}: {name}" for who, of in work.items() for name in of}
    assert not wrong, "\n".join(f"{n} x {what}" for what, n in wrong.most_common())
    assert (state_of(model), [p.requires_grad for p in model.parameters()]) == before
    assert not any(module._forward_hooks for module in model.modules())
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl
