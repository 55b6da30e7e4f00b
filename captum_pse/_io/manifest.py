"""The manifest of a result: versions and settings."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def checked_settings(
    settings: Mapping[str, Any] | None, own: Iterable[str]
) -> dict[str, Any]:
    """The caller's settings, checked against the names of a result's own settings.

    Values without a JSON type, such as paths, become text.

    Args:
        settings (mapping, optional): The caller's settings.
        own (iterable of str): The names of the result's own settings.

    Raises:
        ValueError: A name is already one of the result's own.
    """
    found: dict[str, Any] = json.loads(json.dumps(dict(settings or {}), default=str))
    if taken := sorted(found.keys() & set(own)):
        raise ValueError(
            f"settings: got {taken[0]!r}, want other names than those of the result's "
            f"own settings: {', '.join(sorted(own))}"
        )
    return found


def manifest(
    own: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The versions, a result's own settings and the caller's, checked to differ in
    their names; see :func:`checked_settings`."""
    first = {**versions(), **own}
    return first | checked_settings(settings, first)


def package_version() -> str:
    """The version of this package; ``"unknown"`` if it is not installed."""
    try:
        return version("captum-pse")
    except PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import captum
    import torch

    return {
        "captum_pse": package_version(),
        "captum": captum.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
