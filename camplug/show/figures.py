"""Pixels of matplotlib figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def render_figure(figure: Figure) -> Image:
    """Draw a figure without a window and return it as an RGB image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image as pil

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return pil.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
