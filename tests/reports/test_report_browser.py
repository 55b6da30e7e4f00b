"""The report in a real browser, Debian's chromium or any other that is on the path."""

from __future__ import annotations

import csv
import functools
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from captum_pse import AdversarialCAM, AdversarialPair, demo
from captum_pse.demo import SceneConcepts
from captum_pse.reports.explain import explain
from captum_pse.reports.units import explain_units
from captum_pse.visualization import COLORS

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no browser driver: pip install playwright"
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCRIPT = "<script>document.title = 'pwned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    with playwright.sync_playwright() as driver:
        # A profile of its own, in a new folder, is the driver's default.
        started = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield started
        started.close()


@dataclass
class Report:
    """The folder of a report, of pairs whose first is named after a script."""

    folder: Path
    pairs: AdversarialPair

    @property
    def records(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "summary.json").read_text())["pairs"]

    @property
    def groups(self) -> list[dict[str, str]]:
        with (self.folder / "groups.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def make_report(tmp_path_factory, demo_model, demo_pairs) -> Callable[[str], Report]:
    """Makes the report of a level once, for all tests that look at it."""

    @functools.cache
    def make(level: str) -> Report:
        return write_report(level, tmp_path_factory, demo_model, demo_pairs)

    return make


@pytest.fixture(params=["pixel", "image", "network"])
def any_report(request, make_report) -> Report:
    return make_report(request.param)


@pytest.fixture
def report(make_report) -> Report:
    return make_report("pixel")


def write_report(level, tmp_path_factory, model, pairs) -> Report:
    out = tmp_path_factory.mktemp(level)
    labels = pairs.attack_label, pairs.true_label
    names = f"{SCRIPT} b10", "b9", "A pair with a name that is long enough to be broken"
    pairs = AdversarialPair(pairs.adversarial, pairs.natural, *labels, names=names)
    classes = [SCRIPT, *demo.CLASSES[1:]]
    if level == "network":
        concepts = SceneConcepts(24)
        explain_units(model, pairs, out, concepts=concepts, class_names=classes)
    else:
        cell = 16 if level == "pixel" else None
        explain(model, pairs, out, level=level, cell=cell, class_names=classes)
    return Report(out, pairs)


@dataclass
class Open:
    """A page in the browser, with what went wrong and what it asked for."""

    page: Any
    errors: list[str]
    requests: list[str]

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def names(self) -> list[str]:
        return self.texts(".pairs tbody tr:visible th")

    def at(self, row: int, column: int, side: int = 4) -> tuple[float, float]:
        """Where the middle of a group of the first pair is on the screen, of a square
        of so many a side."""
        stage = self.page.locator("#pair-0 .outline")
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        x, y = ((k + 0.5) / side for k in (column, row))
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def values(self) -> dict[str, list[str]]:
        """The values on the page of the group under the pointer, in the first pair."""
        lines = self.page.locator("#pair-0 [data-column]").all()
        cells = [line.locator("th, td").all_inner_texts() for line in lines]
        return {name: values for name, *values in cells}

    def choose(self, title: str) -> None:
        self.page.locator("#pair-0 .views label", has_text=title).first.click()

    def picture(self) -> np.ndarray:
        """The middles of the groups of the first pair as the screen shows them."""
        self.page.mouse.move(0, 0)
        shot = self.page.locator("#pair-0 .outline").screenshot()
        with Image.open(io.BytesIO(shot)) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=float) / 255
        rows, columns = (
            ((np.arange(4) + 0.52) / 4 * n).astype(int) for n in pixels.shape[:2]
        )
        return pixels[rows][:, columns]


def opened(browser, folder: Path, **options: Any) -> Open:
    context = browser.new_context(**options)
    page = context.new_page()
    found = Open(page, [], [])
    page.on("console", lambda message: found.errors.append(message.text))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto((folder / "index.html").as_uri())
    return found


@pytest.fixture
def view(browser, report) -> Iterator[Open]:
    found = opened(browser, report.folder, viewport={"width": 1280, "height": 900})
    yield found
    assert found.errors == []
    found.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_loads(browser, any_report, width, scheme):
    """No console error, nothing from outside, and no wider than the screen."""
    size = {"width": width, "height": 800}
    view = opened(browser, any_report.folder, viewport=size, color_scheme=scheme)
    page = view.page
    assert view.errors == []
    assert [url for url in view.requests if not url.startswith("data:")] == [page.url]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth)"
    assert page.evaluate(f"{broken}.length") == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark[4:-1].split(","))) < 200) is (scheme == "dark")
    assert len(view.names()) == 3
    page.context.close()


def test_user_text_is_shown_and_does_not_run(view, report):
    assert view.page.title() == "3 pairs by pixel groups - captum-pse"
    assert view.names()[0] == f"{SCRIPT} b10"
    assert view.texts("#pair-0 h2") == [f"{SCRIPT} b10"]
    assert f"True label {SCRIPT}" in view.texts("#pair-0 > p")[0]
    assert view.page.locator("main script").count() == 0


def test_sorts(view, report):
    page, names = view.page, list(report.pairs.names)
    promotion = [record["promotion"] for record in report.records]
    up = [names[k] for k in np.argsort(promotion)]
    assert view.names() == names
    head = page.locator(".pairs th", has_text="promotion")
    head.locator("button").click()
    assert view.names() == up
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert view.names() == up[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="pair").click()
    # Numbers in names count, and capitals do not.
    assert view.names() == [names[0], names[2], names[1]]
    assert page.locator("[aria-sort=ascending]").count() == 1
    page.get_by_role("button", name="#").click()
    assert view.names() == names


def test_sorts_what_has_no_value_last(
    browser, tmp_path, demo_model, demo_pairs, no_pictures
):
    """An attack that fails has no fraction needed; it is last in both orders."""
    x, x0 = demo_pairs.adversarial.clone(), demo_pairs.natural
    x[1] = 0.999 * x0[1]
    labels = demo_pairs.attack_label, demo_pairs.true_label
    names = "0", "1", "2"
    pairs = AdversarialPair(x, x0, *labels, names=names)
    records = explain(demo_model, pairs, tmp_path, cell=8)
    needed = {record["pair"]: record["smallest_fraction"] for record in records}
    assert needed.pop("1") is None
    up = sorted(needed, key=needed.__getitem__)
    assert needed["0"] != needed["2"]
    view = opened(browser, tmp_path)
    head = view.page.get_by_role("button", name="fraction needed")
    head.click()
    assert view.names() == [*up, "1"]
    head.click()
    assert view.names() == [*up[::-1], "1"]
    assert "none" in view.texts(".pairs tbody tr")[-1]
    view.page.context.close()


def test_filters(view):
    page = view.page
    page.get_by_label("Filter").fill("CAR yes")
    assert [name[:6] for name in view.names()] == ["A pair"]
    assert view.texts("article:visible h2") == view.names()
    assert view.texts("#matches") == ["1 of 3 pairs"]
    page.get_by_label("Filter").fill("nothing of the kind")
    assert view.names() == []
    page.get_by_label("Filter").fill("")
    assert len(view.names()) == 3
    assert view.texts("#matches") == ["3 pairs"]


def test_switches_the_picture(view, report):
    """By the pixels of the screen, not by the classes in the page."""
    kinds = [COLORS[kind(row)] for row in report.groups[:16]]
    types = np.array([to_rgb(colour) for colour in kinds]).reshape(4, 4, 3)
    images = {
        side: getattr(report.pairs, side)[0].permute(1, 2, 0).numpy()[8::16, 8::16]
        for side in ("natural", "adversarial")
    }
    assert view.picture() == pytest.approx(types, abs=0.01)
    assert view.texts("#pair-0 .view.shown figcaption")[0].startswith("type of each")
    for side, image in images.items():
        view.choose(side)
        assert view.picture() == pytest.approx(image, abs=0.01)
        assert view.page.locator("#pair-0 .strength input").is_disabled()
        # The other pairs stay as they are.
        assert (
            view.page.locator("#pair-1 input:checked").get_attribute("value") == "type"
        )
    # The arrow keys go through the pictures.
    for title in ("perturbation, amplified", "perturbation on the fraction needed"):
        view.page.keyboard.press("ArrowRight")
        assert title in view.texts("#pair-0 .view.shown figcaption")[0]
    # The grey natural image shows where the perturbation is not kept.
    kept = view.picture()
    best = np.argsort([-float(row["effect"]) for row in report.groups[:16]])
    left_out = np.full(16, True)
    left_out[best[: round(16 * report.records[0]["smallest_fraction"])]] = False
    plain = images["natural"] @ [0.2126, 0.7152, 0.0722]
    grey = np.ptp(kept, axis=2).flatten() < 0.01
    assert grey.tolist() == left_out.tolist()
    shown = kept.reshape(16, 3)[left_out, 0]
    assert shown == pytest.approx(plain.flatten()[left_out], abs=0.02)
    view.page.keyboard.press("ArrowRight")
    assert view.picture() == pytest.approx(types, abs=0.01)

    slider = view.page.locator("#pair-0 .strength input")
    slider.fill("0")
    grey = view.picture()
    assert np.ptp(grey, axis=2).max() < 0.01
    weights = [0.2126, 0.7152, 0.0722]
    assert grey[..., 0] == pytest.approx(images["adversarial"] @ weights, abs=0.02)
    slider.fill("50")
    assert view.picture() == pytest.approx((grey + types) / 2, abs=0.02)


def kind(row: dict[str, str]) -> str:
    return "inactive" if row["inactive"] == "True" else row["type"]


def check_values(found: dict[str, list[str]], row: dict[str, str]) -> None:
    assert found["group"] == [row["group"]]
    for name, unit in (
        ("promotion", "logits"),
        ("suppression", "logits"),
        ("ratio", "octaves"),
    ):
        value, shown = found[name][0].split()
        assert shown == unit
        assert float(value) == pytest.approx(float(row[name]), rel=1e-3, abs=1e-4)
    assert found["type"] == [kind(row)]


def test_pointing_at_a_group_shows_its_values(view, report):
    assert "Point at the picture" in view.texts("#pair-0 .hint")[0]
    for row, column in ((0, 0), (2, 1), (3, 3)):
        view.page.mouse.move(*view.at(row, column))
        check_values(view.values(), report.groups[4 * row + column])
    assert view.page.locator("#pair-0 .outline path").first.get_attribute("d")
    assert view.texts("#pair-1 [data-column=group] td") == []


def test_the_keyboard_goes_from_group_to_group(view, report):
    view.page.locator("#pair-0 .stage").focus()
    cell = [2, 2]
    for key, step in (
        ("ArrowLeft", (0, -1)),
        ("ArrowUp", (-1, 0)),
        ("ArrowUp", (-1, 0)),
        ("ArrowUp", (0, 0)),  # There is nothing above.
        ("ArrowRight", (0, 1)),
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 0)),
        ("ArrowLeft", (0, -1)),
    ):
        view.page.keyboard.press(key)
        cell = [k + d for k, d in zip(cell, step, strict=True)]
        check_values(view.values(), report.groups[4 * cell[0] + cell[1]])


@pytest.fixture
def regions(make_report) -> Report:
    return make_report("image")


def test_the_values_of_the_maps_at_a_cell(browser, regions, demo_model):
    """By pointing and by the keyboard, the values of the layer's own cell."""
    maps = AdversarialCAM(demo_model, "features", interpolate=False)
    result = maps.decompose(*regions.pairs.select(0))
    side = result.promotion.shape[-1]
    titles = {
        "promotion": "promotion",
        "suppression": "suppression",
        "natural_true": "true, natural",
        "adversarial_true": "true, adversarial",
        "natural_attack": "attack, natural",
        "adversarial_attack": "attack, adversarial",
    }
    view = opened(browser, regions.folder)

    def check(row: int, column: int) -> None:
        found = view.values()
        assert found.pop("cell") == [f"row {row + 1}, column {column + 1}"]
        assert list(found) == list(titles.values())
        for name, title in titles.items():
            expected = float(result.attribution(name)[0, 0, row, column])
            (value,) = found[title]
            assert float(value) == pytest.approx(expected, rel=1e-3, abs=1e-6)

    for row, column in ((0, 0), (1, side - 1), (side - 2, 1)):
        view.page.mouse.move(*view.at(row, column, side))
        check(row, column)
    view.page.locator("#pair-0 .stage").focus()
    for key, (row, column) in {
        "ArrowRight": (side - 2, 2),
        "ArrowDown": (side - 1, 2),
        "ArrowLeft": (side - 1, 1),
    }.items():
        view.page.keyboard.press(key)
        check(row, column)
    assert view.errors == []
    view.page.context.close()


def test_tapping_shows_values(browser, report):
    size = {"width": 390, "height": 800}
    view = opened(browser, report.folder, viewport=size, has_touch=True)
    view.page.touchscreen.tap(*view.at(1, 2))
    check_values(view.values(), report.groups[6])
    view.page.context.close()


def test_everything_is_there_without_the_script(browser, report):
    view = opened(browser, report.folder, java_script_enabled=False)
    assert view.page.locator("#pair-0 .view img:visible").count() == 9
    assert view.page.locator(".filter:visible, .views:visible").count() == 0
    view.page.context.close()
