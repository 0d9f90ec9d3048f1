"""Metrics by name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from camplug.errors import InputError
from camplug.plugins import PREFIX, import_object, is_same_definition, load_plugins

if TYPE_CHECKING:
    from camplug.trust.trial import Trial

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """Metric that `Trust` computes.

    Attributes:
        name: name in tables.
        better: "higher" or "lower".
        compute: function from a `Trial` of K explainers and N images to values [K,N].
        needs_masks: the metric compares with masks of the objects.
    """

    name: str
    better: Better
    compute: Callable[[Trial], Tensor]
    needs_masks: bool = False


_metrics: dict[str, Metric] = {}


def register_metric(
    name: str, better: Better, *, needs_masks: bool = False
) -> Callable[[Callable[[Trial], Tensor]], Callable[[Trial], Tensor]]:
    """Decorate a function of a `Trial` to make it available to `Trust` by name.

    The same function of the same module may be registered again.

    Args:
        name: name of the metric.
        better: "higher" or "lower".
        needs_masks: the metric compares with masks of the objects.

    Raises:
        InputError: when the decorator is applied, another function has the name.
    """

    def add(compute: Callable[[Trial], Tensor]) -> Callable[[Trial], Tensor]:
        old = _metrics[name].compute if name in _metrics else None
        if old is not None and not is_same_definition(old, compute):
            raise InputError(f"the metric {name!r} is taken by {old.__module__}.{old.__qualname__}.")
        _metrics[name] = Metric(name, better, compute, needs_masks)
        return compute

    return add


def list_metrics(pattern: str = "*") -> list[str]:
    """List the names of the metrics that match a wildcard pattern, in alphabetical order.

    >>> list_metrics("confidence*")
    ['confidence_drop', 'confidence_gain', 'confidence_increase']
    """
    load_plugins()
    return sorted(fnmatch.filter(_metrics, pattern))


def find_metrics(names: str | Sequence[str]) -> list[Metric]:
    """Return the metrics of names, of wildcard patterns, or of "import:PACKAGE.MODULE:NAME", each once.

    Raises:
        InputError: nothing matches, or the imported object is no `Metric`.
    """
    found: dict[str, Metric] = {}
    for pattern in [names] if isinstance(names, str) else names:
        if pattern.startswith(PREFIX):
            metric = import_object(pattern)
            if not isinstance(metric, Metric):
                raise InputError(f"{pattern!r} is {metric!r}; give a camplug.trust.Metric.")
            found[metric.name] = metric
            continue
        matching = list_metrics(pattern)
        if not matching:
            raise InputError(f"there is no metric {pattern!r}; available are {', '.join(list_metrics())}.")
        found.update({name: _metrics[name] for name in matching})
    return list(found.values())
