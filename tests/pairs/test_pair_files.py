"""Pairs from files: what is read, and what is refused."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from torch import Tensor, nn

from captum_pse import AdversarialPair
from captum_pse.pairs.folders import (
    label_by_predictions,
    read_image_folders,
    read_labels,
)

FLOATS = np.linspace(0, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npz_of_floats(npz, dtype):
    moved = (FLOATS * 0.9).astype(dtype)
    pair = AdversarialPair.load(
        npz(natural=FLOATS.astype(dtype), perturbation=None, adversarial=moved)
    )
    torch.testing.assert_close(
        pair.natural, torch.from_numpy(FLOATS).float(), atol=1e-3, rtol=0
    )
    assert torch.equal(pair.adversarial, torch.from_numpy(moved.astype(np.float32)))


def test_npz_of_bytes_and_perturbation(npz):
    path = npz(name=np.array(["cat", "dog"]))
    pair = AdversarialPair.load(path)
    with np.load(path) as stored:
        natural = stored["natural"] / np.float32(255)
        adversarial = natural + stored["perturbation"].astype(np.float32)
    np.testing.assert_array_equal(pair.natural.numpy(), natural)
    np.testing.assert_array_equal(pair.adversarial.numpy(), adversarial)
    assert list(pair.names) == ["cat", "dog"]
    assert pair.true_label.tolist() == [0, 1]
    assert pair.attack_label.tolist() == [1, 0]


def test_safetensors(npz, tmp_path):
    with np.load(npz()) as stored:
        save_file(dict(stored), tmp_path / "pairs.safetensors")
    one, other = (
        AdversarialPair.load(npz()),
        AdversarialPair.load(tmp_path / "pairs.safetensors"),
    )
    assert torch.equal(one.adversarial, other.adversarial)
    assert list(other.names) == ["0", "1"]


BYTES = np.zeros((2, 3, 64, 64), dtype=np.uint8)
ARRAYS = {
    "no natural": ({"natural": None}, r"lacks the array\(s\) natural"),
    "neither": ({"perturbation": None}, r"lacks the array\(s\) adversarial"),
    "no labels": (
        {"true_label": None, "attack_label": None},
        r"lacks the array\(s\) true_label, attack_label; it has natural, perturbation",
    ),
    "pickled": (
        {"true_label": np.array([0, None], dtype=object)},
        "holds pickled objects, which are not read",
    ),
    "integers": (
        {"natural": BYTES.astype(np.int64)},
        "natural: got int64, want uint8 or floating point",
    ),
    "out of range": (
        {"natural": FLOATS * 255},
        r"natural: got values from 0 to 255, want \[0, 1\]",
    ),
    "NaN": (
        {"natural": FLOATS * np.nan},
        "natural: got values from nan to nan",
    ),
    "NaN in the perturbation": (
        {"perturbation": np.full((2, 3, 64, 64), np.nan, dtype=np.float32)},
        r"natural \+ perturbation: got values from nan",
    ),
    "perturbation in bytes": (
        {"perturbation": np.full((2, 3, 64, 64), 8, dtype=np.float32)},
        r"natural \+ perturbation: got values from 8.*, want \[0, 1\]",
    ),
    "adversarial normalised": (
        {"perturbation": None, "adversarial": FLOATS * 4 - 2},
        r"adversarial: got values from -2 to 2, want \[0, 1\]",
    ),
    "one label": (
        {"true_label": np.array([0])},
        r"true_label: got int64 of shape \(1,\), want integers \(2,\)",
    ),
    "not images": ({"natural": BYTES[0]}, r"natural: got shape \(3, 64, 64\)"),
    "shapes differ": (
        {"perturbation": np.zeros((2, 3, 8, 8), dtype=np.float32)},
        r"perturbation: got float32 of shape \(2, 3, 8, 8\)",
    ),
    "perturbation of integers": (
        {"perturbation": BYTES},
        "perturbation: got uint8",
    ),
    "labels too long": (
        {"true_label": np.array([0, 1, 2])},
        r"true_label: got int64 of shape \(3,\), want integers \(2,\)",
    ),
    "labels of floats": (
        {"attack_label": np.array([0.0, 1.0])},
        "attack_label: got float64",
    ),
    "labels equal": (
        {"attack_label": np.array([0, 1])},
        "the same label",
    ),
    "names too few": (
        {"name": np.array([b"a"])},
        "names: got 1, want one for each of 2",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_refused(npz, changes, message):
    with pytest.raises(ValueError, match=rf"pairs.npz.*{message}"):
        AdversarialPair.load(npz(**changes))


def truncated(source: Path, path: Path) -> None:
    whole = source.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


FILES = {
    "missing": (".npz", None, FileNotFoundError, "pairs: there is no file"),
    "of another kind": (
        ".csv",
        lambda source, path: path.write_text("a,b"),
        ValueError,
        "want a .npz or .safetensors file",
    ),
    "empty": (
        ".npz",
        lambda source, path: path.write_bytes(b""),
        ValueError,
        "is not a complete .npz file",
    ),
    "garbage": (
        ".npz",
        lambda source, path: path.write_bytes(b"\x00garbage" * 50),
        ValueError,
        "is not a complete .npz file",
    ),
    "truncated": (".npz", truncated, ValueError, "is not a complete .npz file"),
    "an .npy": (
        ".npz",
        lambda source, path: np.save(path.open("wb"), BYTES),
        ValueError,
        "is not a complete .npz file",
    ),
    "a zip of something else": (
        ".npz",
        lambda source, path: zipfile.ZipFile(path, "w").writestr("natural", "hello"),
        ValueError,
        r"lacks the array\(s\) natural",
    ),
    "damaged": (
        ".safetensors",
        lambda source, path: path.write_bytes(b"garbage" * 50),
        ValueError,
        "is not a complete .safetensors file",
    ),
}


@pytest.mark.parametrize(
    ("suffix", "write", "error", "message"), FILES.values(), ids=FILES
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_files_that_are_refused(npz, tmp_path, suffix, write, error, message):
    path = tmp_path / f"broken{suffix}"
    if write is not None:
        write(npz(), path)
    with pytest.raises(error, match=message):
        AdversarialPair.load(path)


def read_folders(folder: Path, labels: Path | None) -> AdversarialPair | None:
    images = read_image_folders(folder / "natural", folder / "adversarial")
    return None if labels is None else read_labels(labels, *images)


@pytest.fixture
def folders(tmp_path):
    """Two folders of two images, and the pixels of the first side."""
    rng = np.random.default_rng(0)
    natural = rng.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    for side, ending in (("natural", "png"), ("adversarial", "bmp")):
        (tmp_path / side).mkdir()
        for name, pixels in zip("ab", natural, strict=True):
            shown = pixels if side == "natural" else 255 - pixels
            Image.fromarray(shown).save(tmp_path / side / f"{name}.{ending}")
        (tmp_path / side / "notes.txt").write_text("not an image")
    return tmp_path, natural


def write_labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_folders_with_labels(folders):
    folder, pixels = folders
    labels = write_labels(
        folder,
        "true_label,name,attack_label\n5,b.png,6\n1,other.v2,1\n3,a,4\n",
    )
    pair = read_folders(folder, labels)
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(pair.natural, expected)
    torch.testing.assert_close(pair.adversarial, 1 - expected)
    assert list(pair.names) == ["a", "b"]
    assert pair.true_label.tolist() == [3, 5]
    assert pair.attack_label.tolist() == [4, 6]


class FirstPixel(nn.Module):
    """Predicts 0 if the first pixel is bright, else 1; counts the images of a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1)


def test_labels_by_a_model():
    natural = torch.zeros(3, 3, 4, 4)
    adversarial = natural.clone()
    adversarial[:2] = 1
    model = FirstPixel()
    pair, unchanged = label_by_predictions(
        model, natural, adversarial, ["a", "b", "c"], batch_size=2
    )
    assert (list(pair.names), unchanged) == (["a", "b"], ["c"])
    assert pair.true_label.tolist() == [1, 1]
    assert pair.attack_label.tolist() == [0, 0]
    assert torch.equal(pair.adversarial, adversarial[:2])
    assert model.seen == [2, 1, 2, 1]
    with pytest.raises(ValueError, match="one label for both images of every pair"):
        label_by_predictions(model, natural, natural, ["a", "b", "c"])


HEADER = "name,true_label,attack_label\n"
FOLDERS = {
    "no folder": (
        lambda f: (f / "natural").rename(f / "gone"),
        None,
        FileNotFoundError,
        "pairs: there is no folder",
    ),
    "no images": (
        lambda f: [path.unlink() for path in (f / "natural").glob("*.png")],
        None,
        ValueError,
        "holds no images; want files ending in",
    ),
    "names do not match": (
        lambda f: (f / "natural" / "a.png").rename(f / "natural" / "c.png"),
        None,
        ValueError,
        r"2 image\(s\) are in one folder only, the first is 'a' in .*adversarial",
    ),
    "twice the same name": (
        lambda f: Image.new("RGB", (9, 8)).save(f / "natural" / "a.jpg"),
        None,
        ValueError,
        "a.jpg and a.png in .* differ in their endings only",
    ),
    "sizes differ": (
        lambda f: Image.new("RGB", (4, 4)).save(f / "natural" / "b.png"),
        None,
        ValueError,
        r"b.png has \(C, H, W\) = \(3, 4, 4\), want \(3, 8, 9\) as a.png",
    ),
    "truncated": (
        lambda f: truncated(f / "natural" / "a.png", f / "natural" / "a.png"),
        None,
        ValueError,
        "a.png cannot be read",
    ),
    "not an image": (
        lambda f: (f / "natural" / "a.png").write_text("hello"),
        None,
        ValueError,
        "a.png cannot be read .*, want a complete image: BMP, GIF",
    ),
    "sides differ in size": (
        lambda f: [
            Image.new("RGB", (4, 4)).save(f / "natural" / f"{name}.png")
            for name in "ab"
        ],
        None,
        ValueError,
        "natural: got shape",
    ),
    "floating point": (
        lambda f: Image.new("F", (9, 8)).save(f / "natural" / "a.png", "TIFF"),
        None,
        ValueError,
        r"a.png: got 32-bit floating-point \(TIFF\), want grey, palette or RGB",
    ),
    "transparent": (
        lambda f: Image.new("RGBA", (9, 8)).save(f / "natural" / "a.png"),
        None,
        ValueError,
        "a.png: got transparent pixels, want an opaque image",
    ),
    "labels without a column": (
        lambda f: None,
        "name,true_label\na,1\n",
        ValueError,
        r"labels: .* column\(s\) attack_label are missing; the file has name, true",
    ),
    "empty labels": (
        lambda f: None,
        "",
        ValueError,
        r"labels.csv: the column\(s\) .* are missing; the file has none",
    ),
    "labels of words": (
        lambda f: None,
        HEADER + "a,1,2\nb,cat,2\n",
        ValueError,
        "labels.csv: line 3: got 'cat' and '2', want integers",
    ),
    "labels in other digits": (
        lambda f: None,
        HEADER + "a,1,2\nb,1,\N{ARABIC-INDIC DIGIT THREE}\n",
        ValueError,
        "labels.csv: line 3: got '1' and '.', want integers of 0 or more",
    ),
    "labels with separators": (
        lambda f: None,
        HEADER + "a,1,2\nb,1,1_0\n",
        ValueError,
        "labels.csv: line 3: got '1' and '1_0', want integers",
    ),
    "negative labels": (
        lambda f: None,
        HEADER + "a,1,-2\nb,1,2\n",
        ValueError,
        "labels.csv: line 2: got '1' and '-2', want integers of 0 or more",
    ),
    "labels cut short": (
        lambda f: None,
        HEADER + "a,1,2\nb,1\n",
        ValueError,
        "line 3: got '1' and None",
    ),
    "no row for an image": (
        lambda f: None,
        HEADER + "a,1,2\n",
        ValueError,
        r"labels.csv: there is no row for 1 image\(s\), the first is 'b'",
    ),
    "rows that differ": (
        lambda f: None,
        HEADER + "a,1,2\nb,1,2\na.png,1,3\n",
        ValueError,
        r"labels.csv: line 4: got \(1, 3\) for 'a', want \(1, 2\) as in an earlier",
    ),
    "labels equal": (
        lambda f: None,
        HEADER + "a,1,1\nb,1,2\n",
        ValueError,
        "labels.csv: .* the same label",
    ),
    "labels too large": (
        lambda f: None,
        HEADER + f"a,1,{2**70}\nb,1,2\n",
        ValueError,
        "labels.csv: attack_label: got 11805",
    ),
    "not UTF-8": (
        lambda f: (f / "labels.csv").write_bytes(b"\xe9" * 9),
        HEADER,
        ValueError,
        "labels.csv: 'utf-8' codec",
    ),
}


@pytest.mark.parametrize(
    ("break_it", "labels", "error", "message"), FOLDERS.values(), ids=FOLDERS
)
def test_folders_that_are_refused(folders, break_it, labels, error, message):
    folder, _ = folders
    path = None if labels is None else write_labels(folder, labels)
    break_it(folder)
    with pytest.raises(error, match=message):
        read_folders(folder, path)


def test_a_labels_file_that_is_missing(folders):
    folder, _ = folders
    with pytest.raises(FileNotFoundError, match="labels: there is no file"):
        read_folders(folder, folder / "none.csv")


def test_labels_as_excel_saves_them(folders):
    folder, _ = folders
    path = folder / "labels.csv"
    path.write_text(HEADER + "a,1,2\nb,3,4\n", encoding="utf-8-sig")
    assert read_folders(folder, path).true_label.tolist() == [1, 3]


def test_bfloat16_safetensors(tmp_path):
    x = torch.rand(1, 3, 4, 4).bfloat16()
    label = torch.tensor([0])
    save_tensors(
        {
            "natural": x,
            "adversarial": x.clone(),
            "true_label": label,
            "attack_label": label + 1,
        },
        tmp_path / "pairs.safetensors",
    )
    assert torch.equal(
        AdversarialPair.load(tmp_path / "pairs.safetensors").natural, x.float()
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".NPZ"])
def test_a_saved_pair_loads_back(tmp_path, demo_pairs, suffix):
    path = tmp_path / f"new/pairs{suffix}"
    demo_pairs.save(path)
    loaded = AdversarialPair.load(path)
    assert loaded.succeeded is None
    some = torch.arange(len(demo_pairs)) % 2 == 0
    dataclasses.replace(demo_pairs, succeeded=some).save(path)
    assert torch.equal(AdversarialPair.load(path).succeeded, some)
    for name in ("natural", "adversarial", "true_label", "attack_label"):
        assert torch.equal(getattr(loaded, name), getattr(demo_pairs, name))
    if suffix != ".safetensors":
        assert loaded.names == demo_pairs.names
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("pair", "name", "message"),
    [
        (AdversarialPair(*torch.rand(2, 1, 3, 4, 4), 1, 0),
         "a.pt", "want a .npz or .safetensors"),
        (AdversarialPair(*torch.rand(2, 1, 4), 1, 0),
         "a.npz", "natural: want one image input"),
        (AdversarialPair(1 + torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), 1, 0),
         "a.npz", "adversarial: got values from"),
    ],
)  # fmt: skip
def test_what_cannot_be_saved(tmp_path, pair, name, message):
    with pytest.raises(ValueError, match=message):
        pair.save(tmp_path / name)
    assert not list(tmp_path.iterdir())
