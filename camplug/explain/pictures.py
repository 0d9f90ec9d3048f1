"""From photographs and class names to explanations: everything around `Explainer.maps`."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from camplug.errors import InputError, TargetError
from camplug.explain.batch import whole_logits
from camplug.explain.explanation import Explanation
from camplug.explain.fuse import normalize_map
from camplug.explain.names import index_of, names_of
from camplug.explain.photo import read_photo
from camplug.explain.preprocess import Box, preprocess_of
from camplug.plug import first_weight, unwrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.base import Explainer


@dataclass
class _Item:
    photo: Image
    x: Tensor
    box: Box


def explain(
    explainer: Explainer, image: Any, classes: Any = None, *, batch_size: int = 8
) -> Explanation | list[Explanation]:
    """Explain one photograph or many.

    Args:
        explainer: any explainer.
        image: a path, a PIL image, a uint8 array [H,W,3], a float tensor [3,H,W] or [N,3,H,W] (normalised as the model
            wants it), or a list of any of these. Photographs are resized without cropping.
        classes: an index, a name, a list of these (several classes of the one photograph; for a list of photographs,
            one entry per photograph, which may be a list), None (the predicted class), or a callable on the model's
            output that gives one number per image.
        batch_size: how many images of equal size go through the model together.

    Returns:
        An `Explanation` for one image, a list of them for a list or a batch.

    Raises:
        InputError: an image cannot be read.
        TargetError: a class or name that the model does not have.
    """
    many = isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.ndim == 4)
    sources = list(image) if many else [image]
    wanted = _per_image(classes, len(sources), many)
    results: list[Explanation] = []
    waiting: list[_Item] = []  # images of one size, until the batch is full or another size comes

    def flush() -> None:
        if waiting:
            results.extend(_batch(explainer, waiting, wanted[len(results) : len(results) + len(waiting)]))
            waiting.clear()

    for source in sources:
        item = _item(explainer, source)
        if waiting and (len(waiting) >= batch_size or item.x.shape != waiting[0].x.shape):
            flush()
        waiting.append(item)
    flush()
    return results if many else results[0]


def maps_on_photo(explainer: Explainer, photo: Image, classes: list[int]) -> tuple[Tensor, Tensor | None]:
    """Maps [K,H,W] of the given classes at the photograph's size, on the CPU, and the logits [C].

    What `explain` does for one photograph, for those who need nothing else; the maps are made at the photograph's size
    in one step where the model sees all of it. As there, their maximum is 1, whatever the explainer's `normalize`.
    """
    item = _item(explainer, photo)
    width, height = photo.size
    whole = item.box == Box(0, 0, width, height)
    result = explainer.run(item.x[None], [classes], (height, width) if whole else None)
    maps = normalize_map(result.maps[0].float().cpu(), "max") if whole else _place(result.maps[0], item)
    return maps, None if result.logits is None else result.logits[0].float().cpu()


def _per_image(classes: Any, n: int, many: bool) -> list[Any]:
    """What to explain in each of n images: None, a callable, or a list of indices and names."""
    if classes is None or (callable(classes) and not isinstance(classes, Tensor)):
        return [classes] * n
    if isinstance(classes, (Tensor, np.ndarray)):
        classes = classes.tolist()
    if isinstance(classes, str) or not hasattr(classes, "__len__"):
        return [[classes]] * n
    if not many:
        return [list(classes)]
    if len(classes) != n:
        raise TargetError(
            f"{len(classes)} entries in classes for {n} images; give one class for all, or one entry per image."
        )
    return [[c] if isinstance(c, str) or not hasattr(c, "__len__") else list(c) for c in classes]


def _item(explainer: Explainer, source: Any) -> _Item:
    from PIL import Image as pil

    model = unwrap(explainer.model)
    if isinstance(source, Tensor) and source.is_floating_point():
        if source.ndim != 3 or source.shape[0] not in (1, 3):
            raise InputError(f"a float tensor must be [3,H,W] or [N,3,H,W]; got {list(source.shape)}.")
        low, high = source.amin(), source.amax()  # for the eye only: the pixels before normalisation are not known
        shown = ((source - low) / (high - low).clamp_min(1e-12) * 255).round().byte().expand(3, -1, -1)
        photo = pil.fromarray(shown.permute(1, 2, 0).cpu().numpy())
        x, box = source.detach(), Box(0, 0, photo.width, photo.height)
    else:
        photo = read_photo(source)
        try:
            x, box = preprocess_of(model, explainer.transform)(photo)
        except InputError as error:
            raise InputError(f"{source}: {error}" if isinstance(source, (str, os.PathLike)) else str(error)) from None
    weight = first_weight(model)
    return _Item(photo, x if weight is None else x.to(weight.device), box)


def _batch(explainer: Explainer, items: list[_Item], wanted: list[Any]) -> list[Explanation]:
    x = torch.stack([item.x for item in items])
    names: list[str] | None = None
    classes: Any = wanted[0] if wanted[0] is None or callable(wanted[0]) else wanted
    if isinstance(classes, list) and any(isinstance(c, str) for row in classes for c in row):
        count = _count(explainer, x)
        names = names_of(explainer.model, count, explainer.labels)
        classes = [[index_of(c, names, count) if isinstance(c, str) else c for c in row] for row in classes]
    result = explainer.run(x, classes)
    if result.logits is not None:
        names = names_of(explainer.model, result.logits.shape[1], explainer.labels)
    explanations = []
    for i, item in enumerate(items):
        logits = None if result.logits is None else result.logits[i].float().cpu()
        chosen = list(result.targets.classes[i]) or [-1] * len(result.maps[i])
        called = ["score" if c < 0 else names[c] if names else f"class {c}" for c in chosen]
        maps = _place(result.maps[i], item)
        for name, empty in zip(called, (maps.amax((1, 2)) == 0).tolist(), strict=True):
            if empty:
                warnings.warn(f"no positive evidence for {name!r}: its {explainer.name} map is all 0.", stacklevel=5)
        scores = [float("nan") if c < 0 or logits is None else float(logits[c]) for c in chosen]
        explanations.append(Explanation(item.photo, maps, chosen, called, scores, logits, explainer.name, names))
    return explanations


def _count(explainer: Explainer, x: Tensor) -> int:
    """The number of classes: that of the labels, or of a classifier head; else one forward pass tells."""
    if explainer.labels is not None:
        return len(explainer.labels)
    model = unwrap(explainer.model)
    told = getattr(model, "num_classes", None)
    if isinstance(told, int):
        return told
    return whole_logits(explainer.model, x[:1]).shape[1]


def _place(maps: Tensor, item: _Item) -> Tensor:
    """Maps [K,h,w] of the model's input, laid on the photograph where the preprocessing took it from, maximum 1."""
    width, height = item.photo.size
    box = item.box
    left, top = max(0, round(box.left)), max(0, round(box.top))
    right, bottom = min(width, round(box.right)), min(height, round(box.bottom))
    maps = maps.float().cpu()
    size = (max(1, bottom - top), max(1, right - left))
    inside = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0] if len(maps) else maps
    placed = torch.zeros(len(maps), height, width)
    placed[:, top : top + size[0], left : left + size[1]] = inside.reshape(len(maps), *size)
    return normalize_map(placed, "max")
