"""Digests of the inputs of a study.

They are written into its manifest, and identify the partial results of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._io.checkpoint import fingerprint
from captum_pse._io.manifest import versions
from captum_pse._model.forward import first_scores
from captum_pse.dissection.result import Dissection
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.studies.settings import Settings


def run_digest(
    model: nn.Module,
    attacks: Mapping[str, AdversarialPair],
    mask: Tensor,
    settings: Settings,
    extra: Mapping[str, Any],
) -> str:
    """The digest of all inputs except the concepts.

    It does not depend on the device, which differs between processes.

    Args:
        model (nn.Module): The model, on the device of ``settings``.
        attacks (mapping): The pairs of each attack, by name.
        mask (Tensor): The feature mask.
        settings (Settings): The settings of the study.
        extra (mapping): More settings, of the caller.
    """
    own = {k: v for k, v in asdict(settings).items() if k != "device"}
    names = {name: list(pairs.names) for name, pairs in attacks.items()}
    digest = model_digest(model, attacks, settings.device)
    tensors = [mask]
    for pairs in attacks.values():
        tensors += _tensors(pairs)
    return fingerprint(
        {**own, **extra, **versions(), "names": names, "model": digest}, tensors
    )


def pairs_digest(pairs: AdversarialPair) -> str:
    """The digest of a set of pairs and its labels."""
    return fingerprint({}, _tensors(pairs))


def model_digest(
    model: nn.Module, attacks: Mapping[str, AdversarialPair], device: str
) -> str:
    """The digest of a model's state and of its scores for the first image.

    The scores depend on code and constants that are not in the state, for example on a
    normalisation.
    """
    state = model.state_dict()
    first = next(iter(attacks.values())).natural[:1]
    assert isinstance(first, Tensor)
    with torch.no_grad():
        scores = first_scores(model, (first.to(device),))
    return fingerprint({"state": list(state)}, [*state.values(), scores])


def dissection_digest(dissection: Dissection) -> str:
    """The digest of the thresholds and areas of a dissection."""
    layers = dissection.layers.values()
    measured = [t for layer in layers for t in (layer.thresholds, layer.intersections)]
    return fingerprint({}, [*measured, dissection.concept_areas])


def _tensors(pairs: AdversarialPair) -> list[Tensor]:
    sides = pairs.natural, pairs.adversarial, pairs.true_label, pairs.attack_label
    return [x for x in sides if isinstance(x, Tensor)]
