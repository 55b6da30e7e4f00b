"""Picks how perturbed inputs are evaluated."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple, TypeAlias, get_args

from torch import Tensor
from tqdm.auto import tqdm

from captum_pse._engine.ablation import Ablation
from captum_pse._engine.dense import dense_scores
from captum_pse._engine.incremental import (
    MismatchError,
    NotWorthItError,
    incremental_scores,
)
from captum_pse._engine.tape import NotTraceableError

Engine: TypeAlias = Literal["auto", "dense", "incremental"]
ENGINES: tuple[str, ...] = get_args(Engine)


class EngineWarning(UserWarning):
    """Perturbed inputs are evaluated by full passes, although that was not asked for
    or not to be expected.

    The message says why. The numbers are as good, and take longer.

    Examples::

        >>> from captum_pse import PromotionSuppression
        >>> from captum_pse.demo import load_model, make_pairs
        >>> model = load_model()
        >>> method = PromotionSuppression(lambda x: model(x), engine="incremental")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     result = method.decompose(*make_pairs(1))
        >>> [warning.category.__name__ for warning in caught], result.engine
        (['EngineWarning'], 'dense')
    """


class Ablated(NamedTuple):
    """The scores, and how they came about.

    Attributes:
        scores (Tensor): ``(N, n_groups, K)``, after each group alone was erased.
        engine (str): ``"dense"`` or ``"incremental"``.
        note (str): Why, or what it saved.
    """

    scores: Tensor
    engine: str
    note: str


def check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine: got {engine!r}, want one of {', '.join(ENGINES)}")


def ablated_scores(
    ablation: Ablation,
    engine: Engine,
    perturbations_per_eval: int | None,
    memory_limit: int,
    progress: str | None = None,
) -> Ablated:
    """The scores of every example after each group alone was erased.

    Args:
        ablation (Ablation): The examples and their groups.
        engine (str): ``"dense"``, ``"incremental"``, or ``"auto"``: the second where it
            saves work.
        perturbations_per_eval (int, optional): How many groups one pass evaluates;
            None: as many as memory allows.
        memory_limit (int): Bytes that a pass may take beside the model.
        progress (str, optional): Title of a progress bar; None shows none.

    Warns:
        EngineWarning: The incremental engine was asked for and cannot be used, or its
            numbers are not those of the model.
    """
    total = int(ablation.wanted.sum())
    with tqdm(
        total=total, desc=progress, disable=progress is None, unit="group"
    ) as bar:
        note = "asked for"
        if engine != "dense" and total:
            try:
                scores, note = incremental_scores(
                    ablation,
                    perturbations_per_eval,
                    memory_limit,
                    bar.update,
                    always=engine == "incremental",
                )
                return Ablated(scores, "incremental", note)
            except Exception as error:
                # Whatever it was: full passes may still do, or say it better.
                expected = MismatchError, NotTraceableError, NotWorthItError
                kind = "" if isinstance(error, expected) else type(error).__name__
                note = f"{kind}: {error}" if kind else str(error)
                if engine == "incremental" or isinstance(error, MismatchError):
                    warnings.warn(
                        f"every perturbed input takes a full pass ({note}); the "
                        "numbers are right but take longer; ask for the engine dense "
                        "to have the same without a warning",
                        EngineWarning,
                        stacklevel=2,
                    )
                bar.reset()
        scores = dense_scores(
            ablation, perturbations_per_eval, memory_limit, bar.update
        )
    return Ablated(scores, "dense", note)
