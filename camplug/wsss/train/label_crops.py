"""Training crops of the images that have label pictures."""

from __future__ import annotations

from functools import partial

from camplug.errors import InputError
from camplug.images.preprocess import Preprocess
from camplug.wsss.data import SegmentationData
from camplug.wsss.store.identity import make_file_table, make_photograph_table
from camplug.wsss.store.jobs import Report
from camplug.wsss.store.label_folder import LabelFolder
from camplug.wsss.train.crops import LabelCrops, load_label_picture
from camplug.wsss.train.folder import find_labelled
from camplug.wsss.train.settings import TrainSettings

Broken = list[tuple[str, str]]


def make_label_crops(
    data: SegmentationData,
    labels: LabelFolder,
    training: TrainSettings,
    preprocess: Preprocess,
    *,
    stride: int = 1,
    allow_missing: bool = False,
) -> LabelCrops:
    """Make the crops of all images, to be restricted to those of `find_trainable`.

    Args:
        data: photographs.
        labels: folder of label pictures; they may be made later.
        training: settings of the crops.
        preprocess: normalisation of photographs.
        stride: stride of the network's grid.
        allow_missing: see `TrainOptions`.

    Raises:
        InputError: the crop is no multiple of the stride.
    """
    return LabelCrops(
        data,
        partial(load_label_picture, labels.renumber(data.classes), data),
        preprocess.normalize,
        crop=training.crop,
        scales=training.scales,
        stride=stride,
        long_side=training.long_side,
        seed=training.seed,
        allow_missing=allow_missing,
    )


def find_trainable(
    data: SegmentationData, labels: LabelFolder, readable: list[int], unreadable: Broken, made: Report | None = None
) -> tuple[list[int], Broken]:
    """Find the readable images with labels.

    Args:
        data: photographs.
        labels: folder of label pictures.
        readable: numbers of the readable photographs.
        unreadable: names of the others, with the reasons.
        made: report on making the labels; those that failed now may exist from an earlier run.

    Returns:
        Numbers of these images, and the names of all others with the reasons.

    Raises:
        InputError: no image is left.
    """
    labelled, broken = find_labelled(labels, data)
    if made is not None:
        broken, failed = made.broken, {name for name, _ in made.broken}
        labelled = [i for i in labelled if data.ids[i] not in failed]
    indices = sorted({*labelled} & {*readable})
    if not indices:
        first = (broken or unreadable)[0][1]
        raise InputError(f"none of the {len(data)} images has labels to train on; the first one: {first}")
    return indices, [*broken, *unreadable]


def compute_label_tables(data: SegmentationData, labels: LabelFolder) -> dict[str, dict[str, str]]:
    """Compute the digests of photographs and label pictures by image name."""
    return {"photographs": make_photograph_table(data), "pictures": make_file_table(data.ids, labels.get_path)}
