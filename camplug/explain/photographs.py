"""Explanations of photographs: reading, preprocessing, class names, and maps at the photograph's size."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from camplug.errors import InputError, TargetError
from camplug.explain.batch import check_batch, compute_logits
from camplug.explain.explanation import Explanation
from camplug.explain.guard import warn_of_useless_maps
from camplug.explain.inputs import Inputs
from camplug.explain.masked_scores import check_batch_size
from camplug.explain.photo_inputs import (
    PhotoInput,
    compute_maps_on_inputs,
    make_batch,
    preprocess_photo,
    run_on_photos,
)
from camplug.explain.wrapper import is_score
from camplug.images.geometry import Box
from camplug.images.photo import read_photo
from camplug.models.class_names import find_class, find_class_names, get_class_title
from camplug.models.outputs import find_output_link, is_multi_label
from camplug.models.preprocess import find_channels
from camplug.plug import list_classes, mark_index, unwrap
from camplug.plug.targets import take_score

if TYPE_CHECKING:
    from PIL.Image import Image

    from camplug.explain.base import Explainer


@dataclass(frozen=True, eq=False)
class _Item(PhotoInput):
    """Photograph with the model's input."""

    photo: Image


def _get_group(item: _Item) -> Hashable:
    """Return what photographs of one batch have in common: all methods take one size of maps."""
    return item.get_group(), item.size


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
    batch_size = check_batch_size(batch_size)
    many = isinstance(image, (list, tuple)) or (isinstance(image, Tensor) and image.ndim == 4)
    sources = list(image) if many else [image]
    others = None if inputs is None else Inputs.of(inputs).for_images(len(sources))

    def count_outputs() -> int:
        x = make_batch(explainer, [_make_item(explainer, sources[0])])
        return _count_outputs(explainer, x, None if others is None else others.take([0]))

    wanted = _split_classes(classes, len(sources), many, count_outputs)
    results: list[Explanation] = []
    waiting: list[_Item] = []  # images of one size

    def flush() -> None:
        if waiting:
            places = range(len(results), len(results) + len(waiting))
            given = None if others is None else others.take(places)
            own = [take_score(wanted[0], places)] if is_score(wanted[0]) else [wanted[i] for i in places]
            results.extend(_explain_batch(explainer, waiting, own, given))
            waiting.clear()

    for source in sources:
        item = _make_item(explainer, source)
        if waiting and (len(waiting) >= batch_size or _get_group(item) != _get_group(waiting[0])):
            flush()
        waiting.append(item)
    flush()
    return results if many else results[0]


def compute_maps_on_photo(explainer: Explainer, photo: Image, classes: list[int]) -> tuple[Tensor, Tensor | None]:
    """Compute the maps [K,H,W] of one photograph as in `explain`, and the logits [C]; both on the CPU."""
    maps, logits = compute_maps_on_inputs(explainer, [_make_item(explainer, photo)], [classes])
    return maps[0], None if logits is None else logits[0]


def read_input(explainer: Explainer, image: Any) -> tuple[Image, Tensor]:
    """Return one photograph and the image [C,H,W] that goes into the explainer's model; see `explain`.

    Raises:
        InputError: the image cannot be read.
    """
    item = _make_item(explainer, image)
    return item.photo, make_batch(explainer, [item])[0]


def _split_classes(classes: Any, n: int, many: bool, count: Callable[[], int]) -> list[Any]:
    """Return the classes of each of n images: None, a callable, or a list of indices and names.

    Labels are read here, of all images together, so that they do not depend on the batches.

    Args:
        classes: see `explain`.
        n: number of images.
        many: a list or a batch of images was given.
        count: function that returns the number of the model's classes; called only to interpret a matrix of 0 and 1.
    """
    if classes is None or is_score(classes):
        return [classes] * n
    is_matrix = isinstance(classes, (Tensor, np.ndarray)) and classes.ndim > 1
    if isinstance(classes, (Tensor, np.ndarray)) and not is_matrix:
        classes = classes.tolist()
    if isinstance(classes, str) or not hasattr(classes, "__len__"):
        return [[mark_index(classes)]] * n
    if not many and not (len(classes) == 1 and isinstance(classes[0], (list, Tensor, np.ndarray))):
        classes = [classes]
    if len(classes) != n:
        raise TargetError(
            f"{len(classes)} entries in classes for {n} images; give one class for all, or one entry per image."
        )
    rows = classes if is_matrix else [_list_classes(c) for c in classes]
    if is_matrix or not any(isinstance(c, str) for row in rows for c in row):
        rows, _ = list_classes(rows, n, count)
    return [[mark_index(c) for c in row] for row in rows]


def _list_classes(entry: Any) -> list[Any]:
    """Return the classes of one image as a list."""
    if isinstance(entry, (Tensor, np.ndarray)):
        entry = entry.tolist()
    return [entry] if isinstance(entry, str) or not hasattr(entry, "__len__") else list(entry)


def _make_item(explainer: Explainer, source: Any) -> _Item:
    from PIL import Image as pil

    if isinstance(source, Tensor) and source.is_floating_point():
        channels = find_channels(unwrap(explainer.model))
        if source.ndim != 3 or (channels is not None and source.shape[0] != channels):
            c = "C" if channels is None else channels
            raise InputError(f"a float tensor must be [{c},H,W] or [N,{c},H,W]; got {list(source.shape)}.")
        colours = source if len(source) == 3 else source.mean(0, keepdim=True)
        low, high = colours.amin(), colours.amax()  # for display: the normalisation is unknown
        pixels = ((colours - low) / (high - low).clamp_min(1e-12) * 255).round().byte().expand(3, -1, -1)
        photo = pil.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        return _Item(source.detach(), Box(0, 0, *photo.size), (photo.height, photo.width), photo)
    photo = read_photo(source)
    try:
        made = preprocess_photo(explainer, photo)
    except InputError as error:
        raise InputError(f"{source}: {error}" if isinstance(source, (str, os.PathLike)) else str(error)) from None
    return _Item(made.x, made.box, made.size, photo)


def _explain_batch(
    explainer: Explainer, items: list[_Item], wanted: list[Any], inputs: Inputs | None
) -> list[Explanation]:
    names: list[str] | None = None
    x = make_batch(explainer, items)
    classes: Any = wanted[0] if wanted[0] is None or is_score(wanted[0]) else wanted
    if isinstance(classes, list) and any(isinstance(c, str) for row in classes for c in row):
        count = _count_outputs(explainer, x[:1], None if inputs is None else inputs.take([0]))
        names = find_class_names(explainer.model, count, explainer.class_names)
        classes = [
            [mark_index(find_class(c, names, count)) if isinstance(c, str) else c for c in row] for row in classes
        ]
    result, maps = run_on_photos(explainer, x, items, classes, inputs)
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
            None if item.is_whole else item.box,
        )
        others = None if inputs is None else inputs.take([i])
        warn_of_useless_maps(explainer, one, result.maps[i], x[i], others)
        explanations.append(one)
    return explanations


def _count_outputs(explainer: Explainer, x: Tensor, inputs: Inputs | None) -> int:
    """Return the number of the model's outputs, from the class names, the model's `num_classes` or a forward pass."""
    count = getattr(unwrap(explainer.model), "num_classes", None)
    count = count if explainer.class_names is None else len(explainer.class_names)
    is_known = isinstance(count, int) and count != 2  # two classes may be one output
    if is_known and find_class_names(explainer.model, count, explainer.class_names) is not None:
        return int(count)  # type: ignore[arg-type]
    return compute_logits(explainer.model, check_batch(explainer.model, x, inputs)).shape[1]
