"""PromotionSuppression compared with Captum, analytic results and literal loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from conftest import Segmenter, TwoInputs, state_of
from torch import Tensor, nn

from captum_pse import (
    PredictionWarning,
    PromotionSuppression,
    channel_mask,
    default_feature_mask,
    grid_mask,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::captum_pse.PredictionWarning"  # random models predict what they will
)


def literal(
    model: nn.Module, x: Tensor, x0: Tensor, mask: Tensor, t: list[int], t0: list[int]
) -> tuple[Tensor, Tensor]:
    """Signed changes of every feature, one example and one group at a time."""
    promotion, suppression = torch.zeros_like(x), torch.zeros_like(x)
    with torch.no_grad():
        for i in range(len(x)):
            mine = mask.expand_as(x)[i]
            before = model(x[i : i + 1])[0]
            for group in mine.unique().tolist():
                inside = mine == group
                ablated = x[i].clone()
                ablated[inside] = x0[i][inside]
                after = model(ablated[None])[0]
                promotion[i][inside] = before[t[i]] - after[t[i]]
                suppression[i][inside] = after[t0[i]] - before[t0[i]]
    return promotion, suppression


def random_mask(n: int) -> Tensor:
    return torch.randint(0, 4, (n, 1, 6, 6))


MASKS: dict[str, Callable[[int], Tensor]] = {
    "shared grid": lambda n: grid_mask((6, 6), cell=4),
    "per example": random_mask,
    "channels": lambda n: channel_mask(torch.zeros(n, 3, 6, 6)),
    "gaps in the ids": lambda n: random_mask(n) * 7 + 3,
    "no leading dimensions": lambda n: random_mask(1)[0, 0],
    "int32, every pixel": lambda n: torch.arange(36, dtype=torch.int32).view(6, 6),
}


@pytest.mark.parametrize("perturbations_per_eval", [1, 3, 100])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_equals_literal_definition(make_case, mask, n, perturbations_per_eval):
    case, mask = make_case(n), mask(n)
    t, t0 = [1, 4, 0][:n], [2, 3, 1][:n]
    expected = literal(case.model, case.adversarial, case.natural, mask, t, t0)
    method = PromotionSuppression(case.model)
    arguments = {"feature_mask": mask, "perturbations_per_eval": perturbations_per_eval}
    for component, signed in zip(("promotion", "suppression"), expected, strict=True):
        got = method.attribute(
            case.adversarial, case.natural, t, t0, component=component, **arguments
        )
        torch.testing.assert_close(got, signed.clamp(min=0), rtol=0, atol=1e-12)
    result = method.decompose(case.adversarial, case.natural, t, t0, **arguments)
    for change, signed in zip(
        (result.promotion_change, result.suppression_change), expected, strict=True
    ):
        spread = result.groups.spread(change, result.inputs)[0]
        torch.testing.assert_close(spread, signed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared_ids", [True, False])
def test_tuple_inputs_equal_two_feature_ablations(shared_ids):
    model = TwoInputs().double().eval()
    x = (torch.rand(2, 3, 6, 6).double(), torch.rand(2, 4).double())
    x0 = tuple(torch.rand_like(part) for part in x)
    masks = (grid_mask((6, 6), cell=3), torch.tensor([[0, 1, 1, 0]]))
    if not shared_ids:
        masks = (masks[0], masks[1] + 4)
    result = PromotionSuppression(model).decompose(x, x0, 1, 2, feature_mask=masks)
    ablation = FeatureAblation(model)
    signed = {
        label: ablation.attribute(x, baselines=x0, target=label, feature_mask=masks)
        for label in (1, 2)
    }
    assert len(result.groups) == (4 if shared_ids else 6)
    promotion, suppression = (
        result.attribution("promotion"),
        result.attribution("suppression"),
    )
    assert isinstance(promotion, tuple)
    for i in range(2):
        torch.testing.assert_close(promotion[i], signed[1][i].clamp(min=0))
        torch.testing.assert_close(suppression[i], (-signed[2][i]).clamp(min=0))


def test_default_groups_are_used_for_images_and_flat_inputs(make_case):
    case = make_case(size=28)
    method = PromotionSuppression(case.model)
    chosen = method.attribute(case.adversarial, case.natural, 0, 1)
    explicit = method.attribute(
        case.adversarial, case.natural, 0, 1, feature_mask=grid_mask((28, 28), cell=2)
    )
    assert torch.equal(chosen, explicit)
    flat = nn.Linear(4, 3).eval()
    x, x0 = torch.rand(2, 4), torch.rand(2, 4)
    assert len(PromotionSuppression(flat).decompose(x, x0, 0, 1).groups) == 4
    assert [m.unique().numel() for m in default_feature_mask((x, x0))] == [4, 4]


def test_linear_model_sums_to_the_logit_change():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).double()
    x, x0 = torch.rand(3, 3, 4, 4).double(), torch.rand(3, 3, 4, 4).double()
    mask = torch.randint(0, 5, (3, 3, 4, 4))
    result = PromotionSuppression(model).decompose(x, x0, 1, 2, feature_mask=mask)
    with torch.no_grad():
        change = model(x) - model(x0)
    torch.testing.assert_close(result.promotion_change.sum(1), change[:, 1])
    torch.testing.assert_close(result.suppression_change.sum(1), -change[:, 2])
    gains = result.labels.adversarial_scores - result.labels.natural_scores
    torch.testing.assert_close(gains, change[:, [1, 2]])


def test_swapping_the_labels_swaps_and_negates(make_case):
    case = make_case()
    method = PromotionSuppression(case.model)
    one = method.decompose(case.adversarial, case.natural, 1, 2)
    other = method.decompose(case.adversarial, case.natural, 2, 1)
    assert torch.equal(one.promotion_change, -other.suppression_change)
    assert torch.equal(one.suppression_change, -other.promotion_change)


LABELS = {
    "list": ([1, 1], [2, 2]),
    "tensor": (torch.tensor([1, 1]), torch.tensor([2, 2], dtype=torch.int32)),
    "0-D tensor": (torch.tensor(1), torch.tensor(2)),
    "tensor of one": (torch.tensor([1]), torch.tensor([2])),
    "column": (torch.tensor([[1], [1]]), torch.tensor([[2], [2]])),
    "tuple": ((1,), (2,)),
    "list of tuples": ([(1,), (1,)], [(2,), (2,)]),
    "numpy": (np.int64(1), [np.int32(2), np.int64(2)]),
}


@pytest.mark.parametrize(("target", "true_target"), LABELS.values(), ids=LABELS)
def test_every_label_format_means_the_same(make_case, target, true_target):
    case = make_case()
    method = PromotionSuppression(case.model)
    expected = method.decompose(case.adversarial, case.natural, 1, 2)
    got = method.decompose(case.adversarial, case.natural, target, true_target)
    assert torch.equal(got.promotion_change, expected.promotion_change)
    assert torch.equal(got.suppression_change, expected.suppression_change)


def test_labels_default_to_the_predictions(demo_model, demo_pairs):
    x, x0, t, t0 = demo_pairs
    mask = grid_mask((64, 64), cell=32)
    method = PromotionSuppression(demo_model)
    guessed = method.decompose(x, x0, feature_mask=mask)
    given = method.decompose(x, x0, t, t0, feature_mask=mask)
    assert torch.equal(guessed.labels.target, given.labels.target)
    assert torch.equal(guessed.labels.true_target, given.labels.true_target)
    assert torch.equal(guessed.effect, given.effect)


DENSE_LABELS = {
    "one tuple": ((1, 2, 3), (0, 2, 3)),
    "list of tuples": ([(1, 2, 3), (3, 5, 5)], [(0, 2, 3), (2, 5, 5)]),
    "tensor": (torch.tensor([[1, 2, 3], [3, 5, 5]]), torch.tensor([[0, 2, 3]])),
}


@pytest.mark.parametrize(
    ("target", "true_target"), DENSE_LABELS.values(), ids=DENSE_LABELS
)
def test_dense_outputs_equal_two_feature_ablations(target, true_target):
    model = Segmenter().double()
    x, x0 = torch.rand(2, 3, 6, 6).double(), torch.rand(2, 3, 6, 6).double()
    mask = grid_mask((6, 6), cell=3)
    result = PromotionSuppression(model).decompose(
        x, x0, target, true_target, feature_mask=mask, perturbations_per_eval=2
    )
    for label, component, sign in (
        (target, "promotion", 1),
        (true_target, "suppression", -1),
    ):
        if isinstance(label, Tensor):
            label = [tuple(row) for row in label.expand(2, 3).tolist()]
        signed = FeatureAblation(model).attribute(
            x, baselines=x0, target=label, feature_mask=mask
        )
        torch.testing.assert_close(
            result.attribution(component), (sign * signed).clamp(min=0)
        )


def test_additional_forward_args_follow_the_batch(make_case):
    case = make_case(3)
    scale = torch.tensor([[1.0], [2.0], [4.0]]).double()
    method = PromotionSuppression(case.model)
    plain = method.decompose(case.adversarial, case.natural, 1, 2)
    scaled = method.decompose(
        case.adversarial,
        case.natural,
        1,
        2,
        additional_forward_args=scale,
        perturbations_per_eval=4,
    )
    torch.testing.assert_close(scaled.promotion_change, plain.promotion_change * scale)


def test_one_natural_example_is_shared_by_many(make_case):
    case = make_case(3)
    one = case.natural[:1]
    method = PromotionSuppression(case.model)
    shared = method.attribute(case.adversarial, one, 1, 2)
    repeated = method.attribute(case.adversarial, one.repeat(3, 1, 1, 1), 1, 2)
    assert torch.equal(shared, repeated)


def test_a_group_that_an_example_lacks_has_no_effect(make_case):
    case = make_case(2)
    mask = torch.zeros(2, 1, 6, 6, dtype=torch.int64)
    mask[0, :, 3:] = 8
    result = PromotionSuppression(case.model).decompose(
        case.adversarial, case.natural, 1, 2, feature_mask=mask
    )
    assert result.groups.ids.tolist() == [0, 8]
    assert result.sizes.tolist() == [[54, 54], [108, 0]]
    assert result.effect[1, 1] == 0
    assert [row["group"] for row in result.table()] == [0, 8, 0]
    assert [record["groups"] for record in result.summary()] == [2, 1]


def test_negative_ids_are_not_ablated(make_case):
    case = make_case(1)
    mask = torch.where(torch.arange(36).view(6, 6) < 18, -1, 5)
    got = PromotionSuppression(case.model).attribute(
        case.adversarial, case.natural, 1, 2, feature_mask=mask, component="promotion"
    )
    signed, _ = literal(case.model, case.adversarial, case.natural, mask, [1], [2])
    assert (got[:, :, :3] == 0).all()
    torch.testing.assert_close(got[:, :, 3:], signed[:, :, 3:].clamp(min=0))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.half, 2e-2)],
)
def test_dtypes_are_kept(make_case, dtype, tolerance):
    case = make_case(2, dtype=torch.float32)
    method = PromotionSuppression(case.model)
    expected = method.attribute(case.adversarial, case.natural, 1, 2)
    x, x0 = case.adversarial.to(dtype), case.natural.to(dtype)
    case.model.to(dtype)
    for component in ("effect", "ratio", "type"):
        assert method.attribute(x, x0, 1, 2, component=component).dtype == dtype
    got = method.attribute(x, x0, 1, 2)
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=tolerance)
    assert {p.dtype for p in case.model.parameters()} == {dtype}


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_unchanged(make_case, fails):
    case = make_case()
    case.model.drop.train()
    case.model.head.weight.requires_grad_(False)
    before = state_of(case.model)
    x = case.adversarial.requires_grad_()
    if fails:
        with pytest.raises(ValueError, match=r"^target: got 99"):
            PromotionSuppression(case.model).attribute(x, case.natural, 99, 2)
    else:
        assert (
            not PromotionSuppression(case.model)
            .attribute(x, case.natural, 1, 2)
            .requires_grad
        )
    assert state_of(case.model) == before
    assert x.grad is None


def test_progress_bar(make_case, capsys):
    case = make_case()
    method = PromotionSuppression(case.model)
    method.attribute(case.adversarial, case.natural, 1, 2)
    assert capsys.readouterr().err == ""
    method.attribute(case.adversarial, case.natural, 1, 2, show_progress=True)
    assert "PromotionSuppression: 100%" in capsys.readouterr().err


@pytest.mark.filterwarnings("error::captum_pse.PredictionWarning")
def test_a_prediction_that_is_not_the_label_is_reported(demo_model, demo_pairs):
    x, x0, t, t0 = demo_pairs
    method, mask = PromotionSuppression(demo_model), grid_mask((64, 64), cell=32)
    method.attribute(x, x0, t, t0, feature_mask=mask)  # no warning
    other = (t + 1) % 12
    with pytest.warns(PredictionWarning, match="target on 3 of 3 inputs") as caught:
        result = method.decompose(x, x0, other, t0, feature_mask=mask)
    assert len(caught) == 1
    assert not any(record["attack_holds"] for record in result.summary())
    with pytest.warns(PredictionWarning, match="true_target on 1 of 3 baselines"):
        result = method.decompose(x, x0, [1, 2, 3], [0, 1, 5], feature_mask=mask)
    assert [r["natural_agrees"] for r in result.summary()] == [True, True, False]


class Overwrites(nn.Module):
    """Overwrites its input and returns the same buffer at every call."""

    def __init__(self, head: nn.Module, *, careful: bool) -> None:
        super().__init__()
        self.head, self.careful = head, careful
        self.buffer = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.careful:
            return self.head((x - 0.5).relu())
        scores = self.head(x.sub_(0.5).relu_())
        if self.buffer.shape != scores.shape:
            self.buffer = torch.empty_like(scores)
        return self.buffer.copy_(scores)


@pytest.mark.parametrize("shared", [False, True])
def test_models_may_overwrite_inputs_and_scores(make_case, shared):
    case = make_case(2)
    x, x0 = case.adversarial, case.natural[:1] if shared else case.natural
    kept = x.clone(), x0.clone()
    expected, got = (
        PromotionSuppression(Overwrites(case.model, careful=careful)).decompose(
            x, x0, 1, 2, perturbations_per_eval=5
        )
        for careful in (True, False)
    )
    torch.testing.assert_close(got.effect, expected.effect)
    torch.testing.assert_close(
        got.labels.natural_scores, expected.labels.natural_scores
    )
    assert torch.equal(x, kept[0])
    assert torch.equal(x0, kept[1])


def test_labels_are_repeated_only_for_repeated_examples(make_case):
    case = make_case(4)
    method = PromotionSuppression(case.model)
    with pytest.raises(ValueError, match=r"true_target: got 2 label\(s\)"):
        method.decompose(case.adversarial, case.natural, 1, [2, 3])
    natural = case.natural[:2].repeat_interleave(2, dim=0)
    result = method.decompose(case.adversarial, natural, 1, [2, 3])
    assert result.labels.true_target.flatten().tolist() == [2, 2, 3, 3]


def test_differences_of_half_precision_scores_are_exact():
    """They are computed and stored in single precision."""
    x, x0 = torch.ones(1, 2).half(), torch.zeros(1, 2).half()

    def forward(v: Tensor) -> Tensor:
        first, second = v.unbind(1)
        scores = torch.stack([first * 0, first * 1024 + second * 0.5, -first], 1)
        return scores.half()

    result = PromotionSuppression(forward).decompose(x, x0, 1, 0)
    assert result.promotion_change.dtype == torch.float32
    assert result.promotion_change.tolist() == [[1023.5, 0.0]]


def test_dense_predictions_are_those_at_the_position():
    x = torch.zeros(1, 3, 2, 2)
    scores = torch.zeros(1, 3, 2, 2)
    scores[0, 2, 0, 1] = 1
    result = PromotionSuppression(
        lambda v: scores.expand(len(v), -1, -1, -1)
    ).decompose(x, x, (2, 0, 1), (0, 1, 0))
    assert result.labels.adversarial_class.tolist() == [2]
    assert result.labels.natural_class.tolist() == [0]


def test_results_hold_no_graph(make_case):
    case = make_case()
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    result = PromotionSuppression(case.model).decompose(
        case.adversarial * weight, case.natural, 1, 2
    )
    assert not result.inputs[0].requires_grad


@pytest.mark.filterwarnings("default::captum_pse.PredictionWarning")
@pytest.mark.parametrize("call", ["attribute", "decompose"])
def test_the_warning_points_at_the_caller(demo_model, demo_pairs, call):
    method = PromotionSuppression(demo_model)
    x, x0, t, t0 = demo_pairs
    with pytest.warns(PredictionWarning) as caught:
        getattr(method, call)(
            x, x0, t + 5, t0, feature_mask=grid_mask((64, 64), count=1)
        )
    assert caught[0].filename == __file__


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_runs_on_a_gpu_without_a_copy_to_the_cpu(make_case, dtype):
    case = make_case(2, dtype=dtype)
    case.model.cuda()
    x, x0 = case.adversarial.cuda(), case.natural.cuda()
    method = PromotionSuppression(case.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PredictionWarning)
        result = method.decompose(x, x0, 1, 2)
    assert result.effect.device == x.device
    assert result.attribution().dtype == dtype


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_integer_scores_are_subtracted_exactly(dtype):
    # In float32, 2**25 + 1 is 2**25; in uint8, 0 - 1 is 255.
    large = 0 if dtype == torch.uint8 else 2**25

    def model(x):
        x = x.long()
        return torch.stack([large + x[:, 0], large + 2 - x.sum(1)], dim=1).to(dtype)

    x, x0 = torch.tensor([[1.0, 1.0], [0.0, 1.0]])[:, None].unbind()
    result = PromotionSuppression(model).decompose(x, x0, 0, 1)
    assert result.promotion_change.tolist() == [[1.0, 0.0]]
    assert result.suppression_change.tolist() == [[1.0, 0.0]]
