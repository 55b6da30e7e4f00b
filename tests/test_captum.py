"""Captum's tools applied to PromotionSuppression."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from captum_pse import PromotionSuppression, grid_mask
from captum_pse.pixels.result import COMPONENTS

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")

TRUE_TARGETS = {"int": 2, "list": [2, 3], "tensor": torch.tensor([2, 3])}


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("true_target", TRUE_TARGETS.values(), ids=TRUE_TARGETS)
def test_noise_tunnel(make_case, true_target, nt_type):
    """Equals the moments of the attributions of all noisy copies."""
    case, samples = make_case(2, dtype=torch.float32), 3
    method, mask = PromotionSuppression(case.model), grid_mask((6, 6), cell=3)
    target = torch.tensor([0, 1])
    torch.manual_seed(1)
    got = NoiseTunnel(method).attribute(
        case.adversarial,
        nt_type=nt_type,
        nt_samples=samples,
        stdevs=0.1,
        baselines=case.natural,
        target=target,
        true_target=true_target,
        feature_mask=mask,
    )
    torch.manual_seed(1)
    noisy = case.adversarial.repeat_interleave(samples, 0)
    noisy = noisy + torch.normal(0, torch.full_like(noisy, 0.1))
    each = torch.stack(
        [
            torch.cat(
                [
                    method.attribute(
                        noisy[i * samples + k][None],
                        case.natural[i][None],
                        int(target[i]),
                        2 if isinstance(true_target, int) else int(true_target[i]),
                        feature_mask=mask,
                    )
                    for i in range(2)
                ]
            )
            for k in range(samples)
        ]
    )
    mean, square = each.mean(0), (each**2).mean(0)
    wanted = {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean**2}
    torch.testing.assert_close(got, wanted[nt_type], rtol=1e-4, atol=1e-5)


def test_noise_tunnel_expands_masks_of_each_example(make_case):
    case = make_case(2, dtype=torch.float32)
    mask = torch.randint(0, 3, (2, 1, 6, 6))
    method = PromotionSuppression(case.model)
    arguments = {"baselines": case.natural, "target": 1, "true_target": [2, 3]}
    got = NoiseTunnel(method).attribute(
        case.adversarial, nt_samples=2, stdevs=1e-7, feature_mask=mask, **arguments
    )
    plain = method.attribute(case.adversarial, feature_mask=mask, **arguments)
    torch.testing.assert_close(got, plain, rtol=0, atol=1e-4)


def test_infidelity_of_a_linear_model_is_zero():
    """Ablating a feature of a linear model removes weight times feature from it."""
    weight = torch.rand(3, 4)
    x, x0 = torch.rand(2, 4), torch.zeros(2, 4)

    def forward(inputs: Tensor) -> Tensor:
        return inputs @ weight.T

    attributions = PromotionSuppression(forward).attribute(
        x, x0, 1, 2, component="promotion"
    )
    torch.testing.assert_close(attributions, weight[1] * x)

    def perturb(inputs: Tensor, baselines: Tensor) -> tuple[Tensor, Tensor]:
        keep = (torch.rand_like(inputs) > 0.5).to(inputs)
        return 1 - keep, inputs * keep

    score = infidelity(
        forward, perturb, x, attributions, baselines=x0, target=1, n_perturb_samples=5
    )
    torch.testing.assert_close(score, torch.zeros(2), rtol=0, atol=1e-10)
    wrong = infidelity(
        forward,
        perturb,
        x,
        attributions * 2,
        baselines=x0,
        target=1,
        n_perturb_samples=5,
    )
    assert (wrong > 1e-3).all()


@pytest.mark.parametrize("true_target", TRUE_TARGETS.values(), ids=TRUE_TARGETS)
def test_sensitivity_max(make_case, true_target):
    case = make_case(2, dtype=torch.float32)
    method = PromotionSuppression(case.model)
    arguments = {
        "baselines": case.natural,
        "target": [0, 1],
        "true_target": true_target,
        "feature_mask": grid_mask((6, 6), cell=3),
        "n_perturb_samples": 2,
    }
    near = sensitivity_max(
        method.attribute, case.adversarial, perturb_radius=1e-6, **arguments
    )
    far = sensitivity_max(
        method.attribute, case.adversarial, perturb_radius=0.5, **arguments
    )
    assert near.shape == (2,)
    assert (near < 1e-2).all()
    assert (far > near).all()


def test_sensitivity_max_with_tuples(make_case):
    case = make_case(2, dtype=torch.float32)
    score = sensitivity_max(
        PromotionSuppression(case.model).attribute,
        (case.adversarial,),
        baselines=(case.natural,),
        target=0,
        true_target=1,
        n_perturb_samples=2,
    )
    assert score.isfinite().all()


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("method", ["heat_map", "blended_heat_map"])
def test_visualize_image_attr(demo_model, demo_pairs, component, method):
    mpl.use("agg")
    pair = demo_pairs.select(0)
    attributions = PromotionSuppression(demo_model).attribute(
        *pair, component=component
    )
    image, values = (
        x[0].permute(1, 2, 0).numpy() for x in (pair.adversarial, attributions)
    )
    figure, _ = visualization.visualize_image_attr(
        values, image, method=method, sign="all", use_pyplot=False
    )
    figure.canvas.draw()


def test_has_the_shape_of_other_attributions(demo_model, demo_pairs):
    inputs, baselines, target, _ = demo_pairs
    attributions, delta = IntegratedGradients(demo_model).attribute(
        inputs, baselines, target, return_convergence_delta=True, n_steps=20
    )
    assert (
        attributions.shape
        == PromotionSuppression(demo_model)
        .attribute(*demo_pairs, feature_mask=grid_mask((64, 64), cell=32))
        .shape
    )
    assert delta.shape == (3,)


def test_name_and_kind():
    method = PromotionSuppression(lambda x: x)
    assert method.get_name() == "PromotionSuppression"
    assert method.multiplies_by_inputs
    assert not method.has_convergence_delta()
