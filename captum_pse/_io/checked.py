"""Files that hold a digest of their content.

A file that was damaged or edited does not match its digest. Files of older versions and
of other programs may have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from captum_pse._io.digest import digest

#: Where a file holds its digest: a name that files of other programs do not use.
DIGEST = "captum_pse_digest"


class TensorFile(NamedTuple):
    """What a safetensors file holds.

    Attributes:
        manifest (Any): A dict of plain JSON, in files of :func:`write_tensors`; empty
            if the file has none.
        tensors (dict[str, Tensor]): The tensors by name.
        is_intact (bool, optional): Whether both match the file's digest; None if it has
            none.
    """

    manifest: Any
    tensors: dict[str, Tensor]
    is_intact: bool | None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]
) -> None:
    """Writes a safetensors file with a manifest of plain JSON and a digest of both.

    The tensors are contiguous and share no memory.
    """
    from safetensors.torch import save_file

    text = json.dumps(manifest)
    metadata = {"manifest": text, DIGEST: digest(text, tensors)}
    save_file(dict(tensors), path, metadata)


def read_tensors(path: Path) -> TensorFile:
    """Reads a safetensors file.

    Raises:
        ValueError: It is not one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies, since the tensors are a map of the file, which may be overwritten.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    text, stated = metadata.get("manifest", "{}"), metadata.get(DIGEST)
    is_intact = None if stated is None else stated == digest(text, tensors)
    return TensorFile(json.loads(text), tensors, is_intact)


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON with its digest, to be written as JSON."""
    return {**values, DIGEST: _digest_of_json(json.loads(json.dumps(values)))}


def read_values(path: Path) -> tuple[dict[str, Any], bool | None]:
    """The values of a JSON file without their digest, and whether they match it; None
    if it has none.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or not a mapping.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"holds a {type(found).__name__}, want names with values")
    if DIGEST not in found:
        return found, None
    stated = found.pop(DIGEST)
    return found, stated == _digest_of_json(found)


def check_intact(name: str, path: Any, is_intact: bool | None) -> None:
    """Raises ValueError if the content of a file does not match its digest."""
    if is_intact is False:
        raise ValueError(
            f"{name}: {path} is damaged (its content does not match its digest)"
        )


def _digest_of_json(value: Any) -> str:
    return digest(json.dumps(value, sort_keys=True))
