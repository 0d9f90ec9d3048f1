"""Overlays with a colour bar and grids with titles, from arrays to PIL images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from camplug.errors import InputError
from camplug.show.figures import render_figure

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]

DEFAULT_COLORS = "inferno"  # perceptually uniform


def colorize(heat: Array, colors: str = DEFAULT_COLORS) -> Array:
    """Return the colours [H,W,3] uint8 of a map [H,W] in [0, 1].

    Args:
        heat: map [H,W]; values outside [0, 1] are clipped.
        colors: name of a matplotlib colour map.

    Raises:
        InputError: the colour map does not exist.
    """
    rgba = _get_colormap(colors)(np.clip(heat, 0, 1), bytes=True)
    return np.asarray(rgba)[..., :3]


def _get_colormap(colors: str) -> Any:
    import matplotlib

    if colors not in matplotlib.colormaps:
        raise InputError(f"there is no colour map {colors!r}; for instance inferno, viridis, magma, cividis.")
    return matplotlib.colormaps[colors]


def to_rgb(photo: Array) -> Array:
    """Convert a photograph to uint8 [H,W,3].

    Args:
        photo: [H,W,3], grey [H,W] or [H,W,1], or RGBA [H,W,4] (composed over white); uint8, or floats in [0, 1].

    Raises:
        InputError: the shape, type or range is none of these.
    """
    photo = np.asarray(photo)
    kind = photo.dtype
    if photo.ndim not in (2, 3) or 0 in photo.shape or (photo.ndim == 3 and photo.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"the photograph is an array {list(photo.shape)}; give [H,W,3], grey [H,W] or [H,W,1], or RGBA [H,W,4]."
        )
    if np.issubdtype(kind, np.floating):
        low, high = float(photo.min()), float(photo.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN included
            raise InputError(
                f"a photograph of {kind} must lie in [0, 1]; got {low:.4g} to {high:.4g}. Undo its normalisation, or "
                "give uint8."
            )
        photo = (photo.astype(np.float64).clip(0, 1) * 255).round().astype(np.uint8)
    elif kind != np.uint8:
        raise InputError(f"a photograph must be uint8, or floating-point numbers in [0, 1]; got {kind}.")
    if photo.ndim == 2 or photo.shape[2] == 1:
        return np.repeat(photo.reshape(*photo.shape[:2], 1), 3, axis=2)
    if photo.shape[2] == 4:
        alpha = photo[..., 3:].astype(np.float64) / 255
        return (photo[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return photo


def blend(photo: Array, colours: Array, opacity: float) -> Array:
    """Blend two images [H,W,3] uint8.

    >>> blend(np.full((1, 1, 3), 100, np.uint8), np.zeros((1, 1, 3), np.uint8), 0.6).tolist()
    [[[40, 40, 40]]]
    """
    import cv2

    return np.asarray(cv2.addWeighted(photo, 1 - opacity, colours, opacity, 0))


def overlay(
    photo: Array, heat: Array, *, colors: str = DEFAULT_COLORS, opacity: float = 0.6, bar: bool = True
) -> Image:
    """Blend a map over its photograph.

    Args:
        photo: photograph, see `to_rgb`.
        heat: map [H,W] in [0, 1] at the photograph's size.
        colors: name of a matplotlib colour map; the default is perceptually uniform.
        opacity: opacity of the map, 0 to 1.
        bar: draw a colour bar from 0 to 1 at the right.

    Raises:
        InputError: sizes differ, the array is no photograph, or the opacity is outside of 0 to 1.
    """
    from PIL import Image as pil

    photo = to_rgb(photo)
    if photo.shape[:2] != heat.shape:
        raise InputError(f"the photograph is {photo.shape[:2]} and the map {heat.shape}; they must be of one size.")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity={opacity}; allowed are 0 to 1.")
    picture = pil.fromarray(blend(photo, colorize(heat, colors), opacity))
    return _add_bar(picture, colors, opacity) if bar else picture


def _add_bar(picture: Image, colors: str, opacity: float) -> Image:
    """Return the picture with a colour bar, blended with middle grey."""
    from PIL import Image as pil
    from PIL import ImageDraw, ImageFont

    height = picture.height
    text = max(9, min(28, height // 22))
    font = ImageFont.load_default(size=text)
    gap, wide = max(3, text // 2), max(6, text)
    label = max(int(font.getlength(s)) for s in ("0", "0.5", "1")) + gap
    canvas = pil.new("RGB", (picture.width + gap + wide + gap + label, height), "white")
    canvas.paste(picture, (0, 0))
    ramp = colorize(np.linspace(1, 0, height)[:, None].repeat(wide, 1), colors)
    canvas.paste(pil.fromarray(((1 - opacity) * 127 + opacity * ramp).astype(np.uint8)), (picture.width + gap, 0))
    draw = ImageDraw.Draw(canvas)
    x = picture.width + gap + wide + gap
    for value, anchor in ((1.0, "lt"), (0.5, "lm"), (0.0, "lb")):
        draw.text((x, round((1 - value) * (height - 1))), f"{value:g}", fill="black", font=font, anchor=anchor)
    return canvas


def grid(
    photo: Array,
    heats: Sequence[Array],
    titles: Sequence[str],
    *,
    photo_title: str = "photo",
    title: str | None = None,
    columns: int | None = None,
    colors: str = DEFAULT_COLORS,
    opacity: float = 0.6,
) -> Image:
    """Draw the photograph and the overlays of its maps side by side, with titles and one colour bar.

    Args:
        photo: photograph, see `to_rgb`.
        heats: maps [H,W] in [0, 1].
        titles: one title per map.
        photo_title: title of the photograph.
        title: title of the figure.
        columns: pictures per row; default: up to 5.
        colors, opacity: arguments of `overlay`.

    Raises:
        InputError: the number of titles differs from that of maps, or see `overlay`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    if len(heats) != len(titles):
        raise InputError(f"{len(heats)} maps and {len(titles)} titles; give one title per map.")
    photo = to_rgb(photo)
    panels = [photo] + [np.asarray(overlay(photo, h, colors=colors, opacity=opacity, bar=False)) for h in heats]
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
    bar = ScalarMappable(cmap=_get_colormap(colors))
    figure.colorbar(bar, ax=list(axes), fraction=0.03, pad=0.01, shrink=0.85).ax.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return render_figure(figure)
