"""A file that was damaged, edited is never read as something else.

Each bit of a file that the package writes and reads may flip: the reader raises, takes
the file for none, or returns what was written.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import captum_pse as pse
from captum_pse._io.checked import DIGEST, write_tensors
from captum_pse._io.checkpoint import Checkpoint
from captum_pse._io.digest import digest
from captum_pse._io.saved import SavedResult, digest_of
from captum_pse._io.tasks import run_tasks
from captum_pse.dissection import Concept, Dissection
from captum_pse.dissection.result import LayerOverlaps

FOLDER = Path(__file__).parent / "before_the_rooms"
BITS = 40


def flips(path: Path, bits: int = BITS) -> list[bytes]:
    """What a file holds with one bit flipped, for some bits."""
    raw = path.read_bytes()
    found = []
    for bit in np.random.default_rng(0).choice(8 * len(raw), bits, replace=False):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        found.append(bytes(changed))
    return found


def read(load: Callable[[Path], Any], path: Path) -> Any:
    """What is read; None after an error that names the file."""
    try:
        return load(path)
    except ValueError as error:
        message = str(error)
    assert str(path) in message
    return None


def dissection() -> Dissection:
    counts = {
        "intersections": torch.tensor([[3], [0]]),
        "areas": torch.tensor([[5], [1]]),
        "total": torch.tensor([5, 1]),
        "images": torch.tensor([[0, 1], [1, 0]]),
    }
    overlaps = LayerOverlaps(
        thresholds=torch.rand(2), exact=True, peaks=torch.rand(2, 2), **counts
    )
    return Dissection(
        concepts=(Concept("object", 1, "car"),), layers={"layer": overlaps},
        concept_areas=torch.tensor([4]), category_pixels=torch.tensor([64]),
        n_pixels=64, n_images=2, quantile=0.1, min_iou=0.04,
    )  # fmt: skip


#: A result of each kind, from files without a digest.
RESULTS: dict[str, Callable[[], SavedResult]] = {
    "pixels": lambda: pse.PixelDecomposition.load(FOLDER / "pixels.safetensors"),
    "refinement": lambda: pse.Refinement.load(FOLDER / "refinement.safetensors"),
    "regions": lambda: pse.RegionDecomposition.load(FOLDER / "regions.safetensors"),
    "units": lambda: pse.UnitDecomposition.load(FOLDER / "units.safetensors"),
    "sensitivity": lambda: pse.UnitSensitivity.load(FOLDER / "sensitivity.safetensors"),
    "masking": lambda: pse.MaskingCurves.load(FOLDER / "masking.safetensors"),
    "dissection": dissection,
}


def test_every_kind_of_result_is_here() -> None:
    classes, kinds = [SavedResult], set()
    while classes:
        below = classes.pop().__subclasses__()
        kinds |= {kind for kind in below if not kind.__abstractmethods__}
        classes += below
    assert {type(made()) for made in RESULTS.values()} == kinds
    # Nothing of the digest is left to a kind of result.
    assert not any({"save", "load"} & vars(kind).keys() for kind in kinds)


@pytest.mark.parametrize("name", RESULTS)
def test_flipped_bits_of_results(name: str, tmp_path: Path) -> None:
    result, path = RESULTS[name](), tmp_path / "result.safetensors"
    result.save(path)
    assert digest_of(type(result).load(path)) == digest_of(result)
    found = []
    for content in flips(path):
        path.write_bytes(content)
        found.append(read(type(result).load, path))
    assert {digest_of(each) for each in found if each} <= {digest_of(result)}
    assert found.count(None) > BITS / 2


def test_a_result_stays_when_its_file_is_overwritten(tmp_path: Path) -> None:
    result, path = RESULTS["units"](), tmp_path / "result.safetensors"
    result.save(path)
    found = type(result).load(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert digest_of(found) == digest_of(result)


@pytest.mark.parametrize("name", RESULTS)
def test_edited_results(name: str, tmp_path: Path) -> None:
    """A well-formed file with another number, or with another setting."""
    result, path = RESULTS[name](), tmp_path / "result.safetensors"
    result.save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    manifest = json.loads(metadata["manifest"])
    edited = {**metadata, "manifest": json.dumps({**manifest, "n": 1, "layer": "x"})}
    files = [(tensors, edited), ({**tensors, "more": torch.zeros(1)}, metadata)]
    for key in tensors:
        other = tensors[key].clone()
        other.view(-1)[:1] = 1 - other.view(-1)[:1].double()
        files.append(({**tensors, key: other}, metadata))
    for found in files:
        save_file(found[0], path, found[1])
        message = rf"path: {path} is damaged .its content does not match its digest"
        with pytest.raises(ValueError, match=message):
            type(result).load(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_flipped_bits_of_pairs(suffix: str, tmp_path: Path) -> None:
    pair = pse.AdversarialPair(
        *torch.rand(2, 2, 1, 2, 2), [1, 2], 0,
        names=["cat", "dog"] if suffix == ".npz" else (),
        succeeded=torch.tensor([True, False]),
    )  # fmt: skip
    path = tmp_path / f"pairs{suffix}"
    pair.save(path)
    for content in flips(path, 3 * BITS):
        path.write_bytes(content)
        found = read(pse.AdversarialPair.load, path)
        assert found is None or digest(vars(found)) == digest(vars(pair))


def test_edited_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.npz"
    pse.AdversarialPair(*torch.rand(2, 2, 1, 2, 2), [1, 2], 0).save(path)
    with np.load(path) as file:
        arrays = {**file, "attack_label": np.array([2, 1])}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"pairs: .*npz is damaged .its content does"):
        pse.AdversarialPair.load(path)
    # As the format says: a file of one's own has no digest.
    del arrays[DIGEST]
    np.savez(path, **arrays)
    assert pse.AdversarialPair.load(path).attack_label.tolist() == [2, 1]


@pytest.fixture
def quick_study(tmp_path: Path) -> Path:
    """The file of a study, small."""
    from captum_pse._io.checked import with_digest
    from captum_pse._io.files import write_json

    old = pse.Study.load(FOLDER / "study")
    tables = {name: rows[:1] for name, rows in old.tables.items()}
    path = tmp_path / "study.json"
    write_json(path, with_digest({"manifest": old.manifest, "tables": tables}))
    return path


def test_flipped_bits_of_a_study(quick_study: Path) -> None:
    whole = vars(pse.Study.load(quick_study.parent))
    for content in flips(quick_study):
        quick_study.write_bytes(content)
        found = read(lambda path: pse.Study.load(path.parent), quick_study)
        assert found is None or vars(found) == whole


def test_an_edited_study(quick_study: Path) -> None:
    found = json.loads(quick_study.read_text())
    found["tables"]["attacks"][0]["studied"] += 1
    quick_study.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"out: .*study\.json is damaged .its content"):
        pse.Study.load(quick_study.parent)


def test_flipped_bits_of_a_checkpoint(tmp_path: Path) -> None:
    path, state = tmp_path / "a.safetensors", {"values": torch.rand(4, 5)}
    Checkpoint(path, "run").save(3, "inputs", lambda: state, now=True)
    assert Checkpoint(path, "other").load() is None
    for content in flips(path):
        path.write_bytes(content)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = Checkpoint(path, "run").load()
        if found is None:
            assert f"results in {path} are damaged" in str(warned[0].message)
        else:
            assert (found.batches, found.inputs) == (3, "inputs")
            assert torch.equal(found.state["values"], state["values"])


def tasks(done: list[str]) -> dict[tuple[str, int], Callable[[], dict[str, Any]]]:
    def task(name: str, i: int) -> dict[str, Any]:
        done.append(f"{name} {i}")
        return {"pair": f"{name} {i}", "value": i / 3}

    return {
        (name, i): lambda name=name, i=i: task(name, i)
        for name in ("pgd", "cw")
        for i in range(2)
    }


def test_flipped_bits_of_a_record(tmp_path: Path) -> None:
    done: list[str] = []
    wanted = run_tasks(tasks(done), tmp_path, "run")
    path = tmp_path / "00002.json"
    for content in flips(path):
        path.write_bytes(content)
        done.clear()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            assert run_tasks(tasks(done), tmp_path, "run") == wanted
        assert len(warned) == len(done) <= 1
        if done:
            assert done == ["cw 0"]
            assert f"results in {path} are damaged" in str(warned[0].message)


def test_swapped_records(tmp_path: Path) -> None:
    done: list[str] = []
    wanted = run_tasks(tasks(done), tmp_path, "run")
    first, second, other = (tmp_path / f"0000{i}.json" for i in (0, 3, "other"))
    first.rename(other)
    second.rename(first)
    other.rename(second)
    done.clear()
    with pytest.warns(UserWarning, match=r"in .*0000[03]\.json are damaged, edited"):
        assert run_tasks(tasks(done), tmp_path, "run") == wanted
    assert sorted(done) == ["cw 1", "pgd 0"]


def test_records_of_another_stage(tmp_path: Path) -> None:
    wanted = run_tasks(tasks([]), tmp_path / "units", "run")
    (tmp_path / "units").rename(tmp_path / "pairs")
    done: list[str] = []
    with pytest.warns(UserWarning, match="damaged, edited"):
        assert run_tasks(tasks(done), tmp_path / "pairs", "run") == wanted
    assert len(done) == 4


def test_two_runs_at_once_in_one_folder(tmp_path: Path) -> None:
    """The other one replaces a record while this one works."""
    done: list[str] = []

    def last(task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if len(done) == 3:
            run_tasks(tasks([]), tmp_path, "other")
        return task()

    mine = {
        key: lambda task=task: last(task)  # type: ignore[misc]
        for key, task in tasks(done).items()
    }
    with pytest.raises(
        ValueError, match=r"out: got 3 partial results in .* one run at"
    ):
        run_tasks(mine, tmp_path, "run")


def test_a_digest_is_of_all_that_a_file_holds(tmp_path: Path) -> None:
    """Against a plain loop over what other readers find in the file."""
    tensors = {"b": torch.rand(3, 2), "a": torch.tensor([True, False])}
    write_tensors(tmp_path / "file", tensors, {"name": "é"})
    with safe_open(tmp_path / "file", framework="np") as file:
        found = {key: torch.from_numpy(file.get_tensor(key)) for key in ("a", "b")}
        metadata = file.metadata()
    assert metadata[DIGEST] == digest(metadata["manifest"], found)
    assert json.loads(metadata["manifest"]) == {"name": "é"}
