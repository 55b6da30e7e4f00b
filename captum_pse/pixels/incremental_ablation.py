"""Captum's feature ablation, several times faster on networks of convolutions."""

from __future__ import annotations

from typing import Any

import torch
from captum._utils.common import (
    _format_baseline,
    _format_feature_mask,
    _format_tensor_into_tuples,
)
from captum.attr import FeatureAblation, PerturbationAttribution
from torch import Tensor

from captum_pse._engine.ablation import Ablation
from captum_pse._engine.batches import MEMORY_LIMIT
from captum_pse._engine.choice import Engine, ablated_scores, check_engine
from captum_pse._model.checks import Tensors, check_positive_int
from captum_pse._model.forward import (
    ForwardFunc,
    forward_args,
    require_eval_batch_norm,
)
from captum_pse._model.targets import Label, check_index, label_index, select_scores
from captum_pse._model.usage import log_usage
from captum_pse.groups.groups import Groups


class IncrementalAblation(PerturbationAttribution):
    r"""The numbers of :class:`captum.attr.FeatureAblation`, in less time.

    The attribution of every feature of group ``G_i`` is what the score loses when the
    group alone is replaced by its baseline,

    .. math::
        a_i = Z(x)_c - Z(x_{\setminus i})_c .

    On an image, that changes a window of each early map of a convolutional network; the
    rest of the map is that of ``x`` and is computed once. The numbers are those of full
    passes up to rounding, whatever the groups are. Groups should be of image regions
    for it to save work; what saves none takes full passes.

    Torch.fx traces the model at every call. It replaces ``torch.nn.Module.__call__``
    meanwhile, so no other thread should run a model then.

    Args:
        forward_func (Callable): The model. A function, or a model that torch.fx cannot
            trace, works as well, with full passes.
        engine (str, optional): ``"auto"`` takes windows where they save work,
            ``"incremental"`` wherever they can be used, ``"dense"`` never. Default:
            ``"auto"``
        memory_limit (int, optional): Bytes that a pass may take beside the model, by
            estimate, where ``perturbations_per_eval`` is None. Default: 1 GiB

    Raises:
        ValueError: There is no such engine, or ``memory_limit`` is not positive.

    Examples::

        >>> from captum_pse import grid_mask
        >>> from captum_pse.demo import load_model, make_pairs
        >>> ablation = IncrementalAblation(load_model())
        >>> x, x0, attack_label, _ = make_pairs(2)
        >>> mask = grid_mask((64, 64), cell=8)
        >>> lost = ablation.attribute(x, x0, attack_label, feature_mask=mask)
        >>> full = FeatureAblation(ablation.forward_func)
        >>> same = full.attribute(x, x0, attack_label, feature_mask=mask)
        >>> torch.allclose(lost, same, atol=1e-4)
        True
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        engine: Engine = "auto",
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        super().__init__(forward_func)
        check_engine(engine)
        check_positive_int("memory_limit", memory_limit)
        self.engine: Engine = engine
        self.memory_limit = memory_limit

    @property
    def multiplies_by_inputs(self) -> bool:
        """True, as of ``FeatureAblation``."""
        return True

    def get_name(self) -> str:
        """What progress bars call the method."""
        return "Incremental Ablation"

    @log_usage()
    @torch.inference_mode(False)
    @torch.no_grad()
    def attribute(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Label | None = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensors:
        """What the score of the target loses with each group.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): Shape ``(N, ...)``.
            baselines (scalar, Tensor, tuple, optional): What an erased feature becomes,
                as everywhere in Captum. None means 0. Default: None
            target (int, tuple, list or Tensor, optional): The class whose score is
                explained, in any of Captum's formats. None is for models that return
                one score for each example. Default: None
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs. Default: None
            feature_mask (Tensor or tuple[Tensor, ...], optional): The groups, as for
                ``FeatureAblation``; None makes every feature a group. Default: None
            perturbations_per_eval (int, optional): How many groups one pass evaluates,
                at most; None means as many as fit ``memory_limit``. Default: None
            show_progress (bool, optional): Whether to show a progress bar. Default:
                False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                Of the inputs' shape and dtype.

        Raises:
            TypeError, ValueError: An argument does not fit, or the model does not give
                a score for each example.

        Warns:
            EngineWarning: The incremental engine was asked for and cannot be used, or
                its numbers failed the check. Full passes are used instead.
        """
        if perturbations_per_eval is not None:
            check_positive_int("perturbations_per_eval", perturbations_per_eval)
        xs = tuple(x.detach() for x in _format_tensor_into_tuples(inputs))
        x0s = tuple(
            (b if isinstance(b, Tensor) else torch.full_like(x[:1], b)).detach().to(x)
            for x, b in zip(xs, _format_baseline(baselines, xs), strict=True)
        )
        args = forward_args(additional_forward_args)
        masks = _format_feature_mask(feature_mask, xs)
        least = min(int(mask.min()) for mask in masks)
        groups = Groups.of(tuple(mask - min(least, 0) for mask in masks), xs)
        require_eval_batch_norm(self.forward_func)
        scores = self.forward_func(*(x.clone() for x in xs), *args)
        if not isinstance(scores, Tensor) or scores.shape[:1] != xs[0].shape[:1]:
            raise ValueError(
                "forward_func: want a tensor with one row of scores for each of "
                f"{len(xs[0])} examples; {FeatureAblation.__name__} takes others"
            )
        index = None
        if target is not None:
            index = check_index("target", label_index("target", target, len(xs[0])),
                                scores)  # fmt: skip
        elif scores[0].numel() != 1:
            raise ValueError(
                f"target: got None, but forward_func returns shape "
                f"{tuple(scores.shape)}; want a class"
            )

        def select(of: Tensor, examples: Tensor) -> Tensor:
            if index is None:
                return of.reshape(-1, 1)
            return select_scores(of, index[examples.to(index.device)])

        before = select(scores.clone(), torch.arange(len(scores)))
        ablation = Ablation(self.forward_func, xs, x0s, groups, args, select, before)
        progress = self.get_name() if show_progress else None
        erased = ablated_scores(
            ablation, self.engine, perturbations_per_eval, self.memory_limit, progress
        ).scores
        lost = (before.unsqueeze(1) - erased)[..., 0].to(xs[0].device)
        attributions = groups.spread(lost, xs)
        return attributions if isinstance(inputs, tuple) else attributions[0]
