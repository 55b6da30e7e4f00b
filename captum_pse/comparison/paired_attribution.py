"""Applies any attribution method of Captum to both sides of a pair and both labels."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from captum.attr import Attribution
from torch import Tensor

from captum_pse._model.axes import UnitAxes
from captum_pse._model.checks import check_choice
from captum_pse._model.forward import forward_args
from captum_pse._model.input_channels import (
    check_input_channel_dim,
    input_channels,
)
from captum_pse._model.targets import Label
from captum_pse._model.usage import log_usage
from captum_pse.groups.groups import Groups
from captum_pse.pairs.scored import ScoredPair, Sides, score_pair
from captum_pse.regions.result import (
    CLASS_MAPS,
    DIFFERENCES,
    REGION_COMPONENTS,
    RegionComponent,
    RegionDecomposition,
)


class PairedAttribution(Attribution):
    r"""Promotion and suppression by any attribution method of Captum.

    ``F(x, c)`` is the method's attribution on x for the score of class c. The pair
    ``x0``, ``x' = x0 + delta`` with true label ``t0`` and attack label ``t`` has four
    attributions. As for :class:`captum_pse.AdversarialCAM`,

    .. math::
        \text{promotion} = F(x', t) - F(x_0, t), \qquad
        \text{suppression} = F(x_0, t_0) - F(x', t_0).

    A method that explains the difference to a baseline (``IntegratedGradients``,
    ``DeepLift``, ``Occlusion``) uses the same baseline, ``reference``, for all four
    attributions. In contrast, ``method.attribute(x', baselines=x0)`` explains the
    change from ``x0`` to ``x'``. A method that draws random numbers draws the same ones
    for all four attributions on the CPU. On a GPU, seed it yourself. The method
    explains what its model returns; for other scores, such as centered logits, give it
    a function that returns them.

    Args:
        method (Attribution): Any method that explains the score of a class: a gradient,
            perturbation or layer method, or ``NoiseTunnel`` around one.
        input_channel_dim (int, optional): Dimension of the channels or features in each
            input, for :meth:`captum_pse.RegionDecomposition.on_inputs`; see
            :class:`captum_pse.AdversarialCAM`. Default: None

    Raises:
        TypeError: ``method`` is not an attribution method with a ``target``.
        ValueError: ``input_channel_dim`` is 0.

    Examples::

        >>> from captum.attr import IntegratedGradients
        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = PairedAttribution(IntegratedGradients(load_model()))
        >>> pair = make_pairs(2)
        >>> promotion = method.attribute(*pair, n_steps=10)
        >>> promotion.shape
        torch.Size([2, 3, 64, 64])
        >>> result = method.decompose(*pair, n_steps=10)
        >>> torch.equal(promotion, result.adversarial_attack - result.natural_attack)
        True
    """

    def __init__(
        self, method: Attribution, *, input_channel_dim: int | None = None
    ) -> None:
        if not isinstance(method, Attribution):
            raise TypeError(
                f"method: got {type(method).__name__}, want an attribution object, "
                "such as captum.attr.Saliency(model)"
            )
        parameters = inspect.signature(method.attribute).parameters
        self._takes_all = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        self._parameters = parameters
        if not self._takes("target"):
            raise TypeError(
                f"method: got {type(method).__name__}, which takes no target; want a "
                "method that explains the score of a class"
            )
        super().__init__(method.forward_func)
        self.method = method
        self.input_channel_dim = check_input_channel_dim(input_channel_dim)

    @property
    def multiplies_by_inputs(self) -> bool:
        """As of the wrapped method."""
        return bool(self.method.multiplies_by_inputs)

    def get_name(self) -> str:
        """``"Paired "`` and the name of the wrapped method."""
        return f"Paired {self.method.get_name()}"

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        component: RegionComponent = "promotion",
        reference: Any = None,
        additional_forward_args: Any = None,
        **options: Any,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""One attribution of the pair, or the difference of two.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, shape
                ``(N, ...)``, floating point.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, of the same
                shape, dtype and device; or one natural example, ``(1, ...)``, for all.
            target (int, tuple, list or Tensor, optional): The attack label ``t``, as
                for :meth:`captum_pse.PromotionSuppression.attribute`. Default: None
            true_target (int, tuple, list or Tensor, optional): The true label ``t0``,
                as for :meth:`captum_pse.PromotionSuppression.attribute`. Default: None
            component (str, optional): As for
                :meth:`captum_pse.AdversarialCAM.attribute`. Default: ``"promotion"``
            reference (Tensor, tuple, int or float, optional): The ``baselines`` of the
                wrapped method, for both sides. None means the method's default, which
                is 0 for most methods. Default: None
            additional_forward_args (Any, optional): Passed to the model after the
                inputs. Default: None
            **options: Passed to ``attribute`` of the wrapped method, such as
                ``n_steps``, ``sliding_window_shapes`` or ``feature_mask``.

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                As returned by the method, with the shape of the inputs or of its
                layer.

        Raises:
            TypeError, ValueError: An argument is not valid, ``reference`` is given for
                a method without ``baselines``, or it is None for a method that requires
                them.

        Warns:
            PredictionWarning: The prediction on ``inputs`` is not ``t``, or that on
                ``baselines`` is not ``t0``.
        """
        check_choice("component", component, REGION_COMPONENTS)
        names = DIFFERENCES.get(component, (component,))
        explained = self._explain(
            names, inputs, baselines, target, true_target,
            reference, additional_forward_args, options,
        )  # fmt: skip
        first, *less = (explained.maps[name] for name in names)
        values = first if not less else tuple(map(torch.sub, first, *less))
        return values if explained.is_tuple else values[0]

    def decompose(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        reference: Any = None,
        additional_forward_args: Any = None,
        **options: Any,
    ) -> RegionDecomposition | tuple[RegionDecomposition, ...]:
        """All four attributions with the scores.

        Args and Raises: as :meth:`attribute`.

        Returns:
            :class:`captum_pse.RegionDecomposition`; if the method returns a tuple, a
            tuple with one for each of its elements.

        Examples::

            >>> from captum.attr import Saliency
            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = PairedAttribution(Saliency(load_model()))
            >>> method.decompose(*make_pairs(2))
            RegionDecomposition((2, 3, 64, 64) of 'Saliency')
        """
        explained = self._explain(
            CLASS_MAPS, inputs, baselines, target, true_target,
            reference, additional_forward_args, options,
        )  # fmt: skip
        pair, n_tensors = explained.pair, len(explained.maps[CLASS_MAPS[0]])
        # One attribution for each input, unless they are those of a layer.
        by_input = n_tensors == len(pair.inputs)
        results = []
        for i in range(n_tensors):
            own = slice(i, i + 1) if by_input else slice(None)
            maps = {name: tensors[i] for name, tensors in explained.maps.items()}
            results.append(
                RegionDecomposition(
                    replace(
                        pair,
                        inputs=pair.inputs[own],
                        baselines=pair.baselines[own],
                    ),
                    self.method.get_name(),
                    natural_true=maps["natural_true"],
                    adversarial_true=maps["adversarial_true"],
                    natural_attack=maps["natural_attack"],
                    adversarial_attack=maps["adversarial_attack"],
                    input_channel_dim=input_channels(
                        pair.inputs[own][0],
                        self.input_channel_dim,
                        explained.axes if own.start in (None, 0) else None,
                    ),
                )
            )
        return tuple(results) if explained.is_tuple else results[0]

    @torch.inference_mode(False)
    def _explain(
        self,
        names: Iterable[str],
        inputs: Any,
        baselines: Any,
        target: Label | None,
        true_target: Label | None,
        reference: Any,
        additional_forward_args: Any,
        options: Mapping[str, Any],
    ) -> _Explained:
        """The maps of the given names, a subset of :data:`CLASS_MAPS`."""
        options = self._options(reference, options)
        if additional_forward_args is not None:
            options["additional_forward_args"] = additional_forward_args
        sides = Sides.of(inputs, baselines)
        # Only to check the mask: Captum's own errors about masks are hard to read.
        Groups.of(options.get("feature_mask"), sides.inputs)
        args = forward_args(additional_forward_args)
        with UnitAxes([sides.inputs[0], sides.baselines[0]]) as axes:
            scored = score_pair(self.forward_func, sides, target, true_target, args)
        pair = scored["logit"]
        pair.warn_of_scores()
        maps, is_tuple = {}, False
        states = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        for name in names:
            # The same random numbers for all maps, so that they cancel in differences.
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            side, label = name.split("_")
            maps[name], is_tuple = self._attributions(
                pair.baselines if side == "natural" else pair.inputs,
                pair.labels.true_target if label == "true" else pair.labels.target,
                isinstance(inputs, tuple),
                options,
            )
        return _Explained(pair, maps, is_tuple, axes)

    def _attributions(
        self,
        xs: tuple[Tensor, ...],
        index: Tensor,
        as_tuple: bool,
        options: Mapping[str, Any],
    ) -> tuple[tuple[Tensor, ...], bool]:
        """The method's attributions as a tuple, and whether it returned a tuple."""
        # Copies that require gradients: gradient methods set this on their inputs, and
        # warn if they have to.
        copies = tuple(x.detach().clone().requires_grad_() for x in xs)
        labels = index[:, 0] if index.shape[1] == 1 else [*map(tuple, index.tolist())]
        with torch.enable_grad():
            returned = self.method.attribute(
                copies if as_tuple else copies[0], target=labels, **options
            )
        tensors = returned if isinstance(returned, tuple) else (returned,)
        for x in tensors:
            if not isinstance(x, Tensor) or len(x) != len(xs[0]):
                got = tuple(x.shape) if isinstance(x, Tensor) else type(x)
                raise ValueError(
                    f"method: {self.method.get_name()} returned {got}, want tensors "
                    f"with one attribution for each of {len(xs[0])} examples"
                )
        return tuple(x.detach() for x in tensors), isinstance(returned, tuple)

    def _options(self, reference: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """The method's arguments other than inputs and target."""
        if options.get("return_convergence_delta"):
            raise ValueError(
                "return_convergence_delta: got True, want False; call the wrapped "
                "method for it"
            )
        if reference is not None:
            if not self._takes("baselines"):
                raise ValueError(
                    f"reference: {self.method.get_name()} takes no baselines, want None"
                )
            return {**options, "baselines": reference}
        wanted = self._parameters.get("baselines")
        if wanted is not None and wanted.default is inspect.Parameter.empty:
            raise ValueError(
                f"reference: got None, but {self.method.get_name()} needs baselines; "
                "want the baseline of both sides"
            )
        return dict(options)

    def _takes(self, name: str) -> bool:
        """Whether the method's ``attribute`` has an argument of this name."""
        return name in self._parameters or self._takes_all


class _Explained(NamedTuple):
    pair: ScoredPair
    maps: dict[str, tuple[Tensor, ...]]
    is_tuple: bool
    axes: UnitAxes
