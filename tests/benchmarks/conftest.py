from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole", action="store_true", help="every model and size of groups"
    )
    parser.addoption(
        "--pairs", type=int, default=24, help="real pairs to attack (default: 24)"
    )
