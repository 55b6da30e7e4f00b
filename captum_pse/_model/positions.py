"""Where the units and the positions of a layer's output are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from captum_pse._model.checks import check_int


class Positions(NamedTuple):
    """How the output of a layer is read as maps ``(N, K, ...)`` of K units.

    Attributes:
        channel_dim (int): The dimension that counts the units.
        grid (tuple[int, ...], optional): The spatial size of the positions, which the
            other dimensions hold in reading order; None: each of them is spatial.
        num_prefix_tokens (int): How many positions before the grid are not part of it,
            such as a class token.
    """

    channel_dim: int = 1
    grid: tuple[int, ...] | None = None
    num_prefix_tokens: int = 0

    @classmethod
    def of(
        cls, channel_dim: int, grid: Sequence[int] | None, num_prefix_tokens: int
    ) -> Positions:
        """As three arguments of a method say it, checked.

        Raises:
            TypeError, ValueError: One of them does not fit.
        """
        check_int("num_prefix_tokens", num_prefix_tokens, 0)
        if channel_dim == 0:
            raise ValueError("channel_dim: got 0, the batch, want another dimension")
        if grid is None:
            if num_prefix_tokens:
                raise ValueError(
                    f"num_prefix_tokens: got {num_prefix_tokens} without a grid, want "
                    "the grid of the other tokens, too"
                )
            return cls(channel_dim)
        for side in grid:
            check_int("grid", side, 1)
        return cls(channel_dim, tuple(grid), num_prefix_tokens)

    def maps(self, values: Tensor, name: str) -> Tensor:
        """A layer's output as ``(N, K, ...)``.

        Args:
            values (Tensor): The output.
            name (str): The layer's name, for messages.

        Raises:
            ValueError: It does not have that dimension, or as many positions.
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
    """Raises ValueError unless that dimension can count the units of a layer's output,
    and is not the first one, the batch."""
    n = output.dim()
    if not -n < channel_dim < n or channel_dim == 0:
        raise ValueError(
            f"channel_dim: got {channel_dim}, but {name} has an output of shape "
            f"{tuple(output.shape)}"
        )
