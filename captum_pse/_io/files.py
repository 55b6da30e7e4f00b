"""Files and folders that are written completely or left as before."""

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
    """A temporary path beside ``path``; replaces ``path`` when the block succeeds.

    The folder is created if missing. If the block raises, ``path`` is left as before
    and the temporary file is deleted.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=final.parent) as folder:
        partial = Path(folder) / final.name
        yield partial
        partial.replace(final)


@contextmanager
def atomic_results(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder; its contents move into ``folder`` when the block succeeds.

    A file or folder there is replaced by one of the same name; everything else stays.
    If the block raises, ``folder`` is left as before, or absent as before.
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
        # The folder is not empty if the interruption came while results moved in.
        if is_new and not any(final.iterdir()):
            final.rmdir()
        raise


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes at least one row, all with the same columns, below a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, with null for NaN and infinity; see :func:`plain`."""
    text = json.dumps(plain(value), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
