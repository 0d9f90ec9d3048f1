"""Overlays of labels on their photograph, with outlines and a legend, from arrays to PIL images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from camplug.errors import InputError
from camplug.show.overlays import Array, draw_outline, get_font, hatch, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORED = 255
GOLDEN = 0.618034  # step of hues: those of neighbouring numbers lie far apart
LABEL_OPACITY = 0.5


def make_class_colors(count: int) -> Array:
    """Return bright colours [count,3] uint8 of classes, the same for a class whatever the count.

    >>> make_class_colors(2).tolist()
    [[255, 51, 51], [51, 111, 255]]
    """
    colours = [colorsys.hsv_to_rgb(c * GOLDEN % 1, 0.8, 1.0) for c in range(count)]
    found: Array = np.rint(255 * np.asarray(colours).reshape(count, 3)).astype(np.uint8)
    return found


def format_hex(colour: Array) -> str:
    """Return a colour as HTML writes it.

    >>> format_hex(np.array([255, 51, 0]))
    '#ff3300'
    """
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def overlay_labels(
    photo: Array,
    labels: Array,
    names: Sequence[str],
    *,
    opacity: float = LABEL_OPACITY,
    legend: bool = True,
) -> Image:
    """Draw labels over a photograph: a bright colour and an outline per class; the background shows the photograph.

    Args:
        photo: photograph, see `camplug.show.overlays.to_rgb`.
        labels: labels [H,W] at the photograph's size: 0 background, c + 1 for class c, 255 ignored (hatched).
        names: class names, without the background.
        opacity: opacity of the colours, from 0 to 1.
        legend: list the classes of the picture below it.

    Raises:
        InputError: sizes differ, a label is no class, or the opacity is outside of 0 to 1.
    """
    from PIL import Image as pil

    photo, labels = to_rgb(photo), np.asarray(labels)
    if photo.shape[:2] != labels.shape:
        raise InputError(f"the photograph is {photo.shape[:2]} and the labels {labels.shape}; give one size.")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity={opacity}; allowed are 0 to 1.")
    shown = [int(value) for value in np.unique(labels) if value not in (0, IGNORED)]
    if shown and not 0 < min(shown) <= max(shown) <= len(names):
        raise InputError(f"there are labels {shown}, and {len(names)} class names; 0 is background, 255 ignored.")
    colours, pixels = make_class_colors(len(names)), photo.copy()
    for value in shown:
        where = labels == value
        pixels[where] = np.rint((1 - opacity) * photo[where] + opacity * colours[value - 1]).astype(np.uint8)
    pixels = np.ascontiguousarray(hatch(pixels, labels == IGNORED))
    for value in shown:
        draw_outline(pixels, labels == value)
    picture = pil.fromarray(pixels)
    return _add_legend(picture, [(names[v - 1], colours[v - 1]) for v in shown]) if legend else picture


def _add_legend(picture: Image, entries: Sequence[tuple[str, Array]]) -> Image:
    """Return the picture with a line below it for every class."""
    from PIL import Image as pil
    from PIL import ImageDraw

    font = get_font(picture.height)
    text = round(font.size)
    line = text * 3 // 2
    lines = entries or [("background only", np.full(3, 255, np.uint8))]
    canvas = pil.new("RGB", (picture.width, picture.height + line * len(lines) + text // 2), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (name, colour) in enumerate(lines):
        top = picture.height + text // 2 + number * line
        draw.rectangle((text // 2, top, text // 2 + text, top + text), fill=tuple(map(int, colour)), outline="black")
        draw.text((2 * text, top + text // 2), name, fill="black", font=font, anchor="lm")
    return canvas
