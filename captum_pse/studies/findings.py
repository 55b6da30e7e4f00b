"""The paper's findings, tested on the pairs of each attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from captum_pse._statistics import (
    MIN_PAIRS,
    MIN_UNITS,
    adjusted,
    known,
    mean_test,
    pairs_needed,
    units_needed,
)
from captum_pse.groups.types import TYPE_NAMES
from captum_pse.studies.pair_record import READINGS
from captum_pse.studies.tables import Record, Row, Tables, predictions_match
from captum_pse.units.masking_test import MaskingTest

#: A type of groups occurs if at least this fraction of the groups with an effect above
#: the median is of it.
MIN_FRACTION = 0.05
#: Significance level of the adjusted p-values.
ALPHA = 0.05
HOLDS, FAILS, INCONCLUSIVE = "holds", "does not hold", "inconclusive"

#: The smallest effects that count: of a rank correlation, also that of ranks among
#: shifts; and of a difference of two fractions.
LEAST_CORRELATION, LEAST_DIFFERENCE = 0.1, 0.05

#: The rankings that "effect" is compared with, and their names in a finding.
_OTHER_RANKINGS = {"random": "in random order", "|delta|": "ranked by |delta|"}
#: The attacks on masked models, and their names in a finding.
_ATTACKS = {"adversarial": "the stored attack", "adaptive": "an adaptive attack"}


@dataclass
class _Tested:
    """A finding before its verdict.

    Attributes:
        row (dict): The row of the table, without verdict.
        untested (str): Why there is neither an interval nor a p-value.
        undecided (Callable): Takes a significance level; says why a test or an interval
            does not decide, and how many pairs would be enough.
    """

    row: Row
    untested: str
    undecided: Callable[[float], str]


def findings(
    records: Mapping[str, Sequence[Record]],
    tables: Tables,
    masking_tests: Mapping[str, Sequence[MaskingTest]],
) -> list[Row]:
    """One row for each finding of the paper and each attack.

    A finding ``holds`` if its adjusted p is below 0.05, its value is at least the
    smallest that counts, and has the sign that the paper reports. It ``does not hold``
    if it has the opposite sign. Otherwise, and for fewer than 6 pairs, it is
    ``inconclusive``, and ``why`` says whether for lack of an effect or of pairs.
    Maps and perturbations that both lie in the middle of the image rank high among
    shifts, whatever they show. Whether all three types of groups occur is judged by the
    intervals of their fractions, not by a test.

    Args:
        records (mapping): By attack, one record for each pair.
        tables (mapping): The tables ``types`` and, with concepts, ``relation``.
        masking_tests (mapping): By attack, the tests of masked sensitive units.

    Returns:
        *list[dict]*: ``attack``, ``finding``, ``about`` (what ``value`` is), ``value``
        (the effect size, 0 under the null hypothesis), ``low``, ``high``, ``least``
        (the smallest value that counts), ``p``, ``p_adjusted`` (by Benjamini and
        Hochberg, over all rows), ``pairs``, ``verdict`` and ``why`` (for a verdict that
        is inconclusive, else None).
    """
    found = [
        (attack, tested)
        for attack, all_records in records.items()
        for tested in _of_attack(attack, all_records, tables, masking_tests)
    ]
    ps = adjusted([tested.row["p"] for _, tested in found])
    return [
        {"attack": attack, **tested.row, "p_adjusted": p} | _judged(tested, p)
        for (attack, tested), p in zip(found, ps, strict=True)
    ]


def _of_attack(
    attack: str,
    all_records: Sequence[Record],
    tables: Tables,
    masking_tests: Mapping[str, Sequence[MaskingTest]],
) -> list[_Tested]:
    studied = list(filter(predictions_match, all_records))
    return [
        _three_types(attack, tables),
        *_pixel_findings(studied),
        *_region_findings(studied),
        *_unit_findings(attack, tables),
        *_masking_findings(masking_tests.get(attack, ()), len(studied)),
    ]


def sentence(row: Row) -> str:
    """A finding in one line."""
    about = f"{row['about']}: {_number(row['value'])}"
    if row["low"] is not None:
        about += f", 95 % interval {_number(row['low'])} to {_number(row['high'])}"
    if row["p_adjusted"] is not None:
        about += f", adjusted p {row['p_adjusted']:.2g}"
    # Studies of older versions do not say why.
    why = f"; {row['why']}" if row["why"] else ""
    return f"{row['attack']}: {row['finding']}: {row['verdict']} ({about}{why})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _mean_finding(
    finding: str, about: str, values: Sequence[float | None], least: float, missing: str
) -> _Tested:
    """On one value for each pair, in [-1, 1] and above 0 if the pair agrees with the
    paper; ``missing`` says why some pairs have no value."""
    found = mean_test(values, (-1, 1))
    row = {
        "finding": finding,
        "about": about,
        "value": found.mean,
        "low": found.low,
        "high": found.high,
        "least": least,
        "p": found.p,
        "pairs": found.pairs,
    }
    untested = _too_few(len(values)) or "the value is 0 in all pairs"
    if found.pairs < MIN_PAIRS <= len(values):
        absent = len(values) - found.pairs
        untested = f"undefined in {absent} of {len(values)} pairs: {missing}"
    effect = max(abs(found.mean or 0.0), least)

    def undecided(level: float) -> str:
        if found.low is None or found.high is None:
            return f"not significant: the same in all {found.pairs} pairs"
        needed = pairs_needed(effect, found.deviation, level)
        if needed > found.pairs:
            return (
                f"not significant: for an effect of {effect:.2g}, about {needed} pairs "
                f"would be enough, these are {found.pairs}"
            )
        furthest = max(found.low, found.high, key=abs)
        return f"not significant: the interval reaches {furthest:.2g}"

    return _Tested(row, untested, undecided)


def _too_few(pairs: int) -> str:
    """Why there is no test, or "" if there are enough pairs for one."""
    if pairs >= MIN_PAIRS:
        return ""
    return f"too few pairs: got {pairs}, want at least {MIN_PAIRS}"


def _three_types(attack: str, tables: Tables) -> _Tested:
    rows = [
        row
        for row in tables["types"]
        if row["attack"] == attack
        and row["groups"] == "above_median"
        and row["type"] in TYPE_NAMES[:3]
    ]
    rarest = min(rows, key=lambda row: -1 if row["mean"] is None else row["mean"])
    row = {
        "finding": "promotion-dominated, suppression-dominated and balanced groups "
        "occur",
        "about": f"fraction of the rarest type ({rarest['type']}) among groups with an "
        "effect above the median",
        "value": rarest["mean"],
        "low": rarest["low"],
        "high": rarest["high"],
        "least": MIN_FRACTION,
        "p": None,
        "pairs": rarest["pairs"],
    }
    if rarest["pairs"] >= MIN_PAIRS:
        # A fraction that is the same in all pairs has no interval.
        if all(_or_mean(row["low"], row) >= MIN_FRACTION for row in rows):
            row["verdict"] = HOLDS
        elif any(
            row["high"] is not None and row["high"] < MIN_FRACTION for row in rows
        ):
            row["verdict"] = FAILS
    return _Tested(
        row,
        _too_few(rarest["pairs"]) or f"it is {rarest['mean']:.3g} in all pairs",
        lambda level: f"the interval contains {MIN_FRACTION}",
    )


def _or_mean(end: float | None, row: Row) -> float:
    return float(row["mean"] if end is None else end)


def _pixel_findings(records: Sequence[Record]) -> list[_Tested]:
    def smallest(record: Record, ranking: str) -> float:
        return float(record["refinement"][ranking]["smallest_fraction"])

    return [
        _mean_finding(
            "groups with larger perturbations have larger effects",
            "mean rank correlation of effect and |delta|",
            [record["correlation"] for record in records],
            LEAST_CORRELATION,
            "|delta| or the effect is the same in all groups",
        ),
        *(
            _mean_finding(
                f"attacks need fewer groups ranked by effect than {name}",
                "mean difference of the fractions of groups needed",
                [smallest(r, ranking) - smallest(r, "effect") for r in records],
                LEAST_DIFFERENCE,
                "",
            )
            for ranking, name in _OTHER_RANKINGS.items()
        ),
    ]


def _region_findings(records: Sequence[Record]) -> list[_Tested]:
    return [
        _mean_finding(
            "perturbations lie in the regions of class maps more than in shifted ones "
            f"({reading})",
            "mean rank of the score among all shifts of the map, from -1 to 1",
            [2 * r["interpretability"][reading]["rank"] - 1 for r in records],
            LEAST_CORRELATION,
            "the perturbation is 0",
        )
        for reading in READINGS
    ]


def _unit_findings(attack: str, tables: Tables) -> list[_Tested]:
    found = []
    for row in tables.get("relation", ()):
        if row["attack"] != attack:
            continue
        for name, addition in (
            ("rho", ""),
            ("partial_rho", " among units of similar activation scale"),
        ):
            finding = f"sensitive units are interpretable{addition}"
            found.append(_unit_finding(finding, row, name))
    return found


def _unit_finding(finding: str, relation: Row, name: str) -> _Tested:
    rho, p = relation[name], relation[name.replace("rho", "p")]
    # NaN if the correlation does not exist.
    exists = len(known([rho, p])) == 2
    row = {
        "finding": finding,
        "about": f"rank correlation in {relation['layer']}",
        "value": rho if exists else None,
        "low": None,
        "high": None,
        "least": LEAST_CORRELATION,
        "p": p if exists and relation["pairs"] >= MIN_PAIRS else None,
        "pairs": relation["pairs"],
    }

    undefined = "undefined: the sensitivity or the IoU is the same for all units"
    if name == "partial_rho":
        undefined += ", the scale explains one of them, or the layer has fewer than "
        undefined += f"{MIN_UNITS} units; it has {relation['units']}"
    effect = max(abs(rho), LEAST_CORRELATION)

    def undecided(level: float) -> str:
        units = relation["units"]
        needed = units_needed(effect, level)
        if needed <= units:
            return "not significant"
        return (
            f"not significant: for a correlation of {effect:.2g}, a layer of about "
            f"{needed} units would be enough, this one has {units}"
        )

    return _Tested(row, _too_few(relation["pairs"]) or undefined, undecided)


def _masking_findings(tests: Sequence[MaskingTest], pairs: int) -> list[_Tested]:
    """Compared with as many random units: any change of a model weakens an attack that
    was made for it."""
    return [
        _Tested(
            {
                "finding": "masking sensitive units defends better than random ones "
                f"against {_ATTACKS[test.outcome]}",
                "about": f"accuracy with {test.units} units of {test.layer} masked, "
                "minus the mean of random sets",
                "value": test.difference,
                "low": None,
                "high": None,
                "least": LEAST_DIFFERENCE,
                "p": test.p if pairs >= MIN_PAIRS else None,
                "pairs": pairs,
            },
            _too_few(pairs),
            _undecided_sets(test),
        )
        for test in tests
    ]


def _undecided_sets(test: MaskingTest) -> Callable[[float], str]:
    def undecided(level: float) -> str:
        found = f"not significant: {test.as_well} of {test.sets} random sets do as well"
        smallest = 2 / (test.sets + 1)
        if test.p <= smallest > level:
            return f"{found}; more of them could show an effect"
        return found

    return undecided


def _judged(tested: _Tested, p_adjusted: float | None) -> Row:
    """``verdict`` and ``why``."""
    row = tested.row
    significant = p_adjusted is not None and p_adjusted < ALPHA
    # Sums of fractions can be one rounding below.
    counts = row["value"] is not None and abs(row["value"]) > row["least"] - 1e-9
    verdict = row.get("verdict", INCONCLUSIVE)
    if significant and counts:
        verdict = HOLDS if row["value"] > 0 else FAILS
    why = _why(tested, p_adjusted) if verdict == INCONCLUSIVE else None
    return {"verdict": verdict, "why": why}


def _why(tested: _Tested, p_adjusted: float | None) -> str:
    row = tested.row
    least, low, high, p = (row[key] for key in ("least", "low", "high", "p"))
    if p is None and low is None:
        return tested.untested
    if p is not None and low is not None and -least < low and high < least:
        return f"no effect that counts: the interval lies within {least}"
    if p_adjusted is not None and p_adjusted < ALPHA:
        return f"significant, but less than the {least} that counts"
    return tested.undecided(ALPHA * p / p_adjusted if p and p_adjusted else ALPHA)
