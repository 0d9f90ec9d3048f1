"""Pass over a data set before every epoch that computes its prototypes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from camplug.errors import InputError
from camplug.plug import find_first_weight
from camplug.wsss.classifier.crops import ClassifierCrops
from camplug.wsss.classifier.network import Classifier
from camplug.wsss.fpr.collector import Collector
from camplug.wsss.fpr.prototypes import Prototypes
from camplug.wsss.train.processes import get_rank_and_world


class WholePhotograph(NamedTuple):
    """Photograph at several sizes.

    Attributes:
        image: number of the image in the data set.
        views: pixels at several sizes, uint8 [3,h,w]; empty for an unreadable image.
        present: classes, 1 or 0, [C].
        broken: reason why the image is unreadable, or "".
    """

    image: int
    views: list[Tensor]
    present: Tensor
    broken: str = ""


class Photographs(Dataset[WholePhotograph]):
    """Whole photographs of a training, indexed by their numbers in the data set.

    Args:
        crops: crops of the training.
        scales: longer side of every view relative to the crops.
        square: resize views to squares, for networks that take no other shape.
    """

    def __init__(self, crops: ClassifierCrops, scales: Sequence[float], square: bool = False) -> None:
        self.data, self.sides, self.square = crops.data, [max(1, round(crops.crop * s)) for s in scales], square

    def __getitem__(self, image: int) -> WholePhotograph:
        present = torch.zeros(len(self.data.classes))
        try:
            photo, shown = self.data.photo(image), self.data.labels(image)
        except InputError as error:  # left out with a warning
            return WholePhotograph(image, [], present, f"{self.data.ids[image]}: {error}")
        present[list(shown)] = 1
        return WholePhotograph(image, [self._view(photo, side) for side in self.sides], present)

    def _view(self, photo: Image.Image, side: int) -> Tensor:
        width, height = (side if self.square else max(1, round(x * side / max(photo.size))) for x in photo.size)
        pixels = np.array(photo.resize((width, height), Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels).permute(2, 0, 1)


class PrototypePass:
    """Pass of a network over the photographs of a training that computes prototypes from its class maps.

    Photographs are processed one by one in their own aspect ratio, with a longer side as long as the crops. Maps of
    several scales and of the mirrored photograph are averaged. Maps are not stored (see `Collector`). Masks are never
    read, and unreadable photographs are left out with a warning.

    Under torch.distributed every process takes its share of the images, and all get the same prototypes. The network,
    its modes and running statistics, and all random generators stay unchanged.

    Args:
        crops: crops of the training.
        clusters, negatives, theta: see `Collector`.
        groups: see `Collector.prototypes`.
        scales: scales of each photograph; features are averaged on the grid of the first.
        flip: use the mirrored photograph, too.

    Attributes:
        passes: number of passes so far.

    Raises:
        InputError: an option is out of range, or scikit-learn is not installed.
    """

    def __init__(
        self,
        crops: ClassifierCrops,
        *,
        clusters: int = 10,
        negatives: int = 10,
        theta: float = 0.1,
        groups: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
    ) -> None:
        if not scales or not all(0 < s < float("inf") for s in scales):
            raise InputError(f"scales={tuple(scales)}; give at least one, each above 0.")
        self.crops, self.groups, self.scales, self.flip = crops, groups, tuple(scales), flip
        classes = len(crops.data.classes)
        self.collector = partial(Collector, classes, clusters=clusters, negatives=negatives, theta=theta)
        self.collector()  # checks the options now, not in the first epoch
        self.passes = 0

    @torch.no_grad()
    def __call__(self, network: Classifier, normalize: Callable[[Tensor], Tensor], *, workers: int = 0) -> Prototypes:
        """Compute the prototypes of a network with its present weights.

        Args:
            network: classifier.
            normalize: normalisation of pixels [N,3,h,w] in 0 to 255, on the network's device.
            workers: processes that load photographs.

        Returns:
            Prototypes on the CPU.

        Raises:
            InputError: the output of the network is not finite.
        """
        self.passes += 1
        collector = self.collector()
        rank, world = get_rank_and_world()
        weight = find_first_weight(network)
        photographs = Photographs(self.crops, self.scales, not network.preprocess.keep_aspect)
        loader = DataLoader(
            photographs,
            batch_size=None,
            sampler=self.crops.indices[rank::world],
            num_workers=workers,
            pin_memory=weight is not None and weight.is_cuda,
            collate_fn=_identity,
            generator=torch.Generator(),  # leaves the global one unchanged
        )
        with set_eval_mode(network):
            for whole in loader:
                if whole.broken:
                    warnings.warn(whole.broken, stacklevel=2)
                else:
                    self._collect(collector, network, normalize, whole)
        if world > 1:
            states: list[dict[str, object]] = [{}] * world
            dist.all_gather_object(states, collector.state())
            collector = Collector.merge(states)
        return collector.prototypes(self.groups)

    def _collect(
        self, collector: Collector, network: Classifier, normalize: Callable[[Tensor], Tensor], whole: WholePhotograph
    ) -> None:
        """Add the features of one photograph to a collector."""
        features = average_features(network, (normalize(view[None]) for view in whole.views), flip=self.flip)
        collector.add(features, network.class_maps(features), whole.present[None], [whole.image])


def average_features(network: Classifier, views: Iterator[Tensor], *, flip: bool = True) -> Tensor:
    """Average the features of an image over its scales and mirror images, on the grid of the first scale.

    Since head and averaging are linear, `Classifier.class_maps` of the result are the averaged class maps.

    Args:
        network: classifier in evaluation mode.
        views: normalised image in different sizes, [1,3,h,w] each.
        flip: use the mirrored image, too.

    Returns:
        float32 [1,D,h,w].
    """
    total, count = torch.zeros(()), 0
    for x in views:
        found = network.features(torch.cat([x, x.flip(3)]) if flip else x).float()
        if flip:
            found = (found[:1] + found[1:].flip(3)) / 2
        if count and found.shape != total.shape:
            found = F.interpolate(found, total.shape[2:], mode="bilinear", align_corners=True)
        total, count = (total + found if count else found), count + 1
    return total / count


@contextmanager
def set_eval_mode(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode; restore the mode of each module on exit."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _identity(item: Any) -> Any:
    return item
