"""Text from outside, fit to be shown."""

from __future__ import annotations

import re


def printable(text: str, most: int = 60) -> str:
    """``text`` on one line, without control characters, at most so many characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def file_name(text: str) -> str:
    """``text`` as part of a file's name, of letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)[:80]
