"""Arguments that several commands share, and the types of arguments.

Each function adds a group of arguments to the parser of a command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from captum_pse._model.checks import INT64_MAX
from captum_pse._model.score import SCORES


def comma_separated(text: str) -> list[float]:
    """Numbers with commas between them, as ``0.5,0.5,0.5``."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, want numbers with commas between them"
        ) from error


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _whole_number(text, 1)


def seed(text: str) -> int:
    """A whole number of at least 0."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= INT64_MAX:
        wanted = f"a number, {least} or more"
        if text.isdecimal() and int(text) > INT64_MAX:
            wanted = f"a number up to {INT64_MAX}"
        raise argparse.ArgumentTypeError(f"got {text!r}, want {wanted}")
    return int(text)


def device(text: str) -> str:
    """A torch device that tensors can be made on."""
    try:
        torch.ones(1, device=text).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(f"got {text!r}: {error}") from error
    return text


def model(parser: argparse.ArgumentParser) -> None:
    """The user's model."""
    parser.add_argument(
        "--model",
        required=True,
        help="a torchvision model's name, or package.module:callable",
    )
    parser.add_argument(
        "--weights",
        help="a .safetensors or .pt state dict, or DEFAULT for torchvision's weights",
    )
    parser.add_argument(
        "--mean",
        type=comma_separated,
        metavar="R,G,B",
        help="mean of each channel, for pixels in [0, 1] (default: torchvision's; none "
        "for a callable)",
    )
    parser.add_argument(
        "--std",
        type=comma_separated,
        metavar="R,G,B",
        help="standard deviation of each channel; give both or neither",
    )


def out(parser: argparse.ArgumentParser) -> None:
    """The folder of the results."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the results, created if it is missing",
    )


def pairs(parser: argparse.ArgumentParser) -> None:
    """The user's pairs; :func:`captum_pse.cli.inputs.read_pairs` reads them."""
    parser.add_argument(
        "--pairs",
        required=True,
        nargs="+",
        type=Path,
        metavar="PATH",
        help="an .npz or .safetensors file, or two folders: natural adversarial",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="for two folders, a file of name,true_label,attack_label (default: the "
        "model's predictions)",
    )


def computing(parser: argparse.ArgumentParser) -> None:
    """The batch size and the device."""
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        default=16,
        help="images in one forward pass (default: 16)",
    )
    parser.add_argument(
        "--device", default="cpu", type=device, help="torch device (default: cpu)"
    )


def score(parser: argparse.ArgumentParser) -> None:
    """The score of which effects are differences."""
    parser.add_argument(
        "--score",
        choices=SCORES,
        default="logit",
        help="what effects are differences of: logits as the model returns them, "
        "logits less their mean over the classes, or log-probabilities (default: "
        "logit)",
    )


def regions(parser: argparse.ArgumentParser) -> None:
    """The layer of the class activation maps and the size of the pixel groups."""
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="layer of the class activation maps (default: the last spatial layer)",
    )
    parser.add_argument(
        "--cell",
        type=positive_int,
        help="side of a pixel group in pixels (default: a 14th of the longer side of "
        "the image)",
    )


def unit_layers(parser: argparse.ArgumentParser) -> None:
    """The layers of the hidden units."""
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help="layers whose units are measured (default: the last spatial layer)",
    )
