"""Promotion and suppression of image regions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, get_args, overload

import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn

from captum_pse._model.axes import UnitAxes
from captum_pse._model.checks import check_choice
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.input_channels import (
    asked_for,
    check_input_channel_dim,
    input_channels,
)
from captum_pse._model.layers import Layer, find_layers, layer_names
from captum_pse._model.positions import Positions
from captum_pse._model.score import SCORES, Score
from captum_pse._model.targets import Label
from captum_pse._model.usage import log_usage
from captum_pse.pairs.scored import ScoredPair, pass_pair
from captum_pse.regions import class_maps as _class_maps
from captum_pse.regions.result import (
    REGION_COMPONENTS,
    RegionComponent,
    RegionDecomposition,
    interpolate,
)

CAMMethod: TypeAlias = Literal["cam", "gradcam", "gradcam++"]
CAM_METHODS: tuple[str, ...] = get_args(CAMMethod)


#: A map, or one for each of several layers.
Maps = TypeVar("Maps", Tensor, list[Tensor])
#: A result, or one for each of several layers.
Results = TypeVar("Results", RegionDecomposition, list[RegionDecomposition])


class AdversarialCAM(LayerAttribution, Generic[Maps, Results]):
    r"""Promotion and suppression of image regions, by class activation maps.

    ``F(x, c)`` is the class activation map of class c on x at a layer with activations
    ``A`` of K units. The pair ``x0``, ``x' = x0 + delta`` with true label ``t0`` and
    attack label ``t`` has four maps, and

    .. math::
        \text{promotion} = F(x', t) - F(x_0, t), \qquad
        \text{suppression} = F(x_0, t_0) - F(x', t_0).

    ``F = max(sum_k w_k A_k, 0)`` (without the max if ``relu`` is
    False), where ``method`` defines the weights ``w_k``:

    - ``"cam"`` (Zhou et al. 2016): the row of class c of a linear head that follows a
      global average pool of the layer. Needs no gradient.
    - ``"gradcam"`` (Selvaraju et al. 2017): the mean over positions of the gradient of
      the score of c with respect to ``A_k``.
    - ``"gradcam++"`` (Chattopadhay et al. 2018): ``sum_ij alpha_ij max(g_ij, 0)``,
      where g is the gradient of the score of c with respect to ``A_k`` and ``alpha_ij =
      g_ij^2 / (2 g_ij^2 + g_ij^3 sum(A_k))``, with 0/0 = 0. This is equation 19 of the
      paper for a score that is piecewise linear in ``A``, without the factor that all
      units share. Log-probabilities are not piecewise linear: for them it is an
      approximation.

    All four maps take one forward pass over ``x0`` and ``x'`` together, and for the
    gradient methods two gradients at the layer. The model is not modified, and
    gradients are computed in any grad mode and for frozen parameters. Several threads
    can share one model.

    Sources: Xu et al., "Interpreting Adversarial Examples by Activation Promotion and
    Suppression", arXiv:1904.02057; for the maps, Zhou et al., "Learning Deep Features
    for Discriminative Localization", CVPR 2016; Selvaraju et al., "Grad-CAM", ICCV
    2017; Chattopadhay et al., "Grad-CAM++", WACV 2018.

    Args:
        forward_func (Callable): The model, in evaluation mode, or a function around it
            that returns the scores of its classes, ``(N, C)`` or ``(N, C, ...)``.
        layer (nn.Module, str, or a sequence of them): A layer with output ``(N, K,
            ...)`` of one to three spatial dimensions, or with tokens. For a sequence of
            layers, methods return a list with one element for each.
        method (str, optional): ``"cam"``, ``"gradcam"`` or ``"gradcam++"``.
            Default: ``"gradcam"``
        relu (bool, optional): Whether negative values of maps are set to 0, as in the
            papers. Default: True
        interpolate (bool, optional): Whether maps are interpolated (bi)linearly to the
            positions of the (first) input: ``(N, 1, H, W)`` for images, ``(N, T, 1)``
            for embeddings ``(N, T, F)``. Otherwise they have the size of the layer.
            Default: True
        channel_dim (int, optional): The dimension of the units in the layer's output: 1
            for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None
        grid (sequence of int, optional): Spatial size of an output whose positions are
            tokens in reading order: ``(14, 14)`` for a vision transformer with 196
            patches. None means that the other dimensions are spatial. Default: None
        num_prefix_tokens (int, optional): Number of tokens before the grid that are not
            part of it: 1 for a class token. Default: 0
        input_channel_dim (int, optional): Dimension of the channels or features in the
            (first) input: 1 for ``(N, C, ...)``, -1 for ``(N, ..., F)``. The other
            dimensions are the positions onto which maps are interpolated. None means
            the dimension that the model's first layers take as channels; if that cannot
            be told, 1, but for inputs ``(N, A, B)``, for which an error asks for it.
            Default: None
        head (nn.Linear, optional): The linear head for ``"cam"``. None means the
            model's last linear layer with K inputs. Default: None
        score (str, optional): The score of a class: ``"logit"``, ``"centered"`` or
            ``"log_softmax"``; see :class:`captum_pse.PromotionSuppression`. For
            ``"cam"`` of the last two, ``w_k`` is the gradient of the score with respect
            to the pool of ``A_k``: for ``"centered"``, the row of c minus the mean row.
            Default: ``"logit"``

    Raises:
        TypeError, ValueError: An argument is not valid.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> model = load_model()
        >>> method = AdversarialCAM(model, "features.conv5")
        >>> pair = make_pairs(2)
        >>> suppression = method.attribute(*pair, component="suppression")
        >>> suppression.shape
        torch.Size([2, 1, 64, 64])
        >>> before = method.attribute(*pair, component="natural_true")
        >>> after = method.attribute(*pair, component="adversarial_true")
        >>> torch.equal(suppression, before - after)
        True
    """

    @overload
    def __init__(
        self: AdversarialCAM[Tensor, RegionDecomposition],
        forward_func: ForwardFunc,
        layer: Layer,
        method: CAMMethod = ...,
        *,
        relu: bool = ...,
        interpolate: bool = ...,
        channel_dim: int | None = ...,
        grid: Sequence[int] | None = ...,
        num_prefix_tokens: int = ...,
        input_channel_dim: int | None = ...,
        head: nn.Linear | None = ...,
        score: Score = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: AdversarialCAM[list[Tensor], list[RegionDecomposition]],
        forward_func: ForwardFunc,
        layer: Sequence[Layer],
        method: CAMMethod = ...,
        *,
        relu: bool = ...,
        interpolate: bool = ...,
        channel_dim: int | None = ...,
        grid: Sequence[int] | None = ...,
        num_prefix_tokens: int = ...,
        input_channel_dim: int | None = ...,
        head: nn.Linear | None = ...,
        score: Score = ...,
    ) -> None: ...

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        method: CAMMethod = "gradcam",
        *,
        relu: bool = True,
        interpolate: bool = True,
        channel_dim: int | None = None,
        grid: Sequence[int] | None = None,
        num_prefix_tokens: int = 0,
        input_channel_dim: int | None = None,
        head: nn.Linear | None = None,
        score: Score = "logit",
    ) -> None:
        check_choice("method", method, CAM_METHODS)
        check_choice("score", score, SCORES)
        self._layers, self._several = find_layers(forward_func, layer)
        super().__init__(
            forward_func, self._layers if self._several else self._layers[0]
        )
        self._names = layer_names(forward_func, self._layers)
        self.method = method
        self.relu = relu
        self.interpolate_maps = interpolate
        self.positions = Positions.of(channel_dim, grid, num_prefix_tokens)
        self.input_channel_dim = check_input_channel_dim(input_channel_dim)
        self.head = head
        self.score: Score = score

    def get_name(self) -> str:
        """The method's name in Captum."""
        return "AdversarialCAM"

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        component: RegionComponent = "promotion",
        additional_forward_args: Any = None,
    ) -> Maps:
        r"""One map of the pair, or the difference of two.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, shape
                ``(N, ...)``, floating point.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, of the same
                shape, dtype and device; or one natural example, ``(1, ...)``, for all.
            target (int, tuple, list or Tensor, optional): The attack label ``t``, as
                for :meth:`captum_pse.PromotionSuppression.attribute`. Default: None
            true_target (int, tuple, list or Tensor, optional): The true label ``t0``,
                as for :meth:`captum_pse.PromotionSuppression.attribute`. Default: None
            component (str, optional): ``"promotion"``, ``"suppression"``,
                ``"natural_true"`` (F(x0, t0)), ``"adversarial_true"`` (F(x', t0)),
                ``"natural_attack"`` (F(x0, t)) or ``"adversarial_attack"`` (F(x', t)).
                Default: ``"promotion"``
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs, as everywhere in Captum. Default: None

        Returns:
            *Tensor* or *list[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *list[Tensor]*):
                In score units, ``(N, 1, ...)``, with 1 at the dimension of the channels
                if interpolated; a list for a sequence of layers.

        Raises:
            TypeError, ValueError: An argument or the layer is not valid; the message
                states its value and the valid ones.

        Warns:
            PredictionWarning: The prediction on ``inputs`` is not ``t``, or that on
                ``baselines`` is not ``t0``.
            ProbabilityWarning: The model returns probabilities instead of logits.
            SaturationWarning: The log-probability of ``t`` on ``inputs`` is near 0.
        """
        check_choice("component", component, REGION_COMPONENTS)
        results = self._decompose(
            inputs, baselines, target, true_target, additional_forward_args
        )
        maps = [result.attribution(component) for result in results]
        return cast("Maps", maps if self._several else maps[0])

    def decompose(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        additional_forward_args: Any = None,
    ) -> Results:
        """All maps with the scores.

        Args and Raises: as :meth:`attribute`.

        Returns:
            :class:`captum_pse.RegionDecomposition`, or a list of them for a sequence of
            layers.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = AdversarialCAM(load_model(), "features.conv5", "cam")
            >>> result = method.decompose(*make_pairs(2))
            >>> result
            RegionDecomposition((2, 1, 64, 64) of 'features.conv5')
            >>> sorted(result.summary()[0])[-3:]
            ['suppression_is_rank', 'true_label', 'true_score_loss']
        """
        results = self._decompose(
            inputs, baselines, target, true_target, additional_forward_args
        )
        return cast("Results", results if self._several else results[0])

    @torch.inference_mode(False)
    def _decompose(
        self,
        inputs: Any,
        baselines: Any,
        target: Label | None,
        true_target: Label | None,
        additional_forward_args: Any,
    ) -> list[RegionDecomposition]:
        with self._follow(inputs, baselines) as axes:
            done = pass_pair(
                self.forward_func,
                self._layers,
                inputs,
                baselines,
                target,
                true_target,
                additional_forward_args,
                self.score,
                differentiable=self.method != "cam",
            )
        x, n, pair = done.pair.inputs[0], len(done.pair), done.pair
        pair.warn_of_scores()
        channels = input_channels(x, self.input_channel_dim, axes)
        layers = [
            (activation, self._positions(name, activation, axes, pair.inputs))
            for name, activation in zip(self._names, done.activations, strict=True)
        ]
        if self.method == "cam":
            raw = [
                self._cam(done.scores, positions.maps(a, "the layer"), pair)
                for a, positions in layers
            ]
        else:
            raw = self._by_gradients(done.scores, layers, pair)
        results = []
        for name, (of_attack, of_true) in zip(self._names, raw, strict=True):
            natural_true, adversarial_true, natural_attack, adversarial_attack = (
                self._finish(m, x, channels)
                for m in (of_true[:n], of_true[n:], of_attack[:n], of_attack[n:])
            )
            results.append(
                RegionDecomposition(
                    pair,
                    name,
                    natural_true,
                    adversarial_true,
                    natural_attack,
                    adversarial_attack,
                    channels,
                )
            )
        return results

    def _by_gradients(
        self,
        scores: Tensor,
        layers: Sequence[tuple[Tensor, Positions]],
        pair: ScoredPair,
    ) -> list[tuple[Tensor, Tensor]]:
        """The maps of t and of t0 at each layer, each for ``x0`` and then ``x'``."""
        make = _class_maps.GRADIENT_MAPS[self.method]
        activations = [activation for activation, _ in layers]
        try:
            gradients = _gradients(scores, activations, pair)
        except RuntimeError as error:
            raise ValueError(
                f"layer: the scores cannot be differentiated by {self._names} ({error})"
            ) from error
        of_attack, of_true = (
            [
                make(p.maps(a.detach(), "the layer"), p.maps(g, "the layer"))
                for (a, p), g in zip(layers, side, strict=True)
            ]
            for side in gradients
        )
        return list(zip(of_attack, of_true, strict=True))

    def _cam(
        self, scores: Tensor, activation: Tensor, pair: ScoredPair
    ) -> tuple[Tensor, Tensor]:
        """The maps of t and of t0, each for ``x0`` and then ``x'``."""
        head = self._find_head(activation.shape[1])
        with torch.no_grad():
            pooled = head(activation.flatten(2).mean(dim=2))
            same = pooled.shape == scores.shape
            found, wanted = (pair.kind.of(x) for x in (pooled, scores))
        tolerance = 1e-3 * float(wanted.abs().max())
        if not same or (found - wanted).abs().max() > tolerance:
            raise ValueError(
                "head: the scores are not those of the layer's global average pool and "
                f"this head, {head}; want a model that ends this way, or another method"
            )
        # With respect to the logits of all classes. The gradient of a logit is 1 for
        # its class and 0 for the others, which gives its row of the weight.
        gradients = _gradients(pooled.requires_grad_(), [pooled], pair)
        weight = head.weight.detach()
        of_attack, of_true = (
            _class_maps.cam(activation, of_logits @ weight)
            for (of_logits,) in gradients
        )
        return of_attack, of_true

    def _find_head(self, n_units: int) -> nn.Linear:
        if self.head is not None:
            if self.head.in_features != n_units:
                raise ValueError(
                    f"head: got {self.head}, want {n_units} inputs, one for each unit "
                    "of the layer"
                )
            return self.head
        modules = (
            self.forward_func.modules()
            if isinstance(self.forward_func, nn.Module)
            else ()
        )
        fitting = [
            m for m in modules if isinstance(m, nn.Linear) and m.in_features == n_units
        ]
        if not fitting:
            raise ValueError(
                f"head: the model has no linear layer with {n_units} inputs; want the "
                "head, or another method than cam"
            )
        return fitting[-1]

    def _follow(
        self, inputs: Any, baselines: Any
    ) -> AbstractContextManager[UnitAxes | None]:
        """Follows a pass, unless all axes are given."""
        if None not in (self.positions.channel_dim, self.input_channel_dim):
            return nullcontext()
        return UnitAxes([_first(inputs), _first(baselines)])

    def _positions(
        self,
        name: str,
        values: Tensor,
        axes: UnitAxes | None,
        inputs: Sequence[Tensor],
    ) -> Positions:
        """How to read a layer's output as maps ``(N, K, ...)``."""
        if values.dim() not in (3, 4, 5):
            raise ValueError(
                f"layer: got an output of shape {tuple(values.shape)}, want "
                "(N, K, ...) with one to three spatial dimensions"
            )
        return self.positions.found(name, values, axes, inputs)

    def _finish(self, maps: Tensor, x: Tensor, channels: int | None) -> Tensor:
        """Applies ReLU and interpolation, as chosen."""
        if self.relu:
            maps = maps.clamp(min=0)
        if not self.interpolate_maps:
            return maps
        if maps.dim() != x.dim():
            raise ValueError(
                f"layer: got maps of shape {tuple(maps.shape)}, which cannot be "
                f"interpolated to inputs of shape {tuple(x.shape)}; see interpolate "
                "and grid"
            )
        if channels is None:
            raise asked_for(x)
        return interpolate(maps, x, channels)


def _first(side: Any) -> Any:
    """The first input of a side of a pair, which is not checked yet."""
    return side[0] if isinstance(side, tuple) and side else side


def _gradients(
    scores: Tensor, of: Sequence[Tensor], pair: ScoredPair
) -> list[tuple[Tensor, ...]]:
    """The gradients of the scores of t and of t0 with respect to each of ``of``.

    Args:
        scores (Tensor): What the model returns, ``(2 N, C, ...)``.
        of (sequence of Tensor): Tensors ``(2 N, ...)`` that the scores depend on.
        pair (ScoredPair): The pair.
    """
    both_sides = torch.arange(len(pair)).repeat(2)
    with torch.enable_grad():
        # Examples are independent, so the gradient of the sum of their scores is the
        # gradient of each example's own score.
        of_labels = pair.select(scores, both_sides).sum(dim=0).unbind()
    return [
        torch.autograd.grad(score, of, retain_graph=keep)
        for score, keep in zip(of_labels, (True, False), strict=True)
    ]
