from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_pse import AdversarialPair


@pytest.fixture
def pair() -> AdversarialPair:
    x = torch.arange(12.0).view(3, 4)
    return AdversarialPair(
        natural=x,
        adversarial=x + 0.5,
        true_label=[0, 1, 2],
        attack_label=3,
        names=["a", "b", "c"],
    )


def test_unpacks_in_the_order_of_attribute(pair):
    inputs, baselines, target, true_target = pair
    assert inputs is pair.adversarial
    assert baselines is pair.natural
    assert target.tolist() == [3, 3, 3]
    assert true_target.tolist() == [0, 1, 2]
    assert len(pair) == 3


@pytest.mark.parametrize(
    ("examples", "names"),
    [
        (1, "b"),
        (-1, "c"),
        (np.int64(1), "b"),
        (slice(0, 2), "ab"),
        ([2, 0], "ca"),
        (torch.tensor([True, False, True]), "ac"),
    ],
)
def test_select(pair, examples, names):
    part = pair.select(examples)
    assert list(part.names) == list(names)
    rows = ["abc".index(name) for name in names]
    assert torch.equal(part.natural, pair.natural[rows])
    assert torch.equal(part.adversarial, pair.adversarial[rows])
    assert part.true_label.tolist() == rows
    assert part.attack_label.tolist() == [3] * len(rows)


def test_select_outside(pair):
    with pytest.raises(IndexError, match="examples: got 3, want some of 3"):
        pair.select(3)
    with pytest.raises(ValueError, match="examples: got none of"):
        pair.select(torch.zeros(len(pair), dtype=torch.bool))
    with pytest.raises(ValueError, match="examples: got none of"):
        pair.select([])


def test_dense_labels_and_tuples():
    x = (torch.rand(2, 3, 4, 4), torch.rand(2, 5))
    pair = AdversarialPair(
        natural=x,
        adversarial=x,
        true_label=(0, 1, 1),
        attack_label=[(1, 1, 1), (2, 3, 3)],
    )
    assert pair.true_label == [(0, 1, 1), (0, 1, 1)]
    part = pair.select([1])
    assert part.attack_label == [(2, 3, 3)]
    assert torch.equal(part.natural[1], x[1][1:])
    assert repr(pair).startswith("AdversarialPair(2 x (3, 4, 4), (5,), torch.float32")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_to_moves_everything():
    x = (torch.rand(1, 3, 4, 4),)
    moved = AdversarialPair(
        natural=x, adversarial=x, true_label=0, attack_label=1, names="a"
    ).to("cuda")
    for tensor in (moved.natural[0], moved.adversarial[0], moved.true_label):
        assert tensor.device.type == "cuda"
    assert torch.equal(moved.natural[0].cpu(), x[0])
    assert moved.names == ("a",)


def test_verify(demo_model, demo_pairs):
    demo_pairs.verify(demo_model)
    x, x0, t, t0 = demo_pairs
    with pytest.raises(
        ValueError,
        match=r"attack_label: .* on 1 of 3 adversarial .*'1'.* predicts 2, not 9",
    ):
        AdversarialPair(
            natural=x0, adversarial=x, true_label=t0, attack_label=[1, 9, 3]
        ).verify(demo_model)
    with pytest.raises(ValueError, match=r"true_label: .* another class on 3 of 3"):
        AdversarialPair(
            natural=x0, adversarial=x, true_label=(t0 + 5) % 12, attack_label=t
        ).verify(demo_model)
    with pytest.raises(ValueError, match="attack_label: got 12 for example 0"):
        AdversarialPair(
            natural=x0, adversarial=x, true_label=t0, attack_label=12
        ).verify(demo_model)


def test_verify_passes_the_arguments_on(make_case):
    case = make_case(2)
    pair = AdversarialPair(
        natural=case.natural,
        adversarial=case.adversarial,
        true_label=1,
        attack_label=[0, 2],
    )

    def forward(x: Tensor, natural: Tensor) -> Tensor:
        """Predicts 1 where ``x`` is ``natural``, else 0 and 2."""
        same = (x == natural).flatten(1).all(1)
        predicted = torch.where(same, 1, torch.tensor([0, 2]))
        return torch.nn.functional.one_hot(predicted, 3).double()

    pair.verify(forward, case.natural)
    with pytest.raises(ValueError, match=r"true_label: .* another class on 2 of 2"):
        pair.verify(forward, case.natural + 1)
    with pytest.raises(ValueError, match="norm is in training mode"):
        pair.verify(case.model.train())
