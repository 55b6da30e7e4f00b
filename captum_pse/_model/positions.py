"""Which dimensions of a layer's output are units and which are positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from captum_pse._model.checks import check_int


class Positions(NamedTuple):
    """How to read the output of a layer as maps ``(N, K, ...)`` of K units.

    Attributes:
        channel_dim (int): The dimension of the units.
        grid (tuple[int, ...], optional): The spatial size of tokens in reading order.
            None: each dimension besides the batch and the units is spatial.
        num_prefix_tokens (int): Number of tokens before the grid, such as a class
            token. They are dropped.
    """

    channel_dim: int = 1
    grid: tuple[int, ...] | None = None
    num_prefix_tokens: int = 0

    @classmethod
    def of(
        cls,
        channel_dim: int,
        grid: Sequence[int] | None = None,
        num_prefix_tokens: int = 0,
    ) -> Positions:
        """From the arguments of a method, checked.

        Raises:
            TypeError, ValueError: An argument is not valid.
        """
        num_prefix_tokens = check_int("num_prefix_tokens", num_prefix_tokens, 0)
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

    def maps(self, values: Tensor, name: str) -> Tensor:
        """A layer's output as ``(N, K, ...)``.

        Args:
            values (Tensor): The output.
            name (str): The layer's name, for messages.

        Raises:
            ValueError: The output lacks dimension ``channel_dim``, or its number of
                positions differs from the grid's.
        """
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


def check_channel_dim(channel_dim: int, name: str, output: Tensor) -> None:
    """Raises ValueError unless ``channel_dim`` is a dimension of a layer's output other
    than the first one, the batch."""
    channel_dim, n = check_int("channel_dim", channel_dim), output.dim()
    if not -n < channel_dim < n or channel_dim == 0:
        raise ValueError(
            f"channel_dim: got {channel_dim}, but {name} has an output of shape "
            f"{tuple(output.shape)}"
        )
