"""Several methods on one photograph, all for the same class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from camplug.errors import CamplugError
from camplug.explain.base import Explainer
from camplug.explain.explanation import Explanation
from camplug.explain.registry import get_method, list_methods
from camplug.plug.layers import has_attention


def list_quick_methods(model: nn.Module) -> list[str]:
    """List the methods that fit a model and take few passes."""
    skipped = ("needs_many_passes",) if has_attention(model) else ("needs_many_passes", "needs_attention")
    return [n for n in list_methods() if not any(getattr(get_method(n), kind) for kind in skipped)]


def explain_by_methods(
    explainers: Mapping[str, Callable[[], Explainer]], photo: Any, wanted: Any
) -> tuple[list[tuple[Explainer, Explanation]], list[dict[str, str]]]:
    """Explain a photograph by several methods, all for the class of the first one.

    Args:
        explainers: functions that make the explainers, by method.
        photo: one photograph, see `camplug.explain.photographs.explain`.
        wanted: class index or name; None for the predicted class.

    Returns:
        The explainers with their explanations, and the methods that cannot work on the model, with the reasons.

    Raises:
        CamplugError: no method works on the model.
    """
    results: list[tuple[Explainer, Explanation]] = []
    refused: list[dict[str, str]] = []
    for name, make in explainers.items():
        try:
            explainer = make()
            result = explainer.explain(photo, wanted)
        except CamplugError as error:
            refused.append({"method": name, "error": str(error)})
            if len(refused) == len(explainers):
                raise CamplugError(refused[0]["error"]) from error
            continue
        assert isinstance(result, Explanation)
        results.append((explainer, result))
        wanted = result.classes[0]
    return results, refused
