"""Shows what functions return: as text of the signature, or as a link."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sphinx.application import Sphinx


def add_returned(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None] | None:
    """Adds the annotation of what is returned, unless the docstring says it."""
    if what not in ("function", "method") or "Returns:" in (inspect.getdoc(obj) or ""):
        return None
    annotation = getattr(obj, "__annotations__", {}).get("return", "")
    # Annotations are text: all modules import them from __future__.
    if not isinstance(annotation, str) or annotation in ("", "Any", "None"):
        return None
    return signature, annotation


def link_returned(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Makes a type of a Returns section, ``*Refinement*``, a reference."""
    for i, line in enumerate(lines):
        if found := re.fullmatch(r":rtype: \*([\w.]+(?:\[[\w., ]+\])?)\*", line):
            lines[i] = f":rtype: {found[1]}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", add_returned)
    # After napoleon, which makes fields of the sections.
    app.connect("autodoc-process-docstring", link_returned, priority=900)
    return {"parallel_read_safe": True}
