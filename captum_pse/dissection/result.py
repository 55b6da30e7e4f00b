"""What the units of a network detect."""

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
    """The counts of a layer of K units; C concepts, G categories.

    What :class:`captum_pse.Dissection` computes IoU from: masks of units and concepts
    at the resolution of the labels, added up over the images.

    Attributes:
        thresholds (Tensor): ``(K,)``, in activation units, what a unit exceeds at the
            share ``quantile`` of all positions.
        exact (bool): Whether they are exact, or to 0.2 % from a histogram.
        intersections (Tensor): int64 ``(K, C)``, pixels in unit's and concept's masks.
        areas (Tensor): int64 ``(K, G)``, pixels in the unit's mask, over the images
            that carry labels of the category.
        total (Tensor): int64 ``(K,)``, pixels in the unit's mask, over all images.
        peaks, images (Tensor): ``(K, 8)``, the unit's highest activations of different
            images, descending, -inf where there are fewer; and which images those are,
            int64, -1 for none.

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
    r"""Which concepts the units of a network detect.

    Made by :meth:`captum_pse.NetworkDissection.dissect`. With ``M_k`` where the map of
    unit k, upsampled to the masks, exceeds its threshold, and ``L_c`` where concept c
    is,

    .. math::
        \text{IoU}_{k,c} = \frac{\sum |M_k \cap L_c|}{\sum |M_k \cup L_c|}

    over the images that carry labels of c's category. A unit detects the concept with
    the largest IoU, the first of equals, if that is above ``min_iou``. Methods that
    take the name of a layer raise ValueError where it was not dissected.

    Source: Bau et al., "Network Dissection", arXiv:1704.05796.

    Attributes:
        concepts (tuple[Concept, ...]): The vocabulary, in the order that breaks ties.
        layers (dict[str, LayerOverlaps]): By the name of the layer.
        concept_areas (Tensor): int64 ``(C,)``, pixels of each concept.
        category_pixels (Tensor): int64 ``(G,)``, pixels of the images that carry labels
            of each category, in order of first concept.
        n_pixels, n_images (int): Of the whole set.
        quantile, min_iou (float): See :class:`captum_pse.NetworkDissection`.

    Examples::

        >>> import tempfile
        >>> from captum_pse import NetworkDissection
        >>> from captum_pse.demo import load_model
        >>> from captum_pse.demo import SceneConcepts
        >>> method = NetworkDissection(load_model(), ["features.conv5"])
        >>> result = method.dissect(SceneConcepts(24))
        >>> iou, places = result.best("features.conv5")
        >>> unit = int(iou.argmax())
        >>> result.concepts[places[unit]].name
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
        """The G categories, in order of first concept."""
        return self._vocabulary.categories

    def __repr__(self) -> str:
        found = ", ".join(
            f"{name}: {int(self.detectors(name).sum())} of {len(layer.total)} detect"
            for name, layer in self.layers.items()
        )
        return f"Dissection({self.n_images} images, {found})"

    def iou(self, layer: str) -> Tensor:
        """Of every unit with every concept, ``(K, C)``, in [0, 1], double precision; 0
        where neither is anywhere.

        Raises:
            ValueError: There is no such layer.
        """
        counts = self._layer(layer)
        union = counts.areas[:, self._vocabulary.category] + self.concept_areas
        union = union - counts.intersections
        return counts.intersections.double() / union.clamp(min=1)

    def best(self, layer: str) -> tuple[Tensor, Tensor]:
        """The largest IoU of each unit, in [0, 1], and the place of its concept in
        ``concepts``, int64, ``(K,)`` each.

        Raises:
            ValueError: There is no such layer.
        """
        iou = self.iou(layer)
        return iou.amax(dim=1), iou.argmax(dim=1)

    def detectors(self, layer: str) -> Tensor:
        """bool ``(K,)``: the unit's largest IoU is above ``min_iou``.

        Raises:
            ValueError: There is no such layer.
        """
        return self.best(layer)[0] > self.min_iou

    def table(self) -> list[dict[str, Any]]:
        """One row for each unit: layer, unit, concept, category (both empty where the
        unit meets none), IoU, threshold, coverage (the share of all pixels in its mask)
        and whether it is a detector."""
        rows = []
        for name, layer in self.layers.items():
            values, places = self.best(name)
            columns = zip(
                values.tolist(),
                places.tolist(),
                layer.thresholds.tolist(),
                (layer.total.double() / max(self.n_pixels, 1)).tolist(),
                strict=True,
            )
            for unit, (iou, place, threshold, coverage) in enumerate(columns):
                concept = self.concepts[place] if iou > 0 else None
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
        """One row for each concept: its coverage of the images that carry labels of its
        category, and the largest IoU that a unit can reach. A unit's mask has about the
        share ``quantile`` of all pixels, so that it cannot fill a large concept; one is
        out of reach where even a mask that is all inside it makes no detector."""
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
        """One record for each layer: how many units and detectors it has, how many
        different concepts they detect, and detectors and concepts by category."""
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
                mine = [r["concept"] for r in found if r["category"] == category]
                record[f"{category}_detectors"] = len(mine)
                record[f"{category}_concepts"] = len(set(mine))
            records.append(record)
        return records

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes :meth:`table`, whole or not at all. The folder is made where it is
        missing.

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
        """Writes the summary, the units and the concepts with the versions and
        settings, whole or not at all. The folder is made where it is missing.

        Args:
            path (str or Path): The file.
            settings (mapping, optional): More to write down. Default: None

        Raises:
            ValueError: A setting has the name of one that is written anyway.
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
        """Bars of detectors by concept; see
        :func:`captum_pse.visualization.plot_detectors`.

        Args:
            layers (sequence of str, optional): Which layers; None draws all.
                Default: None
            options: ``most``, how many concepts of a layer to draw at most.

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
