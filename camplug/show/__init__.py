"""Pictures out of plain arrays: overlays and grids."""

from camplug.show.pictures import colorize, grid, overlay

__all__ = ["colorize", "grid", "overlay"]
