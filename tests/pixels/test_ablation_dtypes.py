"""IncrementalAblation has the values and dtypes of Captum's FeatureAblation."""

from __future__ import annotations

import itertools

import pytest
import torch
from captum.attr import FeatureAblation
from torch import Tensor, nn

from captum_pse import IncrementalAblation, grid_mask

SIGNED = [torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DTYPES = [*SIGNED, torch.uint8, torch.bool, *FLOATS]
BASELINES = {
    "none": None,
    "0.5": 0.5,
    "1": 1,
    "True": True,
    "int64": torch.tensor([[1, 0, 2]]),
    "float32": torch.tensor([[0.5, 1.5, 2.0]]),
    "float64": torch.tensor([[0.5, 1.5, 2.0], [1.0, 2.0, 3.0]]).double(),
    "bool": torch.tensor([[True, False, True]]),
    "1 number": torch.tensor(0.5),
}
FUNCTIONS = {
    "float": lambda x: (x.float() * 0.3).sum(1),
    "double": lambda x: x.double().sum(1),
    "own": lambda x: x.sum(1),
    "largest": lambda x: x.amax(1),
    # The dtype of its input alone changes its value.
    "inverse": lambda x: ((~x if x.dtype == torch.bool else 2 * x).float()).sum(1),
    "int8": lambda x: (x.float() * 40).to(torch.int8).amax(1),
}


def captums(function, inputs, **options) -> Tensor | Exception:
    options = {"perturbations_per_eval": 1, **options}
    try:
        return FeatureAblation(function).attribute(inputs, **options)
    except (RuntimeError, AssertionError, IndexError) as error:
        return error


def assert_equal(found, wanted) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)  # also the dtype


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_baseline(dtype, function):
    x = torch.tensor([[1, 2, 3], [3, 0, 1]]).to(dtype)
    forward = FUNCTIONS[function]
    n_equal = 0
    for baselines in BASELINES.values():
        wanted = captums(forward, x, baselines=baselines)
        method = IncrementalAblation(forward, engine="dense")
        if isinstance(wanted, Exception) or wraps_around(forward, x, baselines):
            with pytest.raises((TypeError, ValueError), match=r"^forward_func: return"):
                method.attribute(x, baselines)
        else:
            assert_equal(method.attribute(x, baselines), wanted)
            n_equal += 1
    assert n_equal >= (0 if function in ("largest", "own") else 4), n_equal


def wraps_around(function, x, baselines) -> bool:
    """Whether a score's integers cannot hold what Captum computes with them."""
    dtype = function(x).dtype
    if dtype.is_floating_point:
        return False
    wide = captums(lambda x: function(x).double(), x, baselines=baselines)
    return bool((wide.to(dtype).double() != wide).any())


def test_the_numbers_of_the_report():
    x = torch.tensor([[1, 2, 3]])
    found = IncrementalAblation(FUNCTIONS["float"]).attribute(x)
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.6, 0.9]]))
    found = IncrementalAblation(lambda x: x.double().sum(1)).attribute(x, 0.5)
    assert found.tolist() == [[0.5, 1.5, 2.5]]
    found = IncrementalAblation(FUNCTIONS["float"]).attribute(x == 2)
    assert found.dtype == torch.float32
    assert found.nonzero().tolist() == [[0, 1]]


class OfImages(nn.Module):
    """Any image, as floating-point numbers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)
        self.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(x.to(self.dtype))).mean((2, 3)))


class WithTokens(OfImages):
    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return super().forward(x) + tokens.sum(1, keepdim=True)


class ReadsDtype(OfImages):
    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        weight = 0.5 if tokens.is_floating_point() else 2.0
        return super().forward(x) + tokens.sum(1, keepdim=True) * weight


@pytest.mark.parametrize("engine", ["auto", "dense", "incremental"])
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.bool, *FLOATS], ids=str
)
def test_images_of_every_dtype(dtype, engine):
    scores_in = dtype if dtype in FLOATS else torch.float64
    model = OfImages(scores_in).eval()
    x = (torch.rand(2, 3, 12, 13) * 2 - 0.5).clamp(min=0).round().to(dtype)
    mask = grid_mask((12, 13), cell=4)
    atol = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-6}
    for baselines in (None, 0.5, True, torch.ones(1, 3, 12, 13, dtype=torch.int32)):
        options = {"baselines": baselines, "target": [1, 3], "feature_mask": mask}
        if dtype in (torch.float16, torch.bfloat16) and isinstance(baselines, Tensor):
            continue  # captum: the float32 input does not fit the model
        found = IncrementalAblation(model, engine=engine).attribute(x, **options)
        wanted = captums(model, x, **options)
        assert float(wanted.abs().max()) > 1e-3
        torch.testing.assert_close(
            found, wanted, rtol=0, atol=atol.get(scores_in, 1e-12)
        )


@pytest.mark.parametrize("engine", ["auto", "dense", "incremental"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", [WithTokens, ReadsDtype])
def test_inputs_of_several_dtypes(kind, engine, shared):
    if kind is ReadsDtype and engine == "incremental":
        return  # torch.fx cannot follow it
    model = kind(torch.float64).eval()
    images = (torch.rand(2, 3, 12, 13) * 9).to(torch.uint8)
    inputs = images, torch.tensor([[1, 0, 5], [1, 0, 5]])
    masks = grid_mask((12, 13), cell=4), torch.tensor([[50, 51, 0 if shared else 52]])
    options = {"target": 2, "feature_mask": masks}
    for baselines in (None, (0.5, 0), (0, 0.5), (2, torch.tensor([[0.5, 0, 1]]))):
        wanted = captums(model, inputs, baselines=baselines, **options)
        method = IncrementalAblation(model, engine=engine)
        found = method.attribute(inputs, baselines, **options)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def total(*inputs: Tensor) -> Tensor:
    return sum(x.double().flatten(1).sum(1) for x in inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(0, 3),
        torch.zeros(3, 0),
        torch.zeros(0, 3, 4, 4, dtype=torch.uint8),
        (torch.zeros(2, 3), torch.ones(2, 0)),
        (torch.ones(2, 0), torch.ones(2, 3, 1, 2)),
        (torch.zeros(0, 3), torch.zeros(0, 2, dtype=torch.int64)),
    ],
    ids=lambda inputs: str([tuple(x.shape) for x in [*inputs]][:2]),
)
def test_empty_inputs(inputs):
    several = inputs if isinstance(inputs, tuple) else (inputs,)
    masks = tuple(torch.zeros(1, *x.shape[1:], dtype=torch.long) for x in several)
    for engine, feature_mask, baselines in itertools.product(
        ("auto", "dense"),
        (None, masks if isinstance(inputs, tuple) else masks[0]),
        (None, (0.5,) * len(several)),
    ):
        options = {"feature_mask": feature_mask, "baselines": baselines}
        wanted = captums(total, inputs, **options)
        found = IncrementalAblation(total, engine=engine).attribute(inputs, **options)
        assert isinstance(found, tuple) == isinstance(inputs, tuple)
        assert_equal(found, wanted)


def test_no_examples_with_a_target_and_one_number_each():
    x = torch.zeros(0, 3)
    found = IncrementalAblation(lambda x: x[:, :2].double()).attribute(x, target=1)
    assert_equal(found, x.double())
    x = torch.tensor([1, 2, 3])
    found = IncrementalAblation(lambda x: x * 2.0).attribute(x)
    assert_equal(found, captums(lambda x: x * 2.0, x))


@pytest.mark.parametrize(
    ("x", "function", "options", "message"),
    [
        ([[1]], lambda x: x.sum(1), {"baselines": 0.5},
         r"^forward_func: returned torch.int64 for the inputs and torch.float32 for"),
        ([[1, 3]], lambda x: (x > 2).any(1), {}, "^forward_func: returned torch.bool"),
        ([[1, 3]], lambda x: 7 - x.to(torch.uint8).amax(1), {},
         "^forward_func: returned torch.uint8, which cannot hold the differences"),
        ([[3, 3]], lambda x: (x * 50 - 50).to(torch.int8).amin(1),
         {"baselines": -1}, "^forward_func: returned torch.int8, which cannot hold"),
        ([[1, 3]], total, {"baselines": 2**70}, r"^baselines: got \d+, want -9223"),
        ([[1, 3]], total, {"baselines": "0"}, "^baselines: got str, want numbers"),
        ([[1, 3]], total, {"baselines": (0, 0)}, "^baselines: got 2, want one for"),
        ([[1, 3]], total, {"baselines": torch.zeros(3, 2)},
         r"^baselines: got shape \(3, 2\), want one that broadcasts to the input's "
         r"\(1, 2\)"),
    ],
)  # fmt: skip
def test_what_has_no_right_number_raises(x, function, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        IncrementalAblation(function).attribute(torch.tensor(x), **options)


def test_a_baseline_out_of_range_and_inputs_that_do_not_match():
    x = torch.zeros(1, 3, dtype=torch.uint8)
    with pytest.raises(
        ValueError, match=r"^baselines: got -1, want 0 to 255 for inputs"
    ):
        IncrementalAblation(total).attribute(x, -1)
    with pytest.raises(ValueError, match=r"^inputs\[1\]: got shape \(3, 2\), want as"):
        IncrementalAblation(total).attribute((x, torch.zeros(3, 2)))
    with pytest.raises(TypeError, match=r"^inputs: got list, want a tensor"):
        IncrementalAblation(total).attribute([x])
