"""The study: its numbers, its verdicts, and that it is the same run after run."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from captum_pse import (
    AdversarialCAM,
    AdversarialPair,
    DissectionSensitivity,
    PredictionWarning,
    PromotionSuppression,
    Study,
    grid_mask,
    relate,
    study,
)
from captum_pse._io.tasks import run_tasks
from captum_pse._statistics import MIN_PAIRS, pairs_needed
from captum_pse.cli import main
from captum_pse.cli.models import load_model as load_named
from captum_pse.demo import SceneConcepts, load_model, make_pairs
from captum_pse.dissection import NetworkDissection
from captum_pse.pixels.rankings import RANKINGS
from captum_pse.reports.refinement import refine_pairs
from captum_pse.studies import run as study_run
from captum_pse.studies import stages
from captum_pse.studies.digests import model_digest, run_digest
from captum_pse.studies.findings import findings, sentence
from captum_pse.studies.pair_record import type_shares
from captum_pse.studies.settings import Settings
from captum_pse.studies.tables import pair_tables
from captum_pse.units.masking_test import MaskingTest

ROOT = Path(__file__).parents[2]
LAYER = "features.conv4"
OPTIONS = {
    "layers": [LAYER], "layer": LAYER, "cell": 32, "adaptive_steps": 1, "random_sets": 3
}  # fmt: skip


def small_study(out, attacks=None, **options):
    attacks = attacks or {"pgd": make_pairs(2)}
    options = {"concepts": SceneConcepts(8)} | OPTIONS | options
    return study(load_model(), attacks, out, **options)


def contents(folder: Path, *, figures: bool = True) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (figures or path.suffix != ".png")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Of enough pairs for intervals and tests."""
    out = tmp_path_factory.mktemp("study") / "out"
    more = {"cell": 16, "adaptive_steps": 2, "concepts": SceneConcepts(24)}
    return small_study(out, {"pgd": make_pairs(6)}, **more), out


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of the study that others are compared with, file by file."""
    out = tmp_path_factory.mktemp("study") / "out"
    small_study(out)
    return out


def only(rows, **wanted):
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row


def test_pair_tables_equal_the_results_of_the_classes(whole, tmp_path):
    tables = whole[0].tables
    model, pairs, mask = load_model(), make_pairs(6), grid_mask((64, 64), cell=16)
    pixels = PromotionSuppression(model).decompose(*pairs, feature_mask=mask)
    moved = (pairs.adversarial - pairs.natural).abs()
    means = moved.mean(dim=1).reshape(6, 4, 16, 4, 16).mean(dim=(2, 4)).flatten(1)
    rhos = [float(spearmanr(*p).statistic) for p in zip(pixels.effect, means)]  # noqa: B905
    (row,) = tables["correlation"]
    assert row["mean"] == pytest.approx(np.mean(rhos), abs=1e-6)
    assert row["pairs"] == 6
    active = ~pixels.inactive
    for number, name in ((-1, "suppression"), (0, "balanced"), (1, "promotion")):
        row = only(tables["types"], groups="all", type=name)
        share = (active & (pixels.type == number)).double().mean()
        assert row["mean"] == pytest.approx(float(share), abs=1e-9)
    regions = AdversarialCAM(model, LAYER).decompose(*pairs)
    for reads, which in (
        ("suppression", "natural_true"),
        ("promotion", "adversarial_attack"),
    ):
        row = only(tables["interpretability"], reads=reads)
        found = regions.interpretability(which)
        for name in ("score", "expected", "lift", "rank"):
            want = float(getattr(found, name).mean())
            assert row[name] == pytest.approx(want, abs=1e-5)
    refined = refine_pairs(model, pairs, tmp_path, cell=16, layer=LAYER)
    for ranking in ("effect", "|delta|", "CAM"):
        for point in refined[ranking].table():
            row = only(
                tables["refinement"], kept_by=ranking, fraction=point["fraction"]
            )
            for name in ("reaches", "leaves", "L2"):
                assert row[name] == pytest.approx(point[name], abs=1e-5)


def test_unit_tables_equal_the_results_of_the_classes(whole):
    tables = whole[0].tables
    model, pairs = load_model(), make_pairs(6)
    (moved,) = DissectionSensitivity(model, [LAYER]).over(pairs)
    assert [row["sensitivity"] for row in tables["units"]] == moved.mean.tolist()
    dissection = NetworkDissection(model, [LAYER]).dissect(SceneConcepts(24))
    (want,) = relate(moved, dissection).table()
    assert only(tables["relation"], attack="pgd") == {"attack": "pgd", **want}
    nothing = [row for row in tables["masking"] if row["units"] == 0]
    assert {row["masked"] for row in nothing} == {
        "sensitive", "interpretable", "least sensitive", "random"
    }  # fmt: skip
    for row in nothing:
        assert (row["clean"], row["adversarial"], row["attacked"]) == (1, 0, 1)
    counts = [row["units"] for row in tables["masking"] if row["masked"] == "sensitive"]
    assert counts == [0, 10, 19, 38]


def test_files_hold_the_tables(whole):
    found, out = whole
    read = json.loads((out / "study.json").read_text())
    assert len(read.pop("captum_pse_digest")) == 64
    assert read == {"manifest": found.manifest, "tables": found.tables}
    assert vars(Study.load(out)) == vars(found)
    assert repr(found) == "Study('pgd')"
    for name, rows in found.tables.items():
        with (out / f"tables/{name}.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == len(rows)
    figures = {path.name for path in out.glob("figures/*.png")}
    assert figures == {
        "types.png", "refinement.png", "interpretability.png", "masking-pgd.png",
        "relation-pgd.png",
    }  # fmt: skip
    assert not (out / study_run.PARTIAL).exists()
    assert set(found.manifest["digests"]) == {"pgd", "model", "dissection"}


UNREADABLE = {
    "text": ("not JSON", "out: .* is damaged"),
    "a list": ("[]", "out: .* is damaged"),
    "no tables": ('{"manifest": {}}', "out: .* is damaged .'tables'"),
    "no study": ('{"tables": {}, "manifest": {}}', "was not written by captum_pse"),
    "too few tables": (
        '{"tables": {"attacks": []}, "manifest": {"format": "captum_pse.Study/3"}}',
        "out: .* lacks the table 'correlation'",
    ),
    "a later one": (
        '{"tables": {}, "manifest": '
        '{"format": "captum_pse.Study/9", "captum_pse": "3"}}',
        "has the format captum_pse.Study/9, written by captum_pse 3, want .*Study/3",
    ),
}


@pytest.mark.parametrize(("text", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_studies_that_do_not_load(text, message, tmp_path):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Study.load(tmp_path)


def test_verdicts_of_the_older_format_have_the_names_of_today():
    found = Study.load(ROOT / "tests/io/before_the_rooms/study")
    assert {row["verdict"] for row in found.summary()} == {"inconclusive"}


def test_a_study_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"out: there is no file .*study\.json"):
        Study.load(tmp_path)


def test_unknown_figures(whole):
    with pytest.raises(ValueError, match="name: got 'masking', want one of types"):
        whole[0].plot("masking")


def test_again_stopped_and_gone_on_with_all_give_the_same_files(
    small, tmp_path, monkeypatch
):
    wanted = contents(small)
    small_study(tmp_path / "again")
    assert contents(tmp_path / "again") == wanted

    out, counted, masked = tmp_path / "stopped", [], []
    real_pair, real_mask = stages.study_pair, stages.evaluate_masking

    def pair(*args, **options):
        counted.append(args)
        return real_pair(*args, **options)

    def stop(*args, **options):
        if len(masked) == 2:
            raise KeyboardInterrupt
        masked.append(args)
        return real_mask(*args, **options)

    monkeypatch.setattr(stages, "study_pair", pair)
    monkeypatch.setattr(stages, "evaluate_masking", stop)
    with pytest.raises(KeyboardInterrupt):
        small_study(out)
    assert len(counted) == 2
    assert all(name.startswith(".study-partial/") for name in contents(out))
    monkeypatch.setattr(stages, "evaluate_masking", real_mask)
    small_study(out)
    assert len(counted) == 2
    assert contents(out) == wanted


def test_partial_results_of_other_inputs_are_not_used(
    tmp_path, monkeypatch, small, no_pictures
):
    def stop(*args, **options):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(stages, "evaluate_masking", stop)
        with pytest.raises(KeyboardInterrupt):
            small_study(out, {"pgd": make_pairs(2, steps=5)})
    small_study(out)
    assert contents(out, figures=False) == contents(small, figures=False)


def test_two_processes_give_the_same_files(tmp_path, no_pictures, one_thread):
    """But for the figures, which the first process draws from the tables."""
    script = (
        "import sys, torch\n"
        "from captum_pse._drawing.figure import Figure\n"
        "torch.set_num_threads(1)\n"
        "Figure.save = lambda figure, path: path.touch()\n"
        "from captum_pse.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "run.py").write_text(script)
    make_pairs(2).save(tmp_path / "pgd.npz")
    command = [
        *("study", "--model", "captum_pse.demo:load_model", "--cell", "32"),
        *("--layers", LAYER, "--adaptive-steps", "1", "--random-sets", "3"),
        *("--pairs", str(tmp_path / "pgd.npz"), "--out"),
    ]
    assert main([*command, str(tmp_path / "out1")]) == 0
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", str(tmp_path / "run.py")),
            *(*command, str(tmp_path / "out2")),
        ],
        check=True,
        capture_output=True,
        timeout=240,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    one, two = (contents(tmp_path / f"out{n}", figures=False) for n in (1, 2))
    assert two == one
    figures = {path.name for path in (tmp_path / "out2/figures").iterdir()}
    assert figures == {path.name for path in (tmp_path / "out1/figures").iterdir()}


def test_attacks_that_fail_are_counted_and_left_out(tmp_path, no_pictures):
    """Two of seven fail; the others are too few for a test, which is reported."""
    pairs = make_pairs(7)
    adversarial = pairs.adversarial.clone()
    adversarial[:2] = pairs.natural[:2]
    some = AdversarialPair(
        natural=pairs.natural,
        adversarial=adversarial,
        true_label=pairs.true_label,
        attack_label=pairs.attack_label,
        names=pairs.names,
    )
    none = AdversarialPair(
        natural=pairs.natural,
        adversarial=pairs.natural,
        true_label=pairs.true_label,
        attack_label=pairs.attack_label,
    )
    found = small_study(
        tmp_path, {"some": some, "none": none.select(slice(0, 2))}, concepts=None
    )
    counts = {row["attack"]: row for row in found.tables["attacks"]}
    assert (counts["some"]["pairs"], counts["some"]["studied"]) == (7, 5)
    assert (counts["none"]["attack_holds"], counts["none"]["studied"]) == (0, 0)
    studied = [row["studied"] for row in found.tables["pairs"]]
    assert studied == [False] * 2 + [True] * 5 + [False] * 2
    assert {row["attack"] for row in found.tables["masking"]} == {"some"}
    assert "relation" not in found.tables
    for row in found.tables["findings"]:
        assert row["p"] is None
        assert row["verdict"] == "inconclusive"
        assert "too few" in sentence(row)
    assert found.tables["correlation"][1]["mean"] is None


@pytest.mark.parametrize(
    ("attacks", "options", "message"),
    [
        ({}, {}, "attacks: got none"),
        ({"a b": make_pairs(1), "a_b": make_pairs(1)}, {}, "want names that differ"),
        (
            {"a": make_pairs(1), "b": AdversarialPair(
                *torch.rand(2, 1, 3, 80, 80), 1, 0)},
            {}, "images of different sizes",
        ),
        ({"a": make_pairs(1)}, {"adaptive_eps": 0.0}, "adaptive_eps: got 0.0"),
        ({"a": make_pairs(1)}, {"adaptive_steps": 0}, "adaptive_steps: got 0"),
        ({"a": make_pairs(1)}, {"batch_size": 0}, "batch_size: got 0"),
        ({"a": make_pairs(1)}, {"seed": -1}, "seed: got -1"),
        (
            {"a": AdversarialPair(
                torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64) * 4, 1, 0)},
            {}, "want images in .0, 1.",
        ),
        ({"a": make_pairs(1)}, {"layers": ["nowhere"]}, "has no 'nowhere'"),
        ({"a": make_pairs(1)}, {"layer": "nowhere"}, "has no 'nowhere'"),
    ],
)  # fmt: skip
def test_bad_input(tmp_path, attacks, options, message):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=message):
        study(load_model(), attacks, out, **options)
    assert not out.exists()


def test_pairs_on_the_boundary_are_left_out_and_no_error(tmp_path, monkeypatch):
    """Whether such an attack succeeds depends on the batch."""
    real = stages.study_pair

    def pair(*args, **options):
        found = real(*args, **options)
        found["refinement"]["CAM"]["smallest_fraction"] = None
        return found

    monkeypatch.setattr(stages, "study_pair", pair)
    found = small_study(tmp_path, {"a": make_pairs(1)}, concepts=None)
    assert found.tables["attacks"][0]["studied"] == 0
    assert found.tables["attacks"][0]["attack_holds"] == 1


class OneUnit(nn.Module):
    """Its layer has one unit, which is the same everywhere on a concept set."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 1 / 3)

    def forward(self, x):
        bright = (self.layer(x).mean(dim=(2, 3)) - 0.5) * 50
        return torch.cat([bright, -bright], dim=1)


def test_a_layer_of_one_unit(tmp_path):
    model, natural = OneUnit().eval(), make_pairs(7).natural
    with torch.no_grad():
        true, attack = (model(x).argmax(dim=1) for x in (natural, 1 - natural))
    pairs = AdversarialPair(
        natural=natural, adversarial=1 - natural, true_label=true, attack_label=attack
    )
    found = study(
        model, {"a": pairs}, tmp_path, layers=["layer"], layer="layer", cell=16,
        adaptive_steps=1, concepts=SceneConcepts(8), settings={"where": Path("here")},
    )  # fmt: skip
    assert found.manifest["where"] == "here"
    counts = {row["units"] for row in found.tables["masking"]}
    assert counts == {0, 1}
    for row in found.tables["findings"]:
        if "interpretable" in row["finding"]:
            assert row["p"] is None


def test_earlier_results_are_replaced(small, tmp_path, no_pictures):
    shutil.copytree(small, tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    small_study(tmp_path / "out", {"other": make_pairs(1)}, concepts=None)
    found = contents(tmp_path / "out")
    assert "tables/correlation.csv" in found
    assert "tables/relation.csv" not in found
    assert not any("pgd" in name for name in found)
    assert found["notes.txt"] == b"mine"


def test_processes_on_different_devices_are_one_run():
    pairs, settings = {"a": make_pairs(1)}, Settings([LAYER], LAYER)
    mask = grid_mask((64, 64), cell=16)
    cpu, same, other = (
        run_digest("model", pairs, mask, replace(settings, device=device), {})
        for device in ("cpu", "cpu:0", "cuda:0")
    )
    assert cpu == same != other


def test_what_a_model_computes_is_part_of_the_run():
    """A normalisation is in no state dict."""
    pairs, name = {"a": make_pairs(1)}, "captum_pse.demo:load_model"
    digests = {
        model_digest(load_named(name, None, [mean], [0.5]).forward_func, pairs, "cpu")
        for mean in (0.1, 0.2)
    }
    assert len(digests) == 2


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("captum_pse.demo.pairs.make_pairs", lambda n: make_pairs(1))
    out = tmp_path / "out"
    command = [
        "study", "--model", "captum_pse.demo:load_model", "--out", str(out), "--pairs",
    ]  # fmt: skip
    assert main([*command, "x=nowhere.npz"]) == 2
    assert "there is no file nowhere.npz" in capsys.readouterr().err
    assert main([*command, "demo", "demo"]) == 2
    assert "pairs: got 'demo' twice" in capsys.readouterr().err
    assert not out.exists()


# Statistics


def test_type_shares():
    effect = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    types = np.array([1, 0, -1, 1, 0])
    inactive = np.array([False, False, False, False, True])
    found = type_shares(effect, np.where(inactive, 2, types))
    assert found["all"] == {
        "suppression": 0.2, "balanced": 0.2, "promotion": 0.4, "inactive": 0.2
    }  # fmt: skip
    assert found["above_median"] == {
        "suppression": 0.0, "balanced": 0.5, "promotion": 0.5, "inactive": 0.0
    }  # fmt: skip
    assert found["by_effect"] == {
        "suppression": 0.2, "balanced": 0.3, "promotion": 0.5, "inactive": 0.0
    }  # fmt: skip
    nothing = type_shares(np.zeros(2), np.full(2, 2.0))
    assert nothing["by_effect"]["balanced"] is None


# Findings


def record(
    i, rho=0.5, effect=0.2, other=0.5, rank=0.8, types=(0.3, 0.3, 0.4), shift=1e-3
):
    """A pair; small differences give the values a spread."""
    shift = shift * i
    shares = dict(
        zip(("suppression", "balanced", "promotion"), np.add(types, shift), strict=True)
    )
    shares["inactive"] = 0.0
    refined = {"reaches": [1.0], "leaves": [1.0], "L2": [1.0]}
    scores = {"score": 0.5, "expected": 0.5, "lift": 1.0, "rank": rank + shift}
    return {
        "pair": str(i),
        "labels": {"natural_agrees": True, "attack_holds": True},
        "types": dict.fromkeys(("all", "above_median", "by_effect"), shares),
        "scores": [],
        "correlation": None if rho is None else rho + shift,
        "refinement": {
            name: {
                **refined,
                "smallest_fraction": effect if name == "effect" else other + 10 * shift,
            }
            for name in RANKINGS
        },
        "interpretability": {"promotion": scores, "suppression": scores},
    }


def verdicts(records, relation=(), masking_tests=()):
    sets = {"a": records}
    tables = pair_tables(sets, [1.0])
    tables["relation"] = [{"attack": "a", **row} for row in relation]
    rows = findings(sets, tables, {"a": masking_tests})
    assert all(row["p_adjusted"] >= row["p"] for row in rows if row["p"] is not None)
    assert all("nan" not in sentence(row) for row in rows)
    assert all(
        (row["why"] is None) == (row["verdict"] != "inconclusive") for row in rows
    )
    return rows


@pytest.mark.parametrize(
    ("changed", "n", "wanted"),
    [
        ({}, 12, ["holds"] * 6),
        ({}, 5, ["inconclusive"] * 6),
        ({"rho": -0.5}, 12, ["holds", "does not hold", *["holds"] * 4]),
        ({"effect": 0.9, "other": 0.2}, 12,
         ["holds", "holds", *["does not hold"] * 2, *["holds"] * 2]),
        ({"rank": 0.2}, 12, [*["holds"] * 4, *["does not hold"] * 2]),
        ({"types": (0.01, 0.3, 0.69)}, 12, ["does not hold", *["holds"] * 5]),
        # Significant, and too small to count.
        ({"rho": 0.05}, 12, ["holds", "inconclusive", *["holds"] * 4]),
        # A type that is the same in all pairs decides by its mean.
        ({"types": (0.3, 0.3, 0.4), "shift": 0}, 12, ["holds"] * 6),
        ({"types": (0.0, 0.5, 0.5), "shift": 0}, 12, ["inconclusive", *["holds"] * 5]),
        ({"effect": 0.2, "other": 0.6, "shift": 0}, 12, ["holds"] * 6),
    ],
)  # fmt: skip
def test_verdicts(changed, n, wanted):
    rows = verdicts([record(i, **changed) for i in range(n)])
    assert [row["verdict"] for row in rows] == wanted


def spread(n, **means):
    """Pairs whose values vary by 0.3 about a mean that is too small to be found."""
    return [
        record(i, **{name: mean + 0.3 * (-1) ** i for name, mean in means.items()})
        for i in range(n)
    ]


def test_an_extreme_rank_among_too_few_sets():
    test = MaskingTest("l", "adversarial", 3, 0.9, 0.4, 19, 0, 0.1)
    why = verdicts([record(i) for i in range(12)], (), [test])[-1]["why"]
    assert why == (
        "not significant: 0 of 19 random sets do as well; more of them could show an "
        "effect"
    )


WHY = {
    "too few pairs": (
        [record(i) for i in range(4)],
        r"too few pairs: got 4, want .* 6",
    ),
    "undefined": (
        [record(i, rho=None) for i in range(9)],
        r"undefined in 9 of 9 pairs: \|delta\| or the effect is the same in all groups",
    ),
    "no effect": (
        [record(i, rho=0.001 * (-1) ** i) for i in range(12)],
        "no effect that counts: the interval lies within 0.1",
    ),
    "small": ([record(i, rho=0.05) for i in range(12)], "no effect that counts"),
    "small, and uncertain": (
        [record(i, rho=0.088 + 0.08 * (-1) ** i) for i in range(12)],
        "significant, but less than the 0.1 that counts",
    ),
    "zero": ([record(i, rho=0.0, shift=0) for i in range(12)], "0 in all pairs"),
    "no power": (
        spread(8, rho=0.1),
        r"for an effect of 0.1\d*, about \d+ pairs would be",
    ),
}


@pytest.mark.parametrize(("records", "why"), WHY.values(), ids=WHY)
def test_why_nothing_is_concluded(records, why):
    row = verdicts(records)[1]
    assert row["finding"] == "groups with larger perturbations have larger effects"
    assert row["verdict"] == "inconclusive"
    assert re.search(why, row["why"])
    assert row["why"] in sentence(row)


def test_the_pairs_that_would_be_enough():
    """At the level that the adjusted p-value sets."""
    records = spread(8, rho=0.1)
    row = verdicts(records)[1]
    deviation = np.std([r["correlation"] for r in records], ddof=1)
    level = 0.05 * row["p"] / row["p_adjusted"]
    wanted = pairs_needed(row["value"], deviation, level)
    assert f"about {wanted} pairs" in row["why"]


def masked(outcome, difference, p):
    return MaskingTest("l", outcome, 3, 0.4 + difference, 0.4, 199, 7, p)


@pytest.mark.parametrize(
    ("rho", "p", "difference", "wanted"),
    [
        (0.6, 1e-4, 0.5, ["holds", "holds", "holds", "inconclusive"]),
        (-0.6, 1e-4, -0.5, ["does not hold"] * 3 + ["inconclusive"]),
        (0.1, 0.5, 0.0, ["inconclusive"] * 4),
        (math.nan, math.nan, 0.0, ["inconclusive"] * 4),
        # Significant, and too small to count.
        (0.05, 1e-4, 0.01, ["inconclusive"] * 4),
    ],
)
def test_verdicts_on_units(rho, p, difference, wanted):
    relation = {"layer": "l", "units": 96, "pairs": 12, "rho": rho, "p": p,
                "partial_rho": rho, "partial_p": p}  # fmt: skip
    tests = [masked("adversarial", difference, 1e-3), masked("adaptive", 0.3, 0.9)]
    records = [record(i) for i in range(12)]
    rows = verdicts(records, [relation], tests)
    assert [row["verdict"] for row in rows[6:]] == wanted
    assert rows[-1]["why"] == "not significant: 7 of 199 random sets do as well"
    few = verdicts(records[: MIN_PAIRS - 1], [relation | {"pairs": 5}], tests)
    assert {row["verdict"] for row in few} == {"inconclusive"}


# Tasks


def test_tasks_are_done_once_and_gone_on_with(tmp_path):
    done = []

    def task(i):
        if len(done) == 2:
            done.append("stop")
            raise KeyboardInterrupt
        done.append(i)
        return {"value": i / 3, "of": float("nan")}

    tasks = {("t", i): lambda i=i: task(i) for i in range(4)}
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks, tmp_path, "run")
    first, second = done[:2]
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{first:05d}.json",
        f"{second:05d}.json",
    }
    records = run_tasks(tasks, tmp_path, "run")
    assert done[2] == "stop"
    assert {*done[3:]} == {0, 1, 2, 3} - {first, second}
    assert {key: r["value"] for key, r in records.items()} == {
        ("t", 0): 0, ("t", 1): 1 / 3, ("t", 2): 2 / 3, ("t", 3): 1
    }  # fmt: skip
    (tmp_path / "00001.json").write_text('{"run": "run", "rec')
    with pytest.warns(UserWarning, match=r"results in .*00001\.json are damaged"):
        run_tasks(tasks, tmp_path, "run")
    assert done[5:] == [1]
    # Of another run: no word of it.
    run_tasks(tasks, tmp_path, "other")
    assert sorted(done[6:]) == [0, 1, 2, 3]


def test_predictions_that_differ_are_no_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PredictionWarning)
        pairs = make_pairs(1)
        wrong = AdversarialPair(
            natural=pairs.natural,
            adversarial=pairs.natural,
            true_label=0,
            attack_label=1,
        )
        small_study(tmp_path, {"a": wrong}, concepts=None)
