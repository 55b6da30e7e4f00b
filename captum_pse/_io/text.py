"""Text from outside, made printable."""

from __future__ import annotations

import re


def printable(text: str, most: int = 60) -> str:
    """``text`` on one line of at most ``most`` characters, no control characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def is_digits(text: str) -> bool:
    """Whether ``text`` is a number in the digits 0 to 9; Unicode has others."""
    return text.isascii() and text.isdecimal()


def file_name(text: str) -> str:
    """``text`` as part of a file name: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)[:80]
