"""The demo: scenes and their masks, the shipped model, and pairs."""

from __future__ import annotations

import pytest
import torch

from captum_pse import demo
from captum_pse.demo.things import PALETTE
from captum_pse.demo.train import accuracy, train


def test_scenes_are_deterministic_and_labelled():
    first, again = demo.draw_scene(0, 17), demo.draw_scene(0, 17)
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, demo.draw_scene(1, 17).image)
    assert demo.Scenes(30, seed=0)[17][1] == first.label == 17 % 12
    # The drawing itself is pinned: the shipped weights were trained on it.
    torch.testing.assert_close(
        first.image.mean((1, 2)), torch.tensor([0.484, 0.583, 0.581]), rtol=0, atol=1e-3
    )


def test_masks_match_what_is_drawn():
    seen: dict[str, set[str]] = {name: set() for name in demo.CONCEPTS}
    for scene in map(demo.Scenes(120).scene, range(120)):
        assert scene.image.shape == (3, 64, 64)
        assert scene.image.dtype == torch.float32
        assert 0 <= float(scene.image.min()) <= float(scene.image.max()) <= 1
        for category, mask in scene.concepts.items():
            names = demo.CONCEPTS[category]
            assert mask.dtype == torch.int64
            assert mask.shape == (() if category == "scene" else (64, 64))
            seen[category] |= {names[k - 1] for k in mask.unique().tolist() if k}
        objects = scene.concepts["object"] == scene.label + 1
        assert objects.any()
        # Parts cover the object, textures only parts of it, colours the whole image.
        assert torch.equal(scene.concepts["part"] > 0, objects)
        assert not ((scene.concepts["texture"] > 0) & ~objects).any()
        assert (scene.concepts["color"] > 0).all()
    assert seen == {name: set(names) for name, names in demo.CONCEPTS.items()}


def test_colours_match_their_masks():
    palette = torch.tensor(list(PALETTE.values()))
    errors = []
    for scene in map(demo.Scenes(24).scene, range(24)):
        named = palette[scene.concepts["color"] - 1].permute(2, 0, 1)
        errors.append((scene.image - named).abs().mean())
    assert max(errors) < 0.12


def test_the_shipped_model_is_accurate(demo_model):
    assert not demo_model.training
    assert accuracy(demo_model, *demo.Scenes(240).batch()) >= 0.95


def test_training_learns():
    model = train(n=192, epochs=6, batch_size=16)
    assert accuracy(model, *demo.Scenes(192, seed=0).batch()) > 0.2  # chance is 1/12


def test_pairs_fool_the_model(demo_model):
    pairs = demo.make_pairs(14)
    pairs.verify(demo_model)
    assert float((pairs.adversarial - pairs.natural).abs().max()) <= 6 / 255 + 1e-6
    assert 0 <= float(pairs.adversarial.min()) <= float(pairs.adversarial.max()) <= 1
    assert pairs.attack_label.tolist()[11:] == [0, 2, 3]
    assert pairs.names[12] == "balloon-12-to-butterfly"
    assert torch.equal(demo.make_pairs(2).adversarial, demo.make_pairs(2).adversarial)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: demo.Scenes(0), ValueError, "n: got 0, want a positive int"),
        (lambda: demo.Scenes(3)[3], IndexError, "index: got 3, want 0 to 2"),
        (lambda: demo.draw_scene(-1, 0), ValueError, "seed: got -1, want an int of"),
        (lambda: demo.draw_scene(0, -1), ValueError, "index: got -1, want an int of"),
        (lambda: demo.make_pairs(0), ValueError, "n: got 0, want a positive int"),
        (lambda: demo.make_pairs(1, eps=0), ValueError, "eps: got 0, want more than 0"),
        (lambda: demo.make_pairs(1, steps=0), ValueError, "steps: got 0, want a posit"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
