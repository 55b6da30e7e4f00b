"""Hooks act in the thread that set them, and leave nothing behind."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from conftest import SmallNet, state_of
from torch import Tensor, fx, nn

from captum_pse import (
    AdversarialCAM,
    DissectionSensitivity,
    mask_units,
    unit_range,
)
from captum_pse._engine.tape import NotTraceableError
from captum_pse._engine.tracing import trace
from captum_pse._model.hooks import acting_hooks
from captum_pse._model.layers import last_spatial_layer
from captum_pse._model.unchanged import copy_of, unchanged

X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def elsewhere(function: Callable[[], Any]) -> Any:
    """What a function returns in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_two_masks_in_two_threads_and_a_plain_call():
    net = SmallNet().eval()
    plain = net(X)
    with mask_units(net, {"conv": [0, 1]}):
        first = net(X)
    with mask_units(net, {"conv": [5], "head": [2]}):
        second = net(X)
    assert not torch.equal(first, plain)

    def masked() -> Tensor:
        with mask_units(net, {"conv": [5], "head": [2]}):
            both.wait()
            scores = net(X)
            both.wait()
            return scores

    both = threading.Barrier(2)
    with ThreadPoolExecutor(1) as pool, mask_units(net, {"conv": [0, 1]}):
        other = pool.submit(masked)
        both.wait()
        assert torch.equal(net(X), first)
        both.wait()
        assert torch.equal(other.result(), second)
        assert torch.equal(elsewhere(lambda: net(X)), plain)
        assert torch.equal(net(X), first)
    assert torch.equal(net(X), plain)


def test_the_innermost_block_ends_first_or_last():
    net = SmallNet().eval()
    outer, inner = (mask_units(net, {"conv": [k]}) for k in (0, 1))
    with mask_units(net, {"conv": [1]}):
        wanted = net(X)
    outer.__enter__()
    inner.__enter__()
    net(X)
    outer.__exit__(None, None, None)
    assert torch.equal(net(X), wanted)
    inner.__exit__(None, None, None)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_mask_in_another_thread_only_warns():
    net = SmallNet().eval()
    with (
        pytest.warns(UserWarning, match="'conv' did not run within the block, in its"),
        mask_units(net, {"conv": [0]}),
    ):
        elsewhere(lambda: net(X))


class InBackward(torch.autograd.Function):
    """Calls a function in the backward pass, in a thread of autograd: deep recursion
    ends in one, as a backward pass on a GPU does."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, function: Callable[[], None], depth: int
    ) -> Tensor:
        ctx.function, ctx.depth = function, depth
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.depth:
            with torch.enable_grad():
                x = torch.ones(1, requires_grad=True)
                InBackward.apply(x, ctx.function, ctx.depth - 1).sum().backward()
        else:
            ctx.function()
        return gradient, None, None


def test_hooks_act_in_the_threads_of_autograd():
    net, found = SmallNet().eval(), []

    def again() -> None:
        with torch.no_grad():
            found.append((threading.get_ident(), net(X)))

    def backward() -> None:
        x = torch.ones(1, requires_grad=True)
        InBackward.apply(x, again, 80).sum().backward()

    with torch.no_grad(), mask_units(net, {"conv": [0, 3]}):
        masked = net(X)
        with torch.enable_grad():
            backward()
            elsewhere(backward)
    (thread, own), (_, other) = found
    assert thread != threading.get_ident()
    assert torch.equal(own, masked)
    assert torch.equal(other, net(X))


@pytest.mark.parametrize(
    "run",
    [
        lambda model: unit_range(model, "module.conv", X),
        lambda model: mask_units(model, {"module.conv": [0]}).__enter__(),
        lambda model: AdversarialCAM(model, "module.conv").attribute(X, X / 2, 1, 2),
        lambda model: DissectionSensitivity(model, "module.conv").attribute(X, X / 2),
        lambda model: last_spatial_layer(model, (X,)),
    ],
)
def test_data_parallel_models_are_refused(run):
    model = nn.DataParallel(SmallNet().eval())
    with mask_units(model, {"module.conv": [0]}):
        model(X)  # on the CPU it runs the module itself
    model.device_ids = [0, 1]
    with pytest.raises(
        ValueError, match=r"^forward_func: got a DataParallel, which .*2"
    ):
        run(model)


def test_copies_have_no_hooks_and_no_states_of_blocks():
    net = SmallNet().eval()
    plain = net(X)
    net.head.bias.requires_grad_(False)
    before = state_of(net)

    def copied() -> nn.Module:
        assert acting_hooks(net.conv) == []
        return copy_of(net)

    with mask_units(net, {"conv": [0, 1]}), unchanged(net):
        net.train()
        copies = [copied_here := copy_of(net), elsewhere(copied)]
        # An attack that copies the model by itself attacks the masked one.
        net.eval()
        assert torch.equal(copy.deepcopy(net)(X), net(X))
    for one in copies:
        assert state_of(one) == before
        assert torch.equal(one(X), plain)
    assert copied_here is not net
    assert state_of(net) == before


def test_blocks_that_overlap_restore_what_the_user_set():
    net = SmallNet().eval()
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = state_of(net)[:-1]  # without the grad mode
    inside, end = threading.Event(), threading.Event()

    def first() -> None:
        with unchanged(net):
            net.train()
            inside.set()
            end.wait()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(first)
        inside.wait()
        with unchanged(net):
            end.set()
            running.result()
            assert not any(p.requires_grad for p in net.parameters())
            assert net.head.weight.grad is None
    assert [*map(str, state_of(net)[:-1])] == [*map(str, before)]


class Remembers(nn.Module):
    """Keeps what it computes, and waits while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()
        self.last = None
        self.waiting = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.net.conv(x)
        self.net.newest = self.last
        if isinstance(x, fx.Proxy):
            self.waiting()
        return self.net(x)


def test_tracing_leaves_other_threads_and_the_model_alone():
    model = Remembers().eval()
    wanted, last = model(X), model.last

    def other() -> None:
        found.append(model.net(X))  # runs while __call__ is patched
        model.net.seen = 3
        with mask_units(model, {"net": [1]}):
            found.append(model.net(X))

    found: list[Tensor] = []
    model.waiting = lambda: elsewhere(other)
    traced = trace(model)
    assert torch.equal(found[0], wanted)
    assert torch.equal(found[1][:, 1], torch.zeros(2))
    assert model.last is last
    assert model.net.seen == 3
    assert model.net.newest is last
    torch.testing.assert_close(fx.Interpreter(model, graph=traced.graph).run(X), wanted)


def test_only_hooks_of_this_thread_stop_a_trace():
    net = SmallNet().eval()
    model = nn.Sequential(net)
    start, end = threading.Event(), threading.Event()

    def masks() -> None:
        with mask_units(model, {"0": [0]}):
            start.set()
            end.wait()
            model(X)

    with ThreadPoolExecutor(1) as pool:
        masking = pool.submit(masks)
        start.wait()
        try:
            trace(model)
        finally:
            end.set()
        masking.result()
    with mask_units(model, {"0": [0]}):
        model(X)
        with pytest.raises(NotTraceableError, match="0 has hooks"):
            trace(model)
    # The hooks of a leaf act in the traced graph, too.
    with mask_units(model, {"0.conv": [0]}):
        model(X)
        trace(model)
