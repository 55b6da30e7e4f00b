"""The stages of the study, each of which keeps what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._io.checkpoint import fingerprint
from captum_pse._io.manifest import versions
from captum_pse._io.tasks import run_tasks
from captum_pse._model.forward import first_scores
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.network_dissection import NetworkDissection
from captum_pse.dissection.result import Dissection
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.refinement import FRACTIONS
from captum_pse.regions.adversarial_cam import AdversarialCAM
from captum_pse.studies.findings import findings
from captum_pse.studies.of_pair import study_pair
from captum_pse.studies.tables import Record, Row, Tables, holds, pair_tables
from captum_pse.units.dissection_sensitivity import DissectionSensitivity
from captum_pse.units.masking_curves import (
    MaskingCurves,
    adaptive_pgd,
    evaluate_masking,
)
from captum_pse.units.rankings import unit_rankings, units_in
from captum_pse.units.relation import Relation, relate
from captum_pse.units.sensitivity import UnitSensitivity

#: Which parts of a layer's units are masked.
PARTS = (0, 0.1, 0.2, 0.4)
#: Which of them the findings look at, fixed before anything is seen.
PART = 0.1


class Stages:
    """One run of the study.

    Args:
        model (nn.Module): On its device.
        attacks (mapping): By name, pairs.
        mask (Tensor): The feature mask of all.
        chosen (mapping): The settings, by the names of
            :func:`captum_pse.studies.run.study`.
        told (mapping): More that the results depend on, for JSON.
        concepts (ConceptDataset, optional): To dissect with.
        partial (Path): The folder of partial results.
        show_progress (bool): Whether to show progress bars.
    """

    def __init__(
        self,
        model: nn.Module,
        attacks: Mapping[str, AdversarialPair],
        mask: Tensor,
        chosen: Mapping[str, Any],
        told: Mapping[str, Any],
        concepts: ConceptDataset | None,
        partial: Path,
        show_progress: bool,
    ) -> None:
        self.model, self.attacks, self.mask = model, attacks, mask
        self.chosen, self.told, self.concepts = chosen, told, concepts
        self.partial = partial
        self.show_progress = show_progress

    @cached_property
    def digest(self) -> str:
        """Of all that the stages start from, but for the concepts.

        Not of the device, which is another one in each process.
        """
        chosen = {k: v for k, v in self.chosen.items() if k != "device"}
        names = {name: list(pairs.names) for name, pairs in self.attacks.items()}
        told = {**chosen, **self.told, **versions(), "names": names}
        tensors = [self.mask]
        for pairs in self.attacks.values():
            tensors += self._tensors(pairs)
        return fingerprint({**told, "model": self._model_digest()}, tensors)

    def _model_digest(self) -> str:
        """Of its weights, and of what its code makes of them: not all that a model
        computes is in its state."""
        state = self.model.state_dict()
        first = next(iter(self.attacks.values())).natural[:1]
        assert isinstance(first, Tensor)
        with torch.no_grad():
            scores = first_scores(self.model, (first.to(self.chosen["device"]),))
        return fingerprint({"state": list(state)}, [*state.values(), scores])

    def manifest(self) -> Row:
        digests = {
            name: fingerprint({}, self._tensors(pairs))
            for name, pairs in self.attacks.items()
        }
        digests["model"] = self._model_digest()
        if self.concepts is not None:
            digests["dissection"] = self._dissected()
        device = torch.device(self.chosen["device"]).type
        settings = {**self.chosen, "device": device, **self.told}
        return {**versions(), **settings, "digests": digests}

    def tables(self) -> Tables:
        seed = self.chosen["seed"]
        tables = pair_tables(self.records, FRACTIONS, seed)
        tables["units"] = self._units()
        if self.concepts is not None:
            tables["relation"] = [
                {"attack": attack, **row}
                for attack, relation in self.relations.items()
                for row in relation.table()
            ]
            tables["enrichment"] = [
                {"attack": attack, **row}
                for attack, relation in self.relations.items()
                for row in relation.enrichment_table()
            ]
        tables["masking"] = self._masking()
        tables["findings"] = findings(self.records, tables, self.against_random(), seed)
        return tables

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """By attack, what came of each pair."""
        pixels = PromotionSuppression(self.model)
        maps = AdversarialCAM(self.model, self.chosen["layer"])

        def record(pairs: AdversarialPair, i: int) -> Row:
            found = study_pair(
                pixels,
                maps,
                pairs.select(i).to(self.chosen["device"]),
                self.mask,
                batch_size=self.chosen["batch_size"],
                seed=self.chosen["seed"] + i,
            )
            return {"pair": pairs.names[i], **found}

        tasks = {
            (name, i): partial(record, pairs, i)
            for name, pairs in self.attacks.items()
            for i in range(len(pairs))
        }
        found = self._do("pairs", tasks, self.digest)
        return {
            name: [found[name, i] for i in range(len(pairs))]
            for name, pairs in self.attacks.items()
        }

    @cached_property
    def good(self) -> dict[str, AdversarialPair]:
        """The pairs that are what they say, of the attacks that have any."""
        kept = {
            name: torch.tensor([holds(record) for record in records])
            for name, records in self.records.items()
        }
        return {
            name: self.attacks[name].select(mask).to(self.chosen["device"])
            for name, mask in kept.items()
            if mask.any()
        }

    @cached_property
    def sensitivity(self) -> dict[str, list[UnitSensitivity]]:
        """By attack, one for each layer."""
        method = DissectionSensitivity(self.model, self.chosen["layers"])

        def record(pairs: AdversarialPair) -> Row:
            layers = method.over(
                pairs, batch_size=self.chosen["batch_size"], seed=self.chosen["seed"]
            )
            return {"layers": [layer.to_record() for layer in layers]}

        tasks = {name: partial(record, pairs) for name, pairs in self.good.items()}
        found = self._do("units", tasks, self.digest)
        return {
            name: [UnitSensitivity.of_record(layer) for layer in record["layers"]]
            for name, record in found.items()
        }

    @cached_property
    def dissection(self) -> Dissection:
        assert self.concepts is not None
        method = NetworkDissection(self.model, self.chosen["layers"])
        return method.dissect(
            self.concepts,
            batch_size=self.chosen["batch_size"],
            device=self.chosen["device"],
            checkpoints=self.partial / "dissection",
            show_progress=self.show_progress,
        )

    @cached_property
    def relations(self) -> dict[str, Relation]:
        return {
            name: relate(layers, self.dissection, seed=self.chosen["seed"])
            for name, layers in self.sensitivity.items()
        }

    @cached_property
    def masking(self) -> dict[str, list[MaskingCurves]]:
        """By attack, the curves of each layer."""
        seed, batch_size = self.chosen["seed"], self.chosen["batch_size"]

        attack = partial(
            adaptive_pgd,
            eps=self.chosen["adaptive_eps"],
            steps=self.chosen["adaptive_steps"],
            batch_size=batch_size,
        )

        def record(name: str, layer: UnitSensitivity, count: int) -> Row:
            dissection = None if self.concepts is None else self.dissection
            curves = evaluate_masking(
                self.model,
                self.good[name],
                layer.layer,
                unit_rankings(layer, dissection),
                [count],
                seeds=range(seed, seed + 3),
                attack=attack,
                batch_size=batch_size,
            )
            return curves.to_record()

        counts = {
            layer.layer: sorted({units_in(part, len(layer)) for part in PARTS})
            for layers in self.sensitivity.values()
            for layer in layers
        }
        tasks = {
            (name, k, count): partial(record, name, layer, count)
            for name, layers in self.sensitivity.items()
            for k, layer in enumerate(layers)
            for count in counts[layer.layer]
        }
        run = self.digest + (self._dissected() if self.concepts is not None else "")
        found = self._do("masking", tasks, run)
        return {
            name: [
                MaskingCurves.join(
                    [
                        MaskingCurves.of_record(found[name, k, count])
                        for count in counts[layer.layer]
                    ]
                )
                for k, layer in enumerate(layers)
            ]
            for name, layers in self.sensitivity.items()
        }

    def against_random(self) -> dict[tuple[str, str], Row]:
        """By attack and layer, for each pair, by how much more often the model says the
        true label with the sensitive units masked than with as many random ones."""
        found = {}
        for attack, layers in self.masking.items():
            for curves, layer in zip(layers, self.sensitivity[attack], strict=True):
                units = units_in(PART, len(layer))
                chosen, random = (
                    curves.outcomes[ranking, units]
                    for ranking in ("sensitive", "random")
                )
                found[attack, curves.layer] = {
                    "units": units,
                    **{
                        share: [a - b for a, b in zip(chosen[share], random[share],
                                                      strict=True)]
                        for share in ("adversarial", "adaptive")
                    },
                }  # fmt: skip
        return found

    def _units(self) -> list[Row]:
        return [
            {"attack": attack, **row}
            for attack, layers in self.sensitivity.items()
            for layer in layers
            for row in layer.table()
        ]

    def _masking(self) -> list[Row]:
        return [
            {"attack": attack, **row, "pairs": len(self.good[attack])}
            for attack, curves in self.masking.items()
            for curve in curves
            for row in curve.table()
        ]

    def _dissected(self) -> str:
        layers = self.dissection.layers.values()
        parts = [t for layer in layers for t in (layer.thresholds, layer.intersections)]
        return fingerprint({}, [*parts, self.dissection.concept_areas])

    def _do(self, stage: str, tasks: Mapping[Any, Any], run: str) -> dict[Any, Row]:
        """The records of the tasks, by their keys."""
        keys = list(tasks)
        records = run_tasks(
            {f"{i:05d}": tasks[key] for i, key in enumerate(keys)},
            self.partial / stage,
            run,
            stage if self.show_progress else None,
        )
        return dict(zip(keys, records, strict=True))

    @staticmethod
    def _tensors(pairs: AdversarialPair) -> list[Tensor]:
        sides = pairs.natural, pairs.adversarial, pairs.true_label, pairs.attack_label
        return [x for x in sides if isinstance(x, Tensor)]
