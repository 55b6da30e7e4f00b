"""Dissection: the concepts that the units of a network detect."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_pse._io.files import atomic_path, write_csv, write_json
from captum_pse._io.manifest import manifest
from captum_pse._io.saved import SavedResult
from captum_pse.dissection.concepts import Concept, Vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class LayerOverlaps:
    """Pixel counts of the K units of one layer, for C concepts in G categories.

    :class:`captum_pse.Dissection` computes IoU from these counts. Masks of units and
    concepts have the resolution of the labels; counts are sums over images.

    Attributes:
        thresholds (Tensor): ``(K,)``, in activation units: a unit exceeds its threshold
            at the fraction ``quantile`` of all positions.
        exact (bool): Whether the thresholds are exact; otherwise they come from a
            histogram, to 0.2 %.
        intersections (Tensor): int64 ``(K, C)``, the number of pixels both in the
            unit's mask and in the concept.
        areas (Tensor): int64 ``(K, G)``, the number of pixels in the unit's mask, over
            the images that are annotated for the category.
        total (Tensor): int64 ``(K,)``, the number of pixels in the unit's mask, over
            all images.
        peaks, images (Tensor): ``(K, 8)`` each: the unit's highest activations of
            different images, descending, -inf for missing ones; and the indices of
            these images, int64, -1 for missing ones.

    Examples::

        >>> from captum_pse.demo import load_model
        >>> from captum_pse.demo import SceneConcepts
        >>> from captum_pse.dissection import NetworkDissection
        >>> method = NetworkDissection(load_model(), ["features.conv1"])
        >>> layer = method.dissect(SceneConcepts(4)).layers["features.conv1"]
        >>> layer.intersections.shape == (32, len(SceneConcepts(4).concepts))
        True
        >>> bool((layer.intersections <= layer.total[:, None]).all())
        True
        >>> layer.images[0].sort(descending=True).values.tolist()
        [3, 2, 1, 0, -1, -1, -1, -1]
    """

    thresholds: Tensor
    exact: bool
    intersections: Tensor
    areas: Tensor
    total: Tensor
    peaks: Tensor
    images: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Dissection(SavedResult):
    r"""The concepts that the units of a network detect.

    Made by :meth:`captum_pse.NetworkDissection.dissect`. Let ``M_k`` be the mask of
    unit k, the pixels at which its upsampled map exceeds its threshold, and ``L_c`` the
    pixels of concept c. Then

    .. math::
        \text{IoU}_{k,c} = \frac{\sum |M_k \cap L_c|}{\sum |M_k \cup L_c|},

    summed over the images that are annotated for c's category. A unit detects the
    concept with the largest IoU if that is above ``min_iou``; for equal IoU, the first
    concept. Methods that take the name of a layer raise ValueError if the layer was not
    dissected.

    Source: Bau et al., "Network Dissection", arXiv:1704.05796.

    Attributes:
        concepts (tuple[Concept, ...]): The C concepts, in the data set's order.
        layers (dict[str, LayerOverlaps]): The counts of each layer, by its name.
        concept_areas (Tensor): int64 ``(C,)``, the number of pixels of each concept.
        category_pixels (Tensor): int64 ``(G,)``, the number of pixels of the images
            that are annotated for each category, in the order of ``categories``.
        n_pixels, n_images (int): The numbers of pixels and images of the data set.
        quantile, min_iou (float): See :class:`captum_pse.NetworkDissection`.

    Examples::

        >>> import tempfile
        >>> from captum_pse import NetworkDissection
        >>> from captum_pse.demo import load_model
        >>> from captum_pse.demo import SceneConcepts
        >>> method = NetworkDissection(load_model(), ["features.conv5"])
        >>> result = method.dissect(SceneConcepts(24))
        >>> iou, index = result.best("features.conv5")
        >>> unit = int(iou.argmax())
        >>> result.concepts[index[unit]].name
        'rocket'
        >>> bool(result.detectors("features.conv5")[unit])
        True
        >>> result.summary()[0]["detectors"] == sum(
        ...     row["detector"] for row in result.table()
        ... )
        True
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(f"{folder}/found.safetensors")
        ...     again = Dissection.load(f"{folder}/found.safetensors")
        >>> again.table() == result.table()
        True
    """

    concepts: tuple[Concept, ...]
    layers: dict[str, LayerOverlaps]
    concept_areas: Tensor
    category_pixels: Tensor
    n_pixels: int
    n_images: int
    quantile: float
    min_iou: float

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.concepts)

    @property
    def categories(self) -> tuple[str, ...]:
        """The G categories, in the order of their first concepts."""
        return self._vocabulary.categories

    def __repr__(self) -> str:
        found = ", ".join(
            f"{name}: {int(self.detectors(name).sum())} of {len(layer.total)} detect"
            for name, layer in self.layers.items()
        )
        return f"Dissection({self.n_images} images, {found})"

    def iou(self, layer: str) -> Tensor:
        """The IoU of every unit and concept, ``(K, C)``, double, in [0, 1]; 0 if the
        union is empty.

        Args:
            layer (str): Name of the layer.

        Raises:
            ValueError: There is no such layer.
        """
        counts = self._layer(layer)
        union = counts.areas[:, self._vocabulary.category] + self.concept_areas
        union = union - counts.intersections
        return counts.intersections.double() / union.clamp(min=1)

    def best(self, layer: str) -> tuple[Tensor, Tensor]:
        """The largest IoU of each unit, in [0, 1], and the index of its concept in
        ``concepts``, int64, ``(K,)`` each.

        Args:
            layer (str): Name of the layer.

        Raises:
            ValueError: There is no such layer.
        """
        iou = self.iou(layer)
        return iou.amax(dim=1), iou.argmax(dim=1)

    def detectors(self, layer: str) -> Tensor:
        """bool ``(K,)``: whether the unit's largest IoU is above ``min_iou``.

        Args:
            layer (str): Name of the layer.

        Raises:
            ValueError: There is no such layer.
        """
        return self.best(layer)[0] > self.min_iou

    def table(self) -> list[dict[str, Any]]:
        """One row for each unit, ready for ``csv.DictWriter`` or ``pandas.DataFrame``.

        Returns:
            *list[dict]*: ``layer``, ``unit``, ``concept`` and ``category`` with the
            largest IoU (both empty if all IoU are 0), ``iou``, ``threshold``,
            ``coverage`` (the fraction of all pixels in the unit's mask) and
            ``detector`` (whether it is one).
        """
        rows = []
        for name, layer in self.layers.items():
            values, indices = self.best(name)
            columns = zip(
                values.tolist(),
                indices.tolist(),
                layer.thresholds.tolist(),
                (layer.total.double() / max(self.n_pixels, 1)).tolist(),
                strict=True,
            )
            for unit, (iou, index, threshold, coverage) in enumerate(columns):
                concept = self.concepts[index] if iou > 0 else None
                rows.append(
                    {
                        "layer": name,
                        "unit": unit,
                        "concept": "" if concept is None else concept.name,
                        "category": "" if concept is None else concept.category,
                        "iou": iou,
                        "threshold": threshold,
                        "coverage": coverage,
                        "detector": iou > self.min_iou,
                    }
                )
        return rows

    def concept_table(self) -> list[dict[str, Any]]:
        """One row for each concept.

        The mask of a unit covers about the fraction ``quantile`` of all pixels, so it
        cannot fill a large concept. A concept is out of reach if a mask that is
        entirely inside it has an IoU of at most ``min_iou``.

        Returns:
            *list[dict]*: ``category``, ``number``, ``concept``, ``coverage`` (the
            fraction of the pixels of images annotated for its category),
            ``reachable_iou`` (about the largest possible IoU of a unit) and
            ``out_of_reach``.
        """
        pixels = self.category_pixels[self._vocabulary.category].clamp(min=1).double()
        areas = self.concept_areas.double()
        reachable = (self.quantile * self.n_pixels / areas.clamp(min=1)).clamp(max=1)
        columns = zip(
            self.concepts,
            (areas / pixels).tolist(),
            torch.where(areas > 0, reachable, 0).tolist(),
            strict=True,
        )
        return [
            {
                "category": concept.category,
                "number": concept.number,
                "concept": concept.name,
                "coverage": coverage,
                "reachable_iou": iou,
                "out_of_reach": iou <= self.min_iou,
            }
            for concept, coverage, iou in columns
        ]

    def summary(self) -> list[dict[str, Any]]:
        """One record for each layer.

        Returns:
            *list[dict]*: ``layer``; the numbers of ``units``, ``detectors`` and
            ``unique_concepts`` that are detected; ``exact_thresholds`` (whether they
            are); and, for each category, ``<category>_detectors`` and
            ``<category>_concepts``, the numbers of detectors and of different concepts.
        """
        records = []
        detecting = [row for row in self.table() if row["detector"]]
        for name, layer in self.layers.items():
            found = [row for row in detecting if row["layer"] == name]
            record: dict[str, Any] = {
                "layer": name,
                "units": len(layer.total),
                "detectors": len(found),
                "unique_concepts": len({(r["category"], r["concept"]) for r in found}),
                "exact_thresholds": layer.exact,
            }
            for category in self.categories:
                concepts = [r["concept"] for r in found if r["category"] == category]
                record[f"{category}_detectors"] = len(concepts)
                record[f"{category}_concepts"] = len(set(concepts))
            records.append(record)
        return records

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes :meth:`table` as CSV, atomically. Makes the folder if necessary.

        Args:
            path (str or Path): The file.
        """
        with atomic_path(path) as partial:
            write_csv(partial, self.table())

    def to_json(
        self,
        path: str | os.PathLike[str],
        *,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the summary, the units, the concepts, and a manifest of versions and
        settings as JSON, atomically. Makes the folder if necessary.

        Args:
            path (str or Path): The file.
            settings (mapping, optional): More settings for the manifest. Default: None

        Raises:
            ValueError: A setting has the name of an entry of the manifest.
        """
        own = {name: getattr(self, name) for name in SETTINGS}
        content = {
            "manifest": manifest(own, settings),
            "layers": self.summary(),
            "concepts": self.concept_table(),
            "units": self.table(),
        }
        with atomic_path(path) as partial:
            write_json(partial, content)

    def plot(self, layers: Sequence[str] | None = None, **options: Any) -> Figure:
        """A bar chart of detectors by concept; see
        :func:`captum_pse.visualization.plot_detectors`.

        Args:
            layers (sequence of str, optional): Names of the layers to draw; None draws
                all. Default: None
            **options: Passed to that function.

        Raises:
            ValueError: There is no such layer.
        """
        from captum_pse.dissection.figure import plot_detectors

        return plot_detectors(self, layers, **options)

    _FORMAT = "captum_pse.Dissection/1"

    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            "concept_areas": self.concept_areas,
            "category_pixels": self.category_pixels,
        }
        for i, layer in enumerate(self.layers.values()):
            tensors |= {f"layers.{i}.{name}": getattr(layer, name) for name in _COUNTS}
        settings = {
            "concepts": self.concepts,
            "layers": [[name, layer.exact] for name, layer in self.layers.items()],
            **{name: getattr(self, name) for name in SETTINGS},
        }
        return tensors, settings

    @classmethod
    def _of_contents(
        cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Dissection:
        return cls(
            concepts=tuple(Concept(*concept) for concept in settings["concepts"]),
            layers={
                layer: LayerOverlaps(
                    exact=exact,
                    **{name: tensors[f"layers.{i}.{name}"] for name in _COUNTS},
                )
                for i, (layer, exact) in enumerate(settings["layers"])
            },
            concept_areas=tensors["concept_areas"],
            category_pixels=tensors["category_pixels"],
            **{name: settings[name] for name in SETTINGS},
        )

    def _layer(self, name: str) -> LayerOverlaps:
        if name not in self.layers:
            raise ValueError(
                f"layer: got {name!r}, want one of {', '.join(self.layers)}"
            )
        return self.layers[name]


_COUNTS = ("thresholds", "intersections", "areas", "total", "peaks", "images")
SETTINGS = ("n_pixels", "n_images", "quantile", "min_iou")
