"""The result of the study, and how it is read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from captum_pse._io.checked import check_intact, read_values
from captum_pse._io.saved import check_format, renamed
from captum_pse._model.checks import check_choice
from captum_pse.studies.findings import INCONCLUSIVE
from captum_pse.studies.tables import Row, Tables

if TYPE_CHECKING:
    from captum_pse._drawing.figure import Figure

#: The figures that show all attacks.
FigureName: TypeAlias = Literal["types", "refinement", "interpretability"]

#: Tables that a file of a study must hold.
_TABLES = {
    "attacks",
    "correlation",
    "findings",
    "interpretability",
    "refinement",
    "types",
}

#: The format in the manifest, checked when a file is read.
FORMAT = "captum_pse.Study/3"
#: Before the findings said why they are inconclusive.
_WITHOUT_WHY = "captum_pse.Study/2"
_OLDEST = "captum_pse.Study/1"
#: The names of today, by patterns of the names in the oldest format.
_RENAMED = {
    "fresh(_.+)?": r"adaptive\1",
    "baseline(_low|_high)?": r"expected\1",
    "smallest(_by_.+)?": r"smallest_fraction\1",
    "batch": "batch_size",
}
#: The verdict of the oldest format that has another name today.
_OLDEST_INCONCLUSIVE = "cannot be told"


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """The result of :func:`captum_pse.study`, which also writes it to ``study.json``.

    A table is a list of dicts, one for each row. None stands for a number that is
    infinite or does not exist, such as the interval of too few pairs.

    Attributes:
        tables (dict[str, list[dict]]): The tables by name; see
            :func:`captum_pse.study`.
        manifest (dict): Versions, settings, and digests of the inputs.

    Examples::

        >>> import tempfile
        >>> from captum_pse import study
        >>> from captum_pse.demo import load_model, make_pairs
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = study(
        ...         load_model(), {"pgd": make_pairs(1)}, out, cell=32,
        ...         adaptive_steps=1, random_sets=9,
        ...     )
        ...     again = Study.load(out)
        >>> again.tables == found.tables, again.manifest == found.manifest
        (True, True)
        >>> {row["verdict"] for row in found.summary()}  # one pair is too few
        {'inconclusive'}
    """

    tables: Tables
    manifest: Row

    @classmethod
    def load(cls, out: str | Path) -> Study:
        """Reads the result from a folder that :func:`captum_pse.study` wrote.

        Files of older versions have no digest and are read without that check.

        Args:
            out (str or Path): The folder.

        Raises:
            FileNotFoundError: The folder holds no ``study.json``.
            ValueError: The file is damaged (its content does not match its digest) or
                has another format, which the message states.
        """
        path = Path(out) / "study.json"
        if not path.is_file():
            raise FileNotFoundError(f"out: there is no file {path}")
        try:
            found, is_intact = read_values(path)
            for older, newer in ((_OLDEST, _of_oldest), (_WITHOUT_WHY, _with_why)):
                manifest = found["manifest"]
                if isinstance(manifest, dict) and manifest.get("format") == older:
                    found = newer(found)
            study = cls(found["tables"], found["manifest"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"out: {path} is damaged ({error})") from error
        check_format("out", path, study.manifest, FORMAT)
        check_intact("out", path, is_intact)
        if missing := _TABLES - study.tables.keys():
            raise ValueError(f"out: {path} lacks the table {min(missing)!r}")
        return study

    def __repr__(self) -> str:
        attacks = [row["attack"] for row in self.tables["attacks"]]
        return f"Study({', '.join(map(repr, attacks))})"

    def summary(self) -> list[dict[str, Any]]:
        """The findings with their verdicts, one row for each finding and attack."""
        return self.tables["findings"]

    def plot(self, name: FigureName) -> Figure:
        """Draws one of the figures that show all attacks.

        Args:
            name (str): ``"types"``, ``"refinement"`` or ``"interpretability"``.

        Returns:
            *Figure*: The figure.

        Raises:
            ValueError: There is no such figure.
        """
        from captum_pse.studies.figure import (
            plot_interpretability,
            plot_refinement_curves,
            plot_types,
        )

        check_choice("name", name, get_args(FigureName))
        tables = self.tables
        if name == "types":
            return plot_types(tables["types"])
        if name == "refinement":
            return plot_refinement_curves(tables["refinement"])
        return plot_interpretability(tables["interpretability"], tables["correlation"])


def _of_oldest(found: Mapping[str, Any]) -> dict[str, Any]:
    """A study of the oldest format, with the names of the next one."""
    manifest = {**renamed(found["manifest"], _RENAMED), "format": _WITHOUT_WHY}
    tables = {
        name: [renamed(row, _RENAMED) for row in rows]
        for name, rows in renamed(found["tables"], _RENAMED).items()
    }
    for row in tables["findings"]:
        if row["verdict"] == _OLDEST_INCONCLUSIVE:
            row["verdict"] = INCONCLUSIVE
    return {"manifest": manifest, "tables": tables}


def _with_why(found: Mapping[str, Any]) -> dict[str, Any]:
    """A study of the format before, which ranked no scores among shifts and gave no
    reasons for its verdicts: None stands for both. Its expected scores and lifts are
    those of random masks of the same area."""
    tables = dict(found["tables"])
    unknown = dict.fromkeys(("rank", "rank_low", "rank_high", "p"))
    tables["interpretability"] = [row | unknown for row in tables["interpretability"]]
    tables["findings"] = [
        row | {"least": None, "why": None} for row in tables["findings"]
    ]
    return {"manifest": {**found["manifest"], "format": FORMAT}, "tables": tables}
