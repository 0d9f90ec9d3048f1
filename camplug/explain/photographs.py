"""Explanations of photographs: reading, preprocessing, class names, and maps at the photograph's size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError, TargetError
from camplug.explain.batch import check_batch, compute_logits
from camplug.explain.explanation import Explanation
from camplug.explain.fuse import normalize_map
from camplug.explain.guard import warn_of_useless_maps
from camplug.explain.inputs import Batch, Inputs
from camplug.images.geometry import Box
from camplug.images.photo import read_photo
from camplug.models.class_names import find_class, find_class_names, get_class_title
from camplug.models.outputs import find_output_link, is_multi_label
from camplug.models.preprocess import find_channels, find_preprocess
from camplug.plug import find_first_weight, unwrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.base import Explainer, Result


@dataclass
class _Item:
    """Photograph, model input and region that it shows."""

    photo: Image
    x: Tensor
    box: Box


def _get_sizes(item: _Item) -> tuple[torch.Size, tuple[int, int]]:
    return item.x.shape, item.photo.size


def explain(
    explainer: Explainer, image: Any, classes: Any = None, *, batch_size: int = 8, inputs: Any = None
) -> Explanation | list[Explanation]:
    """Explain one photograph or many.

    Args:
        explainer: any explainer.
        image: path, PIL image, uint8 array [H,W,3], preprocessed float tensor [C,H,W] or [N,C,H,W], or list of these.
            Photographs are resized without cropping.
        classes: an index, a name, or a list of these (for a list of photographs, one entry per photograph, which may
            be a list); labels (0 and 1 per class) of one photograph or of each; None (the predicted class); or a
            callable from the model's output to one number per image.
        batch_size: maximum number of images of equal size in one batch.
        inputs: further inputs of the model for all images, as for `Explainer.maps`; `Aligned` ones have the size of the
            model's input.

    Returns:
        An `Explanation` for one image, or a list of them for a list or a batch.

    Raises:
        InputError: an image cannot be read.
        TargetError: a class or name does not exist.
    """
    many = isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.ndim == 4)
    sources = list(image) if many else [image]
    wanted = _split_classes(classes, len(sources), many)
    others = None if inputs is None else Inputs.of(inputs).for_images(len(sources))
    results: list[Explanation] = []
    waiting: list[_Item] = []  # images of one size

    def flush() -> None:
        if waiting:
            numbers = range(len(results), len(results) + len(waiting))
            given = None if others is None else others.take(numbers)
            results.extend(_explain_batch(explainer, waiting, [wanted[i] for i in numbers], given))
            waiting.clear()

    for source in sources:
        item = _make_item(explainer, source)
        if waiting and (len(waiting) >= batch_size or _get_sizes(item) != _get_sizes(waiting[0])):
            flush()
        waiting.append(item)
    flush()
    return results if many else results[0]


def compute_maps_on_photo(explainer: Explainer, photo: Image, classes: list[int]) -> tuple[Tensor, Tensor | None]:
    """Compute the maps [K,H,W] of one photograph as in `explain`, and the logits [C]; both on the CPU."""
    result, maps = _run_explainer(explainer, [_make_item(explainer, photo)], [classes], None)
    return maps[0], None if result.logits is None else result.logits[0].float().cpu()


def _run_explainer(
    explainer: Explainer, items: list[_Item], classes: Any, inputs: Inputs | None
) -> tuple[Result, list[Tensor]]:
    """Run an explainer on photographs of one size; return its result and their maps [K,H,W] float32 on the CPU.

    If the model sees the whole photograph, maps are computed at its size in one step. Otherwise they are placed at the
    region of the input and normalised again, since the maximum may lie outside of the photograph.
    """
    photo = items[0].photo
    width, height = photo.size
    whole = all(item.box == Box(0, 0, width, height) for item in items)
    x = items[0].x[None] if len(items) == 1 else torch.stack([item.x for item in items])  # [None]: same memory format
    batch = Batch(x, inputs)
    result = explainer.run_batch(batch, classes, (height, width) if whole else None)
    maps = [m.float().cpu() for m in result.maps]
    if not whole:
        maps = [place_on_photo(m, item.box, (height, width)) for m, item in zip(maps, items, strict=True)]
        if explainer.normalize is not None:
            maps = [normalize_map(m, "max") for m in maps]
    return result, maps


def read_input(explainer: Explainer, image: Any) -> tuple[Image, Tensor]:
    """Return one photograph and the image [C,H,W] that goes into the explainer's model; see `explain`.

    Raises:
        InputError: the image cannot be read.
    """
    item = _make_item(explainer, image)
    return item.photo, item.x


@torch.no_grad()
def predict_on_photo(explainer: Explainer, photo: Image) -> Tensor:
    """Compute the probabilities [C] of an explainer's model for one photograph, on the CPU.

    Sigmoid for one output or if the model declares `multi_label`, else softmax; probabilities stay unchanged.
    """
    item = _make_item(explainer, photo)
    model = explainer.model
    outputs = compute_logits(model, check_batch(model, item.x[None], None)).float().cpu()
    if find_output_link(model, None, outputs) != "logits":
        return outputs[0]
    return outputs[0].sigmoid() if is_multi_label(model) or outputs.shape[1] == 1 else outputs[0].softmax(0)


def _split_classes(classes: Any, n: int, many: bool) -> list[Any]:
    """Return the classes of each of n images: None, a callable, or a list of indices and names."""
    if classes is None or (callable(classes) and not isinstance(classes, Tensor)):
        return [classes] * n
    if isinstance(classes, (Tensor, np.ndarray)):
        classes = list(classes) if classes.ndim > 1 else classes.tolist()  # rows are interpreted with the model
    if isinstance(classes, str) or not hasattr(classes, "__len__"):
        return [[classes]] * n
    if not many:
        row = classes[0] if len(classes) == 1 and isinstance(classes[0], (list, Tensor, np.ndarray)) else classes
        return [row if isinstance(row, (Tensor, np.ndarray)) and row.ndim else list(row)]
    if len(classes) != n:
        raise TargetError(
            f"{len(classes)} entries in classes for {n} images; give one class for all, or one entry per image."
        )
    return [_list_classes(c) for c in classes]


def _list_classes(entry: Any) -> Any:
    """Return the classes of one image: a list, or an array that may hold labels."""
    if isinstance(entry, (Tensor, np.ndarray)):
        return entry if entry.ndim else [entry.item()]
    return [entry] if isinstance(entry, str) or not hasattr(entry, "__len__") else list(entry)


def _make_item(explainer: Explainer, source: Any) -> _Item:
    from PIL import Image as pil

    model = unwrap(explainer.model)
    channels = find_channels(model)
    if isinstance(source, Tensor) and source.is_floating_point():
        if source.ndim != 3 or (channels is not None and source.shape[0] != channels):
            c = "C" if channels is None else channels
            raise InputError(f"a float tensor must be [{c},H,W] or [N,{c},H,W]; got {list(source.shape)}.")
        colours = source if len(source) == 3 else source.mean(0, keepdim=True)
        low, high = colours.amin(), colours.amax()  # for display: the normalisation is unknown
        pixels = ((colours - low) / (high - low).clamp_min(1e-12) * 255).round().byte().expand(3, -1, -1)
        photo = pil.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        x, box = source.detach(), Box(0, 0, photo.width, photo.height)
    else:
        photo = read_photo(source)
        try:
            x, box = find_preprocess(model, explainer.preprocess)(photo)
        except InputError as error:
            raise InputError(f"{source}: {error}" if isinstance(source, (str, os.PathLike)) else str(error)) from None
        if channels is not None and x.shape[0] != channels:
            raise InputError(
                f"preprocess= gives {x.shape[0]} channels, and the model reads {channels}; add a step that makes them."
            )
    weight = find_first_weight(model)
    return _Item(photo, x if weight is None else x.to(weight.device), box)


def _explain_batch(
    explainer: Explainer, items: list[_Item], wanted: list[Any], inputs: Inputs | None
) -> list[Explanation]:
    names: list[str] | None = None
    classes: Any = wanted[0] if wanted[0] is None or callable(wanted[0]) else wanted
    if isinstance(classes, list) and any(isinstance(c, str) for row in classes for c in row):
        count = _count_outputs(explainer, items[0].x[None], None if inputs is None else inputs.take([0]))
        names = find_class_names(explainer.model, count, explainer.class_names)
        classes = [[find_class(c, names, count) if isinstance(c, str) else c for c in row] for row in classes]
    result, maps = _run_explainer(explainer, items, classes, inputs)
    if result.logits is not None:
        names = find_class_names(explainer.model, result.logits.shape[1], explainer.class_names)
    outputs = None if result.logits is None else result.logits.cpu()
    link, inclusive = find_output_link(explainer.model, result.targets.link, outputs), is_multi_label(explainer.model)
    explanations = []
    for i, item in enumerate(items):
        logits = None if outputs is None else outputs[i].float()
        chosen = list(result.targets.classes[i]) or [-1] * len(result.maps[i])
        count = 0 if logits is None else len(logits)
        titles = ["score" if c < 0 else get_class_title(c, names, count) for c in chosen]
        scores = [float("nan") if c < 0 or logits is None else float(logits[int(c)]) for c in chosen]
        one = Explanation(
            item.photo,
            maps[i],
            chosen,
            titles,
            scores,
            logits,
            explainer.name,
            names,
            link,
            inclusive,
            explainer.evidence,
            None if item.box == Box(0, 0, *item.photo.size) else item.box,
        )
        others = None if inputs is None else inputs.take([i])
        warn_of_useless_maps(explainer, one, result.maps[i], item.x, others)
        explanations.append(one)
    return explanations


def _count_outputs(explainer: Explainer, x: Tensor, inputs: Inputs | None) -> int:
    """Return the number of the model's outputs, from the class names, the model's `num_classes` or a forward pass."""
    count = getattr(unwrap(explainer.model), "num_classes", None)
    count = count if explainer.class_names is None else len(explainer.class_names)
    if isinstance(count, int) and count != 2:  # two classes may be one output
        return count
    return compute_logits(explainer.model, check_batch(explainer.model, x, inputs)).shape[1]


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
