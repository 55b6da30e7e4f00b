"""Refined attacks compared with a literal loop and with results computed by hand."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from captum_pse import Refinement, grid_mask, refine
from captum_pse.pixels.refinement import join, mean_curve
from captum_pse.visualization import plot_refinements

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


def test_mean_curve_of_single_pairs(make_case):
    case = make_case(4)
    pair, scores = (case.adversarial, case.natural, 1, 2), torch.randn(4, 1, 6, 6)
    mask = grid_mask((6, 6), cell=2)
    whole = refine(case.model, *pair, scores=scores, feature_mask=mask)
    each = [
        refine(
            case.model, pair[0][n : n + 1], pair[1][n : n + 1], 1, 2,
            scores=scores[n : n + 1], feature_mask=mask,
        )
        for n in range(4)
    ]  # fmt: skip
    averaged = mean_curve([one.table() for one in each])
    for found, wanted in zip(averaged, whole.table(), strict=True):
        assert found == pytest.approx(wanted)
    # Figures accept both.
    figure = plot_refinements({"whole": whole, "averaged": averaged})
    one, other = figure.axes[2].lines
    assert one.get_ydata().tolist() == pytest.approx(other.get_ydata().tolist())


def test_refinements_that_cannot_be_joined(make_case):
    with pytest.raises(ValueError, match="refinements: got none"):
        join([])
    case = make_case(2)
    own = refine(
        case.model, case.adversarial, case.natural, 1, 2,
        scores=torch.rand(2, 1, 6, 6), feature_mask=torch.randint(0, 4, (2, 1, 6, 6)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="refinements: got other groups for each"):
        join([own, own])


@pytest.mark.parametrize("cell", [1, 2, 3, 6])
def test_the_bar_counts_the_passes(cell, make_case, capsys):
    case = make_case(3)
    calls = []

    def model(x):
        calls.append(len(x))
        return case.model(x)

    refine(
        model, case.adversarial, case.natural, 1, 2, scores=torch.randn(3, 1, 6, 6),
        feature_mask=grid_mask((6, 6), cell=cell), show_progress=True,
    )  # fmt: skip
    # Two more passes score the labels, and bisection may end one pass early.
    total = int(re.findall(r"(\d+)/(\d+) ", capsys.readouterr().err)[-1][1])
    assert total - 1 <= len(calls) - 2 <= total


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_keeps_the_groups_with_the_largest_mean(make_case, fraction, per_example):
    case = make_case(3)
    x, x0 = case.adversarial, case.natural
    mask = grid_mask((6, 6), cell=2)
    if per_example:
        mask = torch.randint(-1, 9, (3, 3, 6, 6))
    scores = torch.randn(3, 1, 6, 6).double()
    refinement = refine(
        case.model, x, x0, 1, 2, scores=scores, fractions=[fraction], feature_mask=mask
    )
    (got,) = refinement.at(fraction)
    for n in range(3):
        mine = mask.expand(3, 3, 6, 6)[n]
        wide = scores[n].expand(3, 6, 6)
        means = {
            g: float(wide[mine == g].mean()) for g in mine.unique().tolist() if g >= 0
        }
        best = sorted(means, key=lambda g: (-means[g], g))
        chosen = best[: math.ceil(fraction * len(best) - 1e-9)]
        inside = torch.isin(mine, torch.tensor(chosen, dtype=mine.dtype))
        expected = torch.where(inside, x[n], x0[n])
        assert torch.equal(got[n], expected)
        with torch.no_grad():
            predicted = int(case.model(expected[None]).argmax())
        assert bool(refinement.reaches[0, n]) == (predicted == 1)
        assert bool(refinement.leaves[0, n]) == (predicted != 2)
        delta = (expected - x0[n]).flatten().float()
        for name, order in (("L0", 0), ("L1", 1), ("L2", 2), ("Linf", math.inf)):
            assert float(refinement.norms[name][0, n]) == pytest.approx(
                float(delta.norm(order)), rel=1e-5
            )


def counting(needed: Tensor):
    """Predicts 1 if the sum of the features is at least ``needed``, else 0."""

    def forward(x: Tensor) -> Tensor:
        enough = (x.flatten(1).sum(1) >= needed[: len(x)]).float()
        return torch.stack([1 - enough, enough], dim=1)

    return forward


def test_smallest_fraction_is_exact_where_more_is_better():
    needed = torch.tensor([1.0, 7.0, 10.0, 11.0])
    x, x0 = torch.ones(4, 10), torch.zeros(4, 10)
    refinement = refine(counting(needed), x, x0, 1, 0, scores=torch.rand(4, 10))
    got = refinement.smallest_fraction.tolist()
    assert got[:3] == pytest.approx([0.1, 0.7, 1.0])
    assert math.isnan(got[3])
    assert refinement.fractions == tuple(k / 10 for k in range(11))
    assert refinement.reaches.sum(0).tolist() == [10, 4, 1, 0]
    curve = refinement.table()
    assert curve[7] == {
        "fraction": 0.7,
        "reaches": 0.5,
        "leaves": 0.5,
        "L0": pytest.approx(7),
        "L1": pytest.approx(7),
        "L2": pytest.approx(7**0.5),
        "Linf": pytest.approx(1),
    }


def test_smallest_succeeds_and_one_group_less_does_not(demo_model, demo_pairs):
    x, x0, t, t0 = demo_pairs
    mask = grid_mask((64, 64), cell=8)
    refinement = refine(
        demo_model, x, x0, t, t0, scores=(x - x0).abs(), feature_mask=mask
    )
    for n, fraction in enumerate(refinement.smallest_fraction.tolist()):
        with torch.no_grad():
            enough, less = (
                int(demo_model(refinement.at(f)[0])[n].argmax()) == int(t[n])
                for f in (fraction, fraction - 1 / 64)
            )
        assert (enough, less) == (True, False)


@pytest.mark.parametrize("n_groups", [10, 49, 169, 196])
def test_the_smallest_fraction_keeps_enough_groups(n_groups):
    """Also if a fraction has no exact binary representation."""
    needed = torch.arange(1.0, n_groups + 1)
    x, x0 = torch.ones(n_groups, n_groups), torch.zeros(n_groups, n_groups)
    scores = torch.rand(n_groups, n_groups)
    refinement = refine(counting(needed), x, x0, 1, 0, scores=scores, fractions=[1])
    for i, fraction in enumerate(refinement.smallest_fraction.tolist()):
        assert int(refinement.keeps(fraction)[i].sum()) == i + 1
        assert int(refinement.at(fraction)[0][i].sum()) == i + 1


def test_nothing_is_enough_where_the_natural_input_has_the_label():
    needed = torch.tensor([0.0, 3.0])
    x, x0 = torch.ones(2, 4), torch.zeros(2, 4)
    refinement = refine(counting(needed), x, x0, 1, 0, scores=torch.rand(2, 4))
    assert refinement.smallest_fraction.tolist() == [0, 0.75]
    assert torch.equal(refinement.at(0.0)[0], x0)


def test_joined_refinements_are_one_of_all(demo_model, demo_pairs):
    scores = torch.rand(3, 1, 64, 64)
    options = {"fractions": [0.3, 0.6], "feature_mask": grid_mask((64, 64), cell=16)}
    whole = refine(demo_model, *demo_pairs, scores=scores, **options)
    parts = [
        refine(demo_model, *demo_pairs.select(i), scores=scores[i : i + 1], **options)
        for i in range(3)
    ]
    joined = join(parts)
    assert joined.table() == [
        {key: pytest.approx(value) for key, value in point.items()}
        for point in whole.table()
    ]
    assert torch.equal(joined.smallest_fraction, whole.smallest_fraction)
    assert torch.equal(joined.at(0.5)[0], whole.at(0.5)[0])
    other = refine(demo_model, *demo_pairs, scores=scores, fractions=[0.3])
    with pytest.raises(ValueError, match="refinements: want the same groups"):
        join([whole, other])


def test_ties_are_broken_by_id():
    x, x0 = torch.ones(1, 4), torch.zeros(1, 4)
    refinement = refine(
        counting(torch.tensor([2.0])), x, x0, 1, 0, scores=torch.zeros(1, 4)
    )
    assert refinement.ranks.tolist() == [[0, 1, 2, 3]]
    assert refinement.at(0.5)[0].tolist() == [[1, 1, 0, 0]]
    assert repr(refinement) == "Refinement(1 pair(s), 11 fractions)"


BAD = {
    "fraction": ({"fractions": [0.5, 1.5]}, ValueError, "fractions: got 1.5"),
    "no fractions": ({"fractions": []}, ValueError, "fractions: got none"),
    "scores of another shape": (
        {"scores": torch.rand(1, 3)},
        ValueError,
        r"scores: got shape \(1, 3\), want one that broadcasts to \(1, 4\)",
    ),
    "scores of NaN": (
        {"scores": torch.full((1, 4), torch.nan)},
        ValueError,
        "scores: got NaN",
    ),
    "scores for two inputs": (
        {"scores": (torch.rand(1, 4),) * 2},
        TypeError,
        r"scores: want 1 tensor\(s\)",
    ),
    "labels": ({"target": 0}, ValueError, "target and true_target: got the same"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes, error, message):
    good = {"target": 1, "true_target": 0, "scores": torch.rand(1, 4)}
    model = counting(torch.tensor([2.0]))
    with pytest.raises(error, match=message):
        refine(model, torch.ones(1, 4), torch.zeros(1, 4), **{**good, **changes})


def test_figures(tmp_path):
    x, x0 = torch.ones(4, 10), torch.zeros(4, 10)
    model = counting(torch.tensor([1.0, 7.0, 10.0, 11.0]))
    refinement = refine(model, x, x0, 1, 0, scores=torch.rand(4, 10))
    figure = plot_refinements(
        {"effect": refinement, "random": refinement}, title="$\\frac"
    )
    figure.savefig(tmp_path / "f.png", dpi=40)
    line = figure.axes[0].lines[0]
    curve = refinement.table()
    assert line.get_xdata().tolist() == [point["fraction"] for point in curve]
    assert line.get_ydata().tolist() == [point["reaches"] for point in curve]
    refinement.plot().savefig(tmp_path / "f.png", dpi=40)
    with pytest.raises(ValueError, match="refinements: got 0, want 1 to 5"):
        plot_refinements({})


def test_saved_and_loaded(make_case, tmp_path):
    case = make_case(2)
    refinement = refine(
        case.model,
        case.adversarial,
        case.natural,
        1,
        2,
        scores=torch.rand(2, 3, 6, 6),
        fractions=[0.2, 1],
        feature_mask=torch.randint(-1, 7, (2, 3, 6, 6)),
    )
    refinement.save(tmp_path / "r.safetensors")
    loaded = Refinement.load(tmp_path / "r.safetensors")
    assert loaded.table() == refinement.table()
    assert loaded.fractions == (0.2, 1.0)
    torch.testing.assert_close(
        loaded.smallest_fraction, refinement.smallest_fraction, equal_nan=True
    )
    assert torch.equal(loaded.at(0.5)[0], refinement.at(0.5)[0])
    for mine, theirs in zip(loaded.summary(), refinement.summary(), strict=True):
        assert mine == pytest.approx(theirs, nan_ok=True)


def test_summary():
    needed = torch.tensor([7.0, 11.0])
    x, x0 = torch.ones(2, 10), torch.zeros(2, 10)
    refinement = refine(counting(needed), x, x0, 1, 0, scores=torch.rand(2, 10))
    first, second = refinement.summary()
    assert first["smallest_fraction"] == pytest.approx(0.7)
    assert math.isnan(second["smallest_fraction"])
    assert (first["attack_holds"], second["attack_holds"]) == (True, False)


def test_norms_of_changes_that_single_precision_cannot_hold(make_case):
    case = make_case(1)  # double precision
    far = case.natural.clone()
    far[0, 0, 0, 0] = 0
    close = far.clone()
    close[0, 0, 0, 0] = 1e-60
    options = {"scores": torch.rand(1, 1, 6, 6), "fractions": [1]}
    found = refine(case.model, close, far, 1, 2, **options).norms
    assert float(found["L0"]) == 1
    assert float(found["Linf"]) == 1e-60
