"""What the arguments name: the model, the pairs and the concepts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from captum_pse._io.text import printable
from captum_pse.cli.models import LoadedModel, load_model
from captum_pse.demo.concepts import SceneConcepts
from captum_pse.dissection.broden import BrodenConcepts
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.pairs.pair import AdversarialPair

#: What a file of pairs holds, for the help.
PAIR_FILES = """
A pair file (.npz or .safetensors) holds the arrays natural and adversarial, or
perturbation instead of adversarial, (N, C, H, W), and the labels true_label and
attack_label, (N,); AdversarialPair.save writes one.
"""


def model_of(args: argparse.Namespace) -> LoadedModel:
    """The model that ``--model`` and the arguments beside it name."""
    if str(Path.cwd()) not in sys.path:
        # As `python -m` does: the model may be in a module of the working folder.
        sys.path.insert(0, str(Path.cwd()))
    return load_model(args.model, args.weights, args.mean, args.std)


def check_pair_arguments(args: argparse.Namespace) -> None:
    """Raises ValueError for ``--pairs`` and ``--labels`` that do not fit each other."""
    if len(args.pairs) > 2:
        raise ValueError(
            f"pairs: got {len(args.pairs)} paths, want a file or two folders"
        )
    if len(args.pairs) == 1 and args.labels is not None:
        raise ValueError("labels: got a CSV file, but a pair file holds its own labels")


def read_pairs(
    args: argparse.Namespace, loaded: LoadedModel
) -> tuple[AdversarialPair, dict[str, Any]]:
    """The pairs of ``--pairs`` and ``--labels``, and the settings to write down.

    Without labels, two folders are labelled by the model's predictions. Pairs whose
    prediction the attack did not change are left out; the setting ``left_out`` holds
    their names.
    """
    from captum_pse.pairs.folders import (
        label_by_predictions,
        read_image_folders,
        read_labels,
    )

    left_out: list[str] = []
    if len(args.pairs) == 1:
        pairs = AdversarialPair.load(args.pairs[0])
    else:
        images = read_image_folders(*args.pairs)
        if args.labels is not None:
            pairs = read_labels(args.labels, *images)
        else:
            pairs, left_out = label_by_predictions(
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
        "left_out": left_out,
    }
    return pairs, settings


def print_left_out(names: list[str]) -> None:
    """Prints which pairs :func:`read_pairs` left out, if any."""
    if names:
        print(
            f"NOTE: left out {len(names)} pair(s) in which the attack did not change "
            f"the prediction: {', '.join(map(printable, names))}"
        )


def concepts_of(args: argparse.Namespace) -> ConceptDataset | None:
    """The demo's scenes for ``--concepts demo``, else a folder in Broden's format."""
    if args.concepts is None:
        return None
    return SceneConcepts() if args.concepts == "demo" else BrodenConcepts(args.concepts)
