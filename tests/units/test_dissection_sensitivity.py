"""Sensitivity of units against hooks and literal loops; its relation to concepts."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel
from conftest import SmallNet, TwoInputs, state_of
from scipy.stats import hypergeom, rankdata, spearmanr, t
from torch import Tensor, nn

from captum_pse import (
    AdversarialCAM,
    AdversarialPair,
    Dissection,
    DissectionSensitivity,
    UnitDecomposition,
    UnitSensitivity,
    relate,
    unit_range,
)
from captum_pse.dissection import Concept, LayerOverlaps
from captum_pse.reports.page.units import changed_in_pair
from captum_pse.units.norms import NORMS
from captum_pse.units.result import UNIT_COMPONENTS
from captum_pse.visualization import plot_relation, plot_unit_changes

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


def outputs(model: nn.Module, layer: nn.Module, *inputs: Tensor) -> Tensor:
    """The output of a layer, by a hook of the test."""
    kept = []
    handle = layer.register_forward_hook(lambda m, a, out: kept.append(out.clone()))
    with torch.no_grad():
        model(*inputs)
    handle.remove()
    (output,) = kept
    return output


@pytest.mark.parametrize("layer", ["conv", "norm", "head"])
def test_components_are_differences_of_activations(make_case, layer):
    case = make_case(2)
    method = DissectionSensitivity(case.model, layer)
    module = getattr(case.model, layer)
    a, a0 = (outputs(case.model, module, x) for x in (case.adversarial, case.natural))
    wanted = {
        "change": a - a0,
        "promotion": (a - a0).clamp(min=0),
        "suppression": (a0 - a).clamp(min=0),
    }
    before = state_of(case.model)
    for component in UNIT_COMPONENTS:
        got = method.attribute(
            case.adversarial, case.natural, 1, 2, component=component
        )
        torch.testing.assert_close(got, wanted[component], rtol=1e-12, atol=1e-12)
        assert not got.requires_grad
    assert state_of(case.model) == before


class Shapes(nn.Module):
    """Layers of several types: 1-D, 3-D, linear, tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(3, 4, 3, padding=1)
        self.three = nn.Conv3d(3, 5, 3, padding=1)
        self.tokens = nn.Linear(3, 6)
        self.head = nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x.flatten(2)).mean(2)
        three = self.three(x.unsqueeze(2)).mean((2, 3, 4))
        tokens = self.tokens(x.flatten(2).transpose(1, 2)).mean(1)
        return self.head(torch.cat([one, three, tokens], dim=1))


@pytest.mark.parametrize(
    ("layer", "channel_dim"), [("one", 1), ("three", 1), ("tokens", -1), ("head", 1)]
)
@pytest.mark.parametrize("norm", NORMS)
def test_norms_by_a_literal_loop(layer, channel_dim, norm):
    model = Shapes().double().eval()
    x, x0 = torch.rand(2, 2, 3, 4, 4).double()
    method = DissectionSensitivity(model, layer, channel_dim=channel_dim)
    module = getattr(model, layer)
    a, a0 = (outputs(model, module, side) for side in (x, x0))
    literal = {
        "l2": lambda v: math.sqrt(sum(z * z for z in v)),
        "l1": lambda v: sum(abs(z) for z in v),
        "linf": lambda v: max(abs(z) for z in v),
        "mean": lambda v: sum(v) / len(v),
    }[norm]
    n_units = a.shape[channel_dim]

    def row(values: Tensor, example: int, unit: int) -> list[float]:
        return values.select(channel_dim, unit)[example].flatten().tolist()

    wanted = torch.tensor(
        [[literal(row(a - a0, i, k)) for k in range(n_units)] for i in range(2)]
    )
    size = a0.abs() if norm == "mean" else a0
    scale = torch.tensor(
        [sum(literal(row(size, i, k)) for i in range(2)) / 2 for k in range(n_units)]
    )
    got = method.unit_sensitivity(x, x0, 0, 1, norm=norm)
    torch.testing.assert_close(got.float(), wanted, rtol=1e-5, atol=1e-6)
    relative = method.unit_sensitivity(x, x0, 0, 1, norm=norm, relative=True)
    torch.testing.assert_close(relative.float(), wanted / scale, rtol=1e-5, atol=1e-6)


#: The natural and the adversarial values of units, and the relative sensitivity.
SCALES = {
    # The mean scale is 1, so every scale counts as at least 0.1.
    "silent": ([0, 0, 1, 3], [0, 0.02, 1.5, 0], [0, 0.2, 0.5, 1]),
    "almost silent": ([1e-9, 0.05, 0.95, 3], [0.02, 0.05, 1.9, 3], [0.2, 0, 1, 0]),
    "at the floor": ([0.1, 0.9, 1, 2], [0.2, 0.9, 1, 2], [1, 0, 0, 0]),
    # No unit has a scale: the mean change, 1, takes its place.
    "all silent": ([0, 0, 0, 0], [0, 1, 3, 0], [0, 1, 3, 0]),
    "no change": ([0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
}


@pytest.mark.parametrize(("x0", "x", "wanted"), SCALES.values(), ids=SCALES)
def test_silent_units_do_not_lead(x0, x, wanted):
    model = nn.Sequential(nn.ReLU(), nn.Flatten())
    natural, adversarial = torch.tensor([[x0], [x]], dtype=torch.float64)
    result = DissectionSensitivity(model, "0").decompose(adversarial, natural, 1, 0)
    relative = result.sensitivity(relative=True)
    assert relative[0].tolist() == pytest.approx(wanted, abs=1e-7)
    rows = result.table()
    assert [row["relative"] for row in rows] == relative[0].tolist()
    assert [row["scale"] for row in rows] == x0
    lead = int(torch.tensor(wanted).argmax())
    assert result.summary(top=1)[0]["most_sensitive_units"] == [lead]
    drawn = changed_in_pair(result, [{**row, "layer": "0"} for row in rows], top=1)
    assert drawn.rows[0] == (
        *(f"{lead}", f"{abs(x[lead] - x0[lead]):.3g}", f"{x0[lead]:.3g}"),
        f"{wanted[lead]:.2f}",
    )
    # The same of a set of pairs, for its scale and for its control.
    change = (adversarial - natural)[0].abs()
    scale, none = natural[0], torch.zeros(4)
    for made in (
        UnitSensitivity("0", "l2", 1, change, none, none, scale).relative,
        UnitSensitivity("0", "l2", 1, change, none, scale, none).against_control,
    ):
        assert made.tolist() == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize(
    ("layer", "channel_dim"), [("three", 1), ("tokens", -1), ("head", 1)]
)
def test_table_by_a_literal_loop(layer, channel_dim, tmp_path):
    model = Shapes().double().eval()
    x, x0 = torch.rand(2, 2, 3, 4, 4).double()
    method = DissectionSensitivity(model, layer, channel_dim=channel_dim)
    a, a0 = (outputs(model, getattr(model, layer), side) for side in (x, x0))
    wanted = []
    for i in range(2):
        for k in range(a.shape[channel_dim]):
            values, natural = (
                side.select(channel_dim, k).reshape(2, -1).numpy() for side in (a, a0)
            )
            change = values[i] - natural[i]
            scale = sum(np.sqrt((row**2).sum()) for row in natural) / 2
            l2 = np.sqrt((change**2).sum())
            wanted.append(
                {
                    "example": i,
                    "layer": layer,
                    "unit": k,
                    "sensitivity": l2,
                    "scale": scale,
                    "relative": l2 / scale,
                    "promotion": np.sqrt((change[change > 0] ** 2).sum()),
                    "suppression": np.sqrt((change[change < 0] ** 2).sum()),
                }
            )
    table = method.decompose(x, x0, 0, 1).table()
    assert [list(row) for row in table] == [list(row) for row in wanted]
    for got, row in zip(table, wanted, strict=True):
        assert got.pop("layer") == row.pop("layer")
        assert got == pytest.approx(row, rel=1e-9)
        # Every change is promotion or suppression.
        both = math.hypot(got["promotion"], got["suppression"])
        assert both == pytest.approx(got["sensitivity"], rel=1e-9)
    with (tmp_path / "units.csv").open("w+", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
        file.seek(0)
        read = list(csv.DictReader(file))
    for got, row in zip(read, table, strict=True):
        assert {name: float(value) for name, value in got.items()} == row


def test_components_of_a_table():
    model = nn.Sequential(nn.ReLU(), nn.Flatten())
    x0 = torch.tensor([[0.0, 0.0, 2.0]])
    x = torch.tensor([[0.0, 1.0, 1.0]])
    table = DissectionSensitivity(model, "0").decompose(x, x0, 1, 0).table()
    assert [row["promotion"] for row in table] == [0, 1, 0]
    assert [row["suppression"] for row in table] == [0, 0, 1]


def test_several_layers_tuples_and_arguments():
    model = TwoInputs().eval()
    x = (torch.rand(2, 3, 6, 6), torch.rand(2, 4))
    x0 = (torch.rand(1, 3, 6, 6), torch.rand(1, 4))
    method = DissectionSensitivity(model, ["image.conv", "vector"])
    image, vector = method.attribute(x, x0, 1, 2)
    assert (image.shape, vector.shape) == ((2, 8, 6, 6), (2, 5))
    torch.testing.assert_close(
        vector, outputs(model, model.vector, *x) - outputs(model, model.vector, *x0)
    )
    assert [r.layer for r in method.decompose(x, x0, 1, 2)] == ["image.conv", "vector"]
    assert [s.shape for s in method.unit_sensitivity(x, x0, 1, 2)] == [(2, 8), (2, 5)]
    halved = DissectionSensitivity(SmallNet().eval(), "head").decompose(
        x[0], x0[0], 1, 2, additional_forward_args=0.5
    )
    with torch.no_grad():
        assert halved.labels.natural_scores.shape == (2, 2)


def test_noise_tunnel_around_it(make_case):
    case = make_case(2, dtype=torch.float32)
    method = DissectionSensitivity(case.model, "conv")
    torch.manual_seed(1)
    got = NoiseTunnel(method).attribute(
        case.adversarial,
        nt_samples=3,
        stdevs=0.1,
        baselines=case.natural,
        target=[0, 1],
        true_target=[2, 3],
    )
    torch.manual_seed(1)
    noisy = case.adversarial.repeat_interleave(3, 0)
    noisy = noisy + torch.normal(0, torch.full_like(noisy, 0.1))
    a = outputs(case.model, case.model.conv, noisy).unflatten(0, (2, 3)).mean(1)
    wanted = a - outputs(case.model, case.model.conv, case.natural)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_saved_loaded_and_drawn(demo_model, demo_pairs, tmp_path):
    result = DissectionSensitivity(demo_model, "features.conv4").decompose(*demo_pairs)
    result.save(tmp_path / "u.safetensors")
    loaded = UnitDecomposition.load(tmp_path / "u.safetensors")
    assert torch.equal(loaded.change, result.change)
    assert loaded.summary() == result.summary()
    assert repr(loaded) == "UnitDecomposition((3, 96, 8, 8) of 'features.conv4')"
    record = result.summary(top=3)[1]
    relative = result.sensitivity(relative=True)[1]
    assert (
        record["most_sensitive_units"] == relative.argsort(descending=True)[:3].tolist()
    )
    assert record["mean_sensitivity"] == pytest.approx(
        float(result.sensitivity()[1].mean())
    )

    figure = plot_unit_changes(result, 1, most=4)
    figure.canvas.draw()
    (ax,) = figure.axes
    order = result.sensitivity()[1].argsort(descending=True)[:4]
    up = result.promotion[1, order].flatten(1).norm(dim=1)
    down = result.suppression[1, order].flatten(1).norm(dim=1)
    heights = [patch.get_height() for patch in ax.patches]
    np.testing.assert_allclose(heights, torch.cat([up, -down]), rtol=1e-5)
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        str(k) for k in order.tolist()
    ]
    result.plot(0).canvas.draw()
    with pytest.raises(IndexError, match="example: got 3, want 0 to 2"):
        result.plot(3)
    with pytest.raises(ValueError, match="most: got 0"):
        plot_unit_changes(result, most=0)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_over_a_set_by_a_literal_loop(demo_model, batch_size):
    from captum_pse.demo import make_pairs

    pairs = make_pairs(5)
    method = DissectionSensitivity(demo_model, ["features.conv3", "head"])
    before = state_of(demo_model)
    results = method.over(pairs, batch_size=batch_size)
    assert state_of(demo_model) == before
    x, x0, target, true_target = pairs
    assert isinstance(x, Tensor)
    assert isinstance(x0, Tensor)
    singles = method.unit_sensitivity(x, x0, target, true_target)
    scales = [r.scale() for r in method.decompose(x, x0, target, true_target)]
    for result, each, scale in zip(results, singles, scales, strict=True):
        rows = each.double()
        torch.testing.assert_close(result.mean, rows.mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(result.deviation, rows.std(0), rtol=1e-2, atol=1e-4)
        torch.testing.assert_close(result.scale, scale.double(), rtol=1e-4, atol=1e-6)
        low, high = result.interval(0.9)
        reach = t.ppf(0.95, 4) * rows.std(0) / math.sqrt(5)
        torch.testing.assert_close(high - low, 2 * reach, rtol=1e-2, atol=1e-4)
        assert (result.n, len(result)) == (5, each.shape[1])
        assert (result.control > 0).any()
        for ratio, by in (
            (result.relative, result.scale),
            (result.against_control, result.control),
        ):
            by = by.clamp(min=float(by.mean()) / 10)
            torch.testing.assert_close(ratio * by, result.mean)
    row = results[0].table()[7]
    assert (row["layer"], row["unit"]) == ("features.conv3", 7)
    assert row["sensitivity"] == pytest.approx(float(results[0].mean[7]))


def test_means_saved_loaded_and_drawn(demo_model, demo_pairs, tmp_path):
    method = DissectionSensitivity(demo_model, "features.conv4")
    means = method.over(demo_pairs)
    means.save(tmp_path / "s.safetensors")
    loaded = UnitSensitivity.load(tmp_path / "s.safetensors")
    assert loaded.table() == means.table()
    assert (loaded.norm, loaded.n, repr(loaded)) == ("l2", 3, repr(means))
    (ax,) = means.plot(most=5, title="mine").axes
    order = means.mean.argsort(descending=True)[:5]
    bars, (dashes,) = ax.containers[-1], ax.collections[-1:]
    assert [bar.get_height() for bar in bars] == pytest.approx(
        means.mean[order].tolist()
    )
    assert dashes.get_offsets()[:, 1].tolist() == pytest.approx(
        means.control[order].tolist()
    )
    low, high = means.interval()
    (lines,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    for segment, k in zip(lines.get_segments(), order.tolist(), strict=True):
        assert segment[:, 1].tolist() == pytest.approx([float(low[k]), float(high[k])])
    # One pair has no interval to draw.
    method.over(demo_pairs.select([0])).plot()
    with pytest.raises(ValueError, match="most: got 0, want a positive int"):
        means.plot(most=0)


def test_control_is_noise_of_the_same_size():
    """A linear unit changes by w.delta, and under noise by w.(+-|delta|)."""
    seen = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unit = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return self.unit(x)

    pairs = AdversarialPair(
        natural=torch.rand(3, 8),
        adversarial=torch.rand(3, 8),
        true_label=0,
        attack_label=1,
    )
    DissectionSensitivity(Spy().eval(), "unit").over(pairs, batch_size=3)
    natural, adversarial, noisy = seen[-1].chunk(3)
    torch.testing.assert_close((noisy - natural).abs(), (adversarial - natural).abs())
    signs = ((noisy - natural) * (adversarial - natural)).sign()
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    again = DissectionSensitivity(Spy().eval(), "unit").over(pairs, seed=1)
    assert again.control.shape == (8,)


def made_dissection(ious: list[float], categories: list[str]) -> Dissection:
    """Units with these IoU with one concept of their category, 0 with any other."""
    names = list(dict.fromkeys(categories))
    size = 10_000
    both = torch.zeros(len(ious), len(names), dtype=torch.int64)
    areas = torch.zeros(len(ious), len(names), dtype=torch.int64)
    for k, (iou, category) in enumerate(zip(ious, categories, strict=True)):
        both[k, names.index(category)] = round(iou * size)
        areas[k, names.index(category)] = round(iou * size)
    zeros = torch.zeros(len(ious))
    layer = LayerOverlaps(
        zeros, True, both, areas, areas.sum(1), zeros[:, None], zeros[:, None].long()
    )
    return Dissection(
        concepts=tuple(Concept(name, 1, f"a {name}") for name in names),
        layers={"layer": layer},
        concept_areas=torch.full((len(names),), size),
        category_pixels=torch.full((len(names),), 5 * size),
        n_pixels=5 * size,
        n_images=5,
        quantile=0.005,
        min_iou=0.04,
    )


def made_sensitivity(mean: Tensor, scale: Tensor) -> UnitSensitivity:
    ones = torch.ones_like(mean)
    return UnitSensitivity("layer", "l2", 3, mean, ones, ones, scale)


def test_relation_by_scipy():
    rng = np.random.default_rng(3)
    iou = rng.uniform(0, 0.1, 72).round(3)
    mean = torch.from_numpy(iou * 3 + rng.normal(size=72) * 0.1).abs()
    scale = torch.from_numpy(iou * 2 + rng.normal(size=72) * 0.1)
    categories = rng.choice(["color", "object"], 72).tolist()
    dissection = made_dissection(iou.tolist(), categories)
    relation = relate(
        made_sensitivity(mean, scale), dissection, tops=[20, 5], permutations=1999
    )
    (row,) = relation.table()
    wanted = spearmanr(mean, iou)
    assert row["rho"] == pytest.approx(wanted.statistic, abs=1e-12)
    assert row["p"] == pytest.approx(wanted.pvalue, abs=0.01)
    # Six strata of twelve units, and the rank of the scale, by least squares.
    held = np.column_stack([np.zeros((72, 6)), rankdata(scale)])
    for k, stratum in enumerate(np.split(np.argsort(scale.numpy()), 6)):
        held[stratum, k] = 1
    left = [
        rankdata(values) - held @ np.linalg.lstsq(held, rankdata(values))[0]
        for values in (mean, iou)
    ]
    partial = np.corrcoef(*left)[0, 1]
    assert row["partial_rho"] == pytest.approx(partial, abs=1e-12)
    assert row["detectors"] == (iou > 0.04).sum()

    first = np.argsort(-mean.numpy(), kind="stable")
    found = {(r["category"], r["top"]): r for r in relation.enrichment_table()}
    assert set(found) == {
        (name, top) for name in ("any", "color", "object") for top in (5, 20)
    }
    for (name, top), r in found.items():
        detects = iou > 0.04
        if name != "any":
            detects &= np.array(categories) == name
        k = detects[first[:top]].sum()
        assert r["detectors"] == k
        assert r["expected"] == pytest.approx(top * detects.mean())
        tail = sum(
            hypergeom.pmf(j, 72, detects.sum(), top) for j in range(int(k), top + 1)
        )
        assert r["p"] == pytest.approx(tail)
    # Benjamini and Hochberg by hand.
    ps = sorted(r["p"] for r in relation.enrichment_table())
    for r in relation.enrichment_table():
        rank = [min(1, min(p * 6 / (i + 1) for i, p in enumerate(ps) if p >= r["p"]))]
        assert r["p_adjusted"] == pytest.approx(rank[0])


def test_a_category_without_detectors_is_not_tested():
    iou = torch.linspace(0, 0.1, 30).tolist()
    sensitivity = made_sensitivity(torch.arange(30.0), torch.rand(30))
    with_texture, without = (
        relate(sensitivity, made_dissection(iou, categories), tops=[10], permutations=9)
        # The first unit detects nothing: its IoU is 0.
        for categories in (["texture", *["color"] * 29], ["color"] * 30)
    )
    rows = {row["category"]: row for row in with_texture.enrichment_table()}
    assert rows["texture"]["detectors"] == rows["texture"]["expected"] == 0
    assert math.isnan(rows["texture"]["p"])
    assert math.isnan(rows["texture"]["p_adjusted"])
    # It does not change the adjustment of the other tests.
    del rows["texture"]
    assert list(rows.values()) == without.enrichment_table()


def test_relation_with_itself_and_with_nothing():
    iou = torch.linspace(0, 0.1, 72).tolist()
    dissection = made_dissection(iou, ["color"] * 72)
    constant, growing = torch.ones(72), torch.arange(72.0)
    (row,) = relate(
        made_sensitivity(growing, constant), dissection, permutations=99
    ).table()
    assert row["rho"] == row["partial_rho"] == pytest.approx(1)
    assert row["p"] == pytest.approx(0.02)
    (row,) = relate(
        made_sensitivity(constant, growing), dissection, permutations=99
    ).table()
    assert all(math.isnan(row[key]) for key in ("rho", "p", "partial_rho", "partial_p"))
    # The scale explains the sensitivity: its residuals are 0.
    (row,) = relate(
        made_sensitivity(growing, growing), dissection, permutations=99
    ).table()
    assert math.isnan(row["partial_rho"])


def test_layers_of_few_units():
    relation = relate(
        made_sensitivity(torch.rand(6), torch.rand(6)),
        made_dissection([0.1] * 6, ["color"] * 6),
        permutations=99,
    )
    assert relation.enrichment_table() == []


def test_signed_sensitivities_enter_as_absolute_values():
    iou = [0.01, 0.02, 0.03, 0.04, 0.05]
    dissection = made_dissection(iou, ["color"] * 5)
    signed = torch.tensor([1.0, -2, 3, -4, 5])
    sensitivity = UnitSensitivity("layer", "mean", 3, signed, *torch.ones(3, 5))
    (row,) = relate(sensitivity, dissection, permutations=99).table()
    assert row["rho"] == pytest.approx(1)
    assert sensitivity.against_control.tolist() == [1, 2, 3, 4, 5]


def test_relation_figure():
    iou = torch.rand(30) / 10
    mean, scale = torch.rand(30), torch.rand(30)
    dissection = made_dissection(iou.tolist(), ["color"] * 30)
    relation = relate(made_sensitivity(mean, scale), dissection, permutations=99)
    figure = plot_relation(relation, title="$t$")
    figure.canvas.draw()
    points = np.concatenate([c.get_offsets() for c in figure.axes[0].collections])
    best = dissection.best("layer")[0].numpy()
    wanted = np.stack([best, mean.numpy()], axis=1)
    np.testing.assert_allclose(
        points[points[:, 0].argsort()], wanted[best.argsort()], rtol=1e-6
    )
    assert f"rho {relation.table()[0]['rho']:.2f}" in figure.axes[0].get_title()
    relation.plot().canvas.draw()


BAD_RELATIONS = {
    "layer": ({"layer": "conv"}, {}, "sensitivity: got layer 'conv', want one of"),
    "units": ({"mean": torch.rand(5)}, {}, "got 5 units of 'layer', want 30"),
    "tops": ({}, {"tops": [0, 3]}, "tops: got 0, want a positive int"),
    "larger": ({}, {"tops": [5, 31]}, "tops: got 31, want at most the 30 units"),
    "permutations": ({}, {"permutations": 0}, "permutations: got 0"),
}


@pytest.mark.parametrize(
    ("changes", "options", "message"), BAD_RELATIONS.values(), ids=BAD_RELATIONS
)
def test_bad_relations(changes, options, message):
    dissection = made_dissection([0.1] * 30, ["color"] * 30)
    good = made_sensitivity(torch.rand(30), torch.rand(30))
    with pytest.raises(ValueError, match=message):
        relate(UnitSensitivity(**{**vars(good), **changes}), dissection, **options)


BAD = {
    "norm": ({}, {"norm": "l3"}, "norm: got 'l3', want one of l2"),
    "channel_dim": (
        {"channel_dim": 4},
        {},
        "channel_dim: got 4, but conv has an output",
    ),
    "batch": ({"channel_dim": 0}, {}, "channel_dim: got 0, the batch"),
    "layer": ({"layer": "convs"}, {}, "layer: the model has no 'convs'"),
    "idle": ({"layer": "unused"}, {}, "ran 0 times in a pass"),
}


@pytest.mark.parametrize(("made", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input(make_case, made, options, message):
    case = make_case(2)
    case.model.unused = nn.Identity()
    before = state_of(case.model)
    with pytest.raises(ValueError, match=message):
        DissectionSensitivity(case.model, **{"layer": "conv", **made}).unit_sensitivity(
            case.adversarial, case.natural, 1, 2, **options
        )
    assert state_of(case.model) == before


class Sequences(nn.Module):
    """A layer with the sequence dimension first, as in some transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(0, 1)).mean(0)


def test_units_and_examples_are_not_mixed_up():
    pairs = AdversarialPair(
        natural=torch.rand(4, 9, 5),
        adversarial=torch.rand(4, 9, 5),
        true_label=0,
        attack_label=1,
    )
    method = DissectionSensitivity(Sequences().eval(), "layer", channel_dim=-1)
    wanted = r"layer: layer has an output of shape \(9, .*\), want \d+ examples"
    with pytest.raises(ValueError, match=wanted):
        method.over(pairs)
    with pytest.raises(ValueError, match=wanted):
        method.attribute(*pairs)
    for channel_dim in (-3, 3):
        method = DissectionSensitivity(nn.Identity(), "", channel_dim=channel_dim)
        with pytest.raises(ValueError, match=f"channel_dim: got {channel_dim}, but"):
            method.over(pairs)


def test_predictions_may_agree(make_case):
    """The change does not depend on labels: a failed attack is accepted."""
    case = make_case(2)
    result = DissectionSensitivity(case.model, "conv").decompose(
        case.natural + 1e-9, case.natural
    )
    assert torch.equal(result.labels.target, result.labels.true_target)
    with pytest.raises(ValueError, match="got the same label"):
        DissectionSensitivity(case.model, "conv").decompose(
            case.adversarial, case.natural, 1, 1
        )


def test_bad_component_and_batch(make_case):
    case = make_case(2)
    method = DissectionSensitivity(case.model, "conv")
    with pytest.raises(ValueError, match="component: got 'effect', want one of change"):
        method.attribute(case.adversarial, case.natural, component="effect")
    pairs = AdversarialPair(
        natural=case.natural, adversarial=case.adversarial, true_label=0, attack_label=1
    )
    with pytest.raises(ValueError, match="batch_size: got 0"):
        method.over(pairs, batch_size=0)
    with pytest.raises(ValueError, match="level: got 1, want more than 0"):
        method.over(pairs).interval(1)
    low, _ = method.over(pairs.select(0)).interval()
    assert low.isnan().all()


class ToBytes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 200).to(torch.uint8)


class Quantised(nn.Module):
    """Its layer returns integers, whose differences wrap around."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = ToBytes()
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).float().mean((2, 3)))


@pytest.mark.parametrize(
    "run",
    [
        lambda model, x: DissectionSensitivity(model, "layer").attribute(x, x / 2),
        lambda model, x: AdversarialCAM(model, "layer").attribute(x, x / 2, 1, 2),
        lambda model, x: unit_range(model, "layer", x),
    ],
)
def test_layers_of_integers_are_refused(run):
    with pytest.raises(
        TypeError, match=r"^layer: this ToBytes returned torch.uint8, want"
    ):
        run(Quantised().eval(), torch.rand(2, 3, 4, 4))
