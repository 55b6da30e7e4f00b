"""Work in independent pieces: shared among processes, kept, and gone on with."""

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
    """The record of each task, in order; those that ``folder`` holds are not redone.

    Every process has to call it with the same tasks, each of which one process does.

    Args:
        tasks (mapping): By the name of its file, what makes the record: plain JSON,
            whose numbers are read back as they were.
        folder (Path): Of the records, one file each; shared by the processes.
        run (str): What the tasks are of, see
            :func:`captum_pse._io.checkpoint.fingerprint`: records of another run are of
            no use.
        title (str, optional): Of a progress bar; None shows none.
    """
    rank, size = rank_and_size()
    names = list(tasks)
    # Shuffled, because heavy tasks come at regular distances.
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
    # No process may end the run, and delete the records, while another one reads them.
    barrier()
    assert all(record is not None for record in records)
    return [record for record in records if record is not None]


def _read(path: Path, run: str) -> Record | None:
    """The record in a file; None where it is absent, damaged or of another run."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found["record"]) if found["run"] == run else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
