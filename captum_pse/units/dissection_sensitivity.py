"""DissectionSensitivity: the hidden units that an adversarial perturbation changes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import torch
from captum.attr import LayerAttribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._io.distributed import rank_and_size
from captum_pse._model.activations import scores_and_activations
from captum_pse._model.axes import UnitAxes
from captum_pse._model.checks import check_choice, check_int
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.layers import Layer, find_layers, layer_names
from captum_pse._model.positions import Positions
from captum_pse._model.score import SCORES, Score
from captum_pse._model.targets import Label
from captum_pse._model.usage import log_usage
from captum_pse.pairs.pair import AdversarialPair
from captum_pse.pairs.scored import pass_pair
from captum_pse.units.norms import Norm
from captum_pse.units.result import (
    UNIT_COMPONENTS,
    UnitComponent,
    UnitDecomposition,
)
from captum_pse.units.sensitivity import RunningSensitivity, UnitSensitivity

#: One value for one layer, or a list for several layers.
Values = TypeVar("Values", Tensor, list[Tensor])
Decompositions = TypeVar("Decompositions", UnitDecomposition, list[UnitDecomposition])
Sensitivities = TypeVar("Sensitivities", UnitSensitivity, list[UnitSensitivity])


class DissectionSensitivity(
    LayerAttribution, Generic[Values, Decompositions, Sensitivities]
):
    r"""Measures how an adversarial perturbation changes the units of a layer.

    Let ``A_k(x)`` be the activation of unit k, at one or many positions. For a pair
    ``x0``, ``x' = x0 + delta``, the change of the unit is ``A_k(x') - A_k(x0)``,
    promotion is ``max(A_k(x') - A_k(x0), 0)`` and suppression is
    ``max(A_k(x0) - A_k(x'), 0)``. The sensitivity of the unit to the pair is a norm of
    the change over the positions. :func:`captum_pse.relate` tests whether sensitive
    units are the interpretable ones found by :class:`captum_pse.NetworkDissection`.

    Source: Xu et al., "Interpreting Adversarial Examples by Activation Promotion and
    Suppression", arXiv:1904.02057.

    Args:
        forward_func (Callable): The model in evaluation mode, or a function that calls
            it and returns class scores, ``(N, C)`` or ``(N, C, ...)``.
        layer (nn.Module, str, or a sequence of them): The layer, or its name. Its
            output must have a dimension of units. For a sequence of layers, methods
            return a list with one element for each layer.
        channel_dim (int, optional): The dimension of the units in the layer's output: 1
            for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None
        score (str, optional): The scores that results record with the labels, as for
            :class:`captum_pse.PromotionSuppression`. The change of the units does not
            depend on them. Default: ``"logit"``

    Raises:
        TypeError, ValueError: An argument has the wrong type or value.

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
        channel_dim: int | None = ...,
        score: Score = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: DissectionSensitivity[
            list[Tensor], list[UnitDecomposition], list[UnitSensitivity]
        ],
        forward_func: ForwardFunc,
        layer: Sequence[Layer],
        *,
        channel_dim: int | None = ...,
        score: Score = ...,
    ) -> None: ...

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        *,
        channel_dim: int | None = None,
        score: Score = "logit",
    ) -> None:
        check_choice("score", score, SCORES)
        self._layers, self._several = find_layers(forward_func, layer)
        super().__init__(
            forward_func, self._layers if self._several else self._layers[0]
        )
        self._names = layer_names(forward_func, self._layers)
        self.positions = Positions.of(channel_dim)
        self.score: Score = score

    def get_name(self) -> str:
        """The method's name in Captum."""
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
        r"""The change of the activations, in the shape of the layer's output.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, shape
                ``(N, ...)``, floating point.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, in the same
                shape, dtype and device; or one natural example, ``(1, ...)``, for all.
            target (int, tuple, list or Tensor, optional): The attack label ``t``, in
                the formats of :class:`captum_pse.PromotionSuppression`; None means the
                prediction on ``inputs``. The change does not depend on the labels; the
                result records them. Default: None
            true_target (int, tuple, list or Tensor, optional): The true label ``t0``;
                None means the prediction on ``baselines``. If both labels are None,
                the two predictions may be equal. Default: None
            component (str, optional): ``"change"``, ``"promotion"`` or
                ``"suppression"``. Default: ``"change"``
            additional_forward_args (Any, optional): Arguments that ``forward_func``
                takes after the inputs, as in Captum. Default: None

        Returns:
            *Tensor* or *list[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *list[Tensor]*):
                In the shape of the layer's output; a list for several layers.

        Raises:
            TypeError, ValueError: An argument or the layer's output has the wrong type
                or value. The message states what came and what is wanted.

        Warns:
            PredictionWarning: The model does not predict ``t`` on ``inputs``, or ``t0``
                on ``baselines``.
        """
        check_choice("component", component, UNIT_COMPONENTS)
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
        """The activations on both sides, with every component and the scores.

        Args and Raises: as for :meth:`attribute`.

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
        """The norm of each unit's change in each pair.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, ``(N, ...)``.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, ``(N, ...)``
                or ``(1, ...)``.
            target (int, tuple, list or Tensor, optional): As for :meth:`attribute`.
                Default: None
            true_target (int, tuple, list or Tensor, optional): As for
                :meth:`attribute`. Default: None
            norm (str, optional): See :meth:`captum_pse.UnitDecomposition.sensitivity`.
                Default: ``"l2"``
            relative (bool, optional): Whether to divide by the unit's scale, which
                counts as at least a tenth of the layer's mean; see
                :meth:`captum_pse.UnitDecomposition.sensitivity`. Default: False
            additional_forward_args (Any, optional): As for :meth:`attribute`.
                Default: None

        Returns:
            *Tensor* or *list[Tensor]*: ``(N, K)``, in activation units, or without unit
            if relative; at least 0, except for the norm ``"mean"``; a list for several
            layers.

        Raises:
            TypeError, ValueError: There is no such norm, or as for :meth:`attribute`.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = DissectionSensitivity(load_model(), "features.conv4")
            >>> pair = make_pairs(2)
            >>> sensitivity = method.unit_sensitivity(*pair, norm="linf")
            >>> largest = method.attribute(*pair).abs().amax(dim=(2, 3))
            >>> torch.allclose(sensitivity, largest)
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
        """Mean sensitivity over a set of pairs, under the attack and under noise.

        The pairs are processed in batches. Under ``torchrun``, the batches are
        distributed over the processes of the default group of ``torch.distributed``,
        and all processes return the same result.

        Args:
            pairs (AdversarialPair): Any number of pairs.
            norm (str, optional): See :meth:`captum_pse.UnitDecomposition.sensitivity`.
                Default: ``"l2"``
            batch_size (int, optional): Number of pairs in one pass. Default: 16
            seed (int, optional): Seed of the noise. Default: 0
            device (str or torch.device, optional): Device to which each batch is moved;
                None leaves the pairs on their device. Default: None
            show_progress (bool, optional): Whether to show a progress bar.
                Default: False

        Returns:
            :class:`captum_pse.UnitSensitivity`, or a list of them for several layers.

        Raises:
            TypeError, ValueError: ``batch_size`` is not positive, there is no such
                norm, there are fewer batches than processes, or the model does not
                accept the pairs.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = DissectionSensitivity(load_model(), ["features.conv4"])
            >>> (sensitivity,) = method.over(make_pairs(4), batch_size=2)
            >>> sensitivity
            UnitSensitivity(96 units of 'features.conv4', 4 pairs)
            >>> bool((sensitivity.against_control > 1).all())
            True
        """
        batch_size = check_int("batch_size", batch_size, 1)
        seed = check_int("seed", seed, 0)
        running: list[RunningSensitivity] = []
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
            adversarial, natural = _sides(batch, device)
            # The noise of a batch does not depend on the number of processes.
            batch_seed = np.random.SeedSequence([seed, start]).generate_state(1)
            generator = torch.Generator().manual_seed(int(batch_seed[0]))
            noisy = tuple(
                x0 + (x - x0).abs() * _signs(x, generator)
                for x, x0 in zip(adversarial, natural, strict=True)
            )
            inputs = tuple(
                torch.cat(sides)
                for sides in zip(natural, adversarial, noisy, strict=True)
            )
            with nullcontext() if running else self.positions.follow() as axes:
                _, activations = scores_and_activations(
                    self.forward_func, self._layers, inputs, differentiable=False
                )
            self._check(activations, len(inputs[0]))
            if not running:
                dims = self._channel_dims(activations, axes, inputs)
                running = [RunningSensitivity(norm, dim) for dim in dims]
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
        with self.positions.follow() as axes:
            passed = pass_pair(
                self.forward_func,
                self._layers,
                inputs,
                baselines,
                target,
                true_target,
                additional_forward_args,
                self.score,
                differentiable=False,
                may_agree=True,
            )
        n = len(passed.pair)
        self._check(passed.activations, 2 * n)
        dims = self._channel_dims(passed.activations, axes, passed.pair.inputs)
        return [
            UnitDecomposition(
                passed.pair,
                name,
                natural=activation.detach()[:n],
                adversarial=activation.detach()[n:],
                channel_dim=dim,
            )
            for name, activation, dim in zip(
                self._names, passed.activations, dims, strict=True
            )
        ]

    def _channel_dims(
        self,
        activations: Sequence[Tensor],
        axes: UnitAxes | None,
        inputs: Sequence[Tensor],
    ) -> list[int]:
        return [
            self.positions.dimension(name, activation, axes, inputs)
            for name, activation in zip(self._names, activations, strict=True)
        ]

    def _check(self, activations: Sequence[Tensor], n_examples: int) -> None:
        for name, activation in zip(self._names, activations, strict=True):
            if len(activation) != n_examples:
                raise ValueError(
                    f"layer: {name} has an output of shape {tuple(activation.shape)}, "
                    f"want {n_examples} examples in its first dimension"
                )


def _sides(
    pairs: AdversarialPair, device: str | torch.device | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The adversarial and the natural inputs as tuples, on the device."""
    x, x0, *_ = pairs if device is None else pairs.to(device)
    return (x, x0) if isinstance(x, tuple) else ((x,), (x0,))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random sign, 1 or -1, for each feature."""
    signs = torch.randint(0, 2, like.shape, generator=generator) * 2 - 1
    return signs.to(like)
