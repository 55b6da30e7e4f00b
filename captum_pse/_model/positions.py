"""Which dimensions of a layer's output are units and which are positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from captum_pse._model.activations import scores_and_activations
from captum_pse._model.axes import UnitAxes
from captum_pse._model.checks import check_int
from captum_pse._model.layers import Layer, find_layer
from captum_pse._model.proportions import by_proportions


class Positions(NamedTuple):
    """How to read the output of a layer as maps ``(N, K, ...)`` of K units.

    Attributes:
        channel_dim (int, optional): The dimension of the units. None: it is found in a
            pass; see :meth:`dimension`.
        grid (tuple[int, ...], optional): The spatial size of tokens in reading order.
            None: each dimension besides the batch and the units is spatial.
        num_prefix_tokens (int): Number of tokens before the grid, such as a class
            token. They are dropped.
    """

    channel_dim: int | None = None
    grid: tuple[int, ...] | None = None
    num_prefix_tokens: int = 0

    @classmethod
    def of(
        cls,
        channel_dim: int | None,
        grid: Sequence[int] | None = None,
        num_prefix_tokens: int = 0,
    ) -> Positions:
        """From the arguments of a method, checked.

        Raises:
            TypeError, ValueError: An argument is not valid.
        """
        num_prefix_tokens = check_int("num_prefix_tokens", num_prefix_tokens, 0)
        if channel_dim is not None:
            channel_dim = check_int("channel_dim", channel_dim)
        if channel_dim == 0:
            raise ValueError("channel_dim: got 0, the batch, want another dimension")
        if grid is None:
            if num_prefix_tokens:
                raise ValueError(
                    f"num_prefix_tokens: got {num_prefix_tokens} without a grid, want "
                    "the grid of the other tokens as well"
                )
            return cls(channel_dim)
        if not isinstance(grid, Sequence) or not grid:
            raise TypeError(f"grid: got {grid!r}, want a sequence of ints")
        sides = tuple(check_int("grid", side, 1) for side in grid)
        return cls(channel_dim, sides, num_prefix_tokens)

    def follow(self) -> AbstractContextManager[UnitAxes | None]:
        """Follows a pass of the model in the block, if :meth:`found` needs it."""
        return UnitAxes() if self.channel_dim is None else nullcontext()

    def dimension(
        self, name: str, output: Tensor, axes: UnitAxes | None, inputs: Sequence[Tensor]
    ) -> int:
        """The dimension of the units in a layer's output.

        A given ``channel_dim`` is taken as it is. Otherwise, it is where the last
        convolution, linear or normalisation layer before the output has its units, if
        the pass could be followed from there; else the dimension of a map whose other
        dimensions have the proportions of the image.

        Args:
            name (str): The layer's name, for messages.
            output (Tensor): The layer's output.
            axes (UnitAxes, optional): The pass that made it, if it was followed.
            inputs (sequence of Tensor): The model's inputs.

        Raises:
            ValueError: The output lacks dimension ``channel_dim``, or that cannot be
                told.
        """
        axis = self.channel_dim
        if axis is None:
            axis = None if axes is None else axes.of(output)
        if axis is None:
            axis = 1 if output.dim() == 2 else by_proportions(output, inputs)
        if axis is None:
            shape = tuple(output.shape)
            raise ValueError(
                f"channel_dim: got None, and {name} returns shape {shape}, in which "
                "the dimension of the units cannot be told; want 1 for (N, K, ...) or "
                "-1 for (N, ..., K)"
            )
        check_channel_dim(axis, name, output)
        return axis

    def found(
        self, name: str, output: Tensor, axes: UnitAxes | None, inputs: Sequence[Tensor]
    ) -> Positions:
        """These, with the dimension of the units in a layer's output; see
        :meth:`dimension`."""
        return self._replace(channel_dim=self.dimension(name, output, axes, inputs))

    def maps(self, values: Tensor, name: str) -> Tensor:
        """A layer's output as ``(N, K, ...)``.

        Args:
            values (Tensor): The output.
            name (str): The layer's name, for messages.

        Raises:
            ValueError: The output lacks dimension ``channel_dim``, or its number of
                positions differs from the grid's.
        """
        assert self.channel_dim is not None, "see found"
        check_channel_dim(self.channel_dim, name, values)
        shape = tuple(values.shape)
        values = values.movedim(self.channel_dim, 1)
        if self.grid is None:
            return values
        tokens = values.flatten(2)
        wanted = self.num_prefix_tokens + math.prod(self.grid)
        if tokens.shape[2] != wanted:
            raise ValueError(
                f"grid: got {self.grid} with {self.num_prefix_tokens} prefix token(s), "
                f"{wanted} positions, but {name} has an output of shape {shape} with "
                f"{tokens.shape[2]}; see channel_dim and num_prefix_tokens"
            )
        return tokens[:, :, self.num_prefix_tokens :].unflatten(2, self.grid)


def channel_dim_of(
    model: nn.Module, layer: Layer, inputs: Tensor, channel_dim: int | None
) -> tuple[int, int]:
    """The dimension of a layer's units, from a pass on the first input, and their
    number.

    Raises:
        TypeError, ValueError: As :meth:`Positions.dimension`, or the model has no such
            layer or does not accept the inputs.
    """
    positions, first = Positions.of(channel_dim), (inputs[:1],)
    with positions.follow() as axes:
        _, (output,) = scores_and_activations(
            model, [find_layer(model, layer)], first, differentiable=False
        )
    found = positions.dimension(f"{layer!r}", output, axes, first)
    return found, output.shape[found]


def check_channel_dim(channel_dim: int, name: str, output: Tensor) -> None:
    """Raises ValueError unless ``channel_dim`` is a dimension of a layer's output other
    than the first one, the batch."""
    channel_dim, n = check_int("channel_dim", channel_dim), output.dim()
    if not -n < channel_dim < n or channel_dim == 0:
        raise ValueError(
            f"channel_dim: got {channel_dim}, but {name} has an output of shape "
            f"{tuple(output.shape)}"
        )
