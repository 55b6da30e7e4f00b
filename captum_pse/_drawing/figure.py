"""The figure class that every plotting function returns."""

from __future__ import annotations

import io
from os import PathLike
from typing import IO

from matplotlib import figure
from matplotlib.backends.backend_agg import FigureCanvasAgg

#: Dots per inch of the figures in folders of results.
DPI = 110


class Figure(figure.Figure):
    """A figure that notebooks display, also without ``%matplotlib inline``.

    It is not registered with pyplot and opens no window.
    """

    def save(self, file: str | PathLike[str] | IO[bytes], *, dpi: float = DPI) -> None:
        """Writes the PNG that ``savefig`` would, which lays out in a pass of its own.

        Args:
            file (str, Path or binary file): Where to.
            dpi (float, optional): Dots per inch. Default: 110
        """
        canvas, own = self.canvas, self.dpi
        try:
            agg = FigureCanvasAgg(self)
            self.dpi = dpi
            agg.print_png(file)
        finally:
            self.dpi = own
            self.set_canvas(canvas)

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.save(png, dpi=self.dpi)
        return png.getvalue()
