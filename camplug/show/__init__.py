"""Images from arrays: overlays, grids and plots."""

from camplug.show.pictures import colorize, grid, overlay
from camplug.show.plots import curves

__all__ = ["colorize", "curves", "grid", "overlay"]
