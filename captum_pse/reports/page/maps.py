"""The maps of a pair, as pictures of the page."""

from __future__ import annotations

from math import isnan

import numpy as np

from captum_pse._drawing.images import positive, to_numpy
from captum_pse.pixels.maps import pixel_maps
from captum_pse.pixels.result import PixelDecomposition
from captum_pse.regions.result import CLASS_MAPS, RegionDecomposition
from captum_pse.reports.page.colours import Scale, draw_types
from captum_pse.reports.page.pictures import Picture, both_sizes, drawn
from captum_pse.reports.page.tables import type_counts

_TITLES = {
    "natural_true": "true label on the natural image",
    "adversarial_true": "true label on the adversarial image",
    "natural_attack": "attack label on the natural image",
    "adversarial_attack": "attack label on the adversarial image",
}


def group_pictures(result: PixelDecomposition, example: int) -> list[Picture]:
    """Pictures of the types, the effect, promotion, suppression and ratio of groups.

    Effect, promotion and suppression share one scale. The scale of the ratio is
    symmetric about 0. Groups that differ between channels are drawn by their mean, as
    in :func:`captum_pse.visualization.plot_pair`.
    """
    maps, unit = pixel_maps(result, example), result.pair.kind.plural
    top, octaves = (
        positive(float(values[~values.isnan()].abs().max()))
        for values in (maps.effect, maps.ratio)
    )
    kinds = Picture(
        "type",
        "type of each group",
        *both_sizes(draw_types(to_numpy(maps.types))),
        over="adversarial",
        kinds=type_counts(result.summary()[example]),
    )
    return [
        kinds,
        *(
            drawn(key, title, to_numpy(values), scale, over="adversarial")
            for key, title, values, scale in (
                ("effect", "effect: promotion plus suppression", maps.effect,
                 Scale("viridis", 0, top, unit)),
                ("promotion", "promotion of the attack label", maps.promotion,
                 Scale("Oranges", 0, top, unit)),
                ("suppression", "suppression of the true label", maps.suppression,
                 Scale("Purples", 0, top, unit)),
                ("ratio", "ratio promotion : suppression", maps.ratio,
                 Scale("PuOr_r", -octaves, octaves, "octaves")),
            )
        ),
    ]  # fmt: skip


def region_pictures(result: RegionDecomposition, example: int) -> list[Picture]:
    """Pictures of the promotion and suppression of regions, and of the four class maps.

    Promotion and suppression share a scale that is symmetric about 0. The four class
    maps share another one, as in :func:`captum_pse.visualization.plot_regions`.
    """
    of_labels = {
        which: to_numpy(result.on_inputs(which)[example, 0])  # type: ignore[arg-type]
        for which in CLASS_MAPS
    }
    promotion = of_labels["adversarial_attack"] - of_labels["natural_attack"]
    suppression = of_labels["natural_true"] - of_labels["adversarial_true"]
    reach = positive(float(np.abs([promotion, suppression]).max()))
    values = np.stack(list(of_labels.values()))
    common = Scale(
        "viridis", min(float(values.min()), 0.0), positive(float(values.max())), "map"
    )
    differences = (
        ("promotion", "promotion: attack label's evidence gained", promotion,
         "PuOr_r", "adversarial"),
        ("suppression", "suppression: true label's evidence lost", suppression,
         "PuOr", "natural"),
    )  # fmt: skip
    return [
        *(
            drawn(key, title, change, Scale(colours, -reach, reach, "map"), over)
            for key, title, change, colours, over in differences
        ),
        *(
            drawn(
                which,
                _TITLES[which],
                values,
                common,
                over=which.split("_")[0],
                note=_score(result, which, example),
            )
            for which, values in of_labels.items()
        ),
    ]


def _score(result: RegionDecomposition, which: str, example: int) -> str:
    """The interpretability score of the two maps that the summary reports, else ""."""
    if which not in ("natural_true", "adversarial_attack"):
        return ""
    found = result.interpretability(which)  # type: ignore[arg-type]
    score, lift = float(found.score[example]), float(found.lift[example])
    text = f"interpretability score {score:.2f}"
    # A perturbation of 0 has no lift.
    return text if isnan(lift) else f"{text}, {lift:.2f} times a shifted mask's"
