"""The figure that all functions return."""

from __future__ import annotations

import io

from matplotlib import figure


class Figure(figure.Figure):
    """Shown by a notebook as it is, also without ``%matplotlib inline``.

    It belongs to no window and to no state of pyplot.
    """

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()
