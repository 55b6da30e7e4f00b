"""The stages of the study, each of which keeps its partial results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from captum_pse._io.digest import digest
from captum_pse._io.manifest import versions
from captum_pse._io.saved import digest_of
from captum_pse._io.tasks import run_tasks
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.network_dissection import NetworkDissection
from captum_pse.dissection.result import Dissection
from captum_pse.pairs.labels import warnings_in_records
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pixels.promotion_suppression import PromotionSuppression
from captum_pse.pixels.refinement import FRACTIONS
from captum_pse.regions.adversarial_cam import AdversarialCAM
from captum_pse.studies.digests import model_digest, pairs_digest, run_digest
from captum_pse.studies.findings import findings
from captum_pse.studies.pair_record import study_pair
from captum_pse.studies.settings import Settings
from captum_pse.studies.tables import (
    Record,
    Row,
    Tables,
    pair_tables,
    predictions_match,
)
from captum_pse.units.dissection_sensitivity import DissectionSensitivity
from captum_pse.units.masked_accuracy import AdaptiveAttack, adaptive_pgd
from captum_pse.units.masking_curves import MaskingCurves, evaluate_masking
from captum_pse.units.masking_test import MaskingTest, Outcome, masking_test
from captum_pse.units.rankings import order_of, unit_rankings, units_in
from captum_pse.units.relation import Relation, relate
from captum_pse.units.sensitivity import UnitSensitivity

Key = TypeVar("Key", bound=Hashable)

#: The fractions of a layer's units that are masked.
MASKED_FRACTIONS = (0, 0.1, 0.2, 0.4)
#: The one of them that the findings test, chosen before any result was known.
TESTED_FRACTION = 0.1


class Stages:
    """One run of the study, in stages that are computed when they are first needed.

    Args:
        model (nn.Module): The model, on its device.
        attacks (mapping): The pairs of each attack, by name.
        mask (Tensor): The feature mask of all images.
        settings (Settings): The settings of the study.
        extra (mapping): More settings of the caller, as plain JSON.
        concepts (ConceptDataset, optional): The concepts to dissect the layers with.
        partial_results (Path): The folder of partial results.
        show_progress (bool): Whether to show progress bars.
    """

    def __init__(
        self,
        model: nn.Module,
        attacks: Mapping[str, AdversarialPair],
        mask: Tensor,
        settings: Settings,
        extra: Mapping[str, Any],
        concepts: ConceptDataset | None,
        partial_results: Path,
        show_progress: bool,
    ) -> None:
        self.model, self.attacks, self.mask = model, attacks, mask
        self.settings, self.extra, self.concepts = settings, extra, concepts
        self.partial_results = partial_results
        self.show_progress = show_progress
        self.model_digest = model_digest(model, attacks, settings.device)

    def tables(self) -> Tables:
        """All tables of the study, by name."""
        tables = pair_tables(self.records, FRACTIONS)
        tables["units"] = [
            {"attack": attack, **row}
            for attack, layers in self.sensitivity.items()
            for layer in layers
            for row in layer.table()
        ]
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
        tables["masking"] = [
            {"attack": attack, **row, "pairs": len(self.studied[attack])}
            for attack, curves in self.masking.items()
            for curve in curves
            for row in curve.table()
        ]
        tables["masking_tests"] = [
            {"attack": attack, **test.to_record(), "pairs": len(self.studied[attack])}
            for attack, tests in self.masking_tests.items()
            for test in tests
        ]
        tables["findings"] = findings(self.records, tables, self.masking_tests)
        return tables

    def manifest(self) -> Row:
        """The versions, the settings, and digests of the inputs."""
        digests = {name: pairs_digest(pairs) for name, pairs in self.attacks.items()}
        digests["model"] = self.model_digest
        if self.concepts is not None:
            digests["dissection"] = digest_of(self.dissection)
        device = torch.device(self.settings.device).type
        settings = asdict(self.settings) | {"device": device}
        return {**versions(), **settings, **self.extra, "digests": digests}

    @cached_property
    def digest(self) -> str:
        """The digest of all inputs except the concepts."""
        return run_digest(
            self.model_digest, self.attacks, self.mask, self.settings, self.extra
        )

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """By attack, one record for each pair; see :func:`study_pair`."""
        score = self.settings.score
        pixels = PromotionSuppression(self.model, score=score)
        maps = AdversarialCAM(self.model, self.settings.layer, score=score)

        def record(pairs: AdversarialPair, i: int) -> Row:
            found = study_pair(
                pixels,
                maps,
                pairs.select(i).to(self.settings.device),
                self.mask,
                batch_size=self.settings.batch_size,
                seed=self.settings.seed + i,
            )
            return {"pair": pairs.names[i], **found}

        tasks = {
            (name, i): partial(record, pairs, i)
            for name, pairs in self.attacks.items()
            for i in range(len(pairs))
        }
        found = self._run("pairs", tasks)
        return {
            name: [found[name, i] for i in range(len(pairs))]
            for name, pairs in self.attacks.items()
        }

    @cached_property
    def studied(self) -> dict[str, AdversarialPair]:
        """By attack, the pairs whose labels match the model's predictions.

        Attacks without such pairs are left out.
        """
        masks = {
            name: torch.tensor([predictions_match(record) for record in records])
            for name, records in self.records.items()
        }
        return {
            name: self.attacks[name].select(mask).to(self.settings.device)
            for name, mask in masks.items()
            if mask.any()
        }

    @cached_property
    def sensitivity(self) -> dict[str, list[UnitSensitivity]]:
        """By attack, the sensitivity of the units of each layer."""
        method = DissectionSensitivity(self.model, self.settings.layers)

        def record(pairs: AdversarialPair) -> Row:
            layers = method.over(
                pairs, batch_size=self.settings.batch_size, seed=self.settings.seed
            )
            return {"layers": [layer.to_record() for layer in layers]}

        tasks = {name: partial(record, pairs) for name, pairs in self.studied.items()}
        found = self._run("units", tasks, self.records)
        return {
            name: [UnitSensitivity.of_record(layer) for layer in record["layers"]]
            for name, record in found.items()
        }

    @cached_property
    def dissection(self) -> Dissection:
        """The concepts that the units of the layers detect."""
        assert self.concepts is not None
        method = NetworkDissection(self.model, self.settings.layers)
        return method.dissect(
            self.concepts,
            batch_size=self.settings.batch_size,
            device=self.settings.device,
            checkpoints=self.partial_results / "dissection",
            show_progress=self.show_progress,
        )

    @cached_property
    def relations(self) -> dict[str, Relation]:
        """By attack, the relation of sensitivity and interpretability."""
        return {
            name: relate(layers, self.dissection, seed=self.settings.seed)
            for name, layers in self.sensitivity.items()
        }

    @cached_property
    def masking(self) -> dict[str, list[MaskingCurves]]:
        """By attack, the masking curves of each layer."""
        seed = self.settings.seed

        def record(name: str, layer: UnitSensitivity, count: int) -> Row:
            dissection = None if self.concepts is None else self.dissection
            # The study warned of probabilities at its start.
            with warnings_in_records():
                curves = evaluate_masking(
                    self.model,
                    self.studied[name],
                    layer.layer,
                    unit_rankings(layer, dissection),
                    [count],
                    seeds=range(seed, seed + 3),
                    attack=self._adaptive_attack(),
                    batch_size=self.settings.batch_size,
                )
            return curves.to_record()

        def counts(layer: UnitSensitivity) -> list[int]:
            return sorted({units_in(f, len(layer)) for f in MASKED_FRACTIONS})

        tasks = {
            (name, k, count): partial(record, name, layer, count)
            for name, layers in self.sensitivity.items()
            for k, layer in enumerate(layers)
            for count in counts(layer)
        }
        measured = self._measured()
        if self.concepts is not None:
            measured.append(digest_of(self.dissection))
        found = self._run("masking", tasks, self.records, measured)
        curves = {key: MaskingCurves.of_record(each) for key, each in found.items()}
        return {
            name: [
                MaskingCurves.join([curves[name, k, count] for count in counts(layer)])
                for k, layer in enumerate(layers)
            ]
            for name, layers in self.sensitivity.items()
        }

    @cached_property
    def masking_tests(self) -> dict[str, list[MaskingTest]]:
        """By attack, the most sensitive units of each layer among random sets, under
        the stored and the adaptive attack."""

        def record(name: str, layer: UnitSensitivity, outcome: Outcome) -> Row:
            units = units_in(TESTED_FRACTION, len(layer))
            with warnings_in_records():
                return masking_test(
                    self.model,
                    self.studied[name],
                    layer.layer,
                    order_of(layer.mean)[:units],
                    outcome,
                    sets=self.settings.random_sets,
                    seed=self.settings.seed,
                    attack=self._adaptive_attack(),
                    batch_size=self.settings.batch_size,
                ).to_record()

        outcomes: tuple[Outcome, ...] = ("adversarial", "adaptive")
        tasks = {
            (name, k, outcome): partial(record, name, layer, outcome)
            for name, layers in self.sensitivity.items()
            for k, layer in enumerate(layers)
            for outcome in outcomes
        }
        found = self._run("masking-tests", tasks, self.records, self._measured())
        return {
            name: [MaskingTest(**r) for (of, *_), r in found.items() if of == name]
            for name in self.sensitivity
        }

    def _measured(self) -> list[str]:
        """The digests of all sensitivities."""
        return [digest_of(x) for xs in self.sensitivity.values() for x in xs]

    def _adaptive_attack(self) -> AdaptiveAttack:
        return partial(
            adaptive_pgd,
            eps=self.settings.adaptive_eps,
            steps=self.settings.adaptive_steps,
            batch_size=self.settings.batch_size,
        )

    def _run(
        self, stage: str, tasks: Mapping[Key, Callable[[], Row]], *depends_on: Any
    ) -> dict[Key, Row]:
        """The record of each task, by the task's key.

        Args:
            stage (str): The name of the stage.
            tasks (mapping): The tasks by their keys.
            *depends_on: The results of earlier stages that the tasks read.
        """
        return run_tasks(
            tasks,
            self.partial_results / stage,
            digest(self.digest, *depends_on),
            stage if self.show_progress else None,
        )
