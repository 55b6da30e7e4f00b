"""What the study found, as it is written and read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from captum_pse._io.saved import check_format, renamed
from captum_pse.studies.tables import Row, Tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The figures that are of all attacks.
OfAll: TypeAlias = Literal["types", "refinement", "interpretability"]

#: Those that a study always has, and that are looked at here.
_TABLES = {
    "attacks",
    "correlation",
    "findings",
    "interpretability",
    "refinement",
    "types",
}

#: Of the manifest, checked when it is read.
FORMAT = "captum_pse.Study/2"
_OLDER = "captum_pse.Study/1"
#: Names that were others in the older format.
_RENAMED = {
    "fresh(_.+)?": r"adaptive\1",
    "baseline(_low|_high)?": r"expected\1",
    "smallest(_by_.+)?": r"smallest_fraction\1",
    "batch": "batch_size",
}


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """What the study found, as tables: lists of dicts, one a row.

    Made by :func:`captum_pse.study`, which also writes it to ``study.json``; None
    stands for a number that does not exist, as an interval of too few pairs, or is
    infinite.

    Attributes:
        tables (dict[str, list[dict]]): By the name of the file; see
            :func:`captum_pse.study`.
        manifest (dict): Versions, seed, settings and digests of what came in.

    Examples::

        >>> import tempfile
        >>> from captum_pse import study
        >>> from captum_pse.demo import load_model, make_pairs
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = study(
        ...         load_model(), {"pgd": make_pairs(1)}, out, cell=32, adaptive_steps=1
        ...     )
        ...     again = Study.load(out)
        >>> again.tables == found.tables, again.manifest == found.manifest
        (True, True)
        >>> {row["verdict"] for row in found.summary()}  # too few
        {'cannot be told'}
    """

    tables: Tables
    manifest: Row

    @classmethod
    def load(cls, out: str | Path) -> Study:
        """Reads what :func:`captum_pse.study` wrote into a folder.

        Raises:
            FileNotFoundError: It holds no ``study.json``.
            ValueError: That is damaged, or of another format, which the message says.
        """
        path = Path(out) / "study.json"
        if not path.is_file():
            raise FileNotFoundError(f"out: there is no file {path}")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            manifest = found["manifest"]
            if isinstance(manifest, dict) and manifest.get("format") == _OLDER:
                found = renamed(found, _RENAMED)
                found["manifest"]["format"] = FORMAT
            study = cls(found["tables"], found["manifest"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"out: {path} is damaged ({error})") from error
        check_format("out", path, study.manifest, FORMAT)
        if missing := _TABLES - study.tables.keys():
            raise ValueError(f"out: {path} lacks the table {min(missing)!r}")
        return study

    def __repr__(self) -> str:
        attacks = [row["attack"] for row in self.tables["attacks"]]
        return f"Study({', '.join(map(repr, attacks))})"

    def summary(self) -> list[dict[str, Any]]:
        """The findings: one row for each, with its verdict."""
        return self.tables["findings"]

    def plot(self, name: OfAll) -> Figure:
        """One of the figures that are of all attacks.

        Args:
            name (str): ``"types"``, ``"refinement"`` or ``"interpretability"``.

        Raises:
            ValueError: There is no such figure.
        """
        from captum_pse.studies.figure import (
            plot_interpretability,
            plot_refinement_curves,
            plot_types,
        )

        tables = self.tables
        if name == "types":
            return plot_types(tables["types"])
        if name == "refinement":
            return plot_refinement_curves(tables["refinement"])
        if name == "interpretability":
            return plot_interpretability(
                tables["interpretability"], tables["correlation"]
            )
        raise ValueError(
            f"name: got {name!r}, want 'types', 'refinement' or 'interpretability'"
        )
