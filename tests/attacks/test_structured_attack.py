"""The structured attack against closed forms and a plain, slow implementation."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from captum_pse import AdversarialPair, StructuredAttack, grid_mask
from captum_pse.attacks.admm import Problem, Weights, search
from captum_pse.demo import load_model, make_pairs
from captum_pse.groups.groups import Groups

QUICK = {"iterations": 40, "search_steps": 3}


class Linear(nn.Module):
    """Two classes: the first logit is 0, the second ``w (x - 0.5) - lead``."""

    def __init__(self, w, lead):
        super().__init__()
        self.w, self.lead = nn.Parameter(w), lead

    def forward(self, x):
        logit = ((x.flatten(1) - 0.5) * self.w).sum(dim=1) - self.lead
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def linear_case():
    torch.manual_seed(0)
    w = torch.randn(16) * torch.tensor([3.0, 1.0, 0.3, 0.1]).repeat_interleave(4)
    mask = torch.arange(4).repeat_interleave(4)[None]
    return Linear(w, 0.8), torch.full((1, 16), 0.5), mask, w.detach().double().numpy()


def optimum(w, lead, tau, gamma):
    """The smallest ``gamma ||d||^2 + tau sum ||d_G||`` with ``w d >= lead``: each group
    changes along its weights, by a length that one multiplier determines."""
    norms = np.linalg.norm(w.reshape(4, 4), axis=1)

    def lengths(multiplier):
        return np.maximum(multiplier * norms - tau, 0) / (2 * gamma)

    multiplier = brentq(lambda m: lengths(m) @ norms - lead, 0, 1e4)
    return lengths(multiplier)


def test_linear_model_reaches_the_optimum():
    model, x0, mask, w = linear_case()
    tau, gamma = 3.0, 2.0
    best = optimum(w, model.lead, tau, gamma)
    assert 0 < (best > 0).sum() < 4
    problem = Problem(
        model, (), (x0,), 1.0, -0.5 * torch.ones(1, 16), 0.5 * torch.ones(1, 16),
        Groups.of(mask, (x0,)), torch.tensor([1]), True, 0.0,
    )  # fmt: skip
    with torch.no_grad():
        found = search(
            problem, Weights(tau, gamma, 15.0, 5.0), torch.zeros(1, 16),
            torch.ones(1, 4), constant=1.0, steps=8, iterations=150,
            advance=lambda: None,
        )  # fmt: skip
    lengths = found.delta.reshape(4, 4).norm(dim=1).numpy()
    assert ((lengths > 1e-3) == (best > 0)).all()
    cost = gamma * (best**2).sum() + tau * best.sum()
    assert float(found.cost) == pytest.approx(cost, rel=0.03)


def test_second_run_gives_the_smallest_norm_on_the_support():
    model, x0, mask, w = linear_case()
    x = StructuredAttack(model).perturb(
        x0, 1, targeted=True, feature_mask=mask, search_steps=6, iterations=120
    )
    delta = (x - x0).detach()[0].double().numpy()
    support = np.repeat(optimum(w, model.lead, 3.0, 2.0) > 0, 4)
    assert (delta[~support] == 0).all()
    wanted = model.lead * w * support / (w[support] ** 2).sum()
    assert np.linalg.norm(delta - wanted) < 0.05 * np.linalg.norm(wanted)


def slow_run(model, x0, label, mask, c, weights, iterations):
    """The solver for one example, group by group; shares no code with the package."""
    tau, gamma, rho, alpha = weights
    low, high = (-x0).clamp(min=-0.5), (1 - x0).clamp(max=0.5)
    z, u, s, v = (torch.zeros_like(x0) for _ in range(4))
    for k in range(iterations):
        moved = z.clone().requires_grad_()
        scores = model((x0 + moved)[None])[0]
        others = torch.cat([scores[:label], scores[label + 1 :]])
        hinge = (others.max() - scores[label]).clamp(min=0)
        (gradient,) = torch.autograd.grad(hinge, moved)
        a = (z - u) * rho / (rho + 2 * gamma)
        w = torch.minimum(torch.maximum(z - s, low), high)
        y = torch.zeros_like(z)
        for group in mask.unique():
            part = torch.where(mask == group, z - v, 0)
            norm = part.norm()
            if norm > tau / rho:
                y += part * (1 - tau / (rho * norm))
        eta = alpha * math.sqrt(k + 1)
        total = a + u + w + s + y + v
        z = (eta * z + rho * total - c * gradient) / (eta + 3 * rho)
        u, s, v = u + a - z, s + w - z, v + y - z
    return torch.minimum(torch.maximum(y, low), high)


def test_iterates_are_those_of_a_plain_implementation():
    model, pair = load_model(), make_pairs(2)
    mask = grid_mask((64, 64), cell=8)
    tried = []

    class Kept(Problem):
        def missing(self, delta):
            if not torch.is_grad_enabled():
                tried.append(delta.clone())
            return super().missing(delta)

    x0 = pair.natural
    problem = Kept(
        model, (), (x0,), 1.0,
        (-x0.flatten(1)).clamp(min=-0.5), (1 - x0.flatten(1)).clamp(max=0.5),
        Groups.of(mask, (x0,)), pair.attack_label, True, 0.0,
    )  # fmt: skip
    with torch.no_grad():
        search(
            problem, Weights(2.0, 1.0, 10.0, 4.0), torch.zeros(2, x0[0].numel()),
            torch.ones(2, 64), constant=2.0, steps=1, iterations=6,
            advance=lambda: None,
        )  # fmt: skip
    for i in range(2):
        want = slow_run(
            model, x0[i], int(pair.attack_label[i]), mask[0].expand_as(x0[i]), 2.0,
            (2.0, 1.0, 10.0, 4.0), 6,
        )  # fmt: skip
        got = tried[-1][i].reshape(want.shape)
        assert (want != 0).any()
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("targeted", [True, False])
def test_images(targeted):
    model, pair = load_model(), make_pairs(2)
    x0 = pair.natural
    labels = pair.attack_label if targeted else pair.true_label
    epsilon = 0.2
    x = StructuredAttack(model).perturb(
        x0, labels, targeted=targeted, epsilon=epsilon, confidence=0.5, **QUICK
    )
    scores = model(x)
    label = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    lead = label - others if targeted else others - label
    assert (lead > 0.5 - 1e-3).all()
    assert x.min() >= 0
    assert x.max() <= 1
    assert (x - x0).abs().max() <= epsilon + 1e-6
    changed = Groups.of(None, (x0,)).sums(((x - x0).abs(),), (x0,)) > 0
    assert changed.float().mean() < 0.5


def test_features_in_no_group_stay():
    model, pair = load_model(), make_pairs(1)
    mask = grid_mask((64, 64), cell=8)
    mask = torch.where(mask % 2 == 0, mask, -1)
    x = StructuredAttack(model).perturb(
        pair.natural, pair.attack_label, targeted=True, feature_mask=mask, **QUICK
    )
    moved = (x != pair.natural).any(dim=1, keepdim=True)
    assert moved.any()
    assert not (moved & (mask < 0)).any()


def test_range_of_the_inputs_is_a_unit():
    """An image in [0, 255] and a model that divides by 255 give the same attack."""
    model, pair = load_model(), make_pairs(2)
    # Few iterations: rounding decides later on which one is the first to succeed.
    short = {"targeted": True, "iterations": 6, "search_steps": 1}
    plain = StructuredAttack(model).perturb(
        pair.natural, pair.attack_label, epsilon=0.1, **short
    )
    large = StructuredAttack(lambda x: model(x / 255), 0, 255).perturb(
        pair.natural * 255, pair.attack_label, epsilon=25.5, **short
    )
    assert (plain != pair.natural).any()
    torch.testing.assert_close(large / 255, plain, rtol=0, atol=1e-4)


def test_tuples_and_additional_arguments():
    torch.manual_seed(0)
    first, second = torch.rand(2, 4), torch.rand(2, 3, 2)
    weight = torch.randn(10, 3)

    def model(a, b, scale):
        return torch.cat([a, b.flatten(1)], dim=1) @ weight * scale

    true = model(first, second, 5.0).argmax(dim=1)
    found = StructuredAttack(model).perturb(
        (first, second), true, 5.0, group_weight=0.1, **QUICK
    )
    assert isinstance(found, tuple)
    assert [x.shape for x in found] == [first.shape, second.shape]
    assert (model(*found, 5.0).argmax(dim=1) != true).all()


def test_what_cannot_be_reached_is_missed_by_as_little_as_was_found():
    model, x0, mask, _ = linear_case()
    attack = StructuredAttack(model)
    x = attack.perturb(x0, 1, targeted=True, feature_mask=mask, epsilon=1e-3, **QUICK)
    before, after = (float(model(values)[0, 1].detach()) for values in (x0, x))
    assert before < after < 0


def test_from_attack_marks_what_failed():
    model, pair = load_model(), make_pairs(3)
    found = AdversarialPair.from_attack(
        StructuredAttack(model), pair.natural,
        true_label=pair.true_label, attack_label=pair.attack_label,
        epsilon=1e-4, iterations=2, search_steps=1,
    )  # fmt: skip
    assert found.succeeded.tolist() == [False] * 3
    assert "3 failed" in repr(found)
    assert found.attack_label.tolist() == pair.attack_label.tolist()


def test_the_model_is_as_before():
    model, pair = load_model(), make_pairs(1)
    parameters = list(model.parameters())
    parameters[0].requires_grad_(True).grad = torch.ones_like(parameters[0])
    wanted = [(p.requires_grad, p.grad) for p in parameters]
    last = list(model.modules())[-1].train()
    natural = pair.natural.clone()
    with torch.no_grad():
        StructuredAttack(model).perturb(natural, 1, iterations=2, search_steps=1)
    assert [(p.requires_grad, p.grad) for p in parameters] == wanted
    assert last.training
    assert not model.training
    assert torch.equal(natural, pair.natural)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, "epsilon: got 0.0"),
        ({"rho": -1.0}, "rho: got -1.0"),
        ({"group_weight": math.inf}, "group_weight"),
        ({"confidence": -0.1}, "confidence: got -0.1"),
        ({"iterations": 0}, "iterations"),
        ({"search_steps": 0}, "search_steps"),
        ({"target": 99}, "target: got 99"),
        ({"inputs": torch.rand(1, 3, 64, 64) + 1}, "inputs: got values from"),
        ({"feature_mask": torch.zeros(5, dtype=torch.int64)}, "feature_mask"),
    ],
)
def test_bad_input(arguments, message):
    given = {"inputs": torch.rand(1, 3, 64, 64), "target": 1} | arguments
    with pytest.raises(ValueError, match=message):
        StructuredAttack(load_model()).perturb(**given)


def test_bounds_that_are_none():
    with pytest.raises(ValueError, match="lower_bound: got 1"):
        StructuredAttack(load_model(), 1.0, 1.0)
