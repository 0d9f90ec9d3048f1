"""Pictures of some images at all stages: photograph, seeds, refined maps, pseudo-labels, predictions, truth."""

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
from camplug.show.overlays import blend
from camplug.wsss.data import SegmentationData, make_voc_palette
from camplug.wsss.data.masks import read_mask
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import spread_indices
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.recipe.stages.evaluate import TRUTH
from camplug.wsss.seeds import SeedFolder

WIDTH = 220  # pixels of a picture in the report
OPACITY = 0.6


class Panel(NamedTuple):
    """Picture of one image at one stage."""

    title: str
    file: Path


def draw_pictures(
    stages: Sequence[Stage], cache: Cache, part: str, count: int, out: Path
) -> list[tuple[str, list[Panel]]]:
    """Draw missing pictures of images at all finished stages into `out`/pictures.

    Args:
        stages: stages of the recipe.
        cache: their folders.
        part: list of images to show.
        count: number of images, spread evenly over the list.
        out: folder of the run.

    Returns:
        Names of the images with their pictures.
    """
    if part not in cache.data:
        return []
    data = cache.data[part]
    done = [stage for stage in stages if cache.load_document(stage) is not None]
    products = [stage for stage in done if get_stage(stage.kind).panel and _has_results(stage, part)]
    truth = next((stage for stage in done if "truth" in stage.settings), None)
    found = []
    for i in spread_indices(len(data), count):
        name = data.ids[i]
        panels = [_draw_panel(out, f"photo {part}", name, "photo", lambda i=i: np.asarray(data.photo(i)))]
        for stage in products:
            draw = _make_drawer(stage, cache, data, i)
            title = get_stage(stage.kind).title_panel(stage)
            panels.append(_draw_panel(out, str(cache.get_key(stage)), name, title, draw))
        if truth is not None:
            file = cache.get_folder(truth) / TRUTH / f"{name}.png"
            draw = _make_labels_drawer(file, data, i)
            panels.append(_draw_panel(out, f"truth {cache.get_key(truth)}", name, "truth", draw))
        found.append((name, [panel for panel in panels if panel is not None]))
    return found


def _has_results(stage: Stage, part: str) -> bool:
    """Return whether a stage has results of a list of images; those of train cover its sub-list."""
    return stage.part == part or (part == "score_on" and stage.part == "train")


def _draw_panel(out: Path, key: str, name: str, title: str, draw: Any) -> Panel | None:
    """Return the picture of one image at one stage; None if it cannot be drawn."""
    file = out / "pictures" / f"{hashlib.sha256(f'{key} {name}'.encode()).hexdigest()[:20]}.png"
    if not file.exists():
        try:
            picture = Image.fromarray(draw())
            height = max(1, round(picture.height * WIDTH / picture.width))
            file.parent.mkdir(parents=True, exist_ok=True)
            save_picture(picture.resize((WIDTH, height), Image.Resampling.BILINEAR), str(file))
        except InputError:  # reported by the stage that lacks it
            return None
    return Panel(title, file)


def _make_drawer(stage: Stage, cache: Cache, data: SegmentationData, i: int) -> Any:
    folder, name = cache.get_folder(stage), data.ids[i]
    if not stage.has_maps:
        return _make_labels_drawer(LabelFolder(folder).get_path(name), data, i)

    def draw() -> NDArray[np.uint8]:
        seed = SeedFolder(folder).load(name)
        heat = seed.to_full_size().max(0, initial=0)
        return np.asarray(overlay(np.asarray(data.photo(i)), heat, opacity=OPACITY, bar=False))

    return draw


def _make_labels_drawer(file: Path, data: SegmentationData, i: int) -> Any:
    return lambda: colour_labels(np.asarray(data.photo(i)), read_mask(file, len(data.classes)))


def colour_labels(photo: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels [H,W] in VOC's colours over a photograph [H,W,3]; background shows the photograph, darker.

    >>> colour_labels(np.full((1, 2, 3), 100, np.uint8), np.array([[0, 1]], np.uint8)).tolist()
    [[[40, 40, 40], [117, 40, 40]]]
    """
    return blend(photo, make_voc_palette()[labels], OPACITY)
