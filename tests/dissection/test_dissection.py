"""Network dissection against a literal loop in numpy, and on known units."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from conftest import state_of
from torch import Tensor, nn

from captum_pse.demo import SceneConcepts
from captum_pse.demo.things import PALETTE
from captum_pse.dissection import (
    BrodenConcepts,
    Concept,
    ConceptSample,
    Dissection,
    NetworkDissection,
)
from captum_pse.dissection.thresholds import TopValues, ValueHistogram, kept_for
from captum_pse.visualization import plot_detectors, plot_units


class Halving(nn.Module):
    """The units are the channels of the image, at half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.AvgPool2d(2)
        self.again = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.layer(x)).mean((2, 3))


class Made:
    """A concept set from a list of samples."""

    def __init__(self, concepts: Sequence[Concept], samples: list[ConceptSample]):
        self.concepts, self._samples = concepts, samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> ConceptSample:
        return self._samples[index]


CONCEPTS = [
    Concept("color", 1, "red"),
    Concept("color", 2, "blue"),
    Concept("object", 7, "tree"),
    Concept("scene", 3, "street"),
    Concept("object", 2, "car"),
    Concept("scene", 4, "park"),
]


def random_set(n: int = 7, sizes: Sequence[int] = (16, 16, 24)) -> Made:
    """Random images with dead, constant and tied units; some lack some labels."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(n):
        size = sizes[i % len(sizes)]
        image = rng.normal(size=(6, size, size))
        image[1] = 0
        image[2] = 3
        image[3] = rng.integers(0, 3, (size // 2, size // 2)).repeat(2, 0).repeat(2, 1)
        image[4] -= 100
        labels: dict[str, Tensor | set[int]] = {}
        if i % 3:
            labels["color"] = torch.from_numpy(rng.integers(0, 3, (16, 32)))
        if i % 4 != 1:
            two = rng.choice([0, 2, 7], (2, 16, 32))
            labels["object"] = torch.from_numpy(two)
        if i % 2:
            labels["scene"] = {3, 4} if i == 3 else {3}
        if i == 5:
            labels["color"] = torch.zeros(16, 32, dtype=torch.int64)
        samples.append(ConceptSample(torch.from_numpy(image).float(), labels))
    return Made(CONCEPTS, samples)


def upsampled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel by pixel, with align_corners=False."""
    h, w = image.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            u = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
            i, j = math.floor(v), math.floor(u)
            i1, j1 = min(i + 1, h - 1), min(j + 1, w - 1)
            top = image[i, j] * (1 - (u - j)) + image[i, j1] * (u - j)
            bottom = image[i1, j] * (1 - (u - j)) + image[i1, j1] * (u - j)
            result[y, x] = top * (1 - (v - i)) + bottom * (v - i)
    return result


def literal(dataset: Made, pools: int, quantile: float) -> dict[str, np.ndarray]:
    """Counts and IoU by loops over units, images and concepts."""
    maps = []
    for sample in dataset:
        x = sample.image
        for _ in range(pools):
            x = torch.nn.functional.avg_pool2d(x, 2)
        maps.append(x.numpy())
    n_units = len(maps[0])
    values = [np.concatenate([m[k].ravel() for m in maps]) for k in range(n_units)]
    thresholds = np.array(
        [np.quantile(v.astype(np.float64), 1 - quantile) for v in values]
    ).astype(np.float32)
    both = np.zeros((n_units, len(dataset.concepts)), dtype=np.int64)
    either = np.zeros_like(both)
    total = np.zeros(n_units, dtype=np.int64)
    for sample, activation in zip(dataset, maps, strict=True):
        masks: dict[str, list[np.ndarray]] = {}
        for category, labels in sample.labels.items():
            if isinstance(labels, Tensor):
                masks[category] = list(labels.reshape(-1, 16, 32).numpy())
            else:
                masks[category] = [np.full((16, 32), k) for k in labels]
        sizes = {m[0].shape for m in masks.values()} or {activation.shape[1:]}
        annotated = [c for c, m in masks.items() if m]
        if not masks:
            sizes = {tuple(sample.image.shape[1:])}
        if all(not isinstance(x, Tensor) for x in sample.labels.values()):
            # Labels of the whole image only: at the size of the image.
            size = tuple(sample.image.shape[1:])
            masks = {
                c: [np.full(size, k) for k in sample.labels[c]] for c in sample.labels
            }
            sizes = {size}
        (size,) = sizes
        for k in range(n_units):
            inside = upsampled(activation[k].astype(np.float64), *size) > thresholds[k]
            if not (activation[k] > thresholds[k]).any():
                inside[:] = False
            total[k] += inside.sum()
            for c, concept in enumerate(dataset.concepts):
                if concept.category not in annotated:
                    continue
                labelled = np.zeros(size, dtype=bool)
                for mask in masks[concept.category]:
                    labelled |= mask == concept.number
                both[k, c] += (inside & labelled).sum()
                either[k, c] += (inside | labelled).sum()
    iou = np.divide(both, either, out=np.zeros(both.shape), where=either > 0)
    return {"thresholds": thresholds, "both": both, "total": total, "iou": iou}


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("quantile", [0.02, 0.3])
def test_equals_a_literal_loop(quantile, batch_size):
    dataset = random_set()
    model = Halving().eval()
    result = NetworkDissection(model, ["layer", "again"], quantile=quantile).dissect(
        dataset, batch_size=batch_size
    )
    for pools, name in enumerate(("layer", "again"), start=1):
        wanted = literal(dataset, pools, quantile)
        got = result.layers[name]
        np.testing.assert_array_equal(got.thresholds, wanted["thresholds"])
        np.testing.assert_array_equal(got.intersections, wanted["both"])
        np.testing.assert_array_equal(got.total, wanted["total"])
        np.testing.assert_allclose(result.iou(name), wanted["iou"], rtol=0, atol=1e-6)
        assert got.exact
        assert wanted["both"].sum() > 0
        # The dead and the constant unit are nowhere above their thresholds.
        assert got.total[1] == got.total[2] == 0
        rows = [row for row in result.table() if row["layer"] == name]
        for k, row in enumerate(rows):
            best = int(wanted["iou"][k].argmax())
            largest = wanted["iou"][k, best]
            assert row["unit"] == k
            assert row["concept"] == (CONCEPTS[best].name if largest else "")
            assert row["detector"] == (largest > 0.04)
    summary = result.summary()[0]
    assert summary["units"] == 6
    assert summary["detectors"] == sum(
        summary[f"{name}_detectors"] for name in result.categories
    )


def test_images_with_the_highest_activations():
    dataset = random_set(9)
    result = NetworkDissection(Halving().eval(), ["layer"]).dissect(dataset)
    peaks = torch.stack(
        [torch.nn.functional.avg_pool2d(s.image, 2).amax((1, 2)) for s in dataset]
    )
    layer = result.layers["layer"]
    for unit in (0, 3, 5):
        order = sorted(range(9), key=lambda i: (-float(peaks[i, unit]), i))[:8]
        assert layer.images[unit].tolist() == order
        torch.testing.assert_close(layer.peaks[unit], peaks[order, unit])


def test_thresholds_from_a_histogram_are_near():
    dataset = random_set(9, sizes=(64,))
    method = NetworkDissection(Halving().eval(), ["layer"], quantile=0.01)
    exact = method.dissect(dataset).layers["layer"]
    near = method.dissect(dataset, memory_limit=1).layers["layer"]
    assert exact.exact
    assert not near.exact
    torch.testing.assert_close(near.thresholds, exact.thresholds, rtol=8e-3, atol=1e-9)
    # The dead and the constant unit are nowhere above their thresholds.
    assert near.total[1] == near.total[2] == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_quantiles(shift, scale):
    values = (torch.randn(40, 3, 25) + shift) * scale
    values[:, 2] = values[:, 2].clamp(min=0)
    stream = values.split([1, 7, 20, 12])
    for quantile in (0.005, 0.1):
        keep = kept_for(1000, quantile)
        top, histogram = TopValues(3, keep), ValueHistogram(3)
        other = TopValues(3, keep)
        for i, part in enumerate(stream):
            (top if i < 2 else other).update(part)
            histogram.update(part)
        top.seen += other.seen
        top._merge(other.values)
        rows = values.transpose(0, 1).flatten(1).double()
        wanted = torch.from_numpy(np.quantile(rows.numpy(), 1 - quantile, axis=1))
        found = top.thresholds(quantile)
        assert found is not None
        assert torch.equal(found, wanted.float())
        # The value at the rank, up to the edge of its bin.
        ordered = rows.sort(dim=1).values[:, math.floor(999 * (1 - quantile))]
        near = histogram.thresholds(quantile).double()
        assert (near >= ordered.float()).all()
        torch.testing.assert_close(near, ordered, rtol=2e-3, atol=3e-10)
        assert TopValues(3, keep - 1).thresholds(quantile) is not None
        short = TopValues(3, keep - 1)
        for part in stream:
            short.update(part)
        assert short.thresholds(quantile) is None


def test_histograms_reject_values_out_of_range():
    histogram = ValueHistogram(1)
    histogram.update(torch.full((1, 1, 4), 1e10))
    with pytest.raises(ValueError, match=r"activations above 2\*\*32"):
        histogram.thresholds(0.1)


def test_later_images_may_be_larger():
    """The size of the first image underestimates the number of values to keep."""
    dataset = random_set(6, sizes=(8, 48, 48))
    method = NetworkDissection(Halving().eval(), ["layer"], quantile=0.05)
    result = method.dissect(dataset, batch_size=2)
    wanted = literal(dataset, 1, 0.05)
    np.testing.assert_array_equal(result.layers["layer"].total, wanted["total"])


class Filters(nn.Module):
    """Units that detect colours."""

    def __init__(self, colours: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("colours", torch.tensor([PALETTE[c] for c in colours]))
        self.found = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        distance = (x.unsqueeze(1) - self.colours[:, :, None, None]).norm(dim=2)
        return self.found(torch.exp(-30 * distance)).mean((2, 3))


def test_known_colour_units_are_labelled_right():
    colours = ["red", "green", "yellow", "purple", "pink"]
    dataset = SceneConcepts(120)
    result = NetworkDissection(Filters(colours).eval(), ["found"]).dissect(dataset)
    for row, colour in zip(result.table(), colours, strict=True):
        assert (row["category"], row["concept"]) == ("color", colour)
        assert row["detector"]
    assert result.summary()[0]["unique_concepts"] == 5


class Edges(nn.Module):
    """Sobel filters for vertical and for horizontal edges."""

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
        self.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.conv.weight.data = torch.stack([sobel, sobel.T]).unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).abs().amax((2, 3))


def test_known_edge_units_are_labelled_right():
    """Vertical and horizontal bars, labelled at one edge."""
    samples = []
    for i in range(20):
        image = torch.zeros(1, 32, 32)
        mask = torch.zeros(32, 32, dtype=torch.int64)
        start = 4 + i % 20
        image[:, :, start : start + 4] = 1
        mask[:, start - 1 : start + 1] = 1
        if i % 2:
            image, mask = image.transpose(1, 2), 2 * mask.T
        samples.append(ConceptSample(image, {"edge": mask}))
    concepts = [Concept("edge", 1, "vertical"), Concept("edge", 2, "horizontal")]
    result = NetworkDissection(Edges().eval(), ["conv"], quantile=0.05).dissect(
        Made(concepts, samples)
    )
    assert [row["concept"] for row in result.table()] == ["vertical", "horizontal"]


def test_large_concepts_are_out_of_reach():
    mask = torch.ones(8, 8, dtype=torch.int64)
    mask[0, 0] = 2
    samples = [ConceptSample(torch.rand(2, 8, 8), {"color": mask}) for _ in range(4)]
    concepts = [Concept("color", 1, "red"), Concept("color", 2, "blue")]
    method = NetworkDissection(Halving().eval(), ["layer"], quantile=0.01)
    rows = method.dissect(Made(concepts, samples)).concept_table()
    assert rows[0]["coverage"] == pytest.approx(63 / 64)
    assert rows[0]["reachable_iou"] == pytest.approx(0.01 * 64 / 63)
    assert [row["out_of_reach"] for row in rows] == [True, False]


def test_reads_and_writes_its_results(tmp_path):
    result = NetworkDissection(Halving().eval(), ["layer", "again"]).dissect(
        random_set()
    )
    result.save(tmp_path / "d.safetensors")
    loaded = Dissection.load(tmp_path / "d.safetensors")
    assert loaded.table() == result.table()
    assert loaded.concept_table() == result.concept_table()
    assert repr(loaded) == repr(result)
    assert repr(result).startswith("Dissection(7 images, layer: ")
    result.to_csv(tmp_path / "units.csv")
    lines = (tmp_path / "units.csv").read_text().splitlines()
    assert lines[0].startswith("layer,unit,concept,category,iou,threshold")
    assert len(lines) == 1 + 12
    result.to_json(tmp_path / "d.json")
    content = json.loads((tmp_path / "d.json").read_text())
    assert content["units"] == json.loads(json.dumps(result.table()))


def test_leaves_the_model_as_it_is(demo_model):
    before = state_of(demo_model)
    method = NetworkDissection(demo_model, ["features.conv1.1", "features.conv2"])
    with torch.inference_mode():
        result = method.dissect(SceneConcepts(6))
    assert state_of(demo_model) == before
    # A ReLU that writes into the batch norm's output follows.
    demo_model.features.conv1[2].inplace = True
    try:
        again = method.dissect(SceneConcepts(6))
    finally:
        demo_model.features.conv1[2].inplace = False
    for name, layer in result.layers.items():
        assert torch.equal(again.layers[name].intersections, layer.intersections)
        assert torch.equal(again.layers[name].thresholds, layer.thresholds)


class Killed(Exception):  # noqa: N818
    pass


class Fragile(Made):
    """Fails after a number of reads."""

    def __init__(self, dataset: Made, reads: int) -> None:
        super().__init__(dataset.concepts, dataset._samples)
        self.reads = reads

    def __getitem__(self, index: int) -> ConceptSample:
        self.reads -= 1
        if self.reads < 0:
            raise Killed
        return super().__getitem__(index)


@pytest.mark.parametrize("reads", [0, 1, 5, 8, 11, 15, 16, 22])
def test_a_killed_run_resumes(tmp_path, monkeypatch, reads):
    monkeypatch.setattr("captum_pse._io.checkpoint.Checkpoint.every", 0.0, raising=True)
    dataset, model, passes = random_set(8, sizes=(16,)), Halving().eval(), []
    method = NetworkDissection(model, ["layer", "again"])
    whole = method.dissect(dataset, batch_size=2)
    options = {"batch_size": 2, "checkpoints": tmp_path / "partial"}
    fragile = Fragile(dataset, reads)
    try:
        method.dissect(fragile, **options)
        killed = False
    except Killed:
        killed = True
    # One image to identify the model, and eight images twice.
    assert killed == (reads < 17)
    model.layer.register_forward_hook(lambda *_: passes.append(1))
    resumed = method.dissect(dataset, **options)
    done = min(max(reads - 1, 0) // 2, 8)
    assert len(passes) == 1 + 8 - done
    for name, layer in whole.layers.items():
        for field, value in vars(layer).items():
            got = getattr(resumed.layers[name], field)
            assert torch.equal(got, value) if isinstance(value, Tensor) else got
    assert resumed.table() == whole.table()


def scaled(dataset: Made, factor: float) -> Made:
    samples = [s._replace(image=s.image * factor) for s in dataset]
    return Made(dataset.concepts, samples)


OTHER_RUNS = {
    "quantile": ({"quantile": 0.3}, 1.0, {}),
    "images": ({}, 2.0, {}),
    "memory": ({}, 1.0, {"memory_limit": 1}),
    "channels": ({"channel_dim": 2}, 1.0, {}),
}


@pytest.mark.parametrize(
    ("made", "factor", "options"), OTHER_RUNS.values(), ids=OTHER_RUNS
)
def test_partial_results_of_another_run_are_not_used(tmp_path, made, factor, options):
    dataset = random_set(4, sizes=(16,))
    first = NetworkDissection(Halving().eval(), ["layer"], quantile=0.1)
    first.dissect(dataset, checkpoints=tmp_path)
    other = NetworkDissection(Halving().eval(), ["layer"], **{"quantile": 0.1, **made})
    got = other.dissect(scaled(dataset, factor), checkpoints=tmp_path, **options)
    wanted = other.dissect(scaled(dataset, factor), **options)
    assert got.table() == wanted.table()


def test_damaged_partial_results_are_not_used(tmp_path):
    dataset = random_set(4, sizes=(16,))
    method = NetworkDissection(Halving().eval(), ["layer"])
    wanted = method.dissect(dataset, checkpoints=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"text")
    with pytest.warns(UserWarning, match="partial results in .* are damaged"):
        found = method.dissect(dataset, checkpoints=tmp_path)
    assert found.table() == wanted.table()


class WritesIntoItsInput(Halving):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        hidden = self.layer(x)
        scores = self.again(hidden).mean((2, 3))
        hidden.mul_(3)
        return self.again(hidden).mean((2, 3)) + scores


def test_models_that_write_into_their_inputs():
    """The images do not change, and later changes of an output have no effect."""
    dataset = random_set(5, sizes=(16,))
    before = [sample.image.clone() for sample in dataset]
    method = NetworkDissection(WritesIntoItsInput().eval(), ["layer"])
    result = method.dissect(dataset, batch_size=2)
    wanted = NetworkDissection(Halving().eval(), ["layer"]).dissect(scaled(dataset, 2))
    assert torch.equal(
        result.layers["layer"].thresholds, wanted.layers["layer"].thresholds
    )
    assert result.table() == wanted.table()
    method.unit_masks(dataset[0].image.unsqueeze(0), result, "layer", [0])
    assert all(map(torch.equal, before, [sample.image for sample in dataset]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    dataset = random_set(5, sizes=(16,))
    samples = [s._replace(image=s.image.to(dtype)) for s in dataset]
    for sample in samples:
        sample.image[2] = 0.7
    for limit in (1 << 29, 1):
        model = Halving().to(dtype).eval()
        result = NetworkDissection(model, ["layer"], quantile=0.1).dissect(
            Made(CONCEPTS, samples), memory_limit=limit
        )
        # A constant unit is never above its threshold.
        assert int(result.layers["layer"].total[2]) == 0
        assert int(result.layers["layer"].total[0]) > 0


def test_functions_and_layers_of_one_type():
    model, dataset = Halving().eval(), random_set(4, sizes=(16,))
    with torch.inference_mode():
        method = NetworkDissection(lambda x: model(x), [model.layer, model.again])
        got = method.dissect(dataset)
    wanted = NetworkDissection(model, ["layer", "again"]).dissect(dataset)
    assert list(got.layers) == ["AvgPool2d", "AvgPool2d#2"]
    strip = [{**row, "layer": ""} for row in got.table()]
    assert strip == [{**row, "layer": ""} for row in wanted.table()]

    def inferred(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(x)

    again = NetworkDissection(inferred, [model.layer, model.again]).dissect(dataset)
    assert again.table() == got.table()


def test_an_empty_mask_counts():
    """Pixels of a unit's mask in an image with an empty mask count in the union."""
    image, mask = torch.zeros(2, 8, 8), torch.zeros(4, 4, dtype=torch.int64)
    image[:, 4:] = 1
    car = mask.clone()
    car[2:] = 1
    concepts = [Concept("object", 1, "car")]
    samples = [ConceptSample(image, {"object": m}) for m in (car, mask, mask)]
    method = NetworkDissection(Halving().eval(), ["layer"], quantile=0.6)
    iou = method.dissect(Made(concepts, samples)).iou("layer")
    assert iou.flatten().tolist() == [1 / 3, 1 / 3]
    missing = [samples[0], *(s._replace(labels={}) for s in samples[1:])]
    iou = method.dissect(Made(concepts, missing)).iou("layer")
    assert iou.flatten().tolist() == [1, 1]


def test_an_error_of_the_model_names_the_samples():
    class Fixed(Halving):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.unflatten(3, (2, 8)).flatten(3))

    dataset = random_set(3, sizes=(16, 16, 24))
    with pytest.raises(ValueError, match="samples 2 to 2: forward_func: raised"):
        NetworkDissection(Fixed().eval(), ["layer"]).dissect(dataset)


BAD_SAMPLES = {
    "category": ({"colour": {1}}, r"got labels of category 'colour' in sample 1"),
    "number": ({"color": {3}}, "got label 3 of category 'color' in sample 1"),
    "number in a mask": (
        {"object": torch.full((4, 4), 5)},
        "got label 5 of category 'object' in sample 1, want 0 or a concept's number",
    ),
    "below 0": (
        {"object": torch.full((4, 4), -1)},
        "got label -1 of category 'object'",
    ),
    "sizes": (
        {
            "color": torch.ones(4, 4, dtype=torch.int64),
            "object": torch.zeros(4, 5, dtype=torch.int64),
        },
        r"got masks of sizes \[\(4, 4\), \(4, 5\)\] in sample 1",
    ),
}


@pytest.mark.parametrize(("labels", "message"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_bad_labels(labels, message):
    good = ConceptSample(torch.rand(2, 8, 8), {"color": {1}})
    dataset = Made(CONCEPTS, [good, good._replace(labels=labels)])
    with pytest.raises(ValueError, match=message):
        NetworkDissection(Halving().eval(), ["layer"]).dissect(dataset)


def test_labels_must_be_integers():
    sample = ConceptSample(torch.rand(2, 8, 8), {"color": torch.rand(8, 8)})
    with pytest.raises(TypeError, match=r"in sample 0: got a tensor of torch.f"):
        NetworkDissection(Halving().eval(), ["layer"]).dissect(Made(CONCEPTS, [sample]))


def test_bad_activations():
    image = torch.rand(2, 8, 8)
    image[1, 3, 3] = torch.nan
    samples = [ConceptSample(torch.rand(2, 8, 8), {}), ConceptSample(image, {})]
    with pytest.raises(ValueError, match="layers: got NaN or infinite values of layer"):
        NetworkDissection(Halving().eval(), ["layer"]).dissect(Made(CONCEPTS, samples))


BAD_LAYERS = {
    "none": ([], {}, r"layers: got \[\], want a list of at least one"),
    "not a list": ("layer", {}, "layers: got 'layer', want a list"),
    "unknown": (["layers"], {}, "layer: the model has no 'layers'; did you mean layer"),
    "twice": (["layer", "layer"], {}, "want different ones"),
    "quantile": (["layer"], {"quantile": 1}, "quantile: got 1, want more than 0"),
    "min_iou": (["layer"], {"min_iou": 2}, "min_iou: got 2, want 0 to 1"),
}


@pytest.mark.parametrize(
    ("layers", "options", "message"), BAD_LAYERS.values(), ids=BAD_LAYERS
)
def test_bad_arguments(layers, options, message):
    with pytest.raises(ValueError, match=message):
        NetworkDissection(Halving(), layers, **options)


def test_bad_runs(demo_model):
    method = NetworkDissection(Halving().eval(), ["layer"])
    with pytest.raises(ValueError, match="dataset: got an empty one"):
        method.dissect(Made(CONCEPTS, []))
    with pytest.raises(ValueError, match="dataset: got no concepts"):
        method.dissect(Made([], random_set()._samples))
    with pytest.raises(ValueError, match=r"got numbers \[1, 1\] .* 'color'"):
        method.dissect(Made([CONCEPTS[0], CONCEPTS[0]], random_set()._samples))
    with pytest.raises(ValueError, match="batch_size: got 0"):
        method.dissect(random_set(), batch_size=0)
    with pytest.raises(ValueError, match=r"head has an output of shape \(1, 12\)"):
        NetworkDissection(demo_model, ["head"]).dissect(SceneConcepts(2))

    class Unused(Halving):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Identity()

    with pytest.raises(ValueError, match="Identity ran 0 times in a pass"):
        NetworkDissection(Unused().eval(), ["idle"]).dissect(random_set())


def test_transformer_tokens():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            tokens = nn.functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
            return self.layer(tokens).mean(1)

    dataset = random_set(5, sizes=(16,))
    wanted = NetworkDissection(Halving().eval(), ["layer"]).dissect(dataset)
    got = NetworkDissection(
        Tokens().eval(),
        ["layer"],
        channel_dim=-1,
        grid=(8, 8),
    ).dissect(dataset)
    assert got.table() == wanted.table()


def test_figures(demo_model):
    dataset = SceneConcepts(24)
    method = NetworkDissection(demo_model, ["features.conv1", "features.conv5"])
    result = method.dissect(dataset)
    figure = plot_detectors(result, most=3)
    figure.canvas.draw()
    for ax, name in zip(figure.axes, result.layers, strict=True):
        heights = [int(patch.get_height()) for patch in ax.patches]
        best = result.best(name)[1][result.detectors(name)].tolist()
        counts = sorted((best.count(index) for index in set(best)), reverse=True)
        assert heights == counts[:3]
        assert ax.get_title().startswith(f"{name}: {len(best)} of ")
    with pytest.raises(ValueError, match="layer: got 'conv1', want one of"):
        plot_detectors(result, ["conv1"])
    with pytest.raises(ValueError, match="most: got 0, want a positive int"):
        plot_detectors(result, most=0)

    figure = plot_units(method, result, dataset, "features.conv5", [5, 7], n_images=3)
    figure.canvas.draw()
    assert figure.axes[0].get_title(loc="left").startswith("unit 5: ")
    first = int(result.layers["features.conv5"].images[5, 0])
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, dataset[first].image.permute(1, 2, 0))
    plot_units(method, result, dataset, "features.conv1", n_images=2).canvas.draw()
    with pytest.raises(
        ValueError, match=r"units: got \[96\], want numbers from 0 to 95"
    ):
        plot_units(method, result, dataset, "features.conv5", [96])


def test_unit_masks_match_the_counts():
    dataset = random_set(4, sizes=(16,))
    samples = [s._replace(labels={}) for s in dataset]
    method = NetworkDissection(Halving().eval(), ["layer"], quantile=0.1)
    result = method.dissect(Made(CONCEPTS, samples))
    images = torch.stack([sample.image for sample in samples])
    masks = method.unit_masks(images, result, "layer", [0, 3, 5])
    total = result.layers["layer"].total
    assert torch.equal(masks.sum((0, 2, 3)), total[[0, 3, 5]])


def test_real_detectors(squeezenet, data, request):
    """The counts of an independent implementation on the CamVid set."""
    if not request.config.getoption("--all-pairs"):
        pytest.skip("233 images; --all-pairs dissects them")
    dataset = BrodenConcepts(data / "camvid_broden")
    result = NetworkDissection(squeezenet, ["features.5"]).dissect(dataset)
    found = [row["concept"] for row in result.table() if row["detector"]]
    assert {name: found.count(name) for name in set(found)} == {
        "green-c": 7,
        "brown-c": 5,
        "purple-c": 2,
        "signsymbol": 1,
    }
