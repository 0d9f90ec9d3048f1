"""The stages that score: the only ones that open masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from camplug.errors import InputError
from camplug.metrics import Scores, ThresholdSweep
from camplug.wsss.data import SegmentationData, make_voc_palette
from camplug.wsss.recipe.cache import Cache
from camplug.wsss.recipe.data import evenly
from camplug.wsss.recipe.recipe_settings import chosen_on
from camplug.wsss.recipe.stages import OF_MAPS, Stage
from camplug.wsss.seeds import SeedFolder, score_labels, score_seeds
from camplug.wsss.store.identity import hash_photographs
from camplug.wsss.store.jobs import hash_names

TRUTH = "truth"
HERE = "best on these very images, with their masks: optimistic"


def choice_of(stage: Stage, cache: Cache) -> tuple[float | None, str]:
    """The threshold that a stage is to cut at, and in words how it was chosen; None for one that is to be found."""
    value = stage.settings.get("threshold")
    if value is None:
        return None, HERE
    if not isinstance(value, str):
        return float(value), "fixed, given by the recipe"
    done = cache.done(stage.inputs["choice"])
    assert done is not None
    figures, part = done["figures"], chosen_on(value)
    if part is None:
        return figures["threshold"], f"Otsu's method on data.train ({figures['images']} images), no mask used"
    how = f"best on data.{part} ({figures['images_scored']} images, list {figures['list_sha256']})"
    return float(figures["best_threshold_here"]), how


def scored(stage: Stage, cache: Cache, data: SegmentationData, step: Callable[[], None]) -> dict[str, Any]:
    """Compare a product with the masks of a list.

    Raises:
        InputError: no image could be scored; a class that the data does not have.
    """
    product = stage.inputs["product"]
    names = ["background", *data.classes]
    classes = averaged(stage.settings["classes"], names)
    convention = stage.settings["convention"]
    figures: dict[str, Any] = {
        "images_listed": len(data),
        "list_sha256": hash_names(data),
        "photographs_sha256": hash_photographs(data),
        "convention": convention,
        "labels": "predicted by the network" if product.kind == "predictions" else "image labels given",
    }
    folder = cache.folder(product)
    if product.kind in OF_MAPS:
        value, how = choice_of(stage, cache)
        sweep, broken = score_seeds(SeedFolder(folder), data, with_threshold(value), step)
        _check_any(broken, data)
        best, most = sweep.best(convention, classes)
        if value is None or _same_images(stage, cache, figures["photographs_sha256"]):
            how = HERE
        value = best if value is None else value
        matrix = sweep.at(value)
        figures |= {"threshold": value, "threshold_chosen": how, "best_threshold_here": best, "best_miou_here": most}
        figures["sweep"] = swept(sweep, convention, classes)
    else:
        counted, broken = score_labels(folder, data, step)
        _check_any(broken, data)
        matrix = counted.matrix
    figures |= {"images_scored": len(data) - len(broken), **Scores.of(matrix, names, classes).as_dict()}
    if "truth" in stage.settings:
        draw_truth(stage, cache, data)
    return {"images": len(data) - len(broken), "broken": broken, "figures": figures}


def _same_images(stage: Stage, cache: Cache, photographs: str) -> bool:
    """Whether the threshold was chosen on the images that are scored."""
    done = cache.done(stage.inputs["choice"]) if "choice" in stage.inputs else None
    return done is not None and done["figures"].get("photographs_sha256") == photographs


def averaged(classes: list[str] | None, names: list[str]) -> list[int]:
    """The numbers of the classes that means are taken over, the background's among them.

    Raises:
        InputError: a class that the data does not have.
    """
    if classes is None:
        return list(range(len(names)))
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise InputError(f"evaluate.classes names {unknown[0]!r}; the data has {', '.join(names[1:])}.")
    return sorted({0, *(names.index(name) for name in classes)})


def with_threshold(value: float | None) -> Any:
    """The thresholds .01 to .99, and one more where it is not among them."""
    grid = np.arange(1, 100) / 100
    if value is None or np.abs(grid - value).min() <= 1e-9:
        return grid
    return np.sort(np.append(grid, value))


def swept(sweep: ThresholdSweep, convention: Any, classes: list[int]) -> dict[str, list[float | None]]:
    """mIoU at each threshold, as JSON takes it."""
    values = sweep.scores(convention, classes).tolist()
    return {"thresholds": sweep.thresholds.tolist(), "miou": [None if np.isnan(v) else v for v in values]}


def draw_truth(stage: Stage, cache: Cache, data: SegmentationData) -> None:
    """Keep the masks of the images that the report shows."""
    folder = cache.folder(stage) / TRUTH
    for i in evenly(len(data), stage.settings["truth"]):
        try:
            picture = Image.fromarray(data.mask(i))
        except InputError:  # told where it was scored
            continue
        picture.putpalette(make_voc_palette().tobytes())
        file = folder / f"{data.ids[i]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file)


def _check_any(broken: list[tuple[str, str]], data: SegmentationData) -> None:
    if len(broken) == len(data):
        raise InputError(f"none of the {len(data)} images could be scored; the first one: {broken[0][1]}")
