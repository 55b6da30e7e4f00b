"""``captum-pse dissect``: the concepts that hidden units detect."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_pse._io.distributed import launched_group, rank_and_size
from captum_pse._io.text import printable
from captum_pse.cli import arguments, inputs
from captum_pse.cli.registry import command
from captum_pse.dissection.network_dissection import MIN_IOU, QUANTILE
from captum_pse.dissection.result import Dissection
from captum_pse.reports.dissection import PARTIAL, dissect_layers


def _dissection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layers",
        required=True,
        nargs="+",
        metavar="NAME",
        help="layers whose units are dissected",
    )
    parser.add_argument(
        "--concepts",
        required=True,
        metavar="SET",
        help="a folder in Broden's format, or demo",
    )
    parser.add_argument(
        "--quantile",
        type=float,
        default=QUANTILE,
        help="fraction of a unit's activations above its threshold "
        f"(default: {QUANTILE})",
    )
    parser.add_argument(
        "--min-iou",
        type=float,
        default=MIN_IOU,
        help=f"a unit with a larger IoU is a detector (default: {MIN_IOU})",
    )


@command(
    "dissect",
    "find the concepts that the units of your model detect; also runs under torchrun",
    arguments=[arguments.model, arguments.out, arguments.computing, _dissection],
    examples=r"""
  captum-pse dissect --model captum_pse.demo:load_model \
      --layers features.conv4 features.conv5 --concepts demo --out results
  captum-pse dissect --model resnet50 --weights DEFAULT --layers layer3 layer4 \
      --concepts broden1_224/ --batch-size 64 --out results
""",
    partial=PARTIAL,
)
def run(args: argparse.Namespace) -> None:
    """Dissects layers of the user's model."""
    loaded = inputs.model_of(args)
    concepts = inputs.concepts_of(args)
    assert concepts is not None
    names = ("model", "weights", "mean", "std", "concepts", "batch_size", "device")
    with launched_group(args.device) as device:
        result = dissect_layers(
            loaded.forward_func,
            concepts,
            args.layers,
            args.out,
            quantile=args.quantile,
            min_iou=args.min_iou,
            batch_size=args.batch_size,
            device=device,
            settings={name: getattr(args, name) for name in names},
            show_progress=True,
        )
        if rank_and_size()[0] == 0:
            _print_dissection(result, args.out)


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
