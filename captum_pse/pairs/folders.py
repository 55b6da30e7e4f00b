"""Adversarial pairs of images from two folders, with labels from a file or a model."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_pse._io.image_files import SUFFIXES, Facts
from captum_pse._io.images import read_image
from captum_pse._io.text import is_digits
from captum_pse._model.checks import check_int, check_tensors
from captum_pse._model.forward import first_scores
from captum_pse._model.targets import predicted_index
from captum_pse.pairs.pair import AdversarialPair


def read_image_folders(
    natural: str | Path, adversarial: str | Path
) -> tuple[Tensor, Tensor, list[str]]:
    """Reads two folders of images, matched by file name without the ending.

    Files are read as by :func:`captum_pse._io.images.read_image`. Those with other
    endings than ``SUFFIXES`` are ignored. Warns if the files of the adversarial images
    do not hold them as exactly as those of the natural images.

    Returns:
        *tuple*: The natural and the adversarial images, float32 in [0, 1], shape
        ``(N, 3, H, W)``, and their names without endings, sorted.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: Names or sizes do not match, or an image is damaged or of a kind
            that is not read.
    """
    naturals = _images_by_stem(Path(natural))
    adversarials = _images_by_stem(Path(adversarial))
    unmatched = sorted(naturals.keys() ^ adversarials.keys())
    if unmatched:
        where = natural if unmatched[0] in naturals else adversarial
        raise ValueError(
            f"pairs: {len(unmatched)} image(s) are in one folder only, the first is "
            f"{unmatched[0]!r} in {where}; want the same names in both"
        )
    names = sorted(naturals)
    x0, natural_files = _read_images([naturals[name] for name in names])
    x, adversarial_files = _read_images([adversarials[name] for name in names])
    check_tensors(x, x0)
    _warn_of_rounding(names, natural_files, adversarial_files)
    return x0, x, names


def read_labels(
    path: str | Path, natural: Tensor, adversarial: Tensor, names: Sequence[str]
) -> AdversarialPair:
    """Labels pairs from a CSV file.

    Args:
        path (str or Path): The file, in UTF-8, with the columns ``name`` (of the image,
            with or without its ending), ``true_label`` and ``attack_label``. Rows of
            other images are ignored.
        natural (Tensor): The natural images.
        adversarial (Tensor): The adversarial images.
        names (sequence of str): The names of the images.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column, a row or an integer is missing; two rows of one image
            differ; a label is negative, or the two labels of a pair are equal.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"labels: there is no file {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = _parse_labels(csv.DictReader(file))
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(
                f"there is no row for {len(missing)} image(s), the first is "
                f"{missing[0]!r}"
            )
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
    """Labels pairs with the model's predictions on their two images.

    Returns:
        *tuple*: The pairs whose prediction the attack changed, and the names of the
        other pairs.

    Raises:
        ValueError: The attack changed no prediction, or the model does not take the
            images.
    """
    batch_size = check_int("batch_size", batch_size, 1)
    model = model.to(device)
    true, attack = (
        torch.cat(
            [
                predicted_index(name, first_scores(model, (batch.to(device),)))[:, 0]
                for batch in tqdm(
                    images.split(batch_size),
                    f"predicting {name}",
                    disable=not show_progress,
                )
            ]
        ).cpu()
        for name, images in (("true_label", natural), ("attack_label", adversarial))
    )
    changed = true != attack
    if not changed.any():
        raise ValueError(
            "pairs: the model predicts one label for both images of every pair; want "
            "pairs in which the attack changed the prediction, or a CSV file of labels"
        )
    by_name = list(zip(names, changed.tolist(), strict=True))
    pairs = AdversarialPair(
        adversarial[changed],
        natural[changed],
        attack[changed],
        true[changed],
        names=[name for name, is_changed in by_name if is_changed],
    )
    return pairs, [name for name, is_changed in by_name if not is_changed]


def _images_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"pairs: there is no folder {folder}")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in images:
            raise ValueError(
                f"pairs: {images[path.stem].name} and {path.name} in {folder} differ "
                "in their endings only; want one image for each name"
            )
        images[path.stem] = path
    if not images:
        raise ValueError(
            f"pairs: {folder} holds no images; want files ending in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return images


def _read_images(paths: Sequence[Path]) -> tuple[Tensor, list[Facts]]:
    """The images, and facts of their files."""
    images = torch.empty(0)
    facts: list[Facts] = []
    for path in paths:
        image, fact = read_image(path, "pairs")
        if not facts:
            images = image.new_empty(len(paths), *image.shape)
        if image.shape != images.shape[1:]:
            raise ValueError(
                f"pairs: {path} has (C, H, W) = {tuple(image.shape)}, want "
                f"{tuple(images.shape[1:])} as {paths[0].name}"
            )
        images[len(facts)] = image
        facts.append(fact)
    return images, facts


def _warn_of_rounding(
    names: Sequence[str],
    natural: Sequence[Facts],
    adversarial: Sequence[Facts],
) -> None:
    lossy = [name for name, file in zip(names, adversarial, strict=True) if file.lossy]
    rounded = [
        name
        for name, before, after in zip(names, natural, adversarial, strict=True)
        if before.bits > 8 >= after.bits
    ]
    for found, what in (
        (lossy, "lossy compression"),
        (rounded, "8 bits per channel beside a natural image of 16"),
    ):
        if found:
            warnings.warn(
                f"pairs: {len(found)} adversarial image(s) have {what}, the first is "
                f"{found[0]!r}; what it rounds is explained as perturbation, which may "
                "be smaller; want PNG with the bits of the natural images, or a pair "
                "file",
                stacklevel=3,
            )


def _parse_labels(reader: csv.DictReader[str]) -> dict[str, tuple[int, int]]:
    """The true and the attack label of each image, by its name without the ending."""
    missing = {"name", "true_label", "attack_label"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(
            f"the column(s) {', '.join(sorted(missing))} are missing; the file has "
            f"{', '.join(reader.fieldnames or ()) or 'none'}"
        )
    found: dict[str, tuple[int, int]] = {}
    for row in reader:
        texts = row["true_label"], row["attack_label"]
        if not all(text and is_digits(text.strip()) for text in texts):
            raise ValueError(
                f"line {reader.line_num}: got {texts[0]!r} and {texts[1]!r}, want "
                "integers of 0 or more"
            )
        labels = int(texts[0]), int(texts[1])
        name = Path(row["name"])
        stem = name.stem if name.suffix.lower() in SUFFIXES else row["name"]
        if found.setdefault(stem, labels) != labels:
            raise ValueError(
                f"line {reader.line_num}: got {labels} for {stem!r}, want "
                f"{found[stem]} as in an earlier line"
            )
    return found
