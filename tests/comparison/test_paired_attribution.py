"""PairedAttribution compared with calls of the methods that it wraps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import (
    LRP,
    DeepLift,
    FeatureAblation,
    GradientShap,
    IntegratedGradients,
    LayerGradCam,
    LayerIntegratedGradients,
    NeuronGradient,
    NoiseTunnel,
    Occlusion,
    Saliency,
    visualization,
)
from conftest import SmallNet, TwoInputs, state_of
from torch import Tensor, nn

from captum_pse import AdversarialCAM, PairedAttribution, RegionDecomposition, grid_mask
from captum_pse.regions.result import CLASS_MAPS, REGION_COMPONENTS

pytestmark = [
    pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning"),
    # DeepLift warns on every call.
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),
]

METHODS = {
    "Saliency": (Saliency, {}, {}),
    "IntegratedGradients": (IntegratedGradients, {"n_steps": 5}, {}),
    "IntegratedGradients, reference": (
        IntegratedGradients,
        {"n_steps": 5},
        {"reference": 0.5},
    ),
    "DeepLift": (DeepLift, {}, {"reference": torch.full((1, 3, 64, 64), 0.5)}),
    "GradientShap": (
        GradientShap,
        {"n_samples": 2, "stdevs": 0.1},
        {"reference": torch.zeros(3, 3, 64, 64)},
    ),
    "LRP": (LRP, {}, {}),
    "Occlusion": (
        Occlusion,
        {"sliding_window_shapes": (3, 32, 32), "strides": (3, 16, 16)},
        {},
    ),
    "FeatureAblation": (
        FeatureAblation,
        {"feature_mask": grid_mask((64, 64), cell=32)},
        {"reference": 1},
    ),
    "LayerGradCam": (lambda model: LayerGradCam(model, model.features.conv4), {}, {}),
    "LayerIntegratedGradients": (
        lambda model: LayerIntegratedGradients(model, model.features.conv5),
        {"n_steps": 3},
        {},
    ),
    "NoiseTunnel": (
        lambda model: NoiseTunnel(Saliency(model)),
        {"nt_samples": 2, "stdevs": 0.01},
        {},
    ),
}


def seed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - GradientShap draws from both.


@pytest.mark.parametrize(
    ("make", "options", "reference"), METHODS.values(), ids=METHODS
)
def test_equals_four_calls(demo_model, demo_pairs, make, options, reference):
    x, x0, t, t0 = demo_pairs
    method = make(demo_model)
    calls = {
        "natural_true": (x0, t0),
        "adversarial_true": (x, t0),
        "natural_attack": (x0, t),
        "adversarial_attack": (x, t),
    }
    direct = {"baselines": reference["reference"]} if reference else {}
    wanted = {}
    for name, (side, label) in calls.items():
        seed()  # The same random numbers in all calls.
        wanted[name] = method.attribute(
            side.clone().requires_grad_(), target=label, **direct, **options
        ).detach()
    wanted["promotion"] = wanted["adversarial_attack"] - wanted["natural_attack"]
    wanted["suppression"] = wanted["natural_true"] - wanted["adversarial_true"]

    before, paired = state_of(demo_model), PairedAttribution(method)
    seed()
    with torch.no_grad():
        result = paired.decompose(*demo_pairs, **reference, **options)
    for name, values in wanted.items():
        got = result.attribution(name)
        assert torch.equal(got, values), name
        assert not got.requires_grad
    assert result.source == method.get_name()
    assert state_of(demo_model) == before
    assert not x.requires_grad


@pytest.mark.parametrize("component", REGION_COMPONENTS)
def test_attribute_equals_decompose(demo_model, demo_pairs, component):
    method = PairedAttribution(Saliency(demo_model))
    one = method.attribute(*demo_pairs, component=component)
    assert torch.equal(one, method.decompose(*demo_pairs).attribution(component))


def test_computes_only_the_maps_of_the_component(demo_model, demo_pairs):
    class Counting(Saliency):
        calls = 0

        def attribute(self, inputs: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
            self.calls += 1
            return inputs

    method = Counting(demo_model)
    paired = PairedAttribution(method)
    for component, calls in (("natural_true", 1), ("promotion", 2)):
        method.calls = 0
        paired.attribute(*demo_pairs, component=component)
        assert method.calls == calls


def test_agrees_with_adversarial_cam(demo_model, demo_pairs):
    """Equals AdversarialCAM without ReLU, which LayerGradCam does not apply either."""
    layer = demo_model.features.conv4
    paired = PairedAttribution(LayerGradCam(demo_model, layer)).decompose(*demo_pairs)
    maps = AdversarialCAM(demo_model, layer, relu=False).decompose(*demo_pairs)
    raw = AdversarialCAM(demo_model, layer, relu=False, interpolate=False)
    for name, got in zip(CLASS_MAPS, map(paired.attribution, CLASS_MAPS), strict=True):
        wanted = raw.attribute(*demo_pairs, component=name)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            paired.on_inputs(name), maps.attribution(name), rtol=1e-4, atol=1e-5
        )
    of_maps, of_paired = maps.summary()[0], paired.summary()[0]
    assert of_paired.pop("score") == of_maps.pop("score") == "logit"
    for key, value in of_maps.items():
        assert of_paired[key] == pytest.approx(value, rel=1e-3)


def test_swapping_the_sides_and_labels_swaps_promotion_and_suppression(demo_pairs):
    x, x0, t, t0 = demo_pairs
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12)
    )
    model(x)
    method = PairedAttribution(IntegratedGradients(model.eval()))
    promotion = method.attribute(x, x0, t, t0, n_steps=4)
    suppression = method.attribute(x0, x, t0, t, component="suppression", n_steps=4)
    assert torch.equal(promotion, suppression)


def test_sums_to_the_change_of_the_score(make_case):
    """Integrated gradients are complete, so their differences are as well."""
    case = make_case(2)
    method = PairedAttribution(IntegratedGradients(case.model))
    result = method.decompose(case.adversarial, case.natural, 1, 2, n_steps=200)
    with torch.no_grad():
        gain = case.model(case.adversarial) - case.model(case.natural)
    for values, change in (
        (result.promotion, gain[:, 1]),
        (result.suppression, -gain[:, 2]),
    ):
        torch.testing.assert_close(values.sum((1, 2, 3)), change, rtol=0, atol=0.02)


def test_tuples_and_additional_arguments():
    model = TwoInputs().eval()
    x = (torch.rand(2, 3, 6, 6), torch.rand(2, 4))
    x0 = (torch.rand(1, 3, 6, 6), torch.rand(1, 4))
    method = PairedAttribution(IntegratedGradients(model))
    options = {"reference": (0.0, 0.5), "n_steps": 4}
    image, vector = method.attribute(x, x0, 1, 2, **options)
    assert (image.shape, vector.shape) == (x[0].shape, x[1].shape)
    results = method.decompose(x, x0, 1, 2, **options)
    assert torch.equal(results[0].promotion, image)
    assert torch.equal(results[1].promotion, vector)
    assert results[1].inputs[0] is not x[1]
    assert torch.equal(results[1].inputs[0], x[1])
    # Both the image and the vector have an interpretability score.
    for result in results:
        assert 0 <= result.summary()[0]["promotion_is"] <= 1

    net = SmallNet().eval()
    halved = PairedAttribution(Saliency(net)).decompose(
        x[0], x0[0], 1, 2, additional_forward_args=0.5
    )
    whole = PairedAttribution(Saliency(net)).decompose(x[0], x0[0], 1, 2)
    torch.testing.assert_close(halved.natural_true, whole.natural_true / 2)
    torch.testing.assert_close(
        halved.labels.natural_scores, whole.labels.natural_scores / 2
    )


def test_dense_scores():
    from conftest import Segmenter

    model, x, x0 = Segmenter().eval(), torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    target, true_target = [(1, 2, 3), (1, 0, 0)], [(2, 2, 3), (0, 0, 0)]
    method = Saliency(model)
    got = PairedAttribution(method).attribute(
        x, x0, target, true_target, component="adversarial_true"
    )
    wanted = method.attribute(x.requires_grad_(), target=true_target)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("true_target", [2, [2, 3], torch.tensor([2, 3])])
def test_noise_tunnel_around_it(make_case, true_target, nt_type):
    case, samples = make_case(2, dtype=torch.float32), 3
    method = PairedAttribution(Saliency(case.model))
    torch.manual_seed(1)
    got = NoiseTunnel(method).attribute(
        case.adversarial,
        nt_type=nt_type,
        nt_samples=samples,
        stdevs=0.1,
        baselines=case.natural,
        target=torch.tensor([0, 1]),
        true_target=true_target,
        component="suppression",
        abs=False,
    )
    torch.manual_seed(1)
    noisy = case.adversarial.repeat_interleave(samples, 0)
    noisy = noisy + torch.normal(0, torch.full_like(noisy, 0.1))
    labels = torch.as_tensor(true_target).expand(2).repeat_interleave(samples)
    before = case.natural.repeat_interleave(samples, 0)
    natural, adversarial = (
        Saliency(case.model).attribute(x.requires_grad_(), target=labels, abs=False)
        for x in (before, noisy)
    )
    each = (natural - adversarial).unflatten(0, (2, samples))
    mean, square = each.mean(1), (each**2).mean(1)
    wanted = {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean**2}
    torch.testing.assert_close(got, wanted[nt_type], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("component", REGION_COMPONENTS)
def test_visualize_image_attr(demo_model, demo_pairs, component):
    values = PairedAttribution(Saliency(demo_model)).attribute(
        *demo_pairs, component=component
    )
    figure, _ = visualization.visualize_image_attr(
        values[0].permute(1, 2, 0).numpy(),
        demo_pairs.adversarial[0].permute(1, 2, 0).numpy(),
        method="blended_heat_map",
        sign="all",
        use_pyplot=False,
    )
    figure.canvas.draw()


def test_saved_and_loaded(demo_model, demo_pairs, tmp_path):
    result = PairedAttribution(Saliency(demo_model)).decompose(*demo_pairs)
    result.save(tmp_path / "r.safetensors")
    loaded = RegionDecomposition.load(tmp_path / "r.safetensors")
    assert loaded.source == "Saliency"
    assert torch.equal(loaded.promotion, result.promotion)
    assert loaded.summary() == result.summary()


def test_maps_that_cannot_be_resized_to_the_inputs(demo_model, demo_pairs):
    method = LayerIntegratedGradients(demo_model, demo_model.head)
    result = PairedAttribution(method).decompose(*demo_pairs, n_steps=2)
    assert result.promotion.shape == (3, 12)
    assert "promotion_is" not in result.summary()[0]
    with pytest.raises(ValueError, match=r"shape \(3, 12\), which cannot be resized"):
        result.on_inputs("promotion")
    with pytest.raises(ValueError, match="cannot be resized"):
        result.plot()


def test_name_and_kind(demo_model):
    method = PairedAttribution(IntegratedGradients(demo_model))
    assert method.get_name() == "Paired Integrated Gradients"
    assert method.multiplies_by_inputs
    assert not PairedAttribution(Saliency(demo_model)).multiplies_by_inputs


def test_methods_without_a_target(demo_model):
    with pytest.raises(TypeError, match="method: got DemoNet, want an attribution"):
        PairedAttribution(demo_model)
    neuron = NeuronGradient(demo_model, demo_model.head)
    with pytest.raises(TypeError, match="method: got NeuronGradient, which takes no"):
        PairedAttribution(neuron)


BAD = {
    "no baselines": (Saliency, {"reference": 0}, "reference: Saliency takes no base"),
    "needs baselines": (
        GradientShap,
        {},
        "reference: got None, but Gradient Shap needs baselines",
    ),
    "delta": (
        IntegratedGradients,
        {"return_convergence_delta": True},
        "return_convergence_delta: got True, want False",
    ),
    "component": (Saliency, {"component": "effect"}, "component: got 'effect'"),
    "label": (Saliency, {"target": 99}, "target: got 99 for example 0, want 0 to 11"),
    "mask": (
        FeatureAblation,
        {"feature_mask": torch.zeros(1, 1, 5, 5, dtype=torch.int64)},
        r"feature_mask: got shape \(1, 1, 5, 5\)",
    ),
}


@pytest.mark.parametrize(("make", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input(demo_model, demo_pairs, make, options, message):
    x, x0, t, t0 = demo_pairs
    arguments = {"target": t, "true_target": t0, **options}
    before = state_of(demo_model)
    with pytest.raises(ValueError, match=message):
        PairedAttribution(make(demo_model)).attribute(x, x0, **arguments)
    assert state_of(demo_model) == before


def test_a_method_that_drops_examples(demo_model, demo_pairs):
    class Summed(Saliency):
        def attribute(self, inputs: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
            return inputs.sum(0, keepdim=True)

    with pytest.raises(ValueError, match=r"method: Summed returned \(1, 3, 64, 64\)"):
        PairedAttribution(Summed(demo_model)).attribute(*demo_pairs)
