"""A study goes on only from partial results of the same inputs, settings and code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_pse import AdversarialPair, grid_mask
from captum_pse.demo import load_model, make_pairs
from captum_pse.studies import digests, stages
from captum_pse.studies.digests import model_digest, run_digest
from captum_pse.studies.settings import Settings
from captum_pse.studies.stages import Stages

LAYER = "features.conv4"
SETTINGS = Settings([LAYER], LAYER, 32, adaptive_steps=1)
MASK = grid_mask((64, 64), cell=32)
PAIRS = make_pairs(2)


def pair(**changes: Any) -> AdversarialPair:
    return replace(PAIRS, **changes)


def digest_with(**changes: Any) -> str:
    inputs = {
        "model": "model", "attacks": {"a": PAIRS, "b": PAIRS.select([0])},
        "mask": MASK, "settings": SETTINGS, "extra": {"weights": "file"},
    }  # fmt: skip
    return run_digest(**{**inputs, **changes})


#: By the name of a setting, another value of it.
OTHER_SETTINGS = {
    "layers": [LAYER, "features.conv5"],
    "layer": "features.conv5",
    "cell": 16,
    "score": "centered",
    "adaptive_eps": 0.01,
    "adaptive_steps": 2,
    "random_sets": 9,
    "seed": 1,
    "batch_size": 8,
    "device": "cuda",
}
BRIGHTER = PAIRS.natural.clone()
BRIGHTER[1, 2, 63, 63] += 1e-6
B = {"b": PAIRS.select([0])}
OTHER_INPUTS: dict[str, dict[str, Any]] = {
    **{
        name: {"settings": replace(SETTINGS, **{name: value})}
        for name, value in OTHER_SETTINGS.items()
    },
    "model": {"model": "other"},
    "mask": {"mask": MASK.flip(-1)},
    "a caller's setting": {"extra": {"weights": "other"}},
    "a pixel of a natural image": {"attacks": {"a": pair(natural=BRIGHTER), **B}},
    "a pixel of an attack": {"attacks": {"a": pair(adversarial=BRIGHTER), **B}},
    "a true label": {"attacks": {"a": pair(true_label=PAIRS.true_label + 20), **B}},
    "an attack label": {
        "attacks": {"a": pair(attack_label=PAIRS.attack_label + 20), **B}
    },
    "a name": {"attacks": {"a": pair(names=("0", "other")), **B}},
    "the name of an attack": {"attacks": {"c": PAIRS, **B}},
    "the order of the attacks": {"attacks": {**B, "a": PAIRS}},
    "an attack less": {"attacks": {"a": PAIRS}},
    "a pair less": {"attacks": {"a": PAIRS.select([0]), **B}},
}


def test_every_setting_is_here() -> None:
    assert OTHER_SETTINGS.keys() == {field.name for field in fields(Settings)}


@pytest.mark.parametrize("changes", OTHER_INPUTS.values(), ids=OTHER_INPUTS)
def test_what_a_run_depends_on(changes: dict[str, Any]) -> None:
    assert digest_with() == digest_with()
    assert digest_with(**changes) != digest_with()


def test_a_run_depends_on_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_with()
    monkeypatch.setattr(digests, "code_digest", lambda: "another version")
    assert digest_with() != before


def test_weights_that_differ_in_the_last_bit() -> None:
    model, attacks = load_model(), {"a": PAIRS}
    before = model_digest(model, attacks, "cpu")
    with torch.no_grad():
        model.get_parameter(f"{LAYER}.0.weight")[0].mul_(1 + 1e-7)
    assert model_digest(model, attacks, "cpu") != before


@pytest.fixture(autouse=True)
def studied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measures little of a pair, and returns the names of the pairs measured."""
    names: list[str] = []

    def quick(pixels: Any, maps: Any, pair: AdversarialPair, *_: Any, **__: Any) -> Any:
        names.append(pair.names[0])
        return {
            "labels": {"natural_agrees": True, "attack_holds": True},
            "refinement": {"CAM": {"smallest_fraction": 0.5}},
            "scores": pixels.forward_func(pair.natural).tolist(),
        }

    monkeypatch.setattr(stages, "study_pair", quick)
    return names


def run(folder: Path, change: Callable[[Any], Any] | None = None) -> Stages:
    model = load_model()
    with torch.no_grad():
        if change is not None:
            change(model)
    return Stages(model, {"pgd": PAIRS}, MASK, SETTINGS, {}, None, folder, False)


def a_little(model: Any) -> None:
    model.get_parameter(f"{LAYER}.0.weight").mul_(1 + 1e-5)


def test_records_of_other_weights_are_not_used(tmp_path, studied) -> None:
    before = run(tmp_path / "out").records
    wanted = run(tmp_path / "fresh", a_little).records
    assert wanted != before
    studied.clear()
    assert run(tmp_path / "out", a_little).records == wanted
    assert len(studied) == 2
    assert run(tmp_path / "out", a_little).records == wanted
    assert len(studied) == 2


def test_swapped_records_are_said_and_studied_again(tmp_path, studied) -> None:
    wanted = run(tmp_path).records
    first, second = sorted((tmp_path / "pairs").iterdir())
    texts = first.read_text(), second.read_text()
    first.write_text(texts[1])
    second.write_text(texts[0])
    studied.clear()
    with pytest.warns(UserWarning, match=r"in .*0000[01]\.json are damaged, edited"):
        assert run(tmp_path).records == wanted
    assert sorted(studied) == sorted(PAIRS.names)


def test_later_stages_depend_on_earlier_ones(tmp_path, monkeypatch) -> None:
    """A record that comes out otherwise, as on a device that adds up in any order."""
    runs: dict[str, list[str]] = {}
    run_tasks = stages.run_tasks

    def keep(tasks: Any, folder: Path, identity: str, title: str | None) -> Any:
        runs.setdefault(folder.name, []).append(identity)
        return run_tasks(tasks, folder, identity, title)

    monkeypatch.setattr(stages, "run_tasks", keep)
    monkeypatch.setattr(stages, "MASKED_FRACTIONS", (0,))
    first, other = run(tmp_path / "one"), run(tmp_path / "two")
    records = first.records["pgd"]
    other.__dict__["records"] = {"pgd": [{**records[0], "scores": 0}, records[1]]}
    same = run(tmp_path / "one")
    for each in (first, other, same):
        assert each.masking.keys() == {"pgd"}
    for stage in ("units", "masking"):
        one, two, again = runs[stage]
        assert one == again != two
