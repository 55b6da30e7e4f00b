"""Partial results of a long run, from which an interrupted run resumes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from captum_pse._io.checked import read_tensors, write_tensors
from captum_pse._io.files import atomic_path

State = dict[str, Tensor]


class Progress(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        batches (int): The number of batches done.
        inputs (str): The digest of these batches.
        state (dict[str, Tensor]): The state after them.
    """

    batches: int
    inputs: str
    state: State


class Checkpoint:
    """A file with the state of one process after a number of batches.

    Args:
        path (Path, optional): The file; None writes no file.
        run (str): The digest of all that the state depends on, except the batches. A
            file of another run is ignored and replaced.

    Attributes:
        every (float): Least time between two states, in seconds.
    """

    every = 30.0

    def __init__(self, path: Path | None, run: str) -> None:
        self._path = path
        self._run = run
        self._last = time.monotonic()

    def load(self) -> Progress | None:
        """The progress so far; None if the file is absent, of another run, or, with a
        warning, damaged.

        The caller compares ``inputs`` with the batches of today.
        """
        if self._path is None or not self._path.is_file():
            return None
        try:
            manifest, state, is_intact = read_tensors(self._path)
        except ValueError:
            is_intact = None
        if not is_intact:
            warn_damaged(self._path)
        elif manifest["run"] == self._run:
            return Progress(manifest["batches"], manifest["inputs"], state)
        return None

    def save(
        self,
        batches: int,
        inputs: str,
        state: Callable[[], State],
        *,
        now: bool = False,
    ) -> None:
        """Writes the state if ``every`` seconds have passed since the last one.

        Args:
            batches (int): The number of batches done.
            inputs (str): The digest of these batches.
            state (Callable): Returns the state; called only to write it.
            now (bool, optional): Whether to write it at once. Default: False
        """
        due = now or time.monotonic() - self._last >= self.every
        if self._path is None or not due:
            return
        tensors = {name: x.contiguous() for name, x in state().items()}
        manifest = {"run": self._run, "batches": batches, "inputs": inputs}
        with atomic_path(self._path) as partial:
            write_tensors(partial, tensors, manifest)
        self._last = time.monotonic()


def warn_damaged(path: Path) -> None:
    """Warns that a file of partial results cannot be used."""
    warnings.warn(
        f"the partial results in {path} are damaged, edited or of an "
        "older version, and computed again",
        stacklevel=3,
    )
