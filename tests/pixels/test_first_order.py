"""The first-order estimate compared with integrated gradients and analytic results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel
from conftest import Segmenter, TwoInputs, state_of
from scipy.stats import spearmanr
from torch import Tensor

from captum_pse import (
    AdversarialPair,
    PixelDecomposition,
    PromotionSuppression,
    channel_mask,
    grid_mask,
)

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


@pytest.mark.parametrize("points", [1, 3, 100])
@pytest.mark.parametrize("n_steps", [1, 5])
@pytest.mark.parametrize("per_example", [False, True])
def test_equals_captums_integrated_gradients(make_case, per_example, n_steps, points):
    case = make_case(3)
    mask = grid_mask((6, 6), cell=4)
    if per_example:
        mask = torch.randint(-1, 5, (3, 3, 6, 6))
    method = PromotionSuppression(case.model, method="gradient", n_steps=n_steps)
    before = state_of(case.model)
    result = method.decompose(
        case.adversarial,
        case.natural,
        [1, 4, 0],
        [2, 3, 1],
        feature_mask=mask,
        perturbations_per_eval=points,
    )
    assert state_of(case.model) == before
    for labels, sign, got in (
        ([1, 4, 0], 1, result.promotion_change),
        ([2, 3, 1], -1, result.suppression_change),
    ):
        each = IntegratedGradients(case.model).attribute(
            case.adversarial,
            case.natural,
            target=labels,
            n_steps=n_steps,
            method="gausslegendre",
        )
        ids = mask.expand(3, 3, 6, 6)
        wanted = torch.stack(
            [(each * (ids == g)).sum((1, 2, 3)) for g in result.groups.ids], dim=1
        )
        torch.testing.assert_close(got, sign * wanted, rtol=1e-9, atol=1e-12)
    assert not result.promotion_change.requires_grad


def test_is_exact_for_linear_models():
    weight = torch.rand(3, 4).double()
    x, x0 = torch.rand(2, 2, 4).double()

    def forward(inputs: Tensor) -> Tensor:
        return inputs @ weight.T

    one, other = (
        PromotionSuppression(forward, method=method, n_steps=1).decompose(x, x0, 1, 2)
        for method in ("exact", "gradient")
    )
    torch.testing.assert_close(one.promotion_change, other.promotion_change)
    torch.testing.assert_close(one.suppression_change, other.suppression_change)
    for result in (one, other):
        zero = torch.zeros(2, 2).double()
        torch.testing.assert_close(result.convergence_delta, zero, rtol=0, atol=1e-12)


def test_products_are_split_but_counted_twice_by_ablation():
    """For Z = x1 x2, the estimate gives each feature half of Z; ablating either feature
    removes all of it."""

    def forward(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] * x[:, 1], -x[:, 0] * x[:, 1]], dim=1)

    x, x0 = torch.ones(1, 2), torch.zeros(1, 2)
    estimate = PromotionSuppression(forward, method="gradient", n_steps=2)
    assert estimate.decompose(x, x0, 0, 1).promotion.tolist() == [[0.5, 0.5]]
    exact = PromotionSuppression(forward).decompose(x, x0, 0, 1)
    assert exact.promotion.tolist() == [[1, 1]]
    assert exact.convergence_delta.tolist() == [[1, 1]]


def test_the_sum_is_the_change_of_the_scores(make_case):
    case = make_case(2)
    errors = []
    for n_steps in (1, 4, 16, 64):
        method = PromotionSuppression(case.model, method="gradient", n_steps=n_steps)
        result = method.decompose(case.adversarial, case.natural, 1, 2)
        with torch.no_grad():
            gain = case.model(case.adversarial) - case.model(case.natural)
        sums = torch.stack(
            [
                result.promotion_change.sum(1) - gain[:, 1],
                result.suppression_change.sum(1) + gain[:, 2],
            ],
            dim=1,
        )
        torch.testing.assert_close(result.convergence_delta, sums)
        errors.append(float(sums.abs().max()))
    assert errors[-1] < 1e-2 < errors[0]


def test_tuples_arguments_and_dense_scores():
    model = TwoInputs().double().eval()
    x = (torch.rand(2, 3, 6, 6).double(), torch.rand(2, 4).double())
    x0 = (torch.rand(1, 3, 6, 6).double(), torch.rand(1, 4).double())
    method = PromotionSuppression(model, method="gradient", n_steps=32)
    image, vector = method.attribute(x, x0, 1, 2, component="promotion")
    assert (image.shape, vector.shape) == (x[0].shape, x[1].shape)
    delta = method.decompose(x, x0, 1, 2).convergence_delta
    assert float(delta.abs().max()) < 1e-2

    def image_alone(image: Tensor, vector: Tensor) -> Tensor:
        return model.image(image)

    _, unused = PromotionSuppression(image_alone, method="gradient").attribute(
        x, x0, 1, 2
    )
    assert unused.eq(0).all()

    net = Segmenter().double().eval()
    y, y0 = torch.rand(2, 2, 3, 6, 6).double()
    method = PromotionSuppression(net, method="gradient", n_steps=32)
    result = method.decompose(y, y0, (1, 2, 3), (2, 2, 3))
    assert float(result.convergence_delta.abs().max()) < 1e-6


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_any_grad_mode_and_with_noise_tunnel(make_case, mode):
    case = make_case(2, dtype=torch.float32)
    for parameter in case.model.parameters():
        parameter.requires_grad_(False)
    method = PromotionSuppression(case.model, method="gradient", n_steps=3)
    wanted = method.attribute(case.adversarial, case.natural, 1, 2)
    with mode():
        got = method.attribute(case.adversarial, case.natural, 1, 2)
    torch.testing.assert_close(got, wanted)
    noisy = NoiseTunnel(method).attribute(
        case.adversarial,
        nt_samples=2,
        stdevs=1e-7,
        baselines=case.natural,
        target=1,
        true_target=2,
    )
    torch.testing.assert_close(noisy, wanted, rtol=1e-3, atol=1e-4)


def test_results_state_that_they_are_estimates(
    make_case, demo_model, demo_pairs, tmp_path
):
    method = PromotionSuppression(demo_model, method="gradient", n_steps=2)
    result = method.decompose(*demo_pairs, feature_mask=grid_mask((64, 64), cell=16))
    assert repr(result).endswith("16 groups, estimated)")
    result.save(tmp_path / "r.safetensors")
    loaded = PixelDecomposition.load(tmp_path / "r.safetensors")
    assert loaded.method == "gradient"
    assert torch.equal(loaded.promotion_change, result.promotion_change)
    assert "estimated from gradients" in result.plot().get_suptitle()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fast"}, "method: got 'fast', want one of exact, gradient"),
        ({"n_steps": 0}, "n_steps: got 0, want a positive int"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PromotionSuppression(lambda x: x, **options)


def test_groups_without_perturbation_take_no_passes(make_case):
    """Their effect is exactly 0."""
    case, passes = make_case(2), []
    x = case.natural.clone()
    x[0, :, :2, :2] += 1
    x[1, 1, 4:, 4:] += 1

    def forward(inputs: Tensor) -> Tensor:
        passes.append(len(inputs))
        return case.model(inputs)

    method = PromotionSuppression(forward)
    result = method.decompose(
        x,
        case.natural,
        1,
        2,
        feature_mask=grid_mask((6, 6), cell=2),
        perturbations_per_eval=1,
    )
    # Two passes for the sides of the pair, and two for two of the nine groups.
    assert len(passes) == 4
    perturbed = torch.zeros(9, dtype=torch.bool)
    perturbed[[0, 8]] = True
    assert result.promotion_change[:, ~perturbed].eq(0).all()
    assert result.promotion_change[:, perturbed].ne(0).any()
    passes.clear()
    same = method.decompose(
        case.natural, case.natural, 1, 2, feature_mask=channel_mask(x)
    )
    assert len(passes) == 2
    assert same.effect.eq(0).all()


def test_finds_the_groups_that_matter_on_real_pairs(squeezenet, data: Path):
    pairs = AdversarialPair.load(data / "imagenet" / "pairs_cw.npz").select([0])
    mask = grid_mask((224, 224), cell=32)
    exact, estimate = (
        PromotionSuppression(squeezenet, method=method).decompose(
            *pairs, feature_mask=mask, perturbations_per_eval=4
        )
        for method in ("exact", "gradient")
    )
    rho = spearmanr(exact.effect[0], estimate.effect[0]).statistic
    assert rho > 0.7
    error = estimate.convergence_delta.abs() / estimate.promotion_change.sum()
    assert float(error.max()) < 0.05
