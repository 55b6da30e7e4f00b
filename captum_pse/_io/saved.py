"""Results in files: one safetensors file for each."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from captum_pse._io.checked import check_intact, read_tensors, write_tensors
from captum_pse._io.digest import digest
from captum_pse._io.files import atomic_path
from captum_pse._io.manifest import versions

Saved = TypeVar("Saved", bound="SavedResult")


class SavedResult(ABC):
    """A result that can be saved to one file and loaded again."""

    #: The name and version of the file format; checked on loading.
    _FORMAT: ClassVar[str]
    #: Older formats that can still be loaded.
    _OLDER: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors by name, and the settings as plain JSON values."""

    @classmethod
    @abstractmethod
    def _of_contents(
        cls: type[Saved], tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Saved:
        """The inverse of :meth:`_contents`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the result to one safetensors file, completely or not at all.

        The file's metadata hold the versions and settings as JSON, and a digest of all
        that the file holds. The folder is created if missing.

        Args:
            path (str or Path): The file, with any ending.

        Raises:
            OSError: The file cannot be written.
        """
        tensors, settings = self._contents()
        manifest = {"format": self._FORMAT, **versions(), **settings}
        # Tensors that share memory cannot be written: clone() gives each its own.
        whole = {name: x.detach().clone().contiguous() for name, x in tensors.items()}
        with atomic_path(path) as partial:
            write_tensors(partial, whole, manifest)

    @classmethod
    def load(cls: type[Saved], path: str | os.PathLike[str]) -> Saved:
        """Reads a file written by :meth:`save`, and checks its digest.

        Files of older versions have no digest and are read without that check.

        Args:
            path (str or Path): The file.

        Returns:
            *The class*: The result, with the same numbers, on the CPU.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file was not written by :meth:`save`, holds another result
                or format, which the message names, or is damaged.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"path: there is no file {path}")
        try:
            manifest, tensors, is_intact = read_tensors(Path(path))
        except ValueError as error:
            raise ValueError(
                f"path: {path} was not written by save() ({error})"
            ) from error
        check_format("path", path, manifest, cls._FORMAT, *cls._OLDER)
        check_intact("path", path, is_intact)
        try:
            return cls._of_contents(tensors, manifest)
        except KeyError as error:
            raise ValueError(f"path: {path} lacks {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"path: {path} is damaged ({error})") from error


def digest_of(result: SavedResult) -> str:
    """The digest of all that ``save`` writes, except the versions."""
    return digest(*result._contents())


def check_format(name: str, path: Any, manifest: Any, wanted: str, *older: str) -> None:
    """Raises ValueError unless a manifest has the wanted format or an older one."""
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found is None:
        raise ValueError(f"{name}: {path} was not written by captum_pse")
    if found not in (wanted, *older):
        raise ValueError(
            f"{name}: {path} has the format {found}, written by captum_pse "
            f"{manifest.get('captum_pse')}, want {wanted}"
        )


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same values by other keys, for files of older formats.

    Args:
        values (mapping): By the old keys.
        names (mapping): From regular expressions, each of which matches an old key
            completely, to new keys, as in ``re.sub``. The first match counts.
    """
    found = {}
    for key, value in dict(values).items():
        for old, new in names.items():
            key, n = re.subn(rf"^(?:{old})$", new, key)
            if n:
                break
        found[key] = value
    return found


def number(prefix: str, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Names tensors ``prefix.0``, ``prefix.1``, ..."""
    return {f"{prefix}.{i}": x for i, x in enumerate(tensors)}


def numbered(tensors: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, ...]:
    """The inverse of :func:`number`."""
    n = sum(name.startswith(f"{prefix}.") for name in tensors)
    return tuple(tensors[f"{prefix}.{i}"] for i in range(n))
