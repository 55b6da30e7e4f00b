"""The study: everything that the paper measures, over several sets of pairs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_pse._checkpoint import fingerprint
from captum_pse._distributed import barrier, rank_and_size
from captum_pse._files import atomic_results, plain, versions, write_csv, write_json
from captum_pse._layers import find_layers, last_spatial_layer
from captum_pse._text import file_name
from captum_pse.adversarial_cam import AdversarialCAM
from captum_pse.attacks.pgd import targeted_pgd
from captum_pse.dissection import ConceptDataset, Dissection, NetworkDissection
from captum_pse.dissection_sensitivity import DissectionSensitivity
from captum_pse.explain import check_pairs
from captum_pse.groups import default_feature_mask, grid_mask
from captum_pse.pair import AdversarialPair
from captum_pse.promotion_suppression import PromotionSuppression
from captum_pse.refinement import FRACTIONS
from captum_pse.relation import Relation, relate
from captum_pse.studies.findings import findings
from captum_pse.studies.of_pair import study_pair
from captum_pse.studies.tables import Record, Row, Tables, holds, pair_tables
from captum_pse.studies.tasks import run_tasks
from captum_pse.unit_masking import MaskingCurves, evaluate_masking
from captum_pse.unit_sensitivity import UnitSensitivity

#: The folder of partial results, inside that of the results.
PARTIAL = ".study-partial"
#: Which parts of a layer's units are masked.
PARTS = (0, 0.05, 0.1, 0.2, 0.4)
#: In which order.
RANKED = ("sensitive", "interpretable", "least sensitive", "random")


@dataclass(frozen=True, eq=False)
class Study:
    """What the study found, as tables: lists of dicts, one a row.

    Attributes:
        tables (dict[str, list[dict]]): By the name of the file.
        manifest (dict): Versions, seed, settings and digests of what came in.
    """

    tables: Tables
    manifest: Row


def study(
    model: nn.Module,
    attacks: Mapping[str, AdversarialPair],
    out: str | Path,
    *,
    layers: Sequence[str] | None = None,
    concepts: ConceptDataset | None = None,
    layer: str | None = None,
    cell: int | None = None,
    fresh_eps: float = 2 / 255,
    fresh_steps: int = 10,
    seed: int = 0,
    batch: int = 16,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> Study:
    """The paper's analysis of one or several attacks on a model.

    Pairs on which the model does not say the true label before the attack and the
    attack's after it are counted, and left out of all else. Intervals are of 95 %, by
    bootstrap over pairs where nothing else is said.

    Puts into ``out``, all at once when all is done, ``study.json`` with the manifest
    and all tables, the tables as CSV, and figures:

    - ``attacks``, ``pairs``: how many there are, and what the model says of each
    - ``types``: shares of the types of groups, see
      :func:`captum_pse.studies.of_pair.type_shares`; ``types.png``
    - ``correlation``: of effect and mean ``|delta|``, over a pair's groups (Spearman)
    - ``refinement``, ``smallest``: how the attack fares on part of its groups, by
      ranking, see :func:`captum_pse.refine`; ``refinement.png``
    - ``interpretability``: scores with baseline and lift, see
      :func:`captum_pse.interpretability_score`; ``interpretability.png``
    - ``units``: the sensitivity of each unit of ``layers``
    - with ``concepts``, ``relation`` and ``enrichment``, see
      :func:`captum_pse.relate`; ``relation-<attack>.png``
    - ``masking``: accuracy as units are masked, clean, under the stored pairs, and
      under a new attack on the masked model (projected gradient descent towards the
      same labels); see :func:`captum_pse.evaluate_masking`; ``masking-<attack>.png``
    - ``findings``: see :func:`captum_pse.studies.findings.findings`

    The same inputs, settings and seed give the same files. A killed run leaves partial
    results in a hidden folder there, from which the same call goes on. Under
    ``torchrun`` the processes share the work, and the first one writes.

    Args:
        model (nn.Module): Takes the pairs' images as they are; moved to ``device``.
        attacks (mapping): By name, the pairs that an attack made, of one image input.
        out (str or Path): The folder, made where it is missing.
        layers (sequence of str, optional): Those whose units are looked at; None takes
            the last one with a spatial output. Default: None
        concepts (ConceptDataset, optional): In the form that the model takes.
            Default: None
        layer (str, optional): Of the class activation maps, likewise. Default: None
        cell (int, optional): Side of the pixel groups; None takes
            :func:`captum_pse.default_feature_mask`. Default: None
        fresh_eps (float, optional): Largest change of a pixel by the new attack, in
            [0, 1] units. Default: 2/255
        fresh_steps (int, optional): Its steps. Default: 10
        seed (int, optional): Of everything random. Default: 0
        batch, device, settings, show_progress: As :func:`captum_pse.explain.explain`.

    Raises:
        TypeError, ValueError: No attacks, names that make the same file name, pairs of
            images of different sizes, or as :func:`captum_pse.explain.explain`.
    """
    if not attacks:
        raise ValueError("attacks: got none, want at least one set of pairs")
    if len({file_name(name) for name in attacks}) < len(attacks):
        raise ValueError(f"attacks: got {list(attacks)}, want names that differ")
    if not 0 < fresh_eps <= 1:
        raise ValueError(f"fresh_eps: got {fresh_eps}, want more than 0, at most 1")
    model = model.to(device)
    firsts = [check_pairs(model, pairs, device) for pairs in attacks.values()]
    if len({first[0].shape for first in firsts}) > 1:
        raise ValueError("attacks: got images of different sizes, want one size")
    first = firsts[0]
    last = last_spatial_layer(model, first)
    names, of_maps = list(layers or [last]), layer or last
    # Before anything is computed: are there such layers?
    find_layers(model, [*names, of_maps])
    chosen = {
        "layers": names,
        "layer": of_maps,
        "cell": cell,
        "fresh_eps": fresh_eps,
        "fresh_steps": fresh_steps,
        "seed": seed,
        "batch": batch,
        "device": device,
    }
    mask = (
        default_feature_mask(first)[0]
        if cell is None
        else grid_mask(first[0].shape[2:], cell=cell)
    )
    run = _Run(model, attacks, mask, chosen, concepts, Path(out), show_progress)
    tables = run.tables()
    found = Study(plain(tables), plain({**run.manifest(), **(settings or {})}))
    if rank_and_size()[0] == 0:
        _write(found, run, Path(out))
        shutil.rmtree(Path(out) / PARTIAL)
    barrier()
    return found


class _Run:
    """One run: its stages, each of which keeps what it has done."""

    def __init__(
        self,
        model: nn.Module,
        attacks: Mapping[str, AdversarialPair],
        mask: Tensor,
        chosen: Mapping[str, Any],
        concepts: ConceptDataset | None,
        out: Path,
        show_progress: bool,
    ) -> None:
        self.model, self.attacks, self.mask = model, attacks, mask
        self.chosen, self.concepts = chosen, concepts
        self.partial = out / PARTIAL
        self.show_progress = show_progress

    @cached_property
    def digest(self) -> str:
        """Of all that the stages start from, but for the concepts."""
        state = self.model.state_dict()
        told = {**self.chosen, **versions(), "state": list(state)}
        tensors = [self.mask, *state.values()]
        for name, pairs in self.attacks.items():
            told[f"attack {name}"] = list(pairs.names)
            tensors += self._tensors(pairs)
        return fingerprint(told, tensors)

    def manifest(self) -> Row:
        digests = {
            name: fingerprint({}, self._tensors(pairs))
            for name, pairs in self.attacks.items()
        }
        state = self.model.state_dict()
        digests["model"] = fingerprint({"state": list(state)}, state.values())
        if self.concepts is not None:
            digests["dissection"] = self._dissected()
        return {**versions(), **self.chosen, "digests": digests}

    def tables(self) -> Tables:
        seed = self.chosen["seed"]
        tables = pair_tables(self.records, FRACTIONS, seed)
        tables["units"] = self._units()
        if self.concepts is not None:
            tables["relation"], tables["enrichment"] = [], []
            for attack, relation in self.relations.items():
                for table in ("correlations", "enrichments"):
                    name = "relation" if table == "correlations" else "enrichment"
                    tables[name] += [
                        {"attack": attack, **row} for row in getattr(relation, table)
                    ]
        tables["masking"] = self._masking()
        tables["findings"] = findings(self.records, tables, seed)
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
                batch=self.chosen["batch"],
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
                pairs, batch_size=self.chosen["batch"], seed=self.chosen["seed"]
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
            batch_size=self.chosen["batch"],
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
        seed, batch = self.chosen["seed"], self.chosen["batch"]

        def attack(model: nn.Module, pairs: AdversarialPair) -> Tensor:
            return targeted_pgd(
                model, *(getattr(pairs, name) for name in ("natural", "attack_label")),
                eps=self.chosen["fresh_eps"], steps=self.chosen["fresh_steps"],
                batch_size=batch,
            )  # fmt: skip

        def record(name: str, layer: UnitSensitivity, count: int) -> Row:
            rankings = {"sensitive": layer.mean, "least sensitive": -layer.mean}
            if self.concepts is not None:
                rankings["interpretable"] = self.dissection.best(layer.layer)[0]
            curves = evaluate_masking(
                self.model, self.good[name], layer.layer, rankings, [count],
                seeds=range(seed, seed + 3), attack=attack, batch_size=batch,
            )  # fmt: skip
            return {"rows": curves.rows}

        counts = {
            layer.layer: sorted({round(part * len(layer)) for part in PARTS})
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
                MaskingCurves(
                    layer.layer,
                    sorted(
                        (
                            row
                            for count in counts[layer.layer]
                            for row in found[name, k, count]["rows"]
                        ),
                        key=lambda row: RANKED.index(row["masked"]),
                    ),
                )
                for k, layer in enumerate(layers)
            ]
            for name, layers in self.sensitivity.items()
        }

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
            for row in curve.rows
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


def _write(found: Study, run: _Run, out: Path) -> None:
    from captum_pse.visualization import (
        plot_interpretability,
        plot_masking,
        plot_refinement_curves,
        plot_relation,
        plot_types,
    )

    with atomic_results(out) as folder:
        write_json(
            folder / "study.json", {"manifest": found.manifest, "tables": found.tables}
        )
        for name, rows in found.tables.items():
            if rows:
                write_csv(folder / f"{name}.csv", rows)
        tables = found.tables
        figures = {
            "types": plot_types(tables["types"]),
            "refinement": plot_refinement_curves(tables["refinement"]),
            "interpretability": plot_interpretability(
                tables["interpretability"], tables["correlation"]
            ),
        }
        for attack, curves in run.masking.items():
            title = f"{attack}, {len(run.good[attack])} pairs"
            figures[f"masking-{file_name(attack)}"] = plot_masking(curves, title=title)
        if run.concepts is not None:
            for attack, relation in run.relations.items():
                title = f"{attack}, {len(run.good[attack])} pairs"
                name = f"relation-{file_name(attack)}"
                figures[name] = plot_relation(relation, title=title)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=110)
