"""Adversarial pairs of images from two folders, with labels from a file or a model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._model.checks import check_tensors
from captum_pse._model.forward import first_scores
from captum_pse._model.targets import predicted_index
from captum_pse.pairs.pair import AdversarialPair

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


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
        return AdversarialPair(adversarial, natural, attack, true, names=names)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"labels: {path}: {error}") from error


@torch.no_grad()
def label_by_predictions(
    model: nn.Module,
    natural: Tensor,
    adversarial: Tensor,
    names: Sequence[str],
    *,
    batch_size: int = 16,
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
                    images.split(batch_size),
                    f"predicting {name}",
                    disable=not show_progress,
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
        adversarial[moved],
        natural[moved],
        attack[moved],
        true[moved],
        names=[name for name, kept in zip(names, moved.tolist(), strict=True) if kept],
    )
    unmoved = [
        name for name, kept in zip(names, moved.tolist(), strict=True) if not kept
    ]
    return pairs, unmoved


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
