"""What changes a digest, and what does not."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import tv_tensors

from captum_pse._io import digest as digests
from captum_pse._io.digest import digest
from captum_pse._io.module_digest import module_digest

ROOT = Path(__file__).parents[2]
X = torch.arange(6.0).reshape(2, 3)

#: Values, all of which differ.
VALUES = [
    None, True, 1, 1.0, "1", b"1", "", b"", "None", [], {}, set(), [[]], [{}], [1],
    [1, 2], [2, 1], [12], ["1", "2"], ["12"], [[1], [2]], {"a": 1}, {"a": 2}, {"b": 1},
    {1: "a"},
    {1}, {1, 2}, {"a": {"b": 1}, "c": 1}, {"a": {"b": 1, "c": 1}}, 0.0, -0.0, 1e-320,
    float("nan"), float("inf"), "é", "e", 1j, X, X.T, X.flatten(), X.double(), X.int(),
    X.half(), X.bfloat16(), X + 1e-6, X.numpy(), torch.tensor(0.0), torch.zeros(0),
    torch.zeros(0, 2), torch.zeros(2, 0), torch.tensor([1 + 2j]), np.array(["a", "bc"]),
    np.array(["ab", "c"]), np.array("a"), np.array([b"a"]), np.zeros((0, 3)),
]  # fmt: skip


def test_values_that_differ_have_digests_that_differ() -> None:
    found = [digest(value) for value in VALUES]
    found += [digest(), digest(1, 2), digest("a", [1])]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"x", "y", "z"}, frozenset(("z", "y", "x"))),
        ([1, X], (1, X.clone())),
        (X, X.T.contiguous().T),
        (X, X.clone().requires_grad_()),
        (X, tv_tensors.Mask(X)),
        (X, nn.Parameter(X)),
        (X.to_sparse(), X),
        (torch.tensor([1 - 2j]), torch.tensor([1 + 2j]).conj()),
        (X.numpy(), np.asfortranarray(X.numpy())),
        (float("nan"), float("nan")),
    ],
)
def test_what_makes_no_difference(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


def test_the_bytes_that_are_hashed() -> None:
    """By hand: a digest that changes with a version makes saved files unreadable."""
    # Before each part its type and its length in bytes; of a sequence, of its number.
    raw = b"sequence 1\n2" + b"int 1\n7" + b"torch.float32 (1,) 4\n" + b"\0\0\x80?"
    wanted = hashlib.blake2b(raw, digest_size=32).hexdigest()
    assert digest(7, torch.ones(1)) == wanted


@pytest.mark.parametrize("value", [object(), nn.Linear(1, 1), {"a": [len]}])
def test_values_without_a_digest(value: Any) -> None:
    with pytest.raises(TypeError, match=r"digest: got .*, want a plain value"):
        digest(value)


def test_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of the package, wherever it is, and every file of it."""
    package = tmp_path / "captum_pse"
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "captum_pse", package, ignore=no_caches)
    monkeypatch.setattr(digests, "__file__", str(package / "_io/digest.py"))
    copied = digests.code_digest.__wrapped__()
    assert copied == digests.code_digest()
    with (package / "units/norms.py").open("a") as file:
        file.write("#")
    edited = digests.code_digest.__wrapped__()
    monkeypatch.setattr(digests, "versions", lambda: {"torch": "another"})
    assert len({copied, edited, digests.code_digest.__wrapped__()}) == 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout()
        self.register_buffer("hidden", torch.zeros(1), persistent=False)
        self.plain = torch.zeros(1)
        self.activation = functional.relu
        self.sizes = {"a": [1, 2]}

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


def other_class(net: nn.Module) -> None:
    net.__class__ = type("Net", (Net,), {"__module__": Net.__module__ + "2"})


def renamed(net: nn.Module) -> None:
    net.other = net.drop
    del net.drop


CHANGES = {
    "a weight": lambda net: net.conv.weight.data[0, 0, 0, 0].mul_(1 + 1e-6),
    "a statistic": lambda net: net.norm.running_mean.add_(1e-6),
    "the dtype": lambda net: net.double(),
    "a stride": lambda net: setattr(net.conv, "stride", (2, 2)),
    "an eps": lambda net: setattr(net.norm, "eps", 1e-4),
    "a mode": lambda net: net.drop.train(),
    "a hidden buffer": lambda net: net.hidden.add_(1),
    "a tensor that is no buffer": lambda net: net.plain.add_(1),
    "a function": lambda net: setattr(net, "activation", functional.relu6),
    "a value in a dict": lambda net: net.sizes["a"].append(3),
    "a class": other_class,
    "a name": renamed,
    "a bias": lambda net: setattr(net.conv, "bias", None),
}


def made() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_of_a_model(change: Any) -> None:
    net = made()
    assert module_digest(net) == module_digest(made())
    change(net)
    assert module_digest(net) != module_digest(made())


def test_the_address_that_torch_compile_keeps() -> None:
    net = made()
    net._torchdynamo_wrapper_id = id(net)
    assert module_digest(net) == module_digest(made())


def test_a_model_that_runs_or_is_copied_is_the_same(tmp_path: Path) -> None:
    net, before = made(), module_digest(made())
    net(torch.rand(1, 3, 8, 8)).sum().backward()
    net.requires_grad_(False)
    assert module_digest(net) == before
    torch.save(net, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    assert module_digest(again) == before
