"""Some images through all stages: photograph, seeds, refined maps, pseudo-labels, predictions, truth."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camplug.errors import InputError
from camplug.explain.explanation import save_picture
from camplug.show import overlay
from camplug.wsss.data import SegmentationData, make_voc_palette
from camplug.wsss.data.masks import read_mask
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import evenly
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.recipe.stages.evaluate import TRUTH
from camplug.wsss.seeds import SeedFolder

WIDTH = 220  # pixels of a picture in the report
OPACITY = 0.6


class Panel(NamedTuple):
    """A picture of one image at one stage."""

    title: str
    file: Path


def pictured(stages: Sequence[Stage], cache: Cache, part: str, count: int, out: Path) -> list[tuple[str, list[Panel]]]:
    """By image name, its pictures at all stages that are finished; drawn into `out`/pictures where they are not yet.

    Args:
        stages: of the recipe.
        cache: their folders.
        part: the list whose images are shown.
        count: how many, spread evenly over the list.
        out: folder of the run.
    """
    if part not in cache.data:
        return []
    data = cache.data[part]
    products = [s for s in stages if get_stage(s.kind).panel and cache.done(s) is not None and _shows(s, part)]
    truth = next((s for s in stages if "truth" in s.settings and cache.done(s) is not None), None)
    found = []
    for i in evenly(len(data), count):
        name = data.ids[i]
        panels = [_panel(out, f"photo {part}", name, "photo", lambda i=i: np.asarray(data.photo(i)))]
        for stage in products:
            draw = _drawer(stage, cache, data, i)
            panels.append(_panel(out, str(cache.key(stage)), name, get_stage(stage.kind).title_panel(stage), draw))
        if truth is not None:
            file = cache.folder(truth) / TRUTH / f"{name}.png"
            draw = _labels_drawer(file, data, i)
            panels.append(_panel(out, f"truth {cache.key(truth)}", name, "truth", draw))
        found.append((name, [panel for panel in panels if panel is not None]))
    return found


def _shows(stage: Stage, part: str) -> bool:
    """Whether a stage's products are of these images: train's are those of its sub-list, too."""
    return stage.part == part or (part == "score_on" and stage.part == "train")


def _panel(out: Path, key: str, name: str, title: str, draw: Any) -> Panel | None:
    """The picture of one image at one stage; None where it cannot be drawn."""
    file = out / "pictures" / f"{hashlib.sha256(f'{key} {name}'.encode()).hexdigest()[:20]}.png"
    if not file.exists():
        try:
            picture = Image.fromarray(draw())
            height = max(1, round(picture.height * WIDTH / picture.width))
            file.parent.mkdir(parents=True, exist_ok=True)
            save_picture(picture.resize((WIDTH, height), Image.Resampling.BILINEAR), str(file))
        except InputError:  # told by the stage that missed it
            return None
    return Panel(title, file)


def _drawer(stage: Stage, cache: Cache, data: SegmentationData, i: int) -> Any:
    folder, name = cache.folder(stage), data.ids[i]
    if not stage.has_maps:
        return _labels_drawer(LabelFolder(folder).get_path(name), data, i)

    def draw() -> NDArray[np.uint8]:
        seed = SeedFolder(folder).load(name)
        heat = seed.to_full_size().max(0, initial=0)
        return np.asarray(overlay(np.asarray(data.photo(i)), heat, opacity=OPACITY, bar=False))

    return draw


def _labels_drawer(file: Path, data: SegmentationData, i: int) -> Any:
    return lambda: coloured(np.asarray(data.photo(i)), read_mask(file, len(data.classes)))


def coloured(photo: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels [H,W] in VOC's colours over a photograph [H,W,3]; background shows the photograph, darker.

    >>> coloured(np.full((1, 2, 3), 100, np.uint8), np.array([[0, 1]], np.uint8)).tolist()
    [[[40, 40, 40], [117, 40, 40]]]
    """
    mixed = (1 - OPACITY) * photo + OPACITY * make_voc_palette()[labels]
    return np.asarray(mixed.round(), np.uint8)
