"""The three sets of real pairs on a real SqueezeNet."""

from __future__ import annotations

import json

import pytest
import torch
from captum.attr import FeatureAblation

from captum_pse import AdversarialPair, PromotionSuppression, grid_mask
from captum_pse.cli import main

ATTACKS = ("ifgsm", "cw", "ead")


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_model_says_the_labels(data, squeezenet, attack):
    pairs = AdversarialPair.load(data / "imagenet" / f"pairs_{attack}.npz")
    assert len(pairs) == 24
    pairs.verify(squeezenet)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("n", "masks"), [(1, "shared"), (2, "shared"), (2, "per example")]
)
def test_equals_two_feature_ablations(data, squeezenet, attack, masks, n, request):
    every = request.config.getoption("--all-pairs")
    pairs = AdversarialPair.load(data / "imagenet" / f"pairs_{attack}.npz")
    mask = grid_mask((224, 224), cell=32 if every else 75)
    if masks == "per example":
        mask = torch.cat([mask.roll(5 * i, dims=3) for i in range(n)])
    method, ablation = PromotionSuppression(squeezenet), FeatureAblation(squeezenet)
    worst = 0.0
    for start in range(0, len(pairs) if every else n, n):
        x, x0, t, t0 = pairs.select(slice(start, start + n))
        options = {"feature_mask": mask, "perturbations_per_eval": 4}
        result = method.decompose(x, x0, t, t0, **options)
        for component, signed, label, sign in (
            ("promotion", result.promotion_change, t, 1),
            ("suppression", result.suppression_change, t0, -1),
        ):
            expected = sign * ablation.attribute(
                x, baselines=x0, target=label, **options
            )
            spread = result.groups.spread(signed, result.inputs)[0]
            torch.testing.assert_close(spread, expected, rtol=0, atol=1e-4)
            got = result.attribution(component)
            torch.testing.assert_close(got, expected.clamp(min=0), rtol=0, atol=1e-4)
            worst = max(worst, float((spread - expected).abs().max()))
    print(f"\n{attack}, {masks} masks, N={n}: largest difference {worst:.1e} logits")


def test_explain(data, tmp_path):
    """A few pairs and large cells: the whole is for the benchmarks."""
    folder, out = data / "imagenet", tmp_path / "out"
    pairs = AdversarialPair.load(folder / "pairs_cw.npz").select(range(3))
    pairs.save(tmp_path / "cw.npz")
    command = ["explain", "--model", "squeezenet1_0", "--cell", "112"]
    command += ["--weights", str(folder / "squeezenet1_0_fp16.pt")]
    command += ["--pairs", str(tmp_path / "cw.npz"), "--out", str(out)]
    assert main(command) == 0
    records = json.loads((out / "summary.json").read_text())["pairs"]
    assert [r["adversarial_prediction"] for r in records] == pairs.attack_label.tolist()
    assert [r["natural_prediction"] for r in records] == pairs.true_label.tolist()
    # One of each pair, and that of the refinement.
    assert len(list((out / "figures").iterdir())) == 4
