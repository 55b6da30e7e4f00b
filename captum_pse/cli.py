"""The command line: ``captum-pse`` and ``python -m captum_pse``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captum_pse import AdversarialPair, __version__
from captum_pse._text import printable

_EXAMPLES = """\
examples:
  captum-pse demo --out demo-results
  captum-pse explain --model squeezenet1_0 --weights squeezenet.pt \\
      --pairs pairs.npz --cell 16 --out results
  captum-pse refine --model squeezenet1_0 --weights squeezenet.pt \\
      --pairs pairs.npz --out results
  captum-pse explain --model mypackage.nets:build --weights net.safetensors \\
      --pairs natural/ adversarial/ --labels labels.csv --out results

exit codes: 0 done, 2 wrong input, 130 interrupted; nothing is written but when done
"""


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, want numbers with commas between them"
        ) from error


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, want 1 or more")
    return value


def _device(text: str) -> str:
    try:
        torch.ones(1, device=text).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(f"got {text!r}: {error}") from error
    return text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-pse",
        description="Shows what adversarial perturbations promote and suppress.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--layer",
        metavar="NAME",
        help="layer of the class activation maps (default: the last spatial one)",
    )
    shared.add_argument(
        "--cell", type=_positive_int, help="side of a pixel group (default: size / 14)"
    )
    shared.add_argument(
        "--batch",
        type=_positive_int,
        default=16,
        help="images in one pass (default: 16)",
    )
    shared.add_argument(
        "--device", default="cpu", type=_device, help="torch device (default: cpu)"
    )

    levels = argparse.ArgumentParser(add_help=False)
    levels.add_argument(
        "--level",
        choices=("pixel", "image"),
        default="pixel",
        help="pixel groups, or image regions by class activation maps (default: pixel)",
    )

    demo = commands.add_parser(
        "demo",
        parents=[shared, levels],
        help="attack the built-in model and explain the pairs",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("captum-pse-demo"), metavar="DIR"
    )
    demo.add_argument(
        "--pairs", type=_positive_int, default=12, help="how many (default: 12)"
    )

    own = argparse.ArgumentParser(add_help=False)
    own.add_argument(
        "--model", required=True, help="a torchvision name, or package.module:callable"
    )
    own.add_argument(
        "--weights", help="a .safetensors or .pt state dict, or DEFAULT (torchvision's)"
    )
    own.add_argument(
        "--pairs",
        required=True,
        nargs="+",
        type=Path,
        metavar="PATH",
        help="an .npz or .safetensors file, or two folders: natural adversarial",
    )
    own.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="name,true_label,attack_label of the images (default: predictions)",
    )
    own.add_argument(
        "--mean", type=_numbers, metavar="R,G,B", help="of the channels, for [0, 1]"
    )
    own.add_argument("--std", type=_numbers, metavar="R,G,B")
    own.add_argument("--out", type=Path, required=True, metavar="DIR")

    commands.add_parser(
        "explain",
        parents=[own, shared, levels],
        help="explain your own pairs on your own model",
    )
    commands.add_parser(
        "refine",
        parents=[own, shared],
        help="see on how few pixel groups your attacks survive",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot show is no reason to fail after the work.
        sys.stdout.reconfigure(errors="replace")
    try:
        return _demo(args) if args.command == "demo" else _own(args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"captum-pse: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("captum-pse: interrupted, nothing was written", file=sys.stderr)
        return 130


def _demo(args: argparse.Namespace) -> int:
    from captum_pse import demo

    print(f"attacking the demo model on {args.pairs} scenes")
    pairs = demo.make_pairs(args.pairs)
    return _report(args, demo.load_model(), pairs, demo.CLASSES, {"model": "demo"})


def _own(args: argparse.Namespace) -> int:
    from captum_pse.model_files import load_model
    from captum_pse.pair_files import (
        label_by_predictions,
        read_image_folders,
        read_labels,
        read_pair_file,
    )

    if len(args.pairs) > 2:
        raise ValueError(
            f"pairs: got {len(args.pairs)} paths, want a file or two folders"
        )
    if len(args.pairs) == 1 and args.labels is not None:
        raise ValueError("labels: got a CSV file, but a pair file holds its own labels")
    if str(Path.cwd()) not in sys.path:
        # Like `python -m`: a model may be a module in the working folder.
        sys.path.insert(0, str(Path.cwd()))
    loaded = load_model(args.model, args.weights, args.mean, args.std)
    if args.layer is not None:
        args.layer = loaded.layer_name(args.layer)
    unmoved: list[str] = []
    if len(args.pairs) == 1:
        pairs = read_pair_file(args.pairs[0])
    else:
        images = read_image_folders(*args.pairs)
        if args.labels is not None:
            pairs = read_labels(args.labels, *images)
        else:
            pairs, unmoved = label_by_predictions(
                loaded.forward_func, *images, batch=args.batch, device=args.device
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


def _options(args: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What all work on pairs takes from the command line."""
    return {
        "cell": args.cell,
        "layer": args.layer,
        "batch": args.batch,
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
    from captum_pse.refinement_report import refine_pairs

    results = refine_pairs(model, pairs, args.out, **_options(args, settings))
    print("share of attacks that still reach their label, by fraction of groups kept")
    fractions = next(iter(results.values())).fractions
    print("kept by ".ljust(10) + "".join(f"{f:6.1f}" for f in fractions))
    for name, result in results.items():
        shares = (point["reaches"] for point in result.curve())
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
    from captum_pse.explain import explain, format_table

    records = explain(
        model,
        pairs,
        args.out,
        level=args.level,
        class_names=class_names,
        **_options(args, settings),
    )
    print(format_table(records, class_names))
    for key, side in (("natural_agrees", "true"), ("attack_holds", "attack")):
        wrong = sum(not record[key] for record in records)
        if wrong:
            print(f"NOTE: the model does not say the {side} label on {wrong} pair(s)")
    tables = "groups.csv and summary.json" if args.level == "pixel" else "summary.json"
    print(f"wrote {len(records)} figures, {tables} to {args.out}")
    return 0
