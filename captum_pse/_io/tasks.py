"""Independent tasks, distributed over processes and resumable."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from captum_pse._io.distributed import alone, barrier, rank_and_size
from captum_pse._io.files import atomic_path

Record = dict[str, Any]


def run_tasks(
    tasks: Mapping[str, Callable[[], Record]],
    folder: Path,
    run: str,
    title: str | None = None,
) -> list[Record]:
    """Runs each task once and returns the records, in order.

    A task whose record is already in ``folder`` is skipped. All processes must call
    this with the same tasks; each task runs in one process.

    Args:
        tasks (mapping): From file names to functions that return a record of plain
            JSON. Numbers are read back exactly.
        folder (Path): The folder of the records, one file each, shared by the
            processes.
        run (str): The identity of the run, see
            :func:`captum_pse._io.checkpoint.fingerprint`. Records of another run are
            ignored.
        title (str, optional): The title of a progress bar; None shows none.
            Default: None
    """
    rank, size = rank_and_size()
    names = list(tasks)
    # Shuffled, because heavy tasks stand at regular intervals.
    mine = random.Random(0).sample(names, len(names))[rank::size]  # noqa: S311
    for name in tqdm(mine, title, disable=title is None or rank > 0):
        path = folder / f"{name}.json"
        if _read(path, run) is None:
            with alone():
                record = tasks[name]()
            with atomic_path(path) as partial:
                text = json.dumps({"run": run, "record": record})
                partial.write_text(text, encoding="utf-8")
    barrier()
    records = [_read(folder / f"{name}.json", run) for name in names]
    # No process may end the run and delete the records while another reads them.
    barrier()
    assert all(record is not None for record in records)
    return [record for record in records if record is not None]


def _read(path: Path, run: str) -> Record | None:
    """The record in a file; None if it is absent, damaged or of another run."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found["record"]) if found["run"] == run else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
