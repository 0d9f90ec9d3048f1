"""Explainers in words, for consoles and notebooks."""

from __future__ import annotations

import inspect
from typing import Any

from typing_extensions import override


class Described:
    """Base class of explainers, whose `repr` is the call that makes them."""

    model: Any

    @override
    def __repr__(self) -> str:
        return describe_call(self, type(self.model).__name__)


def describe_call(explainer: object, first: str) -> str:
    """Return an explainer as a call, with the options that differ from the defaults.

    Args:
        explainer: an explainer, which keeps its options under their own names.
        first: first argument.
    """
    options = [
        f"{name}={value!r}"
        for name, parameter in inspect.signature(type(explainer)).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY or parameter.default is not parameter.empty
        for value in [getattr(explainer, name, parameter.default)]
        if isinstance(value, (str, int, float, tuple, list, type(None))) and value != parameter.default
    ]
    return f"{type(explainer).__name__}({', '.join([first, *options])})"
