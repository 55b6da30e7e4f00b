"""Models of torchvision against full passes."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from engine_helpers import ablate
from torch import nn

from captum_pse import EngineWarning


def small(name: str) -> nn.Module:
    """A torchvision model whose units are of about one size, as after training."""
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if options:
        options["init_weights"] = False
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options)
    size = 299 if name.startswith("inception") else 224
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    for parameter_name, parameter in model.named_parameters():
        if "layer_scale" in parameter_name:
            nn.init.uniform_(parameter, 0.1, 1)
        if "heads" in parameter_name:
            nn.init.normal_(parameter, std=0.1)
    if norms:
        with torch.no_grad():
            model.train()(torch.rand(4, 3, size, size))
    return model.eval()


#: One of each family, but for large vision transformers; ``--all-models`` takes all
#: others of at most 100 million weights.
FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s",
    "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "squeezenet1_1", "swin_t", "swin_v2_t",
    "vgg11_bn",
)  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model_name" in metafunc.fixturenames:
        names = list(FAMILIES)
        if metafunc.config.getoption("--all-models"):
            every = torchvision.models.list_models(module=torchvision.models)
            names += [name for name in every if name not in FAMILIES]
        metafunc.parametrize("model_name", names)


def test_torchvision_models(model_name):
    """In single precision at odd sizes; groups at the borders and of all phases."""
    weights = torchvision.models.get_model_weights(model_name).DEFAULT
    if weights.meta["num_params"] > 100e6 and not model_name.startswith("vgg"):
        pytest.skip("more than 100 million weights")
    model = small(model_name)
    fixed = model_name.startswith(("vit", "maxvit"))
    height, width = (224, 224) if fixed else (97, 131)
    x, x0 = torch.rand(2, 1, 3, height, width)
    mask = torch.full((1, 1, height, width), -1)
    for i, (top, left) in enumerate([(0, 0), (0, 7), (41, 50), (66, 37), (-9, -14)]):
        mask[..., top:, left:] = -1
        mask[..., top : (top + 9) or None, left : (left + 14) or None] = i
    wanted = ablate(model, x, x0, mask, "dense")
    spread = float(wanted.scores.max() - wanted.scores.min())
    assert float(wanted.scores.std(dim=1).max()) > 1e-4 * spread
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", EngineWarning)
        found = ablate(model, x, x0, mask)
    error = float((found.scores - wanted.scores).abs().max()) / spread
    print(f"\n{model_name}: {error:.1e} of the spread, {found.note}")
    if error > 1e-4 or caught:
        # Then the model's own rounding has to be as large.
        model.double()
        exact = ablate(model, x.double(), x0.double(), mask, "dense")
        rounding = float((wanted.scores - exact.scores).abs().max()) / spread
        again = ablate(model, x.double(), x0.double(), mask)
        print(f"full passes in single precision: {rounding:.1e}")
        assert max(error, 1e-4) <= rounding
        assert again.engine == "incremental", again.note
        torch.testing.assert_close(
            again.scores, exact.scores, rtol=0, atol=1e-11 * spread
        )
    else:
        assert found.engine == "incremental", found.note
