"""Segmentation of photographs by a trained network: fusion of several views and a refinement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from camplug.errors import InputError
from camplug.images.geometry import scale_size
from camplug.images.photo import read_photo
from camplug.plug import find_first_weight, send_to
from camplug.settings import to_plain
from camplug.wsss.class_names import match_known_classes, renumber_labels
from camplug.wsss.crf import Refinement, refine_scores
from camplug.wsss.crf.settings import resolve_refinement
from camplug.wsss.crf.tensors import choose_device
from camplug.wsss.data import SegmentationData
from camplug.wsss.deeplab.network import DeepLab
from camplug.wsss.store.jobs import Report, make_results
from camplug.wsss.store.label_folder import LabelFolder

UNLIKELY = 0.01
Fuse: TypeAlias = Literal["mean", "max"]


class Segmenter:
    """Segmentation of photographs.

    Each view (a scale, mirrored or not) is resized (bicubic, as in training) and padded to whole positions at the right
    and the bottom by repeating the edge; its logits are sampled at the centres of the photograph's pixels (bilinear),
    where all views are fused.

    Args:
        network: network, set to evaluation mode; runs on its device.
        scales: factors of the photograph's size.
        flip: use each view's mirror image, too.
        fuse: "mean" of the views' probabilities, or "max": the largest logit of each class, then softmax, as in the
            code of the second DeepLab.
        crf: name in `camplug.wsss.crf.REFINEMENTS` ("deeplab", "par"), settings of a dense CRF or of pixel-adaptive
            refinement, or None. It starts from the probabilities and leaves out classes below 0.01 at every pixel.
        long_side: length of the longer side to which photographs are resized first, as in training; None keeps their
            size.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(  # noqa: PLR0917
        self,
        network: DeepLab,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        fuse: Fuse = "mean",
        crf: str | Refinement | None = None,
        long_side: int | None = None,
    ) -> None:
        if not scales or not all(0 < scale <= 8 for scale in scales):
            raise InputError(f"scales={tuple(scales)}; give factors above 0, up to 8, such as 0.75,1,1.25.")
        if fuse not in get_args(Fuse):
            raise InputError(f"fuse={fuse!r}; allowed are {', '.join(get_args(Fuse))}.")
        if long_side is not None and long_side < 1:
            raise InputError(f"long_side={long_side}; give at least 1.")
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.scales, self.flip, self.fuse = tuple(map(float, scales)), flip, fuse
        self.crf, self.long_side = resolve_refinement(crf), long_side

    @property
    def classes(self) -> list[str]:
        """Names of the network's foreground classes."""
        return self.network.classes

    def scores(self, photo: Any, classes: Collection[int] | None = None) -> NDArray[np.float32]:
        """Compute the probabilities [K+1,H,W] of a photograph's pixels, background first, refined if wanted.

        Args:
            photo: RGB uint8 [H,W,3], or a path, PIL image, bytes or file object, see `camplug.images.photo.read_photo`.
            classes: possible classes, counted from 0 without the background: all others get 0, the rest sums to 1. None
                allows all.

        Raises:
            InputError: the photograph has another shape or dtype, or the network does not have a class.
        """
        photo = _to_array(photo)
        there = self._fuse(photo, classes)
        probabilities: NDArray[np.float32] = there.cpu().numpy()
        return probabilities if self.crf is None else _refine(photo, probabilities, self.crf, there.device)

    def __call__(self, photo: Any, classes: Collection[int] | None = None) -> NDArray[np.uint8]:
        """Return the labels [H,W] of a photograph, uint8: 0 background, c + 1 for class c; see `scores`."""
        if self.crf is None:  # copy labels only from the device
            found: NDArray[np.uint8] = self._fuse(_to_array(photo), classes).argmax(0).byte().cpu().numpy()
            return found
        return np.asarray(self.scores(photo, classes).argmax(0), np.uint8)

    def _fuse(self, photo: NDArray[np.uint8], classes: Collection[int] | None) -> Tensor:
        """Compute the probabilities [K+1,H,W] before the CRF, float32, on the network's device; see `scores`."""
        known = len(self.network.classes)
        if classes is not None and not all(0 <= c < known for c in classes):
            raise InputError(f"classes={sorted(classes)}; the network has {known}, counted from 0.")
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise InputError(f"the photograph is {photo.dtype} {list(photo.shape)}; give RGB uint8 [H,W,3].")
        views = (logits for scale in self.scales for logits in self._compute_views(photo, scale))
        fused: Tensor
        if self.fuse == "mean":  # one view in memory at a time
            fused = reduce(torch.add, (logits.softmax(0) for logits in views))
            fused = fused / (len(self.scales) * (2 if self.flip else 1))
        else:
            fused = reduce(torch.maximum, views).softmax(0)
        if classes is not None:
            kept = torch.tensor([c == 0 or c - 1 in classes for c in range(known + 1)])
            fused = torch.where(send_to(kept, fused.device)[:, None, None], fused, 0)
            fused = fused / fused.sum(0).clamp_min(torch.finfo(torch.float32).tiny)
        return fused

    @torch.no_grad()
    def _compute_views(self, photo: NDArray[np.uint8], scale: float) -> list[Tensor]:
        """Compute the logits [K+1,H,W] of one scale, without and with mirroring."""
        height, width = photo.shape[:2]
        factor = scale * (1.0 if self.long_side is None else self.long_side / max(height, width))
        size = scale_size((height, width), factor)
        picture = Image.fromarray(photo)
        if size != (height, width):
            picture = picture.resize(size[::-1], Image.Resampling.BICUBIC)
        weight = find_first_weight(self.network)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        x = self.network.preprocess.normalize(pixels if weight is None else send_to(pixels, weight.device))
        if self.flip:
            x = torch.cat([x, x.flip(-1)])
        stride = self.network.stride
        filled = F.pad(x, (0, -size[1] % stride, 0, -size[0] % stride), mode="replicate")
        filled = filled if weight is None else filled.to(weight.dtype)
        logits = self.network(filled.contiguous(memory_format=torch.channels_last)).float()
        full = sample_grid(logits, size, (filled.shape[2], filled.shape[3]), (height, width))
        return [full[0], full[1].flip(-1)] if self.flip else [full[0]]


def _to_array(photo: Any) -> NDArray[np.uint8]:
    """Return a photograph as an array; arrays are checked where they are used."""
    return photo if isinstance(photo, np.ndarray) else np.asarray(read_photo(photo))


def _refine(
    photo: NDArray[np.uint8], probabilities: NDArray[np.float32], crf: Refinement, device: torch.device
) -> NDArray[np.float32]:
    """Refine probabilities; classes unlikely at every pixel are left out to save time and get 0."""
    peaks = probabilities.max((1, 2))
    likely = peaks >= min(UNLIKELY, float(peaks.max()))
    refined = np.zeros_like(probabilities)
    refined[likely] = refine_scores(photo, probabilities[likely], crf, device=choose_device(device))
    return refined


def sample_grid(grid: Tensor, shown: tuple[int, int], covered: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Sample maps on a grid at the centres of a picture's pixels (bilinear, the edge repeated).

    Args:
        grid: maps of a view, [N,C,h,w].
        shown: (height, width) of the part of the view, from its top left, that is the picture.
        covered: (height, width) of the view.
        size: (height, width) of the picture.

    Returns:
        [N,C,height,width].

    >>> sample_grid(torch.tensor([[[[0.0, 1.0]]]]), (4, 6), (4, 8), (2, 3))
    tensor([[[[0.0000, 0.2500, 0.7500],
              [0.0000, 0.2500, 0.7500]]]])
    """
    places = []
    for axis in (0, 1):
        pixels = (torch.arange(size[axis], device=grid.device, dtype=grid.dtype) + 0.5) / size[axis]
        places.append(2 * pixels * shown[axis] / covered[axis] - 1)
    rows, columns = torch.meshgrid(*places, indexing="ij")
    where = torch.stack([columns, rows], -1)[None].expand(len(grid), -1, -1, -1)
    return F.grid_sample(grid, where, mode="bilinear", padding_mode="border", align_corners=False)


def prepare_predictions(
    segmenter: Segmenter,
    data: SegmentationData,
    open_folder: Callable[[dict[str, Any]], LabelFolder],
    *,
    weights: str,
    labels: Mapping[str, Any] | None = None,
) -> Callable[..., Report]:
    """Open the folder of the label pictures that a segmenter makes; see `make_predictions`.

    Args:
        segmenter: segmenter.
        data: photographs.
        open_folder: function that prepares the folder for results of given settings.
        weights: digest of the network's file.
        labels: settings that identify the image-level labels which each image is restricted to; None does not
            restrict.

    Returns:
        Function of `shard` and `step` that makes the missing label pictures.
    """
    made_of = {"scales": list(segmenter.scales), "flip": segmenter.flip, "fuse": segmenter.fuse}
    made_of |= {"crf": to_plain(segmenter.crf), "long_side": segmenter.long_side, "network": {"weights": weights}}
    folder = open_folder(made_of | dict(labels or {}))
    return partial(make_predictions, segmenter, data, folder, labelled=labels is not None)


def make_predictions(
    segmenter: Callable[..., NDArray[np.uint8]],
    data: SegmentationData,
    folder: LabelFolder,
    *,
    labelled: bool = False,
    shard: tuple[int, int] = (0, 1),
    step: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Make the label pictures of all images.

    Resumable, in shares, and robust to unreadable images: see `camplug.wsss.store.jobs.make_results`.

    Args:
        segmenter: function from a photograph, RGB uint8 [H,W,3], to its labels [H,W], such as a `Segmenter`. Its
            `classes`, if any, are matched with the data's by name; only the data's classes are requested from it, and
            a warning names those that it lacks.
        data: photographs; masks are not read.
        folder: folder of the label pictures; see `LabelFolder.prepare`.
        labelled: restrict each image to its image-level labels, passed as `classes`.
        shard: (r, n): every n-th image, starting from the r-th.
        step: function called after every image.

    Raises:
        InputError: the segmenter has no class of the data, or the folder cannot be written.
    """
    names = getattr(segmenter, "classes", data.classes)
    order = match_known_classes(names, data.classes, "the network")
    all_known = len({*order} - {None}) == len(names)

    def read(i: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        if not labelled and all_known:
            return np.asarray(data.photo(i)), {}
        wanted = data.labels(i) if labelled else range(len(order))
        return np.asarray(data.photo(i)), {"classes": tuple(order[c] for c in wanted if order[c] is not None)}

    def make(image: tuple[NDArray[np.uint8], dict[str, Any]]) -> NDArray[np.uint8]:
        return renumber_labels(segmenter(image[0], **image[1]), names, order)

    def get_digests(i: int) -> dict[str, str]:
        given = {"labels": data.label_digest(i)} if labelled else {}
        return {"photograph": data.photo_digest(i), **given}

    return make_results(data, folder, make, read=read, get_digests=get_digests, shard=shard, step=step)
