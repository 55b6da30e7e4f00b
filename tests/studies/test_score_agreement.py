"""How far the types of groups depend on the score, in the study."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from captum_pse import (
    AdversarialCAM,
    PixelDecomposition,
    ProbabilityWarning,
    PromotionSuppression,
    grid_mask,
    study,
)
from captum_pse.demo import load_model, make_pairs
from captum_pse.studies.pair_record import study_pair
from captum_pse.studies.score_agreement import agreement_rows

LAYER = "features.conv5"
MASK = grid_mask((64, 64), cell=16)
ALL = {
    "logit": lambda logits: logits,
    "centered logit": lambda logits: logits - logits.mean(1, keepdim=True),
    "log-probability": lambda logits: logits.log_softmax(1),
}
#: By what follows the demo's logits, the scores that the model has.
MODELS = {
    "logits": (nn.Identity(), [*ALL]),
    "log-probabilities": (nn.LogSoftmax(1), ["log-probability", "centered logit"]),
    "probabilities": (nn.Softmax(1), []),
}


@pytest.mark.filterwarnings("ignore::captum_pse.SaturationWarning")
@pytest.mark.parametrize(("last", "kinds"), MODELS.values(), ids=MODELS)
def test_records_count_equal_types(last: nn.Module, kinds: list[str]) -> None:
    logits, pair = load_model(), make_pairs(1)
    found: dict[str, PixelDecomposition] = {}

    def returning(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: of(logits(x))

    for name in kinds:
        method = PromotionSuppression(returning(ALL[name]))
        found[name] = method.decompose(*pair, feature_mask=MASK)
    model = nn.Sequential(logits, last)
    record = study_pair(
        PromotionSuppression(model),
        AdversarialCAM(model, f"0.{LAYER}"),
        pair,
        MASK,
        batch_size=16,
        seed=0,
    )
    wanted = []
    for one, other in combinations(kinds, 2):
        effect = found[kinds[0]].effect[0]
        same = (found[one].type_codes == found[other].type_codes)[0].double()
        wanted.append(
            {
                "score": one,
                "other": other,
                "all": float(same.mean()),
                "above_median": float(same[effect > np.median(effect)].mean()),
            }
        )
    assert record["scores"] == [
        {k: pytest.approx(v) if isinstance(v, float) else v for k, v in row.items()}
        for row in wanted
    ]
    # The choice of the score changes types, so that equal types are a result.
    assert all(row["all"] < 1 for row in wanted)


def test_rows_are_means_over_pairs() -> None:
    def of_pair(share: float, above: float | None) -> list[dict[str, object]]:
        return [{"score": "a", "other": "b", "all": share, "above_median": above}]

    records = [of_pair(i / 10, None if i == 0 else 0.5) for i in range(6)]
    rows = agreement_rows(records)
    assert [(row["groups"], row["pairs"]) for row in rows] == [
        ("all", 6),
        ("above_median", 5),
    ]
    assert rows[0]["mean"] == pytest.approx(0.25)
    assert rows[0]["low"] < 0.25 < rows[0]["high"]
    assert rows[1]["mean"] == 0.5
    assert rows[1]["low"] is None  # too few pairs
    assert agreement_rows([[], []]) == []


def test_all_scores_take_the_passes_of_one() -> None:
    model, pair, n = load_model(), make_pairs(1), []
    model.register_forward_hook(lambda module, args, output: n.append(len(output)))
    method = PromotionSuppression(model, engine="dense")
    method.decompose(*pair, feature_mask=MASK)
    one = list(n)
    n.clear()
    with pytest.warns(UserWarning, match="near 0, its maximum"):
        method.decompose_by_score(*pair, feature_mask=MASK)
    assert n == one


def test_a_study_by_another_score(tmp_path: Path, no_pictures: None) -> None:
    options = {"cell": 32, "adaptive_steps": 1, "score": "centered"}
    study(load_model(), {"pgd": make_pairs(1)}, tmp_path, **options)
    written = json.loads((tmp_path / "study.json").read_text())
    assert written["manifest"]["score"] == "centered"
    assert written["tables"]["pairs"][0]["score"] == "centered logit"
    with (tmp_path / "tables/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["score"], row["other"], row["groups"]) for row in rows] == [
        (one, other, groups)
        for one, other in combinations(ALL, 2)
        for groups in ("all", "above_median")
    ]
    pixels = PromotionSuppression(load_model(), score="centered")
    found = pixels.decompose(*make_pairs(1), feature_mask=grid_mask((64, 64), cell=32))
    share = float((found.type_codes == 1).double().mean())
    types = written["tables"]["types"]
    assert next(r["mean"] for r in types if r["type"] == "promotion") == share


def test_a_study_of_probabilities_warns_once(tmp_path: Path, no_pictures: None) -> None:
    model = nn.Sequential(load_model(), nn.Softmax(1))
    attacks = {"pgd": make_pairs(1)}
    options = {"cell": 32, "adaptive_steps": 1, "layer": f"0.{LAYER}"}
    with pytest.warns(ProbabilityWarning, match="without its last softmax") as caught:
        study(model, attacks, tmp_path, layers=[f"0.{LAYER}"], **options)
    assert [w.filename for w in caught] == [__file__]
    with pytest.raises(ValueError, match=r"score: got 'centered' for a model that"):
        study(model, attacks, tmp_path, score="centered", **options)
