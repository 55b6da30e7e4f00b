"""AdversarialCAM compared with Captum, analytic results and literal loops."""

from __future__ import annotations

import threading

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam, NoiseTunnel, visualization
from conftest import Segmenter, SmallNet, TwoInputs, state_of
from torch import Tensor, nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from captum_pse import AdversarialCAM, AdversarialPair, RegionDecomposition
from captum_pse._model.layers import last_spatial_layer
from captum_pse.regions.result import CLASS_MAPS, REGION_COMPONENTS

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


def four_calls(
    model: nn.Module, layer: nn.Module, x: Tensor, x0: Tensor, t: Tensor, t0: Tensor
) -> dict[str, Tensor]:
    """Captum's Grad-CAM, one call for each map."""
    method = LayerGradCam(model, layer)
    return {
        name: method.attribute(side, label, relu_attributions=True).detach()
        for name, side, label in (
            ("natural_true", x0, t0),
            ("adversarial_true", x, t0),
            ("natural_attack", x0, t),
            ("adversarial_attack", x, t),
        )
    }


def assert_maps_equal(result: RegionDecomposition, expected: dict[str, Tensor]) -> None:
    for name, wanted in expected.items():
        got = getattr(result, name)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5 * scale, msg=name)
    assert torch.equal(
        result.promotion, result.adversarial_attack - result.natural_attack
    )
    assert torch.equal(
        result.suppression, result.natural_true - result.adversarial_true
    )


NETWORKS = {
    "ResNet-18 layer2": (models.resnet18, "layer2"),
    "ResNet-18 layer3": (models.resnet18, "layer3"),
    "ResNet-18 layer4": (models.resnet18, "layer4"),
    "DenseNet-121": (models.densenet121, "features"),
    "VGG-11 before an in-place ReLU": (models.vgg11, "features.18"),
    "MobileNetV3": (models.mobilenet_v3_small, "features.9"),
}


@pytest.mark.parametrize(("build", "layer"), NETWORKS.values(), ids=NETWORKS)
def test_gradcam_equals_four_calls_of_captum(build, layer):
    model = build(num_classes=10).eval()
    x0 = torch.rand(2, 3, 64, 64)
    x = x0 + 0.3 * torch.randn_like(x0)
    t, t0 = torch.tensor([1, 2]), torch.tensor([3, 4])
    expected = four_calls(model, model.get_submodule(layer), x, x0, t, t0)
    raw = AdversarialCAM(model, layer, interpolate=False).decompose(x, x0, t, t0)
    assert raw.source == layer
    assert_maps_equal(raw, expected)
    size = LayerAttribution.interpolate(expected["natural_true"], (64, 64), "bilinear")
    result = AdversarialCAM(model, model.get_submodule(layer)).decompose(x, x0, t, t0)
    torch.testing.assert_close(result.natural_true, size, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("attack", ["ifgsm", "cw", "ead"])
def test_gradcam_equals_captum_on_real_pairs(data, squeezenet, attack):
    pairs = AdversarialPair.load(data / "imagenet" / f"pairs_{attack}.npz").select(
        [0, 5]
    )
    layer = squeezenet.model.features[12]
    method = AdversarialCAM(squeezenet, layer, interpolate=False)
    assert_maps_equal(method.decompose(*pairs), four_calls(squeezenet, layer, *pairs))


def test_cam_is_the_heads_row_times_the_activations(demo_model, demo_pairs):
    x, x0, t, t0 = demo_pairs
    layer = demo_model.features.conv5
    result = AdversarialCAM(
        demo_model, layer, "cam", relu=False, interpolate=False
    ).decompose(*demo_pairs)
    with torch.no_grad():
        for name, side, label in (
            ("natural_true", x0, t0),
            ("adversarial_attack", x, t),
        ):
            maps = torch.einsum(
                "nk,nkij->nij", demo_model.head.weight[label], demo_model.features(side)
            )
            torch.testing.assert_close(getattr(result, name)[:, 0], maps)
            # The mean of the map plus the bias is the score.
            scores = maps.mean((1, 2)) + demo_model.head.bias[label]
            torch.testing.assert_close(
                scores, demo_model(side)[range(3), label], rtol=1e-4, atol=1e-4
            )


def test_gradcam_of_a_pooled_linear_head_is_cam_by_the_area(demo_model, demo_pairs):
    results = [
        AdversarialCAM(
            demo_model, "features.conv5", method, interpolate=False
        ).decompose(*demo_pairs)
        for method in ("cam", "gradcam")
    ]
    for name in CLASS_MAPS:
        cam, gradcam = (getattr(result, name) for result in results)
        torch.testing.assert_close(cam / 64, gradcam, rtol=1e-4, atol=1e-6)


def test_gradcam_plus_plus_equals_its_equation(make_case):
    """Equation 19 in loops over units and positions, divided by exp(S)."""
    case = make_case(2)
    case.adversarial[1], case.natural[1] = 0, 0
    result = AdversarialCAM(
        case.model, case.model.norm, "gradcam++", relu=False, interpolate=False
    ).decompose(case.adversarial, case.natural, 1, 2)
    kept: list[Tensor] = []
    handle = case.model.norm.register_forward_hook(lambda m, i, o: kept.append(o))
    score = case.model(case.natural)[:, 2].sum()
    handle.remove()
    (a,) = kept
    (g,) = torch.autograd.grad(score, a)
    a = a.detach()
    expected = torch.zeros_like(result.natural_true)
    for n in range(2):
        for k in range(a.shape[1]):
            total = sum(float(v) for v in a[n, k].flatten())
            weight = 0.0
            for i in range(6):
                for j in range(6):
                    slope = float(g[n, k, i, j])
                    below = 2 * slope**2 + total * slope**3
                    alpha = 0.0 if below == 0 else slope**2 / below
                    weight += alpha * max(slope, 0.0)
            expected[n, 0] += weight * a[n, k].detach()
    torch.testing.assert_close(result.natural_true, expected)


def test_gradcam_plus_plus_of_a_dead_layer_is_zero():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    nn.init.constant_(model[0].bias, -100.0)
    x = torch.rand(2, 3, 2, 2)
    result = AdversarialCAM(model, model[1], "gradcam++").decompose(x, x, 0, 1)
    assert all((getattr(result, name) == 0).all() for name in CLASS_MAPS)


def by_hand(
    model: nn.Module, layer: nn.Module, x: Tensor, label: int, to_maps
) -> Tensor:
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda m, i, o: kept.append(o))
    score = model(x)[:, label].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    a, g = to_maps(kept[0].detach()), to_maps(gradient)
    spatial = tuple(range(2, a.dim()))
    return (g.mean(spatial, keepdim=True) * a).sum(1, keepdim=True).clamp(min=0)


def vit() -> tuple[nn.Module, nn.Module, object, dict[str, object]]:
    model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return (
        model,
        model.encoder.layers[0],
        lambda a: a[:, 1:].unflatten(1, (4, 4)).movedim(-1, 1),
        {"channel_dim": -1, "grid": (4, 4), "num_prefix_tokens": 1},
    )


def swin() -> tuple[nn.Module, nn.Module, object, dict[str, object]]:
    model = SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=5)
    return (
        model,
        model.features[-1],
        lambda a: a.movedim(-1, 1),
        {"channel_dim": -1},
    )


@pytest.mark.parametrize("build", [vit, swin])
def test_transformers(build):
    model, layer, to_maps, options = build()
    model.eval()
    x0 = torch.rand(2, 3, 32, 32)
    x = x0 + 0.3 * torch.randn_like(x0)
    method = AdversarialCAM(model, layer, interpolate=False, **options)
    result = method.decompose(x, x0, 1, 2)
    assert result.natural_true.shape == (2, 1, 4, 4)
    expected = by_hand(model, layer, x, 1, to_maps)
    assert expected.abs().max() > 0
    torch.testing.assert_close(result.adversarial_attack, expected)


@pytest.mark.parametrize(
    ("n_dims", "conv", "pool"),
    [(1, nn.Conv1d, nn.AdaptiveMaxPool1d), (3, nn.Conv3d, nn.AdaptiveMaxPool3d)],
)
def test_one_and_three_dimensions(n_dims, conv, pool):
    model = nn.Sequential(
        conv(2, 4, 2, stride=2), nn.Tanh(), pool(2), nn.Flatten(), nn.LazyLinear(3)
    )
    x0 = torch.rand(2, 2, *(8,) * n_dims)
    model(x0)
    x = x0 + 0.3 * torch.randn_like(x0)
    result = AdversarialCAM(model, model[1]).decompose(x, x0, 1, 2)
    assert result.natural_true.shape == (2, 1, *(8,) * n_dims)
    raw = AdversarialCAM(model, model[1], interpolate=False).decompose(x, x0, 1, 2)
    torch.testing.assert_close(
        raw.natural_true, by_hand(model, model[1], x0, 2, lambda a: a)
    )


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_several_layers_in_one_pass_equal_single_layers(method):
    model = models.resnet18(num_classes=5).eval()
    x0 = torch.rand(2, 3, 64, 64)
    x = x0 + 0.3 * torch.randn_like(x0)
    names = ["layer4", "layer2", "layer3"]
    passes = []
    handle = model.fc.register_forward_hook(lambda m, i, o: passes.append(len(o)))
    together = AdversarialCAM(model, names, method).decompose(x, x0, 1, 2)
    handle.remove()
    assert passes == [4]
    assert [result.source for result in together] == names
    for name, result in zip(names, together, strict=True):
        single = AdversarialCAM(model, name, method).decompose(x, x0, 1, 2)
        for which in CLASS_MAPS:
            torch.testing.assert_close(getattr(result, which), getattr(single, which))
    maps = AdversarialCAM(model, names, method).attribute(x, x0, 1, 2)
    assert isinstance(maps, list)
    assert torch.equal(maps[1], together[1].promotion)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "mode", [torch.enable_grad, torch.no_grad, torch.inference_mode]
)
@pytest.mark.parametrize("frozen", [False, True])
def test_any_grad_mode_leaves_the_model_unchanged(make_case, mode, frozen, fails):
    case = make_case()
    expected = AdversarialCAM(case.model, "norm").attribute(
        case.adversarial, case.natural, 1, 2
    )
    case.model.requires_grad_(not frozen)
    case.model.drop.train()
    case.model.drop.p = 0.0
    before = state_of(case.model)
    with mode():
        if fails:
            with pytest.raises(ValueError, match=r"^true_target: got 99"):
                AdversarialCAM(case.model, "norm").attribute(
                    case.adversarial, case.natural, 1, 99
                )
        else:
            got = AdversarialCAM(case.model, "norm").attribute(
                case.adversarial, case.natural, 1, 2
            )
            torch.testing.assert_close(got, expected)
            assert not got.requires_grad
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert state_of(case.model) == before


def test_nothing_before_the_layer_is_stored(make_case):
    case = make_case()
    case.adversarial.requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.shape) or x, lambda x: x
    ):
        AdversarialCAM(case.model, "norm", interpolate=False).attribute(
            case.adversarial, case.natural, 1, 2
        )
    assert saved
    assert (
        torch.Size([4, 3, 6, 6]) not in saved
    )  # what the first convolution would keep
    assert case.adversarial.grad is None


def test_threads_share_a_model(make_case):
    case = make_case(2)
    inputs = [case.adversarial + i for i in range(8)]
    expected = [
        AdversarialCAM(case.model, "norm").attribute(x, case.natural, 1, 2)
        for x in inputs
    ]
    got: list[Tensor | None] = [None] * len(inputs)
    barrier = threading.Barrier(len(inputs))

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(5):
            got[i] = AdversarialCAM(case.model, "norm").attribute(
                inputs[i], case.natural, 1, 2
            )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert not case.model.norm._forward_hooks


def test_tuples_arguments_and_dense_labels(make_case):
    case = make_case(2)
    scale = torch.tensor([[1.0], [3.0]]).double()
    plain, scaled = (
        AdversarialCAM(case.model, "norm").attribute(
            case.adversarial, case.natural, 1, 2, additional_forward_args=args
        )
        for args in (None, scale)
    )
    torch.testing.assert_close(scaled, plain * scale[:, :, None, None])
    model = TwoInputs().eval()
    x = (torch.rand(2, 3, 6, 6), torch.rand(2, 4))
    x0 = tuple(torch.rand_like(part) for part in x)
    maps = AdversarialCAM(model, "image.norm").attribute(x, x0, 1, 2)
    assert maps.shape == (2, 1, 6, 6)
    dense = Segmenter()
    got = AdversarialCAM(dense, "conv").attribute(x[0], x0[0], (1, 2, 3), (0, 2, 3))
    # The score at a position depends on the layer at that position only.
    assert got[:, 0, 2, 3].abs().max() > 0


def test_labels_default_to_predictions(demo_model, demo_pairs):
    x, x0, _, _ = demo_pairs
    method = AdversarialCAM(demo_model, "features.conv5")
    assert torch.equal(method.attribute(x, x0), method.attribute(*demo_pairs))


@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("true_target", [2, [2, 3]])
def test_noise_tunnel(make_case, nt_type, true_target):
    case = make_case(2, dtype=torch.float32)
    method = AdversarialCAM(case.model, case.model.norm)
    arguments = {"target": [0, 1], "true_target": true_target}
    torch.manual_seed(1)
    got = NoiseTunnel(method).attribute(
        case.adversarial,
        nt_type=nt_type,
        nt_samples=3,
        stdevs=0.1,
        baselines=case.natural,
        **arguments,
    )
    torch.manual_seed(1)
    noisy = case.adversarial.repeat_interleave(3, 0)
    noisy = noisy + torch.normal(0, torch.full_like(noisy, 0.1))
    each = torch.stack(
        [method.attribute(noisy[k::3], case.natural, **arguments) for k in range(3)]
    )
    mean, square = each.mean(0), (each**2).mean(0)
    wanted = {"smoothgrad": mean, "smoothgrad_sq": square, "vargrad": square - mean**2}
    torch.testing.assert_close(got, wanted[nt_type], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("component", REGION_COMPONENTS)
def test_every_component_goes_into_captums_tools(demo_model, demo_pairs, component):
    pair = demo_pairs.select(0)
    maps = AdversarialCAM(demo_model, "features.conv5", interpolate=False).attribute(
        *pair, component=component
    )
    large = LayerAttribution.interpolate(maps, (64, 64), "bilinear")
    figure, _ = visualization.visualize_image_attr(
        large[0].permute(1, 2, 0).numpy(),
        pair.adversarial[0].permute(1, 2, 0).numpy(),
        "blended_heat_map",
        sign="all",
        use_pyplot=False,
    )
    figure.canvas.draw()


def test_results_load_back(demo_model, demo_pairs, tmp_path):
    result = AdversarialCAM(demo_model, "features.conv4").decompose(*demo_pairs)
    result.save(tmp_path / "maps.safetensors")
    loaded = RegionDecomposition.load(tmp_path / "maps.safetensors")
    assert loaded.summary() == result.summary()
    assert loaded.source == "features.conv4"
    assert torch.equal(loaded.promotion, result.promotion)
    torch.save([1], tmp_path / "other")
    with pytest.raises(ValueError, match=r"path: .* was not written by save"):
        RegionDecomposition.load(tmp_path / "other")


class Returns(nn.Module):
    """Returns a given output and runs a layer a given number of times."""

    def __init__(self, output: object = None, runs: int = 1) -> None:
        super().__init__()
        self.inner = Giver(output)
        self.head = nn.Linear(12, 3)
        self.runs = runs

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.runs):
            self.inner(x)
        return self.head(x.flatten(1))


class Giver(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return x if self.output is None else self.output


BAD = {
    "no such name": (SmallNet, "nrom", {}, ValueError, "layer: .* did you mean norm"),
    "another model's": (
        SmallNet,
        nn.ReLU(),
        {},
        ValueError,
        "layer: got a ReLU that is not in the model",
    ),
    "not a layer": (SmallNet, 3, {}, TypeError, "layer: got int, want a module"),
    "no layers": (SmallNet, [], {}, ValueError, "layer: got an empty sequence"),
    "not spatial": (
        SmallNet,
        "drop",
        {},
        ValueError,
        r"layer: got an output of shape \(4, 8\), want \(N, K, ...\)",
    ),
    "a tuple": (
        lambda: Returns((1, 2)),
        "inner",
        {},
        TypeError,
        "layer: this Giver returned tuple, want one tensor",
    ),
    "never called": (
        lambda: Returns(runs=0),
        "inner",
        {},
        ValueError,
        "layer: this Giver ran 0 times in a pass",
    ),
    "called twice": (
        lambda: Returns(runs=2),
        "inner",
        {},
        ValueError,
        "layer: this Giver ran 2 times in a pass",
    ),
    "of no effect": (
        lambda: Returns(),
        "inner",
        {},
        ValueError,
        "layer: the scores cannot be differentiated by",
    ),
    "method": (SmallNet, "norm", {"method": "lime"}, ValueError, "method: got 'lime'"),
    "cam without a head": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        "0",
        {"method": "cam"},
        ValueError,
        "head: the model has no linear layer with 4 inputs",
    ),
    "cam without a pool": (
        SmallNet,
        "norm",
        {"method": "cam"},
        ValueError,
        "head: the scores are not those of the layer's global average pool",
    ),
    "cam with another head": (
        SmallNet,
        "norm",
        {"method": "cam", "head": nn.Linear(3, 5)},
        ValueError,
        "head: got .* want 8 inputs",
    ),
    "training mode": (
        lambda: SmallNet().train(),
        "norm",
        {},
        ValueError,
        "forward_func: got a model whose norm is in training mode",
    ),
}


@pytest.mark.parametrize(
    ("build", "layer", "options", "error", "message"), BAD.values(), ids=BAD
)
def test_bad_input(build, layer, options, error, message):
    model = build()
    if message.find("training mode") < 0:
        model.eval()
    x = torch.rand(2, 3, 2, 2)
    with pytest.raises(error, match=message):
        AdversarialCAM(model, layer, **options).decompose(x, x + 1, 1, 2)
    assert not any(module._forward_hooks for module in model.modules())


LAST = {
    "ResNet-18, whose ReLU runs twice": (models.resnet18, "layer4"),
    "SqueezeNet": (models.squeezenet1_0, "classifier.2"),
    "VGG-11": (models.vgg11, "avgpool"),
    "GoogLeNet": (lambda: models.googlenet(init_weights=False), "inception5b"),
    "MobileNetV3": (models.mobilenet_v3_small, "features"),
}


@pytest.mark.parametrize(("build", "name"), LAST.values(), ids=LAST)
def test_last_spatial_layer(build, name):
    model = build().eval()
    assert last_spatial_layer(model, (torch.rand(1, 3, 224, 224),)) == name
    assert not any(module._forward_hooks for module in model.modules())


def test_no_spatial_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(
        ValueError, match="layer: the model has no layer with a spatial"
    ):
        last_spatial_layer(model, (torch.rand(1, 3, 2, 2),))


def test_names_without_a_model_and_unknown_components(demo_model, demo_pairs):
    with pytest.raises(
        ValueError, match="layer: got the name 'head', but forward_func"
    ):
        AdversarialCAM(lambda x: demo_model(x), "head")
    around = AdversarialCAM(lambda x: demo_model(x), demo_model.features.conv5)
    direct = AdversarialCAM(demo_model, "features.conv5")
    assert torch.equal(around.attribute(*demo_pairs), direct.attribute(*demo_pairs))
    with pytest.raises(
        ValueError, match="component: got 'effect', want one of promotion"
    ):
        direct.attribute(*demo_pairs, component="effect")
    assert direct.get_name() == "AdversarialCAM"
