"""The structured attack beside foolbox's C&W L2 on real pairs: success, groups, norm,
seconds.

``pytest tests/benchmarks/test_structured_attack.py -s``: all 24 targeted pairs;
``--pairs 6`` takes the first six. Both have the same number of constants and of
iterations for each, and the same confidence.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_pse import AdversarialPair, StructuredAttack, grid_mask
from captum_pse.cli.models import load_model
from captum_pse.groups.groups import Groups

DATA = Path(os.environ.get("CAPTUM_PSE_DATA", "../shared/data")) / "imagenet"
STEPS, ITERATIONS, CONFIDENCE, BATCH = 3, 60, 1.0, 8


def shown(name: str, pair: AdversarialPair, mask: Tensor, seconds: float) -> dict:
    delta = pair.adversarial - pair.natural
    changed = Groups.of(mask, (delta,)).sums((delta.abs(),), (delta,)) > 0
    good = pair.succeeded
    found = {
        "success": float(good.float().mean()),
        "groups": float(changed.float().mean(dim=1)[good].mean()),
        "L2": float(delta.flatten(1).norm(dim=1)[good].mean()),
        "Linf": float(delta.abs().flatten(1).amax(dim=1)[good].mean()),
        "s/image": seconds / len(pair),
    }
    text = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
    print(f"\n{name}: {text}", flush=True)
    return found


@pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no folder {DATA}")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_structured_attack_beside_carlini_and_wagner(request):
    foolbox = pytest.importorskip("foolbox")
    n = request.config.getoption("--pairs")
    weights = str(DATA / "squeezenet1_0_fp16.pt")
    model = load_model("squeezenet1_0", weights).forward_func
    pairs = AdversarialPair.load(DATA / "pairs_cw.npz").select(range(n))
    natural, labels = pairs.natural, {
        "true_label": pairs.true_label, "attack_label": pairs.attack_label
    }  # fmt: skip
    mask = grid_mask((224, 224), cell=16)

    start = time.perf_counter()
    ours = AdversarialPair.from_attack(
        StructuredAttack(model), natural, **labels, batch_size=BATCH, feature_mask=mask,
        confidence=CONFIDENCE, search_steps=STEPS, iterations=ITERATIONS,
    )  # fmt: skip
    found = shown("structured", ours, mask, time.perf_counter() - start)
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=STEPS, steps=ITERATIONS, stepsize=0.01, initial_const=1.0,
        confidence=CONFIDENCE,
    )  # fmt: skip
    start = time.perf_counter()
    theirs = AdversarialPair.from_attack(
        attack, natural, **labels, model=model, batch_size=BATCH
    )
    peer = shown("C&W L2", theirs, mask, time.perf_counter() - start)
    assert torch.isfinite(ours.adversarial).all()
    assert found["success"] >= 0.95
    assert found["groups"] <= 0.5 * peer["groups"]
    assert found["L2"] <= 2 * peer["L2"]
