"""The pass over a data set before every epoch, from which its prototypes come."""

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
    """Image number `image` at several sizes, uint8 [3,h,w]; its classes [C], 1 or 0; why it cannot be read, if so."""

    image: int
    views: list[Tensor]
    present: Tensor
    broken: str = ""


class Photographs(Dataset[WholePhotograph]):
    """The whole photographs of a training, neither cut nor mirrored; asked for by their numbers in the data set.

    Args:
        pictures: what the training runs through.
        scales: the longer side of every view, in crops of the training.
        square: squeeze views into squares, for networks that take no other shape.
    """

    def __init__(self, pictures: ClassifierCrops, scales: Sequence[float], square: bool = False) -> None:
        self.data, self.sides, self.square = pictures.data, [max(1, round(pictures.crop * s)) for s in scales], square

    def __getitem__(self, image: int) -> WholePhotograph:
        present = torch.zeros(len(self.data.classes))
        try:
            photo, shown = self.data.photo(image), self.data.labels(image)
        except InputError as error:  # one broken image does not end a long training
            return WholePhotograph(image, [], present, f"{self.data.ids[image]}: {error}")
        present[list(shown)] = 1
        return WholePhotograph(image, [self._view(photo, side) for side in self.sides], present)

    def _view(self, photo: Image.Image, side: int) -> Tensor:
        width, height = (side if self.square else max(1, round(x * side / max(photo.size))) for x in photo.size)
        pixels = np.array(photo.resize((width, height), Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels).permute(2, 0, 1)


class PrototypePass:
    """Runs a network over the photographs of a training, and makes prototypes of what its class maps light up.

    Every photograph goes through on its own, in its own shape, the longer side as long as the training's crops. Maps of
    several scales and of the mirrored photograph are averaged. No map outlives its image; `Collector` tells what is
    kept. Masks are never read, and broken photographs are left out with a warning.

    Under torch.distributed every process takes its share of the images, and all get the same prototypes. Nothing
    changes: not the network, its modes and its running statistics, nor the state of any generator of random numbers.

    Args:
        pictures: what the training runs through.
        clusters, negatives, theta: see `Collector`.
        groups: see `Collector.prototypes`.
        scales: of each photograph; features are averaged on the grid of the first.
        flip: the mirrored photograph, too.

    Attributes:
        passes: how many were made.

    Raises:
        InputError: an option out of range, or scikit-learn is not installed.
    """

    def __init__(
        self,
        pictures: ClassifierCrops,
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
        self.pictures, self.groups, self.scales, self.flip = pictures, groups, tuple(scales), flip
        classes = len(pictures.data.classes)
        self.collector = partial(Collector, classes, clusters=clusters, negatives=negatives, theta=theta)
        self.collector()  # refuses now what it would refuse after the start
        self.passes = 0

    @torch.no_grad()
    def __call__(self, network: Classifier, normalize: Callable[[Tensor], Tensor], *, workers: int = 0) -> Prototypes:
        """The prototypes of a network as it is now.

        Args:
            network: the classifier.
            normalize: from pixels [N,3,h,w] in 0 to 255 to what the network reads, on its device.
            workers: processes that read photographs beside this one.

        Returns:
            Prototypes on the CPU.

        Raises:
            InputError: the network puts out what is no number.
        """
        self.passes += 1
        collector = self.collector()
        rank, world = get_rank_and_world()
        weight = find_first_weight(network)
        photographs = Photographs(self.pictures, self.scales, not network.preprocess.keep_aspect)
        loader = DataLoader(
            photographs,
            batch_size=None,
            sampler=self.pictures.indices[rank::world],
            num_workers=workers,
            pin_memory=weight is not None and weight.is_cuda,
            collate_fn=_identity,
            generator=torch.Generator(),  # the global one stays as it is
        )
        with set_eval_mode(network):
            for whole in loader:
                if whole.broken:
                    warnings.warn(whole.broken, stacklevel=2)
                else:
                    self._take(collector, network, normalize, whole)
        if world > 1:
            states: list[dict[str, object]] = [{}] * world
            dist.all_gather_object(states, collector.state())
            collector = Collector.merge(states)
        return collector.prototypes(self.groups)

    def _take(
        self, collector: Collector, network: Classifier, normalize: Callable[[Tensor], Tensor], whole: WholePhotograph
    ) -> None:
        """One image; its maps are gone when this ends."""
        features = average_features(network, (normalize(view[None]) for view in whole.views), flip=self.flip)
        collector.add(features, network.class_maps(features), whole.present[None], [whole.image])


def average_features(network: Classifier, views: Iterator[Tensor], *, flip: bool = True) -> Tensor:
    """Features of an image, averaged over its scales and mirror images, on the grid of the first scale.

    Head and averaging are linear: `Classifier.class_maps` of these are the averaged class maps.

    Args:
        network: in evaluation mode.
        views: the normalised image in different sizes, [1,3,h,w] each.
        flip: the mirrored image, too.

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
    """A network in evaluation mode; afterwards each of its parts is in the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _identity(item: Any) -> Any:
    return item
