"""Shows what a function returns, where its docstring leaves that to the annotation."""

from __future__ import annotations

import inspect
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


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", add_returned)
    return {"parallel_read_safe": True}
