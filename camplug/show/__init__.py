"""Images from arrays: overlays, grids and plots."""

from camplug.show.grids import grid, make_grid_figure
from camplug.show.overlays import colorize, overlay
from camplug.show.plots import curves

__all__ = ["colorize", "curves", "grid", "make_grid_figure", "overlay"]
