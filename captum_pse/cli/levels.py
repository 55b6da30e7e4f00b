"""Pairs explained at one of three levels, for ``demo`` and ``explain``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from captum_pse._model.score import KINDS, LOGIT
from captum_pse.cli.arguments import unit_layers
from captum_pse.cli.inputs import concepts_of
from captum_pse.pairs.pair import AdversarialPair

#: The level of each option that belongs to one level.
_LEVEL_OF = {
    "cell": "pixel",
    "method": "pixel",
    "engine": "pixel",
    "layer": "image",
    "layers": "network",
    "concepts": "network",
}


def levels(parser: argparse.ArgumentParser) -> None:
    """The level and the options of one level."""
    parser.add_argument(
        "--level",
        choices=("pixel", "image", "network"),
        default="pixel",
        help="pixel groups, image regions by class activation maps, or hidden units "
        "(default: pixel)",
    )
    parser.add_argument(
        "--method",
        choices=("exact", "gradient"),
        help="method of the pixel groups: exact, or a fast first-order estimate "
        "(default: exact)",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "dense", "incremental"),
        help="engine of exact pixel groups: full forward passes, or only what a group "
        "changes; both give the same numbers (default: auto, the one with less work)",
    )
    unit_layers(parser)
    parser.add_argument(
        "--concepts",
        metavar="SET",
        help="at level network, a folder in Broden's format, or demo: relates the "
        "units to the concepts that they detect (default: demo for the demo, else "
        "none)",
    )


def check_level(args: argparse.Namespace) -> None:
    """Raises ValueError for options of another level."""
    for name, level in _LEVEL_OF.items():
        if getattr(args, name) is not None and args.level != level:
            raise ValueError(
                f"{name}: got it at level {args.level}, want level {level}"
            )


def explain_pairs(
    args: argparse.Namespace,
    model: nn.Module,
    pairs: AdversarialPair,
    class_names: Sequence[str] | None,
    settings: Mapping[str, Any],
) -> None:
    """Explains pairs at the level of ``args``, writes the report and prints a summary.

    Args:
        args (argparse.Namespace): The arguments of the command.
        model (nn.Module): The model that the pairs attack.
        pairs (AdversarialPair): The pairs.
        class_names (sequence of str, optional): Names of the classes.
        settings (mapping): More to write down in the summary.
    """
    explain = _units if args.level == "network" else _pixels_or_regions
    options = {
        "score": args.score,
        "batch_size": args.batch_size,
        "device": args.device,
        "class_names": class_names,
        "show_progress": True,
    }
    explain(args, model, pairs, settings, options)


def _pixels_or_regions(
    args: argparse.Namespace,
    model: nn.Module,
    pairs: AdversarialPair,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    from captum_pse.cli.printing import format_table
    from captum_pse.reports.explain import explain
    from captum_pse.reports.page.tables import fraction_needed

    records = explain(
        model,
        pairs,
        args.out,
        level=args.level,
        cell=args.cell,
        method=args.method or "exact",
        engine=args.engine or "auto",
        layer=args.layer,
        settings=settings,
        **options,
    )
    print(format_table(records, options["class_names"]))
    for key, side in (("natural_agrees", "true"), ("attack_holds", "attack")):
        wrong = sum(not record[key] for record in records)
        if wrong:
            print(
                f"NOTE: the model does not predict the {side} label on {wrong} "
                "pair(s); if it should, check the labels, --weights, --mean and --std"
            )
    score = records[0]["score"]
    if score != LOGIT.name:
        print(f"dZ, promotion and suppression are in {KINDS[score].plural}")
    saturated = sum(bool(record.get("saturated")) for record in records)
    if saturated:
        print(
            "NOTE: the log-probability of the attack label is near 0, its maximum, on "
            f"{saturated} pair(s): little promotion can be seen there; --score "
            "centered does not saturate"
        )
    tables = "summary.json"
    if args.level == "pixel":
        tables = "groups.csv, summary.json"
        fact = fraction_needed(records)
        print(f"{fact.name}: {fact.value} ({fact.note})")
    print(f"wrote index.html, {tables} and figures to {args.out}")


def _units(
    args: argparse.Namespace,
    model: nn.Module,
    pairs: AdversarialPair,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    from captum_pse.reports.units import explain_units

    summary = explain_units(
        model,
        pairs,
        args.out,
        layers=args.layers,
        concepts=concepts_of(args),
        settings={**settings, "concepts": args.concepts},
        **options,
    )
    for layer in summary["layers"]:
        print(
            f"{layer['layer']}: {layer['units']} units change by "
            f"{layer['mean_sensitivity']:.4g} on average, and by "
            f"{layer['mean_control']:.4g} under noise of the same size"
        )
    for row in summary.get("relation", ()):
        print(
            f"{row['layer']}: Spearman's rho of sensitivity and largest IoU "
            f"{row['rho']:.2f} (p {row['p']:.2g}), with the activation scale held "
            f"fixed {row['partial_rho']:.2f} (p {row['partial_p']:.2g})"
        )
    print(f"wrote index.html, units.csv, summary.json and figures to {args.out}")
