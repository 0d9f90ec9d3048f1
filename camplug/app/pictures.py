"""Pictures of the web page: overlays, masks with boxes, and links that save them."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from camplug.images.save import make_file_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.explanation import Explanation


def draw_mask(explanation: Explanation, threshold: float, boxes: bool) -> Image:
    """Draw the map with the outline of its mask, see `Explanation.mask`, and the boxes of the mask's parts."""
    return explanation.overlay(contour=threshold, boxes=threshold if boxes else (), bar=False)


def make_label_picture(explanation: Explanation, threshold: float) -> Image:
    """Return the mask as a palette picture in VOC's colours: 0 background, 1 the class."""
    from PIL import Image as pil

    from camplug.wsss.data.palette import make_voc_palette

    picture = pil.fromarray(explanation.mask(threshold)[0].numpy().astype(np.uint8), "P")
    picture.putpalette(make_voc_palette().tobytes())
    return picture


def make_download_links(explanation: Explanation, threshold: float, boxes: bool) -> str:
    """Return HTML links that save the overlay and the label picture, as PNG files inside of the links."""
    name = make_file_name(f"{explanation.method}_{explanation.names[0]}")
    pictures = {
        "overlay": draw_mask(explanation, threshold, boxes),
        "labels": make_label_picture(explanation, threshold),
    }
    return " ".join(
        f'<a class="camplug-download" download="{html.escape(f"{name}_{kind}.png")}" href="{_encode_png(picture)}">'
        f"Save {kind} (PNG)</a>"
        for kind, picture in pictures.items()
    )


def _encode_png(picture: Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
