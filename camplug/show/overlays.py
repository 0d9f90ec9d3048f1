"""Overlays of a map on its photograph, with colour bar, outline, boxes and title, from arrays to PIL images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from camplug.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]

DEFAULT_COLORS = "inferno"  # perceptually uniform
DEFAULT_OPACITY = 0.8
Box: TypeAlias = tuple[int, int, int, int]


def colorize(heat: Array, colors: str = DEFAULT_COLORS) -> Array:
    """Return the colours [H,W,3] uint8 of a map [H,W] in [0, 1].

    Args:
        heat: map [H,W]; values outside [0, 1] are clipped.
        colors: name of a matplotlib colour map.

    Raises:
        InputError: the colour map does not exist.
    """
    rgba = get_colormap(colors)(np.clip(heat, 0, 1), bytes=True)
    return np.asarray(rgba)[..., :3]


def get_colormap(colors: str) -> Any:
    """Return a matplotlib colour map.

    Raises:
        InputError: the colour map does not exist.
    """
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
    photo: Array,
    heat: Array,
    *,
    colors: str = DEFAULT_COLORS,
    opacity: float = DEFAULT_OPACITY,
    fade: bool = True,
    contour: float | None = None,
    boxes: Sequence[Box] = (),
    outside: Array | None = None,
    title: str | None = None,
    bar: bool = True,
) -> Image:
    """Blend a map over its photograph.

    Args:
        photo: photograph, see `to_rgb`.
        heat: map [H,W] in [0, 1] at the photograph's size.
        colors: name of a matplotlib colour map; the default is perceptually uniform.
        opacity: opacity of the map where it is 1, from 0 to 1.
        fade: the opacity falls with the value, so that the photograph stays visible where the map is low; False: the
            same everywhere.
        contour: value at which an outline is drawn; None draws none.
        boxes: boxes (left, top, right, bottom) to draw.
        outside: positions [H,W] that the model did not see, bool; they are hatched.
        title: line above the picture.
        bar: draw a colour bar from 0 to 1 at the right.

    Raises:
        InputError: sizes differ, the array is no photograph, or the opacity is outside of 0 to 1.
    """
    from PIL import Image as pil

    photo = to_rgb(photo)
    if photo.shape[:2] != heat.shape:
        raise InputError(f"the photograph is {photo.shape[:2]} and the map {heat.shape}; they must be of one size.")
    check_style(colors, opacity, contour)
    pixels = _blend_map(photo, heat, colors, opacity, fade)
    if outside is not None:
        pixels = hatch(pixels, outside)
    if contour is not None:
        draw_outline(pixels, heat >= contour)
    draw_boxes(pixels, boxes)
    picture = pil.fromarray(pixels)
    picture = _add_bar(picture, colors, opacity, fade) if bar else picture
    return picture if title is None else _add_title(picture, title)


def check_style(colors: str, opacity: float, contour: float | None) -> None:
    """Check the look of an overlay, see `overlay`.

    Raises:
        InputError: the colour map does not exist, or a number is out of its range.
    """
    get_colormap(colors)
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity={opacity}; allowed are 0 to 1.")
    if contour is not None and not 0 < contour <= 1:
        raise InputError(f"contour={contour}; give a value above 0 and up to 1, or None.")


def _blend_map(photo: Array, heat: Array, colors: str, opacity: float, fade: bool) -> Array:
    colours = colorize(heat, colors)
    if not fade:
        return blend(photo, colours, opacity)
    share = (opacity * np.clip(heat, 0, 1).astype(np.float32))[..., None]
    return np.asarray(((1 - share) * photo + share * colours).round().astype(np.uint8))


def make_ramp(count: int, colors: str, opacity: float, fade: bool) -> Array:
    """Return the colours [count,1,3] of the values from 0 to 1 in an overlay on middle grey."""
    grey = np.full((count, 1, 3), 127, np.uint8)
    return _blend_map(grey, np.linspace(0, 1, count)[:, None], colors, opacity, fade)


def hatch(pixels: Array, where: Array) -> Array:
    """Return an image [H,W,3] with diagonal grey lines at some positions [H,W]."""
    rows, columns = np.indices(where.shape)
    lines = ((rows + columns) % 10 < 2) & where
    return np.where(lines[..., None], np.uint8(150), pixels)


def draw_outline(pixels: Array, mask: Array) -> None:
    """Draw the outline of a mask [H,W] into an image [H,W,3], white with a black edge."""
    import cv2

    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    wide = _get_line_width(pixels)
    for colour, width in (((0, 0, 0), wide + 2), ((255, 255, 255), wide)):
        cv2.drawContours(pixels, found, -1, colour, width)


def draw_boxes(pixels: Array, boxes: Sequence[Box]) -> None:
    """Draw boxes (left, top, right, bottom), right and bottom exclusive, into an image [H,W,3], white on black."""
    import cv2

    wide = _get_line_width(pixels)
    for left, top, right, bottom in boxes:
        for colour, width in (((0, 0, 0), wide + 2), ((255, 255, 255), wide)):
            cv2.rectangle(pixels, (left, top), (right - 1, bottom - 1), colour, width)


def _get_line_width(pixels: Array) -> int:
    return max(1, min(len(pixels), len(pixels[0])) // 250)


def get_font(height: int) -> Any:
    """Return a font with most alphabets, in a size that suits a picture of this height."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), max(9, min(28, height // 22)))


def _add_title(picture: Image, title: str) -> Image:
    """Return the picture with a line of text above it."""
    from PIL import Image as pil
    from PIL import ImageDraw

    font = get_font(picture.height)
    high = round(font.size * 1.7)
    canvas = pil.new("RGB", (picture.width, picture.height + high), "white")
    canvas.paste(picture, (0, high))
    while len(title) > 1 and font.getlength(title) > picture.width - 4:
        title = title.removesuffix("\u2026")[:-1] + "\u2026"
    ImageDraw.Draw(canvas).text((2, high // 2), title, fill="black", font=font, anchor="lm")
    return canvas


def _add_bar(picture: Image, colors: str, opacity: float, fade: bool) -> Image:
    """Return the picture with a colour bar, blended with middle grey."""
    from PIL import Image as pil
    from PIL import ImageDraw

    height = picture.height
    font = get_font(height)
    text = round(font.size)
    gap, wide = max(3, text // 2), max(6, text)
    label = max(int(font.getlength(s)) for s in ("0", "0.5", "1")) + gap
    canvas = pil.new("RGB", (picture.width + gap + wide + gap + label, height), "white")
    canvas.paste(picture, (0, 0))
    ramp = make_ramp(height, colors, opacity, fade)[::-1].repeat(wide, 1)
    canvas.paste(pil.fromarray(ramp), (picture.width + gap, 0))
    draw = ImageDraw.Draw(canvas)
    x = picture.width + gap + wide + gap
    for value, anchor in ((1.0, "lt"), (0.5, "lm"), (0.0, "lb")):
        draw.text((x, round((1 - value) * (height - 1))), f"{value:g}", fill="black", font=font, anchor=anchor)
    return canvas
