"""Wrong arguments raise errors that name the argument."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import SmallNet
from torch import nn

from captum_pse import AdversarialPair, PromotionSuppression, channel_mask, grid_mask

X = torch.rand(2, 3, 6, 6)
X0 = torch.rand(2, 3, 6, 6)
NAN, INF = X.clone(), X0.clone()
NAN[0, 0, 0, 0], INF[1, 0, 0, 0] = float("nan"), float("inf")

#: Changes to a valid call, the error, and its message.
ATTRIBUTE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    # The pair.
    "shapes differ": (
        {"baselines": X0[:, :, :5]},
        ValueError,
        r"baselines: got shape \(2, 3, 5, 6\), want \(2, 3, 6, 6\) as inputs",
    ),
    "numbers of examples differ": (
        {"baselines": torch.cat([X0, X0])},
        ValueError,
        r"baselines: got shape \(4, 3, 6, 6\), want \(2, 3, 6, 6\)",
    ),
    "baselines lack the batch dimension": (
        {"baselines": X0[0]},
        ValueError,
        r"baselines: got shape \(3, 6, 6\), want \(2, 3, 6, 6\)",
    ),
    "no batch dimension at all": (
        {"inputs": X[0, 0, 0], "baselines": X0[0, 0, 0]},
        ValueError,
        r"inputs: got shape \(6,\), want \(N, ...\) with a batch dimension",
    ),
    "no examples": (
        {"inputs": X[:0], "baselines": X0[:0]},
        ValueError,
        r"inputs: got shape \(0, 3, 6, 6\), want .* at least one example",
    ),
    "dtypes differ": (
        {"baselines": X0.double()},
        ValueError,
        r"baselines: got dtype torch.float64, want torch.float32 as inputs",
    ),
    "devices differ": (
        {"baselines": X0.to("meta")},
        ValueError,
        r"baselines: got device meta, want cpu as inputs",
    ),
    "integer images": (
        {"inputs": (X * 255).byte(), "baselines": (X0 * 255).byte()},
        TypeError,
        r"inputs: got torch.uint8, want floating-point",
    ),
    "integer baselines": (
        {"baselines": X0.long()},
        TypeError,
        r"baselines: got torch.int64, want floating-point",
    ),
    "NaN": ({"inputs": NAN}, ValueError, r"inputs: got 1 NaN or infinite"),
    "infinite": ({"baselines": INF}, ValueError, r"baselines: got 1 NaN or infinite"),
    "not a tensor": (
        {"inputs": X.numpy()},
        TypeError,
        r"inputs: got ndarray, want a tensor",
    ),
    "no baselines": ({"baselines": None}, TypeError, r"baselines: got NoneType"),
    "numbers of inputs differ": (
        {"inputs": (X, X)},
        ValueError,
        r"baselines: got 1 input\(s\), want 2 as inputs",
    ),
    "examples differ between inputs": (
        {"inputs": (X, X[:1]), "baselines": (X0, X0[:1])},
        ValueError,
        r"inputs\[1\]: got 1 examples, want 2 as inputs\[0\]",
    ),
    # Labels.
    "target too large": (
        {"target": 5},
        ValueError,
        r"^target: got 5 for example 0, want 0 to 4",
    ),
    "true_target too large": (
        {"true_target": [2, 7]},
        ValueError,
        r"^true_target: got 7 for example 1, want 0 to 4",
    ),
    "target negative": ({"target": -1}, ValueError, r"^target: got -1"),
    "labels equal": (
        {"target": 2},
        ValueError,
        r"target and true_target: got the same label \[2\] for 2 of 2",
    ),
    "one label equal": (
        {"target": [1, 2]},
        ValueError,
        r"target and true_target: .* for 1 of 2 example\(s\), the first at 1",
    ),
    "target too long": (
        {"target": [0, 1, 1]},
        ValueError,
        r"^target: got 3 label\(s\), want one for each of 2 examples",
    ),
    "target of one in a list": (
        {"target": [1]},
        ValueError,
        r"^target: got 1 label\(s\), want one for each of 2",
    ),
    "true_target of three": (
        {"true_target": torch.tensor([2, 3, 4])},
        ValueError,
        r"^true_target: got 3 label\(s\)",
    ),
    "target an empty tensor": (
        {"target": torch.tensor([], dtype=torch.long)},
        ValueError,
        r"^target: got a tensor of shape \(0,\)",
    ),
    "target beyond 64 bits": ({"target": 2**70}, ValueError, r"^target: got 11805"),
    "true_target of one for two": (
        {"true_target": [2]},
        ValueError,
        r"^true_target: got 1 label\(s\), want one for each of 2 examples",
    ),
    "no features": (
        {"inputs": X[:, :, :0], "baselines": X0[:, :, :0]},
        ValueError,
        r"inputs: got shape \(2, 3, 0, 6\)",
    ),
    "target empty": ({"target": []}, ValueError, r"^target: got an empty list"),
    "target a float": ({"target": 1.0}, TypeError, r"^target: got 1.0 of type float"),
    "target a float tensor": (
        {"target": torch.tensor([0.0, 1.0])},
        TypeError,
        r"^target: got a tensor of torch.float32",
    ),
    "target a bool": ({"target": True}, TypeError, r"^target: got True of type bool"),
    "target a string": (
        {"target": "cat"},
        TypeError,
        r"^target: got 'cat' of type str",
    ),
    "true_target a list of strings": (
        {"true_target": ["a", "b"]},
        TypeError,
        r"^true_target: got 'a' of type str",
    ),
    "target of 3-D": (
        {"target": torch.zeros(2, 1, 1, dtype=torch.long)},
        ValueError,
        r"^target: got a tensor of shape \(2, 1, 1\)",
    ),
    "target an index of two": (
        {"target": (1, 2)},
        ValueError,
        r"^target: got an index of 2 integer\(s\), want 1",
    ),
    "target ragged": (
        {"target": [(1,), (1, 2)]},
        ValueError,
        r"^target: got tuples of different lengths",
    ),
    # Groups.
    "mask does not broadcast": (
        {"feature_mask": torch.zeros(1, 1, 5, 6, dtype=torch.long)},
        ValueError,
        r"feature_mask: got shape \(1, 1, 5, 6\), want .* \(2, 3, 6, 6\)",
    ),
    "mask of too many dimensions": (
        {"feature_mask": torch.zeros(1, 2, 3, 6, 6, dtype=torch.long)},
        ValueError,
        r"feature_mask: got shape \(1, 2, 3, 6, 6\)",
    ),
    "mask of three examples": (
        {"feature_mask": torch.zeros(3, 1, 6, 6, dtype=torch.long)},
        ValueError,
        r"feature_mask: got shape \(3, 1, 6, 6\)",
    ),
    "mask of floats": (
        {"feature_mask": torch.zeros(1, 1, 6, 6)},
        TypeError,
        r"feature_mask: got a tensor of torch.float32, want a tensor of integers",
    ),
    "mask of bools": (
        {"feature_mask": torch.zeros(1, 1, 6, 6, dtype=torch.bool)},
        TypeError,
        r"feature_mask: got a tensor of torch.bool",
    ),
    "mask not a tensor": (
        {"feature_mask": [0, 1]},
        TypeError,
        r"feature_mask: got list",
    ),
    "mask skips every feature": (
        {"feature_mask": torch.full((1, 1, 6, 6), -1)},
        ValueError,
        r"feature_mask: got only negative ids",
    ),
    "two masks": (
        {"feature_mask": (grid_mask((6, 6), cell=3),) * 2},
        ValueError,
        r"feature_mask: got 2 mask\(s\), want one for each of the 1 inputs",
    ),
    # Options.
    "component": (
        {"component": "loss"},
        ValueError,
        r"component: got 'loss', want one of effect, promotion",
    ),
    "perturbations_per_eval of 0": (
        {"perturbations_per_eval": 0},
        ValueError,
        r"perturbations_per_eval: got 0",
    ),
    "perturbations_per_eval a float": (
        {"perturbations_per_eval": 2.0},
        TypeError,
        r"perturbations_per_eval: got 2.0",
    ),
}


@pytest.mark.parametrize(
    ("changes", "error", "message"), ATTRIBUTE.values(), ids=ATTRIBUTE
)
def test_attribute(changes, error, message):
    arguments = {"inputs": X, "baselines": X0, "target": 1, "true_target": 2, **changes}
    with pytest.raises(error, match=message):
        PromotionSuppression(SmallNet().eval()).attribute(**arguments)


FORWARDS: dict[str, tuple[Any, type[Exception], str]] = {
    "one score per example": (
        lambda x: x.flatten(1).sum(1),
        ValueError,
        r"forward_func: returned shape \(2,\) .* at least two classes",
    ),
    "one class": (
        lambda x: x.flatten(1).sum(1, keepdim=True),
        ValueError,
        r"forward_func: returned shape \(2, 1\)",
    ),
    "a scalar": (lambda x: x.sum(), ValueError, r"forward_func: returned shape \(\)"),
    "a tuple": (
        lambda x: (x.flatten(1), x),
        TypeError,
        r"forward_func: returned tuple, want a tensor of scores",
    ),
    "sums over the batch": (
        lambda x: x.flatten(1).sum(0, keepdim=True),
        ValueError,
        r"forward_func: returned shape \(1, 108\)",
    ),
    "NaN": (
        lambda x: x.flatten(1) * float("nan"),
        ValueError,
        r"forward_func: returned NaN or infinite scores",
    ),
    "batch norm in training mode": (
        nn.Sequential(SmallNet()),
        ValueError,
        r"forward_func: got a model whose 0.norm is in training mode",
    ),
    "dense scores without a label": (
        nn.Conv2d(3, 4, 1),
        ValueError,
        r"^target: got None, but .* want an index of 3 integers",
    ),
}


@pytest.mark.parametrize(
    ("forward", "error", "message"), FORWARDS.values(), ids=FORWARDS
)
@pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")
def test_forward_func(forward, error, message):
    labels = () if isinstance(forward, nn.Conv2d) else (1, 2)
    with pytest.raises(error, match=message):
        PromotionSuppression(forward).attribute(X, X0, *labels)


UNBATCHED = {
    "a model that takes both": nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)
    ),
    "a model that raises": SmallNet().eval(),
}


@pytest.mark.parametrize("model", UNBATCHED.values(), ids=UNBATCHED)
def test_inputs_without_a_batch_dimension(model):
    with pytest.raises(
        ValueError, match=r"forward_func: .*\(3, 6, 6\).* start with the batch"
    ):
        PromotionSuppression(model).attribute(X[0], X0[0], 1, 2)


def test_equal_predictions():
    with pytest.raises(ValueError, match="give both where predictions agree"):
        PromotionSuppression(lambda x: x.flatten(1)[:, :3] * 0).attribute(X, X0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps: got 0, want a positive"),
        ({"eps": float("nan")}, "eps: got nan"),
        ({"eps": float("inf")}, "eps: got inf"),
        ({"threshold": -1}, "threshold: got -1"),
    ],
)
def test_options_of_the_method(options, message):
    with pytest.raises(ValueError, match=message):
        PromotionSuppression(SmallNet(), **options)


PAIRS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "shapes": ({"natural": X0[:1]}, ValueError, r"natural: got shape \(1, 3, 6, 6\)"),
    "dtypes": ({"natural": X0.half()}, ValueError, r"natural: got dtype torch.float16"),
    "integers": ({"adversarial": X.long()}, TypeError, r"adversarial: got torch.int64"),
    "NaN": ({"adversarial": NAN}, ValueError, r"adversarial: got 1 NaN"),
    "one a tuple": (
        {"adversarial": (X,)},
        ValueError,
        r"natural and adversarial: got one tuple",
    ),
    "labels equal": ({"true_label": 1}, ValueError, r"the same label \[1\]"),
    "negative": ({"true_label": -2}, ValueError, r"true_label: got -2, want 0 or more"),
    "too many": (
        {"attack_label": [1, 1, 1]},
        ValueError,
        r"attack_label: got 3 label\(s\)",
    ),
    "a float": ({"attack_label": 1.5}, TypeError, r"attack_label: got 1.5"),
    "indices": (
        {"attack_label": (1, 2)},
        ValueError,
        r"attack_label: got indices of 2 integer\(s\), want 1",
    ),
    "names": ({"names": ["a"]}, ValueError, r"names: got 1, want one for each of 2"),
}


@pytest.mark.parametrize(("changes", "error", "message"), PAIRS.values(), ids=PAIRS)
def test_pair(changes, error, message):
    good = {"natural": X0, "adversarial": X, "true_label": 2, "attack_label": 1}
    with pytest.raises(error, match=message):
        AdversarialPair(**{**good, **changes})


GRIDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "neither": ((4, 4), {}, "cell and count: got cell=None and count=None"),
    "both": ((4, 4), {"cell": 2, "count": 2}, "cell and count"),
    "cell 0": ((4, 4), {"cell": 0}, "cell: got 0, want a positive int"),
    "cells of three axes": ((4, 4), {"cell": (1, 1, 1)}, "cell: got"),
    "too many": ((4, 4), {"count": 5}, "count: got 5, want no more than size"),
    "size": ((4, -4), {"cell": 2}, "size: got"),
    "no size": ((), {"cell": 2}, "size: got"),
}


@pytest.mark.parametrize(("size", "options", "message"), GRIDS.values(), ids=GRIDS)
def test_grid_mask(size, options, message):
    with pytest.raises(ValueError, match=message):
        grid_mask(size, **options)


def test_channel_mask():
    with pytest.raises(ValueError, match="inputs: got shape"):
        channel_mask(torch.zeros(3))
