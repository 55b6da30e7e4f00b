"""The kinds of scores: what a model returns, and what effects are differences of."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import FeatureAblation, LayerGradCam
from conftest import Segmenter, SmallNet
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import captum_pse as pse
from captum_pse._model.score import KINDS, returned_kind
from captum_pse.cli import main
from captum_pse.comparison.side_by_side import plot_methods
from captum_pse.demo import load_model, make_pairs
from captum_pse.pairs.scored import ScoredPair

#: The labels of these tests differ from the models' predictions.
pytestmark = [
    pytest.mark.filterwarnings("ignore::captum_pse.PredictionWarning"),
    pytest.mark.filterwarnings("ignore::captum_pse.SaturationWarning"),
]

#: What a user would write around the model to have the same scores.
WRAPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logits: logits,
    "centered": lambda logits: logits - logits.mean(1, keepdim=True),
    "log_softmax": lambda logits: logits.log_softmax(1),
}
NAMES = dict(zip(WRAPPED, KINDS, strict=False))


class Around(nn.Module):
    """A model whose logits a function changes."""

    def __init__(self, model: nn.Module, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.of = model, of

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self.model(x))


def pair_of(size: int = 16, n: int = 2) -> tuple[Tensor, Tensor]:
    x0 = torch.rand(n, 3, size, size, dtype=torch.float64)
    return x0 + 0.5 * torch.randn_like(x0), x0


MASK = pse.grid_mask((16, 16), cell=4)


# What a model returns


def softmax(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (4 * torch.randn(shape)).to(dtype).softmax(1)


OUTPUTS = {
    "logits": (lambda: torch.randn(3, 5), "logit"),
    "positive logits": (lambda: torch.rand(3, 5), "logit"),
    "negative logits": (lambda: -torch.rand(3, 5), "logit"),
    "zeros": (lambda: torch.zeros(3, 5), "logit"),
    "sum 1, below 0": (lambda: torch.tensor([[1.5, -0.5], [0.5, 0.5]]), "logit"),
    "sum 1 in one row": (lambda: torch.tensor([[0.5, 0.5], [0.6, 0.5]]), "logit"),
    "NaN": (lambda: torch.full((2, 3), torch.nan), "logit"),
    "softmax": (lambda: softmax(3, 5), "probability"),
    "1000 classes": (lambda: softmax(3, 1000), "probability"),
    "float16": (lambda: softmax(3, 1000, dtype=torch.float16), "probability"),
    "bfloat16": (lambda: softmax(3, 1000, dtype=torch.bfloat16), "probability"),
    "dense softmax": (lambda: softmax(3, 4, 2, 2), "probability"),
    "certain": (lambda: torch.eye(3), "probability"),
    "log-softmax": (lambda: softmax(3, 5).log(), "log-probability"),
    "dense log-softmax": (lambda: softmax(3, 4, 2, 2).log(), "log-probability"),
    "float16 log-softmax": (
        lambda: torch.randn(3, 1000).half().log_softmax(1),
        "log-probability",
    ),
    "an impossible class": (
        lambda: torch.tensor([[0.0, -torch.inf]]).expand(2, 2),
        "log-probability",
    ),
}


@pytest.mark.parametrize(("output", "kind"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_a_model_returns_is_recognised(
    output: Callable[[], Tensor], kind: str
) -> None:
    scores = output()
    assert returned_kind(scores).name == kind
    # It takes all of both sides.
    assert returned_kind(scores, torch.randn_like(scores)).name == "logit"


def tabular() -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier of 12 features that is certain of both sides."""
    model = nn.Linear(12, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-3.0], [1.5], [0.0]]).expand(3, 12))
        model.bias.zero_()
    return model, torch.ones(1, 12), -torch.ones(1, 12)


def test_probabilities_hide_effects_and_say_so() -> None:
    logits, x, x0 = tabular()
    model = nn.Sequential(logits, nn.Softmax(1))
    found = pse.PromotionSuppression(logits).decompose(x, x0)
    assert found.score == "logit"
    assert found.promotion.sum() == pytest.approx(36)  # 12 features, 1.5 * 2 each
    with pytest.warns(
        pse.ProbabilityWarning, match="want logits.*give the model without its last"
    ) as caught:
        hidden = pse.PromotionSuppression(model).decompose(x, x0)
    assert [w.filename for w in caught] == [__file__]
    (record,) = hidden.summary()
    assert record["attack_score_gain"] == pytest.approx(1)
    assert (record["inactive"], record["score"]) == (12, "probability")
    with pytest.warns(pse.ProbabilityWarning):
        assert list(pse.PromotionSuppression(model).decompose_by_score(x, x0)) == [
            "logit"
        ]
    figure = hidden.plot()
    assert figure.axes[0].get_ylabel() == "probabilities"
    assert "attack probability +1.00, true probability -1.00" in (
        figure.axes[0].get_title()
    )


def certain_images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Softmax(1)).double().eval()  # fmt: skip


#: What computes effects from scores, or attacks by them.
WARNING = {
    "regions": lambda m, x, x0: pse.AdversarialCAM(m, "0").decompose(x, x0, 0, 1),
    "another method": lambda m, x, x0: pse.PairedAttribution(
        FeatureAblation(m)
    ).attribute(x, x0, 0, 1, feature_mask=MASK),
    "structured attack": lambda m, x, x0: pse.StructuredAttack(m).perturb(
        x0, 0, iterations=1
    ),
    "adaptive attack": lambda m, x, x0: pse.evaluate_masking(
        m, pse.AdversarialPair(x, x0, 0, 1), "0", {"k": torch.arange(4.0)}, [1],
        attack=lambda model, pairs: pairs.natural,
    ),
}  # fmt: skip


@pytest.mark.parametrize("use", WARNING.values(), ids=WARNING)
def test_probabilities_are_warned_of_wherever_scores_count(
    use: Callable[..., Any],
) -> None:
    x, x0 = pair_of()
    with pytest.warns(pse.ProbabilityWarning, match="without its last softmax"):
        use(certain_images(), x, x0)


def test_what_depends_on_predictions_alone_does_not_warn() -> None:
    x, x0 = pair_of()
    model = certain_images()
    refined = pse.refine(model, x, x0, 0, 1, scores=(x - x0).abs(), feature_mask=MASK)
    assert refined.summary()[0]["score"] == "probability"
    units = pse.DissectionSensitivity(model, "0").decompose(x, x0, 0, 1)
    assert units.score == "probability"


REFUSED = {
    "groups": lambda m, s: pse.PromotionSuppression(m, score=s).attribute,
    "regions": lambda m, s: pse.AdversarialCAM(m, "0", score=s).attribute,
    "units": lambda m, s: pse.DissectionSensitivity(m, "0", score=s).attribute,
    "refine": lambda m, s: lambda *pair: pse.refine(m, *pair, scores=pair[0], score=s),
}


@pytest.mark.parametrize("method", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("score", ["centered", "log_softmax"])
def test_other_scores_need_logits(method: Callable[..., Any], score: str) -> None:
    message = f"score: got '{score}' for a model that returns probabilities, want one"
    with pytest.raises(ValueError, match=message):
        method(certain_images(), score)(*pair_of(), 0, 1)


@pytest.mark.parametrize("method", REFUSED.values(), ids=REFUSED)
def test_there_is_no_such_score(method: Callable[..., Any]) -> None:
    message = "score: got 'margin', want one of logit, centered, log_softmax"
    with pytest.raises(ValueError, match=message):
        method(certain_images(), "margin")(*pair_of(), 0, 1)


# Effects


MODELS = {
    "classes": (SmallNet, (1, 3)),
    "dense": (Segmenter, ((1, 5, 6), (3, 9, 2))),
}


@pytest.mark.parametrize("score", WRAPPED)
@pytest.mark.parametrize("engine", ["dense", "incremental"])
@pytest.mark.parametrize(("network", "labels"), MODELS.values(), ids=MODELS)
def test_effects_are_those_of_the_wrapped_model(
    network: type[nn.Module], labels: tuple[Any, Any], engine: Any, score: Any
) -> None:
    model, (x, x0), (t, t0) = network().double().eval(), pair_of(), labels
    method = pse.PromotionSuppression(model, engine=engine, score=score)
    found = method.decompose(x, x0, t, t0, feature_mask=MASK)
    assert (found.engine, found.score) == (engine, NAMES[score])
    changes = found.promotion_change, -found.suppression_change
    ablation = FeatureAblation(lambda x: WRAPPED[score](model(x)))
    for change, label in zip(changes, (t, t0), strict=True):
        got = found.groups.spread(change, found.inputs)[0]
        wanted = ablation.attribute(x, x0, label, feature_mask=MASK)
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)
    # Predictions are those of the model, and sums refer to the same scores.
    own = pse.PromotionSuppression(lambda x: WRAPPED[score](model(x)))
    other = own.decompose(x, x0, t, t0, feature_mask=MASK)
    for key, value in vars(other.labels).items():
        torch.testing.assert_close(getattr(found.labels, key), value)


@pytest.mark.parametrize("score", WRAPPED)
def test_estimates_are_those_of_the_wrapped_model(score: Any) -> None:
    model, pair = SmallNet().double().eval(), (*pair_of(), 1, 3)
    whole = Around(model, WRAPPED[score])
    found, wanted = (
        pse.PromotionSuppression(*args, method="gradient", n_steps=4, **options)
        .decompose(*pair, feature_mask=MASK)
        for args, options in (((model,), {"score": score}), ((whole,), {}))
    )  # fmt: skip
    torch.testing.assert_close(found.promotion_change, wanted.promotion_change)
    torch.testing.assert_close(found.suppression_change, wanted.suppression_change)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_all_scores_at_once_are_those_of_each(engine: Any) -> None:
    model, (x, x0) = SmallNet().double().eval(), pair_of()
    method = pse.PromotionSuppression(model, engine=engine)
    by_score = method.decompose_by_score(x, x0, 1, 3, feature_mask=MASK)
    assert list(by_score) == list(WRAPPED)
    for score, found in by_score.items():
        alone = pse.PromotionSuppression(model, engine=engine, score=score)
        wanted = alone.decompose(x, x0, 1, 3, feature_mask=MASK)
        torch.testing.assert_close(found.promotion_change, wanted.promotion_change)
        torch.testing.assert_close(found.suppression_change, wanted.suppression_change)
        assert (found.score, found.engine) == (wanted.score, engine)


class Lifted(nn.Module):
    """Adds the same multiple of the mean of the input to all logits."""

    def __init__(self, model: nn.Module, k: float) -> None:
        super().__init__()
        self.model, self.k = model, k

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + self.k * x.mean((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize("k", [5.0, -5.0])
@pytest.mark.parametrize("score", WRAPPED)
def test_a_common_level_changes_logits_only(score: Any, k: float) -> None:
    model, (x, x0) = SmallNet().double().eval(), pair_of()
    one, other = (
        pse.PromotionSuppression(m, score=score).decompose(
            x, x0, 1, 3, feature_mask=MASK
        )
        for m in (model, Lifted(model, k))
    )
    assert torch.equal(one.labels.adversarial_class, other.labels.adversarial_class)
    margins = (r.promotion_change + r.suppression_change for r in (one, other))
    torch.testing.assert_close(*margins, rtol=1e-6, atol=1e-9)
    if score == "logit":
        assert (one.type_codes != other.type_codes).any()
    else:
        torch.testing.assert_close(one.effect, other.effect, rtol=1e-6, atol=1e-9)
        assert torch.equal(one.type_codes, other.type_codes)


LOG_MODEL = {
    "logit": ("log_softmax", "log-probability"),
    "centered": ("centered", "centered logit"),
    "log_softmax": ("log_softmax", "log-probability"),
}


@pytest.mark.parametrize(("score", "same"), LOG_MODEL.items(), ids=LOG_MODEL)
def test_a_model_that_returns_log_probabilities(
    score: Any, same: tuple[str, str]
) -> None:
    model, (x, x0) = SmallNet().double().eval(), pair_of()
    logs = Around(model, WRAPPED["log_softmax"])
    one, other = (
        pse.PromotionSuppression(m, score=s).decompose(x, x0, 1, 3, feature_mask=MASK)
        for m, s in ((logs, score), (model, same[0]))
    )
    assert one.score == other.score == same[1]
    torch.testing.assert_close(one.promotion_change, other.promotion_change)
    torch.testing.assert_close(one.suppression_change, other.suppression_change)


def test_half_precision_is_transformed_in_single() -> None:
    logits = (300 + torch.randn(2, 5, dtype=torch.float64)).half()
    for kind in ("centered logit", "log-probability"):
        found = KINDS[kind].of(logits)
        assert found.dtype == torch.float32
        wanted = KINDS[kind].of(logits.double()).float()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_an_impossible_class_has_no_centered_logits() -> None:
    model, x, x0 = tabular()
    masked = nn.Sequential(model, nn.ConstantPad1d((0, 1), -torch.inf))
    assert pse.PromotionSuppression(masked).decompose(x, x0).score == "logit"
    with pytest.raises(ValueError, match="returned NaN or infinite scores"):
        pse.PromotionSuppression(masked, score="centered").decompose(x, x0)


@pytest.mark.filterwarnings("default::captum_pse.SaturationWarning")
def test_saturation_is_said() -> None:
    logits, x, x0 = tabular()
    x = torch.cat([x, 0.1 * x])
    method = pse.PromotionSuppression(logits, score="log_softmax")
    message = (
        r"log-probability of the attack label is near 0, its maximum, on 1 of 2 "
        r"inputs; the first is example 0, where the probability is 1\.000000; .*"
        r"score='centered' does not"
    )
    with pytest.warns(pse.SaturationWarning, match=message) as caught:
        found = method.decompose(x, x0, 1, 0)
    assert [w.filename for w in caught] == [__file__]
    rows = found.summary()
    assert [row["saturated"] for row in rows] == [True, False]
    # All of the attack is there, and none of its promotion can be seen.
    assert rows[0]["promotion_dominated"] == 0
    assert rows[0]["suppression_dominated"] == 12
    assert [", saturated" in found.plot(i).axes[0].get_title() for i in (0, 1)] == [
        True,
        False,
    ]
    centered = pse.PromotionSuppression(logits, score="centered").decompose(x, x0)
    assert "saturated" not in centered.summary()[0]
    assert centered.summary()[0]["promotion"] == pytest.approx(24 * 2)  # 1.5 + 0.5


# Regions


class Pooled(nn.Module):
    """A global average pool and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("score", WRAPPED)
@pytest.mark.parametrize("method", ["cam", "gradcam", "gradcam++"])
def test_maps_are_those_of_the_wrapped_model(method: Any, score: Any) -> None:
    model, pair = Pooled().double().eval(), (*pair_of(), 1, 3)
    options = {"interpolate": False, "relu": False}
    maps = pse.AdversarialCAM(model, "conv", method, score=score, **options)
    found = maps.decompose(*pair)
    assert found.score == NAMES[score]
    whole = Around(model, WRAPPED[score])
    if method == "gradcam++":
        other = pse.AdversarialCAM(whole, "model.conv", method, **options)
        for name in ("natural_true", "adversarial_attack"):
            torch.testing.assert_close(
                found.attribution(name), other.attribute(*pair, component=name)
            )
        return
    captum = LayerGradCam(whole, model.conv)
    # Behind a global average pool, CAM is Grad-CAM times the number of positions.
    scale = 16 * 16 if method == "cam" else 1
    for name, x, label in (
        ("natural_true", pair[1], 3),
        ("adversarial_true", pair[0], 3),
        ("natural_attack", pair[1], 1),
        ("adversarial_attack", pair[0], 1),
    ):
        wanted = scale * captum.attribute(x, label)
        torch.testing.assert_close(found.attribution(name), wanted.detach())


@pytest.mark.parametrize("score", ["centered", "log_softmax"])
@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_a_common_level_does_not_change_other_maps(method: Any, score: Any) -> None:
    class Level(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            pooled = self.conv(x).mean((2, 3))
            return self.head(pooled) + 5 * pooled.mean(1, keepdim=True)

    model, pair = Pooled().double().eval(), (*pair_of(), 1, 3)
    lifted = Level().double().eval()
    lifted.load_state_dict(model.state_dict())
    one, other = (
        pse.AdversarialCAM(m, "conv", method, score=score, relu=False).attribute(*pair)
        for m in (model, lifted)
    )
    torch.testing.assert_close(one, other)


# Pairs, files, figures


def scored(score: Any = "centered") -> pse.PixelDecomposition:
    model, (x, x0) = SmallNet().double().eval(), pair_of()
    method = pse.PromotionSuppression(model, score=score)
    return method.decompose(x, x0, 1, 3, feature_mask=MASK)


def results() -> dict[str, Any]:
    model, pair = SmallNet().double().eval(), (*pair_of(), 1, 3)
    return {
        "pixels": pse.PromotionSuppression(model, score="centered").decompose(*pair),
        "regions": pse.AdversarialCAM(model, "conv", score="centered").decompose(*pair),
        "units": pse.DissectionSensitivity(model, "conv", score="centered").decompose(
            *pair
        ),
        "refinement": pse.refine(model, *pair, scores=pair[0], score="centered"),
    }


@pytest.mark.parametrize("level", ["pixels", "regions", "units", "refinement"])
def test_files_hold_the_kind_of_scores(level: str, tmp_path: Path) -> None:
    result = results()[level]
    path = tmp_path / "result.safetensors"
    result.save(path)
    loaded = type(result).load(path)
    assert loaded.score == result.score == "centered logit"
    # As text, since NaN is not equal to itself.
    assert str(loaded.summary()) == str(result.summary())
    with safe_open(path, framework="pt") as file:
        manifest = json.loads(file.metadata()["manifest"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # Older files hold logits and do not say so.
    for score, message in ((None, ""), ("margin", "is damaged .score: got 'margin'")):
        changed = {k: v for k, v in manifest.items() if k != "score"}
        if score is not None:
            changed["score"] = score
        save_file(tensors, path, metadata={"manifest": json.dumps(changed)})
        if message:
            with pytest.raises(ValueError, match=message):
                type(result).load(path)
        else:
            assert type(result).load(path).score == "logit"


def test_a_scored_pair_keeps_its_scores() -> None:
    model, (x, x0) = SmallNet().double().eval(), pair_of()
    found = pse.PromotionSuppression(model, score="centered").decompose(x, x0, 1, 3)
    refined = pse.refine(model, found.pair, scores=found.attribution())
    assert refined.score == "centered logit"
    with pytest.raises(ValueError, match="score: got 'centered', want the default"):
        pse.refine(model, found.pair, scores=x, score="centered")
    with pytest.raises(ValueError, match="pairs: got centered logits and logits"):
        ScoredPair.join([found.pair, scored("logit").pair])
    assert ScoredPair.join([found.pair] * 2).kind == KINDS["centered logit"]


def test_figures_say_what_scores_are() -> None:
    model, pair = load_model(), make_pairs(1)
    pixels = pse.PromotionSuppression(model, score="centered").decompose(*pair)
    figure = pixels.plot()
    assert "attack centered logit +" in figure.get_suptitle()
    labels = [ax.get_xlabel() for ax in figure.axes] + [
        ax.get_ylabel() for ax in figure.axes
    ]
    assert "suppression (centered logits)" in labels
    assert "promotion (centered logits)" in labels
    assert labels.count("centered logits") == 2  # of the two colour bars
    assert "logits" not in labels
    regions = pse.AdversarialCAM(model, "features.conv5").decompose(*pair)
    assert "attack logit +" in regions.plot().get_suptitle()
    one = plot_methods({"a": pixels, "b": pixels})
    several = plot_methods({"a": pixels, "b": regions})
    assert one.axes[1].get_title() == "a\npromotion"
    assert several.axes[1].get_title() == "a\npromotion, centered logits"


# Reports and the command line


def run(out: Path, *more: str) -> Path:
    arguments = ["demo", "--pairs", "1", "--out", str(out), *more]
    assert main(arguments) == 0
    return out


WORDS = {
    "pixel": ("log_softmax", "log-probabilit", ["--cell", "32"]),
    "image": ("centered", "centered logit", []),
    "network": ("centered", "centered logit", []),
}


@pytest.mark.parametrize(("level", "given"), WORDS.items(), ids=WORDS)
def test_pages_and_tables_say_what_scores_are(
    level: str, given: tuple[str, str, list[str]], tmp_path: Path, no_pictures: None,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("captum_pse.cli.levels.concepts_of", lambda args: None)
    score, word, more = given
    run(tmp_path, "--level", level, "--score", score, *more)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["manifest"]["score"] == score
    assert summary["pairs"][0]["score"].startswith(word)
    page = (tmp_path / "index.html").read_text()
    name = summary["pairs"][0]["score"]
    assert f"<dt>attack {name}</dt>" in page
    assert f">attack {name}</button>" in page
    assert f"The {name} of the attack label changed by" in page
    for plain in ("attack logit", " logits.", "The logit", ">logits"):
        assert plain not in page.replace("Centered logits do", "")
    out = capsys.readouterr().out
    if level == "pixel":
        assert 'data-unit="log-probabilities"' in page
        assert "A log-probability is at most 0." in page
        assert "<dt>saturated</dt><dd><b>1 of 1</b>" in page
        assert summary["pairs"][0]["saturated"] is True
        assert "dZ, promotion and suppression are in log-probabilities" in out
        assert "NOTE: the log-probability of the attack label is near 0" in out


def test_refinement_by_another_score(tmp_path: Path, no_pictures: None) -> None:
    from captum_pse.reports.refinement import refine_pairs

    out = tmp_path / "out"
    found = refine_pairs(load_model(), make_pairs(1), out, cell=32, score="centered")
    assert {result.score for result in found.values()} == {"centered logit"}
    written = json.loads((out / "refinement.json").read_text())
    assert written["manifest"]["score"] == "centered"


def test_the_command_line_warns_once_of_probabilities(
    npz: Callable[..., Path], tmp_path: Path, no_pictures: None,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def build() -> nn.Module:
        return nn.Sequential(load_model(), nn.Softmax(1)).eval()

    monkeypatch.setattr("captum_pse.demo.build_softmax", build, raising=False)
    arguments = ["explain", "--model", "captum_pse.demo:build_softmax", "--cell", "32",
                 "--pairs", str(npz()), "--out", str(tmp_path / "out")]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err.count("captum-pse: warning: forward_func: returns probabil") == 1
    assert "dZ, promotion and suppression are in probabilities" in shown.out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "The model returns probabilities, which change by almost nothing" in page
    assert main([*arguments, "--score", "centered"]) == 2
    assert "error: score: got 'centered' for a model that" in capsys.readouterr().err
