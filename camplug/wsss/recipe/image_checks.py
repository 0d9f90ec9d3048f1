"""Checks of results without masks: empty and flooded labels, and the classifier's scores against the image labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from camplug.errors import InputError
from camplug.wsss.data import SegmentationData
from camplug.wsss.data.dataset import IGNORE
from camplug.wsss.data.masks import read_mask
from camplug.wsss.pseudo import LabelFolder
from camplug.wsss.recipe.context import StageContext
from camplug.wsss.recipe.stage import Stage, get_stage
from camplug.wsss.seeds import SeedFolder

FLOODED = 0.02  # share of background below which an image counts as flooded
MOST_NAMES = 20  # names that are listed


def check_results(stage: Stage, context: StageContext) -> dict[str, Any]:
    """Check the finished results of a stage.

    Returns:
        "labels_check" (see `check_labels`) for stages that make labels, "classifier" (see `score_classifier`) for seeds
        of images with labels, or nothing.
    """
    kind = get_stage(stage.kind)
    if stage.part is None or kind.panel is None:
        return {}
    data, folder = context.view(stage), context.cache.get_folder(stage)
    if kind.output == "labels":
        return {"labels_check": check_labels(folder, data)}
    found = score_classifier(folder, data) if stage.kind == "seeds" and data.has_labels else None
    return {} if found is None else {"classifier": found}


def check_labels(folder: Path, data: SegmentationData) -> dict[str, Any]:
    """Find images whose labels show no object although the image has one, or hardly any background.

    Args:
        folder: folder of the labels.
        data: images; where they have no labels, every image counts as having an object.

    Returns:
        "images": number of images with labels; "objects": mean share of pixels of objects; "empty" and "flooded":
        number of images without any pixel of an object, and with less than 2 % of background; "empty_images" and
        "flooded_images": names of the first 20.
    """
    labels = LabelFolder(folder)
    shares: list[float] = []
    empty: list[str] = []
    flooded: list[str] = []
    for i, name in enumerate(data.ids):
        try:
            known = read_mask(labels.get_path(name), len(data.classes))
            has_object = not data.has_labels or bool(data.labels(i))
        except InputError:  # reported by the stage
            continue
        known = known[known != IGNORE]
        share = float(np.mean(known != 0)) if known.size else 0.0
        shares.append(share)
        if share == 0 and has_object:
            empty.append(name)
        elif share > 1 - FLOODED:
            flooded.append(name)
    mean = float(np.mean(shares)) if shares else None
    found: dict[str, Any] = {"images": len(shares), "objects": mean, "empty": len(empty), "flooded": len(flooded)}
    return found | {"empty_images": empty[:MOST_NAMES], "flooded_images": flooded[:MOST_NAMES]}


def score_classifier(folder: Path, data: SegmentationData) -> dict[str, Any] | None:
    """Compute the average precision of the logits that are stored with seeds, against the image labels.

    Args:
        folder: folder of the seeds.
        data: images with labels.

    Returns:
        "images": number of images; "mean_average_precision": mean over the classes that an image shows and another
        lacks; "average_precision": by class name. None if there is no such class.
    """
    seeds = SeedFolder(folder)
    logits: list[NDArray[np.floating[Any]]] = []
    present: list[tuple[int, ...]] = []
    for i, name in enumerate(data.ids):
        found = load_logits(seeds, name)
        if found is not None and len(found) == len(data.classes):
            logits.append(found)
            present.append(data.labels(i))
    scores = compute_average_precisions(logits, present, data.classes)
    if not scores:
        return None
    return {
        "images": len(logits),
        "mean_average_precision": float(np.mean(list(scores.values()))),
        "average_precision": scores,
    }


def load_logits(seeds: SeedFolder, name: str) -> NDArray[np.floating[Any]] | None:
    """Return the logits that are stored with a seed; None if it is missing or damaged."""
    try:
        return np.asarray(seeds.load(name).logits)
    except InputError:
        return None


def compute_average_precisions(
    logits: Sequence[NDArray[np.floating[Any]]], present: Sequence[tuple[int, ...]], names: Sequence[str]
) -> dict[str, float]:
    """Compute the average precision of each class that an image shows and another lacks.

    Args:
        logits: logits of the classes, for each image.
        present: indices of the classes in each image.
        names: class names.

    >>> compute_average_precisions([np.array([2.0]), np.array([1.0]), np.array([0.0])], [(), (0,), ()], ["cat"])
    {'cat': 0.5}
    """
    from torchmetrics.functional.classification import binary_average_precision  # 1 s

    found = {}
    for c, name in enumerate(names):
        truth = [c in classes for classes in present]
        if any(truth) and not all(truth):
            likely = torch.tensor([float(row[c]) for row in logits], dtype=torch.float64).sigmoid()
            found[name] = float(binary_average_precision(likely, torch.tensor(truth, dtype=torch.long)))
    return found
