"""Make the seeds of a data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from camplug.errors import InputError
from camplug.explain.base import Explainer
from camplug.explain.fuse import normalize_map
from camplug.explain.lpcam import list_files
from camplug.explain.photo_inputs import PhotoInput, compute_maps_on_inputs, predict_on_inputs, preprocess_photo
from camplug.explain.registry import expand_recipes
from camplug.models.class_names import find_class_names
from camplug.plug import find_first_weight, unwrap
from camplug.wsss.data import SegmentationData
from camplug.wsss.seeds.predicted_labels import check_logits, check_probability, find_predicted_classes, match_outputs
from camplug.wsss.seeds.settings import SeedSettings, check_batch_setting
from camplug.wsss.store.identity import make_file_digest
from camplug.wsss.store.jobs import Batches, Report, make_results
from camplug.wsss.store.seed_folder import Dtype, Seed, SeedFolder, check_storage, pack_maps

CUDA_BATCH = 8  # photographs that keep a GPU busy


def make_seeds(
    explainer: Explainer,
    data: SegmentationData,
    folder: SeedFolder,
    *,
    dtype: Dtype = "uint8",
    scale: float = 1.0,
    predicted: float | None = None,
    batch: int | None = None,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make the seed of every image of a data set, for its labels or for the predicted classes.

    Existing seeds of the same photograph, labels and settings are kept, and broken images are reported; see
    `camplug.wsss.store.jobs.make_results`. Photographs are read and seeds written in threads of their own. Photographs
    of one size with equally many classes are explained together, wherever they stand in a window of the data. An image
    without labels gets a seed without maps.

    Args:
        explainer: explainer; its model's classes are matched by name. A model without class names must have the classes
            of the data in the same order.
        data: images and labels; masks are not read.
        predicted: probability above which classes are explained, in addition to the most probable one, instead of the
            labels; None: explain the labels.
        folder: prepared folder of the seeds.
        dtype: "uint8" (maps in steps of 1/255) or "float16".
        scale: size of the stored maps relative to the photographs; .25 is the grid of IRN's walk.
        batch: maximum number of photographs explained together, see `choose_batch`.
        shard: (r, n) selects every n-th image, starting from the r-th.
        step: callback after every image.

    Returns:
        Summary of the job.

    Raises:
        InputError: the model lacks a class of the data, or has no class names and another number of classes; the data
            has no labels; `predicted` is not a probability; `batch` is below 1; the folder cannot be written.
        Exception: any other error at the first image, as it may not be the image's fault.
    """
    check_storage(dtype, scale)
    maker = _SeedMaker(explainer, data, predicted, dtype, scale)
    return make_results(
        data,
        folder,
        lambda photo: maker.make([photo])[0],
        read=maker.read,
        get_digests=maker.get_digests,
        shard=shard,
        step=step,
        batches=Batches(choose_batch(explainer.model, batch), _LabelledInput.get_group, maker.make),
    )


def choose_batch(model: nn.Module, batch: int | None) -> int:
    """Return the maximum number of photographs explained together: by default 8 for a model on CUDA, otherwise 1.

    Raises:
        InputError: it is below 1.
    """
    check_batch_setting(batch)
    weight = find_first_weight(unwrap(model))
    return batch or (CUDA_BATCH if weight is not None and weight.is_cuda else 1)


@dataclass(frozen=True)
class _LabelledInput:
    """Photograph as the model sees it, and its classes.

    Attributes:
        classes: classes to explain, unless the predicted ones are.
        size: height and width of the photograph.
        image: input of the model; None if nothing is to be explained.
    """

    classes: tuple[int, ...]
    size: tuple[int, int]
    image: PhotoInput | None

    def get_group(self) -> Hashable:
        """Return what photographs of one batch have in common.

        This includes the number of classes: most methods go backward once per class, for all images of a batch.
        """
        return len(self.classes), None if self.image is None else self.image.get_group()


class _SeedMaker:
    """Callbacks of `make_seeds`; see there."""

    def __init__(
        self, explainer: Explainer, data: SegmentationData, predicted: float | None, dtype: Dtype, scale: float
    ) -> None:
        if predicted is not None:
            check_probability(predicted)
        if predicted is None and not data.has_labels:
            raise InputError("the data has no image labels; explain the predicted classes: --labels predicted.")
        self.explainer, self.data, self.predicted, self.dtype, self.scale = explainer, data, predicted, dtype, scale
        self.outputs, self.num_outputs = match_outputs(explainer, data)

    def read(self, i: int) -> _LabelledInput:
        """Load the photograph and the labels of image i; the photograph's pixels are not kept, to save memory."""
        photo = self.data.photo(i)
        classes = self.data.labels(i) if self.predicted is None else ()
        wanted = bool(classes) or self.predicted is not None
        image = preprocess_photo(self.explainer, photo) if wanted else None
        return _LabelledInput(classes, (photo.height, photo.width), image)

    def make(self, photos: Sequence[_LabelledInput]) -> list[Seed]:
        """Make the seeds of photographs of one group."""
        images = [photo.image for photo in photos if photo.image is not None]
        if not images:
            return [self._pack(torch.zeros(0, *photo.size), (), np.zeros(0, np.float32)) for photo in photos]
        rows = [photo.classes for photo in photos]
        if self.predicted is not None:
            probabilities = predict_on_inputs(self.explainer, images)
            check_logits(probabilities, self.num_outputs, self.data)
            rows = [find_predicted_classes(p, self.outputs, self.predicted) for p in probabilities]
        by_count: dict[int, list[int]] = defaultdict(list)
        for j, row in enumerate(rows):
            by_count[len(row)].append(j)
        seeds: dict[int, Seed] = {}
        for numbers in by_count.values():
            classes = [[self.outputs[c] for c in rows[j]] for j in numbers]
            maps, logits = compute_maps_on_inputs(self.explainer, [images[j] for j in numbers], classes)
            check_logits(logits, self.num_outputs, self.data)
            assert logits is not None
            for j, own, values in zip(numbers, maps, logits[:, self.outputs].numpy(), strict=True):
                seeds[j] = self._pack(own, rows[j], values)
        return [seeds[j] for j in range(len(photos))]

    def _pack(self, maps: torch.Tensor, classes: tuple[int, ...], logits: NDArray[np.float32]) -> Seed:
        """Return the seed of maps at the photograph's size."""
        maps = normalize_map(maps, "max")  # seeds are in [0, 1], explainers may return raw values
        height, width = maps.shape[1:]
        return Seed(pack_maps(maps, self.dtype, self.scale), classes, (height, width), logits)

    def get_digests(self, i: int) -> dict[str, str]:
        """Return the digests of the inputs of image i's seed."""
        labels = {"labels": self.data.label_digest(i)} if self.predicted is None else {}
        return {"photograph": self.data.photo_digest(i), **labels}


def prepare_seeds(
    explainer: Explainer,
    settings: SeedSettings,
    data: SegmentationData,
    open_folder: Callable[[Mapping[str, Any]], SeedFolder],
    *,
    network: Mapping[str, Any],
    predicted: float | None = None,
) -> Callable[..., Report]:
    """Open the folder of the seeds that an explainer makes with some settings; see `make_seeds`.

    Args:
        explainer: explainer that the settings describe.
        settings: settings of the seeds.
        data: images and labels.
        open_folder: function that prepares the folder for results of given settings.
        network: settings that identify the network and how it reads photographs.
        predicted: see `make_seeds`.

    Returns:
        Function of `shard` and `step` that makes the missing seeds.
    """
    classes = {"labels": "given"} if predicted is None else {"labels": "predicted", "probability": predicted}
    own: dict[str, Any] = {name: getattr(settings, name) for name in ("long_side", "dtype", "scale")}
    own["explainer"] = expand_recipes(settings.explainer)
    if files := list_files(explainer):
        own["explainer_files"] = [make_file_digest(file, "file of prototypes") for file in files]
    folder = open_folder({**own, **network, "classes": list(data.classes), **classes})
    options: dict[str, Any] = {"dtype": settings.dtype, "scale": settings.scale, "batch": settings.batch}
    return partial(make_seeds, explainer, data, folder, predicted=predicted, **options)


def find_output_names(explainer: Explainer, data: SegmentationData) -> list[str]:
    """Find the class names of a model, or make "class 0" and so on for its outputs.

    Args:
        explainer: explainer of the model.
        data: photographs; the first readable one is the input that shows the outputs of a model without names.

    Raises:
        InputError: no photograph can be read.
    """
    names = find_class_names(explainer.model, class_names=explainer.class_names)
    if names is not None:
        return names
    for i in range(len(data)):
        try:
            photo = data.photo(i)
        except InputError:
            continue
        outputs = predict_on_inputs(explainer, [preprocess_photo(explainer, photo)])
        return [f"class {c}" for c in range(outputs.shape[1])]
    raise InputError(f"none of the {len(data)} photographs can be read.")
