"""Concept data sets on disk, in the format of Broden."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_pse.dissection._image_files import (
    Transform,
    make_sample,
    open_image,
    read_mask,
)
from captum_pse.dissection.concepts import Concept, ConceptSample, Labels


class BrodenConcepts(Dataset[ConceptSample]):
    """A folder in the published format of the Broden data set.

    - ``category.csv``: the categories, in the column ``name``.
    - ``c_<category>.csv``: the concepts of one, in the columns ``number`` and ``name``.
    - ``index.csv``: a row an image, with the columns ``image`` (a path under
      ``images/``), optionally ``split``, ``sh`` and ``sw`` (the height and width of its
      masks), and one for each category: empty, a number that stands for the whole
      image, or the path of a mask under ``images/``, whose pixels are
      ``R + 256 G``, 0 for none; several of either are joined by ``;``.

    An item is a :class:`ConceptSample`: the image in RGB, float32 ``(3, H, W)`` in
    [0, 1], and int64 labels of the categories that its row has: a mask ``(h, w)``,
    several ``(L, h, w)``, or numbers ``(n,)``.

    Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection:
    Quantifying Interpretability of Deep Visual Representations", CVPR 2017,
    arXiv:1704.05796.

    Args:
        folder (str or Path): Where these files are.
        split (str, optional): Takes rows of that ``split`` only. Default: None
        categories (sequence of str, optional): Takes these only. Default: None
        transform (Callable, optional): A transform of ``torchvision.transforms.v2`` of
            an image in [0, 1] and its masks together; it must not be random, since
            every image is read twice. Default: None

    Raises:
        FileNotFoundError: A CSV file is missing or, when an item is read, an image or
            mask.
        ValueError: There is no such category, or a file is malformed; the message names
            it and the row.

    Examples::

        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     (folder / "images").mkdir()
        ...     Image.new("RGB", (8, 8), "red").save(folder / "images/a.png")
        ...     Image.new("RGB", (4, 4), (44, 1, 0)).save(folder / "images/a_part.png")
        ...     for file, text in {
        ...         "category.csv": "name\\npart\\nscene",
        ...         "c_part.csv": "number,name\\n300,wheel",
        ...         "c_scene.csv": "number,name\\n7,street",
        ...         "index.csv": "image,part,scene\\na.png,a_part.png,7",
        ...     }.items():
        ...         _ = (folder / file).write_text(text)
        ...     dataset = BrodenConcepts(folder)
        ...     image, labels = dataset[0]
        >>> [concept.name for concept in dataset.concepts]
        ['street', 'wheel']
        >>> labels["part"].unique(), labels["scene"]
        (tensor([300]), tensor([7]))
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str | None = None,
        categories: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.transform = transform
        path = self.folder / "category.csv"
        known = [row["name"] for _, row in _rows(path, ("name",))]
        for name in categories or ():
            if name not in known:
                raise ValueError(
                    f"categories: got {name!r}, want some of {', '.join(known)}"
                )
        chosen = [n for n in known if categories is None or n in categories]
        self.concepts = sorted(
            (concept for name in chosen for concept in self._read_category(name)),
            key=lambda concept: concept.number,
        )
        self._categories = chosen
        self._index = self.folder / "index.csv"
        wanted = ("image", *chosen) if split is None else ("image", "split", *chosen)
        self._samples = [
            (line, row)
            for line, row in _rows(self._index, wanted)
            if split is None or row["split"] == split
        ]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> ConceptSample:
        line, row = self._samples[index]
        labels: dict[str, Labels] = {}
        for category in self._categories:
            if row[category]:
                labels[category] = self._read_labels(row, category, line)
        image = open_image(self._file(row["image"], line))
        return make_sample(image, labels, self.transform)

    def _read_category(self, category: str) -> list[Concept]:
        path = self.folder / f"c_{category}.csv"
        return [
            Concept(category, _number(row["number"], path, line), row["name"])
            for line, row in _rows(path, ("number", "name"))
        ]

    def _read_labels(self, row: dict[str, str], category: str, line: int) -> Labels:
        parts = row[category].split(";")
        if all(part.isdecimal() for part in parts):
            return torch.tensor([int(part) for part in parts])
        masks: list[Tensor] = []
        for part in parts:
            path = self._file(part, line)
            mask = read_mask(path)
            size = (row.get("sh"), row.get("sw"))
            if all(size) and tuple(map(str, mask.shape)) != size:
                raise ValueError(
                    f"dataset: {path} is {tuple(mask.shape)}, want {size} as row "
                    f"{line} of {self._index} says"
                )
            masks.append(mask)
        return torch.stack(masks) if len(masks) > 1 else masks[0]

    def _file(self, name: str, line: int) -> Path:
        path = self.folder / "images" / name
        inside = (self.folder / "images").resolve()
        if not name or inside not in path.resolve().parents:
            raise ValueError(
                f"dataset: row {line} of {self._index} has the path {name!r}, want one "
                "under images/"
            )
        if not path.is_file():
            raise FileNotFoundError(
                f"dataset: row {line} of {self._index} names {path}, which is no file"
            )
        return path


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers, all of those columns."""
    if not path.is_file():
        raise FileNotFoundError(f"dataset: there is no file {path}")
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"lacks the column(s) {', '.join(missing)}")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"row {reader.line_num} has not {len(reader.fieldnames or ())} "
                        "fields"
                    )
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"dataset: {path}: {error}") from error
    return rows


def _number(text: str, path: Path, line: int) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(
            f"dataset: {path}: row {line} has the number {text!r}, want one above 0"
        )
    return int(text)
