"""What a result writes down beside its numbers: versions and settings."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any


def told(settings: Mapping[str, Any] | None, own: Iterable[str]) -> dict[str, Any]:
    """The caller's settings, to write down beside a result's own.

    What JSON has no type for, paths, say, becomes text.

    Args:
        settings (mapping, optional): The caller's.
        own (iterable of str): The names of the result's.

    Raises:
        ValueError: One has the name of another.
    """
    found: dict[str, Any] = json.loads(json.dumps(dict(settings or {}), default=str))
    if taken := sorted(found.keys() & set(own)):
        raise ValueError(
            f"settings: got {taken[0]!r}, want other names than those that the result "
            f"writes down itself: {', '.join(sorted(own))}"
        )
    return found


def manifest(
    own: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The versions, a result's own settings, and the caller's; see :func:`told`."""
    first = {**versions(), **own}
    return first | told(settings, first)


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import captum
    import torch

    return {
        "captum_pse": version("captum-pse"),
        "captum": captum.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
