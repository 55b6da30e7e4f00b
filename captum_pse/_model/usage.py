"""Captum's usage log, typed so that methods keep their signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from captum.log import log_usage as captum_log_usage

Method = TypeVar("Method", bound=Callable[..., Any])


def log_usage() -> Callable[[Method], Method]:
    """``captum.log.log_usage()``, which sets ``__wrapped__`` as NoiseTunnel needs."""
    return cast("Callable[[Method], Method]", captum_log_usage())
