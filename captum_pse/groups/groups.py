"""The groups of features that a Captum feature mask defines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_pse._io.saved import number, numbered
from captum_pse._model.checks import check_integers
from captum_pse.groups.masks import default_feature_mask


@dataclass(frozen=True)
class Groups:
    """The groups that a tuple of feature masks defines, numbered from 0.

    Attributes:
        ids (Tensor): int64 ``(n_groups,)``: the id of each group in the masks,
            ascending.
        index (tuple[Tensor, ...]): One int64 tensor for each input, with as many
            dimensions as the input and broadcastable to it: the number of each
            feature's group, 0 to ``n_groups - 1``, or -1 for no group.
    """

    ids: Tensor
    index: tuple[Tensor, ...]

    @classmethod
    def of(
        cls,
        feature_mask: Tensor | tuple[Tensor, ...] | None,
        inputs: tuple[Tensor, ...],
    ) -> Groups:
        """The groups of Captum's ``feature_mask`` on ``inputs``.

        Features with the same id form one group, also across inputs. A feature with a
        negative id is in no group.

        Raises:
            TypeError: A mask is not a tensor of integers.
            ValueError: The number of masks is not the number of inputs, a mask does not
                broadcast to its input, int64 does not hold an id, or no feature is in
                any group.
        """
        if feature_mask is None:
            feature_mask = default_feature_mask(inputs)
        masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
        if len(masks) != len(inputs):
            raise ValueError(
                f"feature_mask: got {len(masks)} mask(s), want one for each of the "
                f"{len(inputs)} inputs"
            )
        masks = tuple(_checked(mask, x) for mask, x in zip(masks, inputs, strict=True))
        ids = torch.unique(torch.cat([mask.flatten() for mask in masks]))
        ids = ids[ids >= 0]
        if len(ids) == 0:
            raise ValueError(
                "feature_mask: got only negative ids, so no feature is in a group; "
                "want at least one id of 0 or more"
            )
        index = tuple(
            torch.where(mask < 0, -1, torch.searchsorted(ids, mask)) for mask in masks
        )
        return cls(ids, index)

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Groups:
        """The inverse of :meth:`tensors`."""
        return cls(tensors["groups.ids"], numbered(tensors, "groups.index"))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a saved result."""
        return {"groups.ids": self.ids, **number("groups.index", self.index)}

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, chosen: Tensor) -> Groups:
        """The same groups without the features of those that are not chosen, bool
        ``(n_groups,)``."""
        slots = torch.cat([chosen, chosen.new_zeros(1)])
        return Groups(self.ids, tuple(torch.where(slots[i], i, -1) for i in self.index))

    def within(self) -> Tensor:
        """bool ``(n_groups, inputs)``: whether a feature of an input is in a group."""
        found = self.ids.new_zeros(len(self) + 1, len(self.index), dtype=torch.bool)
        for i, index in enumerate(self.index):
            found[index.flatten().to(found.device), i] = True
        return found[:-1]

    def sizes(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """How many features each group has in each example, int64 ``(N, n_groups)``."""
        n = len(inputs[0])
        counts = self.ids.new_zeros(n, len(self) + 1)
        for index, x in zip(self.index, inputs, strict=True):
            slots = self._slots(index, n)
            repeats = x[0].numel() // max(index[0].numel(), 1)
            counts.scatter_add_(1, slots, torch.full_like(slots, repeats))
        return counts[:, : len(self)]

    def spread(self, values: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gives every feature the value of its group.

        Args:
            values (Tensor): Shape ``(N, n_groups)``.
            inputs (tuple[Tensor, ...]): The inputs. Only their shapes are used.

        Returns:
            *tuple[Tensor, ...]*: Tensors of the inputs' shapes and the values' dtype; 0
            for features in no group.
        """
        # Not by pad, which takes no bool values.
        padded = torch.cat([values, values.new_zeros(len(values), 1)], dim=1)
        return tuple(
            padded.gather(1, self._slots(index, len(x)))
            .reshape(len(x), *index.shape[1:])
            .expand(x.shape)
            .contiguous()
            for index, x in zip(self.index, inputs, strict=True)
        )

    def means(self, values: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        """The mean of ``values`` over each group's features; see :meth:`sums`."""
        return self.sums(values, inputs) / self.sizes(inputs).clamp(min=1)

    def sums(self, values: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        """The sum of ``values`` over each group's features.

        Args:
            values (tuple[Tensor, ...]): Tensors of the inputs' shapes.
            inputs (tuple[Tensor, ...]): The inputs. Only their shapes are used.

        Returns:
            *Tensor*: ``(N, n_groups)``, in at least single precision; 0 for a group
            that an example lacks.
        """
        n = len(inputs[0])
        exact = torch.promote_types(values[0].dtype, torch.float32)
        sums = torch.zeros(n, len(self) + 1, dtype=exact, device=inputs[0].device)
        for index, x, value in zip(self.index, inputs, values, strict=True):
            slots = self._slots(index.expand(len(index), *x.shape[1:]), n)
            sums.scatter_add_(1, slots, value.to(exact).reshape(slots.shape))
        return sums[:, : len(self)]

    def _slots(self, index: Tensor, n: int) -> Tensor:
        """``index`` flattened, for n examples; no group becomes slot ``n_groups``."""
        flat = index.reshape(len(index), index[0].numel())
        return torch.where(flat < 0, len(self), flat).expand(n, -1)


def fits(values: Tensor, x: Tensor) -> bool:
    """Whether ``values`` has as many dimensions as ``x`` and broadcasts to it."""
    return values.dim() == x.dim() and all(
        v in (1, n) for v, n in zip(values.shape, x.shape, strict=True)
    )


def _checked(mask: Tensor, x: Tensor) -> Tensor:
    """The mask as int64, on the device and with the number of dimensions of ``x``."""
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"feature_mask: got {type(mask).__name__}, want a tensor of integers"
        )
    mask = check_integers("feature_mask", mask).to(x.device).contiguous()
    mask = mask.reshape((1,) * (x.dim() - mask.dim()) + tuple(mask.shape))
    if not fits(mask, x):
        raise ValueError(
            f"feature_mask: got shape {tuple(mask.shape)}, want one that broadcasts to "
            f"the input's {tuple(x.shape)}"
        )
    return mask
