"""Every integer argument of the public interface: what it takes and what it refuses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import nn

import captum_pse as pse
from captum_pse import demo, dissection, visualization
from captum_pse._model.checks import check_int, check_integers
from captum_pse.dissection.concepts import Concept, ConceptSample, Vocabulary

LARGE = 2**63

#: The labels of these tests differ from the models' predictions.
pytestmark = pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3)).eval()


X0 = torch.linspace(0, 1, 72).reshape(2, 1, 6, 6)
X = X0.flip(3)


@cache
def pairs() -> pse.AdversarialPair:
    return pse.AdversarialPair(X, X0, 0, 1)


class Squares(list[ConceptSample]):
    concepts = (Concept("object", 1, "square"),)


@cache
def squares() -> Squares:
    return Squares([ConceptSample(x, {"object": (x[0] > 0.5).long()}) for x in X0])


def attack(model: nn.Module, pairs: pse.AdversarialPair) -> torch.Tensor:
    return X


@cache
def units() -> pse.UnitDecomposition:
    return pse.DissectionSensitivity(net(), "0").decompose(X, X0, 0, 1)


@cache
def sensitivity() -> pse.UnitSensitivity:
    return pse.DissectionSensitivity(net(), "0").over(pairs())


@cache
def dissected() -> tuple[pse.NetworkDissection, pse.Dissection]:
    method = pse.NetworkDissection(net(), ["0"], quantile=0.1)
    return method, method.dissect(squares())


@cache
def pixels() -> pse.PixelDecomposition:
    return pse.PromotionSuppression(net()).decompose(X, X0, 0, 1)


@cache
def regions() -> pse.RegionDecomposition:
    return pse.AdversarialCAM(net(), "0").decompose(X, X0, 0, 1)


def masking(**options: Any) -> pse.MaskingCurves:
    ranking = {"by number": -torch.arange(4.0)}
    given: dict[str, Any] = {"counts": [0], "seeds": [0], **options}
    return pse.evaluate_masking(net(), pairs(), "0", ranking, **given)


def masking_test(**options: Any) -> pse.MaskingTest:
    return pse.masking_test(
        net(), pairs(), "0", torch.tensor([0]), **{"sets": 2, **options}
    )


def masked(units: Any = (0,), **options: Any) -> torch.Tensor:
    with pse.mask_units(net(), {"0": units}, **options) as model:
        scores: torch.Tensor = model(X)
        return scores


def hardened(**options: Any) -> pse.Hardened:
    other = pse.AdversarialPair(X / 2, X0 / 2, 0, 1)
    given: dict[str, Any] = {"counts": [0], "attack": attack, **options}
    return pse.harden(net(), "0", pairs(), other, **given)


def plotted_units(**options: Any) -> object:
    return visualization.plot_units(*dissected(), squares(), "0", **options)


class Case(NamedTuple):
    """How to give an argument a value; its least value; whether it is in a sequence."""

    call: Callable[..., Any]
    least: int | None = 0
    valid: int = 1
    sequence: bool = False


def study(tmp_path: Any, **options: Any) -> Any:
    return pse.study(net(), {"a": pairs()}, tmp_path, **options)


_SENSITIVITY = pse.DissectionSensitivity
_POSITIONS = {
    "grid": Case(lambda grid: pse.AdversarialCAM(net(), "0", grid=grid), 1, 2, True),
    "num_prefix_tokens": Case(
        lambda **o: pse.AdversarialCAM(net(), "0", grid=(4,), **o)
    ),
}
CASES: dict[str, dict[str, Case]] = {
    "AdversarialCAM.__init__": {
        "channel_dim": Case(partial(pse.AdversarialCAM, net(), "0"), None),
        "input_channel_dim": Case(partial(pse.AdversarialCAM, net(), "0"), None),
        **_POSITIONS,
    },
    "PairedAttribution.__init__": {
        "input_channel_dim": Case(partial(pse.PairedAttribution, Saliency(net())), None)
    },
    "NetworkDissection.__init__": {
        "channel_dim": Case(partial(pse.NetworkDissection, net(), ["0"]), None),
        "grid": Case(partial(pse.NetworkDissection, net(), ["0"]), 1, 2, True),
        "num_prefix_tokens": Case(
            lambda **o: pse.NetworkDissection(net(), ["0"], grid=(4,), **o)
        ),
    },
    "DissectionSensitivity.__init__": {
        "channel_dim": Case(partial(_SENSITIVITY, net(), "0"), None)
    },
    "DissectionSensitivity.over": {
        "batch_size": Case(partial(_SENSITIVITY(net(), "0").over, pairs()), 1),
        "seed": Case(partial(_SENSITIVITY(net(), "0").over, pairs())),
    },
    "AdversarialPair.from_attack": {
        "batch_size": Case(
            lambda **o: pse.AdversarialPair.from_attack(
                lambda model, x, t: 1 - x, X0, true_label=1, model=net(), **o
            ),
            1,
        )
    },
    "NetworkDissection.dissect": {
        "batch_size": Case(lambda **o: dissected()[0].dissect(squares(), **o), 1),
        "num_workers": Case(lambda **o: dissected()[0].dissect(squares(), **o), 0, 0),
        "memory_limit": Case(lambda **o: dissected()[0].dissect(squares(), **o)),
    },
    "NetworkDissection.unit_masks": {
        "units": Case(
            lambda units: dissected()[0].unit_masks(X, dissected()[1], "0", units),
            sequence=True,
        )
    },
    "IncrementalAblation.__init__": {
        "memory_limit": Case(partial(pse.IncrementalAblation, net()), 1)
    },
    "IncrementalAblation.attribute": {
        "perturbations_per_eval": Case(
            partial(pse.IncrementalAblation(net()).attribute, X, X0, 0), 1
        )
    },
    "PromotionSuppression.__init__": {
        "n_steps": Case(partial(pse.PromotionSuppression, net()), 1),
        "memory_limit": Case(partial(pse.PromotionSuppression, net()), 1),
    },
    "PromotionSuppression.attribute": {
        "perturbations_per_eval": Case(
            partial(pse.PromotionSuppression(net()).attribute, X, X0, 0, 1), 1
        )
    },
    "PromotionSuppression.decompose_by_score": {
        "perturbations_per_eval": Case(
            partial(pse.PromotionSuppression(net()).decompose_by_score, X, X0, 0, 1), 1
        )
    },
    "PromotionSuppression.decompose": {
        "perturbations_per_eval": Case(
            partial(pse.PromotionSuppression(net()).decompose, X, X0, 0, 1), 1
        )
    },
    "StructuredAttack.perturb": {
        name: Case(
            lambda **o: pse.StructuredAttack(net(), 0, 1).perturb(
                X0, 0, **{"search_steps": 1, "iterations": 1, **o}
            ),
            1,
        )
        for name in ("search_steps", "iterations")
    },
    "UnitDecomposition.summary": {"top": Case(lambda top: units().summary(top))},
    "UnitDecomposition.plot": {"example": Case(lambda example: units().plot(example))},
    "PixelDecomposition.plot": {
        "example": Case(lambda example: pixels().plot(example))
    },
    "RegionDecomposition.plot": {
        "example": Case(lambda example: regions().plot(example))
    },
    "agreement": {
        "top": Case(partial(pse.agreement, {"a": X[:, :, 0], "b": X0[:, :, 0]}), 1)
    },
    "evaluate_masking": {
        "counts": Case(masking, sequence=True),
        "seeds": Case(masking, sequence=True),
        "channel_dim": Case(masking, None),
        "batch_size": Case(masking, 1),
    },
    "masking_test": {
        "sets": Case(masking_test, 1),
        "seed": Case(masking_test, 0),
        "channel_dim": Case(masking_test, None),
        "batch_size": Case(masking_test, 1),
    },
    "grid_mask": {
        "size": Case(partial(pse.grid_mask, cell=1), 1, 2, True),
        "cell": Case(partial(pse.grid_mask, (4, 4)), 1),
        "count": Case(partial(pse.grid_mask, (4, 4)), 1),
    },
    "harden": {
        "channel_dim": Case(hardened, None),
        "counts": Case(hardened, sequence=True),
        "batch_size": Case(hardened, 1),
    },
    "mask_units": {
        "units": Case(masked, sequence=True),
        "channel_dim": Case(masked, None),
    },
    "masked_copy": {
        "channel_dim": Case(partial(pse.masked_copy, net(), {"0": [0]}), None),
        "units": Case(
            lambda units: pse.masked_copy(net(), {"0": units}), sequence=True
        ),
    },
    "relate": {
        "tops": Case(lambda tops: related(tops=tops), 1, 1, True),
        "permutations": Case(lambda **o: related(**o), 1, 9),
        "seed": Case(lambda **o: related(**o)),
    },
    "superpixel_mask": {"n_segments": Case(partial(pse.superpixel_mask, X0), 1, 2)},
    "unit_range": {
        "channel_dim": Case(partial(pse.unit_range, net(), "0", X0), None),
        "batch_size": Case(partial(pse.unit_range, net(), "0", X0), 1),
    },
    "SceneConcepts.__init__": {
        "n": Case(demo.SceneConcepts, 1),
        "seed": Case(demo.SceneConcepts),
    },
    "SceneConcepts.__getitem__": {
        "index": Case(lambda index: demo.SceneConcepts(2)[index])
    },
    "Scenes.__init__": {
        "n": Case(demo.Scenes, 1),
        "seed": Case(partial(demo.Scenes, 1)),
    },
    "Scenes.scene": {"index": Case(lambda index: demo.Scenes(2).scene(index))},
    "Scenes.__getitem__": {"index": Case(lambda index: demo.Scenes(2)[index])},
    "draw_scene": {
        "seed": Case(partial(demo.draw_scene, index=0)),
        "index": Case(partial(demo.draw_scene, 0)),
    },
    "make_pairs": {
        "n": Case(partial(demo.make_pairs, steps=1), 1),
        "steps": Case(partial(demo.make_pairs, 1), 1),
    },
    "plot_detectors": {
        "most": Case(lambda **o: visualization.plot_detectors(dissected()[1], **o), 1)
    },
    "plot_groups": {
        name: Case(lambda **o: visualization.plot_groups(pixels(), **o), least)
        for name, least in (("example", 0), ("most", 1))
    },
    "plot_methods": {
        name: Case(
            lambda **o: visualization.plot_methods(
                {"a": pixels(), "b": regions()}, **o
            ),
            least,
        )
        for name, least in (("example", 0), ("top", 1))
    },
    "plot_pair": {"example": Case(lambda **o: visualization.plot_pair(pixels(), **o))},
    "plot_regions": {
        "example": Case(lambda **o: visualization.plot_regions(regions(), **o))
    },
    "plot_sensitivity": {
        "most": Case(lambda **o: visualization.plot_sensitivity(sensitivity(), **o), 1)
    },
    "plot_unit_changes": {
        name: Case(lambda **o: visualization.plot_unit_changes(units(), **o), least)
        for name, least in (("example", 0), ("most", 1))
    },
    "plot_units": {
        "units": Case(partial(plotted_units, n_images=1), sequence=True),
        "n_images": Case(partial(plotted_units, units=[0]), 1),
    },
}


def related(**options: Any) -> pse.Relation:
    given: dict[str, Any] = {"permutations": 9, "tops": [1], **options}
    return pse.relate(sensitivity(), dissected()[1], **given)


#: Checked below, apart: a run that is accepted writes files.
STUDY = {
    "cell": 1, "adaptive_steps": 1, "random_sets": 1, "seed": 0, "batch_size": 1
}  # fmt: skip
#: No arguments: fields of results, items of data sets of files, a protocol.
NOT_ARGUMENTS = re.compile(
    r"(Agreement|Dissection|Hardened|MaskingCurves|MaskingTest|UnitDecomposition|UnitSensitivity"
    r"|RegionDecomposition)"
    r"\.__init__|(Broden|Segmentation|Folder)Concepts\.__getitem__"
    r"|ConceptDataset|(ConceptSample|Concept)\.__new__"
    # Numbers of concepts: see test_numbers_of_concepts. Widths go to torch.
    r"|FolderConcepts\.__init__|DemoNet\.__init__|Scene\.__init__"
)


def public_integers() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module in (pse, demo, dissection, visualization):
        for name in module.__all__:
            value = getattr(module, name)
            functions = {name: value}
            if inspect.isclass(value):
                functions = {
                    f"{name}.{key}": getattr(value, key)
                    for key in vars(value)
                    if not key.startswith("_") or key in ("__init__", "__getitem__")
                }
            for key, function in functions.items():
                if not callable(function) or NOT_ARGUMENTS.fullmatch(key):
                    continue
                if key.startswith("ConceptDataset"):
                    continue
                signature = inspect.signature(inspect.unwrap(function))
                if integers := {
                    p.name
                    for p in signature.parameters.values()
                    if re.search(r"\bint\b", str(p.annotation))
                }:
                    found[key] = integers
    return found


def test_no_integer_argument_is_missing_here() -> None:
    wanted = {name: set(cases) for name, cases in CASES.items()}
    assert public_integers() == {**wanted, "study": set(STUDY)}


ALL = {
    f"{function}({name})": (name, case)
    for function, cases in CASES.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize(("name", "case"), ALL.values(), ids=ALL)
def test_integers(name: str, case: Case) -> None:
    def give(value: Any) -> Any:
        return case.call(**{name: [value] if case.sequence else value})

    give(np.int64(case.valid))
    for wrong in (True, 1.5):
        with pytest.raises(TypeError, match=f"{name}: got {wrong!r}, want "):
            give(wrong)
    too_small = [] if case.least is None else [case.least - 1]
    for wrong in (LARGE, *too_small):
        with pytest.raises((ValueError, IndexError), match=rf"{name}: got \[?{wrong}"):
            give(wrong)


@pytest.mark.parametrize(("name", "least"), STUDY.items(), ids=STUDY)
def test_integers_of_a_study(name: str, least: int, tmp_path: Any) -> None:
    for wrong, error in (
        *((True, TypeError), (1.5, TypeError)),
        *((LARGE, ValueError), (least - 1, ValueError)),
    ):
        with pytest.raises(error, match=f"{name}: got {wrong}, want "):
            study(tmp_path, **{name: wrong})


LABELS = {
    "int": (LARGE, f"got {LARGE}, want an int that int64 holds"),
    "list": ([0, LARGE], f"got {LARGE}, want"),
    "tuples": ([(0,), (-LARGE - 1,)], f"got {-LARGE - 1}, want"),
    "tensor": (torch.tensor([0, LARGE], dtype=torch.uint64), f"got {LARGE}, want"),
    "largest": (torch.tensor(2**64 - 1, dtype=torch.uint64), f"got {2**64 - 1}, want"),
}


@pytest.mark.parametrize(("label", "message"), LABELS.values(), ids=LABELS)
def test_labels(label: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"attack_label: {message}"):
        pse.AdversarialPair(X, X0, label, 1)
    with pytest.raises(ValueError, match=f"target: {message}"):
        pse.PromotionSuppression(net()).attribute(X, X0, label, 1)


def test_labels_of_a_file(tmp_path: Any) -> None:
    path = tmp_path / "pairs.npz"
    arrays = {"natural": X0.numpy(), "adversarial": X.numpy()}
    labels = np.array([1, 2**64 - 1], dtype=np.uint64)
    np.savez(path, **arrays, true_label=np.array([0, 0], ">i4"), attack_label=labels)
    with pytest.raises(ValueError, match=f"attack_label: got {2**64 - 1}, want"):
        pse.AdversarialPair.load(path)
    np.savez(path, **arrays, true_label=np.array([0, 0], ">i4"), attack_label=[1, 2])
    assert pse.AdversarialPair.load(path).true_label.tolist() == [0, 0]


@pytest.mark.parametrize("method", ["PromotionSuppression", "IncrementalAblation"])
def test_ids_of_groups(method: str) -> None:
    """2**64 - 1 as int64 is -1, which is no group."""
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.uint64)
    mask[..., 3:] = 7
    found = getattr(pse, method)(net()).attribute
    same = found(X, X0, 0, feature_mask=mask.long())
    assert torch.equal(found(X, X0, 0, feature_mask=mask), same)
    mask[..., 5:] = 2**64 - 1
    with pytest.raises(ValueError, match=f"feature_mask: got {2**64 - 1}, want an int"):
        found(X, X0, 0, feature_mask=mask)


def test_the_largest_cell_is_one_group() -> None:
    assert pse.grid_mask((4, 4), cell=LARGE - 1).unique().tolist() == [0]


@pytest.mark.parametrize("index", [LARGE, [0, LARGE], -LARGE - 1])
def test_examples_of_a_pair(index: Any) -> None:
    with pytest.raises(IndexError, match="examples: got"):
        pairs().select(index)


def test_numbers_of_concepts() -> None:
    """A number may be large without a table of that size."""
    image = torch.rand(1, 2, 2)
    numbers = [2**62, 3]
    vocabulary = Vocabulary([Concept("object", n, f"{n}") for n in numbers])
    labels = torch.tensor([[3, 0], [2**62, 3]])
    found = vocabulary.read(ConceptSample(image, {"object": labels}), 0)
    assert found.labels.tolist() == [[1, -1, 0, 1]]
    for wrong in (4, 2**62 + 1, -1):
        sample = ConceptSample(image, {"object": labels.where(labels == 3, wrong)})
        with pytest.raises(
            ValueError, match=rf"got label {wrong} of category 'object'"
        ):
            vocabulary.read(sample, 5)
    with pytest.raises(ValueError, match=r"labels of category 'object' in sample 5"):
        vocabulary.read(ConceptSample(image, {"object": [LARGE]}), 5)
    for number, error in ((LARGE, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"dataset: number: got {number}, want an int"):
            Vocabulary([Concept("object", number, "thing")])  # type: ignore[arg-type]


def test_what_an_integer_is() -> None:
    for value in (3, np.int8(3), np.uint64(3), torch.tensor(3), np.array([3])[0]):
        got = check_int("n", value, 1)
        assert got == 3
        assert type(got) is int
    for wrong in (np.True_, torch.tensor(True), torch.tensor(3.0), torch.tensor([3])):
        with pytest.raises(TypeError, match=r"n: got .*, want a positive int"):
            check_int("n", wrong, 1)
    assert check_int("n", -LARGE) == -LARGE
    for value in (torch.tensor([1], dtype=torch.uint8), torch.tensor([1]).int()):
        assert check_integers("n", value).dtype == torch.int64
