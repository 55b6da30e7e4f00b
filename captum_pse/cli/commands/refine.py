"""``captum-pse refine``: how few pixel groups an attack needs."""

from __future__ import annotations

import argparse

from captum_pse.cli import arguments, inputs
from captum_pse.cli.registry import command


@command(
    "refine",
    "find how few pixel groups your attacks need",
    arguments=[
        *(arguments.model, arguments.out, arguments.pairs),
        *(arguments.computing, arguments.score, arguments.regions),
    ],
    examples=r"""
  captum-pse refine --model resnet50 --weights DEFAULT --pairs pairs.npz --out results
  captum-pse refine --model squeezenet1_0 --weights squeezenet.pt \
      --pairs natural/ adversarial/ --cell 16 --out results
""",
    note=inputs.PAIR_FILES,
)
def run(args: argparse.Namespace) -> None:
    """Keeps each perturbation on a fraction of its pixel groups."""
    from captum_pse.reports.refinement import refine_pairs

    inputs.check_pair_arguments(args)
    loaded = inputs.model_of(args)
    pairs, settings = inputs.read_pairs(args, loaded)
    results = refine_pairs(
        loaded.forward_func,
        pairs,
        args.out,
        cell=args.cell,
        layer=args.layer,
        score=args.score,
        batch_size=args.batch_size,
        device=args.device,
        settings=settings,
        show_progress=True,
    )
    print("fraction of attacks that still succeed, by the fraction of groups kept")
    fractions = next(iter(results.values())).fractions
    print("kept by ".ljust(10) + "".join(f"{f:6.1f}" for f in fractions))
    for name, result in results.items():
        reached = (point["reaches"] for point in result.table())
        print(name.ljust(10) + "".join(f"{fraction:6.2f}" for fraction in reached))
    print(f"wrote refinement.csv, refinement.png and refinement.json to {args.out}")
    inputs.print_left_out(settings["left_out"])
