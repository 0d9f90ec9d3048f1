"""Recipe for data of one's own: a look at the data, sizes and epochs that suit it, and the text of the recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from camplug.errors import InputError
from camplug.wsss.recipe.data import spread_indices
from camplug.wsss.recipe.plan import Row

if TYPE_CHECKING:
    from camplug.wsss.data import SegmentationData

LOOKED_AT = 50  # photographs whose size is read
FEW = 10  # images of a class below which its maps are poor
CLASSIFIER_SAMPLES, IRN_SAMPLES, DEEPLAB_SAMPLES = 12_500, 3_100, 22_000  # those of the recipe voc12_animals
MOST_EPOCHS = {"classifier": 20, "irn": 4, "deeplab": 30}
LEAST_EPOCHS = {"classifier": 4, "irn": 1, "deeplab": 5}
BATCHES = {"classifier": 16, "irn": 8, "deeplab": 12}
STAGES = {"classifier": "classifier", "affinities": "irn", "deeplab": "deeplab"}  # stages of trainings in a plan


@dataclass(frozen=True)
class DataSummary:
    """Summary of a data set.

    Attributes:
        images: number of images.
        size: median height and width of a sample of the photographs.
        classes: class names with the number of images that show each.
        unlabelled: number of images without a class.
        broken: number of photographs of the sample that cannot be read.
        has_masks: True if the data set has masks.
        problem: reason why the last of the broken ones cannot be read.
    """

    images: int
    size: tuple[int, int]
    classes: dict[str, int]
    unlabelled: int
    broken: int
    has_masks: bool
    problem: str = ""

    def list_warnings(self) -> list[str]:
        """Return what may spoil a training, one sentence each."""
        found = []
        rare = [f"{name} ({count})" for name, count in self.classes.items() if count < FEW]
        if rare:
            found.append(f"fewer than {FEW} images show {', '.join(rare)}; expect poor masks of these classes.")
        everywhere = [name for name, count in self.classes.items() if count == self.images]
        if everywhere:
            found.append(
                f"every image shows {', '.join(everywhere)}: what tells a class apart is learned from images without "
                "it; add some."
            )
        if self.broken:
            looked_at = min(self.images, LOOKED_AT)
            found.append(f"{self.broken} of {looked_at} photographs looked at cannot be read: {self.problem}")
        return found


@dataclass(frozen=True)
class StarterSettings:
    """Settings that a recipe begins with.

    Attributes:
        long_side: length of the longer side of the photographs in maps and predictions.
        epochs: epochs of the trainings of classifier, irn and deeplab.
    """

    long_side: int
    epochs: dict[str, int]


def summarize_data(data: SegmentationData) -> DataSummary:
    """Count images, classes and sizes of a data set; masks are not opened.

    Raises:
        InputError: the data has no image labels, or no photograph of the sample can be read.
    """
    if not data.has_labels:
        raise InputError(
            "these are photographs without image labels, and a training needs them: write a labels.csv with the lines "
            "image,labels and a.jpg,cat;dog and give it as the second argument, or sort the photographs into one "
            "subfolder per class."
        )
    counts, unlabelled = np.zeros(len(data.classes), int), 0
    for i in range(len(data)):
        shown = list(data.labels(i))
        counts[shown] += 1
        unlabelled += not shown
    sizes, error = [], None
    sample = spread_indices(len(data), LOOKED_AT)
    for i in sample:
        try:
            photo = data.photo(i)
        except InputError as found:
            error = found
        else:
            sizes.append((photo.height, photo.width))
    if not sizes:
        raise InputError(f"none of {len(sample)} photographs can be read; the last: {error}")
    height, width = (round(float(side)) for side in np.median(sizes, axis=0))
    classes = dict(zip(data.classes, counts.tolist(), strict=True))
    return DataSummary(
        len(data), (height, width), classes, unlabelled, len(sample) - len(sizes), data.has_masks, str(error or "")
    )


def choose_settings(summary: DataSummary, device: str) -> StarterSettings:
    """Choose sizes by the photographs and the device, and epochs such that trainings see enough crops.

    >>> choose_settings(DataSummary(1000, (375, 500), {"cat": 1000}, 0, 0, False), "cpu")
    StarterSettings(long_side=320, epochs={'classifier': 13, 'irn': 4, 'deeplab': 22})
    """
    limit = 512 if device.startswith("cuda") else 320
    side = max(128, min(limit, max(summary.size)) // 32 * 32)
    wanted = {"classifier": CLASSIFIER_SAMPLES, "irn": IRN_SAMPLES, "deeplab": DEEPLAB_SAMPLES}
    epochs = {
        name: min(MOST_EPOCHS[name], max(LEAST_EPOCHS[name], math.ceil(samples / summary.images)))
        for name, samples in wanted.items()
    }
    return StarterSettings(side, epochs)


def fit_epochs(settings: StarterSettings, rows: Sequence[Row], seconds: float) -> tuple[StarterSettings, float | None]:
    """Lower the epochs until a run takes no longer than a time, as far as that is possible.

    Args:
        settings: settings of the planned recipe.
        rows: plan with estimates, see `camplug.wsss.recipe.plan_recipe`.
        seconds: wanted time.

    Returns:
        The settings, and the estimated seconds with them; None if a stage could not be measured.
    """
    if any(row.seconds is None for row in rows):
        return settings, None
    spent = {STAGES.get(row.stage, row.stage): row.seconds or 0.0 for row in rows}
    others = sum(value for stage, value in spent.items() if stage not in settings.epochs)
    trained = {name: spent.get(name, 0.0) for name in settings.epochs}
    factor = min(1.0, max(0.0, seconds - others) / max(sum(trained.values()), 1e-9))
    epochs = {name: max(LEAST_EPOCHS[name], int(count * factor)) for name, count in settings.epochs.items()}
    epochs = {name: min(count, settings.epochs[name]) for name, count in epochs.items()}
    total = others + sum(trained[name] * epochs[name] / settings.epochs[name] for name in epochs)
    return replace(settings, epochs=epochs), total


def format_recipe(
    train: dict[str, Any],
    summary: DataSummary,
    settings: StarterSettings,
    *,
    model: str = "demo",
    val: dict[str, Any] | None = None,
    facts: Sequence[str] = (),
) -> str:
    """Return the text of a recipe with comments.

    Args:
        train: entry data.train, see `camplug.wsss.recipe.data.ImageList`.
        summary: summary of the training images.
        settings: sizes and epochs.
        model: base network of the classifier.
        val: entry data.val; None for none.
        facts: lines for the comment at the top.
    """
    side, usable = settings.long_side, max(1, summary.images - summary.unlabelled - summary.broken)
    crop = max(96, side * 4 // 5 // 32 * 32)
    width = side * 7 // 10 // 32 * 32
    counts = "; ".join(f"{name} {count}" for name, count in summary.classes.items())
    comments = [
        f"{summary.images} images of about {summary.size[1]}x{summary.size[0]}, {len(summary.classes)} classes",
        f"images per class: {counts}",
        *summary.list_warnings(),
        *facts,
    ]
    entries = {"train": train} | ({} if val is None else {"val": val})
    return _load_template().substitute(
        title=json.dumps(f"CAM, IRN, DeepLab on {_name_data(train['data'])}"),
        comments="\n".join("# " + line.replace("\n", " ") for line in comments),
        data="\n".join(f"  {name}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in entries.items()),
        model=json.dumps(model),
        classifier_crop=max(96, width),
        side=side,
        crop=crop,
        products="[train]" if val is None else "[train, val]",
        masks=_describe_masks(summary.has_masks, val is not None),
        **{f"{name}_epochs": count for name, count in settings.epochs.items()},
        **{f"{name}_batch": min(count, usable) for name, count in BATCHES.items()},
    )


def _name_data(data: str) -> str:
    """Return a short name of a data set: the last folder of its path."""
    return PurePath(data.partition("?")[0].partition(":")[2] or data).name or data


def _load_template() -> Template:
    file = Path(__file__).parent / "recipes" / "starter.txt"
    return Template(file.read_text(encoding="utf-8"))


def _describe_masks(train: bool, val: bool) -> str:
    if train or val:
        return "masks are opened here, and nowhere else: every product is scored where there are any"
    return "there are no masks: nothing can be scored, and the report shows pictures to judge by eye"
