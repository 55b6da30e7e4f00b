"""A dissection resumes only from partial results that a fresh run would have, too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captum_pse._io.saved import digest_of
from captum_pse._model.normalized import Normalized
from captum_pse.dissection import (
    Concept,
    ConceptSample,
    Dissection,
    FolderConcepts,
    NetworkDissection,
    passes,
)

N, BATCH = 12, 3
#: Passes of a whole run: one to identify the model, and two over four batches.
WHOLE = 1 + 2 * (N // BATCH)
#: The batches that are done when a run is stopped, within each of the two passes.
STOPS = (2, 7)


class Blue(nn.Module):
    """Does to blue what no image without blue, such as the first one, shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("hidden", torch.ones(3, 1, 1), persistent=False)
        self.slope = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :2], self.slope * x[:, 2:]], dim=1) * self.hidden
        return self.layer(x).mean((2, 3))


class Double(Blue):
    """Has the name of what it changes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x[:, :2], 2 * x[:, 2:]], dim=1))


def model() -> nn.Module:
    torch.manual_seed(0)
    return Blue().eval()


def write(path: Path, value: int, channels: int) -> None:
    rng = np.random.default_rng(value)
    pixels = rng.integers(0, 256 if channels == 3 else 3, (8, 8, channels))
    if value == 0:
        pixels[..., -1] = 0
    Image.fromarray(pixels.squeeze().astype("uint8")).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for side, channels in (("images", 3), ("masks", 1)):
        (tmp_path / side).mkdir()
        for i in range(N):
            write(tmp_path / side / f"{i:02d}.png", i, channels)
    return tmp_path


def dissect(folder: Path, network: Any = None, **options: Any) -> Dissection:
    options = {"quantile": 0.1, "names": {1: "one", 2: "two"}, **options}
    names = options.pop("names")
    dataset = FolderConcepts(folder / "images", folder / "masks", names)
    method = NetworkDissection(
        network or model(), ["layer"], quantile=options.pop("quantile")
    )
    return method.dissect(dataset, **{"batch_size": BATCH, **options})


class Stopped(Exception):  # noqa: N818
    pass


def stopped(folder: Path, batches: int) -> None:
    """A run that is stopped after some batches, with their partial results."""
    network, passes = model(), []

    def hook(*_: Any) -> None:
        passes.append(1)
        if len(passes) > 1 + batches:
            raise Stopped

    network.get_submodule("layer").register_forward_hook(hook)
    # What a layer's hook raises comes out of the model.
    with pytest.raises(ValueError, match="Stopped"):
        dissect(folder, network, checkpoints=folder / "partial")


def changed(name: str, folder: Path) -> dict[str, Any]:
    """Makes one change, in the folder or in the arguments that are returned."""
    network = model()
    with torch.no_grad():
        if name == "a weight":
            network.layer.weight[0, 2] *= 1 + 1e-6
        elif name == "a buffer that is not in the state":
            network.hidden[2] += 1e-6
    if name == "an attribute":
        network.slope = 1.001
    elif name == "the class":
        network = Double().eval()
        network.load_state_dict(model().state_dict())
    elif name == "a normalisation":
        network = Normalized(network, [0.0] * 3, [1.0, 1.0, 0.999])
    elif name == "four images":
        for i in (2, 4, 7, 8):
            write(folder / f"images/{i:02d}.png", 100 + i, 3)
    elif name == "a mask":
        write(folder / "masks/03.png", 100, 1)
    elif name == "a file more":
        write(folder / "images/12.png", 12, 3)
        write(folder / "masks/12.png", 12, 1)
    return {"network": network, **ARGUMENTS.get(name, {})}


ARGUMENTS: dict[str, dict[str, Any]] = {
    "quantile": {"quantile": 0.11},
    "batch size": {"batch_size": 4},
    "memory limit": {"memory_limit": 1},
    "a concept": {"names": {1: "one", 2: "other"}},
}
CHANGES = [
    "a weight", "a buffer that is not in the state", "an attribute", "the class",
    "a normalisation", "four images", "a mask", "a file more", *ARGUMENTS,
]  # fmt: skip


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_pse._io.checkpoint.Checkpoint.every", 0.0)


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        *((name, STOPS[1]) for name in CHANGES),
        *((name, STOPS[0]) for name in ("a weight", "four images", "a mask")),
    ],
)
def test_after_a_change_the_result_is_that_of_a_fresh_run(folder, name, batches):
    before = digest_of(dissect(folder))
    stopped(folder, batches)
    options = changed(name, folder)
    wanted = digest_of(dissect(folder, **options))
    found = dissect(folder, **options, checkpoints=folder / "partial")
    assert digest_of(found) == wanted
    # But for the arguments that change no number of so few images.
    assert (wanted != before) or name in ("batch size", "a weight", "the class")


@pytest.mark.parametrize("batches", STOPS)
@pytest.mark.parametrize("name", ["nothing", "the files' times", "a later image"])
def test_what_is_done_is_not_done_again(folder, name, batches):
    stopped(folder, batches)
    if name == "the files' times":
        for path in folder.glob("*/*.png"):
            os.utime(path, (1, 1))
    if name == "a later image":
        write(folder / "images/11.png", 100, 3)
    network, passes = model(), []
    network.layer.register_forward_hook(lambda *_: passes.append(1))
    found = dissect(folder, network, checkpoints=folder / "partial")
    assert digest_of(found) == digest_of(dissect(folder))
    # The second stop is in the second pass: the first one has read the last image.
    is_late = (name, batches) == ("a later image", STOPS[1])
    assert len(passes) == (WHOLE if is_late else WHOLE - batches)


def test_other_code_is_another_run(folder, monkeypatch):
    stopped(folder, STOPS[1])
    monkeypatch.setattr(passes, "code_digest", lambda: "another version")
    network, counted = model(), []
    network.layer.register_forward_hook(lambda *_: counted.append(1))
    dissect(folder, network, checkpoints=folder / "partial")
    assert len(counted) == WHOLE


class Noisy:
    """Differs each time in what ``noise`` adds to its images or labels."""

    concepts = (Concept("object", 1, "thing"),)

    def __init__(self, noise: Callable[[ConceptSample], ConceptSample]) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> ConceptSample:
        sample = ConceptSample(torch.ones(3, 8, 8) * index, {"object": [1]})
        return self.noise(sample) if index == 2 else sample


@pytest.mark.parametrize(
    "noise",
    [
        lambda sample: sample._replace(image=torch.rand(3, 8, 8)),
        lambda sample: sample._replace(labels={"object": torch.randint(2, (8, 8))}),
    ],
    ids=["images", "labels"],
)
@pytest.mark.parametrize("checkpoints", [False, True])
def test_samples_that_differ_each_time(noise, checkpoints, tmp_path):
    method = NetworkDissection(model(), ["layer"])
    with pytest.raises(ValueError, match="images or labels of samples 2 to 3 when"):
        method.dissect(
            Noisy(noise), batch_size=2, checkpoints=tmp_path if checkpoints else None
        )


def test_a_function_has_no_weights_to_compare(folder):
    network = model()
    dataset = FolderConcepts(folder / "images", folder / "masks", {1: "a", 2: "b"})
    method = NetworkDissection(lambda x: network(x), [network.layer])
    method.dissect(dataset)
    with pytest.raises(ValueError, match=r"checkpoints: .* is a function, want"):
        method.dissect(dataset, checkpoints=folder / "partial")
    assert not (folder / "partial").exists()
