"""Models whose statements write into tensors, make views or use shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from engine_helpers import Net, ablate, check, pair
from torch import Tensor, nn

from captum_pse import EngineWarning, grid_mask


class Statements(nn.Module):
    """A function of the input itself, and what follows it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.c, self.l = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)
        self.net, self.last = Net(nn.Identity()), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x, self)
        scores = (batch_in_the_middle, mean_then_places, squeezed)
        return y if self.function in scores else self.net(y)


def clamp_then_roll(x, s):
    x.clamp_(0, 1)
    return x.roll(1, 2)


def clamp_then_linear(x, s):
    x = x.permute(0, 2, 3, 1).contiguous()
    x.clamp_(0, 1)
    return s.l(x).permute(0, 3, 1, 2)


def read_by_two_names(x, s):
    u = x * 1.0
    w = u.clamp_(0, 1)
    a = w + 1
    return s.c(u) + a + s.c(a)


def copy_then_clamp(x, s):
    v = x.clone()
    x.clamp_(0, 1)
    return s.c(v) + s.c(x)


def copy_then_double(x, s):
    u = x * 1.0
    v = u.clone()
    u.mul_(2)
    return v + u


def copy_then_sum(x, s):
    """``cumsum_`` mixes no examples, but the table of operations does not know it."""
    u = x * 1.0
    v = u.clone()
    u.cumsum_(2)
    return v + u


def pad_then_clamp(x, s):
    u = x * 1.0
    v = F.pad(u, (0, 1, 0, 1))
    u.clamp_(0, 1)
    return s.c(v)[:, :, :-1, :-1] + s.c(u)


def slice_then_activate(x, s):
    return F.leaky_relu(torch.cat([x - 1, x], 1)[:, 1:4], 0.1, inplace=True)


def second_part(x, s):
    return s.c(torch.cat([x, torch.clamp(x, 0, 1)], 1).chunk(2, 1)[1])


def into_argument(x, s):
    y = x * 1.0
    z = s.c(y)
    torch.clamp(y, 0, 1, out=y)
    return y + z


def batch_in_the_middle(x, s):
    h = torch.tanh(s.last(s.net(x).unsqueeze(0)))
    return h.reshape(h.shape[0], -1, 5)[-1]


def more_dimensions(x, s):
    return (x + torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))[0]


def places_of_maxima(x, s):
    return x[:, :, ::2, ::2] * F.max_pool2d(x, 2, return_indices=True)[1] / 400


def mean_then_places(x, s):
    return torch.log1p(torch.relu(s.c(x)).mean((-2, -1)).abs() / 2)


def squeezed(x, s):
    return s.l(F.adaptive_avg_pool2d(torch.tanh(s.c(x)), 1).squeeze())


def mean_of_all(x, s):
    return x / torch.mean(x, dim=None, keepdim=True)


def made_of_numbers(x, s):
    return x - torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype).view(1, 3, 1, 1)


STATEMENTS = [
    clamp_then_roll, clamp_then_linear, read_by_two_names, copy_then_clamp,
    copy_then_double, copy_then_sum, pad_then_clamp, slice_then_activate, second_part,
    into_argument, mean_then_places, made_of_numbers, places_of_maxima, more_dimensions,
    batch_in_the_middle,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::captum_pse.EngineWarning")
@pytest.mark.parametrize("function", STATEMENTS)
def test_statements(function):
    """Most of these show no difference on the first example, which clamping leaves."""
    model = Statements(function).double().eval()
    x, x0 = pair(2, 3, 20, 20)
    x[1] += 0.7
    x0[1] += 0.7
    mask = grid_mask((20, 20), cell=4)
    kept, attributes = x.clone(), set(vars(model))
    wanted = ablate(model, x, x0, mask, "dense")
    found = ablate(model, x, x0, mask)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-12)
    follows = function is not into_argument
    assert found.engine == ("incremental" if follows else "dense"), found.note
    assert torch.equal(x, kept)
    assert set(vars(model)) == attributes


def test_a_model_that_mixes_examples_is_told():
    model = Statements(mean_of_all).double().eval()
    with pytest.warns(EngineWarning, match="does not give the scores"):
        ablate(model, *pair(2, 3, 20, 20), grid_mask((20, 20), cell=4), "auto")


def test_what_fails_on_one_example_takes_full_passes():
    model = Statements(squeezed).double().eval()
    x, x0 = pair(2, 3, 20, 20)
    mask = grid_mask((20, 20), cell=4)
    found = ablate(model, x, x0, mask, "auto")
    wanted = ablate(model, x, x0, mask, "dense")
    torch.testing.assert_close(found.scores, wanted.scores, rtol=0, atol=1e-12)


def test_whole_numbers_under_a_maximum():
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(nn.Identity())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(F.max_pool2d(x, 3, 1, 1).double() / 10)

    x, x0 = torch.randint(-20, -1, (2, 1, 3, 20, 20))
    check(Whole().double().eval(), x, x0, grid_mask((20, 20), cell=3))
