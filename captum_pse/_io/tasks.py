"""Independent tasks, distributed over processes and resumable."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from captum_pse._io.checked import read_values, with_digest
from captum_pse._io.checkpoint import warn_damaged
from captum_pse._io.distributed import alone, barrier, rank_and_size
from captum_pse._io.files import atomic_path

Key = TypeVar("Key", bound=Hashable)
Record = dict[str, Any]


def run_tasks(
    tasks: Mapping[Key, Callable[[], Record]],
    folder: Path,
    run: str,
    title: str | None = None,
) -> dict[Key, Record]:
    """Runs each task once and returns the records, in order.

    A task whose record is already in ``folder`` is skipped. All processes must call
    this with the same tasks; each task runs in one process.

    Args:
        tasks (mapping): Functions that return a record of plain JSON, by the keys that
            identify them: text, or tuples of text and integers. Numbers are read back
            exactly.
        folder (Path): The folder of the records, shared by the processes: one file for
            each, numbered in the order of ``tasks``.
        run (str): The digest of all that the records depend on. Records of another run
            are ignored; those that were damaged, edited or moved, with a warning.
        title (str, optional): The title of a progress bar; None shows none.
            Default: None

    Raises:
        ValueError: A record is gone or of another run when all tasks are done:
            another run uses the folder, or a process has other inputs.
    """
    rank, size = rank_and_size()
    files = {
        key: _File(folder / f"{i:05d}.json", run, [folder.name, key])
        for i, key in enumerate(tasks)
    }
    # Shuffled, because heavy tasks stand at regular intervals.
    mine = random.Random(0).sample([*tasks], len(tasks))[rank::size]  # noqa: S311
    for key in tqdm(mine, title, disable=title is None or rank > 0):
        if files[key].read() is None:
            with alone():
                files[key].write(tasks[key]())
    barrier()
    records = {key: file.read() for key, file in files.items()}
    # No process may end the run and delete the records while another reads them.
    barrier()
    found = {key: record for key, record in records.items() if record is not None}
    if len(found) < len(tasks):
        raise ValueError(
            f"out: got {len(tasks) - len(found)} partial results in {folder} that are "
            "gone or of another run, want one run at a time in a folder, and the same "
            "inputs in every process"
        )
    return found


class _File:
    """The file of one record, which says of which run and task it is."""

    def __init__(self, path: Path, run: str, task: list[Any]) -> None:
        self._path = path
        self._run = run
        self._task = json.loads(json.dumps(task))

    def write(self, record: Record) -> None:
        values = {"run": self._run, "task": self._task, "record": record}
        with atomic_path(self._path) as partial:
            partial.write_text(json.dumps(with_digest(values)), encoding="utf-8")

    def read(self) -> Record | None:
        """The record; None if it is absent, of another run, or, with a warning,
        damaged or of another task."""
        try:
            found, is_intact = read_values(self._path)
        except FileNotFoundError:
            return None
        except ValueError:
            found, is_intact = {}, None
        if is_intact and found["run"] != self._run:
            return None
        if not is_intact or found["task"] != self._task:
            warn_damaged(self._path)
            return None
        return dict(found["record"])
