"""Base class for explainers that compose another explainer."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from torch import Tensor
from typing_extensions import override

from camplug.errors import CamplugError, InputError, TargetError, make_size_error
from camplug.explain.base import Explainer, Result
from camplug.explain.batch import compute_logits
from camplug.explain.describe import describe_call
from camplug.explain.fuse import Normalize
from camplug.explain.inputs import Batch
from camplug.plug import Classes, UndecidedError, list_classes, resolve_classes


class Wrapper(Explainer):
    """Base class of explainers that run another one; model, class names and preprocessing are taken from it.

    Args:
        explainer: any explainer, including wrappers.
        normalize: normalisation of the fused map: "max", "minmax" or None.
    """

    kind: str = ""

    def __init__(self, explainer: Explainer, *, normalize: Normalize = "max") -> None:
        if not isinstance(explainer, Explainer):
            raise InputError(
                f"{type(self).__name__} wraps an explainer, for instance {type(self).__name__}(camplug.FullyCAM(model))"
                f"; got {type(explainer).__name__}."
            )
        super().__init__(
            explainer.model,
            normalize=normalize,
            class_names=explainer.class_names,
            preprocess=explainer.preprocess,
        )
        self.evidence = explainer.evidence
        self.explainer = explainer
        self.name = f"{self.kind}({explainer.name})"

    @override
    def __repr__(self) -> str:
        return describe_call(self, repr(self.explainer))

    @override
    def without_normalization(self) -> Self:
        other = super().without_normalization()
        other.explainer = self.explainer.without_normalization()
        return other

    def choose_classes(self, batch: Batch, classes: Classes) -> tuple[list[list[int]], bool]:
        """Return the classes of each image, so that all runs explain the same; predicted ones need one forward pass.

        Returns:
            One list per image, and whether the caller gave one list per image.

        Raises:
            TargetError: `classes` is a callable.
        """
        if is_score(classes):
            raise TargetError(f"{type(self).__name__} explains classes, not a callable; GradCAM or FullyCAM take one.")
        if classes is None:
            try:
                targets = resolve_classes(None, compute_logits(self.model, batch), len(batch))
            except UndecidedError:
                targets = self.explainer.run_batch(batch, None).targets
            return [list(row) for row in targets.classes], False
        return list_classes(classes, len(batch), lambda: compute_logits(self.model, batch).shape[1])


def run_at_size(
    explainer: Explainer, batch: Batch, wanted: Any, called: str, size: tuple[int, int] | None = None
) -> Result:
    """Run an explainer on images of another size than the caller's.

    Args:
        explainer: inner explainer.
        batch: resized images.
        wanted: classes or a callable.
        called: description of the images and way to avoid them, for the error.
        size: size of the maps.

    Raises:
        ModelError: the model does not accept images of this size, or memory ran out.
    """
    try:
        return explainer.run_batch(batch, wanted, size)
    except CamplugError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise make_size_error(error, batch.size, called) from error


def set_class_form(result: Result, per_image: bool) -> Result:
    """Return the result in the form of the caller's classes: one map per image, or one list per image."""
    return replace(result, targets=replace(result.targets, per_image=per_image))


def is_score(classes: Any) -> bool:
    """Return whether `classes` is a callable score."""
    return callable(classes) and not isinstance(classes, Tensor)


def is_number(value: Any, kind: type = numbers.Real) -> bool:
    """Return whether an option is a number (`numbers.Integral`: a whole number), and no bool."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Check the value of an option.

    Raises:
        InputError: the value is not allowed.
    """
    if value not in allowed:
        raise InputError(f"{name}={value!r}; allowed are {', '.join(map(repr, allowed))}.")
