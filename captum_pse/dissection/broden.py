"""BrodenConcepts: concept data sets on disk, in the format of Broden."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captum_pse._io.images import read_image
from captum_pse._io.masks import CODED, GREY, read_mask
from captum_pse._io.text import is_digits
from captum_pse._model.checks import check_int
from captum_pse.dissection._samples import Transform, make_sample
from captum_pse.dissection.concepts import Concept, ConceptSample, Labels


class BrodenConcepts(Dataset[ConceptSample]):
    """A folder in the published format of the Broden data set.

    - ``category.csv``: the categories, in the column ``name``.
    - ``c_<category>.csv``: the concepts of one category, in the columns ``number`` and
      ``name``.
    - ``index.csv``: one row for each image. The column ``image`` is a path under
      ``images/``. The columns ``split``, ``sh`` and ``sw`` (height and width of the
      masks) are optional. There is one column for each category: empty; the numbers of
      concepts of the whole image; or the paths of masks under ``images/``, in which the
      number of a pixel is ``R + 256 G``, or the value of a grey mask; 0 for none.
      Several numbers or paths are separated by ``;``.

    Images and masks are read as in :class:`FolderConcepts`, but a mask with a palette
    is refused: its number could be the index or ``R + 256 G``.

    An item is a :class:`ConceptSample`: the image in RGB, float32 ``(3, H, W)`` in
    [0, 1], and int64 labels for each category that is not empty in its row: one mask
    ``(h, w)``, several masks ``(L, h, w)``, or numbers ``(n,)``.

    Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection:
    Quantifying Interpretability of Deep Visual Representations", CVPR 2017,
    arXiv:1704.05796.

    Args:
        folder (str or Path): The folder with these files.
        split (str, optional): Takes only the rows with this ``split``. Default: None
        categories (sequence of str, optional): Takes only these categories.
            Default: None
        transform (Callable, optional): A transform of ``torchvision.transforms.v2``,
            applied to the image in [0, 1] and its masks together. It must not be
            random, because every image is read twice. Default: None

    Raises:
        FileNotFoundError: A CSV file does not exist; when an item is read, an image or
            mask does not exist.
        ValueError: There is no such category, or a file is malformed. The message names
            the file and the row.

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
        pixels, _ = read_image(self._file(row["image"], line), "dataset")
        return make_sample(pixels, labels, self.transform)

    def _read_category(self, category: str) -> list[Concept]:
        path = self.folder / f"c_{category}.csv"
        return [
            Concept(category, _number(row["number"], path, line), row["name"])
            for line, row in _rows(path, ("number", "name"))
        ]

    def _read_labels(self, row: dict[str, str], category: str, line: int) -> Labels:
        entries = row[category].split(";")
        if all(map(is_digits, entries)):
            what = f"dataset: {category} in row {line} of {self._index}"
            return torch.tensor([check_int(what, int(entry)) for entry in entries])
        masks: list[Tensor] = []
        for entry in entries:
            path = self._file(entry, line)
            mask = read_mask(path, "dataset", (GREY, CODED))
            size = (row.get("sh"), row.get("sw"))
            if all(size) and tuple(map(str, mask.shape)) != size:
                raise ValueError(
                    f"dataset: got shape {tuple(mask.shape)} of {path}, want {size} as "
                    f"in row {line} of {self._index}"
                )
            masks.append(mask)
        return torch.stack(masks) if len(masks) > 1 else masks[0]

    def _file(self, name: str, line: int) -> Path:
        path = self.folder / "images" / name
        inside = (self.folder / "images").resolve()
        if not name or inside not in path.resolve().parents:
            raise ValueError(
                f"dataset: got path {name!r} in row {line} of {self._index}, want one "
                "under images/"
            )
        if not path.is_file():
            raise FileNotFoundError(
                f"dataset: there is no file {path}, named in row {line} of "
                f"{self._index}"
            )
        return path


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with these columns, and their line numbers."""
    if not path.is_file():
        raise FileNotFoundError(f"dataset: there is no file {path}")
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            fields = reader.fieldnames or ()
            missing = [c for c in columns if c not in fields]
            if missing:
                raise ValueError(f"the column(s) {', '.join(missing)} are missing")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"row {reader.line_num} does not have {len(fields)} fields"
                    )
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"dataset: {path}: {error}") from error
    return rows


def _number(text: str, path: Path, line: int) -> int:
    if not is_digits(text):
        raise ValueError(
            f"dataset: got number {text!r} in row {line} of {path}, want 1 or more"
        )
    return check_int(f"dataset: number in row {line} of {path}", int(text), 1)
