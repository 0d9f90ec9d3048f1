"""Inputs of a model made of photographs, and maps at the photographs' sizes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError
from camplug.explain.batch import check_batch, choose_size, compute_logits
from camplug.explain.fuse import normalize_map
from camplug.explain.inputs import Batch, Inputs
from camplug.images.geometry import Box
from camplug.models.outputs import find_output_link, is_multi_label
from camplug.models.preprocess import find_channels, find_preprocess
from camplug.plug import find_first_weight, send_to, unwrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.base import Explainer, Result


@dataclass(frozen=True, eq=False)
class PhotoInput:
    """Image [C,h,w] that goes into a model, the region of the photograph that it shows, and the photograph's size.

    Attributes:
        x: preprocessed image [C,h,w].
        box: region in pixels of the photograph.
        size: height and width of the photograph.
    """

    x: Tensor
    box: Box
    size: tuple[int, int]

    @property
    def is_whole(self) -> bool:
        """True if the image shows the whole photograph and nothing else."""
        height, width = self.size
        return self.box == Box(0, 0, width, height)

    def get_group(self) -> Hashable:
        """Return what images of one batch have in common: shape, number format, and whether they are whole."""
        return self.x.shape, self.x.dtype, self.is_whole


def preprocess_photo(explainer: Explainer, photo: Image) -> PhotoInput:
    """Make the input of an explainer's model from a photograph, on the CPU unless the preprocessing moves it.

    Raises:
        InputError: the preprocessing does not fit the photograph, or gives another number of channels.
    """
    model = unwrap(explainer.model)
    x, box = find_preprocess(model, explainer.preprocess)(photo)
    channels = find_channels(model)
    if channels is not None and x.shape[0] != channels:
        raise InputError(
            f"preprocess= gives {x.shape[0]} channels, and the model reads {channels}; add a step that makes them."
        )
    return PhotoInput(x, box, (photo.height, photo.width))


def make_batch(explainer: Explainer, items: Sequence[PhotoInput]) -> Tensor:
    """Return the images of one shape as a batch [N,C,h,w] on the device of the explainer's model.

    Images keep their memory layout, so that one image and many are computed alike.
    """
    x = items[0].x[None] if len(items) == 1 else torch.cat([item.x[None] for item in items])
    weight = find_first_weight(unwrap(explainer.model))
    return x if weight is None else send_to(x, weight.device)


def run_on_photos(
    explainer: Explainer, x: Tensor, items: Sequence[PhotoInput], classes: Any, inputs: Inputs | None = None
) -> tuple[Result, list[Tensor]]:
    """Run an explainer on a batch; return its result and the maps [K,H,W] of each photograph, float32 on the CPU.

    If the model sees the whole photograph, maps are computed at its size in one step. Otherwise they are placed at the
    region of the input and normalised again, since the maximum may lie outside of the photograph.

    Args:
        explainer: any explainer.
        x: images of the items, see `make_batch`.
        items: inputs of one group, see `PhotoInput.get_group`.
        classes: classes of each image, as for `Explainer.maps`.
        inputs: further inputs of the model.
    """
    whole = items[0].is_whole
    size = choose_size([item.size for item in items]) if whole else None
    result = explainer.run_batch(Batch(x, inputs), classes, size)
    maps = _copy_to_cpu(result.maps)
    if not whole:
        maps = [place_on_photo(m, item.box, item.size) for m, item in zip(maps, items, strict=True)]
        if explainer.normalize is not None:
            maps = [normalize_map(m, "max") for m in maps]
    return result, maps


def _copy_to_cpu(maps: list[Tensor]) -> list[Tensor]:
    """Return the maps [K_i,h,w] of each image in float32 on the CPU, with one copy for all."""
    if maps[0].device.type == "cpu":
        return [m.float() for m in maps]
    flat = torch.cat([m.float().flatten() for m in maps]).cpu()
    parts = torch.split(flat, [m.numel() for m in maps])
    return [part.view(m.shape) for part, m in zip(parts, maps, strict=True)]


def compute_maps_on_inputs(
    explainer: Explainer, items: Sequence[PhotoInput], classes: Sequence[Sequence[int]]
) -> tuple[list[Tensor], Tensor | None]:
    """Compute the maps [K_i,H,W] of photographs of one group together, and their logits [N,C]; all on the CPU.

    Args:
        explainer: any explainer.
        items: inputs of one group, see `PhotoInput.get_group`.
        classes: classes of each photograph.
    """
    result, maps = run_on_photos(explainer, make_batch(explainer, items), items, [list(row) for row in classes])
    return maps, None if result.logits is None else result.logits.float().cpu()


@torch.no_grad()
def predict_on_inputs(explainer: Explainer, items: Sequence[PhotoInput]) -> Tensor:
    """Compute the probabilities [N,C] of an explainer's model for photographs of one group, on the CPU.

    Sigmoid for one output or if the model declares `multi_label`, else softmax; probabilities stay unchanged.
    """
    model = explainer.model
    outputs = compute_logits(model, check_batch(model, make_batch(explainer, items), None)).float().cpu()
    inclusive = is_multi_label(model) or outputs.shape[1] == 1
    # whether outputs are probabilities is judged image by image: the answer shall not depend on the batch
    linked = [find_output_link(model, None, row[None]) != "logits" for row in outputs]
    return torch.where(torch.tensor(linked)[:, None], outputs, outputs.sigmoid() if inclusive else outputs.softmax(1))


def place_on_photo(maps: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Sample maps [K,h,w] of a region bilinearly at the photograph's pixels, [K,H,W]; 0 outside of the region."""
    height, width = size
    if len(maps) == 0 or box == Box(0, 0, width, height):
        return (
            F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
            if len(maps)
            else (maps.new_zeros(0, height, width))
        )
    read = _sample_axis(maps, 1, box.top, box.bottom, height)
    return _sample_axis(read, 2, box.left, box.right, width)


def _sample_axis(maps: Tensor, dim: int, first: float, last: float, length: int) -> Tensor:
    """Sample a dimension that covers `first` to `last` of an axis linearly at the axis' pixels; 0 outside."""
    n = maps.shape[dim]
    place = (torch.arange(length, dtype=torch.float64) + 0.5 - first) / (last - first)
    inside = (place >= 0) & (place <= 1)
    place = (place * n - 0.5).clamp(0, n - 1)
    below = place.floor().long()
    shape = [-1 if d == dim else 1 for d in range(maps.ndim)]
    low, high = maps.index_select(dim, below), maps.index_select(dim, (below + 1).clamp_max(n - 1))
    return torch.lerp(low, high, (place - below).to(maps.dtype).view(shape)) * inside.view(shape)
