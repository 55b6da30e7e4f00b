"""``captum-pse explain``: the user's pairs on the user's model."""

from __future__ import annotations

import argparse

from captum_pse.cli import arguments, inputs
from captum_pse.cli.levels import check_level, explain_pairs, levels
from captum_pse.cli.registry import command


@command(
    "explain",
    "explain your own pairs on your own model",
    arguments=[
        *(arguments.model, arguments.out, arguments.pairs),
        *(arguments.computing, arguments.score, arguments.regions, levels),
    ],
    examples=r"""
  captum-pse explain --model resnet50 --weights DEFAULT --pairs pairs.npz --out results
  captum-pse explain --model squeezenet1_0 --weights squeezenet.pt \
      --pairs pairs.npz --level image --layer features.12 --out regions
  captum-pse explain --model resnet50 --weights DEFAULT --pairs pairs.npz \
      --level network --layers layer3 layer4 --concepts broden1_224/ --out units
  captum-pse explain --model mypackage.nets:build --weights net.safetensors \
      --mean 0.5,0.5,0.5 --std 0.2,0.2,0.2 \
      --pairs natural/ adversarial/ --labels labels.csv --out results
""",
    note=inputs.PAIR_FILES,
)
def run(args: argparse.Namespace) -> None:
    """Explains the user's pairs on the user's model."""
    inputs.check_pair_arguments(args)
    check_level(args)
    loaded = inputs.model_of(args)
    pairs, settings = inputs.read_pairs(args, loaded)
    explain_pairs(args, loaded.forward_func, pairs, loaded.class_names, settings)
    inputs.print_left_out(settings["left_out"])
