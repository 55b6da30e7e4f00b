"""The study: all measurements of the paper, over the pairs of several attacks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from captum_pse._io.checked import with_digest
from captum_pse._io.distributed import barrier, rank_and_size
from captum_pse._io.files import atomic_results, plain, write_csv, write_json
from captum_pse._io.manifest import checked_settings, versions
from captum_pse._io.text import file_name
from captum_pse._model.checks import check_int, check_optional_int
from captum_pse._model.layers import find_layers, last_spatial_layer
from captum_pse._model.score import Score
from captum_pse.attacks.pgd import ADAPTIVE_EPS, ADAPTIVE_STEPS, check_unit_range
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.groups.masks import image_mask
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import check_pairs
from captum_pse.studies.result import FORMAT, FigureName, Study
from captum_pse.studies.settings import Settings
from captum_pse.studies.stages import Stages
from captum_pse.units.masking_test import RANDOM_SETS

#: The folder of partial results, inside the folder of the results.
PARTIAL = ".study-partial"


def study(
    model: nn.Module,
    attacks: Mapping[str, AdversarialPair],
    out: str | Path,
    *,
    layers: Sequence[str] | None = None,
    concepts: ConceptDataset | None = None,
    layer: str | None = None,
    cell: int | None = None,
    score: Score = "logit",
    adaptive_eps: float = ADAPTIVE_EPS,
    adaptive_steps: int = ADAPTIVE_STEPS,
    random_sets: int = RANDOM_SETS,
    seed: int = 0,
    batch_size: int = 16,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> Study:
    """Repeats the paper's analysis for one or several attacks on a model.

    Source: Xu et al., "Interpreting Adversarial Examples by Activation Promotion and
    Suppression", arXiv:1904.02057.

    All tables except ``attacks`` and ``pairs`` are computed on the pairs whose labels
    match the model's predictions. Intervals have a confidence level of 95 %, from 6
    pairs on: for means, see :func:`captum_pse._statistics.mean_test`; for fractions of
    pairs, Wilson's.

    The results are written into ``out`` together at the end: ``study.json`` with the
    manifest and all tables, ``tables/*.csv`` with each table that has rows, and
    ``figures/*.png``. The tables and their figures are:

    - ``attacks``, ``pairs``: the number of pairs of each attack, and the model's
      predictions on each pair
    - ``types``: the fractions of the types of groups, see
      :func:`captum_pse.studies.pair_record.type_shares`; ``types.png``
    - ``scores``: how far the types of groups agree between scores, see
      :func:`captum_pse.studies.score_agreement.score_agreement`
    - ``correlation``: Spearman's rho of effect and mean ``|delta|`` over the groups of
      a pair
    - ``refinement``, ``smallest_fraction``: whether the attack succeeds on a fraction
      of the groups, by ranking, see :func:`captum_pse.refine`; ``refinement.png``
    - ``interpretability``: scores with their expectation, lift and rank among shifts,
      see :func:`captum_pse.interpretability_score`; ``interpretability.png``
    - ``units``: the sensitivity of each unit of ``layers``
    - with ``concepts``, ``relation`` and ``enrichment``: see
      :func:`captum_pse.relate`; ``relation-<attack>.png``
    - ``masking``: the accuracy with 0, 10, 20 and 40 % of the units masked, on natural
      images, on the stored pairs, and under an adaptive attack on the masked model
      (projected gradient descent towards the same labels, within [0, 1]); see
      :func:`captum_pse.evaluate_masking`; ``masking-<attack>.png``
    - ``masking_tests``: the 10 % most sensitive units of each layer among random sets,
      see :func:`captum_pse.masking_test`
    - ``findings``: see :func:`captum_pse.studies.findings.findings`

    The same inputs, settings and seed give the same files. An interrupted run resumes
    when the same call is repeated (partial results in a hidden folder inside ``out``).
    Only partial results of the same model, pairs, concepts, settings and code are used;
    one that was damaged or edited is computed again, with a warning. Write one run at a
    time into a folder.
    Under ``torchrun`` the processes share the work, and the first one writes the
    results.

    Args:
        model (nn.Module): The model, which takes the images of the pairs as they are.
            It is moved to ``device``.
        attacks (mapping): The pairs of each attack, by name. Each has one image input
            ``(N, C, H, W)`` in [0, 1].
        out (str or Path): The folder of the results, created if it is missing.
        layers (sequence of str, optional): Layers whose units are measured. None means
            the last layer with a spatial output. Default: None
        concepts (ConceptDataset, optional): Images with concepts, in the form that the
            model takes. Default: None
        layer (str, optional): Layer of the class activation maps. None means the last
            layer with a spatial output. Default: None
        cell (int, optional): Side of a pixel group in pixels. None means
            :func:`captum_pse.default_feature_mask`. Default: None
        score (str, optional): Effects are differences of ``"logit"``, ``"centered"`` or
            ``"log_softmax"``; see :class:`captum_pse.PromotionSuppression`.
            Default: ``"logit"``
        adaptive_eps (float, optional): Largest change of a pixel by the adaptive
            attack, in [0, 1] units. Default: 2/255
        adaptive_steps (int, optional): Steps of the adaptive attack. Default: 10
        random_sets (int, optional): Largest number of random sets of units that the
            sensitive units are compared with; see :func:`captum_pse.masking_test`.
            With fewer than 40, no comparison is significant. Default: 199
        seed (int, optional): Seed of all random numbers. Default: 0
        batch_size (int, optional): Images in one forward pass. Default: 16
        device (str, optional): Device to compute on. Default: ``"cpu"``
        settings (mapping, optional): More settings to write down in the manifest.
            Partial results of other settings are not used. Default: None
        show_progress (bool, optional): Whether to show progress bars. Default: False

    Returns:
        *Study*: The tables and the manifest, the same in every process.

    Raises:
        ValueError: There are no attacks, two names give the same file name, the images
            differ in size or are not in [0, 1], a setting is out of range or has the
            name of one that the study writes down itself, the model has no such layer,
            a label is not one of its classes, the pairs are not images, or the model
            does not take them; or another run works in ``out``.
        TypeError: A layer is neither a module nor a name, or the labels of ``concepts``
            are not integers.

    Examples::

        >>> import tempfile
        >>> from captum_pse.demo import load_model, make_pairs
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = study(
        ...         load_model(), {"pgd": make_pairs(1)}, out, cell=32,
        ...         adaptive_steps=1, random_sets=9,
        ...     )
        ...     sorted(path.name for path in Path(out, "figures").iterdir())
        ['interpretability.png', 'masking-pgd.png', 'refinement.png', 'types.png']
        >>> found.tables["attacks"][0]["studied"]
        1
        >>> types = found.tables["types"]
        >>> round(sum(row["mean"] for row in types if row["groups"] == "all"), 6)
        1.0
    """
    if not attacks:
        raise ValueError("attacks: got none, want at least one set of pairs")
    if len({file_name(name) for name in attacks}) < len(attacks):
        raise ValueError(f"attacks: got {list(attacks)}, want names that differ")
    if not 0 < adaptive_eps <= 1:
        raise ValueError(
            f"adaptive_eps: got {adaptive_eps}, want more than 0, at most 1"
        )
    adaptive_steps = check_int("adaptive_steps", adaptive_steps, 1)
    random_sets = check_int("random_sets", random_sets, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    seed = check_int("seed", seed, 0)
    cell = check_optional_int("cell", cell, 1)
    device = str(device)
    model = model.to(device)
    firsts = [check_pairs(model, pairs, device, score) for pairs in attacks.values()]
    for pairs in attacks.values():
        assert isinstance(pairs.natural, Tensor)
        check_unit_range("attacks", pairs.natural)
    if len({first[0].shape for first in firsts}) > 1:
        raise ValueError("attacks: got images of different sizes, want one size")
    first = firsts[0]
    last = last_spatial_layer(model, first)
    chosen = Settings(
        layers=list(layers or [last]),
        layer=layer or last,
        cell=cell,
        score=score,
        adaptive_eps=adaptive_eps,
        adaptive_steps=adaptive_steps,
        random_sets=random_sets,
        seed=seed,
        batch_size=batch_size,
        device=device,
    )
    # Unknown layers raise before the work starts.
    find_layers(model, [*chosen.layers, chosen.layer])
    run = Stages(
        model,
        attacks,
        image_mask(first[0], cell),
        chosen,
        checked_settings(settings, ("format", "digests", *versions(), *asdict(chosen))),
        concepts,
        Path(out) / PARTIAL,
        show_progress,
    )
    tables = run.tables()
    found = Study(plain(tables), plain({"format": FORMAT, **run.manifest()}))
    if rank_and_size()[0] == 0:
        _write(found, run, Path(out))
        shutil.rmtree(Path(out) / PARTIAL, ignore_errors=True)
    barrier()
    return found


def _write(found: Study, run: Stages, out: Path) -> None:
    from captum_pse.units.figure import plot_masking, plot_relation

    with atomic_results(out) as folder:
        values = {"manifest": found.manifest, "tables": found.tables}
        write_json(folder / "study.json", with_digest(values))
        # These folders replace those of an earlier run.
        for name in ("tables", "figures"):
            (folder / name).mkdir()
        for name, rows in found.tables.items():
            if rows:
                write_csv(folder / f"tables/{name}.csv", rows)
        figures = {name: found.plot(name) for name in get_args(FigureName)}
        for attack, curves in run.masking.items():
            title = f"{attack}, {len(run.studied[attack])} pairs"
            figures[f"masking-{file_name(attack)}"] = plot_masking(curves, title=title)
        if run.concepts is not None:
            for attack, relation in run.relations.items():
                title = f"{attack}, {len(run.studied[attack])} pairs"
                name = f"relation-{file_name(attack)}"
                figures[name] = plot_relation(relation, title=title)
        for name, figure in figures.items():
            figure.save(folder / f"figures/{name}.png")
