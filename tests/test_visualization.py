"""Figures show the numbers of a result, for every kind of map."""

from __future__ import annotations

from io import BytesIO
from typing import get_type_hints

import numpy as np
import pytest
import torch
from conftest import TwoInputs
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import captum_pse
from captum_pse import (
    PromotionSuppression,
    RegionDecomposition,
    agreement,
    channel_mask,
    dissection,
    grid_mask,
    visualization,
)
from captum_pse.demo import CLASSES
from captum_pse.pairs.labels import PairLabels
from captum_pse.pairs.scored import ScoredPair
from captum_pse.pixels.refinement import Curve
from captum_pse.regions.result import CLASS_MAPS
from captum_pse.visualization import (
    COLORS,
    plot_groups,
    plot_interpretability,
    plot_masking,
    plot_methods,
    plot_pair,
    plot_refinement_curves,
    plot_types,
)

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")

SIZE = 8

#: Types that modules import only for type checking.
TYPES = {
    name: getattr(module, name)
    for module in (captum_pse, dissection)
    for name in module.__all__
} | {"Curve": Curve}


def linear(weight: Tensor):
    """Logits (0, w.x, -w.x): promotion and suppression where w is positive."""

    def forward(x: Tensor) -> Tensor:
        score = (x.flatten(1) * weight.flatten()).sum(1)
        return torch.stack([torch.zeros_like(score), score, -score], 1)

    return forward


def titled(figure: Figure, text: str):
    (ax,) = (ax for ax in figure.axes if ax.get_title().startswith(text))
    return ax


@pytest.mark.parametrize(("promoted", "suppressed"), [(1.0, 0.25), (0.25, 1.0)])
def test_maps_are_the_numbers_on_a_common_scale(promoted, suppressed):
    weight = torch.rand(3, SIZE, SIZE) + 0.1
    x0 = torch.rand(1, 3, SIZE, SIZE)
    x = (x0 + 0.1).clamp(max=1)
    x[:, :, 0, 0] = x0[:, :, 0, 0] * 0.9
    result = PromotionSuppression(
        lambda v: linear(weight)(v) * torch.tensor([1.0, promoted, suppressed])
    ).decompose(x, x0, 1, 2, feature_mask=grid_mask((SIZE, SIZE), cell=4))
    figure = plot_pair(result)
    figure.canvas.draw()
    images = {
        name: titled(figure, name).images[0]
        for name in (
            "natural",
            "perturbation",
            "promotion of",
            "suppression of",
            "ratio",
        )
    }
    for name, component in (
        ("promotion of", "promotion"),
        ("suppression of", "suppression"),
        ("ratio", "ratio"),
    ):
        expected = result.attribution(component)[0, 0].numpy()
        np.testing.assert_allclose(images[name].get_array(), expected, atol=1e-5)
    top = float(torch.cat([result.promotion, result.suppression]).max())
    assert images["promotion of"].get_clim() == pytest.approx((0, top))
    assert images["suppression of"].get_clim() == pytest.approx((0, top))
    low, high = images["ratio"].get_clim()
    assert low == -high
    np.testing.assert_allclose(
        images["natural"].get_array(), x0[0].permute(1, 2, 0), atol=1e-6
    )
    delta = (x - x0)[0]
    strongest = delta.gather(0, delta.abs().argmax(0, keepdim=True))[0]
    np.testing.assert_allclose(images["perturbation"].get_array(), strongest, atol=1e-6)
    kinds = titled(figure, "type").images[0].get_array()
    assert set(np.unique(kinds)) == {1 if promoted > suppressed else -1}
    (dots,) = titled(figure, "groups").collections
    np.testing.assert_allclose(
        dots.get_offsets(),
        torch.stack([result.suppression[0], result.promotion[0]], 1),
        atol=1e-6,
    )
    colors = {to_hex(color) for color in dots.get_facecolors()}
    dominated = "promotion" if promoted > suppressed else "suppression"
    assert colors == {COLORS[dominated]}


def test_the_type_bar_counts_groups():
    x0 = torch.zeros(1, 1, 2, 3)
    weight = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, -1.0]])
    result = PromotionSuppression(
        lambda v: linear(weight)(v) * torch.tensor([1.0, 1.0, 0.1])
    ).decompose(x0 + 1, x0, 1, 2)
    figure = result.plot()
    labels = [
        label.get_text().split("\n")
        for ax in figure.axes
        for label in ax.get_yticklabels()
        if "groups" in label.get_text()
    ]
    assert dict(labels) == {
        "suppression": "0 groups",
        "balanced": "0 groups",
        "promotion": "3 groups",
        "inactive": "3 groups",
    }


def test_features_in_no_group_are_blank(tmp_path):
    x0 = torch.rand(1, 3, SIZE, SIZE)
    mask = torch.full((1, 3, SIZE, SIZE), -1)
    mask[:, 0, :4] = 3
    result = PromotionSuppression(linear(torch.ones(3, SIZE, SIZE))).decompose(
        x0 + 0.1, x0, 1, 2, feature_mask=mask
    )
    figure = result.plot()
    figure.save(tmp_path / "figure.png", dpi=40)
    for name in ("promotion of", "suppression of", "ratio", "type"):
        drawn = np.ma.filled(titled(figure, name).images[0].get_array(), np.nan)
        assert np.isnan(drawn[4:]).all(), name
        assert np.isfinite(drawn[:4]).all(), name
    drawn = titled(figure, "promotion of").images[0].get_array()
    np.testing.assert_allclose(drawn[:4], float(result.promotion), rtol=1e-5)


NAMES = {
    "maths": ("a$\\frac$b", "a$\\frac$b"),
    "bytes of no encoding": ("x\udcff", "x\N{REPLACEMENT CHARACTER}"),
    "lines": ("a\nb\x1b[0m", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[0m"),
    "too long": ("n" * 400, "n" * 57 + "..."),
}


@pytest.mark.parametrize(("name", "shown"), NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("draw", [plot_pair, plot_groups])
def test_any_name_draws(name, shown, draw, tmp_path):
    x0 = torch.rand(1, 3, SIZE, SIZE)
    result = PromotionSuppression(linear(torch.ones(3, SIZE, SIZE))).decompose(
        x0 + 0.1, x0, 1, 2
    )
    figure = draw(result, title=name, class_names=[name] * 3)
    figure.save(tmp_path / "figure.png", dpi=40)
    headline = figure._suptitle if draw is plot_pair else figure.axes[0].title
    assert headline.get_text().startswith(f"{shown}: true {shown} (2), attacked")
    with pytest.raises(ValueError, match="class_names: got 1, want one for"):
        draw(result, class_names=["only"])


DELTAS = {
    "no perturbation": torch.zeros(1, 3, SIZE, SIZE),
    "promotion only": torch.full((1, 3, SIZE, SIZE), 0.1),
    "neither (all negative)": torch.full((1, 3, SIZE, SIZE), -0.1),
    "one pixel": torch.nn.functional.pad(torch.ones(1, 3, 1, 1), (0, 7, 0, 7)),
}


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["in [0, 1]", "normalised"])
@pytest.mark.parametrize("delta", DELTAS.values(), ids=DELTAS)
def test_every_map_draws(delta, scale, channels, tmp_path):
    x0 = torch.rand(1, channels, SIZE, SIZE) * scale - (scale > 1) * scale / 2
    weight = torch.ones(channels, SIZE, SIZE)
    result = PromotionSuppression(linear(weight)).decompose(
        x0 + delta[:, :channels], x0, 1, 0
    )
    figure = result.plot()
    figure.save(tmp_path / "figure.png", dpi=40)
    noted = "rescaled from" in titled(figure, "natural").get_title()
    outside = bool(((result.inputs[0] < 0) | (result.inputs[0] > 1)).any())
    assert noted == (outside or scale > 1)


def test_a_constant_image_outside_the_range_draws(tmp_path):
    x0 = torch.full((1, 3, SIZE, SIZE), -2.0)
    method = PromotionSuppression(linear(torch.ones(3, SIZE, SIZE)))
    method.decompose(x0, x0, 1, 0).plot().savefig(tmp_path / "figure.png", dpi=40)


def test_groups_of_channels_draw(tmp_path):
    x0 = torch.rand(1, 3, SIZE, SIZE)
    result = PromotionSuppression(linear(torch.rand(3, SIZE, SIZE))).decompose(
        x0 + 0.1, x0, 1, 2, feature_mask=channel_mask(x0)
    )
    figure = result.plot()
    drawn = titled(figure, "promotion of").images[0].get_array()
    np.testing.assert_allclose(drawn, float(result.promotion.mean()), rtol=1e-5)


def test_titles_name_the_labels_and_a_failed_attack(demo_model, demo_pairs):
    x, x0, _, t0 = demo_pairs
    result = PromotionSuppression(demo_model).decompose(
        x, x0, 7, t0, feature_mask=grid_mask((64, 64), cell=32)
    )
    text = result.plot(1, class_names=CLASSES, title="mine")._suptitle.get_text()
    assert text.startswith("mine: true boat (1), attacked towards house (7)\n")
    assert "the model predicts butterfly (2) on the adversarial" in text


def test_other_inputs_draw_as_bars():
    model = TwoInputs().eval()
    x = (torch.rand(2, 3, 6, 6), torch.rand(2, 4))
    x0 = tuple(torch.rand_like(part) for part in x)
    result = PromotionSuppression(model).decompose(x, x0, 1, 2)
    figure = plot_groups(result, 1, most=5)
    figure.canvas.draw()
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    best = result.effect[1].argsort(descending=True)[:5]
    assert heights[:5] == pytest.approx(result.promotion[1][best].tolist())
    assert heights[5:] == pytest.approx((-result.suppression[1][best]).tolist())
    assert isinstance(result.plot(), Figure)
    with pytest.raises(ValueError, match="result: got inputs of shapes"):
        plot_pair(result)


def test_a_notebook_shows_figures_by_themselves(demo_model, demo_pairs):
    # As a kernel displays the last value of a cell, without `%matplotlib inline`.
    figure = PromotionSuppression(demo_model).decompose(*demo_pairs).plot(0)
    shown, _ = DisplayFormatter().format(figure)
    with Image.open(BytesIO(shown["image/png"])) as picture:
        assert picture.size == tuple(figure.bbox.size)
    for name in visualization.__all__:
        if name.startswith("plot_"):
            hints = get_type_hints(getattr(visualization, name), localns=TYPES)
            assert issubclass(hints["return"], type(figure)), name


@pytest.mark.parametrize("draw", [plot_pair, plot_groups])
def test_examples_out_of_range(draw):
    x0 = torch.rand(1, 3, SIZE, SIZE)
    result = PromotionSuppression(linear(torch.ones(3, SIZE, SIZE))).decompose(
        x0, x0, 1, 2
    )
    with pytest.raises(IndexError, match="example: got 1, want 0 to 0"):
        draw(result, 1)
    with pytest.raises(ValueError, match="most: got 0"):
        plot_groups(result, most=0)


def region_result(
    maps: list[Tensor], delta: Tensor | None = None
) -> RegionDecomposition:
    x0 = torch.rand(1, 3, SIZE, SIZE)
    x = x0 + (torch.rand_like(x0) * 0.1 if delta is None else delta)
    scores = torch.tensor([[0.0, 1.0]])
    label = torch.tensor([[1]])
    labels = PairLabels(label, label + 1, label[0], label[0] + 1, scores, scores)
    return RegionDecomposition(
        ScoredPair((x,), (x0,), labels, is_tuple=False), "layer", *maps
    )


def test_region_maps_share_a_scale():
    maps = [torch.rand(1, 1, SIZE, SIZE) * k for k in (1, 2, 3, 4)]
    result = region_result(maps)
    figure = result.plot()
    figure.canvas.draw()
    titles = ("natural, true", "adversarial, true", "natural, att", "adversarial, att")
    for title, values in zip(titles, maps, strict=True):
        image = titled(figure, title).images[1]
        np.testing.assert_allclose(image.get_array(), values[0, 0], atol=1e-6)
        assert image.get_clim() == (0, pytest.approx(float(maps[3].max())))
    promotion, suppression = (
        titled(figure, name).images[0] for name in ("promotion", "suppression")
    )
    np.testing.assert_allclose(
        promotion.get_array(), (maps[3] - maps[2])[0, 0], atol=1e-6
    )
    np.testing.assert_allclose(
        suppression.get_array(), (maps[0] - maps[1])[0, 0], atol=1e-6
    )
    assert promotion.get_clim() == suppression.get_clim()
    score = result.interpretability("adversarial_attack")
    assert (
        f"IS {float(score.score):.2f}, {float(score.lift):.2f} x a shifted"
        in titled(figure, titles[3]).get_title()
    )


REGIONS = {
    "all zero": [torch.zeros(1, 1, SIZE, SIZE)] * 4,
    "one-signed": [-torch.rand(1, 1, SIZE, SIZE)] * 4,
    "at the layer's size": [torch.rand(1, 1, 2, 2)] * 4,
}


@pytest.mark.parametrize("maps", REGIONS.values(), ids=REGIONS)
@pytest.mark.parametrize("delta", [None, torch.zeros(1, 3, SIZE, SIZE)])
def test_every_region_map_draws(maps, delta, tmp_path):
    result = region_result(maps, delta)
    result.plot(title="$\\frac$", percentile=50).savefig(tmp_path / "f.png", dpi=40)
    with pytest.raises(IndexError, match="example: got 1, want 0 to 0"):
        result.plot(1)


def regions(x: Tensor, x0: Tensor, **maps: Tensor) -> RegionDecomposition:
    """A result with the given maps; the others are 0."""
    labels = PromotionSuppression(linear(torch.ones(3, SIZE, SIZE))).decompose(
        x, x0, 1, 2, feature_mask=channel_mask(x)
    )
    zero = torch.zeros(len(x), 3, SIZE, SIZE)
    four = {name: maps.get(name, zero) for name in CLASS_MAPS}
    return RegionDecomposition(
        ScoredPair((x,), (x0,), labels.labels, is_tuple=False), "made up", **four
    )


def test_methods_side_by_side():
    x, x0 = torch.rand(2, 3, SIZE, SIZE), torch.rand(2, 3, SIZE, SIZE)
    mask = grid_mask((SIZE, SIZE), cell=2)
    pse = PromotionSuppression(linear(torch.rand(3, SIZE, SIZE))).decompose(
        x, x0, 1, 2, feature_mask=mask
    )
    values = {name: torch.randn(2, 3, SIZE, SIZE) for name in CLASS_MAPS}
    other = regions(x, x0, **values)
    figure = plot_methods({"PSE": pse, "other": other}, 1, top=4)
    figure.canvas.draw()

    for component in ("promotion", "suppression"):
        compared = {"a": pse.attribution(component), "b": other.attribution(component)}
        agreed = agreement(compared, feature_mask=mask, top=4)
        rho = agreed.rank_correlation[1, 0, 1]
        overlap = agreed.overlap[1, 0, 1]
        ax = titled(figure, f"other\n{component}")
        assert ax.get_title().endswith(f"rho {rho:.2f}, top 4 shared {overlap:.0%}")
        drawn = ax.images[0].get_array()
        wanted = other.attribution(component)[1].sum(0).numpy()
        np.testing.assert_allclose(drawn, wanted, rtol=1e-5)
        own = titled(figure, f"PSE\n{component}").images[0]
        wanted = pse.attribution(component)[1].mean(0).numpy()
        np.testing.assert_allclose(own.get_array(), wanted, rtol=1e-5)
    scales = [
        titled(figure, f"{name}\n{component}").images[0].get_clim()
        for name in ("PSE", "other")
        for component in ("promotion", "suppression")
    ]
    assert scales[0] == scales[1]
    assert scales[2] == scales[3] != scales[0]


@pytest.mark.parametrize("own", ["channels", "one group"])
def test_methods_on_few_groups(own):
    """The comparison uses a result's own groups only if there are several."""
    x, x0 = torch.rand(1, 3, SIZE, SIZE), torch.rand(1, 3, SIZE, SIZE)
    mask = channel_mask(x) if own == "channels" else torch.zeros(1, 1, 1, 1).long()
    pse = PromotionSuppression(linear(torch.rand(3, SIZE, SIZE))).decompose(
        x, x0, 1, 2, feature_mask=mask
    )
    values = {name: torch.randn(1, 3, SIZE, SIZE) for name in CLASS_MAPS}
    plot_methods({"PSE": pse, "other": regions(x, x0, **values)}).canvas.draw()


def test_masks_of_two_dimensions():
    x, x0 = torch.rand(2, 3, SIZE, SIZE), torch.rand(2, 3, SIZE, SIZE)
    values = {name: torch.randn(2, 3, SIZE, SIZE) for name in CLASS_MAPS}
    other = {name: torch.randn(2, 3, SIZE, SIZE) for name in CLASS_MAPS}
    results = {"a": regions(x, x0, **values), "b": regions(x, x0, **other)}
    mask = grid_mask((SIZE, SIZE), cell=2)
    titles = []
    for given in (mask, mask[0, 0]):
        figure = plot_methods(results, 1, feature_mask=given)
        titles.append([ax.get_title() for ax in figure.axes])
    assert titles[0] == titles[1]


def test_one_method_and_maps_of_zeros():
    x, x0 = torch.rand(1, 3, SIZE, SIZE), torch.rand(1, 3, SIZE, SIZE)
    result = regions(x, x0)
    plot_methods({"nothing": result}).canvas.draw()
    both = plot_methods({"nothing": result, "<other> $x$": result})
    both.canvas.draw()
    for component in ("promotion", "suppression"):
        text = titled(both, f"<other> $x$\n{component}").get_title()
        assert "rho undefined" in text


@pytest.mark.parametrize(
    ("draw", "empty", "argument"),
    [
        (plot_types, ([],), "rows"),
        (plot_refinement_curves, ([],), "rows"),
        (plot_interpretability, ([], []), "scores"),
        (plot_masking, ([],), "results"),
    ],
)
def test_nothing_to_draw(draw, empty, argument):
    with pytest.raises(ValueError, match=f"{argument}: got none, want "):
        draw(*empty)


def test_methods_must_be_of_the_same_pairs():
    x, x0 = torch.rand(2, 1, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="results: a and b are not of the same pairs"):
        plot_methods({"a": regions(x, x0), "b": regions(x0, x)})
    with pytest.raises(ValueError, match="results: got none"):
        plot_methods({})
    with pytest.raises(IndexError, match="example: got 1"):
        plot_methods({"a": regions(x, x0)}, 1)


def test_agreement_as_matrices():
    values = {name: torch.rand(3, 9) for name in ("a", "b $x$", "c")}
    result = agreement(values, top=3)
    figure = result.plot(title="promotion")
    figure.canvas.draw()
    for start, matrix in (
        ("Spearman", result.rank_correlation),
        ("overlap of the top 3", result.overlap),
    ):
        ax = titled(figure, start)
        np.testing.assert_allclose(ax.images[0].get_array(), matrix.mean(0), rtol=1e-6)
        texts = [text.get_text() for text in ax.texts]
        assert texts == [f"{value:.2f}" for value in matrix.mean(0).flatten()]
