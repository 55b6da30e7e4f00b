"""The command line, from arguments to files."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import get_model

from captum_pse import (
    AdversarialCAM,
    Dissection,
    DissectionSensitivity,
    NetworkDissection,
    PromotionSuppression,
    Study,
    __version__,
    demo,
    grid_mask,
    refine,
    relate,
)
from captum_pse._engine.incremental import MismatchError
from captum_pse.cli import main
from captum_pse.cli.levels import check_level
from captum_pse.cli.parser import build_parser
from captum_pse.cli.printing import format_table
from captum_pse.cli.registry import COMMANDS
from captum_pse.demo import SceneConcepts
from captum_pse.dissection import ConceptSample
from captum_pse.groups.types import TYPES
from captum_pse.studies import stages

MODEL = "captum_pse.demo:load_model"


def files(folder) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_demo(tmp_path, capsys):
    out = tmp_path / "results"
    assert main(["demo", "--pairs", "2", "--cell", "16", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "boat-1-to-butterfly" in printed.out
    assert "NOTE" not in printed.out
    assert files(out) == [
        "figures/000-balloon-0-to-boat.png",
        "figures/001-boat-1-to-butterfly.png",
        "figures/refinement.png",
        "groups.csv",
        "index.html",
        "summary.json",
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["manifest"]["captum_pse"] == __version__
    pairs = demo.make_pairs(2)
    result = PromotionSuppression(demo.load_model()).decompose(
        *pairs, feature_mask=grid_mask((64, 64), cell=16)
    )
    for record, expected in zip(summary["pairs"], result.summary(), strict=True):
        assert record["promotion"] == pytest.approx(expected["promotion"], rel=1e-4)
        assert record["attack_holds"] is record["natural_agrees"] is True
        with Image.open(out / record["figure"]) as figure:
            assert figure.size[0] > 800
    with (out / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 16
    refinement = refine(
        demo.load_model(),
        *pairs,
        scores=result.attribution(),
        feature_mask=grid_mask((64, 64), cell=16),
    )
    assert [
        r["smallest_fraction"] for r in summary["pairs"]
    ] == refinement.smallest_fraction.tolist()
    mean = 100 * float(refinement.smallest_fraction.mean())
    assert f"fraction needed: {mean:.1f} % (of the groups, mean of the 2" in printed.out
    assert float(rows[20]["effect"]) == pytest.approx(
        float(result.effect[1, 4]), rel=1e-3, abs=1e-4
    )


def test_explain_twice_into_one_folder(tmp_path, npz, capsys):
    """Random pairs: the predictions differ from the labels, which is reported."""
    path = npz(name=np.array(["../<b>", "a/$\\frac$b"]))
    command = ["explain", "--model", MODEL, "--pairs", str(path), "--cell", "32"]
    for _ in range(2):
        assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\.\./<b> .* (none|true|attack) ", out)
    assert "NOTE: the model does not predict the attack label on" in out
    assert "check the labels, --weights, --mean and --std" in out
    assert files(tmp_path / "out") == [
        "figures/000-.._b_.png",
        "figures/001-a_frac_b.png",
        "figures/refinement.png",
        "groups.csv",
        "index.html",
        "summary.json",
    ]
    records = json.loads((tmp_path / "out" / "summary.json").read_text())["pairs"]
    with torch.no_grad(), np.load(path) as stored:
        said = demo.load_model()(torch.from_numpy(stored["natural"]) / 255).argmax(1)
    assert [r["natural_prediction"] for r in records] == said.tolist()
    assert [r["natural_agrees"] for r in records] == (
        said == torch.tensor([0, 1])
    ).tolist()
    assert records[0]["pair"] == "../<b>"


def save_images(folder: Path, images: Tensor) -> None:
    folder.mkdir()
    for image, name in zip(images, "abcdef", strict=False):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")


def test_explain_folders_by_the_models_own_labels(
    tmp_path, demo_pairs, capsys, no_pictures
):
    """The last attack failed: its pair is left out, and named."""
    x, x0 = demo_pairs.adversarial, demo_pairs.natural
    save_images(tmp_path / "natural", torch.cat([x0, x0[:1]]))
    save_images(tmp_path / "adversarial", torch.cat([x, x0[:1]]))
    sides = [str(tmp_path / "natural"), str(tmp_path / "adversarial")]
    out = tmp_path / "out"
    options = ["--cell", "32", "--batch-size", "2", "--out", str(out)]
    assert main(["explain", "--model", MODEL, "--pairs", *sides, *options]) == 0
    assert "NOTE: left out 1 pair(s)" in capsys.readouterr().out
    summary = json.loads((out / "summary.json").read_text())
    labels = [r["attack_label"] for r in summary["pairs"]]
    assert labels == demo_pairs.attack_label.tolist()
    assert [r["pair"] for r in summary["pairs"]] == ["a", "b", "c"]
    assert summary["manifest"]["left_out"] == ["d"]


@pytest.mark.parametrize("layer", [None, "features.conv4"])
def test_image_level(tmp_path, capsys, layer):
    out = tmp_path / "out"
    command = ["demo", "--pairs", "2", "--level", "image", "--out", str(out)]
    assert main([*command, "--layer", layer] if layer else command) == 0
    assert "prom. IS (lift)" in capsys.readouterr().out
    assert files(out) == [
        "figures/000-balloon-0-to-boat.png",
        "figures/001-boat-1-to-butterfly.png",
        "index.html",
        "summary.json",
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["manifest"]["layer"] == (layer or "features")
    # Batch norm and ReLU follow within conv5, and nothing after it in features.
    method = AdversarialCAM(demo.load_model(), layer or "features.conv5")
    expected = method.decompose(*demo.make_pairs(2)).summary()
    for record, wanted in zip(summary["pairs"], expected, strict=True):
        for name in ("promotion_is", "suppression_is", "promotion_is_lift"):
            assert record[name] == pytest.approx(wanted[name], rel=1e-3)


def test_layers_are_named_as_the_model_names_them(tmp_path, npz, capsys, no_pictures):
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--level", "image"]
    command += [
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "1,1,1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--layer", "features.conv3"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["manifest"]["layer"] == "features.conv3"
    assert main([*command, "--layer", "features.conv9"]) == 2
    assert "layer: the model has no 'features.conv9'" in capsys.readouterr().err


def test_first_order_estimate(tmp_path, npz, no_pictures):
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    out = tmp_path / "out"
    assert main([*command, "--method", "gradient", "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["manifest"]["method"] == "gradient"
    with (out / "groups.csv").open(newline="") as file:
        changes = [float(row["promotion_change"]) for row in csv.DictReader(file)]
    for i, record in enumerate(summary["pairs"]):
        # The estimate shares out what the attack label's score gained.
        assert sum(changes[4 * i : 4 * i + 4]) == pytest.approx(
            record["attack_score_gain"], abs=0.05
        )


def test_engines_give_the_same(tmp_path, npz, no_pictures):
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "8"]
    changes: dict[str, list[float]] = {}
    for engine in ("dense", "incremental"):
        out = tmp_path / engine
        assert main([*command, "--engine", engine, "--out", str(out)]) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert [record["engine"] for record in summary["pairs"]] == [engine] * 2
        with (out / "groups.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        changes[engine] = [float(row["promotion_change"]) for row in rows]
    assert changes["dense"] == pytest.approx(changes["incremental"], abs=1e-4)
    assert main([*command, "--level", "image", "--engine", "dense", "--out", "x"]) == 2


def test_network_level(tmp_path, capsys, few_scenes):
    out, layers = tmp_path / "out", ["features.conv4", "features.conv5"]
    command = ["demo", "--pairs", "2", "--level", "network", "--layers", *layers]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "features.conv4: Spearman's rho of sensitivity and largest IoU" in printed
    assert [f for f in files(out) if "figures" not in f] == [
        "enrichment.csv",
        "index.html",
        "masking.csv",
        "masking.png",
        "relation.csv",
        "relation.png",
        "summary.json",
        "units.csv",
    ]
    assert len([f for f in files(out) if "figures" in f]) == 4
    summary = json.loads((out / "summary.json").read_text())
    pairs, model = demo.make_pairs(2), demo.load_model()
    moved = DissectionSensitivity(model, layers).over(pairs)
    dissection = NetworkDissection(model, layers).dissect(SceneConcepts())
    relation = relate(moved, dissection)
    for row, expected in zip(summary["relation"], relation.table(), strict=True):
        assert row == pytest.approx(expected)
    assert summary["manifest"]["concepts"] == "demo"
    with (out / "units.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 96 + 96
    assert float(rows[100]["sensitivity"]) == pytest.approx(float(moved[1].mean[4]))
    assert float(rows[100]["iou"]) == pytest.approx(
        float(dissection.best(layers[1])[0][4])
    )
    record = summary["pairs"][3]
    assert (record["pair"], record["layer"]) == ("boat-1-to-butterfly", layers[1])
    assert {row["masked"] for row in summary["masking"]} == {
        "sensitive",
        "interpretable",
        "least sensitive",
        "random",
    }


def test_network_level_without_concepts(tmp_path, npz, no_pictures):
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--level", "network"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert [f for f in files(tmp_path / "out") if "figures" not in f] == [
        "index.html",
        "summary.json",
        "units.csv",
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["manifest"]["layers"] == ["features"]


DISSECT = ["dissect", "--model", MODEL, "--concepts", "demo", "--layers"]


@pytest.fixture
def few_scenes(monkeypatch):
    """Makes the demo's concept set small; returns how often a scene is read."""
    reads: list[int] = []
    draw = SceneConcepts.__getitem__

    def read(self: SceneConcepts, index: int) -> ConceptSample:
        reads.append(index)
        return draw(self, index)

    monkeypatch.setattr(SceneConcepts, "__len__", lambda self: 24)
    monkeypatch.setattr(SceneConcepts, "__getitem__", read)
    return reads


def test_dissect(tmp_path, capsys, few_scenes):
    out = tmp_path / "out"
    command = [*DISSECT, "features.conv2", "features.conv5", "--quantile", "0.01"]
    assert main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert files(out) == [
        "concepts.csv",
        "detectors.png",
        "dissection.json",
        "dissection.safetensors",
        "units-features.conv2.png",
        "units-features.conv5.png",
        "units.csv",
    ]
    expected = NetworkDissection(
        demo.load_model(), ["features.conv2", "features.conv5"], quantile=0.01
    ).dissect(SceneConcepts())
    with (out / "units.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("layer", "unit", "concept", "category"),
        *("iou", "threshold", "coverage", "detector"),
    ]
    for row, wanted in zip(rows, expected.table(), strict=True):
        assert row == {key: str(value) for key, value in wanted.items()}
    assert Dissection.load(out / "dissection.safetensors").table() == expected.table()
    manifest = json.loads((out / "dissection.json").read_text())["manifest"]
    assert (manifest["quantile"], manifest["concepts"]) == (0.01, "demo")
    found = expected.summary()[1]
    assert f"features.conv5: {found['detectors']} of 96 units detect" in printed
    assert "too large or too rare" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["features.conv9"], "layer: the model has no 'features.conv9'"),
        (["head"], "head has an output of shape (1, 12) for one image, want (1, K, H"),
        (["features", "--quantile", "0"], "quantile: got 0.0, want more than 0"),
        (["features", "--concepts", "nowhere"], "there is no file nowhere/category"),
    ],
)
def test_wrong_input_to_dissect(tmp_path, capsys, options, message):
    out = tmp_path / "out"
    assert main([*DISSECT, *options, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_stopped_dissection_goes_on(
    tmp_path, capsys, few_scenes, monkeypatch, no_pictures
):
    monkeypatch.setattr("captum_pse._io.checkpoint.Checkpoint.every", 0.0)
    command = [*DISSECT, "features.conv5", "--batch-size", "4", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    unbroken = len(few_scenes)
    counted = SceneConcepts.__getitem__

    def stop(self: SceneConcepts, index: int) -> ConceptSample:
        if len(few_scenes) >= 35:
            raise KeyboardInterrupt
        return counted(self, index)

    few_scenes.clear()
    monkeypatch.setattr(SceneConcepts, "__getitem__", stop)
    out = tmp_path / "stopped"
    assert main([*command, str(out)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"captum-pse: interrupted, partial results are in {out}/.dissection-partial; "
        "repeat the same command to resume"
    )
    # Partial results are there, hidden, and none that looks whole.
    assert all(name.startswith(".dissection-partial/") for name in files(out))
    assert len(files(out)) == 2

    few_scenes.clear()
    monkeypatch.setattr(SceneConcepts, "__getitem__", counted)
    assert main([*command, str(out)]) == 0
    # The scenes that are done, 24 and 8, are read once more, to compare them.
    assert len(few_scenes) == unbroken - 8
    assert files(out) == files(tmp_path / "whole")
    for name in ("units.csv", "concepts.csv", "dissection.json"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_refine(tmp_path, demo_pairs, capsys):
    """The curves are those of refine, and the whole attack always succeeds."""
    path, out = tmp_path / "pairs.npz", tmp_path / "out"
    np.savez(
        path,
        natural=demo_pairs.natural.numpy(),
        adversarial=demo_pairs.adversarial.numpy(),
        true_label=demo_pairs.true_label.numpy(),
        attack_label=demo_pairs.attack_label.numpy(),
    )
    command = ["refine", "--model", MODEL, "--pairs", str(path), "--cell", "16"]
    assert main([*command, "--out", str(out)]) == 0
    assert "fraction of attacks that still succeed" in capsys.readouterr().out
    assert files(out) == ["refinement.csv", "refinement.json", "refinement.png"]
    with (out / "refinement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 11
    mask = grid_mask((64, 64), cell=16)
    model = demo.load_model()
    effect = PromotionSuppression(model).attribute(*demo_pairs, feature_mask=mask)
    expected = refine(model, *demo_pairs, scores=effect, feature_mask=mask)
    for row, point in zip(rows[:11], expected.table(), strict=True):
        assert row["kept by"] == "effect"
        assert float(row["reaches"]) == pytest.approx(point["reaches"])
        assert float(row["L2"]) == pytest.approx(point["L2"], rel=1e-4)
    assert all(float(row["reaches"]) == 1 for row in rows if row["fraction"] == "1.0")
    summary = json.loads((out / "refinement.json").read_text())
    assert [
        pair["smallest_fraction"]["effect"] for pair in summary["pairs"]
    ] == pytest.approx(expected.smallest_fraction.tolist())


WRONG = {
    "labels out of range": (
        {"attack_label": np.array([1, 12])},
        [],
        "attack_label: got 12 for example 1, want 0 to 11",
    ),
    "no arrays": ({"natural": None}, [], "lacks the array(s) natural"),
    "unknown model": ({}, ["--model", "resnet51", "--weights", "w"], "did you mean"),
    "labels beside a file": ({}, ["--labels", "l.csv"], "labels: got a CSV file"),
    "mean without std": ({}, ["--mean", "0.5"], "mean and std: got"),
    "mean of the wrong length": (
        {},
        ["--mean", "0.5,0.5", "--std", "1,1"],
        "raised RuntimeError",
    ),
    "units at the level of pixels": (
        {},
        ["--layers", "features"],
        "layers: got it at level pixel, want level network",
    ),
    "no concepts": (
        {},
        ["--level", "network", "--concepts", "nowhere"],
        "dataset: there is no file nowhere/category.csv",
    ),
}


@pytest.mark.parametrize(("changes", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_leaves_nothing_behind(
    tmp_path, npz, capsys, changes, options, message
):
    path, out = npz(**changes), tmp_path / "out"
    command = ["explain", "--model", MODEL, "--pairs", str(path), "--out", str(out)]
    assert main([*command, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("captum-pse: error: ")
    assert message in error
    assert not out.exists()


def test_a_rerun_replaces_results_and_leaves_other_files(tmp_path, npz, no_pictures):
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "007-gone.png").write_text("of an earlier run")
    (out / "notes.txt").write_text("mine")
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    assert main([*command, "--out", str(out)]) == 0
    assert files(out) == [
        "figures/000-0.png",
        "figures/001-1.png",
        "figures/refinement.png",
        "groups.csv",
        "index.html",
        "notes.txt",
        "summary.json",
    ]


def test_labels_batch_and_settings_reach_the_work(
    tmp_path, demo_pairs, monkeypatch, no_pictures
):
    for side in ("natural", "adversarial"):
        save_images(tmp_path / side, getattr(demo_pairs, side))
    (tmp_path / "labels.csv").write_text(
        "name,true_label,attack_label\na,3,4\nb,1,2\nc,2,3\n"
    )
    sizes = []
    forward = demo.DemoNet.forward
    monkeypatch.setattr(
        demo.DemoNet,
        "forward",
        lambda self, x: sizes.append(len(x)) or forward(self, x),
    )
    out = tmp_path / "out"
    sides = [str(tmp_path / "natural"), str(tmp_path / "adversarial")]
    command = ["explain", "--model", MODEL, "--pairs", *sides, "--cell", "32"]
    command += ["--labels", str(tmp_path / "labels.csv"), "--batch-size", "3"]
    assert main([*command, "--out", str(out)]) == 0
    assert max(sizes) == 3
    summary = json.loads((out / "summary.json").read_text())
    assert [r["true_label"] for r in summary["pairs"]] == [3, 1, 2]
    assert [r["natural_agrees"] for r in summary["pairs"]] == [False, True, True]
    settings = {
        "model": MODEL,
        "cell": 32,
        "batch_size": 3,
        "device": "cpu",
        "eps": 1e-3,
    }
    assert settings.items() <= summary["manifest"].items()


def test_format_table():
    record = {
        "pair": "p" * 40,
        "true_label": 1,
        "attack_label": 0,
        "natural_prediction": 1,
        "adversarial_prediction": 1,
        "natural_agrees": True,
        "attack_holds": False,
        "attack_score_gain": 1.5,
        "true_score_loss": 2.25,
        "promotion": 3.0,
        "suppression": 4.0,
        "promotion_dominated": 5,
        "balanced": 6,
        "suppression_dominated": 7,
        "inactive": 8,
        "groups": 26,
    }
    header, _, row = format_table([record], ("zero", "one\n")).splitlines()
    assert header.split()[:4] == ["pair", "true", "attack", "holds"]
    assert row.split() == [
        "p" * 27 + "...",
        *("one\N{REPLACEMENT CHARACTER}", "zero", "true", "-2.25", "+1.50"),
        *("3.00", "4.00", "7/6/5/8"),
    ]


@pytest.mark.parametrize("level", ["pixel", "image"])
def test_the_table_fits_a_terminal(level):
    record = {
        "pair": "p" * 40,
        "true_label": 0,
        "attack_label": 0,
        "natural_agrees": True,
        "attack_holds": True,
        "attack_score_gain": 1234.5,
        "true_score_loss": 1234.5,
    }
    if level == "pixel":
        record |= {"groups": 1, "promotion": 12345.6, "suppression": 12345.6}
        record |= {kind.column: 1234 for kind in TYPES}
    else:
        for name in ("promotion", "suppression"):
            record |= {f"{name}_is": 1.0, f"{name}_is_lift": 10.0}
    lines = format_table([record], ("a class with a long name",)).splitlines()
    assert max(map(len, lines)) == 100


def test_out_is_a_file(tmp_path, npz, capsys):
    (tmp_path / "out").write_text("mine")
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out").read_text() == "mine"
    assert "out, a file, want a folder" in capsys.readouterr().err


def test_interrupted_between_pairs(tmp_path, npz, capsys, monkeypatch, no_pictures):
    calls = []

    def decompose(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    original = PromotionSuppression.decompose
    monkeypatch.setattr(PromotionSuppression, "decompose", decompose)
    out = tmp_path / "out"
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    command += ["--out", str(out)]
    assert main(command) == 130
    assert not out.exists()
    assert "no results were written" in capsys.readouterr().err
    calls[:] = [1, 1]
    assert main(command) == 0
    before = {name: (out / name).read_bytes() for name in files(out)}
    calls.clear()
    assert main(command) == 130
    assert {name: (out / name).read_bytes() for name in files(out)} == before


WORK = {
    "refine": (["refine"], "captum_pse.reports.refinement.refine_scored"),
    "image": (
        ["explain", "--level", "image"],
        "captum_pse.reports.explain.AdversarialCAM.decompose",
    ),
    "network": (
        ["explain", "--level", "network"],
        "captum_pse.reports.units.unit_pair",
    ),
    "dissect": (
        ["dissect", "--layers", "features.conv5", "--concepts", "demo"],
        "captum_pse.reports.dissection.NetworkDissection.dissect",
    ),
    "study": (["study", "--random-sets", "3"], "captum_pse.studies.stages.study_pair"),
}


@pytest.mark.parametrize(("command", "work"), WORK.values(), ids=WORK)
def test_interrupted_before_anything_is_done(
    tmp_path, npz, capsys, monkeypatch, command, work
):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, stop)
    out = tmp_path / "out"
    command = [*command, "--model", MODEL, "--out", str(out)]
    if command[0] != "dissect":
        command += ["--pairs", str(npz())]
    assert main(command) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "captum-pse: interrupted, no results were written"
    )
    assert not out.exists()


def interrupt(command: Sequence[str], ready: Callable[[], bool]) -> tuple[int, str]:
    """Runs a command in a process of its own and sends it what Ctrl-C sends, once it is
    ready; gives the exit code and standard error."""
    code = (
        "import signal, sys;"
        # A shell's background jobs ignore it, and so do their children.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from captum_pse.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.communicate()
    return process.returncode, error


def test_ctrl_c_leaves_no_part_of_the_demo(tmp_path):
    out = tmp_path / "out"
    code, error = interrupt(
        ["demo", "--pairs", "3", "--out", str(out)], lambda: any(out.rglob("*.png"))
    )
    assert code == 130
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "captum-pse: interrupted, no results were written"
    assert not out.exists()


def test_a_study_goes_on_after_ctrl_c(tmp_path, demo_pairs, monkeypatch, no_pictures):
    out, path = tmp_path / "out", tmp_path / "pairs.npz"
    demo_pairs.save(path)
    command = ["study", "--model", MODEL, "--pairs", f"pgd={path}", "--out", str(out)]
    command += ["--cell", "32", "--adaptive-steps", "1", "--random-sets", "3"]
    partial = out / ".study-partial"
    code, error = interrupt(command, lambda: any(partial.glob("pairs/*.json")))
    assert code == 130
    assert "Traceback" not in error
    assert error.splitlines()[-1] == (
        f"captum-pse: interrupted, partial results are in {partial}; repeat the same "
        "command to resume"
    )
    assert all(name.startswith(".study-partial/") for name in files(out))

    kept = len(list(partial.glob("pairs/*.json")))
    studied: list[Any] = []
    study_pair = stages.study_pair
    monkeypatch.setattr(
        stages,
        "study_pair",
        lambda *args, **options: studied.append(1) or study_pair(*args, **options),
    )
    assert main(command) == 0
    assert len(studied) == len(demo_pairs) - kept
    assert not partial.exists()
    tables = json.loads((out / "study.json").read_text())["tables"]
    assert [row["pair"] for row in tables["pairs"]] == list(demo_pairs.names)


@pytest.mark.parametrize(("studied", "why"), [(2, True), (3, False)])
def test_study_prints_why_pairs_are_left_out(
    tmp_path, demo_pairs, capsys, monkeypatch, studied, why
):
    attacks = [{"attack": "pgd", "pairs": 3, "studied": studied}]
    found = Study({"attacks": attacks, "findings": []}, {})
    monkeypatch.setattr("captum_pse.studies.run.study", lambda *_, **__: found)
    demo_pairs.save(tmp_path / "pgd.npz")
    pairs = str(tmp_path / "pgd.npz")
    command = ["study", "--model", MODEL, "--pairs", pairs, "--out", str(tmp_path)]
    assert main(command) == 0
    counted, line = capsys.readouterr().out.splitlines()[:2]
    assert counted == (
        f"pgd: in {studied} of 3 pairs the labels match the model's predictions"
    )
    assert line.endswith("check --weights, --mean and --std") == why


def test_a_warning_is_one_line_that_says_what_to_do(
    tmp_path, npz, capsys, monkeypatch, no_pictures
):
    def fails(*args, **options):
        raise MismatchError("they differ at conv1")

    monkeypatch.setattr("captum_pse._engine.choice.incremental_scores", fails)
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*command, "--out", str(tmp_path / "out")]) == 0
    said = [row for row in capsys.readouterr().err.splitlines() if "warning" in row]
    # One a pair.
    assert said == 2 * [
        "captum-pse: warning: every perturbed input takes a full pass (they differ at "
        "conv1); the numbers are right but take longer; ask for the engine dense to "
        "have the same without a warning"
    ]


def help_of(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_examples_of_the_help_are_right(command, capsys):
    """They parse, fit their level, and name layers that the models have."""
    text = help_of([command] if command else [], capsys)
    lines = text.split("\nexamples:\n")[1].split("\n\n")[0].replace("\\\n", " ")
    examples = [shlex.split(line) for line in lines.splitlines()]
    assert len(examples) >= 2
    assert all(len(line) <= 88 for line in text.splitlines())
    for name, *words in examples:
        assert name == "captum-pse"
        args = build_parser().parse_args(words)
        if command:
            assert args.command == command
        if "level" in args:
            check_level(args)
        model = None
        source = getattr(args, "model", MODEL)
        if source == MODEL:
            model = demo.load_model()
        elif ":" not in source:
            with torch.device("meta"):
                model = get_model(source, weights=None)
        layers = [getattr(args, "layer", None), *(getattr(args, "layers", None) or ())]
        for layer in filter(None, layers):
            assert model is not None
            assert model.get_submodule(layer)


def test_the_help_has_an_example_of_each_command_and_the_exit_codes(capsys):
    text = help_of([], capsys)
    assert re.findall(r"^  captum-pse (\w+)", text, re.MULTILINE) == list(COMMANDS)
    assert re.findall(r"^    (\w+)  ", text, re.MULTILINE) == list(COMMANDS)
    assert re.findall(r"^  (\d+)  ", text, re.MULTILINE) == ["0", "2", "130"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["explain"], 2),
        ([], 2),
        (["demo", "--cell", "0"], 2),
        (["demo", "--cell", "x"], 2),
        (["demo", "--device", "nonsense"], 2),
        (["demo", "--device", "meta"], 2),
    ],
)
def test_usage(arguments, code, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == code
    printed = capsys.readouterr()
    if arguments == ["--version"]:
        assert printed.out.strip() == __version__
    if "--cell" in arguments:
        assert f"--cell: got {arguments[-1]!r}, want a number, 1 or more" in printed.err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seed=-1", "argument --seed: got '-1', want a number, 0 or more"),
        ("--seed=1.5", "argument --seed: got '1.5', want a number, 0 or more"),
        (f"--seed={2**63}", f"argument --seed: got '{2**63}', want a number up to"),
        (f"--cell={2**63}", f"argument --cell: got '{2**63}', want a number up to"),
        (f"--batch-size={2**64}", f"--batch-size: got '{2**64}', want a number up to"),
    ],
)
def test_integers(argument, message, capsys):
    with pytest.raises(SystemExit):
        main(["study", argument])
    assert message in capsys.readouterr().err


def test_installed_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "captum_pse.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == __version__


def test_importing_stays_light():
    """torchvision, scipy and the like come only when they are used."""
    heavy = "torchvision", "scipy", "safetensors", "skimage"
    code = (
        "import sys, captum.attr; before = set(sys.modules); import captum_pse.cli;"
        "from captum_pse.cli.parser import build_parser; build_parser().format_help();"
        f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
