"""Partial results of a long run, from which an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_pse._io.files import atomic_path

State = dict[str, Tensor]


class Checkpoint:
    """A file with the state of one process after a number of batches.

    Args:
        path (Path, optional): The file; None writes no file.
        run (str): The identity of the run, see :func:`fingerprint`. A file of another
            run is ignored and replaced.

    Attributes:
        every (float): Least time between two states, in seconds.
    """

    every = 30.0

    def __init__(self, path: Path | None, run: str) -> None:
        self._path = path
        self._run = run
        self._last = time.monotonic()

    def load(self) -> tuple[int, State] | None:
        """The number of batches done, with the state after them; None if the file is
        absent, damaged, or of another run."""
        from safetensors import SafetensorError, safe_open

        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("run") != self._run:
                    return None
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            return None
        return int(metadata["batches"]), state

    def save(
        self, batches: int, state: Callable[[], State], *, now: bool = False
    ) -> None:
        """Writes the state if ``every`` seconds have passed since the last one.

        Args:
            batches (int): The number of batches done.
            state (Callable): Returns the state; called only to write it.
            now (bool, optional): Whether to write it at once. Default: False
        """
        from safetensors.torch import save_file

        due = now or time.monotonic() - self._last >= self.every
        if self._path is None or not due:
            return
        with atomic_path(self._path) as partial:
            save_file(
                {name: x.contiguous() for name, x in state().items()},
                partial,
                metadata={"run": self._run, "batches": str(batches)},
            )
        self._last = time.monotonic()


def fingerprint(settings: Mapping[str, Any], tensors: Iterable[Tensor]) -> str:
    """A digest of the settings and tensors that a run starts from."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode())
    for x in tensors:
        raw = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{tuple(x.shape)} {x.dtype}".encode())
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()
