"""Dissects layers over a concept set and writes the results into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from captum_pse._io.distributed import barrier, rank_and_size
from captum_pse._io.files import atomic_results, write_csv
from captum_pse._io.manifest import checked_settings, versions
from captum_pse._io.text import file_name
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.network_dissection import (
    MIN_IOU,
    QUANTILE,
    NetworkDissection,
)
from captum_pse.dissection.result import SETTINGS, Dissection

#: The folder of partial results, inside the folder of the results.
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
    """Dissects layers over a concept set and writes the results into a folder.

    The results are written together at the end:

    - ``units.csv``: one row for each unit
    - ``concepts.csv``: one row for each concept
    - ``dissection.json`` and ``dissection.safetensors``
    - ``detectors.png``
    - ``units-<layer>.png``: the images that activate the best detectors most

    An interrupted run resumes when the same call is repeated (partial results in a
    hidden folder inside ``out``); see :meth:`NetworkDissection.dissect`. Under
    ``torchrun`` the processes share the work, and the first one writes the results.

    Args:
        model (nn.Module): The model, which takes the images of ``dataset`` as they are.
            It is moved to ``device``.
        dataset (ConceptDataset): The concepts.
        layers (sequence of str): Names of the layers.
        out (str or Path): The folder of the results, created if it is missing.
        quantile (float, optional): See :class:`NetworkDissection`. Default: 0.005
        min_iou (float, optional): See :class:`NetworkDissection`. Default: 0.04
        batch_size (int, optional): Images in one forward pass. Default: 16
        device (str, optional): Device to compute on. Default: ``"cpu"``
        settings (mapping, optional): More settings to write down in
            ``dissection.json``. Default: None
        show_progress (bool, optional): Whether to show progress bars. Default: False

    Returns:
        *Dissection*: The result.

    Raises:
        TypeError, ValueError: As :meth:`NetworkDissection.dissect`, or a setting has
            the name of one that the result writes down itself.
    """
    from captum_pse.dissection.figure import plot_detectors, plot_units

    method = NetworkDissection(
        model.to(device), layers, quantile=quantile, min_iou=min_iou
    )
    # Wrong settings raise before the work starts.
    checked_settings(settings, [*versions(), *SETTINGS])
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
            plot_detectors(result).save(folder / "detectors.png")
            for layer in result.layers:
                figure = plot_units(method, result, dataset, layer)
                figure.save(folder / f"units-{file_name(layer)}.png")
        shutil.rmtree(partial, ignore_errors=True)
    barrier()
    return result
