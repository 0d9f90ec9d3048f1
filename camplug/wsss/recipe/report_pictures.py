"""Pictures of images at all stages, from photograph to prediction and truth, and their classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.images.save import save_picture
from camplug.show import overlay
from camplug.show.labels import format_hex, make_class_colors, overlay_labels
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.dataset import IGNORE
from camplug.wsss.data.masks import read_mask
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import spread_indices
from camplug.wsss.recipe.image_checks import load_logits
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.recipe.stages.evaluate import TRUTH
from camplug.wsss.seeds import SeedFolder

WIDTH = 320  # pixels of a picture in the report
OPACITY = 0.6
DRAWING = 2  # number to raise whenever pictures are drawn in another way


class Panel(NamedTuple):
    """Picture of one image at one stage."""

    title: str
    file: Path


class ImageRow(NamedTuple):
    """Image of the report.

    Attributes:
        name: name of the image.
        panels: pictures, the truth beside the last result.
        legend: names and colours of the classes in the pictures of labels.
        given: names of the classes that the image is labelled with; None if they are unknown.
        predicted: classes that the classifier sees, see `find_predicted`; None if they are unknown.
    """

    name: str
    panels: list[Panel]
    legend: list[tuple[str, str]]
    given: list[str] | None
    predicted: dict[str, float] | None

    @property
    def has_pair(self) -> bool:
        """True if the truth follows the last result, which the page shows side by side at any width."""
        return len(self.panels) > 2 and self.panels[-1].title == "truth"

    @property
    def words(self) -> str:
        """Given and predicted classes in words."""
        parts = [] if self.given is None else [f"labelled {', '.join(self.given) or 'with no class'}"]
        if self.predicted is not None:
            seen = ", ".join(f"{name} ({100 * value:.0f} %)" for name, value in self.predicted.items())
            parts.append(f"the classifier sees {seen or 'no class'}")
        return "; ".join(parts).capitalize() + "." if parts else ""


def draw_pictures(stages: Sequence[Stage], cache: Cache, part: str, count: int, out: Path) -> list[ImageRow]:
    """Draw missing pictures of images at all finished stages into `out`/pictures.

    Args:
        stages: stages of the recipe.
        cache: their folders.
        part: list of images to show.
        count: number of images, spread evenly over the list.
        out: folder of the run.
    """
    if part not in cache.data:
        return []
    data = cache.data[part]
    done = [stage for stage in stages if cache.load_document(stage) is not None]
    products = [stage for stage in done if get_stage(stage.kind).panel and _has_results(stage, part)]
    truth = next((stage for stage in done if "truth" in stage.settings), None)
    trained = any(stage.kind == "classifier" for stage in stages)
    seeds = next((SeedFolder(cache.get_folder(stage)) for stage in products if stage.kind == "seeds"), None)
    found = []
    for i in spread_indices(len(data), count):
        name = data.ids[i]
        panels = [_draw_panel(out, f"photo {part}", name, "photo", lambda i=i: np.asarray(data.photo(i)))]
        shown: set[int] = set()
        for stage in products:
            title, folder = get_stage(stage.kind).title_panel(stage), cache.get_folder(stage)
            draw = _make_maps_drawer(folder, data, i) if stage.has_maps else None
            if draw is None:
                draw = _make_labels_drawer(LabelFolder(folder).get_path(name), data, i, shown)
            panels.append(_draw_panel(out, str(cache.get_key(stage)), name, title, draw))
        if truth is not None:
            draw = _make_labels_drawer(cache.get_folder(truth) / TRUTH / f"{name}.png", data, i, shown)
            panels.append(_draw_panel(out, f"truth {cache.get_key(truth)}", name, "truth", draw))
        colours = make_class_colors(len(data.classes))
        legend = [(data.classes[c], format_hex(colours[c])) for c in sorted(shown)]
        drawn = [panel for panel in panels if panel is not None]
        predicted = find_predicted(seeds, name, data.classes) if trained and seeds is not None else None
        found.append(ImageRow(name, drawn, legend, _list_given(data, i), predicted))
    return found


def find_predicted(seeds: SeedFolder, name: str, classes: Sequence[str]) -> dict[str, float] | None:
    """Find the classes that a multi-label classifier sees in an image, by the logits stored with its seed.

    Returns:
        Probabilities above one half by class name, the highest first; None if there are no logits.
    """
    logits = load_logits(seeds, name)
    if logits is None or len(logits) != len(classes):
        return None
    likely = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return {classes[c]: float(likely[c]) for c in np.argsort(-likely, kind="stable") if likely[c] > 1 / 2}


def _list_given(data: SegmentationData, i: int) -> list[str] | None:
    try:
        return [data.classes[c] for c in data.labels(i)] if data.has_labels else None
    except InputError:  # reported by the stage that reads it
        return None


def _has_results(stage: Stage, part: str) -> bool:
    """Return whether a stage has results of a list of images; those of train cover its sub-list."""
    return stage.part == part or (part == "score_on" and stage.part == "train")


def _draw_panel(out: Path, key: str, name: str, title: str, draw: Any) -> Panel | None:
    """Return the picture of one image at one stage; None if it cannot be drawn."""
    file = out / "pictures" / f"{hashlib.sha256(f'{DRAWING} {key} {name}'.encode()).hexdigest()[:20]}.jpg"
    if not file.exists():
        try:
            picture = shrink(Image.fromarray(draw()), Image.Resampling.BILINEAR)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_picture(picture, str(file))
        except InputError:  # reported by the stage that lacks it
            return None
    return Panel(title, file)


def shrink(picture: Image.Image, filter_: Image.Resampling) -> Image.Image:
    """Return a picture at the width of the report."""
    return picture.resize((WIDTH, max(1, round(picture.height * WIDTH / picture.width))), filter_)


def _make_maps_drawer(folder: Path, data: SegmentationData, i: int) -> Any:
    def draw() -> NDArray[np.uint8]:
        heat = SeedFolder(folder).load(data.ids[i]).to_full_size().max(0, initial=0)
        return np.asarray(overlay(np.asarray(data.photo(i)), heat, opacity=OPACITY, bar=False))

    return draw


def _make_labels_drawer(file: Path, data: SegmentationData, i: int, shown: set[int]) -> Any:
    """Return the function that draws labels; their classes are added to `shown` now."""
    try:
        labels = read_mask(file, len(data.classes))
    except InputError as error:
        message = str(error)

        def fail() -> NDArray[np.uint8]:
            raise InputError(message)

        return fail
    shown |= {int(value) - 1 for value in np.unique(labels) if value not in (0, IGNORE)}
    return lambda: draw_labels(data.photo(i), labels, data.classes)


def draw_labels(photo: Image.Image, labels: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Draw labels [H,W] over a photograph at the width of the report, so that outlines are thin and sharp."""
    small = shrink(photo, Image.Resampling.BILINEAR)
    resized = np.asarray(shrink(Image.fromarray(labels), Image.Resampling.NEAREST))
    if labels.shape != (photo.height, photo.width):
        raise InputError("the labels have another size than their photograph.")
    return np.asarray(overlay_labels(np.asarray(small), resized, classes, legend=False))
