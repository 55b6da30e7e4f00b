"""The command line, from arguments to files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from captum_pse import PromotionSuppression, __version__, demo, grid_mask
from captum_pse.cli import main

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
        "groups.csv",
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
    assert float(rows[20]["effect"]) == pytest.approx(
        float(result.effect[1, 4]), rel=1e-3, abs=1e-4
    )


def test_explain_twice_into_one_folder(tmp_path, npz, capsys):
    """Random pairs: the model does not say the labels, which is reported."""
    path = npz(name=np.array(["../<b>", "a/b"]))
    command = ["explain", "--model", MODEL, "--pairs", str(path), "--cell", "32"]
    for _ in range(2):
        assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "NO: " in out
    assert "NOTE: the model does not say the attack label on" in out
    assert files(tmp_path / "out") == [
        "figures/000-.._b_.png",
        "figures/001-a_b.png",
        "groups.csv",
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


def test_explain_folders_by_the_models_own_labels(tmp_path, demo_pairs):
    for side in ("natural", "adversarial"):
        (tmp_path / side).mkdir()
        for image, name in zip(getattr(demo_pairs, side), "abc", strict=True):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / side / f"{name}.png")
    sides = [str(tmp_path / "natural"), str(tmp_path / "adversarial")]
    out = tmp_path / "out"
    options = ["--cell", "32", "--batch", "2", "--out", str(out)]
    assert main(["explain", "--model", MODEL, "--pairs", *sides, *options]) == 0
    records = json.loads((out / "summary.json").read_text())["pairs"]
    assert [r["attack_label"] for r in records] == demo_pairs.attack_label.tolist()
    assert [r["pair"] for r in records] == ["a", "b", "c"]


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
        "model: it does not take images of shape (1, 3, 64, 64)",
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


def test_out_is_a_file(tmp_path, npz, capsys):
    (tmp_path / "out").write_text("mine")
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out").read_text() == "mine"


def test_interrupted_between_pairs(tmp_path, npz, capsys, monkeypatch):
    calls = []

    def decompose(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    original = PromotionSuppression.decompose
    monkeypatch.setattr(PromotionSuppression, "decompose", decompose)
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text("of an earlier run")
    command = ["explain", "--model", MODEL, "--pairs", str(npz()), "--cell", "32"]
    assert main([*command, "--out", str(out)]) == 130
    assert files(out) == ["figures/000-0.png"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["explain"], 2),
        ([], 2),
        (["demo", "--cell", "0"], 2),
        (["demo", "--device", "nonsense"], 2),
    ],
)
def test_usage(arguments, code, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == code
    if arguments == ["--version"]:
        assert capsys.readouterr().out.strip() == __version__


def test_installed_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "captum_pse", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == __version__


def test_importing_stays_light():
    """torchvision, scipy and the like come only when they are used."""
    heavy = "torchvision", "scipy", "safetensors", "skimage"
    code = (
        "import sys, captum.attr; before = set(sys.modules); import captum_pse;"
        f"print([m for m in {heavy} if m in set(sys.modules) - before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
