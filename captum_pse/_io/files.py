"""Files and folders that are either whole or as before."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block succeeds.

    The folder is made where it is missing. When the block raises, ``path`` is as before
    and the temporary file is gone.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=final.parent) as folder:
        partial = Path(folder) / final.name
        yield partial
        partial.replace(final)


@contextmanager
def atomic_results(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder whose contents move into ``folder`` when the block succeeds.

    They replace what has the same name there, folders as a whole; anything else stays.
    When the block raises, ``folder`` is as before, or absent as before.
    """
    final = Path(folder)
    is_new = not final.exists()
    if not is_new and not final.is_dir():
        raise NotADirectoryError(f"out: got {final}, a file, want a folder")
    final.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=final) as temporary:
            yield Path(temporary)
            for made in sorted(Path(temporary).iterdir()):
                if (final / made.name).is_dir():
                    shutil.rmtree(final / made.name)
                made.replace(final / made.name)
    except BaseException:
        # Not empty where it was interrupted as the results moved in.
        if is_new and not any(final.iterdir()):
            final.rmdir()
        raise


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of the same columns, at least one, under a line of their names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON; see :func:`plain`."""
    text = json.dumps(plain(value), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """What JSON can hold: None for NaN and the infinite."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
