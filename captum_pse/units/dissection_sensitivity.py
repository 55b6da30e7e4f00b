"""Which hidden units an adversarial perturbation works through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import torch
from captum.attr import LayerAttribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._io.distributed import rank_and_size
from captum_pse._model.activations import scores_and_activations
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.layers import Layer, find_layers, layer_names
from captum_pse._model.positions import check_channel_dim
from captum_pse._model.targets import Label
from captum_pse._model.usage import log_usage
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import pass_pair
from captum_pse.units.norms import Norm
from captum_pse.units.result import (
    UnitComponent,
    UnitDecomposition,
    check_unit_component,
)
from captum_pse.units.sensitivity import RunningSensitivity, UnitSensitivity

#: A value for one layer, or a list for several.
Values = TypeVar("Values", Tensor, list[Tensor])
Decompositions = TypeVar("Decompositions", UnitDecomposition, list[UnitDecomposition])
Sensitivities = TypeVar("Sensitivities", UnitSensitivity, list[UnitSensitivity])


class DissectionSensitivity(
    LayerAttribution, Generic[Values, Decompositions, Sensitivities]
):
    r"""How an adversarial perturbation moves the units of a layer.

    With ``A_k(x)`` the activation of unit k, at one or many positions, the change of
    the pair ``x0``, ``x' = x0 + delta`` is ``A_k(x') - A_k(x0)``; its positive part is
    promotion, and that of its negative suppression. The sensitivity of a unit to the
    pair is a norm of the change over the positions. Whether sensitive units are those
    with a meaning is for :func:`captum_pse.relate` to say, beside
    :class:`captum_pse.NetworkDissection`.

    Source: Xu et al., "Interpreting Adversarial Examples by Activation Promotion and
    Suppression", arXiv:1904.02057.

    Args:
        forward_func (Callable): The model, in evaluation mode, or a function around it
            that returns the scores of its classes, ``(N, C)`` or ``(N, C, ...)``.
        layer (nn.Module, str, or a sequence of them): Where to look: any layer whose
            output has a dimension for its units. For several layers, everything is a
            list with an element for each.
        channel_dim (int, optional): That dimension; -1 for transformers' tokens
            ``(N, T, K)``. Default: 1

    Raises:
        TypeError, ValueError: An argument does not fit.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = DissectionSensitivity(load_model(), "features.conv4")
        >>> pair = make_pairs(2)
        >>> change = method.attribute(*pair)
        >>> change.shape
        torch.Size([2, 96, 8, 8])
        >>> promotion = method.attribute(*pair, component="promotion")
        >>> torch.equal(promotion, change.clamp(min=0))
        True
    """

    @overload
    def __init__(
        self: DissectionSensitivity[Tensor, UnitDecomposition, UnitSensitivity],
        forward_func: ForwardFunc,
        layer: Layer,
        *,
        channel_dim: int = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: DissectionSensitivity[
            list[Tensor], list[UnitDecomposition], list[UnitSensitivity]
        ],
        forward_func: ForwardFunc,
        layer: Sequence[Layer],
        *,
        channel_dim: int = ...,
    ) -> None: ...

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        *,
        channel_dim: int = 1,
    ) -> None:
        self._layers, self._several = find_layers(forward_func, layer)
        super().__init__(
            forward_func, self._layers if self._several else self._layers[0]
        )
        self._names = layer_names(forward_func, self._layers)
        if channel_dim == 0:
            raise ValueError("channel_dim: got 0, the batch, want another dimension")
        self.channel_dim = channel_dim

    def get_name(self) -> str:
        """What Captum calls the method."""
        return "DissectionSensitivity"

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        component: UnitComponent = "change",
        additional_forward_args: Any = None,
    ) -> Values:
        r"""The change of the activations, of the layer's shape.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, shape
                ``(N, ...)``, floating point.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, of the same
                shape, dtype and device; or one natural example, ``(1, ...)``, for all.
            target (int, tuple, list or Tensor, optional): The attack label ``t``, as
                for :class:`captum_pse.PromotionSuppression`. The change does not depend
                on labels, but the result records them; predictions may agree.
                Default: None
            true_target (int, tuple, list or Tensor, optional): The true label ``t0``,
                likewise. Default: None
            component (str, optional): ``"change"``, ``"promotion"`` or
                ``"suppression"``. Default: ``"change"``
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs, as everywhere in Captum. Default: None

        Returns:
            *Tensor* or *list[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *list[Tensor]*):
                Of the layer's shape; a list where several layers were asked for.

        Raises:
            TypeError, ValueError: An argument or the layer does not fit; the message
                says what it was and what is wanted.

        Warns:
            PredictionWarning: The model does not say ``t`` on ``inputs``, or ``t0`` on
                ``baselines``.
        """
        check_unit_component(component)
        results = self._decompose(
            inputs, baselines, target, true_target, additional_forward_args
        )
        values = [result.attribution(component) for result in results]
        return cast("Values", values if self._several else values[0])

    def decompose(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        additional_forward_args: Any = None,
    ) -> Decompositions:
        """The activations of both sides, with every component and the scores.

        Args and Raises: as :meth:`attribute`.

        Returns:
            :class:`captum_pse.UnitDecomposition`, or a list of them for several layers.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = DissectionSensitivity(load_model(), "features.conv4")
            >>> result = method.decompose(*make_pairs(2))
            >>> result.sensitivity("linf", relative=True).shape
            torch.Size([2, 96])
        """
        results = self._decompose(
            inputs, baselines, target, true_target, additional_forward_args
        )
        return cast("Decompositions", results if self._several else results[0])

    def unit_sensitivity(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        norm: Norm = "l2",
        relative: bool = False,
        additional_forward_args: Any = None,
    ) -> Values:
        """How much each unit moves in each pair.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, ``(N, ...)``.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, likewise.
            target (int, tuple, list or Tensor, optional): As for :meth:`attribute`.
                Default: None
            true_target (int, tuple, list or Tensor, optional): Likewise. Default: None
            norm (str, optional): See :meth:`captum_pse.UnitDecomposition.sensitivity`.
                Default: ``"l2"``
            relative (bool, optional): Likewise. Default: False
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs. Default: None

        Returns:
            *Tensor* or *list[Tensor]*: ``(N, K)``, in activation units, at least 0 but
            for the norm ``"mean"``; a list for several layers.

        Raises:
            TypeError, ValueError: There is no such norm, or as :meth:`attribute`.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = DissectionSensitivity(load_model(), "features.conv4")
            >>> pair = make_pairs(2)
            >>> moved = method.unit_sensitivity(*pair, norm="linf")
            >>> largest = method.attribute(*pair).abs().amax(dim=(2, 3))
            >>> torch.allclose(moved, largest)
            True
        """
        results = self._decompose(
            inputs, baselines, target, true_target, additional_forward_args
        )
        values = [result.sensitivity(norm, relative=relative) for result in results]
        return cast("Values", values if self._several else values[0])

    @torch.inference_mode(False)
    @torch.no_grad()
    def over(
        self,
        pairs: AdversarialPair,
        *,
        norm: Norm = "l2",
        batch_size: int = 16,
        seed: int = 0,
        device: str | torch.device | None = None,
        show_progress: bool = False,
    ) -> Sensitivities:
        """Means over a set of pairs, and the same under noise, batch by batch.

        Under ``torchrun``, each process of the default group of ``torch.distributed``
        takes its share of the batches, and all return the same.

        Args:
            pairs (AdversarialPair): Any number of pairs.
            norm (str, optional): See :meth:`captum_pse.UnitDecomposition.sensitivity`.
                Default: ``"l2"``
            batch_size (int, optional): How many pairs one pass holds. Default: 16
            seed (int, optional): Of the noise. Default: 0
            device (str or torch.device, optional): Where the pairs go; None leaves them
                where they are. Default: None
            show_progress (bool, optional): Whether to show a progress bar.
                Default: False

        Returns:
            :class:`captum_pse.UnitSensitivity`, or a list of them for several layers.

        Raises:
            TypeError, ValueError: ``batch_size`` is not positive, there is no such
                norm, there are fewer batches than processes, or the model does not take
                the pairs.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = DissectionSensitivity(load_model(), ["features.conv4"])
            >>> (moved,) = method.over(make_pairs(4), batch_size=2)
            >>> moved
            UnitSensitivity(96 units of 'features.conv4', 4 pairs)
            >>> bool((moved.against_control > 1).all())
            True
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, want 1 or more")
        running = [RunningSensitivity(norm, self.channel_dim) for _ in self._layers]
        rank, size = rank_and_size()
        starts = range(0, len(pairs), batch_size)
        if len(starts) < size:
            raise ValueError(
                f"pairs: got {len(starts)} batch(es) for {size} processes, want at "
                "least one each"
            )
        bar = tqdm(
            starts[rank::size],
            "sensitivity",
            unit="batch",
            disable=not show_progress or rank > 0,
        )
        for start in bar:
            batch = pairs.select(range(start, min(start + batch_size, len(pairs))))
            adversarial, natural = self._sides(batch, device)
            # A batch's noise is the same however many processes there are.
            mixed = np.random.SeedSequence([seed, start]).generate_state(1)
            generator = torch.Generator().manual_seed(int(mixed[0]))
            noisy = tuple(
                x0 + (x - x0).abs() * _signs(x, generator)
                for x, x0 in zip(adversarial, natural, strict=True)
            )
            three = tuple(
                torch.cat(sides)
                for sides in zip(natural, adversarial, noisy, strict=True)
            )
            _, activations = scores_and_activations(
                self.forward_func, self._layers, three, differentiable=False
            )
            self._check(activations, len(three[0]))
            for sums, activation in zip(running, activations, strict=True):
                sums.update(*activation.chunk(3))
        results = [
            sums.result(name) for sums, name in zip(running, self._names, strict=True)
        ]
        return cast("Sensitivities", results if self._several else results[0])

    @torch.inference_mode(False)
    def _decompose(
        self,
        inputs: Any,
        baselines: Any,
        target: Label | None,
        true_target: Label | None,
        additional_forward_args: Any,
    ) -> list[UnitDecomposition]:
        done = pass_pair(
            self.forward_func,
            self._layers,
            inputs,
            baselines,
            target,
            true_target,
            additional_forward_args,
            differentiable=False,
            may_agree=True,
        )
        n = len(done.pair)
        self._check(done.activations, 2 * n)
        return [
            UnitDecomposition(
                done.pair,
                name,
                natural=activation.detach()[:n],
                adversarial=activation.detach()[n:],
                channel_dim=self.channel_dim,
            )
            for name, activation in zip(self._names, done.activations, strict=True)
        ]

    def _check(self, activations: Sequence[Tensor], n_examples: int) -> None:
        for name, activation in zip(self._names, activations, strict=True):
            check_channel_dim(self.channel_dim, name, activation)
            if len(activation) != n_examples:
                raise ValueError(
                    f"layer: {name} has an output of shape {tuple(activation.shape)}, "
                    f"want {n_examples} examples in its first dimension"
                )

    def _sides(
        self, pairs: AdversarialPair, device: str | torch.device | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Both sides as tuples, the adversarial first."""
        moved = pairs if device is None else pairs.to(device)
        x, x0, *_ = moved
        return (x, x0) if isinstance(x, tuple) else ((x,), (x0,))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """1 or -1 at random for each feature."""
    signs = torch.randint(0, 2, like.shape, generator=generator) * 2 - 1
    return signs.to(like)
