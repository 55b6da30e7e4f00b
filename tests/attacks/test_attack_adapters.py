"""Pairs from the attacks of other libraries, against those libraries themselves."""

from __future__ import annotations

import copy
import functools
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from captum.robust import FGSM, PGD, Perturbation
from conftest import SmallNet, state_of
from torch import Tensor, nn
from torchvision.transforms import Normalize

from captum_pse import AdversarialPair
from captum_pse.demo import make_pairs

# Captum warns at every step of the calls that are made here by hand.
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require")

EPS = 8 / 255
CLASSES = 12
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CE = nn.CrossEntropyLoss(reduction="none")

from_attack = AdversarialPair.from_attack


@pytest.fixture
def model(demo_model) -> nn.Module:
    """A copy, since the calls by hand may change the model."""
    return copy.deepcopy(demo_model)


def library(name: str) -> Any:
    return pytest.importorskip(name)


def art_classifier(model: nn.Module, **options: Any) -> Any:
    options = {"clip_values": (0.0, 1.0), **options}
    return library("art.estimators.classification").PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 64, 64),
        nb_classes=CLASSES,
        **options,
    )


@dataclass
class Call:
    """What from_attack gets, and the same attack called by hand."""

    attack: Any
    by_hand: Callable[[Tensor, Tensor], Tensor]
    options: dict[str, Any] = field(default_factory=dict)


def captum_fgsm(model: Any, targeted: bool, eps: float) -> Call:
    attack = FGSM(model, CE, lower_bound=0.0, upper_bound=1.0)
    return Call(
        attack,
        lambda x, y: attack.perturb(x, eps, target=y, targeted=targeted),
        {"epsilon": eps},
    )


def captum_pgd(model: Any, targeted: bool, eps: float) -> Call:
    attack = PGD(model, CE, lower_bound=0.0, upper_bound=1.0)
    how = {"radius": eps, "step_size": eps / 4, "step_num": 5, "random_start": True}
    return Call(
        attack, lambda x, y: attack.perturb(x, target=y, targeted=targeted, **how), how
    )


class OneStep:
    """An attack of no library, with the attributes of Captum's attacks."""

    def __init__(self, model: Any) -> None:
        self.forward_func = model

    def perturb(self, inputs: Tensor, eps: float, target: Any, targeted: bool = False):
        return one_step(self.forward_func, inputs, target, eps, targeted)


def one_step(
    model: Any, inputs: Tensor, labels: Tensor, eps: float, targeted: bool = False
) -> Tensor:
    x = inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(CE(model(x), labels).sum(), x)
    step = -eps if targeted else eps
    return (x + step * gradient.sign()).clamp(0, 1)


def own_object(model: Any, targeted: bool, eps: float) -> Call:
    return Call(
        OneStep(model),
        lambda x, y: one_step(model, x, y, eps, targeted),
        {"eps": eps},
    )


def own_function(model: Any, targeted: bool, eps: float) -> Call:
    return Call(
        one_step,
        lambda x, y: one_step(model, x, y, eps, targeted),
        {"model": model, "eps": eps},
    )


def torchattacks_pgd(model: Any, targeted: bool, eps: float) -> Call:
    make = functools.partial(
        library("torchattacks").PGD, model, eps=eps, alpha=eps / 4, steps=5
    )
    other = make()
    if targeted:
        other.set_mode_targeted_by_label(quiet=True)
    return Call(make(), other)


def foolbox_pgd(model: Any, targeted: bool, eps: float) -> Call:
    fb = library("foolbox")
    attack = fb.attacks.LinfPGD(steps=5, rel_stepsize=0.25)
    wrapped = fb.PyTorchModel(model, bounds=(0, 1))
    criteria = fb.criteria
    kind = (
        criteria.TargetedMisclassification if targeted else criteria.Misclassification
    )
    return Call(
        attack,
        lambda x, y: attack(wrapped, x, kind(y), epsilons=eps)[1],
        {"model": model, "epsilons": eps},
    )


def art_pgd(model: Any, targeted: bool, eps: float) -> Call:
    attack = library("art.attacks.evasion").ProjectedGradientDescent(
        art_classifier(model),
        eps=eps,
        eps_step=eps / 4,
        max_iter=5,
        targeted=targeted,
        verbose=False,
    )
    return Call(
        attack, lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    )


def advlib_pgd(model: Any, targeted: bool, eps: float) -> Call:
    pgd = library("adv_lib.attacks").pgd_linf
    how = {"ε": eps, "steps": 5, "relative_step_size": 0.25}
    return Call(
        functools.partial(pgd, steps=5, relative_step_size=0.25),
        lambda x, y: pgd(model, x, y, targeted=targeted, **how),
        {"model": model, "ε": eps},
    )


# Attacks that look for the smallest perturbation, whatever eps is.


def torchattacks_cw(model: Any, targeted: bool, eps: float) -> Call:
    make = functools.partial(library("torchattacks").CW, model, c=5, steps=10, lr=0.01)
    other = make()
    if targeted:
        other.set_mode_targeted_by_label(quiet=True)
    return Call(make(), other)


def foolbox_ddn(model: Any, targeted: bool, eps: float) -> Call:
    fb = library("foolbox")
    attack = fb.attacks.DDNAttack(steps=6)
    wrapped = fb.PyTorchModel(model, bounds=(0, 1))
    criteria = fb.criteria
    kind = (
        criteria.TargetedMisclassification if targeted else criteria.Misclassification
    )
    return Call(
        attack,
        lambda x, y: attack(wrapped, x, kind(y), epsilons=None)[0],
        {"model": wrapped},
    )


def advlib_ddn(model: Any, targeted: bool, eps: float) -> Call:
    ddn = library("adv_lib.attacks").ddn
    return Call(
        ddn,
        lambda x, y: ddn(model, x, y, targeted=targeted, steps=6),
        {"model": model, "steps": 6},
    )


BOUNDED = [
    captum_fgsm,
    captum_pgd,
    own_object,
    own_function,
    torchattacks_pgd,
    foolbox_pgd,
    art_pgd,
    advlib_pgd,
]
SMALLEST = [torchattacks_cw, foolbox_ddn, advlib_ddn]
#: One for each adapter.
EACH = [captum_pgd, torchattacks_pgd, foolbox_pgd, art_pgd, advlib_pgd]

each = pytest.mark.parametrize("make", EACH)


def check_against_model(
    pair: AdversarialPair, before: Tensor, after: Tensor, *, targeted: bool
) -> None:
    """The pair's labels and ``succeeded`` match the model's scores on both sides."""
    true, attack = pair.true_label, pair.attack_label
    reached = after.argmax(1) == attack
    assert torch.equal(pair.succeeded, (before.argmax(1) == true) & reached)
    assert (true != attack).all()
    if not targeted:
        first, second = after.topk(2).indices.unbind(1)
        assert torch.equal(attack, torch.where(first == true, second, first))


@pytest.mark.parametrize("labels", ["untargeted", "targeted", "wrong"])
@pytest.mark.parametrize("make", BOUNDED + SMALLEST)
def test_is_what_the_library_gives(model, demo_pairs, make, labels):
    x, targeted = demo_pairs.natural, labels == "targeted"
    true, attack = demo_pairs.true_label, demo_pairs.attack_label
    if labels == "wrong":
        true = torch.tensor([0, 7, 2])
    call = make(model, targeted, EPS)
    kept = x.clone()
    torch.manual_seed(1)
    pair = from_attack(
        call.attack,
        x,
        true_label=None if labels == "untargeted" else true,
        attack_label=attack if targeted else None,
        **call.options,
    )
    torch.manual_seed(1)
    by_hand = call.by_hand(x.clone(), attack if targeted else true).detach()
    assert torch.equal(pair.adversarial, by_hand)
    assert torch.equal(pair.natural, kept)
    assert torch.equal(x, kept)
    assert torch.equal(pair.true_label, true)
    if targeted:
        assert torch.equal(pair.attack_label, attack)
    assert pair.adversarial.min() >= 0
    assert pair.adversarial.max() <= 1
    assert not pair.adversarial.requires_grad
    with torch.no_grad():
        before, after = model(x), model(pair.adversarial)
    check_against_model(pair, before, after, targeted=targeted)
    assert bool(pair.succeeded[1]) <= (labels != "wrong")
    if make is not captum_fgsm or labels == "untargeted":
        assert pair.succeeded.any()
    if make in BOUNDED:
        assert (pair.adversarial - x).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("make", BOUNDED)
def test_keeps_what_it_could_not_attack(model, demo_pairs, make, targeted):
    call = make(model, targeted, 1e-4)
    wanted = 5 if targeted else None
    pair = from_attack(
        call.attack,
        demo_pairs.natural,
        true_label=None,
        attack_label=wanted,
        names="abc",
        **call.options,
    )
    assert pair.succeeded.tolist() == [False] * 3
    assert repr(pair).endswith("; 3 failed)")
    assert pair.names == ("a", "b", "c")
    with torch.no_grad():
        scores = model(pair.adversarial)
    assert torch.equal(pair.true_label, scores.argmax(1))
    if targeted:
        assert pair.attack_label.tolist() == [5] * 3
    else:
        assert torch.equal(pair.attack_label, scores.topk(2).indices[:, 1])


def test_counts_the_failed(model, demo_pairs):
    call = captum_fgsm(model, False, 4 / 255)
    pair = from_attack(call.attack, demo_pairs.natural, **call.options)
    assert pair.succeeded.tolist() == [True, False, True]
    assert repr(pair) == (
        "AdversarialPair(3 x (3, 64, 64), torch.float32, 0 -> 2, 1 -> 9, 2 -> 6; "
        "1 failed)"
    )
    fooled = pair.select(pair.succeeded)
    assert fooled.succeeded.tolist() == [True, True]
    assert repr(fooled).endswith("0 -> 2, 2 -> 6)")
    fooled.verify(model)
    assert pair.select([1]).succeeded.tolist() == [False]
    assert pair.to("cpu").succeeded.tolist() == [True, False, True]


# Bounds.


@pytest.mark.parametrize(
    "make", [captum_pgd, torchattacks_pgd, foolbox_pgd, art_pgd, advlib_pgd]
)
def test_inputs_out_of_bounds(model, demo_pairs, make):
    call = make(model, False, EPS)
    x = demo_pairs.natural.clone()
    x[1, 2, 0, 5] = 1.25
    with pytest.raises(
        ValueError, match=r"natural: got 1.25 at \(1, 2, 0, 5\), want 0 to 1, the att"
    ):
        from_attack(call.attack, x, **call.options)
    x[1, 2, 0, 5] = 1 + 1e-6
    pair = from_attack(call.attack, x, **call.options)
    assert torch.equal(pair.natural, x)
    assert pair.adversarial.max() <= 1 + 1e-6


class Returns:
    """An attack with bounds that returns a fixed result."""

    def __init__(self, model: Any, answer: Any) -> None:
        self.forward_func = model
        self.answer = answer

    def bound(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)

    def perturb(self, inputs: Tensor, target: Any, targeted: bool) -> Any:
        return self.answer(inputs)


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (lambda x: x - 1.5, ValueError, r"attack: in its result: got -\S+ at \(0, 0"),
        (lambda x: x[:1], ValueError, r"returned shape \(1, 3, 64, 64\), want finite"),
        (lambda x: x * torch.nan, ValueError, "NaN or infinite values, want finite"),
        (lambda x: (x, x), TypeError, "attack: returned tuple, want a floating-point"),
        (torch.Tensor.byte, TypeError, "attack: returned torch.uint8, want a floating"),
    ],
)
def test_wrong_results(model, demo_pairs, answer, error, match):
    with pytest.raises(error, match=match):
        from_attack(Returns(model, answer), demo_pairs.natural)


def test_attack_without_bounds(model, demo_pairs):
    """Captum's default, and own functions."""
    x = demo_pairs.natural * 3 - 1

    def further(model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        return inputs.add_(0.1)

    for attack, options in (
        (FGSM(model, CE), {"epsilon": 0.1}),
        (further, {"model": model}),
    ):
        pair = from_attack(attack, x, **options)
        assert (pair.adversarial - x).abs().amax() == pytest.approx(0.1, abs=1e-5)
        assert torch.equal(pair.natural, x)


def test_attack_with_one_bound(model, demo_pairs):
    attack = FGSM(model, CE, upper_bound=1.0)
    pair = from_attack(attack, demo_pairs.natural - 1, epsilon=0.1)
    assert pair.adversarial.min() < -1
    with pytest.raises(ValueError, match="want -inf to 1, the attack's bounds"):
        from_attack(attack, demo_pairs.natural + 1, epsilon=0.1)


# Inputs in other units than those in [0, 1].


class Denormalised(nn.Module):
    """The demo model, for inputs that are already normalised."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        std, mean = z.new_tensor(STD), z.new_tensor(MEAN)
        return self.model(z * std[:, None, None] + mean[:, None, None])


normalise = Normalize(MEAN, STD)
LOW, HIGH = (normalise(torch.full((3, 1, 1), bound)) for bound in (0.0, 1.0))


def normalised_torchattacks(model: nn.Module) -> Call:
    attack = library("torchattacks").PGD(model, eps=EPS, steps=5)
    attack.set_normalization_used(MEAN, STD)
    return Call(attack, attack)


def normalised_art(model: nn.Module) -> Call:
    attack = library("art.attacks.evasion").FastGradientMethod(
        art_classifier(model, clip_values=(LOW.numpy(), HIGH.numpy())), eps=0.1
    )
    return Call(
        attack, lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    )


def normalised_captum_fgsm(model: nn.Module) -> Call:
    attack = FGSM(model, CE, lower_bound=LOW, upper_bound=HIGH)
    return Call(attack, lambda x, y: attack.perturb(x, 0.1, target=y), {"epsilon": 0.1})


def normalised_captum_pgd(model: nn.Module) -> Call:
    attack = PGD(model, CE)
    # Captum's own way to have bounds for each channel.
    attack.bound = lambda x: torch.maximum(torch.minimum(x, HIGH), LOW)
    how = {"radius": 0.1, "step_size": 0.03, "step_num": 5}
    return Call(attack, lambda x, y: attack.perturb(x, target=y, **how), how)


@pytest.mark.parametrize(
    "make",
    [
        normalised_torchattacks,
        normalised_art,
        normalised_captum_fgsm,
        normalised_captum_pgd,
    ],
)
def test_normalised_inputs(model, demo_pairs, make):
    model = Denormalised(model)
    z, true = normalise(demo_pairs.natural), demo_pairs.true_label
    call = make(model)
    torch.manual_seed(1)
    pair = from_attack(call.attack, z, **call.options)
    torch.manual_seed(1)
    assert torch.equal(pair.adversarial, call.by_hand(z.clone(), true).detach())
    assert (pair.adversarial >= LOW - 1e-5).all()
    assert (pair.adversarial <= HIGH + 1e-5).all()
    assert pair.adversarial.max() > 1.5
    assert torch.equal(pair.true_label, true)
    with torch.no_grad():
        check_against_model(pair, model(z), model(pair.adversarial), targeted=False)
    assert pair.succeeded.any()
    # Of one channel, and within the bounds of another.
    z[0, 1, 0, 0] = float(HIGH[2]) - 0.01
    with pytest.raises(ValueError, match=r"natural: got 2.63\d* at \(0, 1, 0, 0\)"):
        from_attack(call.attack, z, **call.options)


def outer_units(low: float, high: float) -> tuple[list[float], list[float]]:
    """Mean and std for inputs in [low, high]."""
    wide = high - low
    return [low + m * wide for m in MEAN], [s * wide for s in STD]


@pytest.mark.parametrize(
    ("bounds", "change"),
    [
        ((0, 1), None),
        ((-1, 1), None),
        ((0, 255), None),
        ((0, 1), {"bounds": (-1, 1)}),
        ((0, 1), {"bounds": (-1, 1), "wrapper": True}),
    ],
)
def test_foolbox_preprocessing(model, demo_pairs, bounds, change):
    fb = library("foolbox")
    core = Denormalised(model)
    mean, std = outer_units(*bounds)
    preprocessing = {"mean": mean, "std": std, "axis": -3}
    for name in ("mean", "std"):
        preprocessing[name] = np.array(preprocessing[name], dtype=np.float32)
    wrapped = fb.PyTorchModel(core, bounds=bounds, preprocessing=preprocessing)
    if change is not None:
        wrapped = wrapped.transform_bounds(**change)
        bounds = change["bounds"]
    low, high = bounds
    attack = fb.attacks.LinfPGD(steps=5, rel_stepsize=0.25)
    x, true = demo_pairs.natural * (high - low) + low, demo_pairs.true_label
    eps = EPS * (high - low)
    torch.manual_seed(1)
    before = state_of(core)
    pair = from_attack(attack, x, model=wrapped, epsilons=eps)
    assert state_of(core) == before
    torch.manual_seed(1)
    by_hand = attack(wrapped, x, fb.criteria.Misclassification(true), epsilons=eps)[1]
    assert torch.equal(pair.adversarial, by_hand)
    assert torch.equal(pair.true_label, true)
    with torch.no_grad():
        scores = [model((y - low) / (high - low)) for y in (x, by_hand)]
    check_against_model(pair, *scores, targeted=False)
    assert pair.succeeded.any()
    with pytest.raises(ValueError, match=r"natural: got .* the attack's bounds"):
        from_attack(attack, x + (high - low), model=wrapped, epsilons=eps)


def test_art_preprocessing(model, demo_pairs):
    mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (MEAN, STD))
    classifier = art_classifier(Denormalised(model), preprocessing=(mean, std))
    attack = library("art.attacks.evasion").FastGradientMethod(classifier, eps=EPS)
    x, true = demo_pairs.natural, demo_pairs.true_label
    pair = from_attack(attack, x)
    by_hand = attack.generate(x.numpy(), true.numpy())
    assert torch.equal(pair.adversarial, torch.from_numpy(by_hand))
    with torch.no_grad():
        scores = model(x), model(pair.adversarial)
    check_against_model(pair, *scores, targeted=False)
    assert pair.succeeded.any()


@pytest.mark.parametrize("make", EACH)
def test_normalisation_inside_the_model(model, demo_pairs, make):
    model = nn.Sequential(Normalize(MEAN, STD), Denormalised(model)).eval()
    call = make(model, False, EPS)
    pair = from_attack(call.attack, demo_pairs.natural, **call.options)
    assert pair.succeeded.all()
    pair.verify(model)


def test_art_without_bounds_and_in_double_precision(model, demo_pairs):
    """ART itself works in float32."""
    classifier = art_classifier(model, clip_values=None)
    attack = library("art.attacks.evasion").FastGradientMethod(classifier, eps=2.0)
    pair = from_attack(attack, demo_pairs.natural.double())
    assert pair.adversarial.dtype == torch.float64
    assert pair.adversarial.min() < -1
    assert torch.equal(pair.natural, demo_pairs.natural.double())


@pytest.mark.parametrize(
    "make", [captum_pgd, torchattacks_pgd, foolbox_pgd, advlib_pgd]
)
def test_double_precision(model, demo_pairs, make):
    call = make(model.double(), False, EPS)
    pair = from_attack(call.attack, demo_pairs.natural.double(), **call.options)
    assert pair.adversarial.dtype == torch.float64
    assert pair.succeeded.any()


# The conventions of each library.


@pytest.mark.parametrize(
    "mode", ["default", "by_label", "random", "least_likely", "by_function"]
)
def test_torchattacks_mode_is_kept(model, demo_pairs, mode, capsys):
    attack = library("torchattacks").PGD(model, eps=EPS, steps=5)
    set_torchattacks_mode(attack, mode)
    before = dict(vars(attack))
    capsys.readouterr()
    pair = from_attack(attack, demo_pairs.natural, attack_label=demo_pairs.attack_label)
    assert torch.equal(pair.attack_label, demo_pairs.attack_label)
    assert pair.succeeded.all()
    assert vars(attack) == before
    assert capsys.readouterr() == ("", "")


def set_torchattacks_mode(attack: Any, mode: str) -> None:
    if mode == "by_function":
        attack.set_mode_targeted_by_function(lambda x, y: (y + 4) % CLASSES, quiet=True)
    elif mode != "default":
        getattr(attack, f"set_mode_targeted_{mode}")(quiet=True)


@pytest.mark.parametrize("eps", [1e-4, EPS])
@pytest.mark.parametrize("mode", ["random", "least_likely", "by_function"])
def test_torchattacks_picks_its_own_targets(model, demo_pairs, mode, eps):
    attack = library("torchattacks").PGD(model, eps=eps, steps=5)
    set_torchattacks_mode(attack, mode)
    x, true = demo_pairs.natural, demo_pairs.true_label
    torch.manual_seed(1)
    expected = attack.get_target_label(x, true)
    torch.manual_seed(1)
    by_hand = attack(x, true)
    torch.manual_seed(1)
    before = dict(vars(attack))
    pair = from_attack(attack, x)
    assert torch.equal(pair.attack_label, expected)
    assert torch.equal(pair.adversarial, by_hand)
    assert vars(attack) == before
    with torch.no_grad():
        scores = model(x), model(pair.adversarial)
    check_against_model(pair, *scores, targeted=True)
    assert bool(pair.succeeded.any()) == (eps == EPS)


def test_torchattacks_that_normalises_itself(model, demo_pairs):
    x = demo_pairs.natural
    attack = library("torchattacks").FGSM(Denormalised(model), eps=EPS)
    attack.set_normalization_used(MEAN, STD)
    attack._set_normalization_applied(False)
    pair = from_attack(attack, x)
    assert torch.equal(pair.adversarial, attack(x, demo_pairs.true_label))
    assert pair.succeeded.any()
    with torch.no_grad():
        scores = model(x), model(pair.adversarial)
    check_against_model(pair, *scores, targeted=False)


def test_torchattacks_that_picks_the_true_label(model, demo_pairs):
    # Which would break in the attack.
    attack = library("torchattacks").FGSM(Breaks(model))
    attack.set_mode_targeted_by_function(lambda x, y: y, quiet=True)
    with pytest.raises(ValueError, match="want an attack label that differs"):
        from_attack(attack, demo_pairs.natural)


def test_torchattacks_of_several_attacks(model, demo_pairs):
    ta = library("torchattacks")
    weak, strong = (ta.PGD(model, eps=eps, steps=5) for eps in (1e-4, EPS))
    both = ta.MultiAttack([weak, strong])
    both.set_normalization_used(MEAN, STD)
    model = Denormalised(model)
    both.set_model(model)
    before = [dict(vars(attack)) for attack in (both, weak, strong)]
    pair = from_attack(both, normalise(demo_pairs.natural))
    assert pair.succeeded.all()
    pair.verify(model)
    after = [vars(attack) for attack in (both, weak, strong)]
    assert str(after) == str(before)


class Breaks(nn.Module):
    """A model without gradients of its inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError("broken")
        return self.model(x)


def test_torchattacks_3_3(model, demo_pairs, capsys):
    """torchattacks 3.3, which pip chooses beside jupyterlab: no mode by label, and
    always prints."""
    PGD = library("torchattacks").PGD  # noqa: N806

    class Older(PGD):
        set_mode_targeted_by_label = property()

        def set_mode_targeted_by_function(self, function):
            super().set_mode_targeted_by_function(function, quiet=False)

    older, newer = (
        from_attack(
            kind(model, eps=EPS, steps=5, random_start=False),
            demo_pairs.natural,
            attack_label=demo_pairs.attack_label,
        )
        for kind in (Older, PGD)
    )
    assert torch.equal(older.adversarial, newer.adversarial)
    assert older.succeeded.all()
    assert capsys.readouterr().out == ""


def test_torchattacks_is_as_before_after_an_exception(model, demo_pairs):
    attack = library("torchattacks").PGD(Breaks(Denormalised(model)))
    attack.set_mode_targeted_random(quiet=True)
    attack.set_normalization_used(MEAN, STD)
    before = dict(vars(attack))
    with pytest.raises(RuntimeError, match="broken"):
        from_attack(attack, normalise(demo_pairs.natural), attack_label=5)
    assert vars(attack) == before
    assert attack.get_mode() == "targeted(random)"
    assert attack._normalization_applied is True


def wrong_torchattacks(model: nn.Module) -> dict[str, tuple[Any, dict[str, Any]]]:
    ta = library("torchattacks")
    by_label = ta.PGD(model)
    by_label.set_mode_targeted_by_label(quiet=True)
    return {
        "no label": (by_label, {}),
        "untargeted": (ta.DeepFool(model), {"attack_label": 5}),
        "model": (ta.FGSM(model), {"model": model}),
    }


def wrong_foolbox(model: nn.Module) -> dict[str, tuple[Any, dict[str, Any]]]:
    fb = library("foolbox")
    pgd, ready = fb.attacks.LinfPGD(), {"model": model}
    target = {**ready, "attack_label": 5}
    return {
        "no epsilons": (pgd, ready),
        "many epsilons": (pgd, {**ready, "epsilons": [0.1, 0.2]}),
        "untargeted": (fb.attacks.L2DeepFoolAttack(), target),
        "untargeted too": (fb.attacks.NewtonFoolAttack(), target),
        "targeted": (fb.attacks.GenAttack(), {**ready, "epsilons": 0.1}),
        "no model": (pgd, {"epsilons": 0.1}),
        "no torch model": (pgd, {"epsilons": 0.1, "model": model.forward}),
        "a model": (fb.PyTorchModel(model, bounds=(0, 1)), {}),
    }


def wrong_art(model: nn.Module) -> dict[str, tuple[Any, dict[str, Any]]]:
    classifier = art_classifier(model)
    fgm = library("art.attacks.evasion").FastGradientMethod
    return {
        "targeted": (fgm(classifier, targeted=True), {}),
        "untargeted": (fgm(classifier), {"attack_label": 5}),
        "model": (fgm(classifier), {"model": model}),
        "a classifier": (classifier, {}),
    }


def wrong_advlib(model: nn.Module) -> dict[str, tuple[Any, dict[str, Any]]]:
    al = library("adv_lib.attacks")
    return {
        "untargeted": (al.df, {"model": model, "attack_label": 5}),
        "no model": (al.ddn, {}),
        "no model, partial": (functools.partial(al.ddn, steps=2), {}),
        "no callable": (al.ddn, {"model": "demo"}),
    }


def wrong_captum(model: nn.Module) -> dict[str, tuple[Any, dict[str, Any]]]:
    class NoModel(Perturbation):
        def perturb(self, inputs: Tensor, target: Any, targeted: bool) -> Tensor:
            return inputs

    class Alone:
        def perturb(self, inputs: Tensor) -> Tensor:
            return inputs

    def untargeted(model: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        return inputs

    return {
        "default loss": (FGSM(model), {"epsilon": 0.1}),
        "default loss of PGD": (
            PGD(model),
            {"radius": 0.1, "step_size": 0.1, "step_num": 1},
        ),
        "model": (FGSM(model, CE), {"epsilon": 0.1, "model": model}),
        "a class": (FGSM, {}),
        "no forward_func": (NoModel(), {}),
        "nor a library": (Alone(), {}),
        "a model": (model, {}),
        "a string": ("FGSM", {}),
        "own function": (untargeted, {"model": model, "attack_label": 5}),
        "own function without model": (untargeted, {}),
        "equal labels": (FGSM(model, CE), {"epsilon": 0.1, "attack_label": [5, 1, 5]}),
        "no such class": (FGSM(model, CE), {"epsilon": 0.1, "attack_label": 12}),
        "no such true class": (FGSM(model, CE), {"epsilon": 0.1, "true_label": 12}),
        "batch size": (FGSM(model, CE), {"epsilon": 0.1, "batch_size": 0}),
    }


WRONG = [
    (wrong_captum, "default loss", ValueError, "attack: this FGSM .* loss_func="),
    (wrong_captum, "default loss of PGD", ValueError, "attack: this PGD .* loss_func="),
    (wrong_captum, "model", ValueError, "model: got DemoNet, want None, as FGSM holds"),
    (wrong_captum, "a class", TypeError, "attack: got FGSM, want an attack object"),
    (wrong_captum, "no forward_func", TypeError, "attack: got NoModel, .*forward_func"),
    (wrong_captum, "nor a library", TypeError, "attack: got Alone, want an attack obj"),
    (wrong_captum, "a model", TypeError, "attack: got DemoNet, want an attack object"),
    (wrong_captum, "a string", ValueError, "attack: got 'FGSM', want a name such as"),
    (wrong_captum, "own function", ValueError, "attack_label: .*untargeted has no arg"),
    (
        wrong_captum,
        "own function without model",
        ValueError,
        "model: got None, want the model to attack, as untargeted does not hold its",
    ),
    (wrong_captum, "equal labels", ValueError, r"same label \[1\] .* the first at 1"),
    (wrong_captum, "no such class", ValueError, "attack_label: got 12 .* want 0 to 11"),
    (wrong_captum, "no such true class", ValueError, "true_label: got 12 for example"),
    (wrong_captum, "batch size", ValueError, "batch_size: got 0, want a positive int"),
    (
        wrong_torchattacks,
        "no label",
        ValueError,
        r"attack_label: got None, but the attack is in mode 'targeted\(label\)'",
    ),
    (
        wrong_torchattacks,
        "untargeted",
        ValueError,
        "attack_label: got labels, but DeepFool of torchattacks cannot be targeted",
    ),
    (wrong_torchattacks, "model", ValueError, "model: got DemoNet, want None"),
    (
        wrong_foolbox,
        "no epsilons",
        ValueError,
        "epsilons: got None, want a number for LinfProjectedGradientDescentAttack",
    ),
    (wrong_foolbox, "many epsilons", ValueError, r"epsilons: got \[0.1, 0.2\], want"),
    (
        wrong_foolbox,
        "untargeted",
        ValueError,
        "attack_label: got labels, but L2DeepFoolAttack of foolbox cannot be targeted",
    ),
    (
        wrong_foolbox,
        "untargeted too",
        ValueError,
        "attack_label: got labels, but NewtonFoolAttack of foolbox cannot be targeted",
    ),
    (
        wrong_foolbox,
        "targeted",
        ValueError,
        "attack_label: got None, but GenAttack of foolbox has to be targeted",
    ),
    (wrong_foolbox, "no model", ValueError, "model: got None, want the model to attac"),
    (wrong_foolbox, "no torch model", TypeError, "model: got forward, want a torch.nn"),
    (wrong_foolbox, "a model", TypeError, "attack: got PyTorchModel, want an attack"),
    (wrong_art, "targeted", ValueError, "attack_label: got None, but .* is targeted"),
    (
        wrong_art,
        "untargeted",
        ValueError,
        "attack_label: got labels, .*is not targeted",
    ),
    (wrong_art, "model", ValueError, "model: got DemoNet, want None, as FastGradient"),
    (wrong_art, "a classifier", TypeError, "attack: got PyTorchClassifier, want an at"),
    (wrong_advlib, "untargeted", ValueError, "attack_label: .* df cannot be targeted"),
    (wrong_advlib, "no model", ValueError, "model: got None, .* as ddn does not hold"),
    (
        wrong_advlib,
        "no model, partial",
        ValueError,
        "model: got None, .* as ddn does not hold its model",
    ),
    (wrong_advlib, "no callable", TypeError, "model: got str, want a torch.nn.Module"),
]


@pytest.mark.parametrize(("make", "name", "error", "match"), WRONG)
def test_wrong_calls(model, demo_pairs, make, name, error, match):
    attack, options = make(model)[name]
    before = state_of(model)
    with pytest.raises(error, match=match):
        from_attack(attack, demo_pairs.natural, **options)
    assert state_of(model) == before


def test_inputs_of_another_type(model, demo_pairs):
    attack = FGSM(model, CE)
    with pytest.raises(TypeError, match="natural: got ndarray, want a tensor"):
        from_attack(attack, demo_pairs.natural.numpy(), epsilon=0.1)
    with pytest.raises(TypeError, match=r"natural: got torch.uint8, .*images / 255"):
        from_attack(attack, torch.zeros(1, 3, 64, 64).byte(), epsilon=0.1)


@pytest.mark.parametrize("kind", [FGSM, PGD])
def test_captum_default_loss_of_probabilities(model, demo_pairs, kind):
    model = nn.Sequential(model, nn.Softmax(dim=1)).eval()
    attack = kind(model, lower_bound=0.0, upper_bound=1.0)
    how: dict[str, Any] = {"epsilon": 4 / 255}
    if kind is PGD:
        how = {"radius": EPS, "step_size": EPS / 4, "step_num": 5}
    x = demo_pairs.natural
    pair = from_attack(attack, x, **how)
    assert torch.equal(
        pair.adversarial, attack.perturb(x, target=demo_pairs.true_label, **how)
    )
    assert pair.succeeded.any()


@pytest.mark.parametrize("make", [captum_fgsm, captum_pgd])
def test_captum_does_not_warn(model, demo_pairs, make):
    call = make(model, False, EPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_attack(call.attack, demo_pairs.natural, **call.options)


def test_foolbox_smallest_perturbation_within_epsilons(model, demo_pairs):
    attack, x = library("foolbox").attacks.DDNAttack(steps=6), demo_pairs.natural
    pairs = [from_attack(attack, x, model=model, epsilons=e) for e in (None, 1, 0.1)]
    norms = [(pair.adversarial - x).flatten(1).norm(dim=1) for pair in pairs]
    assert (norms[0] < 1).all()
    assert torch.equal(pairs[1].adversarial, pairs[0].adversarial)
    torch.testing.assert_close(norms[2], torch.full((3,), 0.1))
    assert [int(pair.succeeded.sum()) for pair in pairs] == [3, 3, 0]


def test_own_functions_are_told_whether_they_are_targeted(model, demo_pairs):
    told = []

    def attack(model: Any, inputs: Tensor, labels: Tensor, **how: Any) -> Tensor:
        told.append(how)
        return inputs

    class Holder:
        method = staticmethod(attack)

        def bound(self, model: Any, inputs: Tensor, labels: Tensor, targeted: bool):
            return attack(model, inputs, labels, targeted=targeted)

    for own in (
        attack,
        Holder.method,
        Holder().bound,
        functools.partial(attack, targeted=True),
        functools.partial(functools.partial(attack), strength=3),
    ):
        for label in (None, 5):
            from_attack(
                own,
                demo_pairs.natural,
                true_label=None,
                attack_label=label,
                model=model,
            )
    assert [how["targeted"] for how in told] == [False, True] * 5
    assert [how.get("strength") for how in told] == [None] * 8 + [3, 3]


# The user's model and tensors.


def trained_in_part() -> SmallNet:
    """With gradients, a hook, and modes and requirements that differ inside."""
    model = SmallNet(classes=CLASSES).eval()
    model(torch.rand(2, 3, 64, 64)).sum().backward()
    model.conv.weight.requires_grad_(False)
    model.head.register_forward_hook(lambda *_: None)
    return in_part(model)


def in_part(model: SmallNet) -> SmallNet:
    model.train().norm.eval()
    return model


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("make", BOUNDED + SMALLEST)
def test_leaves_the_model_as_it_was(make, fails):
    inner = trained_in_part()
    model = Breaks(inner) if fails else inner
    x = torch.rand(2, 3, 64, 64)
    kept = x.clone()
    # foolbox warns that the model is in training mode, as a part of it is.
    with warnings.catch_warnings(record=True):
        call = make(model, False, EPS)
        in_part(inner)
        before, bias = state_of(model), inner.head.bias.grad.clone()
        with pytest.raises(RuntimeError, match="broken") if fails else nullcontext():
            from_attack(call.attack, x, **call.options)
    assert state_of(model) == before
    assert inner.training
    assert not inner.norm.training
    assert torch.equal(inner.head.bias.grad, bias)
    assert torch.equal(x, kept)
    assert not x.requires_grad


def test_leaves_the_model_of_a_function_as_it_was():
    model = trained_in_part()

    def greedy(forward: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        x = inputs.requires_grad_()
        CE(forward(x), labels).sum().backward()
        model.train()
        return x + 0.1 * x.grad.sign()

    before = state_of(model)
    bias = model.head.bias.grad.clone()
    for forward in (model, model.forward, lambda x: model(x), functools.partial(model)):
        from_attack(greedy, torch.rand(2, 3, 8, 8), model=forward)
        assert state_of(model) == before
        assert torch.equal(model.head.bias.grad, bias)


def test_foolbox_leaves_the_model_on_its_device(model, demo_pairs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    attack = library("foolbox").attacks.LinfFastGradientAttack()
    pair = from_attack(attack, demo_pairs.natural, model=model, epsilons=EPS)
    assert pair.succeeded.any()
    assert next(model.parameters()).device.type == "cpu"


@each
def test_batch_norm_in_training_mode(demo_pairs, make):
    model = nn.Sequential(SmallNet(classes=CLASSES)).eval()
    call = make(model, False, EPS)
    model.train()
    mean = model[0].norm.running_mean.clone()
    with (
        warnings.catch_warnings(record=True),
        pytest.raises(ValueError, match=r"0\.norm is in training mode"),
    ):
        from_attack(call.attack, demo_pairs.natural, **call.options)
    assert torch.equal(model[0].norm.running_mean, mean)


@each
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_no_gradients_are_taken(model, demo_pairs, make, mode):
    call = make(model, False, EPS)
    x = demo_pairs.natural
    torch.manual_seed(1)
    expected = from_attack(call.attack, x, **call.options)
    with mode():
        inside = x.clone()
        for natural in (x, inside):
            torch.manual_seed(1)
            pair = from_attack(call.attack, natural, **call.options)
            assert not torch.is_grad_enabled()
            assert torch.equal(pair.adversarial, expected.adversarial)
            assert torch.equal(pair.attack_label, expected.attack_label)
            assert torch.equal(pair.succeeded, expected.succeeded)
            # Others can take gradients at it.
            assert not pair.adversarial.is_inference()


def art_l2(model: Any, targeted: bool, eps: float) -> Call:
    """Smooth, as it has to be in float32."""
    attack = library("art.attacks.evasion").FastGradientMethod(
        art_classifier(model), norm=2, eps=2.0
    )
    return Call(attack, attack.generate)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    "make", [captum_fgsm, torchattacks_cw, foolbox_ddn, art_l2, advlib_ddn]
)
def test_batches_change_nothing(model, demo_pairs, make, batch_size):
    x = nn.functional.avg_pool2d(demo_pairs.natural, 2)
    true = demo_pairs.true_label
    if make is not art_l2:
        x, model = x.double(), model.double()
    call = make(model, False, 4 / 255)
    whole = from_attack(call.attack, x, true_label=true, **call.options)
    pair = from_attack(
        call.attack,
        x,
        true_label=true,
        batch_size=batch_size,
        names="abc",
        **call.options,
    )
    torch.testing.assert_close(pair.adversarial, whole.adversarial, rtol=0, atol=1e-5)
    assert not torch.equal(pair.adversarial, x)
    assert torch.equal(pair.attack_label, whole.attack_label)
    assert torch.equal(pair.succeeded, whole.succeeded)
    assert pair.names == ("a", "b", "c")


def test_targets_go_with_their_batches(model, demo_pairs):
    seen = []

    def attack(model: Any, inputs: Tensor, labels: Tensor, targeted: bool) -> Tensor:
        seen.append((len(inputs), labels.tolist(), targeted))
        return inputs

    x = demo_pairs.natural
    pair = from_attack(
        attack, x, true_label=0, attack_label=[4, 5, 6], model=model, batch_size=2
    )
    assert seen == [(2, [4, 5], True), (1, [6], True)]
    assert pair.true_label.tolist() == [0, 0, 0]
    assert pair.succeeded.tolist() == [False] * 3


def test_progress_bar(model, demo_pairs, capsys):
    for show in (False, True):
        call = captum_fgsm(model, False, EPS)
        from_attack(
            call.attack, demo_pairs.natural, show_progress=show, batch_size=1, epsilon=0
        )
        assert ("attacking: 100%" in capsys.readouterr().err) == show


@pytest.mark.parametrize(
    ("succeeded", "error", "match"),
    [
        ([True, False], TypeError, "succeeded: got list, want a bool tensor"),
        (torch.ones(2), ValueError, "succeeded: got torch.float32 of shape"),
        (
            torch.ones(3).bool(),
            ValueError,
            r"got torch.bool of shape \(3,\), want bool",
        ),
    ],
)
def test_wrong_succeeded(succeeded, error, match):
    x = torch.rand(2, 3)
    with pytest.raises(error, match=match):
        AdversarialPair(
            natural=x,
            adversarial=x + 1,
            true_label=0,
            attack_label=1,
            succeeded=succeeded,
        )


def test_imports_no_library_that_is_not_used():
    code = """
import sys, torch, captum_pse
from captum.robust import FGSM
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
loss = torch.nn.CrossEntropyLoss(reduction="none")
x = torch.rand(2, 3, 2, 2)
make = captum_pse.AdversarialPair.from_attack
make(FGSM(model, loss), x, epsilon=0.1)
make(lambda model, x, y: x, x, model=model)
others = {"torchattacks", "foolbox", "eagerpy", "art", "adv_lib"}
assert not others & {name.split(".")[0] for name in sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# By name


NAMED = {
    "captum.FGSM": {"epsilon": 8 / 255},
    "captum_pse.StructuredAttack": {"iterations": 20, "search_steps": 2},
    "torchattacks.FGSM": {"eps": 8 / 255},
    # foolbox's FGSM cannot be targeted; one step of this one is the same.
    "foolbox.LinfBasicIterativeAttack": {
        "epsilons": 8 / 255,
        "steps": 1,
        "abs_stepsize": 8 / 255,
        "random_start": False,
    },
    "art.FastGradientMethod": {"eps": 8 / 255},
    "adv_lib.ddn": {"steps": 5},
}


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_attacks_by_name(name, targeted, demo_model):
    """One-step attacks of all libraries are the same attack."""
    pytest.importorskip(name.split(".")[0])
    model, pair = demo_model, make_pairs(3)
    labels = {"true_label": pair.true_label}
    if targeted:
        labels["attack_label"] = pair.attack_label
    torch.manual_seed(0)
    found = AdversarialPair.from_attack(
        name, pair.natural, **labels, model=model, **NAMED[name]
    )
    predicted = model(found.adversarial).argmax(dim=1)
    assert found.succeeded.tolist() == (predicted == found.attack_label).tolist()
    assert found.succeeded.any() or targeted
    if any(part in name for part in ("Gradient", "FGSM", "Iterative")):
        wanted = AdversarialPair.from_attack(
            "captum.FGSM", pair.natural, **labels, model=model, epsilon=8 / 255
        )
        differs = (found.adversarial - wanted.adversarial).abs() > 1e-6
        # Captum leaves features with next to no gradient as they are.
        assert differs.float().mean() < 0.02


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("PGD", {}, ValueError, "want a name such as 'torchattacks.PGD'"),
        ("cleverhans.PGD", {}, ValueError, "of one of captum, "),
        ("captum.Nothing", {}, ValueError, "captum.robust has no 'Nothing'"),
        ("torchattacks.PGD", {"radius": 1}, ValueError, "cannot be made: .*radius"),
        ("captum.FGSM", {"model": None}, TypeError, "model: got NoneType"),
    ],
)
def test_names_that_are_wrong(name, options, error, message, demo_model):
    pytest.importorskip("torchattacks")
    options = {"model": demo_model} | options
    with pytest.raises(error, match=message):
        AdversarialPair.from_attack(name, torch.rand(1, 3, 64, 64), **options)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("torchattacks.PGD", "pip install 'captum-pse[attacks]'"),
        ("foolbox.L2PGD", "pip install 'captum-pse[attacks]'"),
        ("art.DeepFool", "pip install 'captum-pse[attacks]'"),
        ("adv_lib.ddn", "pip install adv-lib"),
    ],
)
def test_a_library_that_is_not_installed(name, package, monkeypatch, demo_model):
    library = name.split(".")[0]
    for module in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=re.escape(package)):
        AdversarialPair.from_attack(name, torch.rand(1, 3, 64, 64), model=demo_model)
