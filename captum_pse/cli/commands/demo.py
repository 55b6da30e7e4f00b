"""``captum-pse demo``: the built-in model, attacked and explained."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_pse.cli import arguments
from captum_pse.cli.levels import check_level, explain_pairs, levels
from captum_pse.cli.registry import command


def _scenes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("captum-pse-demo"),
        metavar="DIR",
        help="folder of the results (default: captum-pse-demo)",
    )
    parser.add_argument(
        "--pairs",
        type=arguments.positive_int,
        default=12,
        help="number of pairs (default: 12)",
    )


@command(
    "demo",
    "attack the built-in model and explain the pairs",
    arguments=[
        *(arguments.computing, arguments.score, arguments.regions, levels, _scenes)
    ],
    examples=r"""
  captum-pse demo
  captum-pse demo --pairs 4 --level image --layer features.conv4 --out regions
  captum-pse demo --level network --layers features.conv4 features.conv5 --out units
""",
)
def run(args: argparse.Namespace) -> None:
    """Attacks the built-in model and explains the pairs."""
    from captum_pse import demo

    check_level(args)
    print(f"attacking the demo model on {args.pairs} scenes")
    pairs = demo.make_pairs(args.pairs)
    if args.level == "network":
        args.concepts = args.concepts or "demo"
    explain_pairs(args, demo.load_model(), pairs, demo.CLASSES, {"model": "demo"})
