"""Chooses how perturbed inputs are evaluated."""

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
    """Perturbed inputs are evaluated by full passes instead of the requested engine.

    With ``engine="auto"``, it is raised only if the scores of the incremental engine
    were wrong. The message states the reason. The results are the same, but take
    longer.

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
    """The scores, and which engine computed them.

    Attributes:
        scores (Tensor): Those after each group alone is ablated, ``(N, n_groups, K)``.
        engine (str): ``"dense"`` or ``"incremental"``.
        note (str): The reason for the engine, or the work that it saved.
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
    """The scores of every example after each group alone is ablated.

    Args:
        ablation (Ablation): The examples and their groups.
        engine (str): ``"dense"``, ``"incremental"``, or ``"auto"``: incremental if it
            saves work.
        perturbations_per_eval (int, optional): How many groups one pass evaluates;
            None: as many as the memory limit allows.
        memory_limit (int): Bytes that a pass may take beside the model.
        progress (str, optional): Title of a progress bar; None shows none.

    Warns:
        EngineWarning: The incremental engine was requested and cannot be used, or its
            scores are not those of the model.
    """
    total = int(ablation.wanted.sum())
    with tqdm(
        total=total, desc=progress, disable=progress is None, unit="group"
    ) as bar:
        note = "requested"
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
                # Full passes may work after any error, or raise a clearer one.
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
