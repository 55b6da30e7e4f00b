"""``captum-pse study``: the paper's analysis of several attacks."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_pse._io.distributed import launched_group, rank_and_size
from captum_pse._io.text import printable
from captum_pse.attacks.pgd import ADAPTIVE_EPS, ADAPTIVE_STEPS
from captum_pse.cli import arguments, inputs
from captum_pse.cli.registry import command
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.studies.result import Study
from captum_pse.studies.run import PARTIAL
from captum_pse.units.masking_test import RANDOM_SETS


def _attacks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pairs",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="an .npz or .safetensors file for each attack, or demo",
    )
    arguments.unit_layers(parser)
    parser.add_argument(
        "--concepts",
        metavar="SET",
        help="a folder in Broden's format, or demo: relates the units to the concepts "
        "that they detect (default: none)",
    )
    parser.add_argument(
        "--adaptive-eps",
        type=float,
        default=ADAPTIVE_EPS,
        help="largest change of a pixel by the adaptive attack on masked models, in "
        "[0, 1] units (default: 2/255)",
    )
    parser.add_argument(
        "--adaptive-steps",
        type=arguments.positive_int,
        default=ADAPTIVE_STEPS,
        help=f"steps of the adaptive attack (default: {ADAPTIVE_STEPS})",
    )
    parser.add_argument(
        "--random-sets",
        type=arguments.positive_int,
        default=RANDOM_SETS,
        help="largest number of random sets of units that masked sensitive units are "
        f"compared with (default: {RANDOM_SETS})",
    )
    parser.add_argument(
        "--seed",
        type=arguments.seed,
        default=0,
        help="seed of all random numbers (default: 0)",
    )


@command(
    "study",
    "the paper's analysis of one or several attacks on your model; also runs under "
    "torchrun",
    arguments=[
        *(arguments.model, arguments.out),
        *(arguments.computing, arguments.score, arguments.regions, _attacks),
    ],
    examples=r"""
  captum-pse study --model captum_pse.demo:load_model --pairs demo \
      --concepts demo --out results
  captum-pse study --model resnet50 --weights DEFAULT --pairs pgd=pgd.npz cw=cw.npz \
      --layers layer3 layer4 --concepts broden1_224/ --out results
""",
    partial=PARTIAL,
)
def run(args: argparse.Namespace) -> None:
    """Analyses one or several attacks on the user's model."""
    from captum_pse.studies.run import study

    attacks: dict[str, AdversarialPair] = {}
    for text in args.pairs:
        name, pairs = _named_pairs(text)
        if name in attacks:
            raise ValueError(f"pairs: got {name!r} twice, want each name once")
        attacks[name] = pairs
    loaded = inputs.model_of(args)
    names = ("model", "weights", "mean", "std", "pairs", "concepts")
    with launched_group(args.device) as device:
        found = study(
            loaded.forward_func,
            attacks,
            args.out,
            layers=args.layers,
            concepts=inputs.concepts_of(args),
            layer=args.layer,
            cell=args.cell,
            score=args.score,
            adaptive_eps=args.adaptive_eps,
            adaptive_steps=args.adaptive_steps,
            random_sets=args.random_sets,
            seed=args.seed,
            batch_size=args.batch_size,
            device=device,
            settings={name: getattr(args, name) for name in names},
            show_progress=True,
        )
        if rank_and_size()[0] == 0:
            _print_study(found, args.out)


def _named_pairs(text: str) -> tuple[str, AdversarialPair]:
    """The name and the pairs of ``demo``, ``NAME=PATH``, or a path."""
    if text == "demo":
        from captum_pse.demo.pairs import make_pairs

        return "demo", make_pairs(24)
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_file():
        return Path(text).stem, AdversarialPair.load(text)
    return name, AdversarialPair.load(path)


def _print_study(found: Study, out: Path) -> None:
    from captum_pse.studies.findings import sentence

    for row in found.tables["attacks"]:
        print(
            f"{printable(row['attack'])}: in {row['studied']} of {row['pairs']} pairs "
            "the labels match the model's predictions"
        )
        if row["studied"] < row["pairs"]:
            print(
                "NOTE: the other pairs are left out of all other tables; if their "
                "labels are right, check --weights, --mean and --std"
            )
    for row in found.tables["findings"]:
        print(printable(sentence(row), most=800))
    print(f"wrote study.json, tables and figures to {out}")
