"""Dissects layers over a concept set and writes what it finds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from captum_pse._io.distributed import barrier, rank_and_size
from captum_pse._io.files import atomic_results, write_csv
from captum_pse._io.manifest import told, versions
from captum_pse._io.text import file_name
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.network_dissection import (
    MIN_IOU,
    QUANTILE,
    NetworkDissection,
)
from captum_pse.dissection.result import SETTINGS, Dissection

#: The folder of partial results, inside that of the results.
PARTIAL = ".dissection-partial"


def dissect_layers(
    model: nn.Module,
    dataset: ConceptDataset,
    layers: Sequence[str],
    out: str | Path,
    *,
    quantile: float = QUANTILE,
    min_iou: float = MIN_IOU,
    batch_size: int = 16,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> Dissection:
    """Dissects layers and puts into ``out``, all at once when all is done:
    ``units.csv``, one row a unit; ``concepts.csv``, one row a concept;
    ``dissection.json`` and ``dissection.safetensors``; ``detectors.png``; and
    ``units-<layer>.png``, the images that the best detectors answer most.

    A killed run leaves partial results in a hidden folder there, from which the same
    call goes on. Under ``torchrun``, the first process writes.

    Args:
        model (nn.Module): Takes the images as they are; moved to ``device``.
        dataset (ConceptDataset): The concepts.
        layers (sequence of str): Names of the layers.
        out (str or Path): The folder, made where it is missing.
        quantile (float, optional): See :class:`NetworkDissection`.
        min_iou (float, optional): Likewise.
        batch_size (int, optional): How many images one pass holds. Default: 16
        device (str, optional): Where to compute. Default: ``"cpu"``
        settings (mapping, optional): More to write down. Default: None
        show_progress (bool, optional): Whether to show progress bars. Default: False

    Raises:
        TypeError, ValueError: As :meth:`NetworkDissection.dissect`.
    """
    from captum_pse.dissection.figure import plot_detectors, plot_units

    method = NetworkDissection(
        model.to(device), layers, quantile=quantile, min_iou=min_iou
    )
    # Before the work: are they fit to be written down?
    told(settings, [*versions(), *SETTINGS])
    partial = Path(out) / PARTIAL
    result = method.dissect(
        dataset,
        batch_size=batch_size,
        device=device,
        checkpoints=partial,
        show_progress=show_progress,
    )
    if rank_and_size()[0] == 0:
        with atomic_results(out) as folder:
            result.to_csv(folder / "units.csv")
            write_csv(folder / "concepts.csv", result.concept_table())
            result.to_json(folder / "dissection.json", settings=settings)
            result.save(folder / "dissection.safetensors")
            plot_detectors(result).savefig(folder / "detectors.png", dpi=110)
            for layer in result.layers:
                figure = plot_units(method, result, dataset, layer)
                figure.savefig(folder / f"units-{file_name(layer)}.png", dpi=110)
        shutil.rmtree(partial)
    barrier()
    return result
