"""Adversarial pairs of images from files: .npz, .safetensors, or two folders.

An ``.npz`` or ``.safetensors`` file holds the arrays

==============  =====================
================================================== ``natural``     ``(N, C, H, W)``
 uint8, or floating point in [0, 1] ``adversarial`` ``(N, C, H, W)``       likewise; or
 ``perturbation``, floating point in
                                       [0, 1] pixel units, in its place
``true_label``  ``(N,)``               integer
``attack_label``  ``(N,)``             integer
``name``        ``(N,)``, optional     strings (.npz only)
==============  =====================
==================================================
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_pse._forward import ForwardFunc
from captum_pse.pair import AdversarialPair

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


def read_pair_file(path: str | Path) -> AdversarialPair:
    """The pairs in an ``.npz`` or ``.safetensors`` file, as float32 in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of that format, is damaged, lacks an array, holds pickled
            objects, or its arrays do not make pairs of images.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"pairs: there is no file {path}")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise ValueError(f"pairs: got {path}, want a .npz or .safetensors file")
    arrays = readers[path.suffix](path)
    wanted = ["natural", "true_label", "attack_label"]
    if "perturbation" not in arrays:
        wanted.append("adversarial")
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(
            f"pairs: {path} lacks the array(s) {', '.join(missing)}; it has "
            f"{', '.join(arrays) or 'none'}; want natural, adversarial (or "
            "perturbation), true_label and attack_label"
        )
    try:
        natural = _pixels("natural", arrays["natural"])
        if "adversarial" in arrays:
            adversarial = _pixels("adversarial", arrays["adversarial"])
        else:
            adversarial = natural + _perturbation(arrays["perturbation"], natural)
        return AdversarialPair(
            natural,
            adversarial,
            _labels("true_label", arrays["true_label"]),
            _labels("attack_label", arrays["attack_label"]),
            [str(name) for name in arrays.get("name", ())],
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"pairs: {path}: {error}") from error


def read_pair_folders(
    natural: str | Path,
    adversarial: str | Path,
    labels: str | Path | None = None,
    forward_func: ForwardFunc | None = None,
) -> AdversarialPair:
    """The pairs in two folders of images that have the same names but for their
    endings.

    Args:
        natural, adversarial (str or Path): The folders. All images have one size.
        labels (str or Path, optional): A CSV file with the columns ``name`` (of the
            image, with or without its ending), ``true_label`` and ``attack_label``;
            rows of other images are allowed. Default: None
        forward_func (Callable, optional): Gives the labels by its predictions where
            there is no CSV file. Default: None

    Raises:
        FileNotFoundError: A folder or the CSV file does not exist.
        ValueError: Names or sizes do not match, an image or a row cannot be read, or
            there are neither labels nor a model.
    """
    originals, twins = (
        _images_by_stem(Path(natural)),
        _images_by_stem(Path(adversarial)),
    )
    alone = sorted(originals.keys() ^ twins.keys())
    if alone:
        where = natural if alone[0] in originals else adversarial
        raise ValueError(
            f"pairs: {len(alone)} image(s) are in one folder only, the first is "
            f"{alone[0]!r} in {where}; want the same names in both"
        )
    names = sorted(originals)
    x0, x = (
        _read_images([side[name] for name in names]) for side in (originals, twins)
    )
    if labels is not None:
        true, attack = _read_labels(Path(labels), names)
        return AdversarialPair(x0, x, true, attack, names)
    if forward_func is None:
        raise ValueError("labels: got None and no model, want a CSV file or a model")
    return AdversarialPair.from_predictions(forward_func, x0, x, names=names)


def _read_npz(path: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"pairs: {path} is not a whole .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as error:
        raise ValueError(
            f"pairs: {path} needs unpickling, which is not done ({error})"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"pairs: {path} is not a whole .npz file ({error})") from error


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.numpy() for name, tensor in load_file(path).items()}
    except (SafetensorError, TypeError) as error:
        raise ValueError(
            f"pairs: {path} is not a whole .safetensors file ({error})"
        ) from error


def _pixels(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    if array.ndim != 4:
        raise ValueError(f"{name}: got shape {array.shape}, want images (N, C, H, W)")
    if array.dtype == np.uint8:
        return torch.from_numpy(array) / 255
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: got {array.dtype}, want uint8 or floating point")
    if name == "natural" and array.size and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"{name}: got values from {array.min()} to {array.max()}, want [0, 1]"
        )
    return torch.from_numpy(array.astype(np.float32))


def _perturbation(array: np.ndarray[Any, Any], natural: Tensor) -> Tensor:
    if array.dtype.kind != "f" or array.shape != tuple(natural.shape):
        raise ValueError(
            f"perturbation: got {array.dtype} of shape {array.shape}, want floating "
            f"point of shape {tuple(natural.shape)}"
        )
    return torch.from_numpy(array.astype(np.float32))


def _labels(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ValueError(
            f"{name}: got {array.dtype} of shape {array.shape}, want integers (N,)"
        )
    return torch.from_numpy(array.astype(np.int64))


def _images_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"pairs: there is no folder {folder}")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in images:
            raise ValueError(
                f"pairs: {images[path.stem].name} and {path.name} in {folder} differ "
                "in their endings only; want one image of a name"
            )
        images[path.stem] = path
    if not images:
        raise ValueError(
            f"pairs: {folder} holds no images; want files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images


def _read_images(paths: list[Path]) -> Tensor:
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    images: list[Tensor] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                images.append(pil_to_tensor(image.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"pairs: {path} is not a whole image ({error})") from error
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"pairs: {path} has (C, H, W) = {tuple(images[-1].shape)}, want "
                f"{tuple(images[0].shape)} as {paths[0].name}"
            )
    return torch.stack(images) / 255


def _read_labels(path: Path, names: list[str]) -> tuple[list[int], list[int]]:
    if not path.is_file():
        raise FileNotFoundError(f"labels: there is no file {path}")
    found: dict[str, tuple[int, int]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"name", "true_label", "attack_label"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"labels: {path} lacks the column(s) {', '.join(sorted(missing))}; it "
                f"has {', '.join(reader.fieldnames or ()) or 'none'}"
            )
        for row in reader:
            try:
                pair = int(row["true_label"]), int(row["attack_label"])
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"labels: {path}, line {reader.line_num}: got "
                    f"{row['true_label']!r} and {row['attack_label']!r}, want integers"
                ) from error
            name = row["name"]
            stem, dot, ending = name.rpartition(".")
            known = dot and f".{ending.lower()}" in IMAGE_SUFFIXES
            found[stem if known else name] = pair
    lost = [name for name in names if name not in found]
    if lost:
        raise ValueError(
            f"labels: {path} has no row for {len(lost)} image(s): {lost[0]!r}"
        )
    return [found[name][0] for name in names], [found[name][1] for name in names]
