"""How results are written to one file and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from captum_pse._files import atomic_path, versions
from captum_pse.groups import Groups
from captum_pse.pair_labels import PairLabels

Result = TypeVar("Result")


def save_result(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
) -> None:
    """Writes tensors and settings to a safetensors file, whole or not at all.

    Args:
        path (str or path): The file; its folder is made where it is missing.
        kind (str): What the file holds, with its version, checked when it is read.
        tensors (mapping): By name.
        settings (mapping): What JSON can hold; the versions are added.
    """
    from safetensors.torch import save_file

    manifest = {"format": kind, **versions(), **settings}
    # Tensors that share memory cannot be written: clone() gives each its own.
    whole = {name: x.detach().clone().contiguous() for name, x in tensors.items()}
    with atomic_path(path) as partial:
        save_file(whole, partial, metadata={"manifest": json.dumps(manifest)})


def load_result(
    path: str | os.PathLike[str],
    kind: str,
    build: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Result],
) -> Result:
    """What ``build`` makes of the tensors and settings that :func:`save_result` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of that kind, lacks something, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            manifest = json.loads((file.metadata() or {}).get("manifest", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"path: {path} is no file of save() ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise ValueError(f"path: {path} is no file of save() in format {kind!r}")
    try:
        return build(tensors, manifest)
    except KeyError as error:
        raise ValueError(f"path: {path} lacks {error}") from error


def pair_tensors(
    inputs: tuple[Tensor, ...], baselines: tuple[Tensor, ...], labels: PairLabels
) -> dict[str, Tensor]:
    """What every result says of its pair, by name; see :func:`pair_of_tensors`."""
    of_labels = {f"labels.{name}": x for name, x in vars(labels).items()}
    return _number("inputs", inputs) | _number("baselines", baselines) | of_labels


def pair_of_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of :func:`pair_tensors`, as arguments of a result."""
    return {
        "inputs": _numbered(tensors, "inputs"),
        "baselines": _numbered(tensors, "baselines"),
        "labels": PairLabels.of_tensors(tensors, "labels."),
    }


def groups_tensors(groups: Groups) -> dict[str, Tensor]:
    """The groups of a result, by name; see :func:`groups_of_tensors`."""
    return {"groups.ids": groups.ids, **_number("groups.index", groups.index)}


def groups_of_tensors(tensors: Mapping[str, Tensor]) -> Groups:
    """The inverse of :func:`groups_tensors`."""
    return Groups(tensors["groups.ids"], _numbered(tensors, "groups.index"))


def _number(prefix: str, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Tensors by the names ``prefix.0``, ``prefix.1``, ..."""
    return {f"{prefix}.{i}": x for i, x in enumerate(tensors)}


def _numbered(tensors: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, ...]:
    """The inverse of :func:`_number`."""
    n = sum(name.startswith(f"{prefix}.") for name in tensors)
    return tuple(tensors[f"{prefix}.{i}"] for i in range(n))
