"""Targets of an explanation: classes, or a score computed from the model's output."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from camplug.errors import TargetError
from camplug.plug.class_lists import Against, list_classes
from camplug.plug.outputs import Link, find_link, get_logits
from camplug.plug.tensors import pick_values, send_to

Score: TypeAlias = Callable[[Any], Tensor]
"""Function from the model's output to one number per image, a tensor [N]."""

Classes: TypeAlias = "int | Tensor | Sequence[int] | Sequence[Sequence[int] | Tensor] | Score | None"
"""One class for all images, one per image, several per image, labels [N,C], a score, or None for the predicted class.

A class is a column of the model's output; `Against(c)` is the evidence against it. For a model with one output, the
predicted class is 0, or `Against(0)` if the prediction is negative.
"""

Evidence: TypeAlias = Literal["positive", "negative"]
"""Kinds of evidence: for the score, or against it."""


class UndecidedError(TargetError):
    """Ambiguous prediction of a model with one output, which may be a logit or a probability."""


@dataclass(frozen=True)
class Targets:
    """Classes to explain, K_i for image i, or one score.

    Attributes:
        classes: classes of each image; `Against` for the evidence against one.
        score: callable to explain instead of classes.
        per_image: the caller gave one list per image.
        evidence: "negative" negates every score.
        link: kind of the model's outputs, if known.
    """

    classes: tuple[tuple[int, ...], ...]
    score: Score | None
    per_image: bool
    evidence: Evidence = "positive"
    link: Link | None = None

    @property
    def rounds(self) -> int:
        """Number of backward passes: the largest number of classes of any image."""
        return 1 if self.score is not None else max((len(c) for c in self.classes), default=0)

    def get_round(self, r: int) -> tuple[list[int], list[int]]:
        """Return the images that have an r-th class, and these classes."""
        images = [i for i, c in enumerate(self.classes) if len(c) > r]
        return images, [int(self.classes[i][r]) for i in images]

    def get_signs(self, r: int) -> list[int]:
        """Return the sign (1 or -1) of the score of each image of round r."""
        own = -1 if self.evidence == "negative" else 1
        return [-own if isinstance(c[r], Against) else own for c in self.classes if len(c) > r]

    def take(self, numbers: Sequence[int]) -> Targets:
        """Return the targets of a batch of these images, in this order; repetitions are allowed."""
        score = None if self.score is None else take_score(self.score, numbers)
        return Targets(tuple(self.classes[i] for i in numbers), score, True, self.evidence, self.link)

    def check(self, output: Any) -> None:
        """Check that the scores of all classes are finite, with one synchronisation.

        Warns of probabilities that are 1 up to rounding, whose gradient is rounding noise (one more synchronisation).

        Raises:
            TargetError: a score is NaN or infinite. The score of a callable is checked by `compute_scores`.
        """
        if self.score is None:
            images = [i for i, row in enumerate(self.classes) for _ in row]
            scores = get_logits(output, len(self.classes)).detach()
            scores = pick_values(scores, images, [int(c) for row in self.classes for c in row])
            _check_finite(scores, images)
            if self.link in ("softmax", "sigmoid"):
                _warn_of_saturated(scores, images)

    def compute_scores(self, output: Any, r: int) -> Tensor:
        """Return the signed scores [n] to differentiate in round r; scores of classes are not checked, see `check`.

        Raises:
            TargetError: the callable did not return one finite number per image.
        """
        n = len(self.classes)
        if self.score is not None:
            value = self.score(output)
            if not isinstance(value, Tensor) or value.numel() != n:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise TargetError(f"the callable given as classes must return one number per image, [{n}]; got {got}.")
            value = value.reshape(n)
            _check_finite(value.detach(), range(n))
            return -value if self.evidence == "negative" else value
        value, signs = pick_values(get_logits(output, n), *self.get_round(r)), self.get_signs(r)
        if len(set(signs)) > 1:
            return value * send_to(torch.tensor(signs, dtype=value.dtype), value.device)
        return -value if -1 in signs else value


def take_score(score: Score, numbers: Sequence[int]) -> Score:
    """Return a score for a batch of these images; scores with values per image say how by their method `take`."""
    take = getattr(score, "take", None)
    return score if take is None else take(numbers)


def _check_finite(scores: Tensor, images: Sequence[int]) -> None:
    finite = torch.isfinite(scores)
    if not bool(finite.all()):
        bad = dict.fromkeys(i for i, good in zip(images, finite.tolist(), strict=True) if not good)
        raise TargetError(
            f"the model's score is NaN or infinite for image {', '.join(map(str, list(bad)[:5]))} of the batch; look "
            "for NaN in the input, or run the model in a wider number format."
        )


def _warn_of_saturated(probabilities: Tensor, images: Sequence[int]) -> None:
    room = min(100 * torch.finfo(probabilities.dtype).eps, 0.1)  # 1 - p loses its digits
    full = (probabilities >= 1 - room).tolist()
    if any(full):
        which = ", ".join(map(str, list(dict.fromkeys(i for i, f in zip(images, full, strict=True) if f))[:5]))
        warnings.warn(
            f"the model puts out probabilities, and the explained one is 1 up to rounding for image {which} of the "
            "batch, so that its gradient is rounding noise; let the model put out its logits.",
            stacklevel=2,
        )


def resolve_classes(
    classes: Any,
    output: Any,
    n: int,
    evidence: Evidence = "positive",
    *,
    link: Link | None = None,
    either_side: bool = False,
) -> Targets:
    """Return the targets for the classes that the caller gave.

    Args:
        classes: see `Classes`.
        output: output of the model for n images.
        n: number of images.
        evidence: "negative" for the evidence against the classes.
        link: kind of the outputs, used if the graph does not show it.
        either_side: treat unknown outputs as logits, if evidence for and against a class are equivalent.

    Raises:
        TargetError: a class is out of range or invalid, or the number of entries is not that of the images.
    """
    if callable(classes) and not isinstance(classes, Tensor):
        return Targets(tuple(() for _ in range(n)), classes, False, evidence)
    scores = get_logits(output, n)
    link = find_link(scores) or link
    if classes is None:
        chosen = _predict_classes(scores.detach(), link or ("logits" if either_side else None))
        return Targets(tuple((c,) for c in chosen), None, False, evidence, link)
    count = scores.shape[1]
    rows, per_image = list_classes(classes, n, lambda: count)
    return Targets(tuple(tuple(_check_index(c, count) for c in row) for row in rows), None, per_image, evidence, link)


def _predict_classes(scores: Tensor, link: Link | None) -> list[int]:
    """Return the predicted class of each image; `Against(0)` for a negative prediction of a model with one output."""
    if scores.shape[1] != 1:
        return scores.argmax(1).tolist()
    values = scores[:, 0].tolist()
    if link is None and any(0 <= v < 0.5 for v in values):
        raise UndecidedError(
            "the model has one output, and whether a value below 0.5 means no depends on whether it is a probability; "
            "give the class: 0, or camplug.Against(0) for the evidence against it."
        )
    yes = 0.5 if link == "sigmoid" else 0.0
    return [Against(0) if v < yes else 0 for v in values]


def _check_index(value: Any, count: int) -> int:
    try:
        index = operator.index(value)
    except TypeError:
        raise TargetError(f"{value!r} is no class index; allowed are whole numbers from 0 to {count - 1}.") from None
    if isinstance(value, bool) or not 0 <= index < count:
        hint = " (its one output is class 0; camplug.Against(0) is the evidence against it)" if count == 1 else ""
        raise TargetError(f"class {value} is outside the model's {count} classes; allowed are 0 to {count - 1}{hint}.")
    return Against(index) if isinstance(value, Against) else index
