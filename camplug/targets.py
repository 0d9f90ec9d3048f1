"""Named targets: scores of a model's output other than one class, given as `classes` to an explainer.

Each target is a callable from the model's output to one number per image [N], so any function of that form does, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from camplug.errors import TargetError
from camplug.plug.outputs import find_logits, get_logits

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ClassDifference:
    r"""Score of one class minus that of another: what speaks for the one *rather than* the other.

    .. math:: s = y_a - y_b

    Args:
        wanted: a, class index.
        other: b, class index.

    >>> ClassDifference(0, 2)(torch.tensor([[5.0, 1.0, 2.0]]))
    tensor([3.])
    """

    wanted: int
    other: int

    def __call__(self, output: Any) -> Tensor:
        """Return the scores [N]."""
        scores = get_logits(output)
        return _get_column(scores, self.wanted) - _get_column(scores, self.other)


@dataclass(frozen=True)
class ClassSum:
    r"""Weighted sum of the scores of several classes, explained by one map.

    .. math:: s = \sum_i w_i\, y_{c_i}

    Args:
        classes: class indices.
        weights: one weight per class; default: 1 each.

    Raises:
        TargetError: the number of weights is not that of the classes.

    >>> ClassSum([0, 2], [1.0, 0.5])(torch.tensor([[5.0, 1.0, 2.0]]))
    tensor([6.])
    """

    classes: Sequence[int]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for name in ("classes", "weights"):
            if hasattr(given := getattr(self, name), "tolist"):  # a tensor or an array
                object.__setattr__(self, name, given.tolist())
        if len(self.classes) == 0 or (self.weights is not None and len(self.weights) != len(self.classes)):
            given = None if self.weights is None else len(self.weights)
            raise TargetError(f"ClassSum has {len(self.classes)} classes and {given} weights; give one for each class.")

    def __call__(self, output: Any) -> Tensor:
        """Return the scores [N]."""
        scores = get_logits(output)
        columns = torch.stack([_get_column(scores, c) for c in self.classes], 1)
        return columns.sum(1) if self.weights is None else columns @ columns.new_tensor(self.weights)


@dataclass(frozen=True)
class OutputValue:
    """One value of a regression model's output [N] or [N,K].

    Args:
        index: index of the value; the only one of an output [N] is 0.

    >>> OutputValue(1)(torch.tensor([[5.0, 1.0], [2.0, 7.0]]))
    tensor([1., 7.])
    """

    index: int = 0

    def __call__(self, output: Any) -> Tensor:
        """Return the values [N]."""
        return _get_column(get_logits(output), self.index)


@dataclass(frozen=True, eq=False)
class Similarity:
    r"""Cosine similarity of an embedding [N,D] to a given one.

    .. math:: s = \frac{e \cdot q}{\lVert e \rVert \lVert q \rVert}

    Args:
        embedding: q, [D] for all images, or [N,D].

    >>> Similarity(torch.tensor([1.0, 0.0]))(torch.tensor([[3.0, 4.0]]))
    tensor([0.6000])
    """

    embedding: Tensor

    def __call__(self, output: Any) -> Tensor:
        """Return the similarities [N].

        Raises:
            TargetError: the sizes of the embeddings differ.
        """
        own = get_logits(output)
        if self.embedding.shape not in (own.shape[1:], own.shape, (1, *own.shape[1:])):
            raise TargetError(f"the model's embeddings are {list(own.shape)}, the given {list(self.embedding.shape)}.")
        return torch.cosine_similarity(own, self.embedding.to(own).expand_as(own), dim=1)

    def take(self, numbers: Sequence[int]) -> Similarity:
        """Return the score of a batch of these images, in this order; repetitions are allowed."""
        return Similarity(self.embedding[list(numbers)]) if len(self.embedding.shape[:-1]) else self


@dataclass(frozen=True, eq=False)
class Region:
    r"""Mean score of a class over a region of a segmentation model's output [N,C,h,w] (Seg-Grad-CAM).

    .. math:: s = \frac{1}{|M|} \sum_{(i,j) \in M} y_{c,ij}

    Args:
        wanted: c, class index.
        mask: M, [h,w] or [N,h,w] of bool, of the output's size; default: the positions predicted as the class.

    >>> scores = torch.tensor([[[[0.0, 4.0]], [[1.0, 2.0]]]])
    >>> Region(0)(scores), Region(0, torch.tensor([[True, True]]))(scores)
    (tensor([4.]), tensor([2.]))
    """

    wanted: int
    mask: Tensor | None = None

    def __call__(self, output: Any) -> Tensor:
        """Return the scores [N].

        Raises:
            TargetError: the output is no [N,C,h,w], the mask has another size, or a region is empty.
        """
        scores = find_logits(output)
        if scores is None or scores.ndim != 4:
            got = "nothing like it" if scores is None else list(scores.shape)
            raise TargetError(f"Region needs the scores [N,C,h,w] of a segmentation model; its output holds {got}.")
        plane = _get_column(scores, self.wanted)
        mask = scores.detach().argmax(1) == self.wanted if self.mask is None else self.mask.to(plane.device).bool()
        if mask.shape not in (plane.shape, plane.shape[1:]):
            raise TargetError(f"the mask is {list(mask.shape)}; the model's output asks for {list(plane.shape)}.")
        mask = mask.expand_as(plane)
        sizes = mask.flatten(1).sum(1)
        if not bool((sizes > 0).all()):
            where = int((sizes == 0).nonzero()[0])
            what = f"predicts class {self.wanted} nowhere" if self.mask is None else "has an empty mask"
            raise TargetError(f"image {where} of the batch {what}; give mask= with the positions to explain.")
        return (plane * mask).flatten(1).sum(1) / sizes

    def take(self, numbers: Sequence[int]) -> Region:
        """Return the score of a batch of these images, in this order; repetitions are allowed."""
        return self if self.mask is None or self.mask.ndim < 3 else Region(self.wanted, self.mask[list(numbers)])

    def change_view(self, scale: float, *, mirrored: bool) -> Region:
        """Return the score of resized or mirrored images; the mask must fit the output of resized ones."""
        return Region(self.wanted, self.mask.flip(-1)) if mirrored and self.mask is not None else self


@dataclass(frozen=True)
class Detection:
    r"""Score of the detection of a class whose box has the highest IoU with a given box.

    Outputs may be a list with "boxes", "labels" and "scores" of each image (torchvision), or have `.logits` [N,Q,C]
    and `.pred_boxes` [N,Q,4] as relative (cx, cy, w, h) (Hugging Face), whose score is the softmax over classes.

    Args:
        box: (x0, y0, x1, y1) in pixels; relative to width and height for Hugging Face.
        wanted: class index, as in the model's labels.
    """

    box: Box
    wanted: int

    def __call__(self, output: Any) -> Tensor:
        """Return the scores [N].

        Raises:
            TargetError: the output holds no detections, or none of the class meets the box.
        """
        from torchvision.ops import box_convert  # torchvision takes a second to import

        if hasattr(output, "pred_boxes") and hasattr(output, "logits"):
            column = output.logits.softmax(-1)[..., self.wanted]
            boxes = [box_convert(b, "cxcywh", "xyxy") for b in output.pred_boxes]
            return torch.stack([self._pick(b, s, i) for i, (b, s) in enumerate(zip(boxes, column, strict=True))])
        if not isinstance(output, (list, tuple)) or not all(isinstance(o, dict) and "boxes" in o for o in output):
            raise TargetError(
                'Detection needs a list with "boxes", "labels" and "scores" of each image, or .logits and .pred_boxes; '
                f"the model puts out {type(output).__name__}."
            )
        found = []
        for i, one in enumerate(output):
            own = one["labels"] == self.wanted
            found.append(self._pick(one["boxes"][own], one["scores"][own], i))
        return torch.stack(found)

    def change_view(self, scale: float, *, mirrored: bool) -> Detection:
        """Return the score of resized or mirrored images.

        Raises:
            TargetError: the images are resized or mirrored, where the box is another one.
        """
        if scale != 1 or mirrored:
            raise TargetError(
                "Detection names a box of the image as it is, and MultiView resizes and mirrors images; explain "
                "detections without MultiView."
            )
        return self

    def _pick(self, boxes: Tensor, scores: Tensor, image: int) -> Tensor:
        from torchvision.ops import box_iou

        overlaps = box_iou(boxes.detach(), boxes.new_tensor([self.box]))[:, 0]
        if len(overlaps) == 0 or float(overlaps.max()) <= 0:
            raise TargetError(
                f"image {image} of the batch has no detection of class {self.wanted} that meets the box {self.box}; "
                f"it has {len(boxes)} of this class."
            )
        return scores[int(overlaps.argmax())]


def _get_column(scores: Tensor, index: int) -> Tensor:
    if not 0 <= index < scores.shape[1]:
        raise TargetError(f"index {index} is outside the model's {scores.shape[1]} outputs; 0 is the first.")
    return scores[:, index]


__all__ = ["ClassDifference", "ClassSum", "Detection", "OutputValue", "Region", "Similarity"]
