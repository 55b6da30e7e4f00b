"""How results are written to one file and read back."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from captum_pse._io.files import atomic_path
from captum_pse._io.manifest import versions

Saved = TypeVar("Saved", bound="SavedResult")


class SavedResult(ABC):
    """A result that writes itself to one file and reads itself back."""

    #: What the file holds, with its version; checked when it is read.
    _FORMAT: ClassVar[str]
    #: Older formats that can still be read.
    _OLDER: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _contents(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors by name, and the settings, which JSON can hold."""

    @classmethod
    @abstractmethod
    def _of_contents(
        cls: type[Saved], tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Saved:
        """The inverse of :meth:`_contents`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything to one safetensors file, whole or not at all.

        The file's metadata hold the versions and settings as JSON. The folder is made
        where it is missing.

        Args:
            path (str or Path): The file; any ending.

        Raises:
            OSError: It cannot be written.
        """
        from safetensors.torch import save_file

        tensors, settings = self._contents()
        manifest = {"format": self._FORMAT, **versions(), **settings}
        # Tensors that share memory cannot be written: clone() gives each its own.
        whole = {name: x.detach().clone().contiguous() for name, x in tensors.items()}
        with atomic_path(path) as partial:
            save_file(whole, partial, metadata={"manifest": json.dumps(manifest)})

    @classmethod
    def load(cls: type[Saved], path: str | os.PathLike[str]) -> Saved:
        """Reads what :meth:`save` wrote.

        Args:
            path (str or Path): The file.

        Returns:
            *The class*: With the same numbers, on the CPU.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a file of :meth:`save`, it is of another result or
                format, which the message says, or it is damaged.
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
        check_format("path", path, manifest, cls._FORMAT, *cls._OLDER)
        try:
            return cls._of_contents(tensors, manifest)
        except KeyError as error:
            raise ValueError(f"path: {path} lacks {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"path: {path} is damaged ({error})") from error


def check_format(name: str, path: Any, manifest: Any, wanted: str, *older: str) -> None:
    """Raises ValueError for a manifest of another format, and says which."""
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found is None:
        raise ValueError(f"{name}: {path} is no file of captum_pse")
    if found not in (wanted, *older):
        raise ValueError(
            f"{name}: {path} is in the format {found}, of captum_pse "
            f"{manifest.get('captum_pse')}, want {wanted}"
        )


def renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """A structure of dicts and lists with other keys, for files of older formats.

    Args:
        tree (Any): Plain JSON.
        names (mapping): By a regular expression that matches the whole old key, the new
            one, as for ``re.sub``.
    """
    if isinstance(tree, Mapping):
        found = {}
        for key, value in tree.items():
            for old, new in names.items():
                key, n = re.subn(rf"^(?:{old})$", new, key)
                if n:
                    break
            found[key] = renamed(value, names)
        return found
    if isinstance(tree, list):
        return [renamed(item, names) for item in tree]
    return tree


def number(prefix: str, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Tensors by the names ``prefix.0``, ``prefix.1``, ..."""
    return {f"{prefix}.{i}": x for i, x in enumerate(tensors)}


def numbered(tensors: Mapping[str, Tensor], prefix: str) -> tuple[Tensor, ...]:
    """The inverse of :func:`number`."""
    n = sum(name.startswith(f"{prefix}.") for name in tensors)
    return tuple(tensors[f"{prefix}.{i}"] for i in range(n))
