"""The first-order estimate: how fast, and how near to exact on real pairs."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from captum.attr import FeatureAblation
from scipy.stats import spearmanr

from captum_pse import AdversarialPair, PromotionSuppression, grid_mask

MASK = grid_mask((224, 224), cell=16)


def test_against_two_feature_ablations(squeezenet, data):
    pair = AdversarialPair.load(data / "imagenet" / "pairs_cw.npz").select([0])
    x, x0, t, t0 = pair
    captum = FeatureAblation(squeezenet)
    ours = PromotionSuppression(squeezenet, method="gradient", n_steps=16)

    def two_ablations() -> None:
        for label in (t, t0):
            captum.attribute(x, x0, label, feature_mask=MASK, perturbations_per_eval=16)

    def estimate() -> None:
        ours.decompose(*pair, feature_mask=MASK, perturbations_per_eval=4)

    with torch.no_grad():
        two_ablations()
    estimate()
    ratios = []
    for _ in range(3):
        times = []
        for work in (two_ablations, estimate):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
        print(f"\ntwo ablations {times[0]:.2f} s, estimate {times[1]:.2f} s", end="")
    print(f"\n{statistics.median(ratios):.1f}x faster")


@pytest.mark.parametrize("attack", ["ifgsm", "cw", "ead"])
def test_rank_correlation_with_exact(squeezenet, data, attack):
    pairs = AdversarialPair.load(data / "imagenet" / f"pairs_{attack}.npz")
    options = {"feature_mask": MASK, "perturbations_per_eval": 8}
    rhos: dict[int, list[float]] = {1: [], 4: [], 16: []}
    for i in range(len(pairs)):
        pair = pairs.select(i)
        exact = PromotionSuppression(squeezenet).decompose(*pair, **options)
        for n_steps, found in rhos.items():
            method = PromotionSuppression(
                squeezenet, method="gradient", n_steps=n_steps
            )
            near = method.decompose(*pair, **options)
            found.append(spearmanr(exact.effect[0], near.effect[0]).statistic)
    medians = {n: round(statistics.median(found), 3) for n, found in rhos.items()}
    print(f"\n{attack}: median Spearman's rho of the effect by n_steps: {medians}")
