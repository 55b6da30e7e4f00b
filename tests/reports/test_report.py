"""The report: its pictures and numbers are the results', and user text stays text."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SmallNet
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captum_pse import (
    AdversarialCAM,
    AdversarialPair,
    PromotionSuppression,
    channel_mask,
    demo,
    grid_mask,
)
from captum_pse.demo import SceneConcepts
from captum_pse.pairs.labels import PairLabels
from captum_pse.pairs.scored import ScoredPair
from captum_pse.regions.result import RegionDecomposition
from captum_pse.reports.explain import explain
from captum_pse.reports.page import groups
from captum_pse.reports.page.colours import Scale
from captum_pse.reports.page.groups import GroupValues
from captum_pse.reports.page.maps import group_pictures, region_pictures
from captum_pse.reports.page.pictures import Picture, pair_pictures
from captum_pse.reports.page.tables import (
    fraction_needed,
    label_namer,
    set_counts,
    set_facts,
)
from captum_pse.reports.units import explain_units
from captum_pse.visualization import COLORS

pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")

NASTY = "</script><script>document.title = 'pwned'</script>"


class Parsed(HTMLParser):
    """The tags, the text, and the texts of scripts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", []
        self._in = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = ""
        self.text += " "

    def handle_data(self, data):
        if self._in == "script":
            self.scripts[-1] += data
        elif self._in != "style":
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def pixels(uri: str) -> np.ndarray:
    """The RGB of a picture in the page; NaN where it is transparent."""
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        rgba = np.asarray(image.convert("RGBA"), dtype=float) / 255
    return np.where(rgba[..., 3:] == 0, np.nan, rgba[..., :3])


def by_key(pictures: list[Picture]) -> dict[str, Picture]:
    return {picture.key: picture for picture in pictures}


def strict_json(text: str) -> Any:
    """As any reader takes it: NaN is no JSON."""

    def no(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=no)


def decode(plane: dict) -> np.ndarray:
    rows = [np.repeat(runs[::2], runs[1::2]) for runs in plane["rows"]]
    return np.stack([rows[k] for k in plane["row"]])


@dataclass
class Refined:
    """The folder of a report by 16 groups, and what it is of."""

    folder: Path
    pairs: AdversarialPair
    effect: Tensor

    def sides(self, example: int) -> tuple[Tensor, Tensor]:
        return self.pairs.adversarial[example], self.pairs.natural[example]

    def kept(self, example: int, count: int) -> Tensor:
        """The pixels of the groups with the largest effect."""
        best = self.effect[example].argsort(descending=True)[:count]
        return torch.isin(grid_mask((64, 64), cell=16)[0], best)


def named(pairs: AdversarialPair, *names: str) -> AdversarialPair:
    labels = pairs.attack_label, pairs.true_label
    return AdversarialPair(pairs.adversarial, pairs.natural, *labels, names=names)


@pytest.fixture(scope="module")
def page(tmp_path_factory, demo_model, demo_pairs) -> Parsed:
    """Of three pairs, by pixel groups, with names and labels that are markup."""
    out = tmp_path_factory.mktemp("report")
    classes = [NASTY, '"><img src=x>', "<b>&amp;</b>", *demo.CLASSES[3:]]
    pairs = named(demo_pairs, NASTY, "' onclick='x", "a\nb")
    settings = {"model": "<i>net</i>", "pairs": [NASTY]}
    explain(demo_model, pairs, out, cell=16, class_names=classes, settings=settings)
    return Parsed((out / "index.html").read_text(encoding="utf-8"))


def test_user_text_stays_text(page):
    assert "i" not in {tag for tag, _ in page.tags}
    assert len(page.scripts) == 4
    assert page.text.count(NASTY) >= 3
    assert '"><img src=x>' in page.text
    assert "<b>&amp;</b>" in page.text
    assert "<i>net</i>" in page.text
    assert not any(attrs.get("src") == "x" for _, attrs in page.tags)
    assert not [name for _, attrs in page.tags for name in attrs if name[:2] == "on"]


def test_the_page_needs_nothing_else(page):
    """Its policy forbids what is not in it; hashes let its own script and style by."""
    assert page.values("src")
    assert all(uri.startswith("data:image/png;base64,") for uri in page.values("src"))
    assert {name for name in page.values("href") if not name.startswith("#")} == {
        "data:,",
        "figures/000-_script_script_document.title_pwned_script_.png",
        "figures/001-_onclick_x.png",
        "figures/002-a_b.png",
        "figures/refinement.png",
        "groups.csv",
        "summary.json",
    }
    (policy,) = (text for text in page.values("content") if "default-src" in text)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for script in page.scripts[1:]:
        digest = hashlib.sha256(script.encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "unsafe" not in policy
    assert not page.values("style")


def test_values_in_the_page(page, demo_model, demo_pairs):
    data = strict_json(page.scripts[0])
    result = PromotionSuppression(demo_model).decompose(
        *demo_pairs, feature_mask=grid_mask((64, 64), cell=16)
    )
    assert list(data["pairs"]) == ["0", "1", "2"]
    # The pairs share their groups.
    (layout,) = data["layouts"]
    grid = grid_mask((64, 64), cell=16)[0, 0].numpy()
    assert (decode(layout["planes"][0]) == grid).all()
    for i, pair in enumerate(data["pairs"].values()):
        assert pair["columns"]["group"] == list(range(16))
        for name in ("promotion", "suppression", "ratio"):
            expected = getattr(result, name)[i].tolist()
            got = pair["columns"][name]
            assert got == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_same_bytes_for_the_same_input(tmp_path, demo_model, demo_pairs):
    for run in ("first", "second"):
        explain(demo_model, demo_pairs.select(0), tmp_path / run, cell=32)
    first, second = (tmp_path / run / "index.html" for run in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_an_error_leaves_nothing_behind(
    tmp_path, demo_model, demo_pairs, monkeypatch, no_pictures
):
    def fail(path, page):
        path.write_text("half")
        raise OSError("no space")

    monkeypatch.setattr("captum_pse.reports.explain.write_page", fail)
    with pytest.raises(OSError, match="no space"):
        explain(demo_model, demo_pairs, tmp_path / "out", cell=32)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("colours", ["Oranges", "PuOr_r", "viridis"])
def test_colours_are_matplotlibs(colours):
    values = np.array([[-2.0, -1.0, 0.0], [0.5, 1.0, 3.0]])
    image = Scale(colours, -1, 1, "logits").draw(values)
    shown = np.asarray(image.convert("RGB")) / 255
    expected = colormaps[colours]((values.clip(-1, 1) + 1) / 2)[..., :3]
    assert shown == pytest.approx(expected, abs=0.02)
    values[0, 0] = np.nan
    image = Scale(colours, -1, 1, "logits").draw(values)
    assert (np.asarray(image) == 255).tolist() == np.isnan(values).tolist()


MASKS = {
    "grid": lambda: grid_mask((6, 8), cell=2),
    "any shape": lambda: torch.randint(0, 5, (6, 8)) * 7,
    "one an example": lambda: torch.randint(0, 5, (2, 1, 6, 8)),
    "some in no group": lambda: torch.randint(-2, 3, (1, 1, 6, 8)),
    "channels": lambda: channel_mask(torch.zeros(2, 3, 6, 8)),
    "channels apart": lambda: torch.randint(0, 4, (1, 3, 6, 8)),
}


@pytest.mark.parametrize("make", MASKS.values(), ids=MASKS)
def test_groups_of_any_mask(make):
    """The page finds the group of each pixel, and its type is the picture's."""
    mask = make()
    x0 = torch.rand(2, 3, 6, 8)
    x = (x0 + 0.3 * torch.randn(2, 3, 6, 8)).clamp(0, 1)
    result = PromotionSuppression(SmallNet().eval()).decompose(
        x, x0, 1, 2, feature_mask=mask
    )
    for example in range(2):
        found = GroupValues.of_groups(result, example)
        assert found is not None
        columns = {column.name: column.values for column in found.columns}
        expected = mask.expand(2, 3, 6, 8)[example].numpy()
        planes = [decode(plane) for plane in found.layout["planes"]]
        assert len(planes) == (3 if (expected != expected[0]).any() else 1)
        ids = np.array([*columns["group"], -1])
        for channel, plane in enumerate(planes):
            assert (ids[plane] == expected[channel].clip(min=-1)).all()
        if len(planes) == 1:
            kinds = np.array([to_rgb(COLORS[k]) for k in columns["type"]])
            colours = np.where(planes[0][..., None] < 0, np.nan, kinds[planes[0]])
            shown = pixels(by_key(group_pictures(result, example))["type"].uri)
            assert shown == pytest.approx(colours, abs=0.003, nan_ok=True)


def test_pictures_of_a_pair():
    x0, x = torch.rand(2, 2, 3, 6, 8)
    result = PromotionSuppression(SmallNet().eval()).decompose(x, x0, 1, 2)
    pictures = by_key(pair_pictures(result, 1))
    for key, image in (("natural", x0), ("adversarial", x)):
        expected = image[1].permute(1, 2, 0).numpy()
        assert pixels(pictures[key].uri) == pytest.approx(expected, abs=0.003)
    delta = (x - x0)[1]
    strongest = delta.gather(0, delta.abs().argmax(0, keepdim=True))[0].numpy()
    scale = pictures["delta"].scale
    assert scale is not None
    assert scale.high == -scale.low == pytest.approx(np.quantile(abs(strongest), 0.995))
    shown = pixels(pictures["delta"].uri)
    # Red is more, blue is less.
    assert ((shown[..., 0] > shown[..., 2]) == (strongest > 0)).mean() > 0.9


def test_maps_share_their_scales(demo_model, demo_pairs):
    result = PromotionSuppression(demo_model).decompose(*demo_pairs)
    drawn = by_key(group_pictures(result, 0))
    top = float(result.effect[0].max())
    for key in ("effect", "promotion", "suppression"):
        assert (drawn[key].scale.low, drawn[key].scale.high) == (0, pytest.approx(top))
    octaves = float(result.ratio[0].abs().max())
    assert drawn["ratio"].scale.high == pytest.approx(octaves)

    regions = AdversarialCAM(demo_model, "features.conv4").decompose(*demo_pairs)
    drawn = by_key(region_pictures(regions, 1))
    assert drawn["promotion"].scale.high == drawn["suppression"].scale.high
    four = [drawn[key] for key in drawn if "_" in key]
    assert len(four) == 4
    assert len({picture.scale for picture in four}) == 1
    score = regions.interpretability("natural_true")
    assert f"score {float(score.score[1]):.2f}, " in drawn["natural_true"].note
    assert drawn["natural_attack"].over == "natural"


def test_large_grey_images_and_more_groups_than_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "MOST_GROUPS", 8)
    x0 = torch.rand(1, 1, 200, 400)
    pairs = AdversarialPair(
        natural=x0, adversarial=(x0 + 0.1).clamp(max=1), true_label=1, attack_label=2
    )
    explain(SmallNet(channels=1).eval(), pairs, tmp_path, cell=100)
    page = Parsed((tmp_path / "index.html").read_text())
    assert json.loads(page.scripts[0])["layouts"][0]["width"] == 320
    assert "400 x 200 pixels, shown at 320 x 160" in page.text
    pictures = [uri for uri in page.values("src") if uri.startswith("data:")]
    plotted = pictures.pop(0)
    assert pixels(plotted).shape[1] > 1000
    assert {pixels(uri).shape for uri in pictures} == {(160, 320, 3), (24, 48, 3)}

    explain(SmallNet(channels=1).eval(), pairs, tmp_path, cell=40)
    page = Parsed((tmp_path / "index.html").read_text())
    assert json.loads(page.scripts[0]) == {"layouts": [], "pairs": {}}
    assert "too many groups" in page.text


def test_summary_of_a_set(demo_model, demo_pairs):
    result = PromotionSuppression(demo_model).decompose(*demo_pairs)
    records = result.summary()
    records[1]["attack_holds"] = False
    facts = {fact.name: fact.value for fact in set_facts(records)}
    assert facts["attack holds"] == "2 of 3"
    assert facts["promotion"] == f"{float(result.promotion.sum(1).mean()):.2f}"
    gains = [record["attack_score_gain"] for record in records]
    assert facts["attack logit"] == f"{sum(gains) / 3:+.2f}"
    counts = dict(set_counts(records))
    assert sum(counts.values()) == result.promotion.numel()
    assert counts["promotion"] == int(((result.type == 1) & ~result.inactive).sum())


@pytest.mark.parametrize(
    ("smallest", "value", "note"),
    [
        ([0.25, None, 0.5], "37.5 %", "mean of the 2 of 3 attacks that work"),
        # An attack whose label is predicted on the natural image needs no group.
        ([0.25, 0.0, 0.5], "37.5 %", "mean of the 2 of 3 attacks that work"),
        ([0.0], "none", "no attack works"),
        ([None, None], "none", "no attack works"),
    ],
)
def test_fraction_needed_of_a_set(smallest, value, note):
    fact = fraction_needed([{"smallest_fraction": each} for each in smallest])
    assert fact.value == value
    assert note in fact.note


@pytest.fixture(scope="module")
def some_fail(tmp_path_factory, demo_model, demo_pairs) -> Refined:
    """An attack that works, one that fails, and one with nothing to do."""
    x, x0, t, t0 = demo_pairs
    pairs = AdversarialPair(
        natural=x0,
        adversarial=torch.stack([x[0], *(0.999 * x0[1:])]),
        # The last attack label is the model's prediction on the natural image.
        true_label=torch.stack([t0[0], t0[1], t[2]]),
        attack_label=torch.stack([t[0], t[1], t0[2]]),
    )
    out = tmp_path_factory.mktemp("refined")
    explain(demo_model, pairs, out, cell=16)
    effect = PromotionSuppression(demo_model).decompose(
        *pairs, feature_mask=grid_mask((64, 64), cell=16)
    )
    return Refined(out, pairs, effect.effect)


def test_how_much_of_an_attack_is_enough(some_fail, demo_model):
    """By adding groups one by one, in a loop of its own."""
    summary = strict_json((some_fail.folder / "summary.json").read_text())
    needed = [record["smallest_fraction"] for record in summary["pairs"]]
    assert needed[1:] == [None, 0]
    k = round(16 * needed[0])
    assert 0 < k < 16
    for count, works in ((k, True), (k - 1, False)):
        image = torch.where(some_fail.kept(0, count), *some_fail.sides(0))
        with torch.no_grad():
            prediction = int(demo_model(image[None]).argmax())
        assert (prediction == int(some_fail.pairs.attack_label[0])) is works
    reaches = [point["reaches"] for point in summary["refinement"]]
    by_hand = (needed[0] <= np.ceil(16 * np.linspace(0, 1, 11) - 1e-9) / 16) + 1.0
    assert reaches == pytest.approx((by_hand / 3).tolist())


def test_the_fraction_needed_is_on_the_page(some_fail):
    page = Parsed((some_fail.folder / "index.html").read_text())
    summary = strict_json((some_fail.folder / "summary.json").read_text())
    smallest = summary["pairs"][0]["smallest_fraction"]
    cells = [
        attrs["data-value"]
        for _, attrs in page.tags
        if attrs.get("data-name") == "fraction needed"
    ]
    assert cells == [str(smallest), "", "0.0"]
    pattern = r"fraction needed\s*([\d.]+) %\s*of the groups, (.*)work"
    mean = re.search(pattern, page.text)
    assert mean is not None
    assert float(mean[1]) == pytest.approx(100 * smallest, abs=0.06)
    assert mean[2] == "mean of the 1 of 3 attacks that "
    views = [attrs["data-view"] for _, attrs in page.tags if "data-view" in attrs]
    assert views.count("kept") == 1
    assert views.count("delta") == 3


def test_picture_of_the_fraction_needed(some_fail):
    """The picture of the whole perturbation where it is kept, else transparent."""
    page = Parsed((some_fail.folder / "index.html").read_text())
    shown, key = {}, None
    for tag, attrs in page.tags:
        key = attrs.get("data-view", key)
        if tag == "img" and key is not None:
            shown.setdefault(key, pixels(attrs["src"]))
    summary = strict_json((some_fail.folder / "summary.json").read_text())
    k = round(16 * summary["pairs"][0]["smallest_fraction"])
    kept = some_fail.kept(0, k).permute(1, 2, 0).numpy()
    expected = np.where(kept, shown["delta"], np.nan)
    assert shown["kept"] == pytest.approx(expected, abs=0.003, nan_ok=True)


def test_no_attack_works(tmp_path, demo_model, demo_pairs, no_pictures):
    x0, labels = demo_pairs.natural, (demo_pairs.attack_label, demo_pairs.true_label)
    pairs = AdversarialPair((x0 + 1e-3).clamp(0, 1), x0, *labels)
    records = explain(demo_model, pairs, tmp_path, cell=32)
    assert [record["smallest_fraction"] for record in records] == [None] * 3
    summary = strict_json((tmp_path / "summary.json").read_text())
    assert {point["reaches"] for point in summary["refinement"]} == {0}
    page = Parsed((tmp_path / "index.html").read_text())
    assert re.search(r"fraction needed\s*none\s*no attack works", page.text)
    assert "kept" not in page.values("data-view")


def cells_of(size, layer_size) -> GroupValues | None:
    maps = torch.randn(4, 2, 1, *layer_size)
    x = torch.rand(2, 3, *size)
    labels = PairLabels(*torch.zeros(6, 2, 2))
    result = RegionDecomposition(
        ScoredPair((x,), (x,), labels, is_tuple=False), "layer", *maps
    )
    found = GroupValues.of_cells(result, 1)
    if found is not None:
        columns = {column.name: column.values for column in found.columns}
        names = ("natural_true", "adversarial_true", "natural_attack",
                 "adversarial_attack")  # fmt: skip
        for name, values in zip(names, maps, strict=True):
            assert columns[name] == pytest.approx(
                values[1].flatten().tolist(), rel=1e-3
            )
        gained = (maps[3] - maps[2])[1].flatten().tolist()
        assert columns["promotion"] == pytest.approx(gained, rel=1e-3)
        lost = (maps[0] - maps[1])[1].flatten().tolist()
        assert columns["suppression"] == pytest.approx(lost, rel=1e-3)
    return found


@pytest.mark.parametrize(
    ("size", "layer_size", "shown"),
    [
        ((64, 64), (8, 8), (64, 64)),
        ((60, 90), (7, 4), (60, 90)),
        ((640, 320), (5, 3), (320, 160)),
        ((6, 6), (6, 6), (6, 6)),
        ((6, 8), (12, 16), (6, 8)),
    ],
)
def test_cells_of_a_layer(size, layer_size, shown):
    """At a pixel is the cell that nearest interpolation puts there."""
    found = cells_of(size, layer_size)
    assert found is not None
    assert (found.layout["height"], found.layout["width"]) == shown
    numbers = torch.arange(layer_size[0] * layer_size[1]).reshape(1, 1, *layer_size)
    expected = interpolate(numbers.float(), shown, mode="nearest")[0, 0].long()
    assert decode(*found.layout["planes"]).tolist() == expected.tolist()
    names = found.columns[0].values
    assert names[layer_size[1]] == "row 2, column 1"
    assert names[-1] == f"row {layer_size[0]}, column {layer_size[1]}"


def test_more_cells_than_are_told_apart(
    tmp_path, demo_model, demo_pairs, monkeypatch, no_pictures
):
    assert cells_of((64, 64), (64, 64)) is not None
    assert cells_of((64, 64), (64, 65)) is None
    monkeypatch.setattr(groups, "MOST_GROUPS", 8)
    explain(demo_model, demo_pairs, tmp_path, level="image")
    page = Parsed((tmp_path / "index.html").read_text())
    assert json.loads(page.scripts[0]) == {"layouts": [], "pairs": {}}
    assert "too many cells" in page.text


def test_a_layer_without_maps_of_images(tmp_path, demo_pairs):
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten()
    )
    with pytest.raises(
        ValueError, match=r"layer: got maps of shape \(1, 1, 3844\) at 1"
    ):
        explain(model, demo_pairs, tmp_path / "out", level="image", layer="1")
    assert not (tmp_path / "out").exists()


def test_image_level(tmp_path, demo_model, demo_pairs):
    records = explain(demo_model, demo_pairs, tmp_path, level="image")
    page = Parsed((tmp_path / "index.html").read_text())
    mean = sum(record["promotion_is"] for record in records) / 3
    assert re.search(rf"promotion IS\s*{mean:.2f}", page.text)
    views = [attrs["data-view"] for _, attrs in page.tags if "data-view" in attrs]
    assert len(views) == 3 * 9
    assert "groups.csv" not in page.values("href")


@pytest.mark.parametrize("concepts", [True, False])
def test_network_level(tmp_path, demo_model, demo_pairs, concepts, monkeypatch):
    monkeypatch.setattr(SceneConcepts, "__len__", lambda self: 24)
    layers = ["features.conv3", "features.conv4"]
    summary = explain_units(
        demo_model,
        named(demo_pairs, NASTY, "b", "c"),
        tmp_path,
        layers=layers,
        concepts=SceneConcepts() if concepts else None,
        class_names=demo.CLASSES,
    )
    page = Parsed((tmp_path / "index.html").read_text())
    assert NASTY in page.text
    most = summary["layers"][1]["most_changed_units"][0]
    assert re.search(
        rf"Units of features.conv4 that changed most\D+{most}\b", page.text
    )
    assert ("closest concept" in page.text.split("How to read")[0]) is concepts
    assert ("relation.csv" in page.values("href")) is concepts
    plots = [uri for uri in page.values("src") if pixels(uri).shape[1] > 320]
    assert len(plots) == 6 + 2 * concepts


def test_names_of_labels():
    """Dense labels are several numbers, which have no name."""
    label = label_namer(["zero", "one\n"])
    assert (label(0), label(1)) == ("zero", "one\N{REPLACEMENT CHARACTER}")
    assert (label([1, 2, 3]), label_namer(None)(4)) == ("[1, 2, 3]", "4")
