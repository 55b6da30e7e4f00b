"""The study: everything that the paper measures, over several sets of pairs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from captum_pse._io.distributed import barrier, rank_and_size
from captum_pse._io.files import atomic_results, plain, write_csv, write_json
from captum_pse._io.manifest import told, versions
from captum_pse._io.text import file_name
from captum_pse._model.checks import check_positive_int
from captum_pse._model.layers import find_layers, last_spatial_layer
from captum_pse.attacks.pgd import ADAPTIVE_EPS, ADAPTIVE_STEPS, check_unit_range
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.groups.masks import image_mask
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import check_pairs
from captum_pse.studies.result import FORMAT, OfAll, Study
from captum_pse.studies.stages import Stages

#: The folder of partial results, inside that of the results.
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
    adaptive_eps: float = ADAPTIVE_EPS,
    adaptive_steps: int = ADAPTIVE_STEPS,
    seed: int = 0,
    batch_size: int = 16,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> Study:
    """The paper's analysis of one or several attacks on a model.

    Source: Xu et al., "Interpreting Adversarial Examples by Activation Promotion and
    Suppression", arXiv:1904.02057.

    Pairs on which the model does not say the true label before the attack and the
    attack's after it are counted, and left out of all else. Intervals are of 95 %: of
    means by bootstrap over pairs, of shares Wilson's.

    Puts into ``out``, all at once when all is done, ``study.json`` with the manifest
    and all tables; ``tables/*.csv``, those that have rows; and ``figures/*.png``:

    - ``attacks``, ``pairs``: how many there are, and what the model says of each
    - ``types``: shares of the types of groups, see
      :func:`captum_pse.studies.of_pair.type_shares`; ``types.png``
    - ``correlation``: of effect and mean ``|delta|``, over a pair's groups (Spearman)
    - ``refinement``, ``smallest_fraction``: whether the attack works on a fraction of
      its groups, by ranking, see :func:`captum_pse.refine`; ``refinement.png``
    - ``interpretability``: scores with their expectation and lift, see
      :func:`captum_pse.interpretability_score`; ``interpretability.png``
    - ``units``: the sensitivity of each unit of ``layers``
    - with ``concepts``, ``relation`` and ``enrichment``, see
      :func:`captum_pse.relate`; ``relation-<attack>.png``
    - ``masking``: accuracy as 10, 20 and 40 percent of the units are masked, clean,
      under the stored pairs, and under a new attack on the masked model (projected
      gradient descent towards the same labels, within [0, 1]); see
      :func:`captum_pse.evaluate_masking`; ``masking-<attack>.png``
    - ``findings``: see :func:`captum_pse.studies.findings.findings`

    The same inputs, settings and seed give the same files. A killed run leaves partial
    results in a hidden folder there, from which the same call goes on. Under
    ``torchrun`` the processes share the work, and the first one writes.

    Args:
        model (nn.Module): Takes the pairs' images as they are; moved to ``device``.
        attacks (mapping): By name, the pairs that an attack made, of one image input
            ``(N, C, H, W)`` in [0, 1].
        out (str or Path): The folder, made where it is missing.
        layers (sequence of str, optional): Those whose units are looked at; None takes
            the last one with a spatial output. Default: None
        concepts (ConceptDataset, optional): In the form that the model takes.
            Default: None
        layer (str, optional): Of the class activation maps, likewise. Default: None
        cell (int, optional): Side of the pixel groups; None takes
            :func:`captum_pse.default_feature_mask`. Default: None
        adaptive_eps (float, optional): Largest change of a pixel by the new attack, in
            [0, 1] units. Default: 2/255
        adaptive_steps (int, optional): Its steps. Default: 10
        seed (int, optional): Of everything random. Default: 0
        batch_size (int, optional): How many images one pass holds. Default: 16
        device (str, optional): Where to compute. Default: ``"cpu"``
        settings (mapping, optional): More that the results depend on, to write down;
            partial results of other settings are not used. Default: None
        show_progress (bool, optional): Whether to show progress bars. Default: False

    Returns:
        *Study*: The tables and the manifest, the same in every process.

    Raises:
        ValueError: No attacks, names that make the same file name, images of different
            sizes or not in [0, 1], a setting that is out of range, no such layer, a
            label that is not one of the model's classes, or pairs that are not images
            or that the model does not take.
        TypeError: A layer is neither a module nor a name, or ``concepts`` have labels
            that are no integers.

    Examples::

        >>> import tempfile
        >>> from captum_pse.demo import load_model, make_pairs
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = study(
        ...         load_model(), {"pgd": make_pairs(1)}, out, cell=32, adaptive_steps=1
        ...     )
        ...     sorted(path.name for path in Path(out, "figures").iterdir())
        ['interpretability.png', 'masking-pgd.png', 'refinement.png', 'types.png']
        >>> found.tables["attacks"][0]["studied"]
        1
        >>> shares = [r["mean"] for r in found.tables["types"] if r["groups"] == "all"]
        >>> round(sum(shares), 6)
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
    check_positive_int("adaptive_steps", adaptive_steps)
    check_positive_int("batch_size", batch_size)
    if seed < 0:
        raise ValueError(f"seed: got {seed}, want 0 or more")
    device = str(device)
    model = model.to(device)
    firsts = [check_pairs(model, pairs, device) for pairs in attacks.values()]
    for pairs in attacks.values():
        assert isinstance(pairs.natural, Tensor)
        check_unit_range("attacks", pairs.natural)
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
        "adaptive_eps": adaptive_eps,
        "adaptive_steps": adaptive_steps,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
    }
    mask = image_mask(first[0], cell)
    own = ("format", "digests", *versions(), *chosen)
    more = told(settings, own)
    run = Stages(
        model, attacks, mask, chosen, more, concepts, Path(out) / PARTIAL, show_progress
    )
    tables = run.tables()
    found = Study(plain(tables), plain({"format": FORMAT, **run.manifest()}))
    if rank_and_size()[0] == 0:
        _write(found, run, Path(out))
        shutil.rmtree(Path(out) / PARTIAL)
    barrier()
    return found


def _write(found: Study, run: Stages, out: Path) -> None:
    from captum_pse.units.figure import plot_masking, plot_relation

    with atomic_results(out) as folder:
        write_json(
            folder / "study.json", {"manifest": found.manifest, "tables": found.tables}
        )
        # Folders take the place of an earlier run's as a whole.
        for name in ("tables", "figures"):
            (folder / name).mkdir()
        for name, rows in found.tables.items():
            if rows:
                write_csv(folder / f"tables/{name}.csv", rows)
        figures = {name: found.plot(name) for name in get_args(OfAll)}
        for attack, curves in run.masking.items():
            title = f"{attack}, {len(run.good[attack])} pairs"
            figures[f"masking-{file_name(attack)}"] = plot_masking(curves, title=title)
        if run.concepts is not None:
            for attack, relation in run.relations.items():
                title = f"{attack}, {len(run.good[attack])} pairs"
                name = f"relation-{file_name(attack)}"
                figures[name] = plot_relation(relation, title=title)
        for name, figure in figures.items():
            figure.savefig(folder / f"figures/{name}.png", dpi=110)
