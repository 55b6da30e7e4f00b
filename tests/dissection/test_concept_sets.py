"""Concept data sets from files and from other data sets."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from captum_pse.demo import SceneConcepts, Scenes
from captum_pse.dissection import (
    BrodenConcepts,
    Concept,
    FolderConcepts,
    SegmentationConcepts,
)


def write_csv(path: Path, *rows: tuple[object, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def write_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def coded(numbers: np.ndarray) -> np.ndarray:
    """Numbers as R + 256 G."""
    return np.stack([numbers % 256, numbers // 256, 0 * numbers], axis=-1)


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (2, 8, 8, 3))
OBJECTS = RNG.choice([0, 3, 700], (2, 4, 4))
PARTS = RNG.choice([0, 9], (2, 4, 4))


@pytest.fixture
def broden(tmp_path: Path) -> Path:
    """Two images: one with two object masks, one with labels of the whole image."""
    images = tmp_path / "images"
    for i in range(2):
        write_image(images / f"set/{i}.png", PIXELS[i])
        write_image(images / f"set/{i}_object.png", coded(OBJECTS[i]))
    write_image(images / "set/0_more.png", coded(PARTS[0]))
    write_csv(tmp_path / "category.csv", ("name", "count"), ("object", 3), ("scene", 2))
    write_csv(
        tmp_path / "c_object.csv",
        ("code", "number", "name"),
        (1, 700, "door, red"),
        (2, 3, "sky"),
        (3, 9, "knob"),
    )
    write_csv(tmp_path / "c_scene.csv", ("number", "name"), (5, "a-s"), (1, "b-s"))
    write_csv(
        tmp_path / "index.csv",
        ("image", "split", "ih", "iw", "sh", "sw", "object", "scene"),
        ("set/0.png", "train", 8, 8, 4, 4, "set/0_object.png;set/0_more.png", ""),
        ("set/1.png", "val", 8, 8, 4, 4, "set/1_object.png", "5;1"),
    )
    return tmp_path


def test_broden(broden):
    dataset = BrodenConcepts(broden)
    assert dataset.concepts == [
        Concept("scene", 1, "b-s"),
        Concept("object", 3, "sky"),
        Concept("scene", 5, "a-s"),
        Concept("object", 9, "knob"),
        Concept("object", 700, "door, red"),
    ]
    first, second = dataset[0], dataset[1]
    assert len(dataset) == 2
    for i, sample in enumerate((first, second)):
        wanted = torch.from_numpy(PIXELS[i]).permute(2, 0, 1).float() / 255
        torch.testing.assert_close(sample.image, wanted)
    both = np.stack([OBJECTS[0], PARTS[0]])
    np.testing.assert_array_equal(first.labels["object"], both)
    assert "scene" not in first.labels
    np.testing.assert_array_equal(second.labels["object"], OBJECTS[1])
    assert second.labels["scene"].tolist() == [5, 1]


def test_part_of_broden(broden):
    dataset = BrodenConcepts(broden, split="val", categories=["scene"])
    assert [c.category for c in dataset.concepts] == ["scene", "scene"]
    assert len(dataset) == 1
    assert list(dataset[0].labels) == ["scene"]
    with pytest.raises(
        ValueError, match="categories: got 'color', want some of object"
    ):
        BrodenConcepts(broden, categories=["color"])


def test_image_and_masks_are_transformed_together(broden):
    transform = v2.Compose([v2.Resize(16), v2.RandomHorizontalFlip(p=1)])
    sample = BrodenConcepts(broden, transform=transform)[0]
    assert sample.image.shape == (3, 16, 16)
    both = np.stack([OBJECTS[0], PARTS[0]]).repeat(4, 1).repeat(4, 2)[:, :, ::-1]
    np.testing.assert_array_equal(sample.labels["object"], both)
    normal = v2.Normalize([0.5] * 3, [0.25] * 3)
    changed = BrodenConcepts(broden, transform=normal)[1]
    plain = BrodenConcepts(broden)[1]
    torch.testing.assert_close(changed.image, (plain.image - 0.5) / 0.25)
    np.testing.assert_array_equal(changed.labels["object"], plain.labels["object"])
    with pytest.raises(ValueError, match="transform: got tuple for an image"):
        BrodenConcepts(broden, transform=lambda x, m: ((x,), m))[0]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


BROKEN = {
    "no index": (lambda f: (f / "index.csv").unlink(), "there is no file .*index.csv"),
    "no category": (
        lambda f: (f / "c_scene.csv").unlink(),
        "there is no file .*c_scene.csv",
    ),
    "no column": (
        lambda f: replace(f / "index.csv", "scene", "places"),
        r"index.csv: the column\(s\) scene are missing",
    ),
    "short row": (
        lambda f: replace(f / "c_scene.csv", "1,b-s", "1"),
        "c_scene.csv: row 3 does not have 2 fields",
    ),
    "long row": (
        lambda f: replace(f / "c_scene.csv", "1,b-s", "1,b,s"),
        "c_scene.csv: row 3 does not have 2 fields",
    ),
    "number": (
        lambda f: replace(f / "c_object.csv", "2,3,sky", "2,x,sky"),
        "got number 'x' in row 3 of .*c_object.csv, want 1 or more",
    ),
    "not text": (
        lambda f: (f / "c_scene.csv").write_bytes(b"number,name\n1,\xff\n"),
        "c_scene.csv: 'utf-8' codec",
    ),
    "no image": (
        lambda f: (f / "images/set/0.png").unlink(),
        "there is no file .*0.png, named in row 2 of .*index.csv",
    ),
    "not an image": (
        lambda f: (f / "images/set/0.png").write_text("text"),
        "0.png cannot be read",
    ),
    "no mask": (
        lambda f: (f / "images/set/0_more.png").unlink(),
        "there is no file .*0_more.png, named in row 2",
    ),
    "outside": (
        lambda f: replace(f / "index.csv", "set/0_more.png", "../index.csv"),
        r"got path '../index.csv' in row 2 of .*index.csv, want one under images/",
    ),
    "mask of the wrong size": (
        lambda f: write_image(f / "images/set/0_object.png", coded(OBJECTS[0][:3])),
        r"got shape \(3, 4\) of .*0_object.png, want \('4', '4'\) as in row 2 of",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_broden(broden, damage, message):
    damage(broden)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        BrodenConcepts(broden)[0]


def test_segmentation_sets():
    masks = [RNG.choice([0, 1, 2, 255], (5, 6)).astype(np.uint8) for _ in range(2)]
    palette = Image.fromarray(masks[0])
    palette.putpalette(list(range(30)))
    image = Image.fromarray(RNG.integers(0, 256, (10, 12, 3)).astype(np.uint8))
    pairs = [(image, palette), (image, torch.from_numpy(masks[1]))]
    dataset = SegmentationConcepts(pairs, [None, "cat", "dog"], category="animal")
    assert dataset.concepts == [
        Concept("animal", 2, "cat"),
        Concept("animal", 3, "dog"),
    ]
    assert len(dataset) == 2
    for sample, mask in zip(map(dataset.__getitem__, range(2)), masks, strict=True):
        wanted = np.select([mask == 1, mask == 2], [2, 3], 0)
        np.testing.assert_array_equal(sample.labels["animal"], wanted)
        assert sample.image.shape == (3, 10, 12)


def test_folders(tmp_path):
    for i in range(2):
        write_image(tmp_path / f"images/{i}.jpg", PIXELS[i])
    write_image(tmp_path / "masks/0.png", coded(OBJECTS[0]))
    write_image(tmp_path / "masks/1.png", PARTS[1])
    names = {700: "door", 3: "sky", 9: "knob"}
    dataset = FolderConcepts(tmp_path / "images", tmp_path / "masks", names)
    assert [c.number for c in dataset.concepts] == [3, 9, 700]
    np.testing.assert_array_equal(dataset[0].labels["object"], OBJECTS[0])
    np.testing.assert_array_equal(dataset[1].labels["object"], PARTS[1])
    write_image(tmp_path / "images/2.jpg", PIXELS[0])
    with pytest.raises(
        ValueError, match=r"got 1 file\(s\) without .* the first is '2'"
    ):
        FolderConcepts(tmp_path / "images", tmp_path / "masks", names)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        FolderConcepts(tmp_path / "nowhere", tmp_path / "masks", names)
    write_image(tmp_path / "images/2.png", PIXELS[0])
    with pytest.raises(
        ValueError, match="want names that differ in more than the suffix"
    ):
        FolderConcepts(tmp_path / "images", tmp_path / "masks", names)


def test_scenes():
    dataset = SceneConcepts(5, seed=3)
    scene = Scenes(5, seed=3).scene(4)
    assert torch.equal(dataset[4].image, scene.image)
    for category, labels in dataset[4].labels.items():
        assert isinstance(labels, Tensor)
        assert torch.equal(labels, scene.concepts[category])
    assert {c.category for c in dataset.concepts} == set(scene.concepts)
