"""Promotion and suppression by groups of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from captum.attr import PerturbationAttribution
from torch import Tensor

from captum_pse._engine.ablation import Ablation
from captum_pse._engine.batches import MEMORY_LIMIT
from captum_pse._engine.choice import Engine, ablated_scores, check_engine
from captum_pse._engine.path import path_changes
from captum_pse._model.checks import (
    Tensors,
    check_choice,
    check_int,
    check_optional_int,
)
from captum_pse._model.forward import ForwardFunc, forward_args
from captum_pse._model.score import SCORES, Score
from captum_pse._model.targets import Label, exact
from captum_pse._model.usage import log_usage
from captum_pse.groups.groups import Groups
from captum_pse.groups.types import DOMINANCE, EPS
from captum_pse.pairs.scored import Sides, score_pair
from captum_pse.pixels.result import (
    COMPONENTS,
    PIXEL_METHODS,
    Component,
    PixelDecomposition,
    PixelMethod,
)


class PromotionSuppression(PerturbationAttribution):
    r"""Promotion and suppression of groups of features by an adversarial perturbation.

    ``x' = x0 + delta`` is an adversarial input that changes the model's prediction from
    the true label ``t0`` to the attack label ``t``. Let ``x'_i`` be ``x'`` with delta
    ablated on group ``G_i`` (replaced by ``x0`` there), and ``Z(x)_c`` the model's
    score of class ``c`` before the softmax. Then

    .. math::
        p_i = \max(Z(x')_t - Z(x'_i)_t, 0), \qquad
        s_i = \max(Z(x'_i)_{t_0} - Z(x')_{t_0}, 0)

    are the group's promotion of ``t`` and its suppression of ``t0``. Its effect is
    ``p_i + s_i``, its ratio is ``r_i = log2(max(p_i, eps) / max(s_i, eps))``. The group
    is suppression-dominated if ``r_i < -threshold``, promotion-dominated if
    ``r_i > threshold``, and balanced otherwise.

    ``method="exact"`` evaluates ``x'_i`` for every group on which delta is not 0.
    ``method="gradient"`` is a first-order estimate: integrated gradients from ``x0`` to
    ``x'``, summed over each group. It takes ``n_steps`` forward and backward passes for
    any number of groups. The estimated changes sum to the change of the score; the
    exact ones do so only for linear models. An exact change is the effect of ablating
    one group of the complete attack; the estimate distributes the joint effect of all
    groups. Both usually find the same most important groups, but their values differ:
    on an ImageNet SqueezeNet with 196 groups, the median rank correlation of effects
    was 0.81 for iterated FGSM, 0.95 for Carlini and Wagner's attack and 0.96 for the
    elastic-net attack.

    Promotion and suppression, and so the types of groups, depend on the common level of
    all scores, though the model's probabilities do not: adding the same function of x
    to all logits changes them. Only the sum of both signed changes, that of the margin
    between ``t`` and ``t0``, stays the same. ``score`` chooses the score ``Z``:

    - ``"logit"``: what the model returns, as in the paper.
    - ``"centered"``: the logits minus their mean over the classes. It does not depend
      on the common level.
    - ``"log_softmax"``: the log-probabilities. They do not depend on the common level
      either, but saturate: where an attack is strong, ``log p_t`` is near 0, its
      maximum, and so is promotion, and most groups count as suppression-dominated.
      Where ``p_t`` is above 0.99 on ``x'``, the summary says ``saturated``.

    Types on which the scores agree do not depend on the choice; see
    :meth:`decompose_by_score`.

    Sources: Xu et al., "Interpreting Adversarial Examples by Activation Promotion and
    Suppression", arXiv:1904.02057; for integrated gradients, Sundararajan et al.,
    "Axiomatic Attribution for Deep Networks", arXiv:1703.01365.

    Args:
        forward_func (Callable): The model, or any function that returns the scores of
            its classes, shape ``(N, C)``, or ``(N, C, ...)`` for dense predictions. Put
            the model into evaluation mode first. Batch norm in training mode raises an
            error; dropout in training mode makes the results random.
        eps (float, optional): Promotion and suppression up to this value count as none,
            in score units. Default: 1e-3
        threshold (float, optional): A group is dominated if its ratio exceeds this
            number of octaves in absolute value. 1 means that one of promotion and
            suppression is more than twice the other. Default: 1.0
        method (str, optional): ``"exact"`` or ``"gradient"``. Default: ``"exact"``
        n_steps (int, optional): Number of points of the path for ``"gradient"``, chosen
            by the Gauss-Legendre rule. Default: 16
        engine (str, optional): How ``"exact"`` evaluates the model. ``"dense"`` runs a
            full pass for every ``x'_i``. ``"incremental"`` recomputes only the
            activations that a group changes. Its results are the same up to rounding,
            and are checked against the model at every call. It requires a
            ``torch.nn.Module`` on images that torch.fx can trace; other threads must
            not trace with torch.fx meanwhile. ``"auto"`` uses ``"incremental"`` if it
            saves work. The result states which engine was used. Default: ``"auto"``
        memory_limit (int, optional): Estimated bytes that a pass may use besides the
            model, if ``perturbations_per_eval`` is None. Default: 1 GiB
        score (str, optional): ``"logit"``, ``"centered"`` or ``"log_softmax"``. The
            last two need a model that returns logits or log-probabilities.
            Default: ``"logit"``

    Raises:
        ValueError: ``eps``, ``n_steps`` or ``memory_limit`` is not positive,
            ``threshold`` is negative, or ``method``, ``engine`` or ``score`` is not one
            of the above.

    Warns:
        EngineWarning: When evaluating, if ``engine="incremental"`` cannot be used, or
            the scores of the incremental engine failed the check. Full passes are used
            instead.

    Examples::

        >>> from captum_pse.demo import load_model, make_pairs
        >>> method = PromotionSuppression(load_model())
        >>> pair = make_pairs(2)
        >>> promotion = method.attribute(*pair, component="promotion")
        >>> suppression = method.attribute(*pair, component="suppression")
        >>> promotion.shape, bool((promotion >= 0).all())
        (torch.Size([2, 3, 64, 64]), True)
        >>> torch.equal(method.attribute(*pair), promotion + suppression)
        True
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        eps: float = EPS,
        threshold: float = DOMINANCE,
        method: PixelMethod = "exact",
        n_steps: int = 16,
        engine: Engine = "auto",
        memory_limit: int = MEMORY_LIMIT,
        score: Score = "logit",
    ) -> None:
        super().__init__(forward_func)
        check_choice("method", method, PIXEL_METHODS)
        check_choice("score", score, SCORES)
        check_engine(engine)
        n_steps = check_int("n_steps", n_steps, 1)
        memory_limit = check_int("memory_limit", memory_limit, 1)
        if not 0 < eps < math.inf:
            raise ValueError(f"eps: got {eps}, want a positive number")
        if not 0 <= threshold < math.inf:
            raise ValueError(f"threshold: got {threshold}, want 0 or more")
        self.eps = float(eps)
        self.threshold = float(threshold)
        self.method: PixelMethod = method
        self.n_steps = n_steps
        self.engine: Engine = engine
        self.memory_limit = memory_limit
        self.score: Score = score

    @property
    def multiplies_by_inputs(self) -> bool:
        """True, since attributions are changes of the score, not gradients."""
        return True

    def get_name(self) -> str:
        """The method's name in progress bars."""
        return "PromotionSuppression"

    @log_usage()
    @torch.inference_mode(False)
    @torch.no_grad()
    def attribute(
        self,
        inputs: Tensors,
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        component: Component = "effect",
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensors:
        r"""One component of the perturbation's effect, with the shape of the inputs.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): The adversarial ``x'``, shape
                ``(N, ...)``, floating point.
            baselines (Tensor or tuple[Tensor, ...]): The natural ``x0``, of the same
                shape, dtype and device; or one natural example, ``(1, ...)``, for all.
            target (int, tuple, list or Tensor, optional): The attack label ``t`` in any
                of Captum's target formats. None means the model's prediction on
                ``inputs``. Default: None
            true_target (int, tuple, list or Tensor, optional): The true label ``t0`` in
                any of Captum's target formats. None means the model's prediction on
                ``baselines``. If each of n natural examples is repeated k times in a
                row, as by ``NoiseTunnel`` and ``sensitivity_max``, n labels are
                accepted. Default: None
            component (str, optional): ``"effect"``, ``"promotion"`` or
                ``"suppression"`` (in score units, at least 0), ``"ratio"`` (in octaves)
                or ``"type"`` (-1 suppression-dominated, 0 balanced, 1
                promotion-dominated). Default: ``"effect"``
            additional_forward_args (Any, optional): Passed to ``forward_func`` after
                the inputs, as everywhere in Captum. Default: None
            feature_mask (Tensor or tuple[Tensor, ...], optional): The groups: integer
                ids that broadcast to the inputs, either one mask ``(1, ...)`` for all
                examples or one for each ``(N, ...)``. The same id in two inputs is one
                group; features with a negative id are in no group. None means
                :func:`captum_pse.default_feature_mask`: for images a grid of cells a
                14th of the longer side wide, else single features. Default: None
            perturbations_per_eval (int, optional): Maximum number of groups, or of
                points of the path, that one pass evaluates. A full pass
                evaluates that many copies of all ``N`` examples, a pass of the
                incremental engine that many copies of one example. None means as many
                as fit ``memory_limit`` (on a CPU, the incremental engine takes at most
                32). If memory runs out, the number is halved. Default: None
            show_progress (bool, optional): Whether to show a progress bar. Default:
                False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*):
                Tensors with the shape and dtype of the inputs. Every feature has the
                value of its group.

        Raises:
            TypeError, ValueError: An argument is not valid; the message names it and
                states its value and the valid ones.

        Warns:
            PredictionWarning: The prediction on ``inputs`` is not ``t``, or that on
                ``baselines`` is not ``t0``.
            ProbabilityWarning: The model returns probabilities instead of logits.
            SaturationWarning: The log-probability of ``t`` on ``inputs`` is near 0.
        """
        check_choice("component", component, COMPONENTS)
        result = self.decompose(
            inputs,
            baselines,
            target,
            true_target,
            additional_forward_args=additional_forward_args,
            feature_mask=feature_mask,
            perturbations_per_eval=perturbations_per_eval,
            show_progress=show_progress,
        )
        return cast("Tensors", result.attribution(component))

    @torch.inference_mode(False)
    @torch.no_grad()
    def decompose(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> PixelDecomposition:
        """All components, with the signed changes and a table of the groups.

        Args and Raises: as :meth:`attribute`.

        Returns:
            *PixelDecomposition*: With ``.summary()``, ``.table()``, ``.plot()`` and
            ``.save()``.

        Examples::

            >>> from captum_pse.demo import load_model, make_pairs
            >>> result = PromotionSuppression(load_model()).decompose(*make_pairs(2))
            >>> result
            PixelDecomposition(2 pair(s) (2, 3, 64, 64), 169 groups)
            >>> bool((result.effect >= 0).all())
            True
        """
        results = self._decompose(
            [self.score], inputs, baselines, target, true_target,
            additional_forward_args, feature_mask, perturbations_per_eval,
            show_progress,
        )  # fmt: skip
        return results[self.score]

    @torch.inference_mode(False)
    @torch.no_grad()
    def decompose_by_score(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None = None,
        true_target: Label | None = None,
        *,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> dict[Score, PixelDecomposition]:
        """The decomposition by every score, whichever ``score`` was chosen.

        All scores come from the same passes: for ``method="exact"`` it takes as long as
        :meth:`decompose`. It shows which types of groups depend on the score.

        Args and Raises: as :meth:`attribute`.

        Returns:
            *dict[str, PixelDecomposition]*: By ``"logit"``, ``"centered"`` and
            ``"log_softmax"``; only the first for a model that returns probabilities.

        Examples::

            >>> import warnings
            >>> from captum_pse.demo import load_model, make_pairs
            >>> method = PromotionSuppression(load_model())
            >>> with warnings.catch_warnings():
            ...     warnings.simplefilter("ignore")
            ...     found = method.decompose_by_score(*make_pairs(1))
            >>> list(found), found["log_softmax"].score
            (['logit', 'centered', 'log_softmax'], 'log-probability')
        """
        return self._decompose(
            None, inputs, baselines, target, true_target, additional_forward_args,
            feature_mask, perturbations_per_eval, show_progress,
        )  # fmt: skip

    def _decompose(
        self,
        scores: Sequence[Score] | None,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Tensor | tuple[Tensor, ...],
        target: Label | None,
        true_target: Label | None,
        additional_forward_args: Any,
        feature_mask: Tensor | tuple[Tensor, ...] | None,
        perturbations_per_eval: int | None,
        show_progress: bool,
    ) -> dict[Score, PixelDecomposition]:
        """The decomposition by each score; None means all that the model has."""
        perturbations_per_eval = check_optional_int(
            "perturbations_per_eval", perturbations_per_eval, 1
        )
        args = forward_args(additional_forward_args)
        sides = Sides.of(inputs, baselines)
        groups = Groups.of(feature_mask, sides.inputs)
        pairs = score_pair(self.forward_func, sides, target, true_target, args, scores)
        for pair in pairs.values():
            pair.warn_of_scores()
        first = next(iter(pairs.values()))
        xs = first.inputs
        before = torch.cat([p.labels.adversarial_scores for p in pairs.values()], dim=1)

        def select(scores: Tensor, examples: Tensor) -> Tensor:
            """The scores of ``t`` and ``t0`` of each kind, side by side."""
            return torch.cat([p.select(scores, examples) for p in pairs.values()], 1)

        ablation = Ablation(
            self.forward_func, xs, first.baselines, groups, args, select, before
        )
        progress = self.get_name() if show_progress else None
        limits = perturbations_per_eval, self.memory_limit, progress
        engine, note = "dense", "the gradient method uses full passes"
        if self.method == "gradient":
            changes = path_changes(ablation, self.n_steps, *limits)
        else:
            ablated, engine, note = ablated_scores(ablation, self.engine, *limits)
            changes = before.unsqueeze(1) - exact(ablated)
        if not changes.isfinite().all():
            raise ValueError("forward_func: returned NaN or infinite scores")
        changes = exact(changes).to(xs[0].device)
        present = groups.sizes(xs) > 0
        changes = torch.where(present.unsqueeze(2), changes, 0)
        return {
            score: PixelDecomposition(
                pair,
                groups,
                promotion_change=of_attack,
                suppression_change=-of_true,
                method=self.method,
                engine=engine,
                engine_note=note,
                eps=self.eps,
                threshold=self.threshold,
            )
            for (score, pair), of_attack, of_true in zip(
                pairs.items(), changes.unbind(2)[::2], changes.unbind(2)[1::2],
                strict=True,
            )
        }  # fmt: skip
