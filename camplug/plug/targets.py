"""What a map explains: classes, or any score that a callable computes from the model's output."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from camplug.errors import ModelError, TargetError
from camplug.plug.tensors import pick

Score: TypeAlias = Callable[[Any], Tensor]
"""From the model's output to one number per image, a tensor [N]."""

Classes: TypeAlias = "int | Tensor | Sequence[int] | Sequence[Sequence[int] | Tensor] | Score | None"
"""One class for all images, one per image, several per image, a score, or None for the predicted class."""


def logits_of(output: Any) -> Tensor:
    """The class scores [N,C] in a model's output.

    They are the tensor itself, `.logits`, the entry "logits" or "out" of a dict, or else the first tensor. A vector [N]
    counts as one score per image, [N,C,1,1] as [N,C].

    Raises:
        ModelError: there is no such tensor; give a callable that says what to explain.
    """
    found = find_logits(output)
    if found is None:
        raise ModelError(
            f"the model puts out {type(output).__name__} without a tensor of class scores; pass a callable as classes, "
            "for instance classes=lambda out: out['head'][:, 3]."
        )
    if found.ndim == 1:
        found = found[:, None]
    elif found.ndim > 2 and all(s == 1 for s in found.shape[2:]):
        found = found.flatten(1)
    if found.ndim != 2:
        raise ModelError(
            f"the model puts out scores of shape {list(found.shape)}, not [N,C]; pass a callable as classes that gives "
            "one number per image, for instance classes=lambda out: out[:, 3].mean((1, 2))."
        )
    return found


def find_logits(output: Any) -> Tensor | None:
    """The tensor that most likely holds the class scores, of any shape; None if there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[no-any-return]
    if isinstance(output, dict):
        items = [output[k] for k in ("logits", "out") if k in output] or list(output.values())
    elif isinstance(output, (tuple, list)):
        items = list(output)
    else:
        return None
    return next((t for t in items if isinstance(t, Tensor) and t.is_floating_point()), None)


@dataclass(frozen=True)
class Targets:
    """What to explain, per image: K_i classes, or one score. `per_image` tells that the caller gave lists of lists."""

    classes: tuple[tuple[int, ...], ...]
    score: Score | None
    per_image: bool

    @property
    def rounds(self) -> int:
        """Backward passes needed: the largest number of classes of any image."""
        return 1 if self.score is not None else max((len(c) for c in self.classes), default=0)

    def of_round(self, r: int) -> tuple[list[int], list[int]]:
        """The images that have an r-th class, and that class."""
        images = [i for i, c in enumerate(self.classes) if len(c) > r]
        return images, [self.classes[i][r] for i in images]

    def check(self, output: Any) -> None:
        """Make sure that the scores of all classes are finite; one wait for the device, however many they are.

        Raises:
            TargetError: a score is NaN or infinite. That of a callable is checked by `scores`.
        """
        if self.score is None:
            images = [i for i, row in enumerate(self.classes) for _ in row]
            _check_finite(pick(logits_of(output).detach(), images, [c for row in self.classes for c in row]), images)

    def scores(self, output: Any, r: int) -> Tensor:
        """The scores [n] to differentiate in round r, those of classes not checked; see `check`.

        Raises:
            TargetError: the callable did not give one finite number per image.
        """
        n = len(self.classes)
        if self.score is not None:
            value = self.score(output)
            if not isinstance(value, Tensor) or value.numel() != n:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise TargetError(f"the callable given as classes must return one number per image, [{n}]; got {got}.")
            value = value.reshape(n)
            _check_finite(value.detach(), range(n))
            return value
        return pick(logits_of(output), *self.of_round(r))


def _check_finite(scores: Tensor, images: Sequence[int]) -> None:
    finite = torch.isfinite(scores)
    if not bool(finite.all()):
        bad = dict.fromkeys(i for i, good in zip(images, finite.tolist(), strict=True) if not good)
        raise TargetError(
            f"the model's score is NaN or infinite for image {', '.join(map(str, list(bad)[:5]))} of the batch; look "
            "for NaN in the input, or run the model in a wider number format."
        )


def resolve(classes: Any, output: Any, n: int) -> Targets:
    """Read what the caller asked for against the model's output for n images.

    Raises:
        TargetError: a class outside the model's range, not one entry per image, or something that is no class.
    """
    if callable(classes) and not isinstance(classes, Tensor):
        return Targets(tuple(() for _ in range(n)), classes, False)
    logits = logits_of(output)
    if classes is None:
        chosen = logits.detach().argmax(1).tolist()
        return Targets(tuple((c,) for c in chosen), None, False)
    rows, per_image = spelled_out(classes, n)
    return Targets(tuple(tuple(_index(c, logits.shape[1]) for c in row) for row in rows), None, per_image)


def spelled_out(classes: Any, n: int) -> tuple[list[list[Any]], bool]:
    """One list of classes for each of n images, and whether the caller gave it so; whether they exist is not checked.

    Raises:
        TargetError: not one entry per image, or single classes and lists mixed.
    """
    if isinstance(classes, Tensor):
        classes = classes.tolist()
    if not isinstance(classes, (list, tuple, range)) and not hasattr(classes, "__len__"):
        return [[classes] for _ in range(n)], False
    entries = [e.tolist() if isinstance(e, Tensor) else e for e in classes]
    if len(entries) != n:
        raise TargetError(
            f"{len(entries)} entries in classes for {n} images; give one class for all, one per image, or one list per "
            f"image (several classes of one image: [[...]])."
        )
    lists = [hasattr(e, "__len__") and not isinstance(e, str) for e in entries]
    if any(lists) and not all(lists):
        raise TargetError("classes mixes single classes and lists; give one class per image, or one list per image.")
    per_image = all(lists) and n > 0
    return [list(e) if per_image else [e] for e in entries], per_image


def _index(value: Any, count: int) -> int:
    try:
        index = operator.index(value)
    except TypeError:
        raise TargetError(f"{value!r} is no class index; allowed are whole numbers from 0 to {count - 1}.") from None
    if isinstance(value, bool) or not 0 <= index < count:
        raise TargetError(f"class {value} is outside the model's {count} classes; allowed are 0 to {count - 1}.")
    return index
