"""Gallery of explained photographs: one HTML file that holds its pictures and needs no server."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.explanation import Explanation

SIDE = 512
"""Largest side of a picture in pixels."""
QUALITY = 82
"""Quality of the WebP pictures, from 0 to 100."""


class MapPicture(NamedTuple):
    """Overlay of one class.

    Attributes:
        name: class name, "against ..." for negative evidence.
        probability: such as "98.2% (softmax)"; empty without logits.
        source: data URI of the picture.
    """

    name: str
    probability: str
    source: str


class GalleryItem(NamedTuple):
    """Photograph with its overlays.

    Attributes:
        name: name of the photograph.
        source: data URI of the photograph.
        maps: overlays of the explained classes.
    """

    name: str
    source: str
    maps: list[MapPicture]


@dataclass
class Gallery:
    """Photographs and overlays, encoded as they are added, so that no full-size picture is kept.

    Attributes:
        title: heading of the page.
        items: photographs in the order in which they were added.
        broken: names of photographs that could not be explained, with the reasons.
    """

    title: str = "Explanations"
    items: list[GalleryItem] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, explanation: Explanation, **style: Any) -> None:
        """Add a photograph and the overlays of its explained classes.

        Args:
            name: name of the photograph.
            explanation: its maps.
            style: look of the overlays, see `Explanation.overlay`.

        Raises:
            InputError: the style is wrong, see `camplug.show.overlay`.
        """
        maps = []
        for k in range(len(explanation)):
            title, _, probability = explanation.title(k).partition("\n")
            picture = explanation.overlay(k, **{"bar": False, **style})
            maps.append(MapPicture(title, probability, encode_picture(shrink_picture(picture))))
        self.items.append(GalleryItem(name, encode_picture(shrink_picture(explanation.image)), maps))

    def count_classes(self) -> dict[str, int]:
        """Return the explained classes with their numbers of photographs, the most frequent first."""
        counts: dict[str, int] = {}
        for item in self.items:
            for name in dict.fromkeys(m.name for m in item.maps):
                counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def render(self) -> str:
        """Return the HTML page; it loads nothing from anywhere."""
        from jinja2 import Environment, PackageLoader  # a requirement of PyTorch

        environment = Environment(
            loader=PackageLoader("camplug.show", ""), autoescape=True, trim_blocks=True, keep_trailing_newline=True
        )
        return environment.get_template("gallery.html.j2").render(
            title=self.title, items=self.items, broken=self.broken, classes=self.count_classes(), side=SIDE
        )


def shrink_picture(picture: Image, side: int = SIDE) -> Image:
    """Return a picture whose larger side is at most `side` pixels, of the same proportions."""
    if max(picture.size) <= side:
        return picture
    small = picture.copy()
    small.thumbnail((side, side))
    return small


def encode_picture(picture: Image, quality: int = QUALITY) -> str:
    """Return a picture as the data URI of a WebP file."""
    buffer = BytesIO()
    picture.save(buffer, format="WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
