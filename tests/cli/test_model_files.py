"""Models by name: torchvision models with random weights, and a callable."""

from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import googlenet, squeezenet1_1

from captum_pse.cli.models import load_model

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return squeezenet1_1().eval()


def write(network: nn.Module, path, kind: str) -> None:
    state = network.state_dict()
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "half":
        torch.save({name: tensor.half() for name, tensor in state.items()}, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)


@pytest.mark.parametrize("kind", ["safetensors", "half", "checkpoint"])
def test_torchvision_model_with_its_normalisation_folded_in(network, tmp_path, kind):
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    write(network, path, kind)
    loaded = load_model("squeezenet1_1", str(path))
    assert not loaded.forward_func.training
    assert loaded.class_names is not None
    assert loaded.class_names[0] == "tench"
    x = torch.rand(2, 3, 64, 64)
    normal = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        got, expected = loaded.forward_func(x), network(normal)
    torch.testing.assert_close(
        got, expected, rtol=1e-4, atol=0.05 if kind == "half" else 1e-5
    )
    assert got.dtype == torch.float32


def test_mean_and_std_of_ones_own(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    write(network, path, "safetensors")
    loaded = load_model("squeezenet1_1", str(path), (0.5, 0.5, 0.5), (2.0, 2.0, 2.0))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.forward_func(x), network((x - 0.5) / 2))


def test_callable_with_and_without_normalisation(demo_model):
    name, x = "captum_pse.demo:load_model", torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        plain = load_model(name).forward_func(x)
        moved = load_model(name, mean=[0.1] * 3, std=[0.5] * 3).forward_func(x)
        torch.testing.assert_close(plain, demo_model(x))
        torch.testing.assert_close(moved, demo_model((x - 0.1) / 0.5))
    assert load_model(name).class_names is None


def test_weights_for_a_callable(demo_model, tmp_path):
    zeros = {k: torch.zeros_like(v) for k, v in demo_model.state_dict().items()}
    safetensors.torch.save_file(zeros, tmp_path / "zeros.safetensors")
    loaded = load_model("captum_pse.demo:DemoNet", str(tmp_path / "zeros.safetensors"))
    with torch.no_grad():
        assert (loaded.forward_func(torch.rand(1, 3, 64, 64)) == 0).all()


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


NAMES = {
    "a segmentation model": ("fcn_resnet50", "w.pt", "torchvision's classification"),
    "a dot for the colon": ("captum_pse.demo.load_model", None, "got 'captum_pse.demo"),
    "unknown name": ("squeezenet1_2", "w.pt", "did you mean squeezenet1_1 or"),
    "nothing like it": ("zzz", "w.pt", "model: got 'zzz', want a name of torchvision"),
    "no weights": ("squeezenet1_1", None, "weights: got None for torchvision's"),
    "no such package": ("nowhere.at_all:f", None, "model: .* cannot be imported"),
    "no such attribute": ("captum_pse.demo:nothing", None, "model: .* cannot be"),
    "no module": (":f", None, "model: :f cannot be imported and called"),
    "a callable that wants more": (
        "captum_pse.demo:draw_scene",
        None,
        "model: .* called without arguments .TypeError: .* missing 2 required",
    ),
    "not a model": ("captum_pse.demo:make_pairs", None, "returned AdversarialPair"),
    "DEFAULT for a callable": (
        "captum_pse.demo:load_model",
        "DEFAULT",
        "weights: got DEFAULT, want a file; only torchvision",
    ),
}


@pytest.mark.parametrize(("name", "weights", "message"), NAMES.values(), ids=NAMES)
def test_names_that_are_refused(name, weights, message):
    with pytest.raises(ValueError, match=message):
        load_model(name, weights)


WEIGHTS = {
    "missing": (".pt", None, FileNotFoundError, "weights: there is no file"),
    "garbage": (
        ".pt",
        lambda path: path.write_bytes(b"garbage"),
        ValueError,
        "weights: .* is not a complete state dict",
    ),
    "garbage safetensors": (
        ".safetensors",
        lambda path: path.write_bytes(b"garbage"),
        ValueError,
        "weights: .* is not a complete state dict",
    ),
    "pickled code": (
        ".pt",
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        ValueError,
        "weights: .* is not a complete state dict",
    ),
    "not a state dict": (
        ".pt",
        lambda path: torch.save([1, 2], path),
        ValueError,
        "weights: .* holds no state dict",
    ),
    "of another model": (
        ".pt",
        lambda path: torch.save({"weight": torch.zeros(2)}, path),
        ValueError,
        "weights: they do not match squeezenet1_1: Missing key",
    ),
    "of other shapes": (
        ".pt",
        lambda path: torch.save(squeezenet1_1(num_classes=7).state_dict(), path),
        ValueError,
        "weights: they do not match squeezenet1_1: size mismatch for classifier",
    ),
}


@pytest.mark.parametrize(
    ("suffix", "make", "error", "message"), WEIGHTS.values(), ids=WEIGHTS
)
def test_weights_that_are_refused(tmp_path, capsys, suffix, make, error, message):
    path = tmp_path / f"weights{suffix}"
    if make is not None:
        make(path)
    with pytest.raises(error, match=message):
        load_model("squeezenet1_1", str(path))
    assert "this must never run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], None), (None, [0.5]), ([0.5], [0.5, 0.5])]
)
def test_mean_and_std_belong_together(mean, std):
    with pytest.raises(ValueError, match="mean and std: got"):
        load_model("captum_pse.demo:load_model", mean=mean, std=std)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.0], r"std: got \[0.0\], want positive"),
        ([0.5], [float("inf")], r"std: got \[inf\], want positive"),
        ([float("nan")], [1.0], r"mean: got \[nan\], want finite"),
    ],
)
def test_mean_and_std_are_numbers(mean, std, message):
    with pytest.raises(ValueError, match=message):
        load_model("captum_pse.demo:load_model", mean=mean, std=std)


def test_googlenet_is_built_as_torchvision_builds_it_for_its_weights(tmp_path):
    """The published file has no auxiliary heads and wants transform_input."""
    network = googlenet(aux_logits=False, transform_input=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    loaded = load_model("googlenet", str(tmp_path / "weights.pt"), [0.0] * 3, [1.0] * 3)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.eval()(x)
        torch.testing.assert_close(loaded.forward_func(x), expected)


def test_weights_that_cannot_be_fetched(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ValueError, match="weights: torchvision's for squeezenet1_1"):
        load_model("squeezenet1_1", "DEFAULT")
