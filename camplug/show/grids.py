"""Grids of a photograph and its maps, with titles and one colour bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from camplug.errors import InputError
from camplug.show.figures import render_figure
from camplug.show.overlays import DEFAULT_COLORS, DEFAULT_OPACITY, Array, make_ramp, overlay, to_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def grid(photo: Array, heats: Sequence[Array], titles: Sequence[str], **options: Any) -> Image:
    """Draw the photograph and the overlays of its maps side by side, with titles and one colour bar.

    Args:
        photo: photograph, see `to_rgb`.
        heats: maps [H,W] in [0, 1].
        titles: one title per map.
        options: further arguments of `make_grid_figure`.

    Raises:
        InputError: the number of titles differs from that of maps, or see `overlay`.
    """
    return render_figure(make_grid_figure(photo, heats, titles, **options))


def make_grid_figure(
    photo: Array,
    heats: Sequence[Array],
    titles: Sequence[str],
    *,
    photo_title: str = "photo",
    title: str | None = None,
    columns: int | None = None,
    colors: str = DEFAULT_COLORS,
    opacity: float = DEFAULT_OPACITY,
    fade: bool = True,
    each: Sequence[dict[str, Any]] | None = None,
    **options: Any,
) -> Figure:
    """Make the matplotlib figure of `grid`, for formats other than pixels.

    Args:
        photo: photograph, see `to_rgb`.
        heats: maps [H,W] in [0, 1].
        titles: one title per map.
        photo_title: title of the photograph.
        title: title of the figure.
        columns: pictures per row; default: up to 5.
        colors, opacity, fade: arguments of `overlay`.
        each: arguments of `overlay` for each map, such as its boxes.
        options: further arguments of `overlay` for all maps.

    Raises:
        InputError: the number of titles differs from that of maps, or see `overlay`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    if len(heats) != len(titles):
        raise InputError(f"{len(heats)} maps and {len(titles)} titles; give one title per map.")
    photo = to_rgb(photo)
    style = {"colors": colors, "opacity": opacity, "fade": fade, "bar": False, **options}
    own = each or [{}] * len(heats)
    panels = [photo, *(np.asarray(overlay(photo, h, **{**style, **o})) for h, o in zip(heats, own, strict=True))]
    columns = min(columns or 5, len(panels))
    lines = math.ceil(len(panels) / columns)
    aspect = photo.shape[0] / photo.shape[1]
    width = min(3.2, 3.2 / math.sqrt(aspect))
    inches = (columns * width + 0.7, lines * (width * aspect + 0.55) + (0.35 if title else 0.05))
    figure = Figure(figsize=inches, dpi=110)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, panel, text in zip(axes, panels, [photo_title, *titles], strict=False):
        axis.imshow(panel)
        axis.set_title(text, fontsize=9, parse_math=False)
    figure.set_layout_engine("constrained")
    bar = ScalarMappable(cmap=ListedColormap(make_ramp(256, colors, opacity, fade)[:, 0] / 255))
    figure.colorbar(bar, ax=list(axes), fraction=0.03, pad=0.01, shrink=0.85).ax.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure
