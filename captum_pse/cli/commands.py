"""The command line: ``captum-pse`` and ``python -m captum_pse``."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from captum_pse._io.distributed import rank_and_size
from captum_pse._io.text import printable
from captum_pse.cli.arguments import build_parser
from captum_pse.cli.models import LoadedModel
from captum_pse.demo.concepts import SceneConcepts
from captum_pse.dissection.broden import BrodenConcepts
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.result import Dissection
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.reports.dissection import PARTIAL as DISSECTION_PARTIAL
from captum_pse.studies.run import PARTIAL as STUDY_PARTIAL


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot show is no reason to fail after the work.
        sys.stdout.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            commands = {"demo": _demo, "dissect": _dissect, "study": _study}
            return commands.get(args.command, _own)(args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"captum-pse: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"captum-pse: interrupted, {_what_is_left(args)}", file=sys.stderr)
        return 130


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line, like an error's, between the progress bars."""
    tqdm.write(f"captum-pse: warning: {message}", file=sys.stderr)


def _what_is_left(args: argparse.Namespace) -> str:
    """What a command that did not end has written."""
    hidden = {"dissect": DISSECTION_PARTIAL, "study": STUDY_PARTIAL}.get(args.command)
    if hidden is None or not (args.out / hidden).is_dir():
        return "no results were written"
    return (
        f"partial results are in {args.out / hidden}; give the same command again to "
        "go on from them"
    )


def _demo(args: argparse.Namespace) -> int:
    from captum_pse import demo

    _check_level(args)
    print(f"attacking the demo model on {args.pairs} scenes")
    pairs = demo.make_pairs(args.pairs)
    if args.level == "network":
        args.concepts = args.concepts or "demo"
    return _report(args, demo.load_model(), pairs, demo.CLASSES, {"model": "demo"})


def _own(args: argparse.Namespace) -> int:
    from captum_pse.pairs.folders import (
        label_by_predictions,
        read_image_folders,
        read_labels,
    )

    if len(args.pairs) > 2:
        raise ValueError(
            f"pairs: got {len(args.pairs)} paths, want a file or two folders"
        )
    if len(args.pairs) == 1 and args.labels is not None:
        raise ValueError("labels: got a CSV file, but a pair file holds its own labels")
    if args.command == "explain":
        _check_level(args)
    loaded = _load_model(args)
    unmoved: list[str] = []
    if len(args.pairs) == 1:
        pairs = AdversarialPair.load(args.pairs[0])
    else:
        images = read_image_folders(*args.pairs)
        if args.labels is not None:
            pairs = read_labels(args.labels, *images)
        else:
            pairs, unmoved = label_by_predictions(
                loaded.forward_func,
                *images,
                batch_size=args.batch_size,
                device=args.device,
                show_progress=True,
            )
    settings = {
        "model": args.model,
        "weights": args.weights,
        "pairs": [str(path) for path in args.pairs],
        "labels": None if args.labels is None else str(args.labels),
        "mean": args.mean,
        "std": args.std,
        "left_out": unmoved,
    }
    if args.command == "refine":
        code = _refine(args, loaded.forward_func, pairs, settings)
    else:
        code = _report(args, loaded.forward_func, pairs, loaded.class_names, settings)
    if unmoved:
        print(
            f"NOTE: left out {len(unmoved)} pair(s) in which the attack did not change "
            f"the prediction: {', '.join(printable(name) for name in unmoved)}"
        )
    return code


def _check_level(args: argparse.Namespace) -> None:
    """Raises ValueError for options of another level."""
    levels = dict.fromkeys(("cell", "method", "engine"), "pixel")
    levels |= {"layer": "image", "layers": "network", "concepts": "network"}
    for name, level in levels.items():
        if getattr(args, name) is not None and args.level != level:
            raise ValueError(
                f"{name}: got it at level {args.level}, want level {level}"
            )


def _load_model(args: argparse.Namespace) -> LoadedModel:
    from captum_pse.cli.models import load_model

    if str(Path.cwd()) not in sys.path:
        # Like `python -m`: a model may be a module in the working folder.
        sys.path.insert(0, str(Path.cwd()))
    return load_model(args.model, args.weights, args.mean, args.std)


def _dissect(args: argparse.Namespace) -> int:
    from captum_pse._io.distributed import launched_group
    from captum_pse.reports.dissection import dissect_layers

    loaded = _load_model(args)
    settings = {
        name: getattr(args, name)
        for name in (
            "model",
            "weights",
            "mean",
            "std",
            "concepts",
            "batch_size",
            "device",
        )
    }
    with launched_group(args.device) as device:
        result = dissect_layers(
            loaded.forward_func,
            named_concepts(args.concepts),
            args.layers,
            args.out,
            quantile=args.quantile,
            min_iou=args.min_iou,
            batch_size=args.batch_size,
            device=device,
            settings=settings,
            show_progress=True,
        )
        if rank_and_size()[0] == 0:
            _print_dissection(result, args.out)
    return 0


def _study(args: argparse.Namespace) -> int:
    from captum_pse._io.distributed import launched_group
    from captum_pse.studies.findings import sentence
    from captum_pse.studies.run import study

    attacks = {}
    for text in args.pairs:
        name, pairs = _named_pairs(text)
        if name in attacks:
            raise ValueError(f"pairs: got {name!r} twice, want each name once")
        attacks[name] = pairs
    loaded = _load_model(args)
    names = ("model", "weights", "mean", "std", "pairs", "concepts")
    options = _options(args, {name: getattr(args, name) for name in names})
    with launched_group(args.device) as options["device"]:
        found = study(
            loaded.forward_func,
            attacks,
            args.out,
            layers=args.layers,
            concepts=None if args.concepts is None else named_concepts(args.concepts),
            adaptive_eps=args.adaptive_eps,
            adaptive_steps=args.adaptive_steps,
            seed=args.seed,
            **options,
        )
        if rank_and_size()[0] == 0:
            for row in found.tables["attacks"]:
                print(
                    f"{printable(row['attack'])}: {row['studied']} of {row['pairs']} "
                    "pairs are what they say"
                )
                if row["studied"] < row["pairs"]:
                    print(
                        "NOTE: on the others, left out of all else, the model does not "
                        "say the labels; if it should, check --weights, --mean and "
                        "--std"
                    )
            for row in found.tables["findings"]:
                print(printable(sentence(row), most=300))
            print(f"wrote study.json, tables and figures to {args.out}")
    return 0


def _named_pairs(text: str) -> tuple[str, AdversarialPair]:
    """``demo``, ``NAME=PATH``, or a path, whose file gives the name."""

    if text == "demo":
        from captum_pse.demo.pairs import make_pairs

        return "demo", make_pairs(24)
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_file():
        return Path(text).stem, AdversarialPair.load(text)
    return name, AdversarialPair.load(path)


def _print_dissection(result: Dissection, out: Path) -> None:
    for record in result.summary():
        print(
            f"{record['layer']}: {record['detectors']} of {record['units']} units "
            f"detect {record['unique_concepts']} concepts"
        )
    far = [
        printable(row["concept"])
        for row in result.concept_table()
        if row["out_of_reach"]
    ]
    if far:
        print(
            f"NOTE: {len(far)} concept(s) are too large or too rare for a detector at "
            f"quantile {result.quantile:g}: {', '.join(far)}"
        )
    print(f"wrote units.csv, concepts.csv, dissection.json and figures to {out}")


def _options(args: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What all work on pairs takes from the command line."""
    return {
        "cell": args.cell,
        "layer": args.layer,
        "batch_size": args.batch_size,
        "device": args.device,
        "settings": settings,
        "show_progress": True,
    }


def _refine(
    args: argparse.Namespace,
    model: nn.Module,
    pairs: AdversarialPair,
    settings: Mapping[str, Any],
) -> int:
    from captum_pse.reports.refinement import refine_pairs

    results = refine_pairs(model, pairs, args.out, **_options(args, settings))
    print("share of attacks that still reach their label, by fraction of groups kept")
    fractions = next(iter(results.values())).fractions
    print("kept by ".ljust(10) + "".join(f"{f:6.1f}" for f in fractions))
    for name, result in results.items():
        shares = (point["reaches"] for point in result.table())
        print(name.ljust(10) + "".join(f"{share:6.2f}" for share in shares))
    print(f"wrote refinement.csv, refinement.png and refinement.json to {args.out}")
    return 0


def _report(
    args: argparse.Namespace,
    model: nn.Module,
    pairs: AdversarialPair,
    class_names: Sequence[str] | None,
    settings: Mapping[str, Any],
) -> int:
    from captum_pse.cli.printing import format_table
    from captum_pse.reports.explain import explain
    from captum_pse.reports.page.tables import part_needed

    if args.level == "network":
        return _explain_units(args, model, pairs, class_names, settings)
    records = explain(
        model,
        pairs,
        args.out,
        level=args.level,
        method=args.method or "exact",
        engine=args.engine or "auto",
        class_names=class_names,
        **_options(args, settings),
    )
    print(format_table(records, class_names))
    for key, side in (("natural_agrees", "true"), ("attack_holds", "attack")):
        wrong = sum(not record[key] for record in records)
        if wrong:
            print(
                f"NOTE: the model does not say the {side} label on {wrong} pair(s); if "
                "it should, check the labels, --weights, --mean and --std"
            )
    tables = "summary.json"
    if args.level == "pixel":
        tables = "groups.csv, summary.json"
        fact = part_needed(records)
        print(f"{fact.name}: {fact.value} ({fact.note})")
    print(f"wrote index.html, {tables} and figures to {args.out}")
    return 0


def _explain_units(
    args: argparse.Namespace,
    model: nn.Module,
    pairs: AdversarialPair,
    class_names: Sequence[str] | None,
    settings: Mapping[str, Any],
) -> int:
    from captum_pse.reports.units import explain_units

    summary = explain_units(
        model,
        pairs,
        args.out,
        layers=args.layers,
        concepts=None if args.concepts is None else named_concepts(args.concepts),
        batch_size=args.batch_size,
        device=args.device,
        class_names=class_names,
        settings={**settings, "concepts": args.concepts},
        show_progress=True,
    )
    for layer in summary["layers"]:
        print(
            f"{layer['layer']}: {layer['units']} units move by "
            f"{layer['mean_sensitivity']:.4g} on average, under noise of the same size "
            f"by {layer['mean_control']:.4g}"
        )
    for row in summary.get("relation", ()):
        print(
            f"{row['layer']}: sensitivity and largest IoU, Spearman's rho "
            f"{row['rho']:.2f} (p {row['p']:.2g}), with the activation scale fixed "
            f"{row['partial_rho']:.2f} (p {row['partial_p']:.2g})"
        )
    print(f"wrote index.html, units.csv, summary.json and figures to {args.out}")
    return 0


def named_concepts(name: str) -> ConceptDataset:
    """The demo's scenes for ``"demo"``, else the folder of that name in Broden's
    format."""
    return SceneConcepts() if name == "demo" else BrodenConcepts(name)
