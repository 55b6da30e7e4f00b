"""The arguments of the command line."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import torch

from captum_pse.reports.dissection import PARTIAL as DISSECTION_PARTIAL
from captum_pse.studies.run import PARTIAL as STUDY_PARTIAL

#: By command, command lines that work where their files are; the main help shows the
#: first of each.
EXAMPLES = {
    "demo": r"""
  captum-pse demo
  captum-pse demo --pairs 4 --level image --layer features.conv4 --out regions
  captum-pse demo --level network --layers features.conv4 features.conv5 --out units
""",
    "explain": r"""
  captum-pse explain --model resnet50 --weights DEFAULT --pairs pairs.npz --out results
  captum-pse explain --model squeezenet1_0 --weights squeezenet.pt \
      --pairs pairs.npz --level image --layer features.12 --out regions
  captum-pse explain --model resnet50 --weights DEFAULT --pairs pairs.npz \
      --level network --layers layer3 layer4 --concepts broden1_224/ --out units
  captum-pse explain --model mypackage.nets:build --weights net.safetensors \
      --mean 0.5,0.5,0.5 --std 0.2,0.2,0.2 \
      --pairs natural/ adversarial/ --labels labels.csv --out results
""",
    "refine": r"""
  captum-pse refine --model resnet50 --weights DEFAULT --pairs pairs.npz --out results
  captum-pse refine --model squeezenet1_0 --weights squeezenet.pt \
      --pairs natural/ adversarial/ --cell 16 --out results
""",
    "study": r"""
  captum-pse study --model captum_pse.demo:load_model --pairs demo \
      --concepts demo --out results
  captum-pse study --model resnet50 --weights DEFAULT --pairs pgd=pgd.npz cw=cw.npz \
      --layers layer3 layer4 --concepts broden1_224/ --out results
""",
    "dissect": r"""
  captum-pse dissect --model captum_pse.demo:load_model \
      --layers features.conv4 features.conv5 --concepts demo --out results
  captum-pse dissect --model resnet50 --weights DEFAULT --layers layer3 layer4 \
      --concepts broden1_224/ --batch-size 64 --out results
""",
}

_PAIR_FILES = """
A pair file (.npz or .safetensors) holds the arrays natural and adversarial, or
perturbation in place of the latter, (N, C, H, W), and the labels, true_label and
attack_label, (N,); AdversarialPair.save writes one.
"""

_GOES_ON = """
Where it is stopped, it keeps partial results in DIR/{partial},
and goes on from them when the same command is given again.
"""

_EXIT_CODES = """
exit codes:
  0    done
  2    wrong input, of which the message says what is wanted; no results were written
  130  interrupted (Ctrl-C); no results were written, but study and dissect go on where
       they were stopped when the same command is given again
"""


def _main_epilog() -> str:
    firsts = [text.strip("\n").split("\n  captum-pse")[0] for text in EXAMPLES.values()]
    more = "captum-pse COMMAND --help explains a command, with more examples"
    return "\n".join(["examples:", *firsts, "", more, _EXIT_CODES])


def _epilog(command: str, note: str = "") -> str:
    return f"examples:{EXAMPLES[command]}{note}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, want numbers with commas between them"
        ) from error


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, want a number, 1 or more")
    return int(text)


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
        epilog=_main_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("captum-pse"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        command: str, parents: list[argparse.ArgumentParser], text: str, note: str = ""
    ) -> argparse.ArgumentParser:
        return commands.add_parser(
            command,
            parents=parents,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=_epilog(command, note),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    computing = argparse.ArgumentParser(add_help=False)
    computing.add_argument(
        "--batch-size",
        type=_positive_int,
        default=16,
        help="images in one pass (default: 16)",
    )
    computing.add_argument(
        "--device", default="cpu", type=_device, help="torch device (default: cpu)"
    )

    shared = argparse.ArgumentParser(add_help=False, parents=[computing])
    shared.add_argument(
        "--layer",
        metavar="NAME",
        help="layer of the class activation maps (default: the last spatial one)",
    )
    shared.add_argument(
        "--cell", type=_positive_int, help="side of a pixel group (default: size / 14)"
    )

    levels = argparse.ArgumentParser(add_help=False)
    levels.add_argument(
        "--level",
        choices=("pixel", "image", "network"),
        default="pixel",
        help="pixel groups, image regions by class activation maps, or hidden units "
        "(default: pixel)",
    )
    levels.add_argument(
        "--method",
        choices=("exact", "gradient"),
        help="of the pixel groups: exact, or a fast first-order estimate "
        "(default: exact)",
    )
    levels.add_argument(
        "--engine",
        choices=("auto", "dense", "incremental"),
        help="of exact pixel groups: full passes, or only what a group changes; the "
        "numbers are the same (default: auto, the one that does less work)",
    )
    levels.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help="layers whose units are looked at (default: the last spatial one)",
    )
    levels.add_argument(
        "--concepts",
        metavar="SET",
        help="at the level of units: a folder in Broden's format, or demo; relates the "
        "units to what they detect (default: demo for the demo, else none)",
    )

    demo = add(
        "demo",
        [shared, levels],
        "attack the built-in model and explain the pairs",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("captum-pse-demo"),
        metavar="DIR",
        help="folder of the results (default: captum-pse-demo)",
    )
    demo.add_argument(
        "--pairs", type=_positive_int, default=12, help="how many (default: 12)"
    )

    models = argparse.ArgumentParser(add_help=False)
    models.add_argument(
        "--model", required=True, help="a torchvision name, or package.module:callable"
    )
    models.add_argument(
        "--weights", help="a .safetensors or .pt state dict, or DEFAULT (torchvision's)"
    )
    models.add_argument(
        "--mean", type=_numbers, metavar="R,G,B", help="of the channels, for [0, 1]"
    )
    models.add_argument(
        "--std", type=_numbers, metavar="R,G,B", help="likewise; want both or neither"
    )
    models.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the results, made where it is missing",
    )

    own = argparse.ArgumentParser(add_help=False)
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
    add(
        "explain",
        [models, own, shared, levels],
        "explain your own pairs on your own model",
        _PAIR_FILES,
    )
    add(
        "refine",
        [models, own, shared],
        "see on how few pixel groups your attacks survive",
        _PAIR_FILES,
    )
    study = add(
        "study",
        [models, shared],
        "the paper's analysis of one or several attacks on your model; runs under "
        "torchrun, too",
        _GOES_ON.format(partial=STUDY_PARTIAL),
    )
    study.add_argument(
        "--pairs",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="of each attack, an .npz or .safetensors file; or demo",
    )
    study.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help="layers whose units are looked at (default: the last spatial one)",
    )
    study.add_argument(
        "--concepts",
        metavar="SET",
        help="a folder in Broden's format, or demo; relates the units to what they "
        "detect (default: none)",
    )
    study.add_argument(
        "--adaptive-eps",
        type=float,
        default=2 / 255,
        help="largest change of a pixel by the new attack on masked models, in [0, 1] "
        "units (default: 2/255)",
    )
    study.add_argument(
        "--adaptive-steps",
        type=_positive_int,
        default=10,
        help="its steps (default: 10)",
    )
    study.add_argument(
        "--seed", type=int, default=0, help="of everything random (default: 0)"
    )
    dissect = add(
        "dissect",
        [models, computing],
        "find what the units of your model detect; runs under torchrun, too",
        _GOES_ON.format(partial=DISSECTION_PARTIAL),
    )
    dissect.add_argument(
        "--layers",
        required=True,
        nargs="+",
        metavar="NAME",
        help="layers whose units are looked at",
    )
    dissect.add_argument(
        "--concepts",
        required=True,
        metavar="SET",
        help="a folder in Broden's format, or demo",
    )
    dissect.add_argument(
        "--quantile", type=float, default=0.005, help="of activations (default: 0.005)"
    )
    dissect.add_argument(
        "--min-iou", type=float, default=0.04, help="of a detector (default: 0.04)"
    )
    return parser
