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
from camplug.explain.batch import check_batch, compute_logits
from camplug.explain.explanation import Explanation
from camplug.explain.fuse import normalize_map
from camplug.explain.geometry import Box
from camplug.explain.inputs import Batch, Inputs
from camplug.explain.names import find_class, find_class_names, get_class_title
from camplug.explain.photo import read_photo
from camplug.explain.preprocess import find_channels, find_preprocess
from camplug.plug import Link, are_probabilities, first_weight, unwrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.base import Explainer, Result


@dataclass
class _Item:
    photo: Image
    x: Tensor
    box: Box


def _sizes(item: _Item) -> tuple[torch.Size, tuple[int, int]]:
    return item.x.shape, item.photo.size


def explain(
    explainer: Explainer, image: Any, classes: Any = None, *, batch_size: int = 8, inputs: Any = None
) -> Explanation | list[Explanation]:
    """Explain one photograph or many.

    Args:
        explainer: any explainer.
        image: a path, a PIL image, a uint8 array [H,W,3], a float tensor [C,H,W] or [N,C,H,W] (normalised as the model
            wants it, with as many channels as it reads), or a list of any of these. Photographs are resized without
            cropping.
        classes: an index, a name, a list of these (several classes of the one photograph; for a list of photographs,
            one entry per photograph, which may be a list), labels (0 and 1 per class, of one photograph or of each),
            None (the predicted class), or a callable on the model's output that gives one number per image.
        batch_size: how many images of equal size go through the model together.
        inputs: the model's other inputs for all images together, as for `Explainer.maps`; `Aligned` ones have the size
            at which images go into the model.

    Returns:
        An `Explanation` for one image, a list of them for a list or a batch.

    Raises:
        InputError: an image cannot be read.
        TargetError: a class or name that the model does not have.
    """
    many = isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.ndim == 4)
    sources = list(image) if many else [image]
    wanted = _per_image(classes, len(sources), many)
    others = None if inputs is None else Inputs.of(inputs).for_images(len(sources))
    results: list[Explanation] = []
    waiting: list[_Item] = []  # images of one size, until the batch is full or another size comes

    def flush() -> None:
        if waiting:
            numbers = range(len(results), len(results) + len(waiting))
            given = None if others is None else others.take(numbers)
            results.extend(_batch(explainer, waiting, [wanted[i] for i in numbers], given))
            waiting.clear()

    for source in sources:
        item = _item(explainer, source)
        if waiting and (len(waiting) >= batch_size or _sizes(item) != _sizes(waiting[0])):
            flush()
        waiting.append(item)
    flush()
    return results if many else results[0]


def maps_on_photo(explainer: Explainer, photo: Image, classes: list[int]) -> tuple[Tensor, Tensor | None]:
    """Return the maps [K,H,W] of one photograph, as `explain` makes them, and the logits [C]; both on the CPU."""
    result, maps = _run(explainer, [_item(explainer, photo)], [classes], None)
    return maps[0], None if result.logits is None else result.logits[0].float().cpu()


def _run(explainer: Explainer, items: list[_Item], classes: Any, inputs: Inputs | None) -> tuple[Result, list[Tensor]]:
    """Return what an explainer gives for photographs of one size, and their maps [K,H,W] float32 on the CPU.

    Where the model sees the whole photograph, maps are made at its size in one step. Otherwise they are laid where the
    preprocessing took the input from, and scaled again, since the maximum may lie outside of the photograph.
    """
    photo = items[0].photo
    width, height = photo.size
    whole = all(item.box == Box(0, 0, width, height) for item in items)
    x = items[0].x[None] if len(items) == 1 else torch.stack([item.x for item in items])  # [None] keeps the layout
    batch = Batch(x, inputs)
    result = explainer.run_batch(batch, classes, (height, width) if whole else None)
    maps = [m.float().cpu() for m in result.maps]
    if not whole:
        maps = [place_on_photo(m, item.box, (height, width)) for m, item in zip(maps, items, strict=True)]
        if explainer.normalize is not None:
            maps = [normalize_map(m, "max") for m in maps]
    return result, maps


@torch.no_grad()
def predict_on_photo(explainer: Explainer, photo: Image) -> Tensor:
    """Return the probabilities [C] of an explainer's model for one photograph, on the CPU.

    Softmax or sigmoid as far as the model tells; outputs that are probabilities are given as they are.
    """
    item = _item(explainer, photo)
    model = explainer.model
    outputs = compute_logits(model, check_batch(model, item.x[None], None)).float().cpu()
    if _link(model, None, outputs) != "logits":
        return outputs[0]
    return outputs[0].sigmoid() if multi_label(model) or outputs.shape[1] == 1 else outputs[0].softmax(0)


def _per_image(classes: Any, n: int, many: bool) -> list[Any]:
    """What to explain in each of n images: None, a callable, or a list of indices and names."""
    if classes is None or (callable(classes) and not isinstance(classes, Tensor)):
        return [classes] * n
    if isinstance(classes, (Tensor, np.ndarray)):
        classes = list(classes) if classes.ndim > 1 else classes.tolist()  # rows of a matrix are read with the model
    if isinstance(classes, str) or not hasattr(classes, "__len__"):
        return [[classes]] * n
    if not many:
        row = classes[0] if len(classes) == 1 and isinstance(classes[0], (list, Tensor, np.ndarray)) else classes
        return [row if isinstance(row, (Tensor, np.ndarray)) and row.ndim else list(row)]
    if len(classes) != n:
        raise TargetError(
            f"{len(classes)} entries in classes for {n} images; give one class for all, or one entry per image."
        )
    return [_row(c) for c in classes]


def _row(entry: Any) -> Any:
    """Return the classes to explain in one image: a list, or an array that may hold labels."""
    if isinstance(entry, (Tensor, np.ndarray)):
        return entry if entry.ndim else [entry.item()]
    return [entry] if isinstance(entry, str) or not hasattr(entry, "__len__") else list(entry)


def _item(explainer: Explainer, source: Any) -> _Item:
    from PIL import Image as pil

    model = unwrap(explainer.model)
    channels = find_channels(model)
    if isinstance(source, Tensor) and source.is_floating_point():
        if source.ndim != 3 or (channels is not None and source.shape[0] != channels):
            c = "C" if channels is None else channels
            raise InputError(f"a float tensor must be [{c},H,W] or [N,{c},H,W]; got {list(source.shape)}.")
        colours = source if len(source) == 3 else source.mean(0, keepdim=True)
        low, high = colours.amin(), colours.amax()  # for the eye only: the pixels before normalisation are not known
        shown = ((colours - low) / (high - low).clamp_min(1e-12) * 255).round().byte().expand(3, -1, -1)
        photo = pil.fromarray(shown.permute(1, 2, 0).cpu().numpy())
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
    weight = first_weight(model)
    return _Item(photo, x if weight is None else x.to(weight.device), box)


def _batch(explainer: Explainer, items: list[_Item], wanted: list[Any], inputs: Inputs | None) -> list[Explanation]:
    names: list[str] | None = None
    classes: Any = wanted[0] if wanted[0] is None or callable(wanted[0]) else wanted
    if isinstance(classes, list) and any(isinstance(c, str) for row in classes for c in row):
        count = _count(explainer, items[0].x[None], None if inputs is None else inputs.take([0]))
        names = find_class_names(explainer.model, count, explainer.class_names)
        classes = [[find_class(c, names, count) if isinstance(c, str) else c for c in row] for row in classes]
    result, maps = _run(explainer, items, classes, inputs)
    if result.logits is not None:
        names = find_class_names(explainer.model, result.logits.shape[1], explainer.class_names)
    outputs = None if result.logits is None else result.logits.cpu()
    link, inclusive = _link(explainer.model, result.targets.link, outputs), multi_label(explainer.model)
    explanations = []
    for i, item in enumerate(items):
        logits = None if outputs is None else outputs[i].float()
        chosen = list(result.targets.classes[i]) or [-1] * len(result.maps[i])
        count = 0 if logits is None else len(logits)
        told = ["score" if c < 0 else get_class_title(c, names, count) for c in chosen]
        scores = [float("nan") if c < 0 or logits is None else float(logits[int(c)]) for c in chosen]
        one = Explanation(
            item.photo,
            maps[i],
            chosen,
            told,
            scores,
            logits,
            explainer.name,
            names,
            link,
            inclusive,
            explainer.evidence,
        )
        _tell_of_empty_maps(one)
        explanations.append(one)
    return explanations


def _tell_of_empty_maps(one: Explanation) -> None:
    for k, (name, empty) in enumerate(zip(one.names, (one.maps.amax((1, 2)) == 0).tolist(), strict=True)):
        if one.link != "logits" and (one.probability(k) or 0) > 0.999:
            continue  # that a full probability has no gradient is told already
        says = f"no positive evidence for {name!r}: its {one.method} map is all 0."
        if one.evidence == "negative":
            says = f"no evidence against {name!r}: its {one.method} map is all 0."
        if empty:
            warnings.warn(says, stacklevel=6)


def multi_label(model: torch.nn.Module) -> bool:
    """Whether a model says that its classes do not exclude each other (`multi_label`, or `config.problem_type`)."""
    inner = unwrap(model)
    problem = getattr(getattr(inner, "config", None), "problem_type", None)
    return getattr(inner, "multi_label", False) is True or problem == "multi_label_classification"


def _link(model: torch.nn.Module, told: Link | None, outputs: Tensor | None) -> Link:
    """Tell logits from probabilities by the operation that made them, or else by their values."""
    if told is not None or outputs is None:
        return told or "logits"
    if are_probabilities(outputs):
        return "softmax"
    last = list(unwrap(model).modules())[-1]
    within = bool(((outputs >= 0) & (outputs <= 1)).all())
    return "sigmoid" if isinstance(last, torch.nn.Sigmoid) and within else "logits"


def _count(explainer: Explainer, x: Tensor, inputs: Inputs | None) -> int:
    """The number of the model's outputs: that of the labels, or of a classifier head; else one forward pass tells."""
    told = getattr(unwrap(explainer.model), "num_classes", None)
    told = told if explainer.class_names is None else len(explainer.class_names)
    if isinstance(told, int) and told != 2:  # two classes may be one output
        return told
    return compute_logits(explainer.model, check_batch(explainer.model, x, inputs)).shape[1]


def place_on_photo(maps: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """Maps [K,h,w] of a box, read bilinearly at the pixels [K,H,W] of the photograph; 0 where the box shows none."""
    height, width = size
    if len(maps) == 0 or box == Box(0, 0, width, height):
        return (
            F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
            if len(maps)
            else (maps.new_zeros(0, height, width))
        )
    read = _read(maps, 1, box.top, box.bottom, height)
    return _read(read, 2, box.left, box.right, width)


def _read(maps: Tensor, dim: int, first: float, last: float, length: int) -> Tensor:
    """Linear interpolation along a dimension that shows an axis from `first` to `last`, at its pixels; 0 outside."""
    n = maps.shape[dim]
    place = (torch.arange(length, dtype=torch.float64) + 0.5 - first) / (last - first)
    inside = (place >= 0) & (place <= 1)
    place = (place * n - 0.5).clamp(0, n - 1)
    below = place.floor().long()
    shape = [-1 if d == dim else 1 for d in range(maps.ndim)]
    low, high = maps.index_select(dim, below), maps.index_select(dim, (below + 1).clamp_max(n - 1))
    return torch.lerp(low, high, (place - below).to(maps.dtype).view(shape)) * inside.view(shape)
