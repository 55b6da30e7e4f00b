"""Adversarial pairs of images from files: .npz, .safetensors, or two folders.

An ``.npz`` or ``.safetensors`` file holds these arrays:

- ``natural``: images ``(N, C, H, W)``, uint8, or floating point in [0, 1]
- ``adversarial``: likewise; or ``perturbation``, floating point in [0, 1] pixel units,
  in its place
- ``true_label`` and ``attack_label``: integers ``(N,)``
- ``name``: strings ``(N,)``, optional, .npz only
- ``succeeded``: bool ``(N,)``, optional
"""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._files import atomic_path
from captum_pse._forward import first_scores
from captum_pse._tensors import check_tensors
from captum_pse.labels import predicted_index
from captum_pse.pair import AdversarialPair

Array = npt.NDArray[Any]

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
#: How far rounding may take an adversarial pixel out of [0, 1].
SLACK = 1 / 255


def read_pair_file(path: str | os.PathLike[str]) -> AdversarialPair:
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
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"pairs: got {path}, want a .npz or .safetensors file")
    arrays = reader(path)
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
            adversarial = _moved(natural, arrays["perturbation"])
        return AdversarialPair(
            natural,
            adversarial,
            _labels("true_label", arrays["true_label"], len(natural)),
            _labels("attack_label", arrays["attack_label"], len(natural)),
            _names(arrays["name"]) if "name" in arrays else (),
            torch.from_numpy(arrays["succeeded"]) if "succeeded" in arrays else None,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"pairs: {path}: {error}") from error


def write_pair_file(pair: AdversarialPair, path: str | os.PathLike[str]) -> None:
    """Writes what :func:`read_pair_file` reads; see
    :meth:`captum_pse.AdversarialPair.save`."""
    path = Path(path)
    sides = {"natural": pair.natural, "adversarial": pair.adversarial}
    labels = {"true_label": pair.true_label, "attack_label": pair.attack_label}
    tensors: dict[str, Tensor] = {}
    for name, value in (sides | labels).items():
        if not isinstance(value, Tensor) or (name in sides and value.dim() != 4):
            raise ValueError(
                f"{name}: want one image input (N, C, H, W), and class labels"
            )
        tensors[name] = value.detach().cpu().contiguous()
    if pair.succeeded is not None:
        tensors["succeeded"] = pair.succeeded.cpu()
    for name in sides:
        _in_range(name, tensors[name].float())
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"path: got {path}, want a .npz or .safetensors file")
    with atomic_path(path) as partial:
        if suffix == ".npz":
            arrays: dict[str, Any] = {
                # numpy has no bfloat16.
                name: (x.float() if x.dtype == torch.bfloat16 else x).numpy()
                for name, x in tensors.items()
            }
            # A file, not a path: numpy would add an ending of its own to .NPZ.
            with partial.open("wb") as file:
                np.savez(file, name=np.array([*map(str, pair.names)]), **arrays)
        else:
            from safetensors.torch import save_file

            whole = {name: x.clone() for name, x in tensors.items()}
            save_file(whole, partial)


def read_image_folders(
    natural: str | Path, adversarial: str | Path
) -> tuple[Tensor, Tensor, list[str]]:
    """The images of two folders that have the same names but for their endings.

    Returns:
        *tuple*: The natural and the adversarial images, float32 in [0, 1], shape
        ``(N, 3, H, W)``, and their names without endings, in order.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: Names or sizes do not match, or an image cannot be read as RGB of
            8 bits a channel.
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
    check_tensors(x, x0)
    return x0, x, names


def read_labels(
    path: str | Path, natural: Tensor, adversarial: Tensor, names: Sequence[str]
) -> AdversarialPair:
    """The pairs with the labels in a CSV file.

    Args:
        path (str or Path): With the columns ``name`` (of the image, with or without its
            ending), ``true_label`` and ``attack_label``, in UTF-8; rows of other images
            are allowed.
        natural (Tensor): The images of the one side.
        adversarial (Tensor): Those of the other.
        names (sequence of str): Their names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column, a row or an integer is missing; two rows of one image
            differ; a label is negative, or its pair's other.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"labels: there is no file {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = _parse_labels(csv.DictReader(file))
        lost = [name for name in names if name not in found]
        if lost:
            raise ValueError(f"there is no row for {len(lost)} image(s): {lost[0]!r}")
        true, attack = ([found[name][column] for name in names] for column in range(2))
        return AdversarialPair(natural, adversarial, true, attack, names)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"labels: {path}: {error}") from error


@torch.no_grad()
def label_by_predictions(
    model: nn.Module,
    natural: Tensor,
    adversarial: Tensor,
    names: Sequence[str],
    *,
    batch: int = 16,
    device: str = "cpu",
    show_progress: bool = False,
) -> tuple[AdversarialPair, list[str]]:
    """The pairs with the labels that the model gives to their two sides.

    Returns:
        *tuple*: The pairs that the model gives two labels, and the names of the others,
        in which the attack did not change the prediction.

    Raises:
        ValueError: There is no pair of the first kind, or the model does not take the
            images.
    """
    model = model.to(device)
    true, attack = (
        torch.cat(
            [
                predicted_index(name, first_scores(model, (part.to(device),)))[:, 0]
                for part in tqdm(
                    images.split(batch), f"predicting {name}", disable=not show_progress
                )
            ]
        ).cpu()
        for name, images in (("true_label", natural), ("attack_label", adversarial))
    )
    moved = true != attack
    if not moved.any():
        raise ValueError(
            "pairs: the model gives both images of every pair the same label; want "
            "pairs in which the attack changed the prediction, or a CSV file of labels"
        )
    pairs = AdversarialPair(
        natural[moved],
        adversarial[moved],
        true[moved],
        attack[moved],
        [name for name, kept in zip(names, moved.tolist(), strict=True) if kept],
    )
    unmoved = [
        name for name, kept in zip(names, moved.tolist(), strict=True) if not kept
    ]
    return pairs, unmoved


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip file")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise whatever the bytes provoke
        if "allow_pickle" in str(error):
            reason = "holds pickled objects, which are not read"
        else:
            reason = f"is not a whole .npz file ({error})"
        raise ValueError(f"pairs: {path} {reason}") from error
    return {name: a for name, a in arrays.items() if isinstance(a, np.ndarray)}


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"pairs: {path} is not a whole .safetensors file ({error})"
        ) from error
    # numpy has no bfloat16.
    return {
        name: (x.float() if x.is_floating_point() else x).numpy()
        for name, x in tensors.items()
    }


def _pixels(name: str, array: Array) -> Tensor:
    if array.ndim != 4:
        raise ValueError(f"{name}: got shape {array.shape}, want images (N, C, H, W)")
    if array.dtype == np.uint8:
        return torch.from_numpy(array) / 255
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: got {array.dtype}, want uint8 or floating point")
    return _in_range(name, torch.from_numpy(array.astype(np.float32)))


def _moved(natural: Tensor, perturbation: Array) -> Tensor:
    if perturbation.dtype.kind != "f" or perturbation.shape != tuple(natural.shape):
        raise ValueError(
            f"perturbation: got {perturbation.dtype} of shape {perturbation.shape}, "
            f"want floating point of shape {tuple(natural.shape)}"
        )
    delta = torch.from_numpy(perturbation.astype(np.float32))
    return _in_range("natural + perturbation", natural + delta)


def _in_range(name: str, images: Tensor) -> Tensor:
    if images.numel() and not (images.min() >= -SLACK and images.max() <= 1 + SLACK):
        raise ValueError(
            f"{name}: got values from {images.min():.4g} to {images.max():.4g}, want "
            "[0, 1]"
        )
    return images


def _labels(name: str, array: Array, n: int) -> Tensor:
    if array.dtype.kind not in "iu" or array.shape != (n,):
        raise ValueError(
            f"{name}: got {array.dtype} of shape {array.shape}, want integers ({n},)"
        )
    return torch.from_numpy(array.astype(np.int64))


def _names(array: Array) -> list[str]:
    if array.dtype.kind not in "SU" or array.ndim != 1:
        raise ValueError(
            f"name: got {array.dtype} of shape {array.shape}, want strings (N,)"
        )
    decoded = np.char.decode(array) if array.dtype.kind == "S" else array
    return [str(name) for name in decoded]


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
    images: list[Tensor] = []
    for path in paths:
        images.append(_read_image(path))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"pairs: {path} has (C, H, W) = {tuple(images[-1].shape)}, want "
                f"{tuple(images[0].shape)} as {paths[0].name}"
            )
    return torch.stack(images) / 255


def _read_image(path: Path) -> Tensor:
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    try:
        with Image.open(path) as image:
            mode, bands = image.mode, image.getbands()
            pixels = pil_to_tensor(image.convert("RGB"))
            opaque = "A" not in bands or image.getchannel("A").getextrema() == (
                255,
                255,
            )
    except Exception as error:  # Pillow raises whatever the bytes provoke
        raise ValueError(f"pairs: {path} is not a whole image ({error})") from error
    if mode[0] in "IF":
        raise ValueError(
            f"pairs: {path} has Pillow's mode {mode}, want 8 bits a channel"
        )
    if not opaque:
        raise ValueError(f"pairs: {path} is partly transparent, want an opaque image")
    return pixels


def _parse_labels(reader: csv.DictReader[str]) -> dict[str, tuple[int, int]]:
    """The true and the attack label of each image, by its name without the ending."""
    missing = {"name", "true_label", "attack_label"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(
            f"the column(s) {', '.join(sorted(missing))} are missing; it has "
            f"{', '.join(reader.fieldnames or ()) or 'none'}"
        )
    found: dict[str, tuple[int, int]] = {}
    for row in reader:
        try:
            labels = int(row["true_label"]), int(row["attack_label"])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"line {reader.line_num}: got {row['true_label']!r} and "
                f"{row['attack_label']!r}, want integers"
            ) from error
        name = Path(row["name"])
        stem = name.stem if name.suffix.lower() in IMAGE_SUFFIXES else row["name"]
        if found.setdefault(stem, labels) != labels:
            raise ValueError(
                f"line {reader.line_num}: got {labels} for {stem!r}, which an earlier "
                f"line gave {found[stem]}"
            )
    return found
