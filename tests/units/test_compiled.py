"""Compiled and scripted models: hooks act, or are refused by name."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from conftest import SmallNet
from torch import Tensor, nn

from captum_pse import (
    AdversarialCAM,
    AdversarialPair,
    DissectionSensitivity,
    IncrementalAblation,
    PromotionSuppression,
    evaluate_masking,
    grid_mask,
    harden,
    mask_units,
    unit_range,
)
from captum_pse._model.activations import ActivationReader
from captum_pse._model.compiled import uncompiled
from captum_pse._model.layers import find_layer, last_spatial_layer, layer_name
from captum_pse._model.normalized import Normalized
from captum_pse.units.masked_copy import masked_copy

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


X, X0 = torch.rand(2, 4, 3, 12, 12, generator=torch.Generator().manual_seed(3)).double()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def inside(model: nn.Module) -> nn.Module:
    model.net = compiled(model.net)
    return model


def inside_in_place(model: nn.Module) -> nn.Module:
    in_place(model.net)
    in_place(model.net.conv)
    return model


def around_normalized(model: nn.Module) -> nn.Module:
    return compiled(Normalized(inside(model), [0, 0, 0], [1, 1, 1]))


KINDS = [compiled, in_place, inside_in_place, around_normalized]


def pairs_of(model: nn.Module) -> AdversarialPair:
    labels = model(X0).argmax(dim=1)
    return AdversarialPair(X, X0, (labels + 1) % 5, labels)


def masked(model: nn.Module, pairs: AdversarialPair) -> Tensor:
    ranges = {"net.conv": unit_range(model, "net.conv", X0)}
    units = {"net.conv": [0, 3]}
    with mask_units(model, units, mode="mean", ranges=ranges):
        return model(X)


def curves(model: nn.Module, pairs: AdversarialPair) -> Tensor:
    found = evaluate_masking(
        model, pairs, "net.conv", {"a": torch.arange(8.0)}, [0, 4, 8], seeds=[0]
    )
    return torch.tensor([row["clean"] for row in found.table()])


def hardened(model: nn.Module, pairs: AdversarialPair) -> Tensor:
    few, others = pairs.select([0, 1]), pairs.select([2, 3])
    found = harden(model, "net.conv", few, others, counts=[2], max_loss=1.0)
    assert not any("_orig_mod" in name for name, _ in found.model.named_modules())
    return found.model(X)


def masked_by_copy(model: nn.Module, pairs: AdversarialPair) -> Tensor:
    return masked_copy(model, {"net.conv": [0, 3]})(X)


RUNS: dict[str, Callable[[nn.Module, AdversarialPair], Any]] = {
    "mask_units": masked,
    "evaluate_masking": curves,
    "harden": hardened,
    "masked_copy": masked_by_copy,
    "regions": lambda model, pairs: AdversarialCAM(model, "net.conv").attribute(*pairs),
    "units": lambda model, pairs: DissectionSensitivity(model, ["net.conv"]).attribute(
        *pairs
    )[0],
    "dissection": lambda model, pairs: ActivationReader(
        model, [find_layer(model, "net.conv")]
    )((X,))[0],
    "last layer": lambda model, pairs: torch.tensor(
        last_spatial_layer(model, (X,)) == "net.drop"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_act_in_compiled_models(kind):
    plain = Nested().double().eval()
    pairs = pairs_of(plain)
    model = kind(copy.deepcopy(plain))
    with torch.no_grad():
        for n in (1, 4, 8):  # compiles it, for batches of any size
            model(torch.cat([X, X0])[:n])
    for name, run in RUNS.items():
        with torch.no_grad():
            wanted, found = run(plain, pairs), run(model, pairs)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12, msg=name)
    assert (masked(plain, pairs) - plain(X)).abs().max() > 1e-3
    # What runs compiled again is not masked.
    torch.testing.assert_close(model(X), plain(X), rtol=0, atol=1e-12)
    layer = find_layer(model, "net.conv")
    assert layer_name(model, layer) == "net.conv"
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        (compiled, "dense"),
        (compiled, "incremental"),
        (in_place, "incremental"),
        (inside, "incremental"),
        (inside_in_place, "incremental"),
    ],
)
def test_engines_on_compiled_models(kind, engine):
    plain = Nested().double().eval()
    pairs, mask = pairs_of(plain), grid_mask((12, 12), cell=4)
    model = kind(copy.deepcopy(plain))
    found, wanted = (
        PromotionSuppression(m, engine=engine).decompose(*pairs, feature_mask=mask)
        for m in (model, plain)
    )
    assert found.engine == engine
    torch.testing.assert_close(found.effect, wanted.effect, rtol=0, atol=1e-12)
    found, wanted = (
        IncrementalAblation(m, engine=engine).attribute(X, target=1, feature_mask=mask)
        for m in (model, plain)
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_functions_around_compiled_models_and_a_first_run_in_the_block():
    plain = Nested().double().eval()
    model = compiled(plain)
    method = AdversarialCAM(lambda x: model(x), plain.net.conv)
    wanted = AdversarialCAM(plain, "net.conv").attribute(X, X0, 1, 2)
    torch.testing.assert_close(method.attribute(X, X0, 1, 2), wanted)
    before = plain(X)
    with mask_units(model, {"net.conv": [0, 3]}):
        inner = model(X)
        with mask_units(model, {"net.conv": [1]}):
            model(X)
        torch.testing.assert_close(model(X), inner, rtol=0, atol=0)
    assert (inner - before).abs().max() > 1e-3
    torch.testing.assert_close(model(X), before, rtol=0, atol=1e-12)


def test_compiled_models_are_refused_where_torch_cannot_run_them_as_written(
    monkeypatch,
):
    model = compiled(Nested().double().eval())
    monkeypatch.delattr(torch.compiler, "set_stance")
    with pytest.raises(ValueError, match=r"^forward_func: got a model compiled by tor"):
        unit_range(model, "net.conv", X0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize(
    "script",
    [torch.jit.script, lambda model: torch.jit.trace(model, X, check_trace=False)],
    ids=["script", "trace"],
)
def test_torchscript_takes_no_hooks(script):
    net = {
        "conv": nn.Conv2d(3, 8, 3),
        "pool": nn.AdaptiveMaxPool2d(1),
        "flat": nn.Flatten(),
        "head": nn.Linear(8, 5),
    }
    plain = nn.Sequential(OrderedDict(net=nn.Sequential(OrderedDict(net))))
    model = script(plain.double().eval())
    pairs = AdversarialPair(X, X0, 1, 2)
    message = r"^layer: this Conv2d is TorchScript, which takes no hooks; want the orig"
    for name, run in RUNS.items():
        if name not in ("last layer", "masked_copy"):
            with pytest.raises(ValueError, match=message):
                run(model, pairs)
    with pytest.raises(ValueError, match="no layer with a spatial output that takes"):
        last_spatial_layer(model, (X,))
    # A layer beside the TorchScript is one that takes hooks.
    model = nn.Sequential(nn.Conv2d(3, 3, 1).double(), model)
    with torch.no_grad(), mask_units(model, {"0": [0, 1, 2]}):
        assert torch.equal(model(X), model(X0))
    assert last_spatial_layer(model, (X,)) == "0"
    # The engine takes TorchScript for one layer.
    found, wanted = (
        PromotionSuppression(m).decompose(*pairs).effect
        for m in (model, nn.Sequential(model[0], plain))
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_blocks_of_two_threads_run_uncompiled_until_the_last_ends():
    plain = Nested().double().eval()
    model = compiled(plain)
    with torch.no_grad():
        model(X)
        ran: list[int] = []
        with ThreadPoolExecutor(1) as pool:
            first, second = uncompiled(), uncompiled()
            first.__enter__()
            pool.submit(second.__enter__).result()
            first.__exit__(None, None, None)
            handle = plain.net.conv.register_forward_hook(lambda *_: ran.append(1))
            model(X)
            assert ran == [1]
            pool.submit(second.__exit__, None, None, None).result()
        model(X)
        assert ran == [1]
        handle.remove()
