"""Digests of the inputs of a study.

They are written into its manifest, and identify the partial results of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._io.digest import code_digest, digest
from captum_pse._io.module_digest import module_digest
from captum_pse._model.forward import first_scores
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.studies.settings import Settings


def run_digest(
    model: str,
    attacks: Mapping[str, AdversarialPair],
    mask: Tensor,
    settings: Settings,
    extra: Mapping[str, Any],
) -> str:
    """The digest of all inputs except the concepts, and of the code.

    It does not depend on the device's number, which differs between processes.

    Args:
        model (str): The digest of the model.
        attacks (mapping): The pairs of each attack, by name.
        mask (Tensor): The feature mask.
        settings (Settings): The settings of the study.
        extra (mapping): More settings, of the caller.
    """
    device = torch.device(settings.device).type
    # The order of the attacks is that of the tables.
    pairs = [(name, pairs_digest(pairs)) for name, pairs in attacks.items()]
    return digest(
        code_digest(), model, pairs, mask, asdict(settings) | {"device": device}, extra
    )


def pairs_digest(pairs: AdversarialPair) -> str:
    """The digest of a set of pairs, with labels and names."""
    return digest(vars(pairs))


def model_digest(
    model: nn.Module, attacks: Mapping[str, AdversarialPair], device: str
) -> str:
    """The digest of a model and of its scores for the first image.

    The scores depend on code and constants that a digest of the model cannot see.
    """
    first = next(iter(attacks.values())).natural[:1]
    assert isinstance(first, Tensor)
    with torch.no_grad():
        scores = first_scores(model, (first.to(device),))
    return digest(module_digest(model), scores)
